//! etcd's lines about who leads.

use milepost_proto::raftpb;

use crate::core::RoleChange;
use crate::log::{Level, Log};

/// One line per role taken, then one if the leader changed.
pub(crate) fn log_role_change(log: &dyn Log, id: u64, change: &RoleChange) {
    for line in lines(id, change) {
        log.log(Level::Info, Some("raft"), &line, &[]);
    }
}

/// A line about a message that decides who leads, or carries a whole state. The rest would be a line per tick and peer.
pub(crate) fn log_step(log: &dyn Log, verb: &str, message: &raftpb::Message) {
    if !log.is_on(Level::Debug) {
        return;
    }
    let name = match message.r#type() {
        5 => "MsgVote",
        6 => "MsgVoteResp",
        7 => "MsgSnap",
        13 => "MsgTransferLeader",
        14 => "MsgTimeoutNow",
        17 => "MsgPreVote",
        18 => "MsgPreVoteResp",
        _ => return,
    };
    let outcome = if message.reject() { " (rejection)" } else { "" };
    let (from, to, term) = (message.from(), message.to(), message.term());
    let (log_term, index) = (message.log_term(), message.index());
    let line =
        format!("{verb} {name}{outcome} from {from:x} to {to:x} at term {term} [logterm: {log_term}, index: {index}]");
    log.log(Level::Debug, Some("raft"), &line, &[]);
}

fn lines(id: u64, change: &RoleChange) -> Vec<String> {
    let passed = change.passed.iter().map(|(role, term)| format!("{id:x} became {} at term {term}", role.name()));
    let mut lines: Vec<String> = passed.collect();
    let (now, before, term) = (change.leader, change.previous_leader, change.term);
    match (before, now) {
        (before, now) if before == now => {}
        (0, now) => lines.push(format!("raft.node: {id:x} elected leader {now:x} at term {term}")),
        (before, 0) => lines.push(format!("raft.node: {id:x} lost leader {before:x} at term {term}")),
        (before, now) => {
            lines.push(format!("raft.node: {id:x} changed leader from {before:x} to {now:x} at term {term}"))
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::lines;
    use crate::core::{Role, RoleChange};

    #[test]
    fn a_lone_voters_first_election() {
        let change = RoleChange {
            role: Role::Leader,
            term: 2,
            leader: 0x8e9e,
            previous_leader: 0,
            passed: vec![(Role::PreCandidate, 1), (Role::Candidate, 2), (Role::Leader, 2)],
        };
        let expected = [
            "8e9e became pre-candidate at term 1",
            "8e9e became candidate at term 2",
            "8e9e became leader at term 2",
            "raft.node: 8e9e elected leader 8e9e at term 2",
        ];
        assert_eq!(lines(0x8e9e, &change), expected);
    }
}
