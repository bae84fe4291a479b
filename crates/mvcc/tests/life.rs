//! The life of a store: put, read, delete, compact, close, open again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::mem::MemEngine;
use milepost_engine::{Engine, StoreDirectory};
use milepost_mvcc::{Observer, RangeOptions, SmallTable, Store, StoreError, StoreOptions, Work, Writer};
use milepost_types::{KeyRange, LeaseId, LogIndex, Term};

fn options() -> StoreOptions {
    StoreOptions { background: false, ..StoreOptions::default() }
}

struct Bench {
    store: Store,
    writer: Writer,
    index: u64,
}

impl Bench {
    fn open(engine: Arc<dyn Engine>) -> Self {
        let (store, writer, opened) = Store::open(engine, options()).expect("open");
        Self { store, writer, index: opened.applied.0 }
    }

    fn entry(&mut self, body: impl FnOnce(&mut milepost_mvcc::Change<'_>)) -> Option<Arc<milepost_mvcc::EventBatch>> {
        self.index += 1;
        let mut change = self.writer.begin(LogIndex(self.index), Term(1));
        body(&mut change);
        change.finish().expect("finish")
    }

    fn put(&mut self, key: &str, value: &str) -> i64 {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        self.entry(|change| assert!(change.put(key, value, LeaseId(0)).is_ok())).expect("changed").revision
    }

    fn delete(&mut self, key: &str) -> Option<i64> {
        let range = KeyRange::single(key.as_bytes());
        self.entry(|change| assert!(change.delete_range(range, false).is_ok())).map(|batch| batch.revision)
    }

    fn get(&self, key: &str, at: i64) -> Option<String> {
        let record = self.store.view().get(key.as_bytes(), at).expect("get");
        record.map(|record| String::from_utf8(record.value.to_vec()).expect("text"))
    }

    fn flush(&self) {
        while self.store.step(true).expect("step") {}
    }
}

fn a_life(engine: Arc<dyn Engine>) {
    let mut bench = Bench::open(engine.clone());
    assert_eq!(bench.store.revision(), 1);
    assert_eq!(bench.store.compact_revision(), -1);
    assert_eq!(bench.put("a", "1"), 2);
    assert_eq!(bench.put("b", "1"), 3);
    assert_eq!(bench.put("a", "2"), 4);
    assert_eq!(bench.delete("nothing"), None);
    assert_eq!(bench.delete("b"), Some(5));
    for round in 0..2 {
        assert_eq!(bench.get("a", 0).as_deref(), Some("2"), "round {round}");
        assert_eq!(bench.get("a", 3).as_deref(), Some("1"));
        assert_eq!(bench.get("a", 1), None);
        assert_eq!(bench.get("b", 4).as_deref(), Some("1"));
        assert_eq!(bench.get("b", 0), None);
        let all = bench.store.view().range(KeyRange::all(), 4, RangeOptions { limit: 1, count: true, values: true });
        let all = all.expect("range");
        assert_eq!((all.count, all.records.len()), (2, 1));
        bench.flush();
    }
    let history = bench.store.history(milepost_types::Revision::ZERO, 100, 1000).expect("history");
    assert_eq!(history.iter().map(|record| record.revision.main).collect::<Vec<_>>(), [2, 3, 4, 5]);
    let previous = bench.store.previous(&history[2]).expect("previous").expect("there");
    assert_eq!(&*previous.value, b"1");
    assert!(bench.store.previous(&history[0]).expect("previous").is_none());

    bench.entry(|change| {
        change.table_put(SmallTable::Lease, b"id".to_vec(), b"lease".to_vec());
        change.set_conf_state(b"conf".to_vec());
        change.compact(5).expect("compact");
        assert!(matches!(change.compact(5), Err(StoreError::Compacted { .. })));
        assert!(matches!(change.compact(9), Err(StoreError::FutureRevision { .. })));
    });
    assert!(matches!(bench.store.view().get(b"a", 4), Err(StoreError::Compacted { asked: 4, floor: 5 })));
    bench.flush();
    assert_eq!(bench.store.stats().compaction_deleted, 2, "a's first and b's first; b's tombstone stands at the bound");
    assert_eq!(bench.get("a", 5).as_deref(), Some("2"));
    assert_eq!(bench.store.durable().index, LogIndex(6), "the step after the commit made it durable");
    drop(bench);

    let (store, _writer, opened) = Store::open(engine, options()).expect("open again");
    assert_eq!((opened.applied, opened.term), (LogIndex(6), Term(1)));
    assert_eq!(opened.conf_state, b"conf");
    assert_eq!(opened.tables[&SmallTable::Lease][&b"id"[..]], b"lease");
    assert_eq!((store.revision(), store.compact_revision()), (5, 5));
}

#[test]
fn a_life_in_memory() {
    a_life(Arc::new(MemEngine::new()));
}

#[test]
fn a_life_on_disk() {
    let dir = tempfile::tempdir().expect("directory");
    a_life(Arc::new(LmdbEngine::open(dir.path(), LmdbOptions::default()).expect("engine")));
}

#[test]
fn a_change_that_is_dropped_never_was() {
    let mut bench = Bench::open(Arc::new(MemEngine::new()));
    bench.put("a", "1");
    {
        let mut change = bench.writer.begin(LogIndex(2), Term(1));
        change.put("a".into(), "2".into(), LeaseId(7)).expect("put");
        assert_eq!(change.get(b"a").expect("get").expect("there").value, "2");
        assert_eq!(change.attached(LeaseId(7)).expect("attached"), ["a"]);
    }
    assert_eq!(bench.get("a", 0).as_deref(), Some("1"));
    assert!(bench.store.view().attached(LeaseId(7)).expect("attached").is_empty());
    assert_eq!(bench.put("b", "1"), 3);
    assert_eq!(bench.store.history(milepost_types::Revision::new(3, 0), 10, 10).expect("history").len(), 1);
}

#[test]
fn the_background_commits_by_itself() {
    let options =
        StoreOptions { gen_changes: 10, gen_age: std::time::Duration::from_millis(5), ..StoreOptions::default() };
    let (store, mut writer, _) = Store::open(Arc::new(MemEngine::new()), options).expect("open");
    for index in 1..=1000 {
        let mut change = writer.begin(LogIndex(index), Term(1));
        change.put(format!("key{}", index % 37).into(), "value".into(), LeaseId(0)).expect("put");
        change.finish().expect("finish");
    }
    let (send, receive) = std::sync::mpsc::channel();
    let mut change = writer.begin(LogIndex(1001), Term(1));
    change.compact(1001).expect("compact");
    change.finish().expect("finish");
    store.when_compacted(1001, Box::new(move || send.send(()).expect("waiting")));
    receive.recv().expect("compacted");
    assert_eq!(store.stats().compaction_deleted, 1000 - 37);
    assert!(store.stats().overlay_changes == 0);
    assert_eq!(store.view().range(KeyRange::all(), 0, RangeOptions::default()).expect("range").count, 37);
}

#[test]
fn a_view_keeps_what_it_may_ask_for() {
    let mut bench = Bench::open(Arc::new(MemEngine::new()));
    bench.put("a", "1");
    bench.put("a", "2");
    let view = bench.store.view();
    bench.put("a", "3");
    bench.delete("a");
    bench.put("b", "1");
    bench.entry(|change| change.compact(6).expect("compact"));
    bench.flush();
    assert_eq!(bench.store.stats().compaction_deleted, 0, "the view pins it");
    assert_eq!(view.get(b"a", 2).expect("get").expect("there").value, "1");
    assert_eq!(view.get(b"a", 0).expect("get").expect("there").value, "2");
    let called = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let done = called.clone();
    bench.store.when_compacted(6, Box::new(move || done.store(true, std::sync::atomic::Ordering::Relaxed)));
    assert!(!called.load(std::sync::atomic::Ordering::Relaxed));
    drop(view);
    bench.flush();
    assert_eq!(bench.store.stats().compaction_deleted, 4);
    assert!(called.load(std::sync::atomic::Ordering::Relaxed));
}

/// A store that keeps the hashes of compactions, and the entries that make them.
struct Hashing {
    store: Store,
    writer: Writer,
    index: u64,
}

impl Hashing {
    fn open() -> Self {
        let options = StoreOptions { compaction_hash: true, ..options() };
        let (store, writer, _) = Store::open(Arc::new(MemEngine::new()), options).expect("open");
        Self { store, writer, index: 0 }
    }

