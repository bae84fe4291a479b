//! The store against a naive twin: random entries, commits at random moments, compactions, power losses, long keys,
//! old revisions, views that are held while all of that goes on.
//!
//! One seed again: `MILEPOST_SEED=<seed> cargo test -p milepost-mvcc --test model`

mod twin;

use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::mem::MemEngine;
use milepost_engine::{Engine, StoreDirectory};
use milepost_mvcc::{RangeOptions, Store, StoreError, StoreOptions, View, Writer};
use milepost_types::{LeaseId, LogIndex, Revision, Term};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use twin::{Step, Twin, range};

/// Where the records live, and what a power loss does to them.
enum Disk {
    Memory(Arc<MemEngine>),
    Lmdb(tempfile::TempDir, Option<Arc<dyn Engine>>),
}

impl Disk {
    fn engine(&self) -> Arc<dyn Engine> {
        match self {
            Self::Memory(engine) => engine.clone(),
            Self::Lmdb(_, engine) => engine.clone().expect("open"),
        }
    }

    /// For LMDB only the process dies: what was committed is there.
    fn crash(&mut self, keep_newest: bool) {
        match self {
            Self::Memory(engine) => *engine = Arc::new(engine.crash(keep_newest)),
            Self::Lmdb(dir, engine) => {
                *engine = None;
                *engine = Some(open_lmdb(dir));
            }
        }
    }
}

fn open_lmdb(dir: &tempfile::TempDir) -> Arc<dyn Engine> {
    let directory = StoreDirectory::open(Arc::new(milepost_env::OsDisk), dir.path()).expect("directory");
    let options =
        LmdbOptions { ballast_bytes: 1 << 20, check: Some(milepost_mvcc::is_sealed), ..LmdbOptions::default() };
    Arc::new(LmdbEngine::open_current(Arc::new(directory), options).expect("open"))
}

struct World {
    rng: SmallRng,
    disk: Disk,
    store: Store,
    writer: Writer,
    twin: Twin,
    /// All entries so far; the first has index 1.
    log: Vec<Vec<Step>>,
    keys: Vec<Vec<u8>>,
    views: Vec<(View, Twin)>,
    /// How often a hash was the one taken by a compaction.
    compaction_hashes: u64,
}

const LEASES: [i64; 4] = [0, 0, 7, -3];

fn options(rng: &mut SmallRng) -> StoreOptions {
    StoreOptions {
        gen_changes: rng.random_range(3..40),
        compaction_batch: rng.random_range(1..20),
        behind_bytes: *[0, 3000, 30_000, 1 << 20].choose(rng).expect("some"),
        behind_values_bytes: *[0, 2000, 1 << 20].choose(rng).expect("some"),
        behind_records_in_order: rng.random_range(1..50),
        behind_records: rng.random_range(1..100),
        behind_records_most: rng.random_range(50..200),
        merge_record_bytes: *[0, 100, 1 << 20].choose(rng).expect("some"),
        compaction_hash: rng.random(),
        block_keys: rng.random_range(4..8),
        background: false,
        ..StoreOptions::default()
    }
}

/// Short keys, and groups of long ones that begin alike, cut at every interesting length.
fn keys(rng: &mut SmallRng) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> =
        ["a", "ab", "b", "c/1", "c/2", "\0", "\u{10ffff}"].iter().map(|key| key.as_bytes().to_vec()).collect();
    for _ in 0..2 {
        let prefix: Vec<u8> = (0..472).map(|_| *[0, b'c', 0xff].choose(rng).expect("some")).collect();
        for _ in 0..4 {
            let len = *[470, 471, 472, 473, 474, 504, 505, 506, 511, 512, 2000].choose(rng).expect("some");
            let mut key = prefix.clone();
            key.resize(len, rng.random());
            if len > 473 {
                key[473] = rng.random();
            }
            keys.push(key);
        }
    }
    keys
}

