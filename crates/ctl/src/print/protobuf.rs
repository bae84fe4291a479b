//! `--write-out=protobuf`: the answer's bytes, and no newline.

use milepost_proto::Message;
use milepost_proto::etcdserverpb as pb;

use super::Answer;

pub(super) fn render(answer: Answer<'_>) -> Option<Vec<u8>> {
    Some(match answer {
        Answer::Put(answer) => answer.encode_to_vec(),
        Answer::Get(answer) => answer.encode_to_vec(),
        Answer::Del(answer) => answer.encode_to_vec(),
        Answer::Txn(answer) => answer.encode_to_vec(),
        Answer::Watch(answer) => watch(answer),
        // etcdctl hands its own wrapper of these to protobuf, which sees nothing of it but the header inside.
        Answer::Grant(answer) => header(&answer.header),
        Answer::KeepAlive(answer) => header(&answer.header),
        Answer::TimeToLive(answer, _) => header(&answer.header),
        Answer::Leases(answer) => header(&answer.header),
        Answer::Alarm(answer) => answer.encode_to_vec(),
        Answer::MemberAdd(answer) => answer.encode_to_vec(),
        Answer::MemberRemove(_, answer) => answer.encode_to_vec(),
        Answer::MemberUpdate(_, answer) => answer.encode_to_vec(),
        Answer::MemberPromote(_, answer) => answer.encode_to_vec(),
        Answer::MemberList(answer) => answer.encode_to_vec(),
        // etcdctl hands this one over in a type that protobuf does not know.
        Answer::Revoke(..) => return None,
        Answer::EndpointHealth(_) | Answer::EndpointStatus(_) | Answer::EndpointHashKv(_) => return None,
        Answer::MoveLeader(_, _, answer) => answer.encode_to_vec(),
        Answer::Downgrade(_, answer) => answer.encode_to_vec(),
        Answer::AuthStatus(answer) => answer.encode_to_vec(),
        Answer::RoleAdd(_, answer) => answer.encode_to_vec(),
        Answer::RoleGet(_, answer) => answer.encode_to_vec(),
        Answer::RoleDelete(_, answer) => answer.encode_to_vec(),
        Answer::RoleList(answer) => answer.encode_to_vec(),
        Answer::RoleGrant(_, answer) => answer.encode_to_vec(),
        Answer::RoleRevoke(_, _, _, answer) => answer.encode_to_vec(),
        Answer::UserAdd(_, answer) => answer.encode_to_vec(),
        Answer::UserGet(_, answer) => answer.encode_to_vec(),
        Answer::UserList(answer) => answer.encode_to_vec(),
        Answer::UserPasswd(answer) => answer.encode_to_vec(),
        Answer::UserGrantRole(_, _, answer) => answer.encode_to_vec(),
        Answer::UserRevokeRole(_, _, answer) => answer.encode_to_vec(),
        Answer::UserDelete(_, answer) => answer.encode_to_vec(),
    })
}

fn header(header: &Option<pb::ResponseHeader>) -> Vec<u8> {
    header.unwrap_or_default().encode_to_vec()
}

/// etcdctl rebuilds the message, without the watch's id and the reason of a cancellation.
fn watch(answer: &pb::WatchResponse) -> Vec<u8> {
    let shown = pb::WatchResponse { watch_id: 0, cancel_reason: String::new(), fragment: false, ..answer.clone() };
    shown.encode_to_vec()
}
