//! `/leases` and `/leases/internal`: what followers ask the leader for their clients. Source: etcd `leasehttp`.

use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Incoming;
use milepost_machine::Error;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::{Message, leasepb};
use milepost_types::LeaseId;

use super::Unread;
use crate::door::Door;
use crate::grpc::reply::Reply;
use crate::handlers::lease::{self, Renewed};
use crate::status::{self, Status};

/// Longest request. Source: etcd `maxLeaseHTTPRequestSize`.
const BODY_MAX: usize = 64 * 1024;

/// Renews a lease.
pub(super) async fn renew(door: &Rc<Door>, body: Incoming) -> Reply {
    let request: pb::LeaseKeepAliveRequest = match decode(body).await {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    if let Err(why) = door.catch_up().await {
        return behind(&why);
    }
    match lease::renew_here(door, LeaseId(request.id)).await {
        Ok(Renewed::Ttl(ttl)) => done(&pb::LeaseKeepAliveResponse { header: None, id: request.id, ttl }),
        Ok(Renewed::Unknown) => refuse(StatusCode::NOT_FOUND, UNKNOWN),
        Ok(Renewed::NotPrimary) => refuse(StatusCode::BAD_REQUEST, Error::NotPrimary.text()),
        Err(why) => refuse(StatusCode::BAD_REQUEST, &why.message),
    }
}

/// Tells how long a lease still has.
pub(super) async fn time_to_live(door: &Rc<Door>, body: Incoming) -> Reply {
    let request = match decode::<leasepb::LeaseInternalRequest>(body).await {
        Ok(request) => request.lease_time_to_live_request.unwrap_or_default(),
        Err(refused) => return refused,
    };
    if let Err(why) = door.catch_up().await {
        return behind(&why);
    }
    match lease::look(door, request).await {
        Ok(Ok(response)) if response.granted_ttl == 0 && response.ttl < 0 => refuse(StatusCode::NOT_FOUND, UNKNOWN),
        Ok(Ok(response)) => done(&leasepb::LeaseInternalResponse {
            lease_time_to_live_response: Some(pb::LeaseTimeToLiveResponse {
                header: Some(pb::ResponseHeader::default()),
                ..response
            }),
        }),
        Ok(Err(why)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, why.text()),
        Err(why) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &why.message),
    }
}

/// etcd's text between members for a lease that there is not.
const UNKNOWN: &str = "lease not found";

async fn decode<M: Message + Default>(body: Incoming) -> Result<M, Reply> {
    let body = super::read(body, BODY_MAX).await.map_err(|why| match why {
        Unread::TooLong => refuse(StatusCode::PAYLOAD_TOO_LARGE, "request body too large"),
        Unread::Broken => refuse(StatusCode::BAD_REQUEST, "error reading body"),
    })?;
    M::decode(body).map_err(|_| refuse(StatusCode::BAD_REQUEST, "error unmarshalling request"))
}

fn done(message: &impl Message) -> Reply {
    super::super::page(StatusCode::OK, "application/protobuf", Bytes::from(message.encode_to_vec()))
}

/// The leader itself lacks entries.
fn behind(why: &Status) -> Reply {
    if *why == status::TIMEOUT_APPLY {
        let text = "waiting for node to catch up its applied index has timed out";
        return refuse(StatusCode::REQUEST_TIMEOUT, text);
    }
    refuse(StatusCode::SERVICE_UNAVAILABLE, &why.message)
}

fn refuse(status: StatusCode, text: &str) -> Reply {
    super::super::error(status, format!("{text}\n"))
}
