//! The Auth service of a cluster whose users and roles are always off.

use std::rc::Rc;

use milepost_machine::Reply;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;

use crate::call::Call;
use crate::door::{Door, confused};
use crate::status::{self, Status};

/// Whether auth is on.
///
/// # Errors
/// As any proposal: etcd asks the log.
pub(crate) async fn status(
    door: &Rc<Door>,
    call: &Call,
    request: pb::AuthStatusRequest,
) -> Result<pb::AuthStatusResponse, Status> {
    match door.propose(call, Request::AuthStatus(request)).await? {
        Reply::AuthStatus(mut response) => {
            door.complete(&mut response.header);
            Ok(response)
        }
        _ => Err(confused("another reply than to a question about auth")),
    }
}

/// No token without auth. Clients that were given a password expect exactly this, and go on without a token.
///
/// # Errors
/// Always.
pub(crate) async fn authenticate(
    _: &Rc<Door>,
    _: &Call,
    _: pb::AuthenticateRequest,
) -> Result<pb::AuthenticateResponse, Status> {
    Err(status::AUTH_NOT_ENABLED)
}
