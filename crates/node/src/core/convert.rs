//! The boundary between our messages (etcd's bytes) and the crate's.
//!
//! Two things differ. ConfChange types clash (2 is "update" for etcd and "add learner" for the crate, 3 unknown to it),
//! and the crate decodes every conf change that a leader is asked to append. So inside the crate each conf change entry
//! carries a fixed, harmless change (`AddNode`, node 0) whose `context` holds etcd's bytes untouched. Wrapping happens on
//! every way in (own proposals, messages of peers, log replay), unwrapping on every way out (log, peers, apply).
//!
//! Everything from outside has passed [`super::validate`] before it comes here, so the conversions cannot fail.

use bytes::Bytes;
use milepost_proto::raftpb;
use protobuf::Message as _;
use raft::eraftpb as inner;

/// An entry of type "conf change" in either numbering.
pub const ENTRY_CONF_CHANGE: i32 = 1;

/// etcd's bytes of a conf change, dressed for the crate.
fn wrap(data: Bytes) -> Bytes {
    let mut shell = inner::ConfChange::default();
    shell.set_change_type(inner::ConfChangeType::AddNode);
    shell.context = data;
    Bytes::from(shell.write_to_bytes().expect("every field is set, and memory does not fail to take bytes"))
}

/// The reverse of [`wrap`]. An entry that the crate emptied itself has no context and gives no bytes.
fn unwrap(data: &Bytes) -> Bytes {
    let mut shell = inner::ConfChange::default();
    shell.merge_from_bytes(data).expect("only `wrap` makes conf change entries");
    shell.context
}

/// An entry on its way into the crate.
pub fn entry_in(entry: &raftpb::Entry) -> inner::Entry {
    let data = entry.data.clone().unwrap_or_default();
    let mut out = inner::Entry { index: entry.index(), term: entry.term(), ..Default::default() };
    if entry.r#type() == ENTRY_CONF_CHANGE {
        out.set_entry_type(inner::EntryType::EntryConfChange);
        out.data = wrap(data);
    } else {
        out.data = data;
    }
    out
}

/// An entry on its way out of the crate.
///
/// Type and data are written as etcd does: the type always, the data only when there is some.
pub fn entry_out(entry: &inner::Entry) -> raftpb::Entry {
    let conf_change = entry.get_entry_type() == inner::EntryType::EntryConfChange;
    let data = if conf_change { unwrap(&entry.data) } else { entry.data.clone() };
    raftpb::Entry {
        term: Some(entry.term),
        index: Some(entry.index),
        r#type: Some(if conf_change { ENTRY_CONF_CHANGE } else { 0 }),
        data: (!data.is_empty()).then_some(data),
    }
}

/// Hard state on its way in.
pub fn hard_state_in(state: &raftpb::HardState) -> inner::HardState {
    inner::HardState { term: state.term(), vote: state.vote(), commit: state.commit(), ..Default::default() }
}

/// Hard state on its way out.
pub fn hard_state_out(state: &inner::HardState) -> raftpb::HardState {
    raftpb::HardState { term: Some(state.term), vote: Some(state.vote), commit: Some(state.commit) }
}

/// A configuration on its way in.
pub fn conf_state_in(state: &raftpb::ConfState) -> inner::ConfState {
    inner::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave(),
        ..Default::default()
    }
}

/// A configuration on its way out, its members sorted: the crate keeps them in hash order.
pub fn conf_state_out(state: &inner::ConfState) -> raftpb::ConfState {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    raftpb::ConfState {
        voters: sorted(&state.voters),
        learners: sorted(&state.learners),
        voters_outgoing: sorted(&state.voters_outgoing),
        learners_next: sorted(&state.learners_next),
        auto_leave: Some(state.auto_leave),
    }
}

/// A Raft snapshot on its way in.
pub fn snapshot_in(snapshot: &raftpb::Snapshot) -> inner::Snapshot {
    let mut out = inner::Snapshot { data: snapshot.data.clone().unwrap_or_default(), ..Default::default() };
    if let Some(metadata) = &snapshot.metadata {
        let inside = out.mut_metadata();
        inside.index = metadata.index();
        inside.term = metadata.term();
        inside.set_conf_state(metadata.conf_state.as_ref().map(conf_state_in).unwrap_or_default());
    }
    out
}

/// A Raft snapshot on its way out.
pub fn snapshot_out(snapshot: &inner::Snapshot) -> raftpb::Snapshot {
    let metadata = snapshot.get_metadata();
    raftpb::Snapshot {
        data: (!snapshot.data.is_empty()).then(|| snapshot.data.clone()),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(conf_state_out(metadata.get_conf_state())),
            index: Some(metadata.index),
            term: Some(metadata.term),
        }),
    }
}

