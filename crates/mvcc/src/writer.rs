//! Writing: the changes of one log entry at a time.

use std::sync::Arc;

use bytes::Bytes;
use milepost_types::{KeyRange, LeaseId, LogIndex, RangeEnd, Revision, Term};
use parking_lot::MutexGuard;

use crate::error::StoreError;
use crate::record::{Header, Record, Spine};
use crate::shared::{Core, Inner};
use crate::store::Handle;
use crate::tables::SmallTable;
use crate::view::{RangeOptions, RangeResult, Reader};

/// What memory a record is taken to cost beside its key and value, in bytes: two tree nodes, two references.
const RECORD_OVERHEAD: usize = 256;

/// The one writer of a store; owned by apply.
pub struct Writer {
    pub(crate) handle: Arc<Handle>,
}

/// The changes of one log entry. Nobody else sees them before [`Change::finish`]; dropping a change undoes it.
pub struct Change<'w> {
    inner: &'w Inner,
    core: MutexGuard<'w, Core>,
    index: LogIndex,
    term: Term,
    records: Vec<Arc<Record>>,
    tables: Vec<(SmallTable, Vec<u8>, Option<Vec<u8>>)>,
    conf_state: Option<Vec<u8>>,
    compact: Option<i64>,
}

/// The changes of keys that one log entry made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBatch {
    /// Their main revision.
    pub revision: i64,
    /// In the order of their sub revisions; never empty.
    pub records: Vec<Arc<Record>>,
}

impl Writer {
    /// Begins the changes of the log entry `index`; waits while both generations are full.
    pub fn begin(&mut self, index: LogIndex, term: Term) -> Change<'_> {
        let inner = &self.handle.inner;
        let core = inner.wait_for_room();
        debug_assert!(index > core.meta.applied, "entry {index} after {}", core.meta.applied);
        let (records, tables) = (Vec::new(), Vec::new());
        Change { inner, core, index, term, records, tables, conf_state: None, compact: None }
    }

    /// Lets go of the store; the background work ends with the last handle.
    pub fn stop(self) {}
}

