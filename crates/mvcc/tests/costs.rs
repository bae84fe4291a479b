//! What things may cost, counted and not timed.

use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::mem::MemEngine;
use milepost_engine::{Engine, StoreDirectory, Table};
use milepost_mvcc::{RangeOptions, Store, StoreOptions, View, Writer, verify};
use milepost_types::{KeyRange, LeaseId, LogIndex, Term};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const BATCH: u64 = 1000;

fn options() -> StoreOptions {
    StoreOptions { background: false, compaction_batch: 1000, ..StoreOptions::default() }
}

/// Puts the keys `from..to`, a thousand to an entry.
fn fill(writer: &mut Writer, index: &mut u64, from: u64, to: u64) {
    for first in (from..to).step_by(BATCH as usize) {
        *index += 1;
        let mut change = writer.begin(LogIndex(*index), Term(1));
        for n in first..to.min(first + BATCH) {
            change.put(format!("key{n:08}").into(), Bytes::from_static(b"v"), LeaseId(0)).expect("put");
        }
        change.finish().expect("finish");
    }
}

/// Does all background work there is.
fn settle(store: &Store) {
    while store.step(true).expect("step") {}
}

fn compact(store: &Store, writer: &mut Writer, index: &mut u64) {
    *index += 1;
    let mut change = writer.begin(LogIndex(*index), Term(1));
    let revision = change.revision();
    change.compact(revision).expect("compact");
    change.finish().expect("finish");
    settle(store);
}

#[test]
fn opening_reads_as_little_with_many_keys_as_with_few() {
    const BEHIND: u64 = 20_000;
    let options = || StoreOptions { behind_records_most: BEHIND, ..options() };
    let mut counts = Vec::new();
    for keys in [10_000, 1_000_000] {
        let dir = tempfile::tempdir().expect("directory");
        let engine: Arc<dyn Engine> = Arc::new(LmdbEngine::open(dir.path(), LmdbOptions::default()).expect("engine"));
        let (store, mut writer, _) = Store::open(engine.clone(), options()).expect("open");
        fill(&mut writer, &mut 0, 0, keys);
        store.force_sync().expect("sync");
        drop((store, writer));
        let (store, _writer, opened) = Store::open(engine, options()).expect("open again");
        assert_eq!(store.revision(), 1 + keys.div_ceil(BATCH) as i64);
        assert!(opened.records_rebuilt <= 2 * BEHIND, "{opened:?}");
        counts.push(opened.records_read);
    }
    assert!(counts[0] < 20 && counts[0] == counts[1], "{counts:?}");
}

#[test]
fn what_shares_its_leaves_is_merged_and_what_does_not_waits() {
    const KEYS: u64 = 40_000;
    const BEHIND: u64 = 4000;
    let dir = tempfile::tempdir().expect("directory");
    let open = |options: StoreOptions| {
        let engine = Arc::new(LmdbEngine::open(dir.path(), LmdbOptions::default()).expect("engine"));
        Store::open(engine, options).expect("open")
    };
    let mut index = 0;
    let mut put = |store: &Store, writer: &mut Writer, keys: &mut dyn Iterator<Item = u64>| {
        for n in keys {
            index += 1;
            let mut change = writer.begin(LogIndex(index), Term(1));
            change.put(format!("key{n:08}").into(), Bytes::from_static(&[b'v'; 250]), LeaseId(0)).expect("put");
            change.finish().expect("finish");
        }
        settle(store);
    };
    let (store, mut writer, _) = open(StoreOptions { behind_bytes: 0, gen_changes: 1000, ..options() });
    put(&store, &mut writer, &mut (0..KEYS));
    drop((store, writer));
    let options = |bytes| StoreOptions {
        behind_records_in_order: BEHIND,
        behind_records: BEHIND,
        merge_record_bytes: bytes,
        gen_changes: 1000,
        ..options()
    };
    // In their order: a leaf for many.
    let (store, mut writer, _) = open(options(0));
    put(&store, &mut writer, &mut (0..BEHIND - 1000));
    assert_eq!(store.stats().merges, 0, "too few");
    put(&store, &mut writer, &mut (BEHIND - 1000..BEHIND));
    assert_eq!(store.stats().merges, 1);
    drop((store, writer));
    // Evenly drawn: a leaf for each, until most leaves are met anyway.
    let (store, mut writer, _) = open(options(400));
    let mut rng = SmallRng::seed_from_u64(1);
    let mut records = 0;
    while store.stats().merges == 0 {
        put(&store, &mut writer, &mut (0..1000).map(|_| rng.random_range(0..KEYS)));
        records += 1000;
        assert!(records < 2 * KEYS, "never merged");
    }
    assert!(records > 5 * BEHIND, "merged after {records}");
}

