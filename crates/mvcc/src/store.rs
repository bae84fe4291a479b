//! The store as a whole: opening it, its handles, and what they share.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use milepost_engine::{Engine, ReadTxn, Table};
use milepost_types::{LogIndex, Revision, Term};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::codec;
use crate::commit::Committer;
use crate::counts::Counts;
use crate::error::StoreError;
use crate::generation::Generation;
use crate::hash::HashKv;
use crate::tables::{APP_PREFIX, Meta, SmallTable};
use crate::view::{Floor, View, ViewState};
use crate::writer::Writer;

/// Bounds and paces. See `docs/decisions/001-store-engine.md` for the figures behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// A generation is committed when its keys and values reach this size, in bytes.
    pub gen_bytes: usize,
    /// Or when it holds so many changes.
    pub gen_changes: usize,
    /// Or when it is this old: bounds what a crash has to replay.
    pub gen_age: Duration,
    /// Records that one step of a compaction looks at: bounds how long a commit may have to wait for it.
    pub compaction_batch: usize,
    /// Pause between such steps.
    pub compaction_sleep: Duration,
    /// Take a hash of what each compaction leaves, for members to compare. Costs a walk through all of history each time.
    pub compaction_hash: bool,
    /// Commit and compact on a thread of the store's own. Without it somebody must call [`Store::step`].
    pub background: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            gen_bytes: 64 << 20,
            gen_changes: 10_000,
            gen_age: Duration::from_millis(500),
            compaction_batch: 1000,
            compaction_sleep: Duration::from_millis(10),
            compaction_hash: false,
            background: true,
        }
    }
}

/// What [`Store::open`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Last log entry whose changes are in the store.
    pub applied: LogIndex,
    /// Its term.
    pub term: Term,
    /// The Raft configuration as of it, as it was given.
    pub conf_state: Vec<u8>,
    /// The small tables; of `meta` only the keys that are not the store's own.
    pub tables: BTreeMap<SmallTable, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Records read to open: grows with leases, users and members, not with keys.
    pub records_read: u64,
}

/// A position in the log up to which the store needs it no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable {
    /// Every entry up to this one is on disk in the store.
    pub index: LogIndex,
    /// Term of that entry.
    pub term: Term,
}

/// Sizes in bytes, as of the last commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Length of the file.
    pub file: u64,
    /// Of that, live data.
    pub in_use: u64,
}

/// Is there room for more?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpaceState {
    /// The reserve is whole.
    #[default]
    Ok,
    /// A commit found no room and waits for some; nothing is lost, but nothing more should be put.
    Low,
}

/// Counters since open, for metrics and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Generations committed.
    pub commits: u64,
    /// Changes of keys in them.
    pub committed_changes: u64,
    /// Times that apply had to wait because both generations were full.
    pub stalls: u64,
    /// Commits that failed and were kept for another try.
    pub commit_retries: u64,
    /// Records of `history` visited by reads that looked for an older revision or a large value.
    pub history_visited: u64,
    /// Records of `history` visited by compactions.
    pub compaction_visited: u64,
    /// Records of `history` deleted by compactions.
    pub compaction_deleted: u64,
    /// Ranges whose count was known or could be told from an older one.
    pub counts_known: u64,
    /// Changes waiting in memory.
    pub overlay_changes: u64,
    /// Bytes waiting in memory.
    pub overlay_bytes: u64,
}

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
}

/// Work of the background that somebody may want to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Writing a generation to the engine, its sync included.
    Commit,
    /// One step of a compaction, its sync included.
    CompactionStep,
    /// A whole defragmentation.
    Defragmentation,
}

/// Who measures the background: this room has no clock. Called on the thread that works; must be quick.
pub trait Observer: Send + Sync {
    /// Work begins. Of each kind only one is under way.
    fn begin(&self, work: Work);
    /// It has ended, with success or not.
    fn end(&self, work: Work);
}

