//! The background: committing generations to the engine, and knowing what of it is durable.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use milepost_engine::{Engine, EngineError, Room, Table, WriteTxn};

use crate::behind::Values;
use crate::codec;
use crate::error::StoreError;
use crate::generation::Generation;
use crate::hash::{HashKv, Hasher};
use crate::keys;
use crate::merge::Merge;
use crate::shared::Inner;
use crate::store::{Durable, Work};
use crate::tables::{Meta, put_row};
use crate::view::ViewState;

/// What committing needs to remember; see [`Inner::committer`].
pub(crate) struct Committer {
    /// As of the newest commit.
    pub committed: Meta,
    /// Records of `history` above what `current` has: what a start would read again.
    pub behind_records: u64,
    /// Below so many, whether they are worth a merge has been asked already.
    pub ask_again_at: Cell<u64>,
    /// The merge into `current` in progress.
    pub merge: Option<Merge>,
    /// Where the compaction in progress goes on.
    pub resume: Option<milepost_types::Revision>,
    /// The hash being taken before the compaction that is due, and what it reads.
    pub hasher: Option<(Hasher, Arc<ViewState>)>,
    /// The hash that was taken, for readers to find when the compaction has finished.
    pub hashed: Option<HashKv>,
}

/// What the background thread does next.
enum Errand {
    /// A commit or a step of a compaction.
    Work { flush: bool },
    /// Disk space was short: is it still?
    LookForRoom,
    /// Nothing has changed for a while.
    Rest,
}

/// So many times the age at which changes are committed must pass without one for a rest to have begun.
const REST: u32 = 10;

impl Committer {
    pub fn new(committed: Meta, behind_records: u64) -> Self {
        let ask_again_at = Cell::new(0);
        Self { committed, behind_records, ask_again_at, merge: None, resume: None, hasher: None, hashed: None }
    }
}

impl Inner {
    /// The background thread. Time comes only from the waits: a generation is committed at the first wait that ends
    /// without a call, so none gets older than the age bound and a commit.
    pub fn run(self: Arc<Self>) {
        let mut age = Duration::ZERO;
        while let Some(errand) = self.next_errand(&mut age) {
            match errand {
                Errand::LookForRoom => self.look_for_room(),
                Errand::Rest => self.merge_at_rest(),
                Errand::Work { flush } => {
                    if self.work(flush).is_err() {
                        self.rest();
                    }
                }
            }
        }
    }

    /// Waits until there is something to do; `None`: the store is closed. `age` is how long changes have been waiting.
    fn next_errand(&self, age: &mut Duration) -> Option<Errand> {
        let mut core = self.core.lock();
        let mut waited = false;
        while !core.stop {
            let compacting = core.merging || core.meta.scheduled > core.meta.finished;
            let short = self.short_of_space.load(Ordering::Relaxed);
            if self.failed.get().is_some() {
                self.wake.wait(&mut core);
                continue;
            }
            if core.state.sealed.is_some() || core.hurry || (core.dirty && *age >= self.options.gen_age) {
                let flush = core.hurry || *age >= self.options.gen_age;
                *age = Duration::ZERO;
                return Some(Errand::Work { flush });
            }
            match waited {
                true if compacting => return Some(Errand::Work { flush: false }),
                true if short => return Some(Errand::LookForRoom),
                _ => {}
            }
            if core.dirty || compacting || short {
                let pause = if compacting { self.options.compaction_sleep } else { self.options.gen_age };
                waited = self.wake.wait_for(&mut core, pause).timed_out();
                *age = if core.dirty && waited { *age + pause } else { *age };
            } else if core.may_merge {
                *age = Duration::ZERO;
                if self.wake.wait_for(&mut core, self.options.gen_age * REST).timed_out() && !core.dirty && !core.stop {
                    return Some(Errand::Rest);
                }
            } else {
                *age = Duration::ZERO;
                self.wake.wait(&mut core);
            }
        }
        None
    }

    /// Waits a little before work that failed is tried again.
    fn rest(&self) {
        let mut core = self.core.lock();
        if !core.stop {
            self.wake.wait_for(&mut core, self.options.gen_age);
        }
    }

    /// Commits a generation, or else merges some of what is behind or does a step of a compaction. False: nothing to do.
    pub fn work(&self, flush: bool) -> Result<bool, StoreError> {
        let mut committer = self.committer.lock();
        let done = self.work_as(&mut committer, flush);
        self.plan_merge(&committer);
        self.note(done)
    }

    fn work_as(&self, committer: &mut Committer, flush: bool) -> Result<bool, StoreError> {
        if !self.commit_next(committer, flush)? {
            return Ok(self.merge_some(committer)? || self.compact_some(committer)?);
        }
        self.keep_up(committer)?;
        Ok(true)
    }

    /// Commits the sealed generation, or the active one if it is full or `flush` asks for it.
    fn commit_next(&self, committer: &mut Committer, flush: bool) -> Result<bool, StoreError> {
        let sealed = {
            let mut core = self.core.lock();
            self.check()?;
            if core.state.sealed.is_none() && core.dirty && (flush || core.is_full(&self.options)) {
                core.seal(self);
            }
            core.state.sealed.clone()
        };
        let Some(generation) = sealed else { return Ok(false) };
        self.make_room(generation.room_needed());
        let through = committer.committed.through;
        let written = self.observed(Work::Commit, || self.commit(&generation, through));
        written.map_err(|error| self.fail_if_damaged(error))?;
        let before = std::mem::replace(&mut committer.committed, generation.rest.lock().meta.clone());
        (committer.committed.finished, committer.committed.through) = (before.finished, through);
        committer.behind_records += generation.log().len() as u64;
        // The sync of this commit came after the meta page of the one before.
        *self.durable.lock() = Durable { index: before.applied, term: before.term };
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.stats.committed_changes.fetch_add(generation.log().len() as u64, Ordering::Relaxed);
        self.publish_commit(&generation);
        self.measure()?;
        Ok(true)
    }

