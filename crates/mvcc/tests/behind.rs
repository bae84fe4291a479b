//! `current` is written behind `history`: power cuts in every state of a merge, starts from what they leave, and stores that
//! were written before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use milepost_engine::mem::MemEngine;
use milepost_engine::{Engine, Table};
use milepost_mvcc::{RangeOptions, Store, StoreError, StoreOptions, Writer, verify};
use milepost_types::{KeyRange, LeaseId, LogIndex, Term};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const PATIENCE: Duration = Duration::from_secs(60);

fn options() -> StoreOptions {
    // A slice of a merge is not larger than a generation.
    StoreOptions {
        background: false,
        gen_changes: 4,
        behind_records_most: 30,
        behind_values_bytes: 2000,
        ..StoreOptions::default()
    }
}

fn whole() -> StoreOptions {
    StoreOptions { behind_bytes: 0, ..options() }
}

fn open(engine: &Arc<MemEngine>, options: StoreOptions) -> (Store, Writer, u64) {
    let (store, writer, opened) = Store::open(engine.clone(), options).expect("open");
    (store, writer, opened.applied.0)
}

/// The changes of an entry: keys, and what they are set to; `None`: deleted.
type Entry = Vec<(Vec<u8>, Option<Vec<u8>>)>;

fn entries(seed: u64, count: usize) -> Vec<Entry> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut keys: Vec<Vec<u8>> = (0..25).map(|n| format!("key{n:02}").into_bytes()).collect();
    // Long keys stand in the engine by their digests, in another order than their own.
    keys.extend((0..5_u8).map(|n| [&[b'l'; 480][..], &[n]].concat()));
    let change = |rng: &mut SmallRng| {
        let key = keys.choose(rng).expect("some").clone();
        let len = *[0, 5, 700, 800].choose(rng).expect("some");
        (key, rng.random_bool(0.8).then(|| vec![rng.random(); len]))
    };
    let entry = |_| {
        // A key changes once in an entry.
        let changes: BTreeMap<_, _> = (0..rng.random_range(1..3)).map(|_| change(&mut rng)).collect();
        changes.into_iter().collect()
    };
    (0..count).map(entry).collect()
}

fn apply(writer: &mut Writer, index: u64, entry: &Entry) {
    let mut change = writer.begin(LogIndex(index), Term(1));
    for (key, value) in entry {
        match value {
            Some(value) => drop(change.put(key.clone().into(), value.clone().into(), LeaseId(0)).expect("put")),
            None => drop(change.delete_range(KeyRange::single(key), false).expect("delete")),
        }
    }
    change.finish().expect("finish");
}

fn flush(store: &Store) {
    while store.step(true).expect("step") {}
}

fn answers(store: &Store) -> Vec<(Bytes, Bytes, i64, i64)> {
    let all = store.view().range(KeyRange::all(), 0, RangeOptions::default()).expect("range");
    let answer = |record: &Arc<milepost_mvcc::Record>| {
        (record.key.clone(), record.value.clone(), record.revision.main, record.version)
    };
    all.records.iter().map(answer).collect()
}

/// What `entries` leave in the engine when `current` is written with each commit.
fn reference(entries: &[Entry]) -> Arc<MemEngine> {
    let engine = Arc::new(MemEngine::new());
    let (store, mut writer, _) = open(&engine, whole());
    for (index, entry) in (1..).zip(entries) {
        apply(&mut writer, index, entry);
    }
    flush(&store);
    engine
}

#[test]
fn a_power_cut_in_any_state_of_a_merge_loses_nothing() {
    for seed in 0..6 {
        let entries = entries(seed, 100);
        let expected = reference(&entries);
        let engine = Arc::new(MemEngine::new());
        let (store, mut writer, _) = open(&engine, options());
        let mut merging = 0;
        for (index, entry) in (1..).zip(&entries) {
            apply(&mut writer, index, entry);
            while store.step(false).expect("step") {
                let durable = store.durable().index;
                for keep_newest in [false, true] {
                    let left = Arc::new(engine.crash(keep_newest));
                    verify(&*left).expect("what a power cut leaves fits together");
                    let (store, mut writer, applied) = open(&left, options());
                    assert!(LogIndex(applied) >= durable);
                    merging += u64::from(store.stats().behind_bytes > 0);
                    let before = answers(&store);
                    let (known, _, _) = open(&reference(&entries[..applied as usize]), whole());
                    assert_eq!(before, answers(&known), "seed {seed}, {applied} applied");
                    // To the end, every other time with cuts behind us.
                    for (index, entry) in (applied + 1..).zip(&entries[applied as usize..]) {
                        apply(&mut writer, index, entry);
                        store.step(false).expect("step");
                    }
                    flush(&store);
                    drop((store, writer));
                    let (store, _writer, _) = open(&left, whole());
                    flush(&store);
                    for table in [Table::History, Table::Current, Table::Attached] {
                        assert_eq!(left.dump(table), expected.dump(table), "seed {seed}, {applied} applied");
                    }
                }
            }
        }
        assert!(store.stats().merges > 1 && merging > 50, "{:?}, {merging}", store.stats());
    }
}

