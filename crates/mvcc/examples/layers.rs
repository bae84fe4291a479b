//! What the overlay costs: get, range(100) and put through the three layers, against bare LMDB holding the same keys.
//!
//! Times are of CPU, so that a busy machine disturbs them little; the last line counts both threads.
//!
//! `cargo run --release -p milepost-mvcc --example layers [keys [bytes that may be behind]]`

use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::{Engine, Table};
use milepost_mvcc::{RangeOptions, Store, StoreOptions, Writer};
use milepost_types::{KeyRange, LeaseId, LogIndex, Term};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::time::{ClockId, clock_gettime};

const VALUE_BYTES: usize = 256;

fn key(n: u64) -> Bytes {
    format!("/registry/things/{n:07}").into()
}

struct Load {
    store: Store,
    writer: Writer,
    index: u64,
    rng: SmallRng,
    keys: u64,
}

impl Load {
    fn put(&mut self, n: u64) {
        self.index += 1;
        let mut change = self.writer.begin(LogIndex(self.index), Term(1));
        change.put(key(n), Bytes::from(vec![b'v'; VALUE_BYTES]), LeaseId(0)).expect("put");
        black_box(change.finish().expect("finish"));
    }

    fn random(&mut self) -> u64 {
        self.rng.random_range(0..self.keys)
    }
}

fn now(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).expect("since the thread began")
}

/// CPU time of `rounds` runs of `body` on this thread, per run.
fn time(rounds: u32, mut body: impl FnMut()) -> Duration {
    let start = now(ClockId::ThreadCPUTime);
    for _ in 0..rounds {
        body();
    }
    (now(ClockId::ThreadCPUTime) - start) / rounds
}

fn main() {
    let keys: u64 = std::env::args().nth(1).map_or(100_000, |keys| keys.parse().expect("a number of keys"));
    let dir = tempfile::tempdir().expect("directory");
    let engine = Arc::new(
        LmdbEngine::open(dir.path(), LmdbOptions { check: Some(milepost_mvcc::is_sealed), ..LmdbOptions::default() })
            .expect("open"),
    );
    let own = StoreOptions { background: false, ..StoreOptions::default() };
    let behind_bytes =
        std::env::args().nth(2).map_or(own.behind_bytes, |bytes| bytes.parse().expect("a number of bytes"));
    let options = StoreOptions { behind_bytes, ..own };
    let (store, writer, _) = Store::open(engine.clone(), options.clone()).expect("open");
    let mut load = Load { store, writer, index: 0, rng: SmallRng::seed_from_u64(1), keys };
    for n in 0..keys {
        load.put(n);
    }
    load.store.force_sync().expect("sync");

    println!("{keys} keys of {} bytes, values of {VALUE_BYTES}", key(0).len());
    let probes: Vec<Bytes> = (0..200_000).map(|_| key(load.random())).collect();
    let mut next = probes.iter().cycle();
    let mut bare = || {
        let txn = engine.read().expect("read");
        black_box(txn.get(Table::Current, next.next().expect("endless")).expect("get").map(Bytes::copy_from_slice));
    };
    println!("bare get               {:?}", time(200_000, &mut bare));
    let mut bare_range = || {
        let txn = engine.read().expect("read");
        let from = next.next().expect("endless");
        let mut cursor = txn.scan(Table::Current, Bound::Included(from), Bound::Unbounded).expect("scan");
        for _ in 0..100 {
            let Some((key, value)) = cursor.next().expect("next") else { break };
            black_box((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        }
    };
    println!("bare range(100)        {:?}", time(10_000, &mut bare_range));
    reads(&load.store, &probes, "empty overlay");

    let put = time(9_900, || {
        let n = load.random();
        load.put(n);
    });
    println!("put, one generation    {put:?}");
    reads(&load.store, &probes, "9.9 k in memory");
    commits(&mut load);
    background(engine, options, load);
}

fn reads(store: &Store, probes: &[Bytes], what: &str) {
    let mut next = probes.iter().cycle();
    let get = time(200_000, || {
        black_box(store.view().get(next.next().expect("endless"), 0).expect("get"));
    });
    let options = RangeOptions { limit: 100, count: false, values: true };
    let range = time(10_000, || {
        let range = KeyRange::from_wire(next.next().expect("endless"), b"\0");
        black_box(store.view().range(range, 0, options).expect("range"));
    });
    println!("get        {what:16} {get:?}\nrange(100) {what:16} {range:?}");
}

fn commits(load: &mut Load) {
    load.store.force_sync().expect("sync");
    let mut spent = Duration::ZERO;
    for _ in 0..10 {
        for _ in 0..9_999 {
            let n = load.random();
            load.put(n);
        }
        spent += time(1, || {
            load.store.step(true).expect("commit");
        });
    }
    println!("commit of 10 k puts    {:?}", spent / 10);
}

fn background(engine: Arc<LmdbEngine>, options: StoreOptions, load: Load) {
    let Load { store, writer, keys, rng, .. } = load;
    drop((store, writer));
    let (store, writer, opened) = Store::open(engine, StoreOptions { background: true, ..options }).expect("open");
    let mut load = Load { store, writer, index: opened.applied.0, keys, rng };
    let start = now(ClockId::ProcessCPUTime);
    for _ in 0..300_000 {
        let n = load.random();
        load.put(n);
    }
    let put = (now(ClockId::ProcessCPUTime) - start) / 300_000;
    println!("put, commits behind    {put:?} on both threads ({} stalls)", load.store.stats().stalls);
}
