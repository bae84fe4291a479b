//! One HTTP/2 request becomes a call of one method.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method as HttpMethod, Request, StatusCode};
use hyper::body::Incoming;
use milepost_machine::is_list;
use milepost_proto::Message;
use milepost_proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::reply::{self, Reply, ReplyBody, StreamBody};
use super::stream::{Accounting, Driven, Inlet, Requests};
use super::wire::{self, Framed, Messages};
use super::{Method, Shape, slow};
use crate::call::{self, Call};
use crate::door::Door;
use crate::handlers::{auth, cluster, election, health, kv, later, lease, lock, maintenance, reign, snapshot, watch};
use crate::status::{self, Code, Status};
use crate::workers;

/// How a request begins: read from its head alone, before anything is waited for.
pub(crate) enum Opening {
    /// The head says enough.
    Refused(Reply),
    /// One message, one answer.
    Unary(Unary),
    /// Rarer: boxed, so that its state does not weigh on every put.
    Rare(Pin<Box<dyn Future<Output = Reply>>>),
}

/// Looks at the head of `request`.
pub(crate) fn open(door: &Rc<Door>, request: Request<Incoming>) -> Opening {
    let (method, call) = match head(&request) {
        Ok(known) => known,
        Err(refused) => return Opening::Refused(refused.answer()),
    };
    let is_stream = method.names().shape != Shape::Unary;
    door.metrics.client(call::api_version(request.headers()).unwrap_or("unknown"), is_stream);
    let accounting = Accounting::start(door, method, call.started);
    let messages = Messages::new(request.into_body(), door.config.limits.max_receive_bytes());
    if is_stream {
        let door = Rc::clone(door);
        Opening::Rare(Box::pin(async move {
            match open_stream(&door, method, call, Box::new(messages), accounting).await {
                Ok(body) => reply::ok(ReplyBody::Stream(body)),
                Err(status) => reply::failed(&status),
            }
        }))
    } else {
        Opening::Unary(Unary { door: Rc::clone(door), method, call, messages, accounting })
    }
}

/// A head that is no call of ours.
struct Refusal {
    http: StatusCode,
    status: Status,
}

impl Refusal {
    const fn new(http: StatusCode, status: Status) -> Self {
        Self { http, status }
    }

    fn answer(self) -> Reply {
        reply::refused(self.http, &self.status)
    }
}

fn head(request: &Request<Incoming>) -> Result<(Method, Call), Refusal> {
    let content_type = request.headers().get(http::header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if !is_grpc(content_type) {
        let text = format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(content_type));
        let status = Status::with(Code::InvalidArgument, text);
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, status));
    }
    if request.method() != HttpMethod::POST {
        let verb = request.method().as_str();
        let text = format!("Received a HEADERS frame with :method {verb:?} which should be POST");
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Status::with(Code::Internal, text)));
    }
    let path = request.uri().path();
    let unknown = || Refusal::new(StatusCode::OK, Status::with(Code::Unimplemented, Method::unknown(path)));
    let method = Method::at(path).ok_or_else(unknown)?;
    wire::check_encoding(request.headers()).map_err(|status| Refusal::new(StatusCode::OK, status))?;
    let call = Call::from_headers(request.headers(), Instant::now())
        .map_err(|status| Refusal::new(StatusCode::BAD_REQUEST, status))?;
    if call.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(Refusal::new(StatusCode::OK, status::DEADLINE));
    }
    Ok((method, call))
}

/// `application/grpc`, alone or with a subtype behind `+` or `;`. Source: grpc-go `ContentSubtype`.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A unary call under way. Its future borrows it: what is waited in is moved as little as possible.
pub(crate) struct Unary {
    door: Rc<Door>,
    method: Method,
    call: Call,
    messages: Messages<Incoming>,
    accounting: Accounting,
}

impl Unary {
    /// Reads the request and answers it.
    pub(crate) async fn answer(&mut self) -> Reply {
        let (door, method) = (&self.door, self.method);
        let request = match arrival(door, &self.call, self.messages.next()).await {
            Ok(request) => request,
            Err(status) => return fail(&mut self.accounting, &status),
        };
        match answer(door, method, &self.call, request, &mut self.accounting).await {
            Ok(body) => reply::ok(ReplyBody::Unary(body)),
            Err(status) => reply::failed(&status),
        }
    }
}

