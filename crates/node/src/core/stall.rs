//! A leader whose disk does not answer.
//!
//! It counts itself only after its sync, but the others may form a quorum without it: then everything commits and yet this
//! member answers nothing, because it applies only what is durable here. When its oldest write is older than an election
//! timeout and a quorum without it is ahead, it hands leadership to the most advanced voter; if that has not happened
//! after another election timeout, it just stops leading. A lone voter has nobody to hand over to.

use super::memory_log::MemoryLog;
use raft::{Raft, StateRole};

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    None,
    /// Hand leadership to this voter.
    Transfer(u64),
    /// Stop leading.
    Resign,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Stall {
    /// When the hand-over was started.
    transfer_at: Option<u64>,
}

impl Stall {
    /// `oldest`: tick of the oldest write that is not durable.
    pub fn tick(
        &mut self,
        now: u64,
        oldest: Option<u64>,
        election_ticks: u64,
        id: u64,
        raft: &Raft<MemoryLog>,
    ) -> Verdict {
        let stalled = raft.state == StateRole::Leader && oldest.is_some_and(|since| now - since > election_ticks);
        let successor = if stalled { successor(id, raft) } else { None };
        let Some(successor) = successor else {
            self.transfer_at = None;
            return Verdict::None;
        };
        match self.transfer_at {
            None => {
                self.transfer_at = Some(now);
                Verdict::Transfer(successor)
            }
            Some(since) if now - since > election_ticks => {
                self.transfer_at = None;
                Verdict::Resign
            }
            Some(_) => Verdict::None,
        }
    }
}

/// The most advanced other voter, if a quorum without this member is durably ahead of it.
fn successor(id: u64, raft: &Raft<MemoryLog>) -> Option<u64> {
    let persisted = raft.raft_log.persisted;
    let voters: Vec<u64> = raft.prs().conf().voters().ids().iter().collect();
    let mut ahead: Vec<(u64, u64)> = voters
        .iter()
        .filter(|&&voter| voter != id)
        .filter_map(|&voter| raft.prs().get(voter).map(|peer| (peer.matched, voter)))
        .filter(|&(matched, _)| matched > persisted)
        .collect();
    ahead.sort_unstable();
    let quorum = voters.len() / 2 + 1;
    if voters.len() < 2 || ahead.len() < quorum {
        return None;
    }
    ahead.last().map(|&(_, voter)| voter)
}
