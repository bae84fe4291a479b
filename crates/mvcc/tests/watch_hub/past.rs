//! A store in memory that remembers everything that ever happened to it.

use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::mem::MemEngine;
use milepost_mvcc::watch::History;
use milepost_mvcc::{Change, EventBatch, Record, Store, StoreError, StoreOptions, Writer};
use milepost_types::{KeyRange, LeaseId, LogIndex, Revision, Term};
use parking_lot::Mutex;

/// One change of a request: a value, or `None` to delete.
pub type Op = (Bytes, Option<Bytes>);

/// The store and its only writer. Clones are the same.
#[derive(Clone)]
pub struct Past {
    store: Store,
    writing: Arc<Mutex<Writing>>,
}

struct Writing {
    writer: Writer,
    index: u64,
    all: Vec<Arc<Record>>,
    unreadable: Option<i64>,
    /// Compact to this revision just before the next reading.
    snag: Option<i64>,
}

impl Default for Past {
    fn default() -> Self {
        let options = StoreOptions { background: false, ..StoreOptions::default() };
        let (store, writer, _) = Store::open(Arc::new(MemEngine::new()), options).expect("an empty store");
        let writing = Writing { writer, index: 0, all: vec![], unreadable: None, snag: None };
        Self { store, writing: Arc::new(Mutex::new(writing)) }
    }
}

impl Past {
    /// Makes one request's changes; `None` if there were none to make.
    pub fn txn(&self, ops: &[Op]) -> Option<Arc<EventBatch>> {
        let batch = self.entry(|change| {
            for (key, value) in ops {
                match value {
                    Some(value) => drop(change.put(key.clone(), value.clone(), LeaseId(0)).expect("a put")),
                    None => drop(change.delete_range(KeyRange::single(key), false).expect("a deletion")),
                }
            }
        })?;
        self.writing.lock().all.extend(batch.records.iter().cloned());
        Some(batch)
    }

    /// Forgets what is not needed to read at `revision` or later.
    pub fn compact(&self, revision: i64) {
        self.entry(|change| change.compact(revision).expect("a revision to compact"));
    }

    /// Moves everything to the engine, and finishes compactions.
    pub fn commit(&self) {
        while self.store.step(true).expect("an engine that works") {}
    }

    /// Every record ever, compacted or not.
    pub fn all(&self) -> Vec<Arc<Record>> {
        self.writing.lock().all.clone()
    }

    /// Readings that begin at this revision fail from now on.
    pub fn break_at(&self, revision: i64) {
        self.writing.lock().unreadable = Some(revision);
    }

    /// The next reading finds the store compacted to `revision`, which happened after the hub had asked how far it was.
    pub fn compact_before_reading(&self, revision: i64) {
        self.writing.lock().snag = Some(revision);
    }

    fn entry(&self, body: impl FnOnce(&mut Change<'_>)) -> Option<Arc<EventBatch>> {
        let mut writing = self.writing.lock();
        writing.index += 1;
        let index = LogIndex(writing.index);
        let mut change = writing.writer.begin(index, Term(1));
        body(&mut change);
        change.finish().expect("a store that works")
    }
}

impl History for Past {
    fn revision(&self) -> i64 {
        self.store.revision()
    }

    fn compact_revision(&self) -> i64 {
        self.store.compact_revision()
    }

    fn history(&self, from: Revision, max_records: usize, max_bytes: usize) -> Result<Vec<Arc<Record>>, StoreError> {
        if self.writing.lock().unreadable == Some(from.main) {
            return Err(StoreError::Failed("broken by the test".into()));
        }
        let snag = self.writing.lock().snag.take();
        if let Some(revision) = snag {
            self.compact(revision);
            self.commit();
        }
        self.store.history(from, max_records, max_bytes)
    }

    fn previous(&self, record: &Record) -> Result<Option<Arc<Record>>, StoreError> {
        self.store.previous(record)
    }
}
