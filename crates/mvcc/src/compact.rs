//! Compaction: deleting what lies below the floor, in the background and in small steps.
//!
//! A compaction to B walks `history` from F, the bound of the last finished one, up to B. What each record there has
//! replaced, its `previous`, goes; so does a tombstone below B, with its entry in `current` if that still names it (etcd
//! keeps a tombstone at exactly B). Everything up to F was cleaned by the last compaction, so the walk costs what has
//! changed since, not what is there. After a crash it starts again at F; what is gone already is passed over.
//!
//! The hash of what it leaves is taken on the same walk: what dies lies below the record that says so.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use milepost_engine::{Table, WriteTxn};
use milepost_types::Revision;

use crate::codec::{self, HistoryRef};
use crate::commit::Committer;
use crate::error::StoreError;
use crate::hash::{HashKv, Hasher, KEPT_HASHES};
use crate::keys::EngineKey;
use crate::shared::Inner;
use crate::store::{Durable, Work};
use crate::tables;
use crate::view::Reader;

/// Pages that one step may meet: a megabyte, behind which the sync of the log waits for two milliseconds or so where the
/// disk writes half a gigabyte per second.
const STEP_PAGES: usize = 256;
/// Disk space that a step may need at most, in bytes: each page, one beside it and one above; lists of free pages.
const STEP_ROOM: u64 = STEP_PAGES as u64 * 3 * 4096 + (1 << 20);

/// What one step did.
#[derive(Default)]
struct Step {
    visited: u64,
    deleted: u64,
    /// Last record looked at; `None`: the walk is over.
    last: Option<Revision>,
}

impl Inner {
    /// Does one step of the compaction that is due. False: none is, or views still need what it would delete.
    pub(crate) fn compact_some(&self, committer: &mut Committer) -> Result<bool, StoreError> {
        // Only a floor that is committed: otherwise a crash would replay reads against what was deleted after them.
        let bound = committer.committed.scheduled;
        if bound <= committer.committed.finished || self.compaction_pauses.load(Ordering::Relaxed) > 0 {
            return Ok(false);
        }
        // The engine's `current`, and what a start would rebuild from, may name what is deleted.
        if committer.committed.through < bound.min(committer.committed.revision) {
            return Ok(false);
        }
        let from = committer.resume.unwrap_or(Revision::new(committer.committed.finished.max(0), 0));
        let is_pinned = self.is_pinned();
        if self.hash_some(committer, from, bound, is_pinned)? {
            return Ok(true);
        }
        if is_pinned {
            return Ok(false);
        }
        if committer.resume.is_none() {
            self.tell(|observer| observer.begin(Work::Compaction));
        }
        self.make_room(STEP_ROOM);
        let hasher = committer.hasher.as_mut().map(|(hasher, _)| hasher);
        let step = self.observed(Work::CompactionStep, || self.step_through(from, bound, hasher))?;
        // A step that found nothing to delete wrote nothing, so it synced nothing.
        if step.deleted > 0 || step.last.is_none() {
            *self.durable.lock() = Durable { index: committer.committed.applied, term: committer.committed.term };
        }
        self.stats.compaction_visited.fetch_add(step.visited, Ordering::Relaxed);
        self.stats.compaction_deleted.fetch_add(step.deleted, Ordering::Relaxed);
        committer.resume = step.last.map(|last| Revision::new(last.main, last.sub + 1));
        if step.last.is_none() {
            committer.committed.finished = bound;
            self.tell(|observer| observer.end(Work::Compaction));
            if let Some((hasher, _)) = committer.hasher.take() {
                committer.hashed = Some(hasher.done());
            }
            self.compacted(bound, committer.hashed.take());
            self.measure()?;
        }
        Ok(true)
    }