impl Change<'_> {
    /// Newest main revision before this entry.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.core.meta.revision
    }

    /// Main revision of this entry's changes.
    #[must_use]
    pub fn next_main(&self) -> i64 {
        self.core.meta.revision + 1
    }

    /// Has a key been changed?
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.records.is_empty()
    }

    /// The compact revision before this entry; -1: never compacted.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.core.state.floor.compact_revision
    }

    fn reader(&self) -> Reader<'_> {
        Reader { inner: self.inner, state: &self.core.state }
    }

    /// The live record of `key` with its value, own changes included.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Arc<Record>>, StoreError> {
        self.reader().get(key, i64::MAX, true)
    }

    /// The live records of `range`: at or below zero as they are now, own changes included; else as of `at`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] for an `at` out of bounds (the future begins after
    /// [`Change::next_main`] once something has changed), or if the store cannot be read.
    pub fn range(&self, range: KeyRange<'_>, at: i64, options: RangeOptions) -> Result<RangeResult, StoreError> {
        let current = if self.has_changes() { self.next_main() } else { self.revision() };
        if at > current {
            return Err(StoreError::FutureRevision { asked: at, current });
        }
        let floor = self.compact_revision();
        if at > 0 && at < floor {
            return Err(StoreError::Compacted { asked: at, floor });
        }
        let now = if self.has_changes() { i64::MAX } else { self.revision() };
        self.reader().range(range, if at <= 0 { now } else { at }, options)
    }

    /// Sets `key`, attaches it to `lease` (zero: to none), and tells what it was before, if it was there.
    ///
    /// # Errors
    /// [`StoreError::EmptyKey`], or if the store cannot be read; then nothing was changed.
    pub fn put(&mut self, key: Bytes, value: Bytes, lease: LeaseId) -> Result<Option<Header>, StoreError> {
        if key.is_empty() {
            return Err(StoreError::EmptyKey);
        }
        let before = self.reader().newest_with_spine(&key)?;
        let revision = self.next_revision();
        let live = before.as_ref().filter(|before| !before.is_tombstone());
        let (create_revision, version) =
            live.map_or((revision.main, 1), |live| (live.create_revision, live.version + 1));
        let live = live.map(|live| live.header());
        let (previous, spine) = links(before.as_deref());
        self.attach(live.map_or(LeaseId(0), |live| live.lease), lease, &key, revision);
        let jump = spine.jump();
        self.add(Record { key, value, create_revision, revision, version, lease, previous, jump, spine });
        Ok(live)
    }

    /// Deletes the live keys of `range` in key order, each a change of its own, and tells what they were.
    ///
    /// Without `want_values` the values of the records returned may be empty.
    ///
    /// # Errors
    /// If the store cannot be read; then nothing was changed.
    pub fn delete_range(&mut self, range: KeyRange<'_>, want_values: bool) -> Result<Vec<Arc<Record>>, StoreError> {
        let doomed = match range.end {
            RangeEnd::Single => self.reader().newest_with_spine(range.start)?.into_iter().collect(),
            _ => self.reader().range_with_spines(range)?,
        };
        let mut deleted = Vec::with_capacity(doomed.len());
        for before in doomed.iter().filter(|before| !before.is_tombstone()) {
            let value = if want_values { self.get(&before.key)? } else { None };
            deleted.push(value.unwrap_or_else(|| before.clone()));
        }
        for before in doomed.into_iter().filter(|before| !before.is_tombstone()) {
            self.bury(&before);
        }
        Ok(deleted)
    }

    /// Adds the tombstone of `before`'s key.
    fn bury(&mut self, before: &Record) {
        let revision = self.next_revision();
        let (previous, spine) = links(Some(before));
        self.attach(before.lease, LeaseId(0), &before.key, revision);
        self.add(Record {
            key: before.key.clone(),
            value: Bytes::new(),
            create_revision: 0,
            revision,
            version: 0,
            lease: LeaseId(0),
            previous,
            jump: spine.jump(),
            spine,
        });
    }

    fn next_revision(&self) -> Revision {
        Revision::new(self.next_main(), self.records.len() as i64)
    }

    fn add(&mut self, record: Record) {
        self.core.size_bytes += record.key.len() + record.value.len() + RECORD_OVERHEAD;
        self.core.changes += 1;
        let record = Arc::new(record);
        self.core.state.active.insert(record.clone());
        self.records.push(record);
    }

    fn attach(&self, from: LeaseId, to: LeaseId, key: &Bytes, revision: Revision) {
        if from == to {
            return;
        }
        if from != LeaseId(0) {
            self.core.state.active.attach(from, key.clone(), revision, false);
        }
        if to != LeaseId(0) {
            self.core.state.active.attach(to, key.clone(), revision, true);
        }
    }

    /// The keys attached to `lease`, sorted, own changes included.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn attached(&self, lease: LeaseId) -> Result<Vec<Bytes>, StoreError> {
        self.reader().attached(lease, i64::MAX)
    }

    /// Sets a key of a small table.
    pub fn table_put(&mut self, table: SmallTable, key: Vec<u8>, value: Vec<u8>) {
        self.tables.push((table, key, Some(value)));
    }

    /// Removes a key of a small table.
    pub fn table_delete(&mut self, table: SmallTable, key: &[u8]) {
        self.tables.push((table, key.to_vec(), None));
    }

    /// Remembers the Raft configuration that holds from this entry on.
    pub fn set_conf_state(&mut self, conf_state: Vec<u8>) {
        self.conf_state = Some(conf_state);
    }

    /// Raises the floor to `revision`: from this entry on reads below it fail. What is no longer needed is deleted in
    /// the background.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if the floor is there already, [`StoreError::FutureRevision`] above the newest revision.
    pub fn compact(&mut self, revision: i64) -> Result<(), StoreError> {
        let floor = self.compact.unwrap_or_else(|| self.compact_revision());
        if revision <= floor {
            return Err(StoreError::Compacted { asked: revision, floor });
        }
        if revision > self.revision() {
            return Err(StoreError::FutureRevision { asked: revision, current: self.revision() });
        }
        self.compact = Some(revision);
        Ok(())
    }

    /// Makes the entry's changes visible, all at once, and marks the entry as applied.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if the store has failed for good; the changes are undone.
    pub fn finish(mut self) -> Result<Option<Arc<EventBatch>>, StoreError> {
        self.inner.check()?;
        let records = std::mem::take(&mut self.records);
        let revision = self.next_main();
        let core = &mut *self.core;
        core.meta.applied = self.index;
        core.meta.term = self.term;
        if !records.is_empty() {
            core.meta.revision = revision;
        }
        if let Some(bound) = self.compact.take() {
            core.raise_floor(bound, self.inner);
        }
        for (table, key, value) in &self.tables {
            core.size_bytes += key.len() + value.as_ref().map_or(0, Vec::len) + RECORD_OVERHEAD;
            core.changes += 1;
            debug_assert!(*table != SmallTable::Meta || key.starts_with(crate::tables::APP_PREFIX), "{key:?}");
        }
        {
            let active = &core.state.active;
            let mut rest = active.rest.lock();
            rest.meta = core.meta.clone();
            rest.tables.extend(self.tables.drain(..).map(|(table, key, value)| ((table, key), value)));
            if let Some(conf_state) = self.conf_state.take() {
                rest.conf_state = Some(conf_state);
            }
        }
        let large = self.inner.counts.add(records.iter().map(|record| &**record));
        core.state.active.publish(core.meta.revision);
        self.inner.cut_blocks(&core.state, large);
        self.inner.entry_finished(core);
        Ok((!records.is_empty()).then(|| Arc::new(EventBatch { revision, records })))
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if !self.records.is_empty() {
            self.core.state.active.undo();
        }
    }
}

/// Previous and spine of the change that follows `before`.
pub(crate) fn links(before: Option<&Record>) -> (Revision, Spine) {
    match before {
        Some(before) => (before.revision, before.spine.child(before.revision)),
        None => (Revision::ZERO, Spine::default()),
    }
}
