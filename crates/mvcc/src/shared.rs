//! What the handles, apply and the background share behind the scenes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use milepost_engine::Engine;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::behind::Behind;
use crate::codec;
use crate::commit::Committer;
use crate::counts::Counts;
use crate::error::StoreError;
use crate::generation::Generation;
use crate::hash::HashKv;
use crate::store::{Durable, Observer, StoreOptions, Work};
use crate::tables::Meta;
use crate::turn::Turn;
use crate::view::{Floor, View, ViewState};

/// The counters behind [`StoreStats`].
#[derive(Default)]
pub(crate) struct Counters {
    pub commits: AtomicU64,
    pub committed_changes: AtomicU64,
    pub stalls: AtomicU64,
    pub commit_retries: AtomicU64,
    pub history_visited: AtomicU64,
    pub compaction_visited: AtomicU64,
    pub compaction_deleted: AtomicU64,
    pub counts_known: AtomicU64,
    pub merges: AtomicU64,
    pub merged_rows: AtomicU64,
    pub merged_thin: AtomicU64,
}

impl Counters {
    /// Counts on from where `before` stands.
    pub fn carry_on(&self, before: &Self) {
        let pairs = [
            (&self.commits, &before.commits),
            (&self.committed_changes, &before.committed_changes),
            (&self.stalls, &before.stalls),
            (&self.commit_retries, &before.commit_retries),
            (&self.history_visited, &before.history_visited),
            (&self.compaction_visited, &before.compaction_visited),
            (&self.compaction_deleted, &before.compaction_deleted),
            (&self.counts_known, &before.counts_known),
            (&self.merges, &before.merges),
            (&self.merged_rows, &before.merged_rows),
            (&self.merged_thin, &before.merged_thin),
        ];
        for (own, before) in pairs {
            own.fetch_add(before.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

pub(crate) type WhenCompacted = Box<dyn FnOnce() + Send>;

/// A hash of what a compaction leaves, and what it reads: by its floor it keeps later compactions from deleting that.
pub(crate) struct HashDue {
    /// The floor before.
    pub floor: i64,
    /// The compaction's bound.
    pub bound: i64,
    pub state: Arc<ViewState>,
}

/// What apply and the background share. Locked by apply for the length of one entry, by the background for an instant.
pub(crate) struct Core {
    /// The same as [`Inner::state`]; changed only under this lock.
    pub state: Arc<ViewState>,
    /// As of the last finished entry.
    pub meta: Meta,
    /// Size of the active generation.
    pub size_bytes: usize,
    /// Size of the sealed generation.
    pub sealed_bytes: usize,
    /// Changes in the active generation.
    pub changes: usize,
    /// The active generation holds something that no commit has begun to write.
    pub dirty: bool,
    /// Commit the active generation without waiting for its age.
    pub hurry: bool,
    /// There is something to merge into `current`.
    pub merging: bool,
    /// So much is behind that a rest is to be used for a merge.
    pub may_merge: bool,
    /// Floors below the newest that views may still hold.
    pub old_floors: Vec<Weak<Floor>>,
    /// The hash that is to be taken before anything else is deleted.
    pub hash_due: Option<HashDue>,
    /// Hashes of the last compactions.
    pub hashes: VecDeque<HashKv>,
    /// Who wants to know when deletions up to a revision are done.
    pub when_compacted: Vec<(i64, WhenCompacted)>,
    pub stop: bool,
}

impl Core {
    /// Makes `bound` the logical floor for every view taken from now on.
    pub fn raise_floor(&mut self, bound: i64, inner: &Inner) {
        let completed = self.meta.finished == self.meta.scheduled;
        let before = self.state.floor.compact_revision;
        self.meta.scheduled = bound;
        self.hurry = true;
        self.old_floors.push(Arc::downgrade(&self.state.floor));
        let floor = Arc::new(Floor { compact_revision: bound });
        self.install(ViewState { floor, ..self.state.parts() }, inner);
        // As in etcd, only if the one before is done with. A hash that is due thus never replaces another: the one
        // before it is not done with until its own hash is there.
        if completed && inner.options.compaction_hash {
            self.hash_due = Some(HashDue { floor: before, bound, state: self.state.clone() });
        }
    }

    pub fn install(&mut self, state: ViewState, inner: &Inner) {
        self.state = Arc::new(state);
        inner.state.store(self.state.clone());
    }

    /// Closes the active generation and begins another. No generation may be waiting.
    pub fn seal(&mut self, inner: &Inner) {
        assert!(self.state.sealed.is_none(), "two sealed generations");
        let active = Arc::new(Generation::new(self.meta.clone(), inner.options.gen_changes));
        inner.counts.write(self.meta.revision, &mut self.state.active.rest.lock().tables);
        let sealed = Some(self.state.active.clone());
        self.install(ViewState { active, sealed, ..self.state.parts() }, inner);
        self.sealed_bytes = std::mem::take(&mut self.size_bytes);
        self.changes = 0;
        self.dirty = false;
        self.hurry = false;
    }

    /// Tells how many bytes wait to be added to the live data.
    pub fn note_waiting(&self, inner: &Inner) {
        let waiting = self.size_bytes + self.sealed_bytes + self.state.behind.new_bytes();
        inner.waiting_bytes.store(waiting as u64, Ordering::Relaxed);
    }

    pub fn is_full(&self, options: &StoreOptions) -> bool {
        self.changes >= options.gen_changes || self.size_bytes >= options.gen_bytes
    }

    /// Does the active generation take another entry, or can it be sealed?
    pub fn has_room(&self, options: &StoreOptions) -> bool {
        !self.is_full(options) || self.state.sealed.is_none()
    }
}

/// Everything behind the handles.
pub(crate) struct Inner {
    pub options: StoreOptions,
    /// What readers take; see [`Core::state`].
    pub state: ArcSwap<ViewState>,
    pub core: Mutex<Core>,
    /// Signalled when a generation has been committed: apply may be waiting for room.
    pub room: Condvar,
    /// Signalled when there is background work.
    pub wake: Condvar,
    /// Held while committing or compacting: one at a time, in the background or by a caller that cannot wait.
    pub committer: Mutex<Committer>,
    /// Taken for the length of a defragmentation, or of an import until it takes over.
    pub filling: Arc<Turn>,
    /// How many rely on history as it is: a defragmentation, exports.
    pub compaction_pauses: AtomicUsize,
    /// How many rely on the engine's `current` as it is: a defragmentation.
    pub merge_pauses: AtomicUsize,
    pub durable: Mutex<Durable>,
    /// There is little room on the disk.
    pub short_of_space: AtomicBool,
    /// Why the store must not be used again.
    pub failed: OnceLock<Arc<str>>,
    /// The first record that failed its check.
    pub corrupt: OnceLock<Arc<str>>,
    pub file_bytes: AtomicU64,
    pub in_use_bytes: AtomicU64,
    /// What waits in memory, as of the last finished entry.
    pub waiting_bytes: AtomicU64,
    pub counts: Counts,
    pub observer: OnceLock<Arc<dyn Observer>>,
    pub stats: Counters,
}

impl Inner {
    /// A store over what `engine` holds, which is as `meta` says and durable, and what it has behind, which so many records
    /// have told.
    pub fn new(engine: Arc<dyn Engine>, options: StoreOptions, meta: Meta, behind: Behind, records: u64) -> Self {
        let durable = Durable { index: meta.applied, term: meta.term };
        let floor = Arc::new(Floor { compact_revision: meta.compact_revision() });
        let active = Arc::new(Generation::new(meta.clone(), options.gen_changes));
        let behind = Arc::new(behind);
        let state = Arc::new(ViewState { active, sealed: None, floor, behind, engine });
        let committer = Mutex::new(Committer::new(meta.clone(), records));
        let core = Core {
            state: state.clone(),
            meta,
            size_bytes: 0,
            sealed_bytes: 0,
            changes: 0,
            dirty: false,
            hurry: false,
            merging: false,
            may_merge: false,
            old_floors: Vec::new(),
            hash_due: None,
            hashes: VecDeque::new(),
            when_compacted: Vec::new(),
            stop: false,
        };
        let counts = Counts::new(options.block_keys);
        Self {
            options,
            state: ArcSwap::new(state),
            core: Mutex::new(core),
            room: Condvar::new(),
            wake: Condvar::new(),
            committer,
            filling: Arc::default(),
            compaction_pauses: AtomicUsize::new(0),
            merge_pauses: AtomicUsize::new(0),
            durable: Mutex::new(durable),
            short_of_space: AtomicBool::new(false),
            failed: OnceLock::new(),
            corrupt: OnceLock::new(),
            file_bytes: AtomicU64::new(0),
            in_use_bytes: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            counts,
            observer: OnceLock::new(),
            stats: Counters::default(),
        }
    }

    /// What is committed to. Changes only while [`Inner::committer`] is held.
    pub fn engine(&self) -> Arc<dyn Engine> {
        self.state.load().engine.clone()
    }

    /// Passes `result` on, and remembers the first record that failed its check: whoever read it may not be the one who
    /// can raise the alarm.
    ///
    /// Bytes that fail their check are damage beyond doubt. That a record is missing is an error for who wanted it, but no
    /// proof: an alarm stops every write of the cluster, and a slip of ours in following links must not.
    pub fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let damage = match &result {
            Err(StoreError::Corrupt { what, .. }) => *what != codec::MISSING,
            Err(StoreError::Engine(error)) => error.is_damage(),
            _ => false,
        };
        if let (true, Err(error)) = (damage, &result) {
            self.corrupt.get_or_init(|| error.to_string().into());
        }
        result
    }

    /// Errs if the store has failed for good.
    pub fn check(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(why) => Err(StoreError::Failed(why.clone())),
            None => Ok(()),
        }
    }

    /// Errs if the store is closed: what takes long looks at it from time to time.
    pub fn check_open(&self) -> Result<(), StoreError> {
        if self.core.lock().stop { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Tells the observer, if there is one.
    pub fn tell(&self, what: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = self.observer.get() {
            what(&**observer);
        }
    }

    /// Does `work` under the eyes of the observer.
    pub fn observed<T>(&self, work: Work, body: impl FnOnce() -> T) -> T {
        self.tell(|observer| observer.begin(work));
        let done = body();
        self.tell(|observer| observer.end(work));
        done
    }

    /// Waits until the active generation takes another entry.
    pub fn wait_for_room(&self) -> MutexGuard<'_, Core> {
        let mut core = self.core.lock();
        let mut stalled = false;
        // Once the store is closed nothing will make room, and what is applied is in the log.
        let no_hope = |core: &Core| core.stop || self.failed.get().is_some();
        while !core.has_room(&self.options) && !no_hope(&core) {
            if !stalled {
                stalled = true;
                self.stats.stalls.fetch_add(1, Ordering::Relaxed);
            }
            if self.options.background {
                self.room.wait(&mut core);
            } else {
                // Nobody else would do it. An error is kept in `failed`, or the next round tries again.
                let _ = MutexGuard::unlocked(&mut core, || self.work(false));
            }
        }
        core
    }

    /// Tells the background about a finished entry.
    pub fn entry_finished(&self, core: &mut Core) {
        core.note_waiting(self);
        let was_dirty = std::mem::replace(&mut core.dirty, true);
        let full = core.is_full(&self.options);
        if full && core.state.sealed.is_none() {
            core.seal(self);
        }
        if full || core.hurry || !was_dirty {
            self.wake.notify_one();
        }
    }

    pub fn view(self: &Arc<Self>) -> View {
        let state = self.state.load_full();
        let revision = state.active.published();
        View { inner: self.clone(), state, revision }
    }
}
