//! What can be made to go wrong, and the counts that prove it did.

use std::collections::BTreeMap;
use std::io;

/// A kind of call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `write_at`: about half is written, up to a sector's end, then the error comes. (The kernel writes page by page.)
    Write,
    /// `sync_data`, `sync_all`: some sectors reach the disk, the others are forgotten.
    Sync,
    /// `allocate` and `set_len`.
    Allocate,
    /// Creating, renaming, removing a name.
    Name,
    /// `sync_dir`: nothing becomes durable.
    SyncDir,
    /// `read_at`.
    Read,
}

/// How often each kind of thing happened since the disk was made. Failed calls are counted too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `write_at` calls.
    pub writes: u64,
    /// Bytes asked to be written.
    pub bytes_written: u64,
    /// `sync_data` and `sync_all` calls.
    pub syncs: u64,
    /// `allocate` and `set_len` calls.
    pub allocations: u64,
    /// Names created, renamed or removed.
    pub names: u64,
    /// `sync_dir` calls.
    pub dir_syncs: u64,
    /// `read_at` calls.
    pub reads: u64,
    /// Calls that failed because a fault was asked for or the disk was full.
    pub faults: u64,
    /// Power cuts.
    pub crashes: u64,
}

impl Counts {
    /// Calls that change the disk: what [`SimDisk::cut_power_after`](super::SimDisk::cut_power_after) counts.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.writes + self.syncs + self.allocations + self.names + self.dir_syncs
    }
}

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// Unsynced sectors that had reached the disk.
    pub sectors_kept: u64,
    /// Unsynced sectors that had not.
    pub sectors_dropped: u64,
    /// Files whose unsynced length had reached the disk.
    pub lengths_kept: u64,
    /// Files that fell back to their synced length.
    pub lengths_dropped: u64,
    /// Unsynced changes of names that had reached the disk.
    pub names_kept: u64,
    /// Unsynced changes of names that had not.
    pub names_dropped: u64,
}

impl CrashReport {
    /// Adds up the reports of several cuts.
    pub fn add(&mut self, other: &Self) {
        self.sectors_kept += other.sectors_kept;
        self.sectors_dropped += other.sectors_dropped;
        self.lengths_kept += other.lengths_kept;
        self.lengths_dropped += other.lengths_dropped;
        self.names_kept += other.names_kept;
        self.names_dropped += other.names_dropped;
    }
}

/// Faults that are waiting for their turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// For each kind, how many calls from now fail with what. Counts down.
    waiting: BTreeMap<Fault, Vec<(u64, io::ErrorKind)>>,
    /// Changes left until the power goes; `None`: it stays on.
    pub(super) changes_left: Option<u64>,
}

impl Plan {
    pub(super) fn add(&mut self, fault: Fault, nth: u64, kind: io::ErrorKind) {
        self.waiting.entry(fault).or_default().push((nth, kind));
    }

    /// Counts one call of `fault`; the error if its turn has come.
    pub(super) fn take(&mut self, fault: Fault) -> Option<io::ErrorKind> {
        let waiting = self.waiting.get_mut(&fault)?;
        let mut due = None;
        waiting.retain_mut(|(left, kind)| {
            *left = left.saturating_sub(1);
            if *left == 0 {
                due = Some(*kind);
            }
            *left > 0
        });
        due
    }
}