pub(crate) type WhenCompacted = Box<dyn FnOnce() + Send>;

/// What apply and the background share. Locked by apply for the length of one entry, by the background for an instant.
pub(crate) struct Core {
    /// The same as [`Inner::state`]; changed only under this lock.
    pub state: Arc<ViewState>,
    /// As of the last finished entry.
    pub meta: Meta,
    /// Size of the active generation.
    pub size_bytes: usize,
    /// Changes in the active generation.
    pub changes: usize,
    /// The active generation holds something that no commit has begun to write.
    pub dirty: bool,
    /// Commit the active generation without waiting for its age.
    pub hurry: bool,
    /// Floors below the newest that views may still hold.
    pub old_floors: Vec<Weak<Floor>>,
    /// The floor before the newest, if a hash of the compaction to the newest may be kept: the one before had finished.
    pub hash_from: Option<i64>,
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
        self.hash_from = completed.then_some(self.state.floor.compact_revision);
        self.meta.scheduled = bound;
        self.hurry = true;
        self.old_floors.push(Arc::downgrade(&self.state.floor));
        let floor = Arc::new(Floor { compact_revision: bound });
        self.install(ViewState { floor, ..self.state.parts() }, inner);
    }

    pub fn install(&mut self, state: ViewState, inner: &Inner) {
        self.state = Arc::new(state);
        inner.state.store(self.state.clone());
    }

    /// Closes the active generation and begins another. No generation may be waiting.
    pub fn seal(&mut self, inner: &Inner) {
        assert!(self.state.sealed.is_none(), "two sealed generations");
        let active = Arc::new(Generation::new(self.meta.clone(), inner.options.gen_changes));
        let sealed = Some(self.state.active.clone());
        self.install(ViewState { active, sealed, ..self.state.parts() }, inner);
        self.size_bytes = 0;
        self.changes = 0;
        self.dirty = false;
        self.hurry = false;
    }

    pub fn is_full(&self, options: &StoreOptions) -> bool {
        self.changes >= options.gen_changes || self.size_bytes >= options.gen_bytes
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
    /// Held for the length of a defragmentation.
    pub defragmenting: Mutex<()>,
    /// A defragmentation relies on history as it is.
    pub compaction_paused: AtomicBool,
    pub durable: Mutex<Durable>,
    /// There is little room on the disk.
    pub short_of_space: AtomicBool,
    /// Why the store must not be used again.
    pub failed: OnceLock<Arc<str>>,
    /// The first record that failed its check.
    pub corrupt: OnceLock<Arc<str>>,
    pub file_bytes: AtomicU64,
    pub in_use_bytes: AtomicU64,
    pub counts: Counts,
    pub observer: OnceLock<Arc<dyn Observer>>,
    pub stats: Counters,
}

