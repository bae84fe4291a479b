//! Defragmentation: copying what is alive into a fresh engine while everything goes on, and switching over.
//!
//! ```text
//!   1  history up to the newest commit                    in chunks, beside commits; compaction pauses
//!   2  current                                             merges pause, until the switch
//!   3  what was committed to history meanwhile             until little is left
//!   4  the rest, attached, small tables, meta; sync        commits wait, apply does not
//!   5  CURRENT names the copy; new views read from it      views of before keep the old one until they are dropped
//! ```

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use milepost_engine::{Engine, Table};
use milepost_types::Revision;

use crate::codec::{self, is_sealed};
use crate::commit::Committer;
use crate::error::StoreError;
use crate::shared::Inner;
use crate::store::{Durable, Store, Work};
use crate::view::ViewState;

/// Main revisions that may be left to copy while commits wait: some milliseconds.
const LITTLE: i64 = 2000;
/// Rounds of catching up after which a store that is written faster than copied makes commits wait all the same.
const ROUNDS: usize = 10;

/// Bytes that are copied in one transaction. The log's sync may have to wait for that one's: two milliseconds or so where the
/// disk writes half a gigabyte per second.
const PIECE_BYTES: usize = 1 << 20;

impl Store {
    /// Rewrites the store without its free space; blocks the caller until it is done, and nobody else.
    ///
    /// # Errors
    /// [`StoreError::Engine`] if the disk has no room for a second copy or fails: the store goes on as it was. So it does
    /// after [`StoreError::Closed`].
    /// [`StoreError::Failed`] if the switch itself failed half-way: then the member must stop.
    pub fn defragment(&self) -> Result<(), StoreError> {
        let inner = self.inner();
        let _one_at_a_time = inner.filling.take();
        let _history_stays = HistoryStays::new(inner.clone());
        inner.observed(Work::Defragmentation, || copy_and_switch(inner))
    }
}

/// While it lives no record is deleted from history.
pub(crate) struct HistoryStays(Arc<Inner>);

impl HistoryStays {
    /// Waits for the step of a compaction that is being done.
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let committer = inner.committer.lock();
        inner.compaction_pauses.fetch_add(1, Ordering::Relaxed);
        drop(committer);
        Self(inner)
    }
}

impl Drop for HistoryStays {
    fn drop(&mut self) {
        self.0.compaction_pauses.fetch_sub(1, Ordering::Relaxed);
        self.0.wake.notify_all();
    }
}

/// While it lives the engine's `current` stays as it is, and what is behind grows.
struct CurrentStays(Arc<Inner>);

impl CurrentStays {
    /// Waits for the slice of a merge that is being written.
    fn new(inner: Arc<Inner>) -> Self {
        let committer = inner.committer.lock();
        inner.merge_pauses.fetch_add(1, Ordering::Relaxed);
        drop(committer);
        Self(inner)
    }
}

impl Drop for CurrentStays {
    fn drop(&mut self) {
        self.0.merge_pauses.fetch_sub(1, Ordering::Relaxed);
        self.0.wake.notify_all();
    }
}

fn copy_and_switch(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let old = inner.engine();
    let new = old.successor(old.sizes()?.in_use)?;
    // A piece is not more than is committed at once.
    let copy = Copying { old: &*old, new: &*new, max_rows: inner.options.gen_changes };
    let (next, _current_stays) = inner.fill(&copy).inspect_err(|_| new.retire())?;
    inner.switch(&copy, &new, next)
}

impl Inner {
    /// Copies everything that is committed, all but the last few revisions; answers with the first that is missing.
    fn fill(self: &Arc<Self>, copy: &Copying<'_>) -> Result<(Revision, CurrentStays), StoreError> {
        let newest = self.committer.lock().committed.revision;
        let end = Revision::end_of(newest).to_bytes();
        let go_on = || self.check_open();
        copy.rows(Table::History, Bound::Unbounded, Bound::Included(&end), go_on)?;
        let current_stays = CurrentStays::new(self.clone());
        copy.rows(Table::Current, Bound::Unbounded, Bound::Unbounded, go_on)?;
        let mut next = Revision::new(newest + 1, 0);
        for _ in 0..ROUNDS {
            let newest = self.committer.lock().committed.revision;
            if newest - next.main < LITTLE {
                break;
            }
            self.check_open()?;
            next = copy.catch_up(next, newest)?;
        }
        self.check_open()?;
        Ok((next, current_stays))
    }

