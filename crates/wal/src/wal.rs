//! The log that is being written.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use milepost_env::{Disk, Lock, Open};
use milepost_proto::raftpb::{Entry, HardState};
use milepost_types::{LogIndex, Term};

use crate::catalog::{Catalog, Mark};
use crate::error::WalError;
use crate::name::SegmentName;
use crate::read::WalReader;
use crate::record::{Encoder, Metadata, STATE_FRAME_BYTES_MAX, SnapshotMark, entry_frame_bytes_max, entry_problem};
use crate::recover::{self, Recovered, Scan};
use crate::segment::{Segment, lock};

/// Size at which a segment is closed, in bytes: 64 million, not 64 MiB. etcd's `SegmentSizeBytes`.
pub const SEGMENT_BYTES: u64 = 64_000_000;

/// Segments kept although released. etcd's `--max-wals`.
pub const MAX_WALS: usize = 5;

/// Encoded bytes that may wait for the next sync in memory; above that they are written at once. Far above the usual
/// batch, so that a batch is one write, and small against the entries themselves, which are in memory anyway.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment is closed when it is at least that long.
    pub segment_bytes: u64,
    /// Released segments are deleted while there are more segments than this. 0: never.
    pub max_wals: usize,
    /// For [`Wal::open`]: an index that is known to have been durable, such as the store's applied one. A log that
    /// ends below it is refused untouched, and of entries up to it only the terms are told. 0: nothing is known.
    pub must_hold: LogIndex,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, max_wals: MAX_WALS, must_hold: LogIndex(0) }
    }
}

/// What Raft must not forget, in segments of etcd's format.
///
/// One writer owns it. Life: [`Wal::create`] or [`Wal::open`], then [`Wal::append`] and [`Wal::sync`] over and over,
/// [`Wal::preallocate_next`] in quiet moments, [`Wal::save_snapshot_mark`] and [`Wal::release_to`] now and then.
///
/// Invariants:
/// - `end` ≤ `allocated` ≤ the file's length; behind `end` the segment is zeros;
/// - `crc` is the running checksum after the last byte of `buffer`, or of the file when `buffer` is empty;
/// - once `poisoned`, nothing is written.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    metadata: Metadata,
    /// The segment that is written.
    tail: Segment,
    /// Where the next byte of `buffer` goes in the tail. Only grows, until a cut.
    end: u64,
    /// Encoded records that are not written yet.
    buffer: Vec<u8>,
    /// Were bytes written since the last sync?
    unsynced: bool,
    crc: u32,
    /// Last index appended, or covered by a snapshot mark.
    last: LogIndex,
    /// Its term.
    last_term: Term,
    /// The last one appended.
    hard_state: HardState,
    /// Log bytes in the segments before the tail, since the oldest one that was there when the log was opened.
    position: u64,
    /// Locks of all older segments, oldest first.
    locks: VecDeque<(SegmentName, Box<dyn Lock>)>,
    /// The segment that comes after the tail, allocated.
    next: Option<Segment>,
    /// Shared with the readers; held for a few map operations only.
    catalog: Arc<Mutex<Catalog>>,
    /// The first failure that put the bytes on the disk in doubt.
    poisoned: Option<String>,
}