#[test]
fn an_old_revision_is_found_in_few_steps() {
    let (store, mut writer, _) = Store::open(Arc::new(MemEngine::new()), options()).expect("open");
    const VERSIONS: u64 = 100_000;
    for index in 1..=VERSIONS {
        let mut change = writer.begin(LogIndex(index), Term(1));
        change.put(Bytes::from_static(b"hot"), index.to_string().into(), LeaseId(0)).expect("put");
        change.finish().expect("finish");
    }
    store.force_sync().expect("sync");
    let mut worst = 0;
    for at in (2..=VERSIONS as i64 + 1).step_by(97) {
        let before = store.stats().history_visited;
        let record = store.view().get(b"hot", at).expect("get").expect("there");
        assert_eq!(record.revision.main, at);
        worst = worst.max(store.stats().history_visited - before);
    }
    assert!((2..=60).contains(&worst), "{worst}");
}

#[test]
fn a_compaction_looks_only_at_what_changed_since_the_last() {
    let (store, mut writer, _) = Store::open(Arc::new(MemEngine::new()), options()).expect("open");
    let mut index = 0;
    fill(&mut writer, &mut index, 0, 100_000);
    compact(&store, &mut writer, &mut index);
    let first = store.stats();
    assert_eq!((first.compaction_visited, first.compaction_deleted), (100_000, 0));
    fill(&mut writer, &mut index, 500, 1500);
    compact(&store, &mut writer, &mut index);
    let second = store.stats();
    // The records of the bound itself are looked at again: tombstones there were kept by the last compaction.
    assert_eq!(second.compaction_visited - first.compaction_visited, 1000 + BATCH);
    assert_eq!(second.compaction_deleted, 1000);
}

fn count(view: &View, start: &[u8], at: i64) -> i64 {
    let options = RangeOptions { limit: 1, count: true, values: false };
    view.range(KeyRange::from_wire(start, b"kez"), at, options).expect("range").count
}

#[test]
fn pages_of_one_revision_are_counted_while_others_write() {
    let (store, mut writer, _) = Store::open(Arc::new(MemEngine::new()), options()).expect("open");
    let mut index = 0;
    fill(&mut writer, &mut index, 0, 20_000);
    let view = store.view();
    let (mut start, mut left, mut pages) = (b"key".to_vec(), 20_000, 0);
    // As the machine asks: one more than the page holds, to know whether there is more.
    let page = RangeOptions { limit: 501, count: true, values: false };
    while left > 0 {
        let range = KeyRange::from_wire(&start, b"kez");
        let found = view.range(range, view.revision(), page).expect("range");
        assert_eq!(found.count, left);
        start = [&found.records[499.min(found.records.len() - 1)].key[..], &[0]].concat();
        left -= 500;
        pages += 1;
        fill(&mut writer, &mut index, pages * 7, pages * 7 + 3);
    }
    assert_eq!(pages, 40);
    assert!(store.stats().counts_known >= 37, "all but the last: {:?}", store.stats());
}

