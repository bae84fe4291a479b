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

use milepost_engine::{Engine, ReadTxn, Table};
use milepost_types::Revision;

use crate::codec;
use crate::commit::Committer;
use crate::error::StoreError;
use crate::salvage::{append, copy, read_chunk};
use crate::shared::Inner;
use crate::store::{Durable, Store, Work};
use crate::view::ViewState;

/// Main revisions that may be left to copy while commits wait: some milliseconds.
const LITTLE: i64 = 2000;
/// Rounds of catching up after which a store that is written faster than copied makes commits wait all the same.
const ROUNDS: usize = 10;

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
    let (next, _current_stays) = inner.fill(&*old, &*new).inspect_err(|_| new.retire())?;
    inner.switch(&*old, &new, next)
}

impl Inner {
    /// Copies everything that is committed, all but the last few revisions; answers with the first that is missing.
    fn fill(self: &Arc<Self>, old: &dyn Engine, new: &dyn Engine) -> Result<(Revision, CurrentStays), StoreError> {
        let newest = self.committer.lock().committed.revision;
        let end = Revision::end_of(newest).to_bytes();
        self.copy_table(old, new, Table::History, Bound::Included(&end))?;
        let current_stays = CurrentStays::new(self.clone());
        self.copy_table(old, new, Table::Current, Bound::Unbounded)?;
        let mut next = Revision::new(newest + 1, 0);
        for _ in 0..ROUNDS {
            let newest = self.committer.lock().committed.revision;
            if newest - next.main < LITTLE {
                break;
            }
            self.check_open()?;
            next = catch_up(old, new, next, newest)?;
        }
        self.check_open()?;
        Ok((next, current_stays))
    }

    fn copy_table(&self, old: &dyn Engine, new: &dyn Engine, table: Table, to: Bound<&[u8]>) -> Result<(), StoreError> {
        copy(old, table, to, &mut check, &mut |chunk| {
            self.check_open()?;
            append(new, table, chunk)
        })
    }

    /// Copies the rest and lets the copy take the place of `old`.
    fn switch(&self, old: &dyn Engine, new: &Arc<dyn Engine>, next: Revision) -> Result<(), StoreError> {
        let committer: &Committer = &self.committer.lock();
        copy_rest(old, &**new, next, committer.committed.revision).inspect_err(|_| new.retire())?;
        // From here on the copy may be what the next start opens: its files stay, whatever fails.
        // If this fails the next start may open either, and only one of them will hold what is committed from here on.
        old.give_way().map_err(|error| self.fail(&format!("switch to the defragmented store failed: {error}")))?;
        *self.durable.lock() = Durable { index: committer.committed.applied, term: committer.committed.term };
        let mut core = self.core.lock();
        let state = ViewState { engine: new.clone(), ..core.state.parts() };
        core.install(state, self);
        drop(core);
        self.measure()
    }
}

/// Copies what [`Inner::fill`] has left, and syncs the copy. Nothing is committed meanwhile.
fn copy_rest(old: &dyn Engine, new: &dyn Engine, next: Revision, newest: i64) -> Result<(), StoreError> {
    catch_up(old, new, next, newest)?;
    for table in Table::ALL {
        if !matches!(table, Table::History | Table::Current) {
            copy(old, table, Bound::Unbounded, &mut check, &mut |chunk| append(new, table, chunk))?;
        }
    }
    Ok(new.sync()?)
}

/// Copies the revisions from `from` up to main revision `to`. The newest records of their keys are behind, and stay there.
fn catch_up(old: &dyn Engine, new: &dyn Engine, from: Revision, to: i64) -> Result<Revision, StoreError> {
    let (mut from, end) = (from.to_bytes().to_vec(), Revision::end_of(to).to_bytes());
    loop {
        let (first, last) = (Bound::Included(&from[..]), Bound::Included(&end[..]));
        let chunk = read_chunk(old, Table::History, first, last, &mut check)?;
        let Some((newest_key, _)) = chunk.last() else { return Ok(Revision::new(to + 1, 0)) };
        // The shortest key above it.
        from = [newest_key, &[0][..]].concat();
        append(new, Table::History, &chunk)?;
    }
}

fn check(_: &dyn ReadTxn, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    match table {
        Table::History => codec::decode_history(key, value).map(drop),
        Table::Current => codec::decode_current(key, value).map(drop),
        Table::Attached => codec::decode_attached(key, value).map(drop),
        _ => codec::decode_row(table, key, value).map(drop),
    }
}
