//! Bytes that the store writes per put, and what it would write if `current` were written behind `history`.
//!
//! `cargo run --release -p milepost-mvcc --example write_cost -- <keys> <puts> [store|now|history|behind:<MiB>|pointer:<MiB>]…`
//!
//! `store` is the real store; the others write records of the same sizes to the engine in the order in question:
//! `now` as the store does, `history` without `current`, `behind` with `current` merged in key order whenever the newest
//! records of that many MiB of memory have gathered, `pointer` the same with the place in `history` instead of the value.
//! Counted is what passes through write calls (`wchar` of `/proc/self/io`); the log comes on top. Keys are eight bytes,
//! values 256, keys drawn evenly; a generation has 10,000 changes. Without syncs: they change no bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::{Engine, Table};
use milepost_mvcc::{Store, StoreOptions};
use milepost_types::{LeaseId, LogIndex, Term};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const GENERATION: u64 = 10_000;
const VALUE_BYTES: usize = 256;
/// A record of `history` beside its value: checksum, flags, numbers, links, key.
const HISTORY_BYTES: usize = VALUE_BYTES + 26;
/// A record of `current` beside its value: checksum, flags, numbers, links.
const CURRENT_BYTES: usize = VALUE_BYTES + 30;
const POINTER_BYTES: usize = 30;
/// What a newest record costs in memory beside its bytes.
const ENTRY_OVERHEAD: usize = 64;

fn written() -> u64 {
    let text = String::from_utf8(read("/proc/self/io")).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("wchar");
    line.parse().expect("a number")
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(path).expect("read")
}

fn key(n: u64) -> [u8; 8] {
    // As the load generator's: spread over the whole space, in no order.
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

fn options() -> LmdbOptions {
    LmdbOptions { no_sync: true, check: None, ..LmdbOptions::default() }
}

fn real(keys: u64, puts: u64) -> f64 {
    let dir = tempfile::tempdir().expect("directory");
    let engine = Arc::new(LmdbEngine::open(dir.path(), options()).expect("engine"));
    let options = StoreOptions { background: false, ..StoreOptions::default() };
    let (store, mut writer, _) = Store::open(engine, options).expect("open");
    let mut rng = SmallRng::seed_from_u64(1);
    let mut index = 0;
    let mut put = |n: u64| {
        index += 1;
        let mut change = writer.begin(LogIndex(index), Term(1));
        let key = Bytes::copy_from_slice(&key(n));
        change.put(key, Bytes::from(vec![b'v'; VALUE_BYTES]), LeaseId(0)).expect("put");
        change.finish().expect("finish");
        if index % GENERATION == 0 {
            while store.step(true).expect("step") {}
        }
    };
    (0..keys).for_each(&mut put);
    let before = written();
    (0..puts).for_each(|_| put(rng.random_range(0..keys)));
    (written() - before) as f64 / puts as f64
}

struct Prototype {
    engine: LmdbEngine,
    revision: u64,
    pending: BTreeMap<[u8; 8], u64>,
    /// Bytes of a record in `current`.
    row: usize,
    merges: u64,
}

impl Prototype {
    fn generation(&mut self, keys: impl Iterator<Item = u64>, bound: Option<usize>) {
        let mut txn = self.engine.write().expect("write");
        for n in keys {
            self.revision += 1;
            let mut revision = [0; 16];
            revision[..8].copy_from_slice(&self.revision.to_be_bytes());
            txn.append(Table::History, &revision, &[b'h'; HISTORY_BYTES]).expect("append");
            self.pending.insert(key(n), self.revision);
        }
        txn.put(Table::Meta, b"applied", &self.revision.to_be_bytes()).expect("put");
        let held = self.pending.len() * (8 + self.row + ENTRY_OVERHEAD);
        if bound.is_some_and(|bound| held >= bound) {
            self.merges += 1;
            let row = vec![b'c'; self.row];
            for key in std::mem::take(&mut self.pending).into_keys() {
                txn.put(Table::Current, &key, &row).expect("put");
            }
        }
        txn.commit().expect("commit");
    }
}

fn prototype(keys: u64, puts: u64, row: usize, bound: Option<usize>) -> (f64, u64) {
    let dir = tempfile::tempdir().expect("directory");
    let engine = LmdbEngine::open(dir.path(), options()).expect("engine");
    let mut this = Prototype { engine, revision: 0, pending: BTreeMap::new(), row, merges: 0 };
    let mut rng = SmallRng::seed_from_u64(1);
    for first in (0..keys).step_by(GENERATION as usize) {
        this.generation(first..keys.min(first + GENERATION), bound.map(|_| 0));
    }
    let (before, merges) = (written(), this.merges);
    for _ in 0..puts / GENERATION {
        let drawn: Vec<u64> = (0..GENERATION).map(|_| rng.random_range(0..keys)).collect();
        this.generation(drawn.into_iter(), bound);
    }
    // An orderly end merges what is left.
    if bound.is_some() {
        this.generation(std::iter::empty(), Some(0));
    }
    ((written() - before) as f64 / puts as f64, this.merges - merges)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
    let (Some(keys), Some(puts)) = (number(0), number(1)) else {
        return eprintln!("usage: write_cost <keys> <puts> [store|now|history|behind:<MiB>|pointer:<MiB>]…");
    };
    for mode in &words[2..] {
        let (name, mib) = mode.split_once(':').unwrap_or((mode, "0"));
        let bound = Some(mib.parse::<usize>().unwrap_or(0) << 20);
        let (bytes, merges) = match name {
            "store" => (real(keys, puts), puts / GENERATION),
            "now" => prototype(keys, puts, CURRENT_BYTES, bound),
            "history" => prototype(keys, puts, CURRENT_BYTES, None),
            "behind" => prototype(keys, puts, CURRENT_BYTES, bound),
            "pointer" => prototype(keys, puts, POINTER_BYTES, bound),
            _ => return eprintln!("unknown: {mode}"),
        };
        println!("{keys} keys, {puts} puts, {mode}: {bytes:.0} bytes per put, current written {merges} times");
    }
}
