//! What goes into [`crate::Machine::apply`] and what comes out.

use std::sync::Arc;

use bytes::Bytes;
use milepost_mvcc::EventBatch;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::raftpb;
use milepost_types::{LogIndex, MemberId, Term};

use crate::cluster::Version;
use crate::error::Error;

/// How the bytes of an entry are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// An `InternalRaftRequest`, or nothing: the first entry of a term.
    Normal,
    /// etcd's `raftpb.ConfChange`.
    ConfChange,
}

/// One committed entry of the log.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its position: one above the entry applied before it.
    pub index: LogIndex,
    /// The term in which it was proposed.
    pub term: Term,
    /// How to read `data`.
    pub kind: EntryKind,
    /// The payload, as etcd encodes it. Keys and values of the state share this buffer.
    pub data: &'a Bytes,
}

/// What applying one entry brought about.
#[derive(Debug, Default)]
pub struct Applied {
    /// Under which a waiter may be registered; 0 for an empty entry.
    pub request_id: u64,
    /// What it was, as a place in [`OPERATIONS`]; `None` for what is no request.
    pub operation: Option<usize>,
    /// It was refused. A compaction that came too late is not counted as one, as in etcd's metrics.
    pub refused: bool,
    /// The answer; `None` only if none was wanted.
    pub reply: Option<Result<Reply, Error>>,
    /// Changes of the keyspace, for the watchers; `None` when there were none.
    pub events: Option<Arc<EventBatch>>,
    /// What the member has to do about it, in this order.
    pub effects: Vec<Effect>,
}

macro_rules! operations {
    ($($request:ident $name:literal,)*) => {
        /// What metrics call the requests of an entry. Source: etcd `uberApply.dispatch`.
        pub const OPERATIONS: &[&str] = &["unknown", $($name,)*];

        /// The place of `request` in [`OPERATIONS`].
        pub(crate) fn operation(request: &Request) -> usize {
            let name = match request {
                $(Request::$request(_) => $name,)*
                // AuthStatus among them, as in etcd.
                _ => "unknown",
            };
            OPERATIONS.iter().position(|known| *known == name).unwrap_or_default()
        }
    };
}

operations! {
    Put "Put",
    Txn "Txn",
    DeleteRange "DeleteRange",
    Range "Range",
    Compaction "Compaction",
    LeaseGrant "LeaseGrant",
    LeaseRevoke "LeaseRevoke",
    LeaseCheckpoint "LeaseCheckpoint",
    Alarm "Alarm",
    ClusterVersionSet "ClusterVersionSet",
    ClusterMemberAttrSet "ClusterMemberAttrSet",
    DowngradeInfoSet "DowngradeInfoSet",
}

/// The answer to a request. Headers carry the revision alone; `api` fills in the rest.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To a put.
    Put(pb::PutResponse),
    /// To a range that went through the log.
    Range(pb::RangeResponse),
    /// To a delete.
    DeleteRange(pb::DeleteRangeResponse),
    /// To a transaction.
    Txn(pb::TxnResponse),
    /// To a compaction: it is in force, the physical deletion follows.
    Compaction(pb::CompactionResponse),
    /// To a lease grant.
    LeaseGrant(pb::LeaseGrantResponse),
    /// To a lease revoke.
    LeaseRevoke(pb::LeaseRevokeResponse),
    /// To a lease checkpoint.
    LeaseCheckpoint(pb::LeaseCheckpointResponse),
    /// To all three alarm actions.
    Alarm(pb::AlarmResponse),
    /// To a question whether auth is on.
    AuthStatus(pb::AuthStatusResponse),
    /// To a change of membership: the members after it, sorted by id.
    ConfChange(Vec<pb::Member>),
    /// To entries that nobody is answered for: version, attributes, downgrade, empty.
    Empty,
}

/// What a member has to do after an entry is applied. Not part of the replicated state.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A change of membership was applied or refused.
    ConfChange {
        /// What Raft and the transport must follow; `None`: refused, Raft must only forget that it was pending.
        change: Option<raftpb::ConfChange>,
        /// Peer URLs of the member that was added, promoted or updated; empty for a removal.
        peer_urls: Vec<String>,
        /// The configuration after it; already part of the stored state.
        conf_state: raftpb::ConfState,
    },
    /// This member is out of space and must propose the alarm for itself.
    RaiseAlarm {
        /// Who has no space: this member.
        member: MemberId,
        /// Which alarm.
        alarm: pb::AlarmType,
    },
    /// The cluster has a new version.
    ClusterVersion {
        /// The new one.
        version: Version,
        /// It is lower than before: a snapshot point should follow soon. Source: etcd `ForceSnapshot`.
        lowered: bool,
    },
    /// A member made its name or client URLs known.
    MemberAttributes {
        /// Which one.
        member: MemberId,
    },
    /// The caller of a compaction waits until the deletion up to `revision` is done.
    PhysicalCompaction {
        /// The compacted revision.
        revision: i64,
    },
    /// The first entry of a term: if this member leads it, leases start to run here.
    EmptyEntry {
        /// The term.
        term: Term,
    },
}