#[test]
fn a_count_is_known_after_every_kind_of_start() {
    let dir = tempfile::tempdir().expect("directory");
    let open = || -> Arc<dyn Engine> {
        let directory = StoreDirectory::open(Arc::new(milepost_env::OsDisk), dir.path());
        let directory = Arc::new(directory.expect("directory"));
        Arc::new(LmdbEngine::open_current(directory, LmdbOptions::default()).expect("engine"))
    };
    let (store, mut writer, _) = Store::open(open(), options()).expect("open");
    let mut index = 0;
    fill(&mut writer, &mut index, 0, 30_000);
    store.force_sync().expect("sync");
    let before = store.revision();
    index += 1;
    let mut change = writer.begin(LogIndex(index), Term(1));
    change.delete_range(KeyRange::from_wire(b"key00010000", b"key00020000"), false).expect("delete");
    change.finish().expect("finish");
    let known = |store: &Store, at: i64| {
        let known = store.stats().counts_known;
        let counted = (count(&store.view(), b"key", at), count(&store.view(), b"key00015000", at));
        (counted, store.stats().counts_known - known)
    };
    assert_eq!(known(&store, store.revision()), ((20_000, 10_000), 2));
    assert_eq!(known(&store, before), ((30_000, 15_000), 2), "told from what changed since");
    store.force_sync().expect("sync");
    store.defragment().expect("defragment");
    assert_eq!(known(&store, store.revision()), ((20_000, 10_000), 2));
    fill(&mut writer, &mut index, 12_000, 13_000);
    drop((store, writer));
    // What was not committed is gone.
    let engine = open();
    verify(&*engine).expect("counts agree with the keys");
    let (store, mut writer, opened) = Store::open(engine, options()).expect("open again");
    assert!(opened.applied < LogIndex(index));
    index = opened.applied.0;
    assert_eq!(known(&store, store.revision()), ((20_000, 10_000), 2));
    assert_eq!(known(&store, before).0, (30_000, 15_000), "before the blocks can tell");
    compact(&store, &mut writer, &mut index);
    assert_eq!(known(&store, store.revision()), ((20_000, 10_000), 2));
    drop((store, writer));
    // Rows of another revision count for nothing.
    let engine = open();
    let mut txn = engine.write().expect("write");
    assert!(txn.delete(Table::Meta, b"counted").expect("delete"));
    txn.commit().expect("commit");
    let (store, mut writer, _) = Store::open(engine.clone(), options()).expect("open again");
    assert_eq!(known(&store, store.revision()), ((20_000, 10_000), 2));
    fill(&mut writer, &mut index, 10_000, 20_000);
    store.force_sync().expect("sync");
    verify(&*engine).expect("counts agree with the keys");
    assert_eq!(known(&store, store.revision()), ((30_000, 15_000), 2));
}

#[test]
fn counts_stay_right_while_keys_come_and_go() {
    for seed in 0..5 {
        let (store, mut writer, _) = Store::open(Arc::new(MemEngine::new()), options()).expect("open");
        let (mut index, mut rng) = (0, SmallRng::seed_from_u64(seed));
        fill(&mut writer, &mut index, 0, 3000);
        for _ in 0..400 {
            let n: u64 = rng.random_range(0..4000);
            index += 1;
            let mut change = writer.begin(LogIndex(index), Term(1));
            let (key, end) = (format!("key{n:08}"), format!("key{:08}", n + rng.random_range(1..4)));
            match rng.random_range(0..40) {
                0 => {
                    let floor = change.compact_revision().max(1);
                    let bound = rng.random_range(floor..=change.revision());
                    assert_eq!(change.compact(bound).is_ok(), bound > change.compact_revision());
                }
                1..20 => drop(change.put(key.into(), Bytes::new(), LeaseId(0)).expect("put")),
                _ => drop(
                    change.delete_range(KeyRange::from_wire(key.as_bytes(), end.as_bytes()), false).expect("delete"),
                ),
            }
            change.finish().expect("finish");
            if rng.random_bool(0.1) {
                store.step(true).expect("step");
            }
            let view = store.view();
            let at = rng.random_range(view.compact_revision().max(view.revision() - 30).max(2)..=view.revision());
            let start = ["key", "key00000500", "key00001000"][rng.random_range(0..3)];
            let range = KeyRange::from_wire(start.as_bytes(), [&b"key00003000"[..], b"\0"][rng.random_range(0..2)]);
            let all = view.range(range, at, RangeOptions { limit: 0, count: false, values: false }).expect("range");
            let some = view.range(range, at, RangeOptions { limit: 1, count: true, values: false }).expect("range");
            assert_eq!(some.count, all.records.len() as i64, "seed {seed}, at {at}");
        }
        assert!(store.stats().counts_known > 200, "{:?}", store.stats());
    }
}