    fn entry(&mut self, body: impl FnOnce(&mut milepost_mvcc::Change<'_>)) {
        self.index += 1;
        let mut change = self.writer.begin(LogIndex(self.index), Term(1));
        body(&mut change);
        change.finish().expect("finish");
    }

    fn put(&mut self) {
        self.entry(|change| assert!(change.put("a".into(), "value".into(), LeaseId(0)).is_ok()));
    }

    fn compact(&mut self, bound: i64) {
        self.entry(|change| change.compact(bound).expect("compact"));
    }

    fn step(&self) -> bool {
        self.store.step(true).expect("step")
    }

    /// The floor that the hash up to `revision` was taken with.
    fn floor_of(&self, revision: i64) -> i64 {
        self.store.hash_kv(revision).expect("hash").compact_revision
    }
}

#[test]
fn a_compaction_leaves_its_hash_when_it_has_finished() {
    let mut bench = Hashing::open();
    bench.put();
    bench.put();
    let whole = bench.store.hash_kv(3).expect("hash");
    bench.compact(3);
    let compacted = bench.store.hash_kv(3).expect("hash");
    assert_eq!((whole.compact_revision, compacted.compact_revision), (-1, 3));
    assert_ne!(whole.hash, compacted.hash);

    let finished = Arc::new(AtomicBool::new(false));
    let told = finished.clone();
    bench.store.when_compacted(3, Box::new(move || told.store(true, Ordering::Relaxed)));
    while bench.step() {
        let kept = bench.store.hash_kv(3).expect("hash") == whole;
        assert_eq!(kept, finished.load(Ordering::Relaxed), "the hash is there when the compaction is done, not before");
    }
    assert_eq!(bench.store.hash_kv(3).expect("hash"), whole, "taken before anything was deleted");
    let nothing = bench.store.hash_kv(-3).expect("a hash of nothing");
    assert_eq!((nothing.hash, nothing.hash_revision), (1_084_519_789, -3), "as etcd answers");
    assert_eq!(bench.store.corrupt(), None);

    bench.put();
    bench.compact(4);
    while bench.step() {}
    assert_eq!(bench.floor_of(4), 3, "the compaction before had finished");
}

#[test]
fn an_overtaken_compaction_leaves_its_hash() {
    for steps in 0..8 {
        let mut bench = Hashing::open();
        (0..3).for_each(|_| bench.put());
        let whole = bench.store.hash_kv(3).expect("hash");
        bench.compact(3);
        let finished = Arc::new(AtomicBool::new(false));
        let told = finished.clone();
        bench.store.when_compacted(3, Box::new(move || told.store(true, Ordering::Relaxed)));
        let done = (0..steps).filter(|_| bench.step()).count();
        let had_finished = finished.load(Ordering::Relaxed);
        bench.compact(4);
        while bench.step() {}
        assert_eq!(bench.store.hash_kv(3).expect("hash"), whole, "overtaken after {done} steps");
        assert!(had_finished || done < 6, "commit, merge, the hash's stages, deletions");
        assert_eq!(bench.floor_of(4), if had_finished { 3 } else { 4 }, "{done} steps");
    }
}

#[test]
fn a_compaction_to_nothing_is_remembered() {
    let engine = Arc::new(MemEngine::new());
    let mut bench = Bench::open(engine.clone());
    bench.entry(|change| change.compact(0).expect("compact"));
    assert_eq!(bench.store.compact_revision(), 0);
    bench.flush();
    drop(bench);
    let mut bench = Bench::open(engine);
    assert_eq!(bench.store.compact_revision(), 0, "as in etcd");
    bench.entry(|change| assert!(matches!(change.compact(0), Err(StoreError::Compacted { .. }))));
}

#[test]
fn defragmentation_gives_space_back_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let open = || {
        let directory = StoreDirectory::open(Arc::new(milepost_env::OsDisk), dir.path()).expect("directory");
        let options =
            LmdbOptions { ballast_bytes: 1 << 20, check: Some(milepost_mvcc::is_sealed), ..LmdbOptions::default() };
        Arc::new(LmdbEngine::open_current(Arc::new(directory), options).expect("engine"))
    };
    let mut bench = Bench::open(open());
    for round in 0..20 {
        for key in 0..100 {
            bench.put(&format!("key{key}"), &format!("{round}").repeat(500));
        }
    }
    bench.entry(|change| change.table_put(SmallTable::Users, b"u".to_vec(), b"v".to_vec()));
    bench.entry(|change| change.compact(change.revision()).expect("compact"));
    bench.flush();
    bench.put("late", "in memory only");
    let (before, hash) = (bench.store.sizes(), bench.store.hash().expect("hash"));
    let view = bench.store.view();
    bench.store.defragment().expect("defragment");
    let after = bench.store.sizes();
    assert!(after.file < before.file / 3 && after.in_use <= before.in_use, "{before:?} {after:?}");
    for view in [view, bench.store.view()] {
        assert_eq!(view.range(KeyRange::all(), 0, RangeOptions::default()).expect("range").count, 101);
    }
    assert_eq!(bench.store.hash().expect("hash"), hash);
    bench.put("later", "still");
    bench.store.force_sync().expect("sync");
    drop(bench);
    let (store, _writer, opened) = Store::open(open(), options()).expect("open again");
    assert_eq!(store.view().range(KeyRange::all(), 0, RangeOptions::default()).expect("range").count, 102);
    assert_eq!(opened.tables[&SmallTable::Users][&b"u"[..]], b"v");
}

#[derive(Default)]
struct Seen(std::sync::Mutex<Vec<(Work, bool)>>);

impl Observer for Seen {
    fn begin(&self, work: Work) {
        self.0.lock().expect("seen").push((work, true));
    }

