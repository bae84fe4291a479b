//! `/members` and `/members/promote/<decimal id>`.

use std::rc::Rc;
use std::time::Instant;

use http::StatusCode;
use milepost_machine::Member;
use milepost_node::log::Value;
use milepost_proto::etcdserverpb as pb;
use milepost_types::MemberId;

use crate::call::Call;
use crate::door::Door;
use crate::grpc::reply::Reply;
use crate::handlers::promote;
use crate::status;

/// What stands before the id of the learner.
pub(super) const PROMOTE: &str = "/members/promote/";

/// The members that this one knows, sorted by id.
pub(super) fn list(door: &Door) -> Reply {
    let membership = door.reader().membership();
    let members: Vec<Vec<u8>> = membership.members.values().map(Member::to_json).collect();
    super::super::page(StatusCode::OK, "application/json", array(&members))
}

/// Promotes a learner for a member that does not lead.
pub(super) async fn promote(door: &Rc<Door>, path: &str) -> Reply {
    let text = path.strip_prefix(PROMOTE).unwrap_or_default();
    let Some(id) = decimal(text) else {
        return super::super::error(StatusCode::NOT_FOUND, format!("member {text} not found in cluster\n"));
    };
    let why = match promote::promote(door, &Call::internal(Instant::now()), id).await {
        Ok(members) => {
            let members: Vec<Vec<u8>> = members.into_iter().map(|member| from_wire(member).to_json()).collect();
            return super::super::page(StatusCode::OK, "application/json", array(&members));
        }
        Err(why) => why,
    };
    let fields = [("member-id", Value::from(id.to_string())), ("error", Value::from(&*why.message))];
    door.config.log.warn("failed to promote a member", &fields);
    let refused = |status, text: &str| super::super::error(status, format!("{text}\n"));
    // A match of constants needs a derived equality that Cow does not have.
    if why == status::MEMBER_NOT_FOUND {
        refused(StatusCode::NOT_FOUND, promote::NOT_FOUND)
    } else if why == status::NOT_LEARNER {
        refused(StatusCode::PRECONDITION_FAILED, promote::NOT_LEARNER)
    } else if why == status::LEARNER_NOT_READY {
        refused(StatusCode::PRECONDITION_FAILED, &why.message)
    } else {
        // As etcd: the asking member tries again until its own time is over.
        let json = r#"{"message":"Internal Server Error"}"#;
        super::super::page(StatusCode::INTERNAL_SERVER_ERROR, "application/json", json)
    }
}

/// An id as Go's `ParseUint` reads it: no sign.
fn decimal(text: &str) -> Option<MemberId> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten().map(MemberId)
}

fn from_wire(member: pb::Member) -> Member {
    Member {
        id: MemberId(member.id),
        peer_urls: member.peer_ur_ls,
        is_learner: member.is_learner,
        name: member.name,
        client_urls: member.client_ur_ls,
    }
}

/// A JSON array as Go's encoder ends it: with a newline.
fn array(members: &[Vec<u8>]) -> Vec<u8> {
    [b"[".as_slice(), &members.join(b",".as_slice()), b"]\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_decimal_and_unsigned() {
        assert_eq!(decimal("18446744073709551615"), Some(MemberId(u64::MAX)));
        for bad in ["", "+1", "-1", "18446744073709551616", "ff", "1/2"] {
            assert_eq!(decimal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn arrays_are_gos() {
        let member = Member { id: MemberId(7), peer_urls: vec!["http://a:1".into()], ..Member::default() };
        let text = array(&[member.to_json(), member.to_json()]);
        let one = r#"{"id":7,"peerURLs":["http://a:1"]}"#;
        assert_eq!(String::from_utf8(text).unwrap(), format!("[{one},{one}]\n"));
        assert_eq!(array(&[]), b"[]\n");
    }
}
