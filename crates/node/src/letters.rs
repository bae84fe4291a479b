//! The way to other members, as the node needs it.

use milepost_machine::Membership;
use milepost_proto::raftpb;
use std::io;
use std::sync::Arc;

/// Takes messages to other members. Nothing in it may block: what cannot be sent is dropped and reported with
/// [`crate::Node::report_unreachable`].
pub trait Letters: Send + Sync {
    /// Sends these, in the order in which they were made. Snapshots are never among them.
    fn send(&self, messages: Vec<raftpb::Message>);

    /// Sends a snapshot with its database, on a thread of its own; its end is told by
    /// [`crate::Node::report_snapshot`], whatever it is.
    fn send_snapshot(&self, letter: SnapshotLetter);

    /// Who is in the cluster from now on, this member included, and who never will be again: told at the start and at
    /// each change, before the first message to a new member.
    fn set_members(&self, membership: Arc<Membership>);
}

/// A Raft snapshot and what belongs to it.
pub struct SnapshotLetter {
    /// `MsgSnap`; its metadata are of the same index as the database, its data is the v2 store.
    pub message: raftpb::Message,
    /// Length of the database.
    pub total_bytes: u64,
    /// The database, a bbolt file.
    pub body: Box<dyn SnapshotBody>,
}

/// What writes itself once. While it lives, compaction deletes nothing.
pub trait SnapshotBody: Send {
    /// Writes all of it; may wait for `out` as long as it must.
    ///
    /// # Errors
    /// Those of `out` or of the store: what was written is worth nothing then.
    fn write(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()>;
}

/// A lone member has nobody to write to; what it would send to members it does not reach is dropped.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLetters;

impl Letters for NoLetters {
    fn send(&self, _messages: Vec<raftpb::Message>) {}

    fn send_snapshot(&self, _letter: SnapshotLetter) {}

    fn set_members(&self, _membership: Arc<Membership>) {}
}