impl Wal {
    /// Starts a log in `dir`, which must not exist or be empty; its parent must exist. Durable on return.
    ///
    /// The directory appears with its first segment in it, or not at all: it is made as `<dir>.tmp` and renamed.
    ///
    /// # Errors
    /// [`WalError::AlreadyExists`] if `dir` holds segments; [`WalError::NoSpace`] if a segment does not fit;
    /// [`WalError::Disk`].
    ///
    /// Source: etcd `wal.Create`.
    pub fn create(disk: Arc<dyn Disk>, dir: &Path, metadata: Metadata, options: Options) -> Result<Self, WalError> {
        if disk.exists(dir) && !matches!(recover::segments(&*disk, dir), Err(WalError::NotFound { .. })) {
            return Err(WalError::AlreadyExists { dir: dir.to_owned() });
        }
        let mut temporary = dir.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        if disk.exists(&temporary) {
            disk.remove_dir_all(&temporary).map_err(|error| WalError::disk("remove", &temporary, error))?;
        }
        disk.create_dir_all(&temporary).map_err(|error| WalError::disk("create", &temporary, error))?;

        let path = temporary.join(SegmentName::FIRST.to_string());
        let mut tail = Segment::allocate(&*disk, SegmentName::FIRST, path, options.segment_bytes)?;
        let (mut head, mut crc) = (Vec::new(), 0);
        let mut encoder = Encoder { out: &mut head, crc: &mut crc };
        encoder.crc_mark();
        encoder.metadata(&metadata);
        encoder.mark(&SnapshotMark::default());
        tail.file.write_at(&head, 0).map_err(|error| WalError::disk("write", &tail.path, error))?;
        tail.file.sync_all().map_err(|error| WalError::disk("sync", &tail.path, error))?;
        disk.sync_dir(&temporary).map_err(|error| WalError::disk("sync", &temporary, error))?;
        disk.rename(&temporary, dir).map_err(|error| WalError::disk("rename into place", dir, error))?;
        let parent = dir.parent().unwrap_or(Path::new(""));
        disk.sync_dir(parent).map_err(|error| WalError::disk("sync", parent, error))?;

        tail.path = dir.join(SegmentName::FIRST.to_string());
        let mut catalog = Catalog::default();
        catalog.add_segment(SegmentName::FIRST, 0);
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            options,
            metadata,
            tail,
            end: head.len() as u64,
            buffer: Vec::new(),
            unsynced: false,
            crc,
            last: LogIndex(0),
            last_term: Term(0),
            hard_state: HardState::default(),
            position: 0,
            locks: VecDeque::new(),
            next: None,
            catalog: Arc::new(Mutex::new(catalog)),
            poisoned: None,
        })
    }

    /// Opens the log in `dir`, reads it, and cuts off a torn tail.
    ///
    /// What is returned is on the disk: the last segment is synced and read past the cache, since the run before may
    /// have ended after a failed sync.
    ///
    /// # Errors
    /// [`WalError::LostLog`] if the log ends below its commit or `options.must_hold`; [`WalError::Corrupt`],
    /// [`WalError::MissingSegment`], [`WalError::NoSnapshotMark`], [`WalError::NotFound`], [`WalError::Locked`],
    /// [`WalError::Disk`]. In every such case the segments are as they were.
    ///
    /// Source: etcd `wal.Open`, `ReadAll`, `Repair`, `ValidSnapshotEntries`.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: Options) -> Result<(Self, Recovered), WalError> {
        let segments = recover::segments(&*disk, dir)?;
        let mut locks = VecDeque::new();
        for &name in &segments {
            locks.push_back((name, lock(&*disk, &dir.join(name.to_string()))?));
        }
        let Some((name, tail_lock)) = locks.pop_back() else { return Err(WalError::NotFound { dir: dir.to_owned() }) };
        let path = dir.join(name.to_string());
        let mut file = disk.open(&path, Open::ReadWrite).map_err(|error| WalError::disk("open", &path, error))?;
        file.sync_all().map_err(|error| WalError::disk("sync", &path, error))?;
        file.forget_cached().map_err(|error| WalError::disk("read anew", &path, error))?;

        let scan = recover::scan(&*disk, dir, &segments, options.must_hold)?;
        let Scan { end, crc, mut file_len, .. } = scan;
        let (recovered, catalog) = recover::judge(dir, scan, options.must_hold)?;
        if let Some(torn) = &recovered.repaired {
            recover::repair(&*disk, dir, torn, &mut *file)?;
            file_len = end;
        }
        let mut tail = Segment { name, path, file, allocated: end, lock: tail_lock };
        if tail.reserve(file_len.max(options.segment_bytes))? {
            tail.file.sync_all().map_err(|error| WalError::disk("sync", &tail.path, error))?;
        }
        let position = catalog.segment_position(name.seq);
        let wal = Self {
            disk,
            dir: dir.to_owned(),
            options,
            metadata: recovered.metadata,
            tail,
            end,
            buffer: Vec::new(),
            unsynced: false,
            crc,
            last: recovered.last_index(),
            last_term: recovered.last_term(),
            hard_state: recovered.hard_state,
            position,
            locks,
            next: None,
            catalog: Arc::new(Mutex::new(catalog)),
            poisoned: None,
        };
        Ok((wal, recovered))
    }

    /// Reads the log in `dir` without changing or locking anything: for tools and tests. What a power cut may still
    /// take away is included; `repaired` tells what [`Wal::open`] would cut.
    ///
    /// # Errors
    /// Those of [`Wal::open`] but for [`WalError::Locked`].
    pub fn inspect(disk: &dyn Disk, dir: &Path) -> Result<Recovered, WalError> {
        let scan = recover::scan(disk, dir, &recover::segments(disk, dir)?, LogIndex(0))?;
        recover::judge(dir, scan, LogIndex(0)).map(|(recovered, _)| recovered)
    }

    /// Whose log it is.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// Last index appended, or covered by a snapshot mark.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.last
    }

    /// Must this be synced before Raft's messages leave? A commit that moves alone need not be.
    ///
    /// Source: etcd-io/raft `MustSync`.
    #[must_use]
    pub fn must_sync(before: &HardState, now: &HardState, entries: &[Entry]) -> bool {
        !entries.is_empty() || before.term() != now.term() || before.vote() != now.vote()
    }

    /// Adds entries, then the HardState, to the log. They are durable after the next [`Wal::sync`]; until then they may
    /// be in memory only.
    ///
    /// Indexes are contiguous and start at or below `last_index() + 1`; entries that are there already at or above the
    /// first one are superseded.
    ///
    /// # Errors
    /// [`WalError::NoSpace`], [`WalError::Misplaced`], [`WalError::TermGoesBack`]: nothing was added, the log is as
    /// before. [`WalError::Disk`]: the log is poisoned from then on. [`WalError::Poisoned`].
    ///
    /// Source: etcd `wal.Save`, without its sync.
    pub fn append(&mut self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<(), WalError> {
        self.check_poison()?;
        self.check_place(entries, hard_state)?;
        let bytes_max: u64 = entries.iter().map(entry_frame_bytes_max).sum();
        self.reserve(bytes_max + if hard_state.is_some() { STATE_FRAME_BYTES_MAX } else { 0 })?;
        self.encode_entries(entries);
        if let Some(state) = hard_state {
            self.encoder().state(state);
            self.hard_state = *state;
        }
        if self.buffer.len() > BUFFER_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Writes what was appended, without making it durable: it outlives this process, but not a power cut.
    ///
    /// # Errors
    /// [`WalError::Disk`], [`WalError::Poisoned`]: the log is poisoned.
    pub fn flush(&mut self) -> Result<(), WalError> {
        self.check_poison()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.tail.file.write_at(&self.buffer, self.end) {
            let error = WalError::disk("write", &self.tail.path, error);
            return Err(self.poison(error));
        }
        self.end += self.buffer.len() as u64;
        self.unsynced = true;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_MAX);
        self.catalog().written();
        Ok(())
    }

    /// Makes everything appended durable: one write, one sync. Closes the segment if it is full.
    ///
    /// # Errors
    /// [`WalError::Disk`], [`WalError::Poisoned`]: the log is poisoned; what was appended since the last sync may or
    /// may not be durable.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.flush()?;
        if self.unsynced {
            if let Err(error) = self.tail.file.sync_data() {
                let error = WalError::disk("sync", &self.tail.path, error);
                return Err(self.poison(error));
            }
            self.unsynced = false;
        }
        if self.end >= self.options.segment_bytes { self.cut() } else { Ok(()) }
    }

    /// Records that the Raft snapshot at `mark` is durable, durably, together with everything appended before.
    ///
    /// # Errors
    /// Those of [`Wal::append`] and [`Wal::sync`].
    ///
    /// Source: etcd `wal.SaveSnapshot`.
    pub fn save_snapshot_mark(&mut self, mark: &SnapshotMark) -> Result<(), WalError> {
        self.check_poison()?;
        let conf_state_max = 64
            + 11 * (mark.conf_state.voters.len()
                + mark.conf_state.learners.len()
                + mark.conf_state.voters_outgoing.len()
                + mark.conf_state.learners_next.len());
        self.reserve(crate::frame::frame_bytes_max(conf_state_max as u64))?;
        self.encoder().mark(mark);
        if mark.index > self.last {
            (self.last, self.last_term) = (mark.index, mark.term);
            self.catalog().restart_at(mark.index.0);
        }
        self.sync()
    }

    /// Is it time for [`Wal::preallocate_next`]?
    #[must_use]
    pub fn wants_next(&self) -> bool {
        self.next.is_none() && self.poisoned.is_none() && self.end >= self.options.segment_bytes / 2
    }

    /// Is the space for the next segment reserved?
    #[must_use]
    pub fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Reserves the space for the next segment, so that the cut need not. Does nothing if that is done.
    ///
    /// # Errors
    /// [`WalError::NoSpace`]: the log goes on in the segment that it has, and tries again at the cut. [`WalError::Disk`]
    /// likewise: nothing of the log is in doubt.
    pub fn preallocate_next(&mut self) -> Result<(), WalError> {
        self.check_poison()?;
        if self.next.is_none() {
            let seq = self.tail.name.seq + 1;
            // Two names in turn, as etcd has them: whatever a crash leaves behind is overwritten by the next but one.
            let path = self.dir.join(format!("{}.tmp", seq % 2));
            self.next =
                Some(Segment::allocate(&*self.disk, SegmentName { seq, index: 0 }, path, self.options.segment_bytes)?);
        }
        Ok(())
    }

    /// Says that entries below `index` are not needed any more; deletes the segments that hold nothing else, oldest
    /// first, while there are more than `max_wals`. Returns how many were deleted.
    ///
    /// `index` is at or below a snapshot mark that was saved.
    ///
    /// # Errors
    /// [`WalError::Disk`]: some may have been deleted; nothing of the log is in doubt.
    ///
    /// Source: etcd `wal.ReleaseLockTo`, `fileutil.PurgeFile`.
    pub fn release_to(&mut self, index: LogIndex) -> Result<usize, WalError> {
        let names = self.catalog().segments();
        // The last segment that starts below `index` still holds its neighbourhood.
        let needed = names.iter().rposition(|name| name.index < index.0).unwrap_or(0);
        let surplus = if self.options.max_wals == 0 { 0 } else { names.len().saturating_sub(self.options.max_wals) };
        let released = &names[..needed.min(surplus)];
        for name in released {
            let path = self.dir.join(name.to_string());
            self.catalog().remove_segment(name.seq);
            self.locks.retain(|(locked, _)| locked != name);
            self.disk.remove_file(&path).map_err(|error| WalError::disk("remove", &path, error))?;
        }
        if !released.is_empty() {
            self.disk.sync_dir(&self.dir).map_err(|error| WalError::disk("sync", &self.dir, error))?;
        }
        Ok(released.len())
    }

    /// Entries `from..to`, as [`WalReader::read_entries`].
    ///
    /// # Errors
    /// Those of [`WalReader::read_entries`].
    pub fn read_entries(&self, from: LogIndex, to: LogIndex, bytes_max: u64) -> Result<Vec<Entry>, WalError> {
        self.reader().read_entries(from, to, bytes_max)
    }

    /// A handle that reads entries from the segments while this one writes.
    #[must_use]
    pub fn reader(&self) -> WalReader {
        WalReader::new(Arc::clone(&self.disk), self.dir.clone(), Arc::clone(&self.catalog))
    }

    /// Bytes of log from the entry `index` to the last, at 16 KiB precision. 0 if there is no such entry.
    #[must_use]
    pub fn bytes_since(&self, index: LogIndex) -> u64 {
        self.catalog().bytes_since(index.0)
    }

    /// Number of segments.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.catalog().segments().len()
    }

    /// Closes the tail and goes on in the next segment. Everything is synced. Without space for a next segment the
    /// tail stays and grows: the next sync tries again.
    fn cut(&mut self) -> Result<(), WalError> {
        match self.preallocate_next() {
            Ok(()) => {}
            Err(error) if error.is_retryable() => return Ok(()),
            Err(error) => return Err(self.poison(error)),
        }
        let Some(mut next) = self.next.take() else { return Ok(()) };
        match self.begin_segment(&mut next) {
            Ok(head_bytes) => {
                self.position += self.end;
                self.end = head_bytes;
                self.catalog().add_segment(next.name, self.position);
                let Segment { name, lock, .. } = std::mem::replace(&mut self.tail, next);
                self.locks.push_back((name, lock));
                Ok(())
            }
            Err(error) => Err(self.poison(error)),
        }
    }

    /// Makes the head of `next` durable, the tail as short as it is, and then the name of `next`.
    fn begin_segment(&mut self, next: &mut Segment) -> Result<u64, WalError> {
        let mut head = Vec::new();
        let mut encoder = Encoder { out: &mut head, crc: &mut self.crc };
        encoder.crc_mark();
        encoder.metadata(&self.metadata);
        if self.hard_state != HardState::default() {
            encoder.state(&self.hard_state);
        }
        next.file.write_at(&head, 0).map_err(|error| WalError::disk("write", &next.path, error))?;
        next.file.sync_all().map_err(|error| WalError::disk("sync", &next.path, error))?;

        self.tail.file.set_len(self.end).map_err(|error| WalError::disk("shorten", &self.tail.path, error))?;
        self.tail.file.sync_all().map_err(|error| WalError::disk("sync", &self.tail.path, error))?;

        next.name.index = self.last.0 + 1;
        let path = self.dir.join(next.name.to_string());
        self.disk.rename(&next.path, &path).map_err(|error| WalError::disk("rename into place", &path, error))?;
        self.disk.sync_dir(&self.dir).map_err(|error| WalError::disk("sync", &self.dir, error))?;
        next.path = path;
        Ok(head.len() as u64)
    }

    /// Makes room for `bytes` behind what is buffered.
    fn reserve(&mut self, bytes: u64) -> Result<(), WalError> {
        let needed = self.end + self.buffer.len() as u64 + bytes;
        self.tail.reserve_for(needed)
    }

    /// What recovery would refuse is not written.
    fn check_place(&self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<(), WalError> {
        let last = self.last;
        let misplaced = |entry: &Entry, problem| WalError::Misplaced { index: LogIndex(entry.index()), last, problem };
        if let Some(state) = hard_state.filter(|state| state.term() < self.hard_state.term()) {
            return Err(WalError::TermGoesBack { from: Term(self.hard_state.term()), to: Term(state.term()) });
        }
        let Some(first) = entries.first() else { return Ok(()) };
        if first.index() > last.0 + 1 {
            return Err(misplaced(first, "there is a gap before it"));
        }
        if first.index() <= self.hard_state.commit() {
            return Err(misplaced(first, "it is committed already"));
        }
        let mut term = if first.index() == last.0 + 1 { self.last_term.0 } else { 0 };
        for (entry, index) in entries.iter().zip(first.index()..) {
            if let Some(problem) = entry_problem(entry) {
                return Err(misplaced(entry, problem));
            }
            if entry.index() != index {
                return Err(misplaced(entry, "the entries are not contiguous"));
            }
            if entry.term() < term {
                return Err(misplaced(entry, "its term is below its predecessor's"));
            }
            term = entry.term();
        }
        Ok(())
    }

    fn encode_entries(&mut self, entries: &[Entry]) {
        // Not `self.catalog()`: the guard must not keep the other fields from being borrowed.
        let mut catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let offset = self.end + self.buffer.len() as u64;
            catalog.note(Mark { index: entry.index(), seq: self.tail.name.seq, offset, crc: self.crc });
            Encoder { out: &mut self.buffer, crc: &mut self.crc }.entry(entry);
            self.last = LogIndex(entry.index());
            self.last_term = Term(entry.term());
        }
    }

    fn encoder(&mut self) -> Encoder<'_> {
        Encoder { out: &mut self.buffer, crc: &mut self.crc }
    }

    fn catalog(&self) -> std::sync::MutexGuard<'_, Catalog> {
        // Nothing panics while holding it; a map half changed could only misplace a read, which the checksum catches.
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_poison(&self) -> Result<(), WalError> {
        match &self.poisoned {
            Some(cause) => Err(WalError::Poisoned { dir: self.dir.clone(), cause: cause.clone() }),
            None => Ok(()),
        }
    }

    fn poison(&mut self, error: WalError) -> WalError {
        self.poisoned.get_or_insert_with(|| error.to_string());
        error
    }
}
