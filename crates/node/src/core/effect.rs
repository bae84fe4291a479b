//! What goes into the core, and what it asks for: plain data.

use super::validate::Refused;
use bytes::Bytes;
use milepost_proto::raftpb;

/// Something to put into the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// etcd's bytes: an `InternalRaftRequest`, or a `ConfChange`.
    pub data: Bytes,
    /// Which of the two.
    pub conf_change: bool,
}

/// What the core is told. Each call of [`super::Core::handle`] takes one.
#[derive(Clone, Debug)]
pub enum Input {
    /// One heartbeat interval has passed.
    Tick,
    /// Put these into the log, in this order.
    Propose(Vec<Proposal>),
    /// Confirm that this member may answer reads; `batch` numbers grow. Every batch up to a number is confirmed together.
    Read {
        /// The newest batch that waits.
        batch: u64,
    },
    /// From a peer, undecided whether it may be trusted.
    Message(Box<raftpb::Message>),
    /// Everything up to this [`Persist::number`] is durable.
    Persisted(u64),
    /// A conf change entry was applied, and Raft is to follow. Comes before the [`Input::Applied`] that covers the entry.
    ConfChangeApplied {
        /// The entry.
        index: u64,
        /// What was decided; `None` if it was refused, or if the entry held nothing that can be read.
        change: Option<raftpb::ConfChange>,
    },
    /// Everything up to this index is in the state machine.
    Applied(u64),
    /// Stand for election now.
    Campaign,
    /// The others can be reached: if none of them leads, wait for an election no longer than chance demands.
    FastForward,
    /// Hand leadership to this member.
    TransferLeader(u64),
    /// A message to this peer was not delivered.
    Unreachable(u64),
    /// The snapshot to this peer has arrived, or not.
    SnapshotSent {
        /// The peer.
        to: u64,
        /// Has it arrived?
        ok: bool,
    },
    /// The answer to [`Effect::Fetch`].
    Fetched {
        /// Of the request.
        ticket: u64,
        /// From the first one asked for; empty if they are gone.
        entries: Vec<raftpb::Entry>,
    },
    /// Entries up to this index need not be kept for followers.
    CutTo(u64),
}

/// Write this, in the order of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Persist {
    /// Grows by at least one. Report the highest one that is durable.
    pub number: u64,
    /// To append; an index that is already in the log supersedes it and what follows.
    pub entries: Vec<raftpb::Entry>,
    /// To write after the entries.
    pub hard_state: Option<raftpb::HardState>,
    /// A received snapshot that the log starts from now on; before the entries.
    pub snapshot: Option<raftpb::Snapshot>,
    /// Must it be durable before it is reported? If not (only the commit index moved) a write is enough.
    pub must_sync: bool,
}

/// What this member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows, or waits for somebody to follow.
    #[default]
    Follower,
    /// Asks whether an election could be won, without disturbing anybody.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

impl Role {
    /// From `role as u64`; anything else is a follower.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        [Self::PreCandidate, Self::Candidate, Self::Leader]
            .into_iter()
            .find(|&role| role as u64 == number)
            .unwrap_or(Self::Follower)
    }

    /// As etcd's log names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        }
    }
}

/// A step in a member's career.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleChange {
    /// Now.
    pub role: Role,
    /// Now.
    pub term: u64,
    /// Who leads now; 0 if nobody is known to.
    pub leader: u64,
    /// Who led before.
    pub previous_leader: u64,
    /// Every role taken on the way, with its term: a lone voter becomes leader in one step. Empty if only the leader
    /// became known.
    pub passed: Vec<(Role, u64)>,
}

/// What the core asks for. Effects of one call are to be run in their order; nothing in them waits for another, except as
/// [`Input::Persisted`] says.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// See [`Persist`].
    Persist(Persist),
    /// Hand these to the peers. They may leave at once: what they promise is durable already, because the core held them
    /// back until then.
    Send(Vec<raftpb::Message>),
    /// Apply these, in order. They are committed, and in this member's own log.
    Apply(Vec<raftpb::Entry>),
    /// A received snapshot is durable: the state machine is to be replaced by it. Answer with [`Input::Applied`].
    ApplySnapshot(raftpb::Snapshot),
    /// Reads of every batch up to `batch` may be answered once `index` is applied.
    ReadReady {
        /// The newest confirmed batch.
        batch: u64,
        /// Committed when they were confirmed.
        index: u64,
    },
    /// See [`RoleChange`].
    RoleChanged(RoleChange),
    /// There is no leader to take these now, or leadership is being handed over. They are not in any log.
    Dropped(Vec<Proposal>),
    /// Read these entries from the segments: `from..end`, up to a number of bytes but at least one entry.
    Fetch {
        /// For the answer.
        ticket: u64,
        /// First entry.
        from: u64,
        /// The entry after the last one wanted.
        end: u64,
        /// Bound in bytes.
        max_bytes: u64,
    },
    /// A peer's message was not let in.
    Refused {
        /// Its sender, as it says.
        from: u64,
        /// The reason. If it is broken truth, this member must stop.
        why: Refused,
    },
}
