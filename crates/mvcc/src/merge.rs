//! Merging what is behind into the engine's table `current`, in the order of keys and in slices.
//!
//! ```text
//!   begins when  │ what is behind takes much memory, or a start would have to read much of history again,
//!                │ or so many records have come that they are worth the leaves it will write,
//!                │ or a compaction is due, which deletes what the rows still in the engine may name,
//!                │ or nothing has changed for a while, and a start would be noticeably slower for what is behind
//!   a slice      │ some rows, in one engine transaction; then readers find them there
//!   ends         │ behind the last row: `through` becomes what was committed when it began
//! ```
//!
//! Commits go on between slices and may add rows anywhere. A newer row of a key that was there when the merge began goes
//! in its place; rows of other keys wait for the next merge, but for single ones between those: one that took them all
//! along would run after a writer who writes keys in their order, and `through` would stay behind for as long as he
//! writes. So each record that was there when it began is in the engine when it ends, or a newer one of its key: every
//! record up to `through` is, and every row left behind is of a later revision. If the process dies in between, some rows
//! of `current` are newer than `through` says, which [`crate::behind::Behind::rebuild`] passes over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use milepost_engine::Table;

use crate::behind::{Behind, Row, Rows};
use crate::commit::Committer;
use crate::error::StoreError;
use crate::scan::placed;
use crate::shared::Inner;
use crate::store::{Durable, Work};
use crate::tables;
use crate::view::{BATCH_KEYS, Reader, ViewState};

/// Rows and bytes of a slice: bounds how long a commit, and the log's sync, may have to wait for it.
const SLICE_ROWS: usize = 5000;
const SLICE_BYTES: usize = 4 << 20;
/// Disk space that a row may need at most beside its own, in bytes: a leaf and a share of a branch.
const BYTES_PER_ROW: u64 = 4096 + 1024;

/// Fewer records behind than this may stay there while nothing happens: a start reads them in some ten milliseconds.
const RECORDS_AT_REST: u64 = 10_000;

/// A merge in progress.
pub(crate) struct Merge {
    /// What was committed when it began.
    target: i64,
    /// The records that were behind then, and the rows.
    records: u64,
    rows: u64,
    /// Rows merged.
    merged: u64,
    /// The engine's key of the last row merged.
    after: Option<Vec<u8>>,
}

impl Merge {
    fn begin(committer: &Committer, behind: &Behind) -> Self {
        let (target, records) = (committer.committed.revision, committer.behind_records);
        Self { target, records, rows: behind.len() as u64, merged: 0, after: None }
    }

    /// Is less merged than is needed to come to the end before half as many records have come again?
    fn is_late(&self, committer: &Committer) -> bool {
        let come = committer.behind_records - self.records;
        self.merged * self.records < 2 * come * self.rows
    }
}

impl Inner {
    /// Merges a slice, if a merge is due. False: none is.
    pub(crate) fn merge_some(&self, committer: &mut Committer) -> Result<bool, StoreError> {
        if !self.merge_is_due(committer) {
            return Ok(false);
        }
        let behind = self.state.load().behind.clone();
        let begun = Merge::begin(committer, &behind);
        let merge = committer.merge.get_or_insert(begun);
        let (max_rows, max_bytes) = (SLICE_ROWS.min(self.options.gen_changes), SLICE_BYTES);
        let rows = behind.some(merge.after.as_deref(), merge.target, max_rows, max_bytes);
        let is_last = rows.len() < max_rows && rows.iter().map(Row::whole_len).sum::<usize>() < max_bytes;
        let through = is_last.then_some(merge.target);
        self.make_room(rows.iter().map(|row| 2 * row.whole_len() as u64 + BYTES_PER_ROW).sum::<u64>() + (1 << 20));
        let thin = rows.iter().filter(|row| row.left_out() > 0).count();
        // Most slices of small stores have all of their values.
        let write = || match thin {
            0 => self.write_rows(&rows, through),
            _ => self.write_rows(&self.with_values(&rows)?, through),
        };
        self.observed(Work::Commit, write).map_err(|error| self.fail_if_damaged(error))?;
        // The sync of this transaction came after the meta page of the commit before.
        *self.durable.lock() = Durable { index: committer.committed.applied, term: committer.committed.term };
        self.stats.merged_rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        self.stats.merged_thin.fetch_add(thin as u64, Ordering::Relaxed);
        merge.merged += rows.len() as u64;
        if let Some(last) = rows.iter().next_back() {
            merge.after = Some(last.key().to_vec());
        }
        if let Some(through) = through {
            committer.behind_records -= merge.records;
            committer.committed.through = through;
            committer.merge = None;
            committer.ask_again_at.set(0);
            self.stats.merges.fetch_add(1, Ordering::Relaxed);
        }
        let behind = Arc::new(behind.without(&rows));
        let mut core = self.core.lock();
        let state = ViewState { behind, ..core.state.parts() };
        core.install(state, self);
        core.note_waiting(self);
        drop(core);
        self.measure()?;
        Ok(true)
    }

