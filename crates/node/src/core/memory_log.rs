//! The part of the log that the consensus crate may read at once.
//!
//! ```text
//!        cut         memory_first          applied+1          last
//!   ─────┼───────────────┼─────────────────────┼────────────────┤
//!  gone  │ on disk only  │ in memory: the last 64 MiB, and      │
//!        │ (terms known) │ always everything not yet applied    │
//! ```
//!
//! Everything after `cut` can be sent to a follower; entries older than `memory_first` are fetched from the segments when a
//! follower needs them. Their terms are kept as runs (terms change rarely), so that matching a follower's log never waits
//! for the disk. What the crate needs at once, the committed and unapplied entries, is always here.

use super::convert;
use milepost_proto::raftpb;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

/// Memory that applied entries may take: enough for a follower to catch up after a pause without touching the disk.
pub const MEMORY_BYTES_MAX: usize = 64 << 20;
/// The same while there is nobody else: who joins later gets older entries from disk.
pub const ALONE_BYTES_MAX: usize = 1 << 20;
/// Applied entries beyond the byte bound that are kept anyway. One: the newest, whose term the crate asks for often.
const ENTRIES_MIN: usize = 1;

/// A range of entries that a follower needs and that is only on disk.
#[derive(Debug)]
pub struct Fetch {
    /// First entry.
    pub from_index: u64,
    /// The entry after the last one wanted.
    pub end_index: u64,
    /// Stop after this many bytes.
    pub max_bytes: u64,
    /// What the crate wants back when the entries are here.
    pub context: GetEntriesContext,
}

/// See the module.
#[derive(Debug)]
pub struct MemoryLog {
    /// What the crate starts from; not kept up to date after that.
    start: RaftState,
    /// Entry before the first that can be sent. Moves forward only (or to a snapshot).
    cut_index: u64,
    /// Entries `memory_first..=last`, contiguous.
    entries: VecDeque<Entry>,
    memory_first: u64,
    bytes: usize,
    bytes_max: usize,
    /// First index of each run of one term, from the cut on: (first index, term), ascending in both.
    terms: Vec<(u64, u64)>,
    /// Metadata for snapshots to followers: (applied index, conf state there).
    applied_index: u64,
    conf_state: ConfState,
    /// Asked for since the last look, not yet fetched.
    wanted: RefCell<Vec<Fetch>>,
    /// Fetched from disk, by first index; dropped when used or when the log moves on.
    fetched: RefCell<BTreeMap<u64, Vec<Entry>>>,
}

fn size(entry: &Entry) -> usize {
    // The struct, and the buffer's share. Close enough for a bound.
    std::mem::size_of::<Entry>() + entry.data.len()
}

impl MemoryLog {
    /// A log that starts after the first of `terms` = (index, term), and has `entries` in memory; `terms`: also of the
    /// entries before them. Without entries memory begins behind `applied_index`. `bytes_max`: see [`MEMORY_BYTES_MAX`].
    ///
    /// # Panics
    /// If `entries` are not contiguous, or begin at or before the cut: recovery has checked that.
    pub fn new(
        hard_state: HardState,
        conf_state: ConfState,
        terms: Vec<(u64, u64)>,
        applied_index: u64,
        entries: Vec<Entry>,
        bytes_max: usize,
    ) -> Self {
        let cut_index = terms.first().map_or(0, |(index, _)| *index);
        let mut log = Self {
            start: RaftState::new(hard_state, conf_state.clone()),
            cut_index,
            entries: VecDeque::new(),
            memory_first: entries.first().map_or(cut_index.max(applied_index) + 1, |entry| entry.index),
            bytes: 0,
            bytes_max,
            terms,
            applied_index,
            conf_state,
            wanted: RefCell::default(),
            fetched: RefCell::default(),
        };
        log.append(&entries);
        log
    }

    /// Index of the last entry, or of the cut when there is none.
    pub fn last(&self) -> u64 {
        self.memory_first + self.entries.len() as u64 - 1
    }

    /// First entry that can still be sent to a follower.
    pub fn first(&self) -> u64 {
        self.cut_index + 1
    }