/// Answers one encoded request with one framed message, and counts both.
///
/// # Errors
/// Bytes that are not this request, or what the handler refuses.
pub(crate) async fn answer(
    door: &Rc<Door>,
    method: Method,
    call: &Call,
    request: Bytes,
    accounting: &mut Accounting,
) -> Result<Framed, Status> {
    let asked = request.clone();
    door.metrics.received(method, asked.len());
    let result = handle(door, method, call, request).await;
    let (code, response_bytes) = match &result {
        Ok(body) => (Code::Ok, body.len() - wire::PREFIX_BYTES),
        Err(status) => (status.code, 0),
    };
    let took = accounting.finish(code);
    door.metrics.requests[method as usize][usize::from(code == Code::Ok)].observe(took);
    door.note_slow(took, || slow::report(method, took, &asked, result.as_ref().ok()));
    if result.is_ok() {
        door.metrics.sent(method, 1, response_bytes);
    }
    result
}

fn fail(accounting: &mut Accounting, status: &Status) -> Reply {
    accounting.finish(status.code);
    reply::failed(status)
}

/// Lists of more keys are encoded on a thread of their own: 100 MB take 50 ms.
const SHORT_LIST_KEYS: usize = 1000;

async fn encode_list(list: RangeResponse) -> Result<Bytes, Status> {
    if list.kvs.len() <= SHORT_LIST_KEYS { wire::encode(&list) } else { encode_long(list).await }
}

/// Other answers of more bytes are, too: transactions and deletions return lists as well.
const SHORT_BYTES: usize = 1 << 20;

async fn encode_long<A: Message + 'static>(answer: A) -> Result<Bytes, Status> {
    workers::apart(move || wire::encode(&answer)).await?
}

/// Decodes, admits, asks the handler, encodes.
async fn ask<Q, A>(
    door: &Rc<Door>,
    call: &Call,
    request: Bytes,
    handler: impl AsyncFnOnce(&Rc<Door>, &Call, Q) -> Result<A, Status>,
) -> Result<Bytes, Status>
where
    Q: Message + Default,
    A: Message + 'static,
{
    let request = wire::decode(request)?;
    door.admit(call, false)?;
    let answer = handler(door, call, request).await?;
    if answer.encoded_len() <= SHORT_BYTES { wire::encode(&answer) } else { encode_long(answer).await }
}

async fn handle(door: &Rc<Door>, method: Method, call: &Call, request: Bytes) -> Result<Framed, Status> {
    match method {
        Method::Put => ask(door, call, request, kv::put).await.map(Framed::from),
        Method::Range => {
            let request: RangeRequest = wire::decode(request)?;
            door.admit(call, request.serializable)?;
            if is_list(&request) {
                return Box::pin(kv::list(door, call, request)).await;
            }
            encode_list(kv::range(door, call, request).await?).await.map(Framed::from)
        }
        // The rest is rarer: boxed, so that its state does not weigh on every put.
        _ => Box::pin(handle_rare(door, method, call, request)).await.map(Framed::from),
    }
}

async fn handle_rare(door: &Rc<Door>, method: Method, call: &Call, request: Bytes) -> Result<Bytes, Status> {
    match method {
        Method::Put | Method::Range => unreachable!("answered by the caller"),
        Method::Txn => ask(door, call, request, kv::txn).await,
        Method::DeleteRange => ask(door, call, request, kv::delete_range).await,
        Method::Compact => ask(door, call, request, kv::compact).await,
        Method::LeaseGrant => ask(door, call, request, lease::grant).await,
        Method::LeaseRevoke => ask(door, call, request, lease::revoke).await,
        Method::LeaseTimeToLive => ask(door, call, request, lease::time_to_live).await,
        Method::LeaseLeases => ask(door, call, request, lease::leases).await,
        Method::MemberAdd => ask(door, call, request, cluster::member_add).await,
        Method::MemberRemove => ask(door, call, request, cluster::member_remove).await,
        Method::MemberUpdate => ask(door, call, request, cluster::member_update).await,
        Method::MemberPromote => ask(door, call, request, cluster::member_promote).await,
        Method::MemberList => ask(door, call, request, cluster::member_list).await,
        Method::Alarm => ask(door, call, request, maintenance::alarm).await,
        Method::Status => {
            let request = wire::decode(request)?;
            door.admit(call, true)?;
            wire::encode(&maintenance::status(door, call, request).await?)
        }
        Method::HashKv => ask(door, call, request, maintenance::hash_kv).await,
        Method::Defragment => ask(door, call, request, maintenance::defragment).await,
        Method::MoveLeader => ask(door, call, request, reign::move_leader).await,
        Method::Downgrade => ask(door, call, request, reign::downgrade).await,
        Method::Hash => ask(door, call, request, maintenance::hash).await,
        Method::AuthStatus => ask(door, call, request, auth::status).await,
        Method::Authenticate => ask(door, call, request, auth::authenticate).await,
        Method::Lock => ask(door, call, request, lock::lock).await,
        Method::Unlock => ask(door, call, request, lock::unlock).await,
        Method::Campaign => ask(door, call, request, election::campaign).await,
        Method::Proclaim => ask(door, call, request, election::proclaim).await,
        Method::Leader => ask(door, call, request, election::leader).await,
        Method::Resign => ask(door, call, request, election::resign).await,
        Method::HealthCheck => ask(door, call, request, health::check).await,
        Method::HealthList => ask(door, call, request, health::list).await,
        _ => {
            door.admit(call, false)?;
            Err(later::status(method))
        }
    }
}

