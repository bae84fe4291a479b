//! The JSON gateway: every call of ours as `POST /v3/…`, for who has HTTP and no gRPC.
//!
//! ```text
//!  path ─► route ─► metadata ─► JSON to protobuf ─► the same call as gRPC's ─► protobuf to JSON
//!         (routes)  (metadata)       (json)            (grpc::answer)              (json)
//! ```
//! Handlers see no difference: the call's checks, limits and counters are those of gRPC. A stream's requests are JSON
//! objects one behind the other in the body, or one per message of a WebSocket (`socket`); its answers are lines.
//!
//! What never happens here: no request is sent to ourselves over a socket, as etcd's gateway does.
//!
//! Source: `facts/http.md` §3.

mod json;
mod lines;
mod metadata;
mod routes;
mod socket;
mod strict;

use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method as HttpMethod, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use self::lines::Objects;
use crate::call::Call;
use crate::config::Limits;
use crate::connection::Connection;
use crate::door::Door;
use crate::grpc::reply::{Reply, ReplyBody};
use crate::grpc::{Accounting, Method, Shape, arrival, wire};
use crate::status::{self, Code, Status};
use crate::workers;

/// JSON may be this many times longer than the message that it says: base64 takes a third more, names of fields the
/// rest. A transaction of many small operations needs five.
const JSON_FACTOR: usize = 8;

/// Longer JSON is translated on a thread of its own: 1 MiB takes about 5 ms.
const SHORT_BYTES: usize = 256 * 1024;

/// Answers a request whose (decoded) path is `path`, below `/v3/`.
pub(crate) async fn serve(
    door: &Rc<Door>,
    connection: &Rc<Connection>,
    path: &str,
    request: Request<Incoming>,
) -> Reply {
    if socket::is_wanted(request.headers()) {
        return socket::open(door, connection, path, request);
    }
    let (head, body) = request.into_parts();
    let (method, call) = match open(path, &head.method, &head.headers) {
        Ok(known) => known,
        Err(status) => return failed(&status),
    };
    match method.names().shape {
        Shape::Unary => match whole(door, &call, body).await {
            Ok(json) => match unary(door, method, call, json).await {
                Ok(json) => done(json),
                Err(status) => failed(&status),
            },
            Err(status) => failed(&status),
        },
        Shape::ServerStream => match whole(door, &call, body).await {
            Ok(json) => lines::serve(door, method, call, Box::new(lines::Single::new(method, &json))).await,
            Err(status) => failed(&status),
        },
        Shape::BidiStream => {
            let objects = Objects::new(method, body, stream_json_max(&door.config.limits));
            lines::serve(door, method, call, Box::new(objects)).await
        }
    }
}

/// Which call, and what its headers say.
fn open(path: &str, verb: &HttpMethod, headers: &HeaderMap) -> Result<(Method, Call), Status> {
    let method = routes::at(path).ok_or(NOT_FOUND)?;
    // A form may ask to be taken for another method; no call has one. Source: grpc-gateway `ServeMux.ServeHTTP`.
    let is_form = headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/x-www-form-urlencoded");
    let wants_other = headers
        .get("x-http-method-override")
        .is_some_and(|verb| !verb.is_empty() && !verb.as_bytes().eq_ignore_ascii_case(b"POST"));
    if verb != HttpMethod::POST || is_form && wants_other {
        return Err(WRONG_METHOD);
    }
    Ok((method, metadata::call(headers, Instant::now())?))
}

const NOT_FOUND: Status = Status::new(Code::NotFound, "Not Found");
const WRONG_METHOD: Status = Status::new(Code::Unimplemented, "Method Not Allowed");

/// One request and its answer, both in JSON.
async fn unary(door: &Rc<Door>, method: Method, call: Call, json: Bytes) -> Result<Bytes, Status> {
    let request = if json.len() <= SHORT_BYTES {
        json::request(method, &json)?
    } else {
        apart(json.len(), move || json::request(method, &json)).await?
    };
    wire::check_received(request.len(), door.config.limits.max_receive_bytes())?;
    let answer = answer(door, method, &call, request).await?;
    let bytes = answer.len();
    let translate = move || {
        let mut json = Vec::with_capacity(answer.len() * 2);
        json::answer(method, answer, &mut json)?;
        Ok(json.into())
    };
    if bytes <= SHORT_BYTES { translate() } else { apart(bytes, translate).await }
}

