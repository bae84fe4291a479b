//! Disks that are full, syncs that fail, bits that turn over.

use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::mem::MemEngine;
use milepost_engine::{Engine, StoreDirectory, Table};
use milepost_mvcc::{
    RangeOptions, SmallTable, SpaceState, Store, StoreError, StoreOptions, Writer, rescue, salvage, verify,
};
use milepost_types::{KeyRange, LeaseId, LogIndex, Revision, Term};

fn open(engine: &Arc<MemEngine>, gen_changes: usize) -> (Store, Writer) {
    open_as(engine, StoreOptions { background: false, gen_changes, ..StoreOptions::default() })
}

/// With nothing left behind.
fn open_whole(engine: &Arc<MemEngine>) -> (Store, Writer) {
    open_as(engine, StoreOptions { background: false, behind_bytes: 0, ..StoreOptions::default() })
}

fn open_as(engine: &Arc<MemEngine>, options: StoreOptions) -> (Store, Writer) {
    let (store, writer, _) = Store::open(engine.clone(), options).expect("open");
    (store, writer)
}

fn put(writer: &mut Writer, index: u64, key: &'static str) -> Result<(), StoreError> {
    let mut change = writer.begin(LogIndex(index), Term(1));
    change.put(Bytes::from_static(key.as_bytes()), Bytes::from_static(b"value"), LeaseId(0))?;
    change.finish().map(drop)
}

fn keys(store: &Store) -> usize {
    store.view().range(KeyRange::all(), 0, RangeOptions::default()).expect("range").records.len()
}

#[test]
fn a_commit_without_room_is_kept_and_tried_again() {
    let engine = Arc::new(MemEngine::new());
    let (store, mut writer) = open(&engine, 10);
    put(&mut writer, 1, "a").expect("put");
    engine.fill_disk(2);
    for _ in 0..2 {
        assert!(store.step(true).is_err());
        assert_eq!(store.space(), SpaceState::Low);
        assert_eq!(keys(&store), 1);
    }
    put(&mut writer, 2, "b").expect("memory still takes changes");
    while store.step(true).expect("there is room again") {}
    assert_eq!((store.space(), store.failed()), (SpaceState::Ok, None));
    assert_eq!(engine.dump(Table::History).len(), 2);
    assert_eq!(store.stats().commit_retries, 2);
}

#[test]
fn a_commit_that_fails_with_room_left_is_tried_again_without_an_alarm() {
    let engine = Arc::new(MemEngine::new());
    let (store, mut writer) = open(&engine, 10);
    put(&mut writer, 1, "a").expect("put");
    engine.hinder_commits(2);
    for _ in 0..2 {
        assert!(store.step(true).is_err());
        assert_eq!((store.space(), store.failed()), (SpaceState::Ok, None));
    }
    assert!(store.step(true).expect("the fault has passed"));
    assert_eq!((engine.dump(Table::History).len(), store.stats().commit_retries), (1, 2));
}

#[test]
fn a_compaction_step_that_deletes_nothing_makes_nothing_durable() {
    let engine = Arc::new(MemEngine::new());
    let options = StoreOptions { background: false, compaction_batch: 2, ..StoreOptions::default() };
    let (store, mut writer, _) = Store::open(engine.clone(), options).expect("open");
    for (index, key) in (1..).zip(["a", "b", "c", "d"]) {
        put(&mut writer, index, key).expect("put");
    }
    let mut change = writer.begin(LogIndex(5), Term(1));
    change.compact(5).expect("compact");
    change.finish().expect("finish");
    let mut steps = 0;
    while store.step(true).expect("step") {
        steps += 1;
        let left = Arc::new(engine.crash(false));
        let (_, _, opened) = Store::open(left, StoreOptions::default()).expect("open what a power cut leaves");
        assert!(store.durable().index <= opened.applied, "step {steps}");
    }
    assert!(steps > 2, "{steps} steps");
    assert_eq!(store.durable().index, LogIndex(5));
}

#[test]
fn a_commit_out_of_the_reserve_says_that_space_is_low() {
    let engine = Arc::new(MemEngine::new());
    let (store, mut writer) = open(&engine, 10);
    engine.break_reserve(1);
    for (index, space) in [(1, SpaceState::Low), (2, SpaceState::Ok)] {
        put(&mut writer, index, "a").expect("put");
        assert!(store.step(true).expect("commit"));
        assert_eq!(store.space(), space);
    }
}