/// Begins a call whose answer is a stream. `requests` are encoded messages, whoever carries them.
///
/// # Errors
/// The call is refused before anything is sent.
pub(crate) async fn open_stream(
    door: &Rc<Door>,
    method: Method,
    call: Call,
    requests: Box<dyn Requests>,
    mut accounting: Accounting,
) -> Result<Pin<Box<dyn StreamBody>>, Status> {
    if let Err(status) = door.admit(&call, method == Method::Snapshot) {
        accounting.finish(status.code);
        return Err(status);
    }
    Ok(match method {
        Method::Watch => {
            let requests = Inlet::new(requests, door, method);
            Driven::start(door, method, call, accounting, |stage| watch::watch(stage, requests))
        }
        Method::LeaseKeepAlive => {
            let requests = Inlet::new(requests, door, method);
            Driven::start(door, method, call, accounting, |stage| lease::keep_alive(stage, requests))
        }
        Method::RangeStream => {
            let request = only(Inlet::new(requests, door, method), &call).await;
            Driven::start(door, method, call, accounting, |stage| kv::range_stream(stage, request))
        }
        Method::HealthWatch => {
            let request = only(Inlet::new(requests, door, method), &call).await;
            Driven::start(door, method, call, accounting, |stage| health::watch(stage, request))
        }
        Method::Snapshot => {
            let request = only(Inlet::new(requests, door, method), &call).await;
            Driven::start(door, method, call, accounting, |stage| snapshot::snapshot(stage, request))
        }
        Method::Observe => {
            let request = only(Inlet::new(requests, door, method), &call).await;
            Driven::start(door, method, call, accounting, |stage| election::observe(stage, request))
        }
        _ => {
            let status = later::status(method);
            accounting.finish(status.code);
            return Err(status);
        }
    })
}

/// The one request of a call whose answer is a stream.
async fn only<Q: Message + Default>(mut requests: Inlet<Q>, call: &Call) -> Result<Q, Status> {
    let door = requests.door();
    arrival(&door, call, requests.next()).await
}

/// How long a request that was on its way may still take once the server stops.
const LAST_CALL: Duration = Duration::from_secs(1);

/// The request that `next` brings, if it comes before the call's deadline and the server's stop.
pub(crate) async fn arrival<Q>(
    door: &Rc<Door>,
    call: &Call,
    next: impl Future<Output = Option<Result<Q, Status>>>,
) -> Result<Q, Status> {
    let mut next = pin!(next);
    // Most often it came with the head.
    if let Poll::Ready(request) = std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
        return request.unwrap_or(Err(NO_MESSAGE));
    }
    let late = async {
        match call.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    let stopped = async {
        door.stopping().await;
        tokio::time::sleep(LAST_CALL).await;
    };
    // Boxed: must not weigh on every put.
    Box::pin(async {
        tokio::select! {
            biased;
            request = next => request.unwrap_or(Err(NO_MESSAGE)),
            () = late => Err(status::DEADLINE),
            () = stopped => Err(status::STOPPED),
        }
    })
    .await
}

/// A call without its request. Source: grpc-go answers an end of stream there with this code.
const NO_MESSAGE: Status = Status::new(Code::Internal, "grpc: the call ended before its request came");

#[cfg(test)]
mod tests {
    use super::is_grpc;

    #[test]
    fn content_types() {
        for good in ["application/grpc", "application/grpc+proto", "application/grpc;charset=x"] {
            assert!(is_grpc(good.as_bytes()), "{good}");
        }
        for bad in ["", "application/json", "application/grpcweb", "application/grp"] {
            assert!(!is_grpc(bad.as_bytes()), "{bad}");
        }
    }
}
