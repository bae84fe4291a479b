//! The Cluster service. Its headers carry no revision.

use std::rc::Rc;

use milepost_proto::etcdserverpb as pb;

use crate::call::Call;
use crate::door::Door;
use crate::status::Status;

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