#[test]
fn after_a_failed_commit_nothing_more_is_accepted_and_the_next_start_knows() {
    let engine = Arc::new(MemEngine::new());
    let (store, mut writer) = open(&engine, 10);
    put(&mut writer, 1, "a").expect("put");
    engine.fail_commits(1);
    assert!(matches!(store.step(true), Err(StoreError::Failed(_))));
    assert!(store.failed().is_some_and(|why| why.contains("commit failed")));
    assert!(engine.condemned().is_some());
    assert!(matches!(put(&mut writer, 2, "b"), Err(StoreError::Failed(_))));
    assert!(matches!(store.force_sync(), Err(StoreError::Failed(_))));
    assert_eq!((keys(&store), store.revision()), (1, 2), "what was published stays readable");
}

#[test]
fn after_a_failed_sync_too() {
    let engine = Arc::new(MemEngine::new());
    let (store, mut writer) = open(&engine, 10);
    put(&mut writer, 1, "a").expect("put");
    engine.fail_syncs(1);
    assert!(matches!(store.force_sync(), Err(StoreError::Failed(_))));
    assert_eq!(store.durable().index, LogIndex(0));
    assert!(engine.condemned().is_some());
}

#[test]
fn after_a_failed_sync_at_start_the_next_start_knows() {
    let engine = Arc::new(MemEngine::new());
    engine.fail_syncs(1);
    assert!(Store::open(engine.clone(), StoreOptions::default()).is_err());
    assert!(engine.condemned().is_some());
}

#[test]
fn a_damaged_record_fails_the_reads_that_meet_it_and_names_itself() {
    for bit in [0, 40, 77] {
        let engine = Arc::new(MemEngine::new());
        let (store, mut writer) = open_whole(&engine);
        put(&mut writer, 1, "a").expect("put");
        put(&mut writer, 2, "b").expect("put");
        store.force_sync().expect("sync");
        assert!(engine.flip_bit(Table::Current, b"a", bit));
        let error = store.view().get(b"a", 0).expect_err("damaged").to_string();
        assert!(error.contains("table current, record a: checksum mismatch"), "{error}");
        assert!(store.view().range(KeyRange::all(), 0, RangeOptions::default()).is_err());
        assert!(store.view().get(b"b", 0).expect("sound").is_some());
        assert!(engine.flip_bit(Table::History, &Revision::new(3, 0).to_bytes(), bit));
        let error = store.history(Revision::new(2, 0), 10, 1000).expect_err("damaged").to_string();
        assert!(error.contains("table history, record 3.0: checksum mismatch"), "{error}");
    }
}

#[test]
fn a_lost_record_is_corruption_not_absence() {
    let engine = Arc::new(MemEngine::new());
    let (store, mut writer) = open(&engine, 10);
    for index in 1..=3 {
        put(&mut writer, index, "a").expect("put");
    }
    store.force_sync().expect("sync");
    let mut txn = engine.write().expect("write");
    assert!(txn.delete(Table::History, &Revision::new(3, 0).to_bytes()).expect("delete"));
    txn.commit().expect("commit");
    assert!(matches!(store.view().get(b"a", 3), Err(StoreError::Corrupt { what: "missing", .. })));
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let engine = Arc::new(MemEngine::new());
    let mut txn = engine.write().expect("write");
    let mut row = crc32c::crc32c_append(crc32c::crc32c(b"format"), &3_i64.to_be_bytes()).to_le_bytes().to_vec();
    row.extend(3_i64.to_be_bytes());
    txn.put(Table::Meta, b"format", &row).expect("put");
    txn.commit().expect("commit");
    let refused = Store::open(engine, StoreOptions::default()).map(drop).expect_err("too new");
    assert_eq!(refused.to_string(), "store format 3 is newer than this program's 2; start the version that wrote it");
}

#[test]
fn a_damaged_row_of_a_small_table_is_found_at_open() {
    let engine = Arc::new(MemEngine::new());
    let (store, mut writer) = open(&engine, 10);
    let mut change = writer.begin(LogIndex(1), Term(1));
    change.table_put(SmallTable::Lease, b"lease".to_vec(), b"ttl".to_vec());
    change.finish().expect("finish");
    store.force_sync().expect("sync");
    for (table, key) in [(Table::Lease, &b"lease"[..]), (Table::Meta, b"applied")] {
        assert!(engine.flip_bit(table, key, 50));
        let refused = Store::open(engine.clone(), StoreOptions::default()).map(drop).expect_err("damaged");
        assert!(refused.to_string().contains(table.name()), "{refused}");
        assert!(engine.flip_bit(table, key, 50));
    }
}

