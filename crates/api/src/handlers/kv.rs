//! The KV service.

use std::rc::Rc;

use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;

use crate::backend::Reply;
use crate::call::Call;
use crate::door::{Door, confused};
use crate::status::Status;

/// Stores one key.
///
/// # Errors
/// `facts/errors.md` §3, Put.
pub(crate) async fn put(door: &Rc<Door>, call: &Call, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
    match door.propose(call, Request::Put(request)).await? {
        Reply::Put(mut response) => {
            door.complete(&mut response.header);
            Ok(response)
        }
        _ => Err(confused("another reply than to a put")),
    }
}

/// Reads keys: after the read barrier, unless the caller does without.
///
/// # Errors
/// `facts/errors.md` §3, Range.
pub(crate) async fn range(door: &Rc<Door>, call: &Call, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
    if !request.serializable {
        door.read_barrier(call).await?;
    }
    let mut response = door.backend.range(&request)?;
    door.complete(&mut response.header);
    Ok(response)
}