impl World {
    fn new(seed: u64, disk: Disk) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let options = options(&mut rng);
        let (store, writer, _) = Store::open(disk.engine(), options).expect("open");
        let keys = keys(&mut rng);
        Self {
            rng,
            disk,
            store,
            writer,
            twin: Twin::new(),
            log: Vec::new(),
            keys,
            views: Vec::new(),
            compaction_hashes: 0,
        }
    }

    fn key(&mut self) -> Vec<u8> {
        self.keys.choose(&mut self.rng).expect("some").clone()
    }

    /// A bound of a range: a key, or something next to one.
    fn bound(&mut self) -> Vec<u8> {
        let mut key = self.key();
        match self.rng.random_range(0..4) {
            0 => key.push(0),
            1 => {
                key.pop();
            }
            _ => {}
        }
        key
    }

    fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut taken = Vec::new();
        match self.rng.random_range(0..20) {
            0 => {
                if self.twin.revision > self.twin.floor {
                    steps.push(Step::Compact(self.rng.random_range(self.twin.floor.max(0) + 1..=self.twin.revision)));
                }
            }
            1 => steps.push(Step::Delete { start: self.bound(), end: Some(self.bound()) }),
            2 => steps.push(Step::Delete { start: self.bound(), end: Some(vec![0]) }),
            kind => {
                // One entry never changes a key twice: etcd refuses such transactions.
                for _ in 0..if kind < 6 { 5 } else { 1 } {
                    let key = self.key();
                    if taken.contains(&key) {
                        continue;
                    }
                    taken.push(key.clone());
                    if self.rng.random_bool(0.2) {
                        steps.push(Step::Delete { start: key, end: None });
                    } else {
                        let len = *[0, 3, 768, 769, 3000].choose(&mut self.rng).expect("some");
                        let value = vec![self.rng.random(); len];
                        steps.push(Step::Put { key, value, lease: *LEASES.choose(&mut self.rng).expect("some") });
                    }
                }
            }
        }
        steps
    }

    /// Applies one entry to the store.
    fn apply(&mut self, index: usize) {
        let steps = self.log[index - 1].clone();
        let mut change = self.writer.begin(LogIndex(index as u64), Term(1));
        let mut changed = 0;
        for step in &steps {
            let asked = RangeOptions { limit: 1, count: true, values: false };
            let all = change.range(range(b"", Some(&vec![0])), 0, RangeOptions::default()).expect("range");
            let from_b = change.range(range(b"b", Some(&vec![0])), 0, asked).expect("range").count as usize;
            assert_eq!(
                change.range(range(b"", Some(&vec![0])), 0, asked).expect("range").count as usize,
                all.records.len()
            );
            assert_eq!(from_b, all.records.iter().filter(|record| record.key[..] >= b"b"[..]).count());
            match step {
                Step::Put { key, value, lease } => {
                    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                    let before = change.get(&key).expect("get").map(|before| before.header());
                    assert_eq!(change.put(key.clone(), value.clone(), LeaseId(*lease)).expect("put"), before);
                    assert_eq!(change.get(&key).expect("get").map(|now| now.value.clone()), Some(value));
                    changed += 1;
                }
                Step::Delete { start, end } => {
                    let range = range(start, end.as_ref());
                    let expected = change.range(range, 0, RangeOptions::default()).expect("range").records;
                    let deleted = change.delete_range(range, true).expect("delete");
                    assert_eq!(without_links(&deleted), without_links(&expected));
                    changed += deleted.len();
                }
                Step::Compact(bound) => change.compact(*bound).expect("within bounds"),
            }
        }
        let batch = change.finish().expect("finish");
        assert_eq!(batch.map_or(0, |batch| batch.records.len()), changed);
    }

    fn turn(&mut self) {
        match self.rng.random_range(0..30) {
            0 => self.crash(),
            1 => {
                self.store.force_sync().expect("sync");
            }
            2..5 => {
                for _ in 0..self.rng.random_range(1..12) {
                    let flush = self.rng.random();
                    self.store.step(flush).expect("step");
                }
            }
            5 => self.views.push((self.store.view(), self.twin.clone())),
            6 => self.views.clear(),
            7 => self.store.defragment().expect("defragment"),
            _ => {
                let steps = self.steps();
                self.twin.apply(&steps);
                self.log.push(steps);
                self.apply(self.log.len());
            }
        }
        self.check();
    }

    fn crash(&mut self) {
        let durable = self.store.durable().index;
        let keep_newest = self.rng.random();
        self.views.clear();
        let options = options(&mut self.rng);
        // Both handles must go before the environment can be opened again.
        let nothing: Arc<dyn Engine> = Arc::new(MemEngine::new());
        (self.store, self.writer, _) = Store::open(nothing, options.clone()).expect("open");
        self.disk.crash(keep_newest);
        milepost_mvcc::verify(&*self.disk.engine()).expect("what a crash leaves fits together");
        let (store, writer, opened) = Store::open(self.disk.engine(), options).expect("open");
        (self.store, self.writer) = (store, writer);
        assert!(opened.applied >= durable, "{} was durable, {} came back", durable, opened.applied);
        for index in opened.applied.0 as usize + 1..=self.log.len() {
            self.apply(index);
        }
    }

    fn check(&mut self) {
        assert_eq!((self.store.revision(), self.store.compact_revision()), (self.twin.revision, self.twin.floor));
        let views = std::mem::take(&mut self.views);
        for (view, twin) in &views {
            self.check_view(view, twin);
        }
        self.views = views;
        self.check_view(&self.store.view(), &self.twin.clone());
        self.check_counts();
        self.check_history();
        for lease in [7, -3] {
            assert_eq!(
                self.store.view().attached(LeaseId(lease)).expect("attached"),
                self.twin.attached(LeaseId(lease))
            );
        }
        if self.rng.random_bool(0.2) {
            let at = self.rng.random_range(self.twin.floor.max(1)..=self.twin.revision);
            let at = if self.rng.random_bool(0.3) { self.twin.floor.max(1) } else { at };
            let hash = self.store.hash_kv(at).expect("hash");
            let found = (hash.hash, hash.compact_revision);
            // Which of the two depends, as in etcd, on whether the compaction before had finished.
            let allowed =
                [Some((self.twin.hash_kv(at), self.twin.floor)), self.twin.compaction_hashes.get(&at).copied()];
            self.compaction_hashes += u64::from(Some(found) == allowed[1]);
            assert!(allowed.contains(&Some(found)), "hash at {at}: {found:?}, not in {allowed:?}");
        }
    }

    fn check_view(&mut self, view: &View, twin: &Twin) {
        let at = self.rng.random_range(0..=twin.revision + 1);
        let (start, end) = (self.bound(), Some(self.bound()));
        let end = if self.rng.random_bool(0.2) { Some(vec![0]) } else { end };
        let limit = self.rng.random_range(0..4);
        let options = RangeOptions { limit, count: self.rng.random(), values: self.rng.random() };
        let range = range(&start, end.as_ref());
        let result = view.range(range, at, options);
        if at > twin.revision {
            assert!(matches!(result, Err(StoreError::FutureRevision { .. })));
            return;
        }
        if at > 0 && at < twin.floor {
            assert!(matches!(result, Err(StoreError::Compacted { .. })));
            return;
        }
        let result = result.expect("range");
        let live = twin.live(if at == 0 { twin.revision } else { at });
        let expected: Vec<_> = live.values().filter(|fact| range.contains(&fact.key)).collect();
        let shown = if limit == 0 { expected.len() } else { limit.min(expected.len()) };
        assert_eq!(result.records.len(), shown);
        assert_eq!(result.count as usize, if options.count { expected.len() } else { shown });
        for (record, fact) in result.records.iter().zip(expected) {
            assert_eq!((&*record.key, record.revision), (&*fact.key, fact.revision));
            assert_eq!(
                (record.create_revision, record.version, record.lease.0),
                (fact.create, fact.version, fact.lease)
            );
            if options.values {
                assert_eq!(record.value, fact.value);
            }
        }
        let key = self.key();
        let found = view.get(&key, at).expect("get").map(|record| (record.revision, record.value.to_vec()));
        assert_eq!(found, live.get(&*key).map(|fact| (fact.revision, fact.value.clone())));
    }

    /// Counts of ranges that span blocks, at any revision that is kept.
    fn check_counts(&mut self) {
        let at = self.rng.random_range(self.twin.floor.max(1)..=self.twin.revision);
        let at = if self.rng.random() { self.twin.revision } else { at };
        let spans = [(Vec::new(), vec![0]), (self.bound(), vec![0]), (Vec::new(), self.bound())];
        let live = self.twin.live(at);
        for (start, end) in spans {
            let range = range(&start, Some(&end));
            let options = RangeOptions { limit: 1, count: true, values: false };
            let found = self.store.view().range(range, at, options).expect("range");
            assert_eq!(
                found.count as usize,
                live.keys().filter(|key| range.contains(key)).count(),
                "{range:?} at {at}"
            );
        }
    }

    fn check_history(&mut self) {
        let from = Revision::new(self.rng.random_range(self.twin.floor.max(0)..=self.twin.revision + 1), 0);
        let limit = self.rng.random_range(1..50);
        let history = self.store.history(from, limit, usize::MAX).expect("history");
        let facts: Vec<_> = self.twin.facts.iter().filter(|fact| fact.revision >= from).collect();
        // At the floor itself only what the compaction keeps is promised.
        if from.main > self.twin.floor {
            assert_eq!(history.len(), facts.len().min(limit));
            for (record, fact) in history.iter().zip(&facts) {
                assert_eq!(
                    (&record.key[..], &record.value[..], record.revision),
                    (&fact.key[..], &fact.value[..], fact.revision)
                );
            }
        }
        for record in &history {
            let before = record.revision.main - 1;
            let expected = if before < self.twin.floor {
                None
            } else {
                self.twin
                    .live(before)
                    .get(&*record.key)
                    .filter(|_| record.create_revision != record.revision.main)
                    .map(|fact| fact.revision)
            };
            let found = self.store.previous(record).expect("previous").map(|previous| previous.revision);
            assert_eq!(found, expected, "before {record:?}");
        }
        if self.twin.floor > 0 {
            assert!(matches!(
                self.store.history(Revision::new(self.twin.floor - 1, 5), 1, 1),
                Err(StoreError::Compacted { .. })
            ));
        }
    }
}

fn without_links(records: &[Arc<milepost_mvcc::Record>]) -> Vec<(Bytes, Bytes, milepost_mvcc::Header)> {
    records.iter().map(|record| (record.key.clone(), record.value.clone(), record.header())).collect()
}

/// How often a hash was the one taken by a compaction.
fn run(seed: u64, disk: Disk, turns: usize) -> u64 {
    eprintln!("replay with MILEPOST_SEED={seed}");
    let mut world = World::new(seed, disk);
    for _ in 0..turns {
        world.turn();
    }
    world.compaction_hashes
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("MILEPOST_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..count,
    }
}

#[test]
fn agrees_with_the_twin_in_memory() {
    let run = |seed| run(seed, Disk::Memory(Arc::new(MemEngine::new())), 300);
    assert!(seeds(40).map(run).sum::<u64>() > 0 || std::env::var("MILEPOST_SEED").is_ok());
}

#[test]
fn agrees_with_the_twin_on_disk() {
    for seed in seeds(8) {
        let dir = tempfile::tempdir().expect("directory");
        let engine = open_lmdb(&dir);
        run(seed, Disk::Lmdb(dir, Some(engine)), 200);
    }
}
