//! `/debug/vars`: the command line, limits, memory, and how Raft stands, in one JSON object.

use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use milepost_node::Role;

use super::kernel::bytes_of;
use crate::backend::RaftStatus;
use crate::door::Door;
use crate::grpc::reply::Reply;
use crate::metrics;

/// A member that does not say how it stands in this time is stopping.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn page(door: &Rc<Door>) -> Reply {
    let (tell, told) = tokio::sync::oneshot::channel();
    // Whoever asked may have given up.
    door.backend.raft_status(Box::new(move |status| drop(tell.send(status))));
    let raft = match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(status)) => raft(door.backend.standing().member_id, &status),
        _ => "null".into(),
    };
    let cmdline = serde_json::Value::from(super::words());
    let descriptors = metrics::descriptors_max();
    // Of Go's numbers those that have a meaning here: what the kernel has given, and how much of it is no file.
    let (sys, heap, stack) = (bytes_of("VmRSS"), bytes_of("RssAnon"), bytes_of("VmStk"));
    let memstats = format!(r#"{{"Sys":{sys},"HeapInuse":{heap},"StackInuse":{stack}}}"#);
    let json = format!(
        "{{\n\"cmdline\": {cmdline},\n\"file_descriptor_limit\": {descriptors},\n\"memstats\": {memstats},\n\"raft.status\": {raft}\n}}\n"
    );
    super::super::page(StatusCode::OK, "application/json; charset=utf-8", json)
}

/// As raft's own JSON: ids in hexadecimal, as texts.
fn raft(id: u64, status: &RaftStatus) -> String {
    let standing = &status.standing;
    let role = match standing.role {
        Role::Follower => "StateFollower",
        Role::PreCandidate => "StatePreCandidate",
        Role::Candidate => "StateCandidate",
        Role::Leader => "StateLeader",
    };
    let (term, vote, commit, lead, applied) =
        (standing.term, standing.vote, standing.committed, standing.leader, standing.applied);
    let mut progress = String::new();
    for peer in &status.progress {
        let comma = if progress.is_empty() { "" } else { "," };
        let (id, matched, next, state) = (peer.id, peer.matched, peer.next, peer.state);
        write!(progress, r#"{comma}"{id:x}":{{"match":{matched},"next":{next},"state":"{state}"}}"#)
            .expect("a String takes everything");
    }
    format!(
        r#"{{"id":"{id:x}","term":{term},"vote":"{vote:x}","commit":{commit},"lead":"{lead:x}","raftState":"{role}","applied":{applied},"progress":{{{progress}}},"leadtransferee":"{:x}"}}"#,
        standing.transferee
    )
}

#[cfg(test)]
mod tests {
    use milepost_node::core::{PeerProgress, Standing};

    use super::*;

    /// As etcd 3.7.1 prints it.
    #[test]
    fn raft_is_told_in_etcds_words() {
        let peer = |id| PeerProgress { id, matched: 6, next: 7, state: "StateReplicate" };
        let standing = Standing {
            term: 2,
            vote: 0xbd,
            role: Role::Leader,
            leader: 0xbd,
            committed: 6,
            applied: 5,
            ..Standing::default()
        };
        let status = RaftStatus { standing, progress: vec![peer(0xbd), peer(0xce)] };
        let text = r#"{"id":"bd","term":2,"vote":"bd","commit":6,"lead":"bd","raftState":"StateLeader","applied":5,"progress":{"bd":{"match":6,"next":7,"state":"StateReplicate"},"ce":{"match":6,"next":7,"state":"StateReplicate"}},"leadtransferee":"0"}"#;
        assert_eq!(raft(0xbd, &status), text);
    }
}
