//! What the doors need from the member behind them.
//!
//! [`milepost_node::Node`] is the one that ships; tests put a scripted one in its place, which is how every error can
//! be shown without provoking it.

use std::sync::Arc;

use bytes::Bytes;
use milepost_proto::etcdserverpb as pb;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    EmptyKey,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOps,
    DuplicateKey,
    InvalidSortOption,
    StreamSort,
    StreamFilter,
    Compacted,
    FutureRevision,
    NoSpace,
    Corrupt,
    LeaseNotFound,
    LeaseExists,
    LeaseTtlTooLarge,
    NotPrimary,
    MemberExists,
    MemberNotFound,
    PeerUrlExists,
    NotLearner,
    TooManyLearners,
    AuthUnavailable,
    Storage(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Put(pb::PutResponse),
    Range(pb::RangeResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compaction(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseCheckpoint(pb::LeaseCheckpointResponse),
    Alarm(pb::AlarmResponse),
    AuthStatus(pb::AuthStatusResponse),
    ConfChange(Vec<pb::Member>),
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeError {
    TooManyRequests,
    RequestTooLarge,
    NoLeader,
    LeaderChanged,
    Dropped,
    Timeout,
    Stopped,
}

#[derive(Clone, Debug)]
pub enum Completion {
    Reply(Result<Reply, Error>),
    ReadReady,
    Failed(NodeError),
}

pub trait CompletionSink: Send + Sync {
    fn complete(&self, batch: &mut Vec<(u64, Completion)>);
}

#[derive(Clone)]
pub struct Waiter {
    pub sink: Arc<dyn CompletionSink>,
    pub ticket: u64,
}

/// Where this member stands, as far as callers are told. Cheap to make: it is asked for with every call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The cluster.
    pub cluster_id: u64,
    /// This member.
    pub member_id: u64,
    /// The leader it knows; 0: none.
    pub leader: u64,
    /// Raft's term.
    pub term: u64,
    /// Last index known to be committed.
    pub committed: u64,
    /// Last index applied.
    pub applied: u64,
    /// This member has no vote yet.
    pub is_learner: bool,
}

/// The member behind the doors. Every method may be called from any thread and none blocks for long.
pub trait Backend: Send + Sync + 'static {
    /// An id for the next proposal, unique in the cluster.
    fn next_request_id(&self) -> u64;
    /// Proposes `payload`, an encoded `InternalRaftRequest` with this `id`.
    fn propose(&self, id: u64, payload: Bytes, waiter: Waiter);
    /// Answers `ReadReady` once everything committed before this call is applied here.
    fn read_index(&self, waiter: Waiter);
    /// Where this member stands.
    fn standing(&self) -> Standing;
    /// Newest revision that reads see.
    fn revision(&self) -> i64;
    /// Reads keys, without any promise about freshness.
    ///
    /// # Errors
    /// As etcd's range.
    fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error>;
    /// Lowest version that all members speak, like `3.7.0`; `None` until it is decided.
    fn cluster_version(&self) -> Option<String>;
}
