//! Pages of the peer port: what members ask each other outside of Raft.
//!
//! Never 403 or 410 from here: an etcd member reads those as "I was removed" and stops. Source: etcd
//! `etcdhttp.newPeerHandler`; `facts/peer-protocol.md` §3.

mod hashkv;
mod leases;
mod members;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::HeaderValue;
use http::{Method, Request, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use milepost_types::ClusterId;

use super::query::Query;
use crate::call::Call;
use crate::connection::Connection;
use crate::door::Door;
use crate::grpc::reply::{Reply, ReplyBody};

/// Answers another member.
pub(super) async fn serve(door: &Rc<Door>, connection: &Connection, request: Request<Incoming>) -> Reply {
    let path = request.uri().path();
    if path == "/raft" || path.starts_with("/raft/") {
        let Some(service) = &door.config.peer_service else {
            return super::error(StatusCode::SERVICE_UNAVAILABLE, "this member is not ready for other members\n");
        };
        return service(request, Arc::clone(&connection.hang_up)).await.map(ReplyBody::Peer);
    }
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let verb = match path {
        "/version" => return super::route(door, path, &Query::parse(""), &head.method, &head.headers).await,
        "/members" | "/members/hashkv" | "/downgrade/enabled" => Method::GET,
        "/leases" | "/leases/internal" => Method::POST,
        _ if path.starts_with(members::PROMOTE) => Method::POST,
        _ => return super::not_found(),
    };
    if head.method != verb {
        return super::only(if verb == Method::GET { "GET" } else { "POST" });
    }
    match path {
        "/members" => named(door, members::list(door)),
        "/members/hashkv" => hashkv::page(door, &head.headers, body).await,
        "/downgrade/enabled" => named(door, downgrade_enabled(door).await),
        "/leases" => leases::renew(door, body).await,
        "/leases/internal" => leases::time_to_live(door, body).await,
        _ => named(door, members::promote(door, path).await),
    }
}

/// Is the cluster being downgraded? Asked by members that want to join.
async fn downgrade_enabled(door: &Rc<Door>) -> Reply {
    match door.read_barrier(&Call::internal(Instant::now())).await {
        Ok(()) => {
            let text = if door.reader().cluster().downgrade.enabled { "true" } else { "false" };
            super::page(StatusCode::OK, "text/plain", text)
        }
        Err(why) => {
            let text = format!("failed linearized read: {}\n", why.message);
            super::error(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

/// The header by which members tell clusters apart.
const CLUSTER_ID: &str = "x-etcd-cluster-id";

/// The same reply, saying which cluster it is from.
fn named(door: &Door, mut reply: Reply) -> Reply {
    let id = ClusterId(door.backend.standing().cluster_id).to_string();
    if let Ok(id) = HeaderValue::try_from(id) {
        reply.headers_mut().insert(CLUSTER_ID, id);
    }
    reply
}

/// Why a body was not read.
enum Unread {
    TooLong,
    Broken,
}

/// The whole body, of at most `max` bytes.
async fn read(mut body: Incoming, max: usize) -> Result<Bytes, Unread> {
    let mut all = BytesMut::new();
    loop {
        match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return Ok(all.freeze()),
            Some(Err(_)) => return Err(Unread::Broken),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if all.len() + data.len() > max {
                    return Err(Unread::TooLong);
                }
                all.put(data);
            }
        }
    }
}