    /// What would fail for ever, and let apply wait for ever, is the end.
    pub(crate) fn fail_if_damaged(&self, error: StoreError) -> StoreError {
        match &error {
            StoreError::Engine(damage) if damage.is_damage() => self.fail(&damage.to_string()),
            _ => error,
        }
    }

    /// Lets readers find the sealed generation in the engine, and its newest records behind.
    fn publish_commit(&self, generation: &Generation) {
        let behind = self.state.load().behind.clone();
        let is_much = behind.bytes() > self.options.behind_values_bytes;
        let behind = Arc::new(behind.with(generation, if is_much { Values::LeftOut } else { Values::Kept }));
        let mut core = self.core.lock();
        let state = ViewState { sealed: None, behind, ..core.state.parts() };
        core.install(state, self);
        core.sealed_bytes = 0;
        core.note_waiting(self);
        if core.is_full(&self.options) {
            core.seal(self);
        }
        drop(core);
        self.room.notify_all();
    }

    /// Has the engine set `bytes` of disk aside for the next transaction, as far as there is room.
    pub(crate) fn make_room(&self, bytes: u64) {
        let short = self.engine().reserve(bytes) == Room::Low;
        self.short_of_space.store(short, Ordering::Relaxed);
    }

    /// Asks again whether there is room, after there was little.
    pub fn look_for_room(&self) {
        let _committer = self.committer.lock();
        self.make_room(0);
    }

    /// Begins an engine transaction. It cannot be begun only once the engine is broken: trying again would be for ever.
    pub(crate) fn begin<'e>(&self, engine: &'e dyn Engine) -> Result<Box<dyn WriteTxn + 'e>, StoreError> {
        engine.write().map_err(|error| self.fail(&format!("no commit can begin: {error}")))
    }

    /// Ends an engine transaction. On an error its work is kept for another try, unless unknown bytes are on the disk:
    /// then the store has failed for good.
    pub(crate) fn end(&self, txn: Box<dyn WriteTxn + '_>) -> Result<(), StoreError> {
        txn.commit().map_err(|error| {
            if error.is_retryable() {
                // An alarm for want of room stops the cluster's writes: not for a fault of another kind.
                if error.is_for_want_of_room() {
                    self.short_of_space.store(true, Ordering::Relaxed);
                }
                self.stats.commit_retries.fetch_add(1, Ordering::Relaxed);
                error.into()
            } else {
                self.fail(&format!("commit failed: {error}"))
            }
        })
    }

    /// Writes a generation in one engine transaction.
    fn commit(&self, generation: &Generation, through: i64) -> Result<(), StoreError> {
        let engine = self.engine();
        let mut txn = self.begin(&*engine)?;
        let mut buffer = Vec::with_capacity(4096);
        for record in generation.log().iter() {
            codec::encode_history(record, &mut buffer);
            txn.append(Table::History, &record.revision.to_bytes(), &buffer)?;
        }
        for ((lease, key), attached) in generation.attachment_changes() {
            let engine_key = keys::attached_key(lease, &key);
            if attached {
                codec::encode_attached(&engine_key, &key, &mut buffer);
                txn.put(Table::Attached, &engine_key, &buffer)?;
            } else {
                txn.delete(Table::Attached, &engine_key)?;
            }
        }
        write_rest(generation, through, &mut *txn)?;
        self.end(txn)
    }

    /// Commits and syncs everything applied before the call.
    pub fn force_sync(&self) -> Result<Durable, StoreError> {
        let mut committer = self.committer.lock();
        let target = self.core.lock().meta.applied;
        while committer.committed.applied < target {
            self.commit_next(&mut committer, true)?;
            self.keep_up(&mut committer)?;
        }
        self.engine().sync().map_err(|error| self.fail(&format!("sync failed: {error}")))?;
        let durable = Durable { index: committer.committed.applied, term: committer.committed.term };
        *self.durable.lock() = durable;
        Ok(durable)
    }

    /// Marks the store as failed for good.
    pub fn fail(&self, why: &str) -> StoreError {
        let why: Arc<str> = why.into();
        self.engine().condemn(&why);
        // The first reason is the one to tell.
        let _ = self.failed.set(why.clone());
        self.room.notify_all();
        StoreError::Failed(why)
    }

    /// Takes the sizes for [`crate::Store::sizes`].
    pub fn measure(&self) -> Result<(), StoreError> {
        let sizes = self.engine().sizes()?;
        self.file_bytes.store(sizes.file, Ordering::Relaxed);
        self.in_use_bytes.store(sizes.in_use, Ordering::Relaxed);
        Ok(())
    }
}

fn write_rest(generation: &Generation, through: i64, txn: &mut dyn WriteTxn) -> Result<(), EngineError> {
    let rest = generation.rest.lock();
    for ((table, key), value) in &rest.tables {
        match value {
            Some(value) => put_row(table.table(), key, value, txn)?,
            None => {
                txn.delete(table.table(), key)?;
            }
        }
    }
    let meta = Meta { through, ..rest.meta.clone() };
    meta.write(rest.conf_state.as_deref(), txn)
}