    /// Term of the entry at `index`, or of the cut.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index < self.cut_index || index > self.last() {
            return None;
        }
        let run = self.terms.partition_point(|&(first, _)| first <= index);
        Some(self.terms[run - 1].1)
    }

    /// Adds entries; those at or above the first new index are replaced.
    ///
    /// # Panics
    /// On a gap, or when entries in memory would be replaced from before it: the crate never does that above commit.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index >= self.memory_first && first.index <= self.last() + 1,
            "appending at {} to a log that holds {}..={}",
            first.index,
            self.memory_first,
            self.last()
        );
        for gone in self.entries.drain((first.index - self.memory_first) as usize..) {
            self.bytes -= size(&gone);
        }
        while self.terms.last().is_some_and(|&(index, _)| index >= first.index && index > self.cut_index) {
            self.terms.pop();
        }
        for entry in entries {
            assert_eq!(entry.index, self.last() + 1, "entries are contiguous");
            let &(_, last_term) = self.terms.last().expect("the run of the cut stays");
            assert!(entry.term >= last_term, "entry {} goes back from term {last_term} to {}", entry.index, entry.term);
            if entry.term != last_term {
                self.terms.push((entry.index, entry.term));
            }
            self.bytes += size(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Starts over after a snapshot.
    pub fn install(&mut self, snapshot: &Snapshot) {
        let metadata = snapshot.get_metadata();
        self.entries.clear();
        self.bytes = 0;
        self.cut_index = metadata.index;
        self.memory_first = metadata.index + 1;
        self.terms = vec![(metadata.index, metadata.term)];
        self.applied_index = metadata.index;
        self.conf_state = metadata.get_conf_state().clone();
        self.fetched.borrow_mut().clear();
    }

    /// Everything up to `applied` is in the store; drops what memory need not hold.
    ///
    /// `persisted`: entries above it are not on disk yet, so memory is their only place. `alone`: there are no followers.
    pub fn applied_to(&mut self, applied: u64, persisted: u64, alone: bool) {
        let bytes_max = if alone { self.bytes_max.min(ALONE_BYTES_MAX) } else { self.bytes_max };
        self.applied_index = self.applied_index.max(applied);
        let droppable = applied.min(persisted);
        while self.bytes > bytes_max && self.entries.len() > ENTRIES_MIN && self.memory_first < droppable {
            let gone = self.entries.pop_front().expect("it is not empty");
            self.bytes -= size(&gone);
            self.memory_first += 1;
        }
    }

    /// The configuration as of the applied index.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// See [`MemoryLog::set_conf_state`].
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Entries up to `index` are no longer promised to anybody: the segments that held them may be gone.
    ///
    /// Never beyond what is applied; the entry at the new cut keeps its term.
    pub fn cut_to(&mut self, index: u64) {
        let index = index.min(self.applied_index);
        if index <= self.cut_index {
            return;
        }
        let term = self.term_at(index).expect("applied entries are in the log");
        self.terms.retain(|&(first, _)| first > index);
        self.terms.insert(0, (index, term));
        self.cut_index = index;
        while self.memory_first <= index {
            let gone = self.entries.pop_front().expect("the cut is not above the last entry");
            self.bytes -= size(&gone);
            self.memory_first += 1;
        }
        self.fetched.borrow_mut().retain(|&first, _| first > index);
    }

    /// What followers need from disk; each is to be answered with [`MemoryLog::put_fetched`].
    pub fn take_wanted(&self) -> Vec<Fetch> {
        std::mem::take(&mut self.wanted.borrow_mut())
    }

    /// Entries read from disk.
    pub fn put_fetched(&self, entries: &[raftpb::Entry]) {
        if let Some(first) = entries.first()
            && first.index() > self.cut_index
        {
            self.fetched.borrow_mut().insert(first.index(), entries.iter().map(convert::entry_in).collect());
        }
    }

    /// Nobody wants what was read from `first` on any more.
    pub fn drop_fetched(&self, first: u64) {
        self.fetched.borrow_mut().remove(&first);
    }

    fn held_entries(&self, low: u64, high: u64, max_bytes: Option<u64>) -> Vec<Entry> {
        let start = (low - self.memory_first) as usize;
        let end = (high - self.memory_first) as usize;
        within(self.entries.range(start..end), max_bytes)
    }
}

/// The entries that fit into `max_bytes`, at least one.
fn within<'a>(entries: impl Iterator<Item = &'a Entry>, max_bytes: Option<u64>) -> Vec<Entry> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        bytes += size(entry) as u64;
        if !taken.is_empty() && max_bytes.is_some_and(|max| bytes > max) {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.start.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max_bytes = max_size.into();
        assert!(high <= self.last() + 1, "asked for entries up to {high}, the last is {}", self.last());
        if low <= self.cut_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        if low >= self.memory_first {
            return Ok(self.held_entries(low, high, max_bytes));
        }
        assert!(
            context.can_async(),
            "entry {low} is committed and unapplied, yet memory starts at {}",
            self.memory_first
        );
        let found = self.fetched.borrow_mut().remove(&low);
        if let Some(entries) = found {
            return Ok(within(entries.iter().take_while(|entry| entry.index < high), max_bytes));
        }
        self.wanted.borrow_mut().push(Fetch {
            from_index: low,
            end_index: high.min(self.memory_first),
            max_bytes: max_bytes.unwrap_or(u64::MAX),
            context,
        });
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index).ok_or(Error::Store(if index < self.cut_index {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        }))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Metadata only; whoever sends the message adds the data of exactly this index.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let term = self.term_at(self.applied_index);
        match term {
            Some(term) if self.applied_index >= request_index && self.applied_index > 0 => {
                let mut snapshot = Snapshot::default();
                let metadata = snapshot.mut_metadata();
                metadata.index = self.applied_index;
                metadata.term = term;
                metadata.set_conf_state(self.conf_state.clone());
                Ok(snapshot)
            }
            _ => Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ALONE_BYTES_MAX, MEMORY_BYTES_MAX, MemoryLog};
    use bytes::Bytes;
    use raft::eraftpb::{ConfState, Entry, HardState};
    use raft::{GetEntriesContext, Storage};

    fn entry(index: u64, term: u64, bytes: usize) -> Entry {
        Entry { index, term, data: Bytes::from(vec![0; bytes]), ..Default::default() }
    }

    fn log(cut: (u64, u64), entries: Vec<Entry>) -> MemoryLog {
        let terms = vec![cut];
        MemoryLog::new(HardState::default(), ConfState::default(), terms, cut.0, entries, MEMORY_BYTES_MAX)
    }

    #[test]
    fn terms_are_known_from_the_cut_on() {
        let mut log = log((10, 2), vec![entry(11, 2, 0), entry(12, 3, 0), entry(13, 3, 0), entry(14, 5, 0)]);
        let terms = |log: &MemoryLog| (9..=15).map(|index| log.term_at(index)).collect::<Vec<_>>();
        assert_eq!(terms(&log), [None, Some(2), Some(2), Some(3), Some(3), Some(5), None]);
        // A new leader replaces the tail, in the middle of a run and at its start.
        log.append(&[entry(13, 6, 0)]);
        assert_eq!(terms(&log), [None, Some(2), Some(2), Some(3), Some(6), None, None]);
        log.append(&[entry(12, 7, 0), entry(13, 7, 0)]);
        assert_eq!(terms(&log), [None, Some(2), Some(2), Some(7), Some(7), None, None]);
        log.applied_to(13, 13, false);
        log.cut_to(12);
        assert_eq!(terms(&log), [None, None, None, Some(7), Some(7), None, None]);
        assert_eq!((log.first(), log.last()), (13, 13));
    }

    #[test]
    fn memory_keeps_what_is_not_applied_and_the_last_bytes() {
        let each = 1 << 20;
        let count = 2 * (MEMORY_BYTES_MAX / each) as u64;
        let mut log = log((0, 0), (1..=count).map(|index| entry(index, 1, each)).collect());
        assert!(log.bytes > 2 * MEMORY_BYTES_MAX);
        log.applied_to(3, count, false);
        assert_eq!(log.memory_first, 3, "only what is applied may go");
        log.applied_to(count, 5, false);
        assert_eq!(log.memory_first, 5, "only what is on disk may go");
        log.applied_to(count, count, false);
        assert!(log.bytes <= MEMORY_BYTES_MAX && log.bytes > MEMORY_BYTES_MAX - 2 * each);
        // Older entries can be sent still, after a trip to the disk.
        assert_eq!(log.first(), 1);
        let asked = log.entries(2, 9, 1000, GetEntriesContext::empty(true));
        assert!(asked.is_err());
        let wanted = log.take_wanted();
        assert_eq!((wanted[0].from_index, wanted[0].end_index), (2, 9));
        log.applied_to(count, count, true);
        assert!(log.bytes <= ALONE_BYTES_MAX + each, "nobody needs them");
        log.put_fetched(&[super::convert::entry_out(&entry(2, 1, 7)), super::convert::entry_out(&entry(3, 1, 7))]);
        let got = log.entries(2, 9, None, GetEntriesContext::empty(true)).expect("fetched");
        assert_eq!(got.iter().map(|entry| entry.index).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn at_least_one_entry_fits_any_bound() {
        let log = log((0, 0), vec![entry(1, 1, 100), entry(2, 1, 100)]);
        let got = log.entries(1, 3, 1, GetEntriesContext::empty(false)).expect("in memory");
        assert_eq!(got.len(), 1);
    }
}
