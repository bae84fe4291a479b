//! Keys longer than an engine takes: order, bounds and counts are those of the whole keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::Engine;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::mem::MemEngine;
use milepost_mvcc::{RangeOptions, Store, StoreOptions};
use milepost_types::{KeyRange, LeaseId, LogIndex, Term};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};

/// Keys of 470 to 2000 bytes, most of which share a prefix of some length around the cut with another one.
fn keys(rng: &mut SmallRng) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for _ in 0..300 {
        let len = if rng.random() { rng.random_range(470..480) } else { rng.random_range(470..=2000) };
        let mut key = vec![0; len];
        rng.fill_bytes(&mut key);
        if let (Some(other), true) = (keys.choose(rng), rng.random_bool(0.9)) {
            let shared = rng.random_range(460..=500).min(len).min(other.len());
            key[..shared].copy_from_slice(&other[..shared]);
            if let Some(next) = key.get_mut(shared) {
                *next = *[0, 1, 2, 0x7f, 0x80, 0xfe, 0xff].choose(rng).expect("some");
            }
        }
        keys.push(key);
    }
    keys
}

fn bound(keys: &[Vec<u8>], rng: &mut SmallRng) -> Vec<u8> {
    let mut key = keys.choose(rng).expect("some").clone();
    match rng.random_range(0..5) {
        0 => key.push(0),
        1 => key.truncate(rng.random_range(468..=key.len().max(469))),
        2 => key.extend([0xff; 40]),
        _ => {}
    }
    key
}

fn agrees_with_a_set(engine: Arc<dyn Engine>, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let keys = keys(&mut rng);
    let options = StoreOptions { background: false, ..StoreOptions::default() };
    let (store, mut writer, _) = Store::open(engine, options).expect("open");
    let mut set = BTreeSet::new();
    for (index, key) in keys.iter().enumerate() {
        let mut change = writer.begin(LogIndex(index as u64 + 1), Term(1));
        if index % 7 == 6 {
            let doomed = bound(&keys[..index], &mut rng);
            change.delete_range(KeyRange::single(&doomed), false).expect("delete");
            set.remove(&doomed);
        }
        change.put(Bytes::copy_from_slice(key), Bytes::copy_from_slice(&key[..8]), LeaseId(9)).expect("put");
        change.finish().expect("finish");
        set.insert(key.clone());
        if rng.random_bool(0.02) {
            store.step(true).expect("commit");
        }
    }
    for _ in 0..300 {
        let (start, end) = (bound(&keys, &mut rng), bound(&keys, &mut rng));
        let end: &[u8] = if rng.random_bool(0.2) { b"\0" } else { &end };
        let range = KeyRange::from_wire(&start, end);
        let found = store.view().range(range, 0, RangeOptions::default()).expect("range");
        let found: Vec<_> = found.records.iter().map(|record| record.key.to_vec()).collect();
        let expected: Vec<_> = set.iter().filter(|key| range.contains(key)).cloned().collect();
        assert_eq!(found, expected, "seed {seed}");
        assert_eq!(store.view().get(&start, 0).expect("get").is_some(), set.contains(&start));
    }
    store.force_sync().expect("sync");
    let attached: BTreeSet<_> =
        store.view().attached(LeaseId(9)).expect("attached").into_iter().map(Vec::from).collect();
    assert_eq!(attached, set);
}

#[test]
fn in_memory() {
    for seed in 0..20 {
        agrees_with_a_set(Arc::new(MemEngine::new()), seed);
    }
}

#[test]
fn on_disk() {
    for seed in 0..3 {
        let dir = tempfile::tempdir().expect("directory");
        agrees_with_a_set(Arc::new(LmdbEngine::open(dir.path(), LmdbOptions::default()).expect("engine")), seed);
    }
}