#[test]
fn a_compaction_waits_until_what_it_takes_is_named_nowhere() {
    for seed in 0..6 {
        let entries = entries(seed, 60);
        let engine = Arc::new(MemEngine::new());
        let (store, mut writer, _) = open(&engine, StoreOptions { behind_records_most: 1000, ..options() });
        for (index, entry) in (1..).zip(&entries) {
            apply(&mut writer, index, entry);
            store.step(false).expect("step");
        }
        let mut change = writer.begin(LogIndex(61), Term(1));
        let bound = change.revision() - 5;
        change.compact(bound).expect("compact");
        change.finish().expect("finish");
        let known = answers(&store);
        // While it goes on keys are put again whose tombstones it takes.
        let mut index = 61;
        while store.step(true).expect("step") {
            for keep_newest in [false, true] {
                let left = Arc::new(engine.crash(keep_newest));
                verify(&*left).expect("what a power cut leaves fits together");
                let (left, _, applied) = open(&left, options());
                if applied >= 61 && applied == index {
                    assert_eq!(answers(&left), answers(&store), "seed {seed}");
                }
            }
            if index < 80 {
                index += 1;
                apply(&mut writer, index, &entries[index as usize - 62]);
            }
        }
        assert!(store.stats().compaction_deleted > 0 && !known.is_empty());
        let (again, _, _) = open(&engine, options());
        assert_eq!(answers(&again), answers(&store));
    }
}

/// A row of `meta` as the store writes it.
fn meta_row(key: &[u8], number: i64) -> Vec<u8> {
    let number = number.to_be_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &number);
    [&crc.to_le_bytes()[..], &number].concat()
}

#[test]
fn a_store_written_before_is_opened_and_goes_on() {
    let entries = entries(1, 60);
    let engine = reference(&entries[..40]);
    let mut txn = engine.write().expect("write");
    assert!(txn.delete(Table::Meta, b"current_through").expect("delete"));
    txn.put(Table::Meta, b"format", &meta_row(b"format", 1)).expect("put");
    txn.commit().expect("commit");
    verify(&*engine).expect("sound");
    let (store, mut writer, applied) = open(&engine, StoreOptions { behind_records_most: 1000, ..options() });
    assert_eq!((applied, store.stats().behind_bytes), (40, 0));
    for (index, entry) in (41..).zip(&entries[40..]) {
        apply(&mut writer, index, entry);
    }
    store.force_sync().expect("sync");
    let left = Arc::new(engine.crash(false));
    verify(&*left).expect("sound");
    let (again, _, applied) = open(&left, options());
    assert!(again.stats().behind_bytes > 0);
    assert_eq!((applied, answers(&again)), (60, answers(&store)));
    let mut txn = left.write().expect("write");
    assert!(txn.delete(Table::Meta, b"current_through").expect("delete"));
    txn.commit().expect("commit");
    let refused = Store::open(left, options()).map(drop);
    assert!(matches!(refused, Err(StoreError::Corrupt { table: "meta", .. })), "{refused:?}");
}