/// Calls the handler as gRPC would, up to the client's deadline.
async fn answer(door: &Rc<Door>, method: Method, call: &Call, request: Bytes) -> Result<Bytes, Status> {
    if call.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(status::DEADLINE);
    }
    door.metrics.client(NO_VERSION, false);
    let mut accounting = Accounting::start(door, method, call.started);
    let answered = crate::grpc::answer(door, method, call, request, &mut accounting);
    let framed = match call.deadline {
        None => answered.await?,
        // The handlers' own look at it is coarse, and some have none.
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(answered) => answered?,
            Err(_) => return Err(status::DEADLINE),
        },
    };
    Ok(framed.joined().split_off(wire::PREFIX_BYTES))
}

/// The gateway names no version of its clients, as etcd's.
const NO_VERSION: &str = "unknown";

/// Longest JSON of one request.
fn json_max(limits: &Limits) -> usize {
    limits.max_receive_bytes() * JSON_FACTOR
}

/// Longest JSON of one request in a stream, which is translated where it is read: a key in base64, and room for names.
fn stream_json_max(limits: &Limits) -> usize {
    limits.max_receive_bytes() * 2
}

/// The one request of a call, if it comes in time.
async fn whole(door: &Rc<Door>, call: &Call, body: Incoming) -> Result<Bytes, Status> {
    arrival(door, call, async { Some(read(body, json_max(&door.config.limits)).await) }).await
}

/// The whole body.
async fn read(mut body: Incoming, max: usize) -> Result<Bytes, Status> {
    if body.size_hint().lower() > max as u64 {
        return Err(too_long(max));
    }
    let mut all = BytesMut::new();
    loop {
        match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return Ok(all.freeze()),
            Some(Err(why)) => return Err(broken_off(&why)),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if all.len() + data.len() > max {
                    return Err(too_long(max));
                }
                all.put(data);
            }
        }
    }
}

/// The body is no body, or its sender has gone and hears nothing.
fn broken_off(why: &hyper::Error) -> Status {
    Status::with(Code::InvalidArgument, format!("the body of the request cannot be read: {why}"))
}

fn too_long(max: usize) -> Status {
    let text = format!("the JSON of a request may have {max} bytes; send less in one request");
    Status::with(Code::ResourceExhausted, text)
}

/// Bytes that are translated at the same time, over all doors: what JSON is translated into takes several times as much
/// memory.
const AT_ONCE_BYTES: usize = 64 << 20;
static ROOM: Semaphore = Semaphore::const_new(AT_ONCE_BYTES);

/// Translates `bytes` bytes without keeping this core's clients waiting, as soon as there is room.
async fn apart<T: Send + 'static>(
    bytes: usize,
    translate: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let share = u32::try_from(bytes.min(AT_ONCE_BYTES)).expect("64 MiB is less than 4 GiB");
    let room = ROOM.acquire_many(share).await.expect("nobody closes it");
    // Goes along: a translation goes on though nobody waits for it any more.
    workers::apart(move || {
        let _room = room;
        translate()
    })
    .await?
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

fn done(json: Bytes) -> Reply {
    let mut reply = Response::new(ReplyBody::Plain(json));
    reply.headers_mut().insert(CONTENT_TYPE, JSON);
    // The metadata of gRPC's answer, of which this is all.
    reply.headers_mut().insert("grpc-metadata-content-type", GRPC);
    reply
}

fn failed(status: &Status) -> Reply {
    let mut reply = Response::new(ReplyBody::Plain(json::failure(status)));
    *reply.status_mut() = http_status(status.code);
    reply.headers_mut().insert(CONTENT_TYPE, JSON);
    if status.code == Code::Unauthenticated
        && let Ok(why) = HeaderValue::from_str(&status.message)
    {
        reply.headers_mut().insert(WWW_AUTHENTICATE, why);
    }
    reply
}

/// Source: grpc-gateway `HTTPStatusFromCode`.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Canceled => StatusCode::from_u16(499).expect("three digits"),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `facts/http.md` §3, "Errors".
    #[test]
    fn every_code_has_its_http_status() {
        let statuses: Vec<_> = Code::ALL.iter().map(|code| http_status(*code).as_u16()).collect();
        assert_eq!(statuses, [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]);
        let refused = failed(&Status::new(Code::Unauthenticated, "etcdserver: invalid auth token"));
        assert_eq!(refused.headers()[WWW_AUTHENTICATE], "etcdserver: invalid auth token");
    }
}