    /// Copies the rest and lets the copy take the place of the old engine.
    fn switch(&self, copy: &Copying<'_>, new: &Arc<dyn Engine>, next: Revision) -> Result<(), StoreError> {
        let committer: &Committer = &self.committer.lock();
        copy.rest(next, committer.committed.revision).inspect_err(|_| new.retire())?;
        // From here on the copy may be what the next start opens: its files stay, whatever fails.
        // If this fails the next start may open either, and only one of them will hold what is committed from here on.
        let switched = copy.old.give_way();
        switched.map_err(|error| self.fail(&format!("switch to the defragmented store failed: {error}")))?;
        *self.durable.lock() = Durable { index: committer.committed.applied, term: committer.committed.term };
        let mut core = self.core.lock();
        let state = ViewState { engine: new.clone(), ..core.state.parts() };
        core.install(state, self);
        drop(core);
        self.measure()
    }
}

/// From where to where.
struct Copying<'e> {
    old: &'e dyn Engine,
    new: &'e dyn Engine,
    /// Rows that are copied in one transaction.
    max_rows: usize,
}

impl Copying<'_> {
    /// Copies what [`Inner::fill`] has left, and syncs the copy. Nothing is committed meanwhile.
    fn rest(&self, next: Revision, newest: i64) -> Result<(), StoreError> {
        self.catch_up(next, newest)?;
        for table in Table::ALL {
            if !matches!(table, Table::History | Table::Current) {
                self.rows(table, Bound::Unbounded, Bound::Unbounded, || Ok(()))?;
            }
        }
        Ok(self.new.sync()?)
    }

    /// Copies the revisions from `from` up to main revision `to`. The newest records of their keys are behind, and stay
    /// there.
    fn catch_up(&self, from: Revision, to: i64) -> Result<Revision, StoreError> {
        let (first, end) = (from.to_bytes(), Revision::end_of(to).to_bytes());
        self.rows(Table::History, Bound::Included(&first), Bound::Included(&end), || Ok(()))?;
        Ok(Revision::new(to + 1, 0))
    }

    /// Copies the rows of `table` from `from` up to `to`, which lie above everything in the copy's, a piece at a time.
    fn rows(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        go_on: impl Fn() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut last = self.piece(table, from, to)?;
        while let Some(key) = last {
            go_on()?;
            last = self.piece(table, Bound::Excluded(&key), to)?;
        }
        Ok(())
    }

    /// Copies the first of those rows, from page to page; the answer is the key of the last. A row keeps its checksum,
    /// which is all that is looked at.
    fn piece(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<Option<Vec<u8>>, StoreError> {
        // Half-full pages, and those above them.
        self.new.reserve(2 * PIECE_BYTES as u64 + (1 << 20));
        let mut txn = self.new.write()?;
        let last = {
            let read = self.old.read()?;
            let mut cursor = read.scan(table, from, to)?;
            let (mut last, mut rows, mut bytes) = (None, 0, 0);
            while rows < self.max_rows && bytes < PIECE_BYTES {
                let Some((key, value)) = cursor.next()? else { break };
                if !is_sealed(key, value) {
                    return Err(codec::corrupt(table, key, "checksum mismatch"));
                }
                txn.append(table, key, value)?;
                (rows, bytes) = (rows + 1, bytes + key.len() + value.len());
                last = Some(key);
            }
            last.map(<[u8]>::to_vec)
        };
        if last.is_some() {
            txn.commit()?;
        }
        Ok(last)
    }
}