impl Inner {
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
        if let Err(error @ StoreError::Corrupt { what, .. }) = &result
            && *what != codec::MISSING
        {
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

    /// Does `work` under the eyes of the observer.
    pub fn observed<T>(&self, work: Work, body: impl FnOnce() -> T) -> T {
        let observer = self.observer.get();
        if let Some(observer) = observer {
            observer.begin(work);
        }
        let done = body();
        if let Some(observer) = observer {
            observer.end(work);
        }
        done
    }

    /// Waits until the active generation takes another entry.
    pub fn wait_for_room(&self) -> MutexGuard<'_, Core> {
        let mut core = self.core.lock();
        let mut stalled = false;
        // Once the store is closed nothing will make room, and what is applied is in the log.
        let no_hope = |core: &Core| core.stop || self.failed.get().is_some();
        while core.is_full(&self.options) && core.state.sealed.is_some() && !no_hope(&core) {
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

/// Ends the background thread with the last handle.
pub(crate) struct Handle {
    pub inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    fn stop(&self) {
        self.inner.core.lock().stop = true;
        self.inner.wake.notify_all();
        self.inner.room.notify_all();
        let Some(thread) = self.thread.lock().take() else { return };
        // The last handle may be held by a callback that the thread itself runs.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            self.inner.failed.get_or_init(|| "the commit thread panicked".into());
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A handle on the store, for readers on any thread.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

impl Store {
    /// Opens what `engine` holds; an empty engine becomes a fresh store at revision 1.
    ///
    /// # Errors
    /// [`StoreError::Format`] if a later version wrote it, [`StoreError::Corrupt`] if its own notes are damaged, or the
    /// engine's.
    pub fn open(engine: Arc<dyn Engine>, options: StoreOptions) -> Result<(Self, Writer, Opened), StoreError> {
        let (meta, opened) = read_opened(&*engine)?;
        // The newest commit of the run before may not be on disk yet.
        engine.sync()?;
        let durable = Durable { index: meta.applied, term: meta.term };
        let floor = Arc::new(Floor { compact_revision: meta.compact_revision() });
        let active = Arc::new(Generation::new(meta.clone(), options.gen_changes));
        let state = Arc::new(ViewState { active, sealed: None, floor, engine });
        let committer = Mutex::new(Committer::new(meta.clone()));
        let core = Core {
            state: state.clone(),
            meta,
            size_bytes: 0,
            changes: 0,
            dirty: false,
            hurry: false,
            old_floors: Vec::new(),
            hash_from: None,
            hashes: VecDeque::new(),
            when_compacted: Vec::new(),
            stop: false,
        };
        let inner = Arc::new(Inner {
            options,
            state: ArcSwap::new(state),
            core: Mutex::new(core),
            room: Condvar::new(),
            wake: Condvar::new(),
            committer,
            defragmenting: Mutex::new(()),
            compaction_paused: AtomicBool::new(false),
            durable: Mutex::new(durable),
            short_of_space: AtomicBool::new(false),
            failed: OnceLock::new(),
            corrupt: OnceLock::new(),
            file_bytes: AtomicU64::new(0),
            in_use_bytes: AtomicU64::new(0),
            counts: Counts::default(),
            observer: OnceLock::new(),
            stats: Counters::default(),
        });
        inner.measure()?;
        inner.look_for_room();
        let thread = if inner.options.background { Some(spawn(inner.clone())?) } else { None };
        let handle = Arc::new(Handle { inner, thread: Mutex::new(thread) });
        Ok((Self { handle: handle.clone() }, Writer { handle }, opened))
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    /// The keyspace as it is now.
    #[must_use]
    pub fn view(&self) -> View {
        self.inner().view()
    }

    /// Newest main revision that readers see.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.inner().state.load().active.published()
    }

    /// The logical floor of history; -1: never compacted.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.inner().state.load().floor.compact_revision
    }

    /// Commits and syncs everything applied so far.
    ///
    /// # Errors
    /// If the engine fails; after a failed sync the store is failed for good.
    pub fn force_sync(&self) -> Result<Durable, StoreError> {
        self.inner().force_sync()
    }

    /// Up to where the log may be cut as far as the store is concerned.
    #[must_use]
    pub fn durable(&self) -> Durable {
        *self.inner().durable.lock()
    }

    /// Calls `done` when the deletions of the compaction to `revision` are done; at once if they are. It runs on the
    /// store's thread and must be short.
    pub fn when_compacted(&self, revision: i64, done: Box<dyn FnOnce() + Send>) {
        let mut core = self.inner().core.lock();
        if core.meta.finished < revision {
            core.when_compacted.push((revision, done));
        } else {
            drop(core);
            done();
        }
    }

    /// Does one piece of background work, if there is any: a commit, or a step of a compaction. With `flush` a
    /// generation is committed whatever its age and size. False: there was nothing to do.
    ///
    /// For stores opened without a thread of their own.
    ///
    /// # Errors
    /// If the engine fails; the work is kept for the next call.
    pub fn step(&self, flush: bool) -> Result<bool, StoreError> {
        self.inner().work(flush)
    }

    /// Sizes as of the last commit.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            file: self.inner().file_bytes.load(Ordering::Relaxed),
            in_use: self.inner().in_use_bytes.load(Ordering::Relaxed),
        }
    }

    /// Is there room for more?
    #[must_use]
    pub fn space(&self) -> SpaceState {
        if self.inner().short_of_space.load(Ordering::Relaxed) { SpaceState::Low } else { SpaceState::Ok }
    }

    /// Why the store must not be used again, if so: the member has to stop.
    #[must_use]
    pub fn failed(&self) -> Option<Arc<str>> {
        self.inner().failed.get().cloned()
    }

    /// The first record that failed its check, if one did: the member has to raise the CORRUPT alarm.
    #[must_use]
    pub fn corrupt(&self) -> Option<Arc<str>> {
        self.inner().corrupt.get().cloned()
    }

    /// Counters since open.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let inner = self.inner();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (overlay_changes, overlay_bytes) = {
            let core = inner.core.lock();
            let sealed = core.state.sealed.as_ref().map_or(0, |sealed| sealed.log().len());
            ((core.changes + sealed) as u64, core.size_bytes as u64)
        };
        StoreStats {
            commits: read(&inner.stats.commits),
            committed_changes: read(&inner.stats.committed_changes),
            stalls: read(&inner.stats.stalls),
            commit_retries: read(&inner.stats.commit_retries),
            history_visited: read(&inner.stats.history_visited),
            compaction_visited: read(&inner.stats.compaction_visited),
            compaction_deleted: read(&inner.stats.compaction_deleted),
            counts_known: read(&inner.stats.counts_known),
            overlay_changes,
            overlay_bytes,
        }
    }