    fn end(&self, work: Work) {
        self.0.lock().expect("seen").push((work, false));
    }
}

#[test]
fn somebody_else_can_time_the_background() {
    let mut bench = Bench::open(Arc::new(MemEngine::new()));
    let seen = Arc::new(Seen::default());
    bench.store.observe(seen.clone());
    bench.put("a", "1");
    bench.entry(|change| change.compact(2).expect("compact"));
    bench.flush();
    bench.store.defragment().expect("defragment");
    let whole = |work| [(work, true), (work, false)];
    let compaction = [
        (Work::Compaction, true),
        (Work::CompactionStep, true),
        (Work::CompactionStep, false),
        (Work::Compaction, false),
    ];
    let merge = whole(Work::Commit);
    let expected = [&whole(Work::Commit)[..], &merge, &compaction, &whole(Work::Defragmentation)].concat();
    assert_eq!(*seen.0.lock().expect("seen"), expected);
}

#[test]
fn a_closed_store_lets_apply_go() {
    let engine = Arc::new(MemEngine::new());
    engine.fill_disk(u64::MAX);
    let options =
        StoreOptions { gen_changes: 1, gen_age: std::time::Duration::from_millis(1), ..StoreOptions::default() };
    let (store, mut writer, _) = Store::open(engine, options).expect("open");
    let applied = std::thread::spawn(move || {
        for index in 1..=3 {
            let mut change = writer.begin(LogIndex(index), Term(1));
            change.put("a".into(), "1".into(), LeaseId(0)).expect("put");
            change.finish().expect("finish");
        }
    });
    while store.stats().stalls == 0 {
        std::thread::yield_now();
    }
    assert_eq!(store.revision(), 3, "two generations are full, the third entry waits");
    let reader = store.clone();
    store.close();
    applied.join().expect("applied");
    assert_eq!(reader.revision(), 4);
}

#[test]
fn what_waits_for_a_commit_is_counted() {
    let mut bench = Bench::open(Arc::new(MemEngine::new()));
    bench.put("a", &"x".repeat(1000));
    let before = bench.store.sizes();
    assert!((1000..2000).contains(&before.waiting) && before.in_use < 1000, "{before:?}");
    bench.flush();
    let after = bench.store.sizes();
    assert!(
        (1..100).contains(&after.waiting) && after.in_use > 1000,
        "its row of `current`, without the value: {after:?}"
    );
    bench.entry(|change| change.compact(2).expect("compact"));
    bench.flush();
    assert_eq!(bench.store.sizes().waiting, 0);
}
