//! The Cluster service. Its headers carry no revision.

use std::rc::Rc;
use std::time::SystemTime;

use milepost_machine::{Member, member};
use milepost_proto::etcdserverpb as pb;
use milepost_types::{MemberId, url};

use crate::call::Call;
use crate::door::Door;
use crate::handlers::{promote, reconfig};
use crate::status::{self, Status};

/// The members, sorted by id; `linearizable` asks for the newest list.
///
/// # Errors
/// No confirmation in time.
pub(crate) async fn member_list(
    door: &Rc<Door>,
    call: &Call,
    request: pb::MemberListRequest,
) -> Result<pb::MemberListResponse, Status> {
    if request.linearizable {
        door.read_barrier(call).await?;
    }
    Ok(pb::MemberListResponse { header: door.header(0), members: door.reader().members() })
}

/// Adds a voter or a learner. Its id is made of its URLs and the time.
///
/// # Errors
/// URLs that are none, a change that would cost the quorum, and what the members say when it is applied.
pub(crate) async fn member_add(
    door: &Rc<Door>,
    call: &Call,
    request: pb::MemberAddRequest,
) -> Result<pb::MemberAddResponse, Status> {
    let peer_urls = urls(&request.peer_ur_ls)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let id = member::member_id(&peer_urls, "", Some(now));
    let added = Member { id, peer_urls, is_learner: request.is_learner, ..Member::default() };
    reconfig::may_add(door, &added)?;
    reconfig::warn_of_new_voter(door, &added);
    let members = door.propose_change(call, |request| member::add(request, &added)).await?;
    let member = pb::Member {
        id: added.id.0,
        peer_ur_ls: added.peer_urls,
        is_learner: added.is_learner,
        ..pb::Member::default()
    };
    Ok(pb::MemberAddResponse { header: door.header(0), member: Some(member), members })
}

/// At least one URL, each good, sorted. Source: etcd `types.NewURLs`.
fn urls(given: &[String]) -> Result<Vec<String>, Status> {
    let good: Result<Vec<_>, _> = given.iter().map(|text| url::url(text).map(|url| url.as_str().to_owned())).collect();
    match good {
        Ok(mut urls) if !urls.is_empty() => {
            urls.sort();
            Ok(urls)
        }
        _ => Err(status::BAD_MEMBER_URLS),
    }
}

/// Removes a member for good.
///
/// # Errors
/// A change that would cost the quorum, and what the members say when it is applied.
pub(crate) async fn member_remove(
    door: &Rc<Door>,
    call: &Call,
    request: pb::MemberRemoveRequest,
) -> Result<pb::MemberRemoveResponse, Status> {
    let id = MemberId(request.id);
    reconfig::may_remove(door, id)?;
    let members = door.propose_change(call, |request| member::remove(request, id)).await?;
    Ok(pb::MemberRemoveResponse { header: door.header(0), members })
}

/// Gives a member other peer URLs. They are not looked at, as in etcd.
///
/// # Errors
/// What the members say when it is applied.
pub(crate) async fn member_update(
    door: &Rc<Door>,
    call: &Call,
    request: pb::MemberUpdateRequest,
) -> Result<pb::MemberUpdateResponse, Status> {
    let (id, peer_urls) = (MemberId(request.id), request.peer_ur_ls);
    let members = door.propose_change(call, |request| member::update(request, id, peer_urls)).await?;
    Ok(pb::MemberUpdateResponse { header: door.header(0), members })
}

/// Gives a learner its vote.
///
/// # Errors
/// See [`promote::promote`].
pub(crate) async fn member_promote(
    door: &Rc<Door>,
    call: &Call,
    request: pb::MemberPromoteRequest,
) -> Result<pb::MemberPromoteResponse, Status> {
    let members = promote::promote(door, call, MemberId(request.id)).await?;
    Ok(pb::MemberPromoteResponse { header: door.header(0), members })
}
