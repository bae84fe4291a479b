//! The store as a whole: opening it, and its handles.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use milepost_engine::{Engine, ReadTxn, Table};
use milepost_types::{LogIndex, Revision, Term};
use parking_lot::Mutex;

use crate::behind::Behind;
use crate::codec;
use crate::error::StoreError;
use crate::shared::Inner;
use crate::tables::{APP_PREFIX, Meta, SmallTable};
use crate::view::View;
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
    /// Newest records are merged into the engine's `current` when those that it lacks take this much memory, in bytes. A
    /// quarter more, and commits wait for that. 0: after each commit.
    pub behind_bytes: usize,
    /// Above this they wait without their values, which a read then finds in `history`, in bytes.
    pub behind_values_bytes: usize,
    /// They are also merged when they are spread over so many records of history, if most were written in the order of keys.
    pub behind_records_in_order: u64,
    /// Or over so many, if that is worth the writing by [`StoreOptions::merge_record_bytes`].
    pub behind_records: u64,
    /// Or over so many in any case: twice as many, and a generation, are the most that a start has to read again.
    pub behind_records_most: u64,
    /// Bytes that a merge may write for each of those records.
    pub merge_record_bytes: u64,
    /// Records that one step of a compaction looks at, or fewer if they lie far apart: bounds how long a commit may have to
    /// wait for it.
    pub compaction_batch: usize,
    /// Pause between such steps.
    pub compaction_sleep: Duration,
    /// Take a hash of what each compaction leaves, for members to compare. Costs a walk through all of history each time.
    pub compaction_hash: bool,
    /// Keys after which a block of those that are counted together is cut in two; see [`crate::View::range`]. More: a
    /// count walks further at its ends; less: more memory, about 100 bytes a block.
    pub block_keys: usize,
    /// Commit and compact on a thread of the store's own. Without it somebody must call [`Store::step`].
    pub background: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            gen_bytes: 16 << 20,
            gen_changes: 10_000,
            gen_age: Duration::from_millis(500),
            behind_bytes: 128 << 20,
            behind_values_bytes: 16 << 20,
            behind_records_in_order: 150_000,
            behind_records: 500_000,
            behind_records_most: 2_000_000,
            merge_record_bytes: 100,
            compaction_batch: 4000,
            compaction_sleep: Duration::from_millis(10),
            compaction_hash: false,
            block_keys: 512,
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
    /// Records of history read again for what the engine's `current` did not have yet; see
    /// [`StoreOptions::behind_records`].
    pub records_rebuilt: u64,
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
    /// What waits in memory for the next commits, as of now; about what it will add to the live data.
    pub waiting: u64,
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
    /// Merges into the engine's `current` that came to their end.
    pub merges: u64,
    /// Rows that merges have written.
    pub merged_rows: u64,
    /// Of these, rows that had waited without their values.
    pub merged_thin: u64,
    /// Memory that newest records take which `current` lacks, in bytes.
    pub behind_bytes: u64,
    /// Ranges that were counted without walking all of them.
    pub counts_known: u64,
    /// Changes waiting in memory.
    pub overlay_changes: u64,
    /// Bytes waiting in memory.
    pub overlay_bytes: u64,
    /// Reads of the engine that have begun and not ended.
    pub open_reads: u64,
}

/// Work of the background that somebody may want to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Writing a generation to the engine, its sync included.
    Commit,
    /// A compaction, from its first step to its last.
    Compaction,
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

/// A store whose notes are read and whose keys are not yet: see [`Store::begin`].
pub struct Opening {
    engine: Arc<dyn Engine>,
    options: StoreOptions,
    meta: Meta,
    opened: Opened,
}

impl Opening {
    /// The last log entry whose changes are in the store, and its term.
    #[must_use]
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.opened.applied, self.opened.term)
    }

    /// The rest of [`Store::open`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn finish(self) -> Result<(Store, Writer, Opened), StoreError> {
        let Self { engine, options, meta, mut opened } = self;
        let (behind, records) = Behind::rebuild(&*engine, &meta, options.behind_values_bytes)?;
        opened.records_rebuilt = records;
        // The newest commit of the run before may not be on disk yet.
        engine.sync().inspect_err(|error| engine.condemn(&format!("sync at start failed: {error}")))?;
        let inner = Arc::new(Inner::new(engine, options, meta, behind, records));
        inner.measure()?;
        inner.load_counts();
        inner.look_for_room();
        inner.plan_merge(&inner.committer.lock());
        let thread = if inner.options.background { Some(spawn(inner.clone())?) } else { None };
        let handle = Arc::new(Handle { inner, thread: Mutex::new(thread) });
        Ok((Store { handle: handle.clone() }, Writer { handle }, opened))
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
        Self::begin(engine, options)?.finish()
    }

    /// The first, short part of [`Store::open`]: after it is known where the log is to go on, so that it can be read
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn begin(engine: Arc<dyn Engine>, options: StoreOptions) -> Result<Opening, StoreError> {
        let (meta, opened) = read_opened(&*engine)?;
        Ok(Opening { engine, options, meta, opened })
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

    /// Calls `done` when the deletions of the compaction to `revision` are done; at once if they are, or if the store was
    /// closed and deletes nothing more. It runs on the store's thread and must be short.
    pub fn when_compacted(&self, revision: i64, done: Box<dyn FnOnce() + Send>) {
        let mut core = self.inner().core.lock();
        if core.meta.finished < revision && !core.stop {
            core.when_compacted.push((revision, done));
        } else {
            drop(core);
            done();
        }
    }

    /// Does one piece of background work, if there is any: a commit, a slice of a merge, or a step of a compaction. With `flush` a
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
            waiting: self.inner().waiting_bytes.load(Ordering::Relaxed),
        }
    }

    /// Is there room for more?
    #[must_use]
    pub fn space(&self) -> SpaceState {
        if self.inner().short_of_space.load(Ordering::Relaxed) { SpaceState::Low } else { SpaceState::Ok }
    }

    /// Would the next entry begin at once? If not, it waits until a generation is committed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.inner().core.lock().has_room(&self.inner().options)
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
            merges: read(&inner.stats.merges),
            merged_rows: read(&inner.stats.merged_rows),
            merged_thin: read(&inner.stats.merged_thin),
            behind_bytes: inner.state.load().behind.bytes() as u64,
            counts_known: read(&inner.stats.counts_known),
            overlay_changes,
            overlay_bytes,
            open_reads: inner.engine().open_reads(),
        }
    }

    /// Tells `observer` from now on what the background does; the first one stays.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        // A second observer would see half of some work.
        let _ = self.inner().observer.set(observer);
    }

    /// Says, after [`Store::close`] and the end of the writer, that this was an orderly end.
    pub fn ends_in_order(&self) {
        if self.failed().is_none() {
            self.inner().engine().ends_in_order();
        }
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

pub(crate) fn read_opened(engine: &dyn Engine) -> Result<(Meta, Opened), StoreError> {
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
    let opened =
        Opened { applied: meta.applied, term: meta.term, conf_state, tables, records_read, records_rebuilt: 0 };
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