    fn merge_is_due(&self, committer: &Committer) -> bool {
        let committed = &committer.committed;
        if self.merge_pauses.load(Ordering::Relaxed) > 0 || committed.through >= committed.revision {
            return false;
        }
        committer.merge.is_some()
            || committed.scheduled > committed.finished.max(committed.through)
            || self.state.load().behind.bytes() >= self.options.behind_bytes
            || committer.behind_records >= self.options.behind_records_most
            || self.is_worth_it(committer)
    }

    /// Tells the background's waiting whether there is more to merge, and whether a rest is to be used for it.
    pub(crate) fn plan_merge(&self, committer: &Committer) {
        let due = self.merge_is_due(committer);
        let mut core = self.core.lock();
        core.merging = due;
        core.may_merge = committer.behind_records >= RECORDS_AT_REST;
    }

    /// Nothing has changed for a while: the time is good for a merge.
    pub(crate) fn merge_at_rest(&self) {
        let mut committer = self.committer.lock();
        let begun = Merge::begin(&committer, &self.state.load().behind);
        // What is not due may as well wait until a defragmentation has ended; the next rest comes after a change.
        if self.merge_pauses.load(Ordering::Relaxed) == 0 && begun.records > 0 {
            committer.merge.get_or_insert(begun);
        }
        self.plan_merge(&committer);
        self.core.lock().may_merge = false;
    }

    /// After a commit: others may follow it without a pause, so a merge goes on between them, as fast as it must: while it
    /// goes on not more comes than half of what it began with.
    pub(crate) fn keep_up(&self, committer: &mut Committer) -> Result<(), StoreError> {
        let mut more = self.merge_some(committer)?;
        while more
            && (self.is_far_behind(committer) || committer.merge.as_ref().is_some_and(|merge| merge.is_late(committer)))
        {
            more = self.merge_some(committer)?;
        }
        Ok(())
    }

    /// Is so much behind that nothing more should be committed before some of it is merged?
    fn is_far_behind(&self, committer: &Committer) -> bool {
        let options = &self.options;
        committer.behind_records > options.behind_records_most.saturating_mul(2)
            || self.state.load().behind.bytes() > options.behind_bytes + options.behind_bytes / 4
    }

    /// Rows as the engine is to have them: with the values that were left out. One that cannot be read stays where it is; that
    /// is no reason to stay behind, and whoever reads the key is told.
    fn with_values(&self, rows: &Rows) -> Result<Rows, StoreError> {
        let engine = self.engine();
        let txn = engine.read()?;
        let state = self.state.load();
        let reader = Reader { inner: self, state: &state };
        let tables = reader.tables(&*txn);
        let (mut whole, mut revisions, mut places) = (Rows::default(), Vec::new(), Vec::new());
        for first in (0..rows.len()).step_by(BATCH_KEYS) {
            let some = || (first..rows.len().min(first + BATCH_KEYS)).map(|at| rows.get(at));
            revisions.clear();
            revisions.extend(some().filter_map(Row::wanting));
            places.clear();
            if self.note(tables.places(&revisions, &mut places)).is_err() {
                places.clear();
            }
            let mut found = revisions.iter().enumerate();
            for row in some() {
                let place = row.wanting().and_then(|_| found.next());
                let value = place.and_then(|(at, revision)| {
                    self.note(placed(*revision, places.get(at).copied().flatten())).ok().map(|record| record.value)
                });
                whole.push_with(row, value);
            }
        }
        Ok(whole)
    }

    /// Writes `rows` in one engine transaction, and where `current` stands if that was all.
    fn write_rows(&self, rows: &Rows, through: Option<i64>) -> Result<(), StoreError> {
        let engine = self.engine();
        let mut txn = self.begin(&*engine)?;
        for row in rows.iter() {
            txn.put(Table::Current, row.key(), row.record())?;
        }
        if let Some(through) = through {
            tables::write_through(through, &mut *txn)?;
        }
        self.end(txn)
    }
}