#[test]
fn a_suspect_store_is_copied_if_every_record_stands_its_check() {
    let engine = Arc::new(MemEngine::new());
    let (store, mut writer) = open_whole(&engine);
    for index in 1..=50 {
        put(&mut writer, index, ["a", "b", "c"][index as usize % 3]).expect("put");
    }
    store.force_sync().expect("sync");
    let copy = Arc::new(MemEngine::new());
    let walked = salvage(&*engine, &*copy).expect("sound");
    assert_eq!(verify(&*copy).expect("sound"), walked);
    for table in Table::ALL {
        assert_eq!(engine.dump(table), copy.dump(table));
    }
    assert!(engine.flip_bit(Table::History, &Revision::new(30, 0).to_bytes(), 99));
    let refused = salvage(&*engine, &MemEngine::new()).expect_err("damaged").to_string();
    assert!(refused.contains("history, record 30.0"), "{refused}");
    let mut txn = copy.write().expect("write");
    assert!(txn.delete(Table::History, &Revision::new(51, 0).to_bytes()).expect("delete"));
    txn.commit().expect("commit");
    assert!(matches!(verify(&*copy), Err(StoreError::Corrupt { what: "missing", .. })));
}

#[test]
fn a_lost_page_that_left_an_older_one_is_found() {
    let engine = Arc::new(MemEngine::new());
    let (store, mut writer) = open_whole(&engine);
    put(&mut writer, 1, "a").expect("put");
    put(&mut writer, 2, "a").expect("put");
    store.force_sync().expect("sync");
    let stale: Vec<_> = [Table::Current, Table::Meta].map(|table| (table, engine.dump(table))).into();
    for index in 3..=5 {
        put(&mut writer, index, "a").expect("put");
    }
    store.force_sync().expect("sync");
    for ((table, rows), what) in stale.into_iter().zip(["is older than history", "is newer than the store"]) {
        let copy = MemEngine::new();
        salvage(&*engine, &copy).expect("sound");
        let mut txn = copy.write().expect("write");
        for (key, value) in rows {
            txn.put(table, &key, &value).expect("put");
        }
        txn.commit().expect("commit");
        let error = verify(&copy).expect_err("stale").to_string();
        assert!(error.contains(what), "{error}");
    }
    let mut txn = engine.write().expect("write");
    assert!(txn.delete(Table::History, &Revision::new(3, 0).to_bytes()).expect("delete"));
    txn.commit().expect("commit");
    assert!(matches!(verify(&*engine), Err(StoreError::Corrupt { what: "missing", .. })));
}

#[test]
fn a_suspect_store_is_rescued_into_its_successor() {
    let dir = tempfile::tempdir().expect("directory");
    let directory = || Arc::new(StoreDirectory::open(Arc::new(milepost_env::OsDisk), dir.path()).expect("directory"));
    let lmdb = LmdbOptions { ballast_bytes: 1 << 20, check: Some(milepost_mvcc::is_sealed), ..LmdbOptions::default() };
    let options = StoreOptions { background: false, ..StoreOptions::default() };
    let engine = Arc::new(LmdbEngine::open_current(directory(), lmdb).expect("engine"));
    let (store, mut writer, _) = Store::open(engine.clone(), options.clone()).expect("open");
    put(&mut writer, 1, "a").expect("put");
    store.force_sync().expect("sync");
    engine.condemn("bad disk");
    drop((store, writer, engine));
    assert!(LmdbEngine::open_current(directory(), lmdb).is_err());
    let suspect = LmdbEngine::open_suspect(directory(), lmdb).expect("engine");
    let (store, writer, opened) = Store::open(rescue(&suspect).expect("sound"), options).expect("open");
    assert_eq!((opened.applied, keys(&store)), (LogIndex(1), 1));
    drop((suspect, store, writer));
    assert!(LmdbEngine::open_current(directory(), lmdb).is_ok(), "no longer suspect");
}

#[test]
fn a_switch_that_fails_half_way_leaves_both_stores() {
    let dir = tempfile::tempdir().expect("directory");
    let directory = || Arc::new(StoreDirectory::open(Arc::new(milepost_env::OsDisk), dir.path()).expect("directory"));
    let lmdb = LmdbOptions { ballast_bytes: 1 << 20, check: Some(milepost_mvcc::is_sealed), ..LmdbOptions::default() };
    let options = StoreOptions { background: false, ..StoreOptions::default() };
    let engine = Arc::new(LmdbEngine::open_current(directory(), lmdb).expect("engine"));
    let (store, mut writer, _) = Store::open(engine, options.clone()).expect("open");
    put(&mut writer, 1, "a").expect("put");
    store.force_sync().expect("sync");
    // It cannot be removed as a file; that is tried when CURRENT names the copy already.
    let suspect = dir.path().join("SUSPECT");
    std::fs::create_dir(&suspect).expect("directory");
    assert!(matches!(store.defragment(), Err(StoreError::Failed(_))));
    drop((store, writer));
    std::fs::remove_dir(&suspect).expect("remove");
    let engine = Arc::new(LmdbEngine::open_current(directory(), lmdb).expect("what CURRENT names"));
    let (store, _writer, opened) = Store::open(engine, options).expect("open");
    assert_eq!((opened.applied, keys(&store)), (LogIndex(1), 1));
}
