//! What a compaction and a defragmentation cost: a million keys with three revisions each, written in order, a hundred to a
//! transaction, by rounds over all keys. Run on what is in memory already, so that the disk counts for little.
//!
//! `cargo run --release -p milepost-mvcc --example space DIRECTORY load|compact|defragment`

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use milepost_engine::StoreDirectory;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_env::OsDisk;
use milepost_mvcc::{Store, StoreOptions, Writer, is_sealed};
use milepost_types::{LeaseId, LogIndex, Term};
use rustix::time::{ClockId, clock_gettime};

const KEYS: u64 = 1_000_000;
const PER_TXN: u64 = 100;
const ROUNDS: u64 = 3;
const KEPT: i64 = 12_000;

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).expect("since the process began")
}

fn open(dir: &Path) -> (Store, Writer, u64) {
    let directory = StoreDirectory::open(Arc::new(OsDisk), dir).expect("directory");
    let lmdb = LmdbOptions { check: Some(is_sealed), ..LmdbOptions::default() };
    let engine = LmdbEngine::open_current(Arc::new(directory), lmdb).expect("engine");
    let options = StoreOptions { background: false, compaction_hash: true, ..StoreOptions::default() };
    let (store, writer, opened) = Store::open(Arc::new(engine), options).expect("store");
    (store, writer, opened.applied.0)
}

fn load(store: &Store, writer: &mut Writer, mut index: u64) {
    for first in (0..ROUNDS).flat_map(|_| (0..KEYS).step_by(PER_TXN as usize)) {
        index += 1;
        let mut change = writer.begin(LogIndex(index), Term(1));
        for key in first..first + PER_TXN {
            let value = Bytes::from(vec![b'v'; 256]);
            change.put(format!("{key:012}").into(), value, LeaseId(0)).expect("put");
        }
        change.finish().expect("finish");
        while store.step(false).expect("step") {}
    }
    store.force_sync().expect("sync");
}

fn compact(store: &Store, writer: &mut Writer, index: u64) {
    let mut change = writer.begin(LogIndex(index + 1), Term(1));
    let bound = change.revision() - KEPT;
    change.compact(bound).expect("compact");
    change.finish().expect("finish");
    let (mut steps, mut longest) = (0, Duration::ZERO);
    while let (step, true) = (cpu(), store.step(true).expect("step")) {
        steps += 1;
        longest = longest.max(cpu() - step);
    }
    let stats = store.stats();
    println!("{} visited, {} deleted in {steps} steps", stats.compaction_visited, stats.compaction_deleted);
    println!("at most {longest:?} of CPU in a step; {:?}", store.compaction_hashes());
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [dir, what] = &words[..] else { panic!("a directory, and load, compact or defragment") };
    let (store, mut writer, index) = open(Path::new(dir));
    let (start, began) = (cpu(), Instant::now());
    match &what[..] {
        "load" => load(&store, &mut writer, index),
        "compact" => compact(&store, &mut writer, index),
        "defragment" => store.defragment().expect("defragment"),
        _ => panic!("load, compact or defragment, not {what}"),
    }
    println!("{what}: {:?} of CPU in {:?}; {:?}", cpu() - start, began.elapsed(), store.sizes());
}
