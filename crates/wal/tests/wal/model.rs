//! The naive twin: a list of records, and what they amount to.

use std::collections::BTreeMap;
use std::fmt;

use milepost_env::{Rng, SeededRng};
use milepost_proto::raftpb::{Entry, HardState};
use milepost_types::LogIndex;
use milepost_wal::{Recovered, SnapshotMark, Wal, WalError};

use crate::common::{entry, mark, state};

#[derive(Clone, Debug)]
pub enum Rec {
    Entry(Entry),
    State(HardState),
    Mark(SnapshotMark),
}

/// What a log holds, as far as a caller can see.
#[derive(Clone, Default, PartialEq)]
pub struct View {
    pub entries: Vec<Entry>,
    pub state: HardState,
    /// Those from the snapshot on; older ones go with their segments.
    pub marks: Vec<SnapshotMark>,
    pub snapshot: u64,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot {} of", self.snapshot)?;
        self.marks.iter().try_for_each(|mark| write!(f, " {}/{}", mark.index, mark.term))?;
        write!(f, ", term {} commit {}, entries", self.state.term(), self.state.commit())?;
        let payload = |entry: &Entry| entry.data().len();
        self.entries.iter().try_for_each(|entry| write!(f, " {}/{}:{}", entry.index(), entry.term(), payload(entry)))
    }
}

impl From<&Recovered> for View {
    fn from(recovered: &Recovered) -> Self {
        let snapshot = recovered.snapshot.index.0;
        let marks = recovered.snapshots.iter().filter(|mark| mark.index.0 >= snapshot).cloned().collect();
        Self { entries: recovered.entries.clone(), state: recovered.hard_state, marks, snapshot }
    }
}

/// What `records` amount to behind the birth of a log.
pub fn view(records: &[Rec]) -> View {
    let mut log = BTreeMap::new();
    let (mut state, mut marks) = (HardState::default(), vec![SnapshotMark::default()]);
    for record in records {
        match record {
            Rec::Entry(entry) => {
                log.split_off(&entry.index());
                log.insert(entry.index(), entry.clone());
            }
            Rec::State(new) => state = *new,
            Rec::Mark(mark) => marks.push(mark.clone()),
        }
    }
    let valid = marks.iter().map(|mark| mark.index.0).filter(|&index| index <= state.commit());
    let snapshot = valid.max().unwrap_or(0);
    marks.retain(|mark| mark.index.0 >= snapshot);
    View { entries: log.split_off(&(snapshot + 1)).into_values().collect(), state, marks, snapshot }
}

/// A caller that does as Raft does: replaces only what is not committed, moves term and commit forward, marks only what
/// is committed, forgets only what is marked.
#[derive(Clone)]
pub struct Caller {
    rng: SeededRng,
    /// Everything handed to the log, oldest first.
    pub records: Vec<Rec>,
    /// How many of them are durable for certain.
    pub synced: usize,
    term: u64,
    last: u64,
    commit: u64,
    marked: u64,
}

impl Caller {
    pub fn new(seed: u64) -> Self {
        Self { rng: SeededRng(seed), records: Vec::new(), synced: 0, term: 1, last: 0, commit: 0, marked: 0 }
    }

    /// Goes on with a log that holds the first `kept` records.
    pub fn resume(&mut self, kept: usize, recovered: &Recovered) {
        self.records.truncate(kept);
        self.synced = kept;
        self.last = recovered.last_index().0;
        self.commit = recovered.hard_state.commit();
        self.marked = recovered.snapshots.iter().map(|mark| mark.index.0).max().unwrap_or(0);
        self.term += 1;
    }

    pub fn step(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        match self.rng.below(10) {
            0..=4 => self.append(wal)?,
            5..=6 => self.sync(wal)?,
            7 => wal.flush()?,
            8 if self.commit > self.marked => self.mark(wal)?,
            _ => wal.preallocate_next()?,
        }
        if self.rng.chance(1, 8) {
            wal.release_to(LogIndex(self.marked.saturating_sub(3)))?;
        }
        Ok(())
    }

    pub fn sync(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        wal.sync()?;
        self.synced = self.records.len();
        Ok(())
    }

    fn append(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        if self.last > self.commit && self.rng.chance(1, 6) {
            self.last = self.commit + self.rng.below(self.last - self.commit);
            self.term += 1;
        }
        let entries: Vec<Entry> = (0..self.rng.below(5)).map(|n| self.entry(self.last + 1 + n)).collect();
        self.last += entries.len() as u64;
        // Only what is durable may be committed by this member alone.
        let durable = view(&self.records[..self.synced]);
        let durable_last = durable.entries.last().map_or(durable.snapshot, Entry::index);
        self.commit = self.commit.max(durable_last.min(self.last - entries.len() as u64));
        let state = self.rng.chance(2, 3).then(|| state(self.term, 7, self.commit));
        self.records.extend(entries.iter().cloned().map(Rec::Entry));
        self.records.extend(state.map(Rec::State));
        wal.append(&entries, state.as_ref())
    }

    fn mark(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        // As Raft's caller: the commit is in the log before the mark.
        let state = state(self.term, 7, self.commit);
        self.records.push(Rec::State(state));
        wal.append(&[], Some(&state))?;
        let newest = view(&self.records);
        let index = self.commit;
        let term = newest.entries.iter().find(|entry| entry.index() == index).map_or(1, Entry::term);
        let mark = mark(index, term);
        self.records.push(Rec::Mark(mark.clone()));
        wal.save_snapshot_mark(&mark)?;
        self.synced = self.records.len();
        self.marked = index;
        Ok(())
    }

    fn entry(&mut self, index: u64) -> Entry {
        let bytes = [0, 1, 40, 300, 512, 1500][self.rng.below(6) as usize];
        let fill = self.rng.next_u64();
        // Long runs of zeros as well: they look like sectors that never reached the disk.
        let data: Vec<u8> = match self.rng.chance(1, 4) {
            true => vec![0; bytes as usize],
            false => (0..bytes).map(|n: u64| (fill >> (n % 57)) as u8).collect(),
        };
        entry(index, self.term, &data)
    }
}
