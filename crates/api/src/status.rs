//! The single table of errors that clients see: gRPC code and exact text.
//!
//! etcd's clients compare the text, so each text stands here once and a golden test holds all of them. Two quirks of
//! etcd are kept on purpose: "too many requests" and "not enough started members" leave as `Unknown`, although etcd
//! declares better codes for them.
//!
//! Source: `facts/errors.md` §1.

use std::borrow::Cow;

use milepost_machine::Error;
pub use milepost_types::Code;

use crate::backend::NodeError;

/// Why a call failed, as the client hears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// gRPC code.
    pub code: Code,
    /// Text; etcd's to the letter where etcd has one.
    pub message: Cow<'static, str>,
}

impl Status {
    /// A status with a fixed text.
    #[must_use]
    pub const fn new(code: Code, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message) }
    }

    /// A status whose text holds values.
    #[must_use]
    pub fn with(code: Code, message: String) -> Self {
        Self { code, message: Cow::Owned(message) }
    }
}

impl std::fmt::Display for Status {
    /// As Go's clients and servers print a status, and as `cancel_reason` carries it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rpc error: code = {} desc = {}", self.code.name(), self.message)
    }
}

macro_rules! table {
    ($($name:ident = $code:ident $text:literal;)*) => {
        $(#[doc = concat!("`", $text, "`")] pub const $name: Status = Status::new(Code::$code, $text);)*

        /// Every row of the table, for tests.
        #[cfg(test)]
        pub(crate) const TABLE: &[Status] = &[$($name,)*];
    };
}

table! {
    EMPTY_KEY = InvalidArgument "etcdserver: key is not provided";
    KEY_NOT_FOUND = InvalidArgument "etcdserver: key not found";
    VALUE_PROVIDED = InvalidArgument "etcdserver: value is provided";
    LEASE_PROVIDED = InvalidArgument "etcdserver: lease is provided";
    TOO_MANY_OPS = InvalidArgument "etcdserver: too many operations in txn request";
    DUPLICATE_KEY = InvalidArgument "etcdserver: duplicate key given in txn request";
    INVALID_CLIENT_API_VERSION = InvalidArgument "etcdserver: invalid client api version";
    INVALID_SORT_OPTION = InvalidArgument "etcdserver: invalid sort option";
    COMPACTED = OutOfRange "etcdserver: mvcc: required revision has been compacted";
    FUTURE_REVISION = OutOfRange "etcdserver: mvcc: required revision is a future revision";
    NO_SPACE = ResourceExhausted "etcdserver: mvcc: database space exceeded";
    LEASE_NOT_FOUND = NotFound "etcdserver: requested lease not found";
    LEASE_EXISTS = FailedPrecondition "etcdserver: lease already exists";
    LEASE_TTL_TOO_LARGE = OutOfRange "etcdserver: too large lease TTL";
    MEMBER_EXISTS = FailedPrecondition "etcdserver: member ID already exist";
    PEER_URL_EXISTS = FailedPrecondition "etcdserver: Peer URLs already exists";
    MEMBER_NOT_FOUND = NotFound "etcdserver: member not found";
    NOT_LEARNER = FailedPrecondition "etcdserver: can only promote a learner member";
    TOO_MANY_LEARNERS = FailedPrecondition "etcdserver: too many learner members in cluster";
    NOT_ENOUGH_STARTED = Unknown "etcdserver: re-configuration failed due to not enough started members";
    BAD_MEMBER_URLS = InvalidArgument "etcdserver: given member URLs are invalid";
    LEARNER_NOT_READY = FailedPrecondition "etcdserver: can only promote a learner member which is in sync with leader";
    UNHEALTHY = Unavailable "etcdserver: unhealthy cluster";
    NOT_LEADER = FailedPrecondition "etcdserver: not leader";
    BAD_TRANSFEREE = FailedPrecondition "etcdserver: bad leader transferee";
    TRANSFER_TIMEOUT = Unknown "etcdserver: request timed out, leader transfer took too long";
    UNKNOWN_METHOD = Unknown "etcdserver: unknown method";
    DOWNGRADE_FORMAT = InvalidArgument "etcdserver: wrong downgrade target version format";
    DOWNGRADE_TARGET = InvalidArgument "etcdserver: invalid downgrade target version";
    NO_CLUSTER_VERSION = FailedPrecondition "etcdserver: cluster version not found during downgrade";
    DOWNGRADE_IN_PROGRESS = FailedPrecondition "etcdserver: cluster has a downgrade job in progress";
    NO_DOWNGRADE = FailedPrecondition "etcdserver: no inflight downgrade job";
    REQUEST_TOO_LARGE = InvalidArgument "etcdserver: request is too large";
    TOO_MANY_REQUESTS = Unknown "etcdserver: too many requests";
    NO_LEADER = Unavailable "etcdserver: no leader";
    LEADER_CHANGED = Unavailable "etcdserver: leader changed";
    STOPPED = Unavailable "etcdserver: server stopped";
    TIMEOUT = Unavailable "etcdserver: request timed out";
    TIMEOUT_LEADER_FAILURE = Unavailable "etcdserver: request timed out, possibly due to previous leader failure";
    TIMEOUT_CONNECTION_LOST = Unavailable "etcdserver: request timed out, possibly due to connection lost";
    TIMEOUT_APPLY = Unavailable "etcdserver: request timed out, waiting for the applied index took too long";
    CORRUPT = DataLoss "etcdserver: corrupt cluster";
    LEARNER = FailedPrecondition "etcdserver: rpc not supported for learner";
    DEADLINE = DeadlineExceeded "context deadline exceeded";
    CANCELED = Canceled "context canceled";
    NOT_PRIMARY = Unknown "not a primary lessor";
    PROPOSAL_DROPPED = Unknown "raft proposal dropped";
    STREAM_SORT = Unimplemented "RangeStream does not support custom sort orders";
    STREAM_FILTER = Unimplemented "RangeStream does not support revision filters";
    AUTH_NOT_ENABLED = FailedPrecondition "etcdserver: authentication is not enabled";
    UNKNOWN_HEALTH_SERVICE = NotFound "unknown service";
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::EmptyKey => EMPTY_KEY,
            Error::KeyNotFound => KEY_NOT_FOUND,
            Error::ValueProvided => VALUE_PROVIDED,
            Error::LeaseProvided => LEASE_PROVIDED,
            Error::TooManyOps => TOO_MANY_OPS,
            Error::DuplicateKey => DUPLICATE_KEY,
            Error::InvalidSortOption => INVALID_SORT_OPTION,
            Error::StreamSort => STREAM_SORT,
            Error::StreamFilter => STREAM_FILTER,
            Error::Compacted => COMPACTED,
            Error::FutureRevision => FUTURE_REVISION,
            Error::NoSpace => NO_SPACE,
            Error::Corrupt => CORRUPT,
            Error::LeaseNotFound => LEASE_NOT_FOUND,
            Error::LeaseExists => LEASE_EXISTS,
            Error::LeaseTtlTooLarge => LEASE_TTL_TOO_LARGE,
            Error::NotPrimary => NOT_PRIMARY,
            Error::MemberExists => MEMBER_EXISTS,
            Error::MemberNotFound => MEMBER_NOT_FOUND,
            Error::PeerUrlExists => PEER_URL_EXISTS,
            Error::NotLearner => NOT_LEARNER,
            Error::TooManyLearners => TOO_MANY_LEARNERS,
            Error::NotEnoughStarted => NOT_ENOUGH_STARTED,
            Error::DowngradeFormat => DOWNGRADE_FORMAT,
            Error::DowngradeTarget => DOWNGRADE_TARGET,
            Error::NoClusterVersion => NO_CLUSTER_VERSION,
            Error::DowngradeInProgress => DOWNGRADE_IN_PROGRESS,
            Error::AuthUnavailable => {
                Self::new(Code::Unimplemented, "etcdserver: users and roles are not supported by this server")
            }
            Error::Storage(text) => Self::with(Code::Unknown, text),
        }
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::TooManyRequests => TOO_MANY_REQUESTS,
            NodeError::RequestTooLarge => REQUEST_TOO_LARGE,
            NodeError::NoLeader => NO_LEADER,
            NodeError::Dropped => PROPOSAL_DROPPED,
            NodeError::Timeout => TIMEOUT,
            NodeError::Stopped => STOPPED,
        }
    }
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
