//! What the doors need from the member behind them.
//!
//! [`milepost_node::Node`] is the one that ships. Tests put a smaller member in its place: the same machine and store
//! without a log, which is how errors of the log and of leadership are shown without provoking them.

use std::time::Duration;

use bytes::Bytes;
use milepost_machine::Reader;
use milepost_mvcc::watch::Hub;
use milepost_types::MemberId;

pub use milepost_node::core::RaftStatus;
use milepost_node::metrics::NodeMetrics;
pub use milepost_node::{Completion, CompletionSink, DefragmentDone, NodeError, Waiter};

/// Where this member stands, as far as callers are told.
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

/// The member behind the doors. Every method may be called from any thread; none blocks.
pub trait Backend: Send + Sync + 'static {
    /// An id for the next proposal, unique in the cluster.
    fn next_request_id(&self) -> u64;

    /// Proposes `payload`, an encoded `InternalRaftRequest` with this `id`; the waiter hears what applying it answered.
    fn propose(&self, id: u64, payload: Bytes, waiter: Waiter);

    /// Proposes `change`, an encoded `ConfChange` with this `id`; the waiter hears of the members after it.
    fn propose_conf_change(&self, id: u64, change: Bytes, waiter: Waiter);

    /// Hands leadership to `to`, if this member leads; [`Backend::standing`] tells when it is done.
    fn transfer_leader(&self, to: MemberId);

    /// Answers `ReadReady` once everything committed before this call is applied here.
    fn read_index(&self, waiter: Waiter);

    /// Where this member stands. Asked for with every call: must be cheap.
    fn standing(&self) -> Standing;

    /// Has `tell` told, on a thread of the member's, how Raft stands; a stopped member drops it untold.
    fn raft_status(&self, tell: Box<dyn FnOnce(RaftStatus) + Send>);

    /// The state of the machine.
    fn reader(&self) -> &Reader;

    /// Who is watching.
    fn hub(&self) -> &Hub;

    /// The monotonic clock by which leases run.
    fn now(&self) -> Duration;

    /// Rewrites the store without its free space while everything goes on, and tells `done` of the end, on another
    /// thread: it must be short.
    fn defragment(&self, done: DefragmentDone);

    /// What Raft, the log and apply count.
    fn metrics(&self) -> &NodeMetrics;
}

impl Backend for milepost_node::Node {
    fn next_request_id(&self) -> u64 {
        self.next_request_id()
    }

    fn propose(&self, id: u64, payload: Bytes, waiter: Waiter) {
        self.propose(id, payload, waiter);
    }

    fn propose_conf_change(&self, id: u64, change: Bytes, waiter: Waiter) {
        self.propose_conf_change(id, change, waiter);
    }

    fn transfer_leader(&self, to: MemberId) {
        self.transfer_leader(to);
    }

    fn read_index(&self, waiter: Waiter) {
        self.read_index(waiter);
    }

    fn standing(&self) -> Standing {
        let status = self.status();
        Standing {
            cluster_id: status.cluster_id.0,
            member_id: status.member_id.0,
            leader: status.leader.0,
            term: status.term,
            committed: status.committed,
            applied: status.applied,
            is_learner: status.is_learner,
        }
    }

    fn raft_status(&self, tell: Box<dyn FnOnce(RaftStatus) + Send>) {
        self.raft_status(tell);
    }

    fn reader(&self) -> &Reader {
        self.reader()
    }

    fn hub(&self) -> &Hub {
        self.hub()
    }

    fn now(&self) -> Duration {
        self.clock().monotonic()
    }

    fn defragment(&self, done: DefragmentDone) {
        self.defragment(done);
    }

    fn metrics(&self) -> &NodeMetrics {
        self.metrics()
    }
}
