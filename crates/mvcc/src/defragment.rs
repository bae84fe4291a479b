//! Defragmentation: copying what is alive into a fresh engine while everything goes on, and switching over.
//!
//! ```text
//!   1  history up to the newest commit, then current      in chunks, beside commits; compaction pauses
//!   2  what was committed meanwhile: from history          until little is left
//!   3  the rest, attached, small tables, meta; sync        commits wait, apply does not
//!   4  CURRENT names the copy; new views read from it      views of before keep the old one until they are dropped
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use milepost_engine::{Engine, ReadTxn, Table};
use milepost_types::Revision;

use crate::codec;
use crate::commit::Committer;
use crate::error::StoreError;
use crate::keys::EngineKey;
use crate::salvage::{append, copy, read_chunk, room_needed};
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
        inner.observed(Work::Defragmentation, || inner.copy_and_switch())
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

impl Inner {
    fn copy_and_switch(&self) -> Result<(), StoreError> {
        let old = self.engine();
        let new = old.successor(old.sizes()?.in_use)?;
        let next = self.fill(&*old, &*new).inspect_err(|_| new.retire())?;
        self.switch(&*old, &new, next)
    }

    /// Copies everything that is committed, all but the last few revisions; answers with the first that is missing.
    fn fill(&self, old: &dyn Engine, new: &dyn Engine) -> Result<Revision, StoreError> {
        let newest = self.committer.lock().committed.revision;
        let end = Revision::end_of(newest).to_bytes();
        for (table, end) in [(Table::History, Bound::Included(&end[..])), (Table::Current, Bound::Unbounded)] {
            copy(old, table, end, &mut check, &mut |chunk| {
                self.check_open()?;
                append(new, table, chunk)
            })?;
        }
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
        Ok(next)
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

/// Copies the revisions from `from` up to main revision `to`, and with them the newest records of their keys.
fn catch_up(old: &dyn Engine, new: &dyn Engine, from: Revision, to: i64) -> Result<Revision, StoreError> {
    let (mut from, end) = (from.to_bytes().to_vec(), Revision::end_of(to).to_bytes());
    loop {
        let mut newest = BTreeMap::new();
        let mut with_newest = |txn: &dyn ReadTxn, _, key: &[u8], value: &[u8]| {
            let record = codec::decode_history(key, value)?;
            let engine_key = EngineKey::of(record.key);
            let engine_key = engine_key.bytes();
            let lost = || codec::corrupt(Table::Current, engine_key, codec::MISSING);
            let current = txn.get(Table::Current, engine_key)?.ok_or_else(lost)?;
            codec::decode_current(engine_key, current)?;
            newest.insert(engine_key.to_vec(), current.to_vec());
            Ok(())
        };
        let (first, last) = (Bound::Included(&from[..]), Bound::Included(&end[..]));
        let chunk = read_chunk(old, Table::History, first, last, &mut with_newest)?;
        let Some((newest_key, _)) = chunk.last() else { return Ok(Revision::new(to + 1, 0)) };
        // The shortest key above it.
        from = [newest_key, &[0][..]].concat();
        new.reserve(2 * room_needed(&chunk));
        let mut txn = new.write()?;
        for (key, value) in &chunk {
            txn.append(Table::History, key, value)?;
        }
        for (key, value) in &newest {
            txn.put(Table::Current, key, value)?;
        }
        txn.commit()?;
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