    /// Tells `observer` from now on what the background does; the first one stays.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        // A second observer would see half of some work.
        let _ = self.inner().observer.set(observer);
    }

    /// Ends the background work without committing what is in memory; the log has it. Other handles stay readable.
    pub fn close(self) {
        self.handle.stop();
    }
}

fn spawn(inner: Arc<Inner>) -> Result<JoinHandle<()>, StoreError> {
    let engine_error = |source| {
        let path = "store-commit".into();
        StoreError::from(milepost_engine::EngineError::Io { path, action: "start thread", source })
    };
    std::thread::Builder::new().name("store-commit".into()).spawn(move || inner.run()).map_err(engine_error)
}

fn read_opened(engine: &dyn Engine) -> Result<(Meta, Opened), StoreError> {
    let txn = engine.read()?;
    let (mut meta, conf_state, mut records_read) = Meta::read(&*txn)?;
    let mut tables = BTreeMap::new();
    for small in SmallTable::ALL {
        let rows = read_table(&*txn, small)?;
        records_read += rows.len() as u64;
        tables.insert(small, rows);
    }
    if let Some((newest, _)) = txn.last(Table::History)? {
        records_read += 1;
        let newest =
            Revision::from_bytes(newest).ok_or_else(|| codec::corrupt(Table::History, newest, "key is no revision"))?;
        meta.revision = meta.revision.max(newest.main);
    }
    // A fresh keyspace stands at 1; compaction may have deleted the newest record.
    meta.revision = meta.revision.max(meta.scheduled).max(meta.finished).max(1);
    let opened = Opened { applied: meta.applied, term: meta.term, conf_state, tables, records_read };
    Ok((meta, opened))
}

fn read_table(txn: &dyn ReadTxn, small: SmallTable) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    let mut rows = BTreeMap::new();
    let mut cursor = txn.scan(small.table(), Bound::Unbounded, Bound::Unbounded)?;
    while let Some((key, bytes)) = cursor.next()? {
        let value = codec::decode_row(small.table(), key, bytes)?;
        if small != SmallTable::Meta || key.starts_with(APP_PREFIX) {
            rows.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok(rows)
}
