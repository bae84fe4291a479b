//! Compaction: deleting what lies below the floor, in the background and in small steps.
//!
//! A compaction to B walks `history` from F, the bound of the last finished one, up to B. What each record there has
//! replaced, its `previous`, goes; so does a tombstone below B, with its entry in `current` if that still names it (etcd
//! keeps a tombstone at exactly B). Everything up to F was cleaned by the last compaction, so the walk costs what has
//! changed since, not what is there. After a crash it starts again at F; what is gone already is passed over.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use milepost_engine::{Table, WriteTxn};
use milepost_types::Revision;

use crate::codec;
use crate::commit::Committer;
use crate::error::StoreError;
use crate::hash::{HashKv, Hasher, KEPT_HASHES};
use crate::keys::EngineKey;
use crate::shared::Inner;
use crate::store::{Durable, Work};
use crate::tables;
use crate::view::Reader;

/// What one step found to delete.
#[derive(Default)]
struct Step {
    superseded: Vec<Revision>,
    tombstones: Vec<(Revision, Vec<u8>)>,
    /// Last record looked at; `None`: the walk is over.
    last: Option<Revision>,
    visited: u64,
}

impl Step {
    /// Disk space that deleting may need at most, in bytes: a leaf of each table and a share of a branch per record.
    fn room_needed(&self) -> u64 {
        const BYTES_PER_DELETE: u64 = 2 * 4096 + 1024;
        (self.superseded.len() + self.tombstones.len()) as u64 * BYTES_PER_DELETE + (1 << 20)
    }
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
        if self.hash_some(committer)? {
            return Ok(true);
        }
        if self.is_pinned() {
            return Ok(false);
        }
        if committer.resume.is_none() {
            self.tell(|observer| observer.begin(Work::Compaction));
        }
        let from = committer.resume.unwrap_or(Revision::new(committer.committed.finished.max(0), 0));
        let step = self.look(from, bound)?;
        self.make_room(step.room_needed());
        let deleted = self.observed(Work::CompactionStep, || self.delete(&step, bound))?;
        // A step that found nothing to delete wrote nothing, so it synced nothing.
        if deleted > 0 || step.last.is_none() {
            *self.durable.lock() = Durable { index: committer.committed.applied, term: committer.committed.term };
        }
        self.stats.compaction_visited.fetch_add(step.visited, Ordering::Relaxed);
        self.stats.compaction_deleted.fetch_add(deleted, Ordering::Relaxed);
        committer.resume = step.last.map(|last| Revision::new(last.main, last.sub + 1));
        if step.last.is_none() {
            committer.committed.finished = bound;
            self.tell(|observer| observer.end(Work::Compaction));
            self.compacted(bound, committer.hashed.take());
            self.measure()?;
        }
        Ok(true)
    }

    /// Deletes what a step found, in one engine transaction.
    fn delete(&self, step: &Step, bound: i64) -> Result<u64, StoreError> {
        let engine = self.engine();
        let mut txn = self.begin(&*engine)?;
        let deleted = delete(step, &mut *txn)?;
        if step.last.is_none() {
            tables::write_finished(bound, &mut *txn)?;
        }
        self.end(txn)?;
        Ok(deleted)
    }

    /// Goes on with the hash that is due before anything more is deleted. False: none is.
    fn hash_some(&self, committer: &mut Committer) -> Result<bool, StoreError> {
        if committer.hasher.is_none() {
            let Some(due) = self.core.lock().hash_due.take() else { return Ok(false) };
            committer.hasher = Some((Hasher::of_compaction(due.floor, due.bound), due.state));
        }
        let Some((hasher, state)) = &mut committer.hasher else { return Ok(false) };
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

    fn look(&self, from: Revision, bound: i64) -> Result<Step, StoreError> {
        let engine = self.engine();
        let txn = engine.read()?;
        let (first, end) = (from.to_bytes(), Revision::end_of(bound).to_bytes());
        let mut cursor = txn.scan(Table::History, Bound::Included(&first), Bound::Included(&end))?;
        let mut step = Step::default();
        while let Some((key, bytes)) = cursor.next()? {
            let record = codec::decode_history(key, bytes)?;
            step.visited += 1;
            if record.previous != Revision::ZERO {
                step.superseded.push(record.previous);
            }
            if record.tombstone && record.revision.main < bound {
                step.tombstones.push((record.revision, record.key.to_vec()));
            }
            if step.visited >= self.options.compaction_batch as u64 {
                step.last = Some(record.revision);
                break;
            }
        }
        Ok(step)
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

fn delete(step: &Step, txn: &mut dyn WriteTxn) -> Result<u64, StoreError> {
    let mut deleted = 0;
    for revision in &step.superseded {
        deleted += u64::from(txn.delete(Table::History, &revision.to_bytes())?);
    }
    for (revision, key) in &step.tombstones {
        deleted += u64::from(txn.delete(Table::History, &revision.to_bytes())?);
        let engine_key = EngineKey::of(key);
        let names_it = match txn.get(Table::Current, engine_key.bytes())? {
            Some(bytes) => codec::decode_current(engine_key.bytes(), bytes)?.revision == *revision,
            None => false,
        };
        if names_it {
            txn.delete(Table::Current, engine_key.bytes())?;
        }
    }
    Ok(deleted)
}
