//! What can be wrong with a log, each in one line that says where and what to do.

use std::io;
use std::path::{Path, PathBuf};

use milepost_types::{LogIndex, Term};

/// A log could not be written, read or trusted.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The kernel refused; nothing was concluded from it. From a running log: it is poisoned from then on.
    #[error("cannot {action} {path}: {source}; check the disk and the permissions, then start the member again")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },

    /// There is no room to reserve; nothing was written, the log is intact and the call may be repeated.
    #[error("no space for {bytes} more bytes of log in {path}: {source}; free some space, the log itself is intact")]
    NoSpace {
        /// The file that needs the space.
        path: PathBuf,
        /// How much it needs.
        bytes: u64,
        /// The kernel's answer.
        source: io::Error,
    },

    /// A write or sync failed earlier: what the disk holds is not known until it is read again.
    #[error(
        "the log in {dir} takes no more writes since: {cause}; restart the member, it reads back what the disk holds"
    )]
    Poisoned {
        /// The log's directory.
        dir: PathBuf,
        /// The first failure.
        cause: String,
    },

    /// [`Wal::create`](crate::Wal::create) found a log.
    #[error("{dir} already holds a log; start the member with it, or move it away to start from nothing")]
    AlreadyExists {
        /// The log's directory.
        dir: PathBuf,
    },

    /// [`Wal::open`](crate::Wal::open) found none.
    #[error("{dir} holds no log segment; check the data directory, or remove the member and add it again")]
    NotFound {
        /// The log's directory.
        dir: PathBuf,
    },

    /// Another process, or another part of this one, has the log open.
    #[error("{path} is in use by another process; stop that process first")]
    Locked {
        /// The segment whose lock is held.
        path: PathBuf,
    },

    /// Bytes that were durable are not what was written. Never repaired.
    #[error(
        "{path} is damaged at byte {offset} (record {record} of the file): {problem}; \
         remove this member from the cluster, wipe its data directory and add it again, or restore a backup"
    )]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where the record starts in it.
        offset: u64,
        /// Its number in the file, from 0.
        record: u64,
        /// What is wrong.
        problem: String,
    },

    /// A segment in the middle is not there.
    #[error(
        "{dir} lacks segment {missing} (there are {before} and {after}); put the file back, \
         or remove this member from the cluster, wipe its data directory and add it again"
    )]
    MissingSegment {
        /// The log's directory.
        dir: PathBuf,
        /// Sequence number of the first missing one.
        missing: u64,
        /// Name of the segment before the gap.
        before: String,
        /// Name of the segment after the gap.
        after: String,
    },

    /// The log ends below something that this member is known to have had. Never repaired: nothing was changed.
    #[error(
        "the log in {dir} ends at index {last}, but {what} is {needed}: {cause}; \
         remove this member from the cluster, wipe its data directory and add it again"
    )]
    LostLog {
        /// The log's directory.
        dir: PathBuf,
        /// Last index that can be recovered.
        last: LogIndex,
        /// What is known to lie beyond it.
        what: &'static str,
        /// Its index.
        needed: LogIndex,
        /// Why the log ends there.
        cause: String,
    },

    /// No snapshot record at or below the commit: the log has no beginning.
    #[error(
        "{dir} has no snapshot record at or below the commit index {commit}; \
         remove this member from the cluster, wipe its data directory and add it again"
    )]
    NoSnapshotMark {
        /// The log's directory.
        dir: PathBuf,
        /// The commit index that the log knows.
        commit: LogIndex,
    },

    /// Entries were asked for that have been released, or were never there.
    #[error(
        "entries {from} to {to} are not in the log in {dir}, which holds {first} to {last}; send a snapshot instead"
    )]
    NotHeld {
        /// The log's directory.
        dir: PathBuf,
        /// First index asked for.
        from: LogIndex,
        /// Last index asked for.
        to: LogIndex,
        /// First index that can be read.
        first: LogIndex,
        /// Last index that can be read.
        last: LogIndex,
    },

    /// The caller's entries do not follow what is there. Nothing was written.
    #[error("entry {index} cannot follow a log that ends at {last}: {problem}; this is a bug, please report it")]
    Misplaced {
        /// The offending entry.
        index: LogIndex,
        /// Where the log ends.
        last: LogIndex,
        /// What is wrong with it.
        problem: &'static str,
    },

    /// The caller's HardState is older than the last one. Nothing was written.
    #[error("the term cannot go back from {from} to {to}; this is a bug, please report it")]
    TermGoesBack {
        /// The last HardState's term.
        from: Term,
        /// The term asked for.
        to: Term,
    },

    /// A `.snap` file is not what was written.
    #[error("snapshot file {path} is damaged: {problem}; it is set aside, the member goes on without it")]
    BadSnapFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl WalError {
    /// Wraps the kernel's answer.
    pub(crate) fn disk(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Disk { action, path: path.to_owned(), source }
    }

    /// Is the log as good as before, so that the call may be repeated later?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// Did the disk, or this user's share of it, have no room for what was tried?
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Disk { source, .. } => is_full(source),
            _ => false,
        }
    }
}

/// Is this the kernel's way to say that the disk, or this user's share of it, is full?
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
