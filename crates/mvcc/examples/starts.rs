//! What a start costs that has to read history again: so many keys in `current`, so many puts to keys drawn evenly behind.
//!
//! `cargo run --release -p milepost-mvcc --example starts [keys [puts [directory [rounds]]]]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_mvcc::{Store, StoreOptions, Writer};
use milepost_types::{LeaseId, LogIndex, Term};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

const VALUE_BYTES: usize = 256;
const PUTS_OF_AN_ENTRY: u64 = 100;

fn key(n: u64) -> Bytes {
    format!("{n:012}").into()
}

fn main() {
    let arg = |n: usize, default: u64| std::env::args().nth(n).map_or(default, |arg| arg.parse().expect("a number"));
    let (keys, puts, rounds) = (arg(1, 1_000_000), arg(2, 1_500_000), arg(4, 3));
    let dir = tempfile::tempdir_in(std::env::args().nth(3).map_or_else(std::env::temp_dir, PathBuf::from));
    let dir = dir.expect("directory");
    let open = |options: &StoreOptions| {
        let lmdb = LmdbOptions { check: Some(milepost_mvcc::is_sealed), ..LmdbOptions::default() };
        let engine = Arc::new(LmdbEngine::open(dir.path(), lmdb).expect("engine"));
        Store::open(engine, options.clone()).expect("open")
    };
    let behind = StoreOptions {
        behind_bytes: usize::MAX,
        behind_records: u64::MAX,
        behind_records_most: u64::MAX,
        background: false,
        ..StoreOptions::default()
    };
    let mut index = 0;
    let mut put = |writer: &mut Writer, keys: &mut dyn Iterator<Item = u64>| {
        let keys: Vec<u64> = keys.collect();
        for some in keys.chunks(PUTS_OF_AN_ENTRY as usize) {
            index += 1;
            let mut change = writer.begin(LogIndex(index), Term(1));
            for n in some {
                change.put(key(*n), Bytes::from(vec![b'v'; VALUE_BYTES]), LeaseId(0)).expect("put");
            }
            change.finish().expect("finish");
        }
    };
    let (store, mut writer, _) = open(&StoreOptions { behind_bytes: 0, ..behind.clone() });
    put(&mut writer, &mut (0..keys));
    store.force_sync().expect("sync");
    drop((store, writer));
    let (store, mut writer, _) = open(&behind);
    let mut rng = SmallRng::seed_from_u64(1);
    put(&mut writer, &mut (0..puts).map(|_| rng.random_range(0..keys)));
    store.force_sync().expect("sync");
    println!("{keys} keys, {puts} puts behind, {} MiB of memory", store.stats().behind_bytes >> 20);
    drop((store, writer));
    for _ in 0..rounds {
        let (begun, cpu) = (Instant::now(), clock_gettime(ClockId::ProcessCPUTime));
        let (store, _writer, opened) = open(&behind);
        let spent = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).expect("since the start")
            - Duration::try_from(cpu).expect("since the start");
        println!(
            "opened in {:?}, {spent:?} of CPU: {} records, {} MiB",
            begun.elapsed(),
            opened.records_rebuilt,
            store.stats().behind_bytes >> 20
        );
    }
}