#[test]
fn a_row_that_history_does_not_go_on_from_is_damage() {
    let engine = Arc::new(MemEngine::new());
    let put = |key: &str, value: &str| vec![(key.into(), Some(value.into()))];
    let (store, mut writer, _) = open(&engine, whole());
    (1..=4).for_each(|index| apply(&mut writer, index, &put(["a", "b"][index as usize % 2], "1")));
    flush(&store);
    drop((store, writer));
    let stale = engine.dump(Table::Current);
    let (store, mut writer, _) = open(&engine, whole());
    (5..=8).for_each(|index| apply(&mut writer, index, &put(["a", "b"][index as usize % 2], "2")));
    flush(&store);
    drop((store, writer));
    let (store, mut writer, _) = open(&engine, options());
    (9..=12).for_each(|index| apply(&mut writer, index, &put(["a", "b"][index as usize % 2], "3")));
    store.force_sync().expect("sync");
    verify(&*engine).expect("sound");
    for row in [None, Some(&stale[0].1)] {
        let left = engine.crash(true);
        let mut txn = left.write().expect("write");
        match row {
            Some(row) => txn.put(Table::Current, &stale[0].0, row).expect("put"),
            None => assert!(txn.delete(Table::Current, &stale[0].0).expect("delete")),
        }
        txn.commit().expect("commit");
        assert!(verify(&left).is_err());
        let refused = Store::open(Arc::new(left), options()).map(drop).expect_err("damaged").to_string();
        assert!(refused.contains("is not what history goes on from"), "{refused}");
    }
}

#[test]
fn what_is_behind_is_bounded() {
    let engine = Arc::new(MemEngine::new());
    const MOST: usize = 200_000;
    let options = StoreOptions { gen_changes: 100, behind_bytes: MOST, behind_records_most: 3000, ..options() };
    let (store, mut writer, _) = open(&engine, options);
    let mut rng = SmallRng::seed_from_u64(1);
    for index in 1..20_000_u64 {
        let key = format!("key{:05}", rng.random_range(0..if index < 10_000 { 5000 } else { 100 }));
        apply(&mut writer, index, &vec![(key.into_bytes(), Some(vec![1; 100]))]);
        let stats = store.stats();
        assert!(stats.behind_bytes <= (MOST + MOST / 4 + 100 * 200) as u64, "{stats:?}");
    }
    let stats = store.stats();
    assert!(stats.merges > 2 && stats.merged_rows < 15_000, "{stats:?}");
    drop((store, writer));
    let (_, _, opened) = Store::open(engine, StoreOptions::default()).expect("open");
    assert!((1..=6500).contains(&opened.records_rebuilt), "{opened:?}");
}

#[test]
fn a_merge_does_not_run_after_who_writes_keys_in_their_order() {
    let engine = Arc::new(MemEngine::new());
    const MOST: usize = 200_000;
    let options = StoreOptions {
        gen_changes: 100,
        behind_bytes: MOST,
        behind_records_most: u64::MAX,
        behind_values_bytes: usize::MAX,
        ..options()
    };
    let (store, mut writer, _) = open(&engine, options);
    // Rows take more than their values, so that at most so many are behind.
    let most_rows = (MOST + MOST / 4) as u64 / 100 + 100;
    let count = 10 * most_rows;
    for index in 1..=count {
        apply(&mut writer, index, &vec![(format!("key{index:08}").into_bytes(), Some(vec![1; 100]))]);
    }
    drop((store, writer));
    let (store, _, opened) = Store::open(engine, StoreOptions::default()).expect("open");
    // What was behind when the last merge began that has ended, and what has come since the one before.
    assert!((1..=2 * most_rows).contains(&opened.records_rebuilt), "{opened:?} of {count}");
    let (one, last) = (answers(&store), opened.applied.0);
    assert!(one.len() as u64 == last && one.windows(2).all(|pair| pair[0].0 < pair[1].0), "{} of {last}", one.len());
}

#[test]
fn a_store_at_rest_leaves_a_start_nothing_to_read_again() {
    let engine = Arc::new(MemEngine::new());
    let options = StoreOptions { gen_age: Duration::from_millis(1), ..StoreOptions::default() };
    let (store, mut writer, _) = Store::open(engine.clone(), options.clone()).expect("open");
    // More than may stay behind at rest; nothing else makes a merge due.
    let count = 12_000_u64;
    for index in 1..=count {
        apply(&mut writer, index, &vec![(format!("key{:05}", index % 7000).into_bytes(), Some(b"v".to_vec()))]);
    }
    let begin = Instant::now();
    while store.stats().merges == 0 {
        assert!(begin.elapsed() < PATIENCE, "nothing was merged: {:?}", store.stats());
        std::thread::yield_now();
    }
    drop((writer, store));
    let (_, _, opened) = Store::open(engine, options).expect("open again");
    assert!(opened.records_rebuilt < count, "all of it is read again");
    assert_eq!(opened.applied.0, count);
}
