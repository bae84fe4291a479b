//! The two fates of an entry that cannot be applied as asked: the caller hears why, or the member stops.

use milepost_mvcc::StoreError;
use milepost_types::LogIndex;

/// Why a request is refused: the caller's mistake, or a state of the cluster that forbids it.
///
/// Every member that applies the same entry to the same state produces the same value, with two exceptions that etcd
/// makes too: [`Error::NoSpace`] out of the local quota check (the write has happened all the same), and
/// [`Error::Storage`], which only local reads return.
///
/// [`Error::text`] is the message that etcd's clients compare; the gRPC code of each lives in `api`.
/// Source: `facts/errors.md` §1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A request or an operation of a transaction has no key.
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a missing key; an operation of a transaction that is none.
    KeyNotFound,
    /// `ignore_value` together with a value.
    ValueProvided,
    /// `ignore_lease` together with a lease.
    LeaseProvided,
    /// More operations than the limit, counted as etcd does, or transactions nested too deeply.
    TooManyOps,
    /// One transaction would change a key twice.
    DuplicateKey,
    /// Unknown sort order or target.
    InvalidSortOption,
    /// RangeStream with an order other than ascending keys.
    StreamSort,
    /// RangeStream with bounds on revisions.
    StreamFilter,
    /// The revision lies below the compacted one, or is being compacted a second time.
    Compacted,
    /// The revision has not happened yet.
    FutureRevision,
    /// Quota exceeded, or the NOSPACE alarm is up.
    NoSpace,
    /// The CORRUPT alarm is up.
    Corrupt,
    /// No such lease.
    LeaseNotFound,
    /// The chosen lease id is taken.
    LeaseExists,
    /// TTL above [`crate::MAX_LEASE_TTL`].
    LeaseTtlTooLarge,
    /// Renewals and remaining times are known to the leader only.
    NotPrimary,
    /// The member id is taken.
    MemberExists,
    /// No such member, or one that was removed (ids never come back).
    MemberNotFound,
    /// Another member uses one of these peer URLs.
    PeerUrlExists,
    /// Promotion of a member that is a voter.
    NotLearner,
    /// The cluster has as many learners as it may have.
    TooManyLearners,
    /// After this change fewer members than a quorum would ever have started.
    NotEnoughStarted,
    /// A downgrade target that is no version.
    DowngradeFormat,
    /// A downgrade target other than one minor version below.
    DowngradeTarget,
    /// The cluster has no version yet.
    NoClusterVersion,
    /// A downgrade is under way already.
    DowngradeInProgress,
    /// Requests about users and roles are not part of this server yet.
    AuthUnavailable,
    /// This member's store could not be read: the world's trouble, never the outcome of an entry.
    Storage(String),
}

impl Error {
    /// The message as etcd sends it.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::EmptyKey => "etcdserver: key is not provided",
            Self::KeyNotFound => "etcdserver: key not found",
            Self::ValueProvided => "etcdserver: value is provided",
            Self::LeaseProvided => "etcdserver: lease is provided",
            Self::TooManyOps => "etcdserver: too many operations in txn request",
            Self::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Self::InvalidSortOption => "etcdserver: invalid sort option",
            Self::StreamSort => "RangeStream does not support custom sort orders",
            Self::StreamFilter => "RangeStream does not support revision filters",
            Self::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Self::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
            Self::NoSpace => "etcdserver: mvcc: database space exceeded",
            Self::Corrupt => "etcdserver: corrupt cluster",
            Self::LeaseNotFound => "etcdserver: requested lease not found",
            Self::LeaseExists => "etcdserver: lease already exists",
            Self::LeaseTtlTooLarge => "etcdserver: too large lease TTL",
            Self::NotPrimary => "not a primary lessor",
            Self::MemberExists => "etcdserver: member ID already exist",
            Self::MemberNotFound => "etcdserver: member not found",
            Self::PeerUrlExists => "etcdserver: Peer URLs already exists",
            Self::NotLearner => "etcdserver: can only promote a learner member",
            Self::TooManyLearners => "etcdserver: too many learner members in cluster",
            Self::NotEnoughStarted => "etcdserver: re-configuration failed due to not enough started members",
            Self::DowngradeFormat => "etcdserver: wrong downgrade target version format",
            Self::DowngradeTarget => "etcdserver: invalid downgrade target version",
            Self::NoClusterVersion => "etcdserver: cluster version not found during downgrade",
            Self::DowngradeInProgress => "etcdserver: cluster has a downgrade job in progress",
            Self::AuthUnavailable => "etcdserver: users and roles are not supported by this server",
            Self::Storage(text) => text,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Error {}

/// Broken truth: this member cannot follow the log any further and must stop, keeping its data as it is.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// An entry that is not the next one.
    #[error("entry {got} came to be applied after entry {applied}: entries are applied in order, each once")]
    OutOfOrder {
        /// Last entry applied.
        applied: LogIndex,
        /// The one that came.
        got: LogIndex,
    },
    /// The bytes of an entry are not what its kind promises.
    #[error("entry {index} cannot be understood: {why}")]
    Undecodable {
        /// Position of the entry.
        index: LogIndex,
        /// What is wrong with it.
        why: String,
    },
    /// The cluster has moved to a version that this program does not speak.
    #[error("entry {index} sets cluster version {cluster}, but this server is {server}: install a newer version")]
    VersionTooNew {
        /// Position of the entry.
        index: LogIndex,
        /// The version that the cluster takes.
        cluster: String,
        /// Ours.
        server: String,
    },
    /// A stored record of the machine's own tables cannot be read.
    #[error("table {table}, record {key}: {why}")]
    BrokenRecord {
        /// Name of the table.
        table: &'static str,
        /// The record's key, in hexadecimal.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store failed while an entry was applied.
    #[error("entry {index} cannot be applied: {source}")]
    Store {
        /// Position of the entry.
        index: LogIndex,
        /// The store's own words.
        source: StoreError,
    },
    /// A transaction failed after its checks had passed; part of it may be done.
    #[error("entry {index}: a transaction failed after its checks had passed: {error}")]
    HalfDone {
        /// Position of the entry.
        index: LogIndex,
        /// What the operation said.
        error: Error,
    },
}

/// Inside the room: refused, or the store failed.
#[derive(Debug)]
pub(crate) enum Fault {
    Refused(Error),
    Store(StoreError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { .. } => Self::Refused(Error::Compacted),
            StoreError::FutureRevision { .. } => Self::Refused(Error::FutureRevision),
            StoreError::EmptyKey => Self::Refused(Error::EmptyKey),
            other => Self::Store(other),
        }
    }
}

impl From<Fault> for Error {
    /// For local reads, where a failing store is one more reason for no answer.
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(error) => error,
            Fault::Store(error) => Self::Storage(error.to_string()),
        }
    }
}
