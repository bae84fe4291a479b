//! What a member is and where it stands, as seen from outside.

use super::effect::{Effect, Role, RoleChange};
use super::{Core, convert};
use bytes::Bytes;
use milepost_proto::raftpb;
use raft::{GetEntriesContext, ProgressState, StateRole};

/// How things stand. Cheap but for the lists of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Current term.
    pub term: u64,
    /// Who got this member's vote in it; 0 for nobody.
    pub vote: u64,
    /// What this member is.
    pub role: Role,
    /// Who leads; 0 if not known.
    pub leader: u64,
    /// Commit index.
    pub committed: u64,
    /// Everything up to here is durable in this member's log.
    pub persisted: u64,
    /// Applied index, as reported.
    pub applied: u64,
    /// Last entry.
    pub last: u64,
    /// First entry that can be sent.
    pub first: u64,
    /// To whom leadership is being handed over; 0 if it is not.
    pub transferee: u64,
    /// Read requests that had to be repeated.
    pub reads_resent: u64,
}

/// A member's log, as the leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The member.
    pub id: u64,
    /// Last index known to match.
    pub matched: u64,
    /// The entry that is sent next.
    pub next: u64,
    /// How it is sent to, in etcd's words: `StateProbe`, `StateReplicate`, `StateSnapshot`.
    pub state: &'static str,
}

/// Everything about Raft that `/debug/vars` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// How things stand.
    pub standing: Standing,
    /// The leader's view of each member's log, sorted by member. Empty elsewhere.
    pub progress: Vec<PeerProgress>,
}

impl Core {
    /// Tells of a new role, term or leader.
    pub(super) fn note_role(&mut self, effects: &mut Vec<Effect>) {
        let raft = &self.node.raft;
        let role = match raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        };
        if (role, raft.term, raft.leader_id) == (self.role, self.term, self.leader) {
            return;
        }
        let change = RoleChange {
            role,
            term: raft.term,
            leader: raft.leader_id,
            previous_leader: self.leader,
            passed: roles_passed((self.role, self.term), (role, raft.term), self.config.pre_vote),
        };
        (self.role, self.term, self.leader) = (role, change.term, change.leader);
        effects.push(Effect::RoleChanged(change));
    }

    /// How things stand.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let raft = &self.node.raft;
        Standing {
            term: raft.term,
            vote: raft.vote,
            role: self.role,
            leader: raft.leader_id,
            committed: raft.raft_log.committed,
            persisted: raft.raft_log.persisted,
            applied: raft.raft_log.applied,
            last: raft.raft_log.last_index(),
            first: self.node.store().first(),
            transferee: raft.lead_transferee.unwrap_or(0),
            reads_resent: self.reads.resent(),
        }
    }

    /// The configuration that Raft works with: sorted ids.
    #[must_use]
    pub fn conf_state(&self) -> raftpb::ConfState {
        convert::conf_state_out(self.node.store().conf_state())
    }

    /// Is this member the whole cluster: the only voter, without learners?
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.node.raft.prs().iter().count() == 1 && self.is_only_voter()
    }

    /// To whom leadership would go best: of the other voters that were heard of lately, else of all of them, the one with
    /// the longest log. And was it heard of? `None` elsewhere than at the leader, or if there is nobody.
    #[must_use]
    pub fn successor(&self) -> Option<(u64, bool)> {
        if self.role != Role::Leader {
            return None;
        }
        let progress = self.node.raft.prs();
        let voters = progress.conf().voters();
        let others = progress.iter().filter(|&(&id, _)| id != self.config.id && voters.contains(id));
        let best = others.map(|(&id, peer)| (peer.recent_active, peer.matched, id)).max();
        best.map(|(is_active, _, id)| (id, is_active))
    }

    /// How many voters there are.
    #[must_use]
    pub fn voters(&self) -> usize {
        self.node.raft.prs().conf().voters().ids().len()
    }

    /// The leader's view of each member's log, sorted by member: (id, last index known to match). Empty elsewhere.
    #[must_use]
    pub fn progress(&self) -> Vec<(u64, u64)> {
        if self.role != Role::Leader {
            return Vec::new();
        }
        let mut progress: Vec<_> = self.node.raft.prs().iter().map(|(&id, peer)| (id, peer.matched)).collect();
        progress.sort_unstable();
        progress
    }

    /// All of it.
    #[must_use]
    pub fn raft_status(&self) -> RaftStatus {
        let mut progress = Vec::new();
        if self.role == Role::Leader {
            let peers = self.node.raft.prs().iter();
            progress.extend(peers.map(|(&id, peer)| PeerProgress {
                id,
                matched: peer.matched,
                next: peer.next_idx,
                state: match peer.state {
                    ProgressState::Probe => "StateProbe",
                    ProgressState::Replicate => "StateReplicate",
                    ProgressState::Snapshot => "StateSnapshot",
                },
            }));
            progress.sort_unstable_by_key(|peer| peer.id);
        }
        RaftStatus { standing: self.standing(), progress }
    }

    /// Term of an entry, as far as this member remembers.
    #[must_use]
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.node.raft.raft_log.term(index).ok().filter(|&term| term != 0)
    }

    /// The entry at `index` if it is in memory.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<(u64, Bytes)> {
        let log = &self.node.raft.raft_log;
        let entries = log.slice(index, index + 1, None, GetEntriesContext::empty(true)).ok()?;
        let entry = convert::entry_out(entries.first()?);
        Some((entry.term(), entry.data.unwrap_or_default()))
    }
}

/// Which roles lie between two observations, for the log: the crate may pass through several in one step.
fn roles_passed(from: (Role, u64), to: (Role, u64), pre_vote: bool) -> Vec<(Role, u64)> {
    if from == to {
        return Vec::new();
    }
    let mut passed = Vec::new();
    let stands = matches!(to.0, Role::Candidate | Role::Leader);
    let elected_from = matches!(from.0, Role::Candidate) && from.1 == to.1;
    if stands && !elected_from {
        if pre_vote && from.0 != Role::PreCandidate {
            passed.push((Role::PreCandidate, to.1.saturating_sub(1)));
        }
        passed.push((Role::Candidate, to.1));
    }
    if passed.last() != Some(&to) {
        passed.push(to);
    }
    passed
}
