//! Letters on their way: they are lost, late, doubled, overtaken, and cut off.

use crate::rng::Rng;
use milepost_machine::Membership;
use milepost_node::{Letters, SnapshotLetter};
use milepost_proto::raftpb;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Type numbers of messages.
pub const PROPOSE: i32 = 2;

/// What a member has handed over and the network has not taken yet.
#[derive(Default)]
pub struct Outbox {
    messages: Mutex<Vec<raftpb::Message>>,
    snapshots: Mutex<Vec<SnapshotLetter>>,
    members: Mutex<Option<Arc<Membership>>>,
    /// Who has written to it in this life.
    heard: Mutex<BTreeSet<u64>>,
}

impl Outbox {
    /// Takes everything out.
    pub fn take(&self) -> Vec<raftpb::Message> {
        std::mem::take(&mut self.messages.lock())
    }

    /// Takes the snapshots out.
    pub fn take_snapshots(&self) -> Vec<SnapshotLetter> {
        std::mem::take(&mut self.snapshots.lock())
    }

    /// This member has written: a transport learns from its letter where it is.
    pub fn hears_of(&self, id: u64) {
        self.heard.lock().insert(id);
    }

    /// Is there a way to this member: has the cluster it, as far as the owner knows, or has it written?
    pub fn knows(&self, id: u64) -> bool {
        if self.has_removed(id) {
            return false;
        }
        self.heard.lock().contains(&id)
            || self
                .members
                .lock()
                .as_ref()
                .is_some_and(|membership| membership.members.keys().any(|member| member.0 == id))
    }

    /// Has it removed this one?
    pub fn has_removed(&self, id: u64) -> bool {
        self.members.lock().as_ref().is_some_and(|membership| membership.removed.iter().any(|member| member.0 == id))
    }
}

impl Letters for Outbox {
    fn send(&self, messages: Vec<raftpb::Message>) {
        self.messages.lock().extend(messages);
    }

    fn send_snapshot(&self, letter: SnapshotLetter) {
        self.snapshots.lock().push(letter);
    }

    fn set_members(&self, membership: Arc<Membership>) {
        *self.members.lock() = Some(membership);
    }
}

/// How bad the network is.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// Of a thousand letters so many are lost.
    pub lost: u64,
    /// So many come twice.
    pub doubled: u64,
    /// So many take much longer than the others.
    pub late: u64,
    /// The usual time under way is up to this, in microseconds.
    pub delay: u64,
    /// From whom to whom nothing gets through.
    pub cut: BTreeSet<(u64, u64)>,
}

/// What becomes of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody sees it again.
    Lost,
    /// It could not even be sent: the sender knows.
    Refused,
    /// It comes after so many microseconds, and perhaps again later.
    Comes(u64, Option<u64>),
}

impl Weather {
    /// Draws the fate of a letter.
    pub fn fate(&self, message: &raftpb::Message, rng: &mut Rng) -> Fate {
        if self.cut.contains(&(message.from(), message.to())) {
            return if rng.chance(1, 4) { Fate::Refused } else { Fate::Lost };
        }
        if rng.chance(self.lost, 1000) {
            return if rng.chance(1, 8) { Fate::Refused } else { Fate::Lost };
        }
        let first = self.delay(rng);
        // A stream does not repeat a request: a proposal that came twice would be carried out twice, in etcd, too.
        let doubled = message.r#type() != PROPOSE && rng.chance(self.doubled, 1000);
        Fate::Comes(first, doubled.then(|| first + self.delay(rng)))
    }

    fn delay(&self, rng: &mut Rng) -> u64 {
        let usual = 20 + rng.below(self.delay);
        if rng.chance(self.late, 1000) { usual + rng.below(400_000) } else { usual }
    }
}