    /// Looks at some records from `from` on and deletes what they say, in one engine transaction. `hasher` takes those that
    /// it has not had: this may be another try, after one that was not written.
    fn step_through(&self, from: Revision, bound: i64, mut hasher: Option<&mut Hasher>) -> Result<Step, StoreError> {
        let engine = self.engine();
        let (mut step, mut write) = (Step::default(), None);
        {
            let read = engine.read()?;
            let (first, end) = (from.to_bytes(), Revision::end_of(bound).to_bytes());
            let mut cursor = read.scan(Table::History, Bound::Included(&first), Bound::Included(&end))?;
            while let Some((key, bytes)) = cursor.next()? {
                let record = codec::decode_history(key, bytes)?;
                if let Some(hasher) = &mut hasher {
                    hasher.take(&record);
                }
                step.visited += 1;
                let dies = record.tombstone && record.revision.main < bound;
                if dies || record.previous != Revision::ZERO {
                    let txn = match &mut write {
                        Some(txn) => txn,
                        None => write.insert(self.begin(&*engine)?),
                    };
                    step.deleted += delete(&record, dies, &mut **txn)?;
                }
                let is_large = write.as_ref().is_some_and(|txn| txn.pages_met() >= STEP_PAGES);
                if is_large || step.visited >= self.options.compaction_batch as u64 {
                    step.last = Some(record.revision);
                    break;
                }
            }
        }
        if step.last.is_none() {
            let txn = match &mut write {
                Some(txn) => txn,
                None => write.insert(self.begin(&*engine)?),
            };
            tables::write_finished(bound, &mut **txn)?;
        }
        if let Some(txn) = write {
            self.end(txn)?;
        }
        Ok(step)
    }

    /// Goes on with the hash that is due where it cannot be taken by the steps of the compaction, which stand at `from`: up
    /// to there, when they have to wait, or go further than it. False: there is nothing to do but for them.
    fn hash_some(
        &self,
        committer: &mut Committer,
        from: Revision,
        bound: i64,
        is_pinned: bool,
    ) -> Result<bool, StoreError> {
        if committer.hasher.is_none() {
            let due = self.core.lock().hash_due.take();
            committer.hasher = due.map(|due| (Hasher::of_compaction(due.floor, due.bound), due.state));
        }
        let Some((hasher, state)) = &mut committer.hasher else { return Ok(false) };
        if !is_pinned && hasher.goes_along(from, bound) {
            return Ok(false);
        }
        if hasher.step(&Reader { inner: self, state })? {
            committer.hashed = Some(hasher.done());
            committer.hasher = None;
        }
        Ok(true)
    }

    /// Does a view hold a floor below the newest?
    fn is_pinned(&self) -> bool {
        let mut core = self.core.lock();
        core.old_floors.retain(|floor| floor.strong_count() > 0);
        !core.old_floors.is_empty()
    }

    /// Tells that the deletions of the compaction to `bound` are done, and of `hash`, what one up to it leaves. Both at
    /// once: who sees the hash may compact again, and that compaction's hash is kept only if this one counts as done.
    fn compacted(&self, bound: i64, hash: Option<HashKv>) {
        let mut core = self.core.lock();
        core.meta.finished = bound;
        core.hashes.extend(hash);
        if core.hashes.len() > KEPT_HASHES {
            core.hashes.pop_front();
        }
        let (done, waiting) = core.when_compacted.drain(..).partition(|(revision, _)| *revision <= bound);
        core.when_compacted = waiting;
        drop(core);
        let done: Vec<(i64, crate::shared::WhenCompacted)> = done;
        for (_, call) in done {
            call();
        }
    }
}

/// Deletes what `record` has replaced, and, if it `dies`, a tombstone itself.
fn delete(record: &HistoryRef<'_>, dies: bool, txn: &mut dyn WriteTxn) -> Result<u64, StoreError> {
    let mut deleted = 0;
    if record.previous != Revision::ZERO {
        deleted += u64::from(txn.delete(Table::History, &record.previous.to_bytes())?);
    }
    if dies {
        deleted += u64::from(txn.delete(Table::History, &record.revision.to_bytes())?);
        let engine_key = EngineKey::of(record.key);
        let names_it = match txn.get(Table::Current, engine_key.bytes())? {
            Some(bytes) => codec::decode_current(engine_key.bytes(), bytes)?.revision == record.revision,
            None => false,
        };
        if names_it {
            txn.delete(Table::Current, engine_key.bytes())?;
        }
    }
    Ok(deleted)
}
