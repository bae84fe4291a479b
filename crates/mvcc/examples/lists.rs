//! What a list costs: keys with values too long for `current`, read in order and copied as an answer is made.
//!
//! Times are of CPU, so that a busy machine disturbs them little.
//!
//! `cargo run --release -p milepost-mvcc --example lists [keys [bytes of a value [written in order within so many keys]]]`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use milepost_engine::hint;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_mvcc::{RangeOptions, Store, StoreOptions};
use milepost_types::{KeyRange, LeaseId, LogIndex, Term};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 200;
/// How far ahead of what is written its place is fetched, as where answers are made.
const AHEAD_BYTES: usize = 4 << 10;

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("since the thread began")
}

/// The `n`th argument.
fn number(n: usize, default: usize) -> usize {
    std::env::args().nth(n).map_or(default, |number| number.parse().expect("a number"))
}

fn main() {
    let (keys, value_bytes, disorder) = (number(1, 10_000), number(2, 1024), number(3, 1));
    let dir = tempfile::tempdir().expect("directory");
    let options = LmdbOptions { check: Some(milepost_mvcc::is_sealed), ..LmdbOptions::default() };
    let engine = Arc::new(LmdbEngine::open(dir.path(), options).expect("open"));
    let options = StoreOptions { background: false, ..StoreOptions::default() };
    let (store, mut writer, _) = Store::open(engine, options).expect("open");
    let mut order: Vec<usize> = (0..keys).collect();
    let mut rng = SmallRng::seed_from_u64(1);
    order.chunks_mut(disorder.max(1)).for_each(|chunk| chunk.shuffle(&mut rng));
    for (index, n) in order.into_iter().enumerate() {
        let mut change = writer.begin(LogIndex(index as u64 + 1), Term(1));
        change.put(format!("{n:040}").into(), Bytes::from(vec![n as u8; value_bytes]), LeaseId(0)).expect("put");
        change.finish().expect("finish");
    }
    store.force_sync().expect("sync");
    let mut answer = Vec::with_capacity(keys * (value_bytes + 100));
    let mut spent = Vec::new();
    for _ in 0..ROUNDS {
        answer.clear();
        let start = cpu();
        let range = KeyRange::from_wire(b"0", b"1");
        let count = store.view().each(range, 0, RangeOptions::default(), &mut |record| {
            let ahead = answer.spare_capacity_mut().get(AHEAD_BYTES..).unwrap_or_default();
            hint::soon(&ahead[..record.value.len().min(ahead.len())]);
            answer.extend_from_slice(record.key);
            answer.extend_from_slice(record.value);
        });
        spent.push(cpu() - start);
        assert_eq!(count.expect("range"), keys as i64);
        black_box(&answer);
    }
    spent.sort_unstable();
    println!("{keys} keys, values of {value_bytes} bytes, written in order within {disorder}:");
    println!("a list takes {:?} (median), {:?} (least)", spent[ROUNDS / 2], spent[0]);
}
