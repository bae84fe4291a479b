//! What things may cost, counted and not timed.

use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::Engine;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::mem::MemEngine;
use milepost_mvcc::{Store, StoreOptions, Writer};
use milepost_types::{LeaseId, LogIndex, Term};

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
    let mut counts = Vec::new();
    for keys in [1000, 10_000, 200_000] {
        let dir = tempfile::tempdir().expect("directory");
        let engine: Arc<dyn Engine> = Arc::new(LmdbEngine::open(dir.path(), LmdbOptions::default()).expect("engine"));
        let (store, mut writer, _) = Store::open(engine.clone(), options()).expect("open");
        fill(&mut writer, &mut 0, 0, keys);
        store.force_sync().expect("sync");
        drop((store, writer));
        let (store, _writer, opened) = Store::open(engine, options()).expect("open again");
        assert_eq!(store.revision(), 1 + keys.div_ceil(BATCH) as i64);
        counts.push(opened.records_read);
    }
    assert!(counts[0] < 20 && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
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