/// The crate's message type of a number on the wire; `None` above 18.
pub fn message_type(number: i32) -> Option<inner::MessageType> {
    <inner::MessageType as protobuf::ProtobufEnum>::from_i32(number)
}

/// A message of a peer on its way in; `None` if its type is unknown.
pub fn message_in(message: &raftpb::Message) -> Option<inner::Message> {
    let mut out = inner::Message {
        to: message.to(),
        from: message.from(),
        term: message.term(),
        log_term: message.log_term(),
        index: message.index(),
        commit: message.commit(),
        reject: message.reject(),
        reject_hint: message.reject_hint(),
        context: message.context.clone().unwrap_or_default(),
        ..Default::default()
    };
    out.set_msg_type(message_type(message.r#type())?);
    out.set_entries(message.entries.iter().map(entry_in).collect());
    if let Some(snapshot) = &message.snapshot {
        out.set_snapshot(snapshot_in(snapshot));
    }
    Some(out)
}

/// A message to a peer on its way out.
///
/// The crate's additions (`commit_term`, priorities) stay behind: etcd does not know them, and between two of ours they
/// are not needed.
pub fn message_out(message: &inner::Message) -> raftpb::Message {
    raftpb::Message {
        r#type: Some(protobuf::ProtobufEnum::value(&message.get_msg_type())),
        to: Some(message.to),
        from: Some(message.from),
        term: Some(message.term),
        log_term: Some(message.log_term),
        index: Some(message.index),
        entries: message.entries.iter().map(entry_out).collect(),
        commit: Some(message.commit),
        snapshot: message.snapshot.as_ref().map(snapshot_out),
        reject: Some(message.reject),
        reject_hint: Some(message.reject_hint),
        context: (!message.context.is_empty()).then(|| message.context.clone()),
    }
}

/// etcd's conf change as one step for the crate; `None` when Raft has nothing to do: an update of addresses, or a change
/// that was refused at apply time (node 0).
pub fn conf_change_in(change: &raftpb::ConfChange) -> Option<inner::ConfChangeV2> {
    let kind = match change.r#type() {
        0 => inner::ConfChangeType::AddNode,
        1 => inner::ConfChangeType::RemoveNode,
        3 => inner::ConfChangeType::AddLearnerNode,
        _ => return None,
    };
    if change.node_id() == 0 {
        return None;
    }
    let mut single = inner::ConfChangeSingle { node_id: change.node_id(), ..Default::default() };
    single.set_change_type(kind);
    let mut out = inner::ConfChangeV2::default();
    out.set_changes(vec![single].into());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::{conf_change_in, entry_in, entry_out, message_in, message_out, message_type};
    use bytes::Bytes;
    use milepost_proto::raftpb;

    #[test]
    fn conf_change_bytes_come_back_untouched() {
        for kind in 0..=3 {
            let data = Bytes::from(vec![0x10, kind, 0xff, 0x00, 0x07]);
            let entry = raftpb::Entry { term: Some(3), index: Some(9), r#type: Some(1), data: Some(data.clone()) };
            let inside = entry_in(&entry);
            assert_ne!(inside.data, data);
            assert_eq!(entry_out(&inside), entry);
        }
    }

    #[test]
    fn messages_survive_the_boundary() {
        for kind in 0..=18 {
            let message = raftpb::Message {
                r#type: Some(kind),
                to: Some(1),
                from: Some(2),
                term: Some(3),
                log_term: Some(4),
                index: Some(5),
                entries: vec![raftpb::Entry {
                    term: Some(3),
                    index: Some(6),
                    r#type: Some(0),
                    data: Some(Bytes::from_static(b"x")),
                }],
                commit: Some(7),
                snapshot: None,
                reject: Some(true),
                reject_hint: Some(8),
                context: Some(Bytes::from_static(b"12345678")),
            };
            assert_eq!(message_out(&message_in(&message).expect("known type")), message);
        }
        assert_eq!(message_type(19), None);
    }

    #[test]
    fn updates_and_refused_changes_are_nothing_to_raft() {
        let change = |kind, node| raftpb::ConfChange { r#type: Some(kind), node_id: Some(node), ..Default::default() };
        assert!(conf_change_in(&change(2, 7)).is_none());
        assert!(conf_change_in(&change(0, 0)).is_none());
        assert!(conf_change_in(&change(3, 7)).is_some());
    }
}
