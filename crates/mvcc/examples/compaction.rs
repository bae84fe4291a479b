//! What a compaction costs: keys with three revisions each, compacted to the newest.
//!
//! `cargo run --release -p milepost-mvcc --example compaction [keys] [hash]`

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_mvcc::{Store, StoreOptions};
use milepost_types::{LeaseId, LogIndex, Term};
use rustix::time::{ClockId, clock_gettime};

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("since the thread began")
}

fn main() {
    let keys: u64 = std::env::args().nth(1).map_or(100_000, |keys| keys.parse().expect("a number of keys"));
    let compaction_hash = std::env::args().nth(2).is_some();
    let dir = tempfile::tempdir().expect("directory");
    let engine = Arc::new(LmdbEngine::open(dir.path(), LmdbOptions::default()).expect("open"));
    let options = StoreOptions { background: false, compaction_hash, ..StoreOptions::default() };
    let (store, mut writer, _) = Store::open(engine, options).expect("open");
    let mut index = 0;
    let start = cpu();
    for n in 0..keys * 3 {
        index += 1;
        let mut change = writer.begin(LogIndex(index), Term(1));
        let key = format!("/registry/things/{:07}", n * 7919 % keys);
        change.put(key.into(), Bytes::from(vec![b'v'; 256]), LeaseId(0)).expect("put");
        change.finish().expect("finish");
    }
    store.force_sync().expect("sync");
    println!("{} puts: {:?} of CPU, {:?}", keys * 3, cpu() - start, store.sizes());
    let mut change = writer.begin(LogIndex(index + 1), Term(1));
    let newest = change.revision();
    change.compact(newest).expect("compact");
    change.finish().expect("finish");
    let (start, mut steps, mut longest) = (cpu(), 0, Duration::ZERO);
    loop {
        let step = cpu();
        if !store.step(true).expect("step") {
            break;
        }
        steps += 1;
        longest = longest.max(cpu() - step);
    }
    let (spent, stats) = (cpu() - start, store.stats());
    println!("compaction: {} visited, {} deleted in {steps} steps", stats.compaction_visited, stats.compaction_deleted);
    println!("{spent:?} of CPU, at most {longest:?} in a step; {:?}", store.sizes());
}
