//! Answers to other members: `/raft` and below. Source: etcd `rafthttp/http.go`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use milepost_proto::{Message, raftpb};
use milepost_types::MemberId;
use tokio::sync::Notify;

use crate::exchange::{Whole, whole};
use crate::framing::{Kind, MESSAGE_BYTES_MAX, MSG_SNAP};
use crate::headers;
use crate::outbox::{Cut, Outgoing};
use crate::peer::Peer;
use crate::probe;
use crate::snapshot;
use crate::transport::Shared;

/// The body of an answer: a sentence, or a stream without end.
pub type ServiceBody = Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>;

/// An answer under way. Must be polled on a tokio runtime with time; its body on the same.
pub type Answering = Pin<Box<dyn Future<Output = Response<ServiceBody>> + Send>>;

/// Answers a request. The other argument closes its connection when it is notified.
pub type Service = Arc<dyn Fn(Request<Incoming>, Arc<Notify>) -> Answering + Send + Sync>;

pub(crate) fn of(shared: Arc<Shared>) -> Service {
    Arc::new(move |request, hang_up| Box::pin(answer(Arc::clone(&shared), request, hang_up)))
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>, hang_up: Arc<Notify>) -> Response<ServiceBody> {
    let path = request.uri().path().to_owned();
    let mut answer = match path.as_str() {
        "/raft" => pipeline(&shared, request).await,
        "/raft/probing" => probing(&shared),
        "/raft/snapshot" => snapshot::receive::answer(&shared, request).await,
        path => match path.strip_prefix("/raft/stream/") {
            Some(rest) => stream(&shared, &request, rest, &hang_up),
            None => error(StatusCode::NOT_FOUND, "404 page not found"),
        },
    };
    let cluster = HeaderValue::try_from(shared.identity.cluster.to_string()).expect("hexadecimal is a header");
    answer.headers_mut().insert(headers::CLUSTER_ID, cluster);
    if let Ok(version) = HeaderValue::try_from(&shared.identity.version) {
        answer.headers_mut().insert(headers::VERSION, version);
    }
    answer
}

/// Why a request is refused before its body is looked at; `None`: it is not.
pub(crate) fn admit(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
    method: &Method,
) -> Option<Response<ServiceBody>> {
    if request.method() != method {
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        answer.headers_mut().insert(ALLOW, HeaderValue::try_from(method.as_str()).expect("a method is a header"));
        return Some(answer);
    }
    shared.identity.check(request.headers()).err().map(|why| {
        let header = |name| headers::text(request.headers(), name).unwrap_or_default().to_owned();
        let fields = [
            ("local-member-id", shared.identity.member.to_string()),
            ("local-member-cluster-id", shared.identity.cluster.to_string()),
            ("local-member-server-version", shared.identity.version.clone()),
            ("remote-peer-server-name", header(headers::FROM)),
            ("remote-peer-server-version", header(headers::VERSION)),
            ("remote-peer-cluster-id", header(headers::CLUSTER_ID)),
        ];
        let line = if why == headers::OTHER_CLUSTER {
            "request cluster ID mismatch"
        } else {
            "failed version compatibility check"
        };
        shared.journal.warn(line, &fields);
        error(StatusCode::PRECONDITION_FAILED, why)
    })
}

/// Answers who sent `request`, even if it is not in the cluster that we know.
pub(crate) fn meet(shared: &Arc<Shared>, request: &Request<Incoming>) {
    if let Some((from, urls)) = headers::sender(request.headers()) {
        shared.add_remote(from, &urls);
    }
}

/// Why `message` is refused; `None`: it is not. 403 for removed members alone: an etcd member that reads it stops for good, so who only mistook us for
/// another is told 412.
pub(crate) fn check(shared: &Shared, message: &raftpb::Message) -> Option<Response<ServiceBody>> {
    let from = MemberId(message.from());
    let local = ("local-member-id", shared.identity.member.to_string());
    if shared.is_removed(from) {
        let fields = [local, ("removed-member-id", from.to_string())];
        shared.journal.warn("rejected Raft message from removed member", &fields);
        return Some(error(StatusCode::FORBIDDEN, "cannot process message from removed member"));
    }
    if !shared.is_for_us(message) {
        let fields = [local, ("mismatch-member-id", format!("{:x}", message.to()))];
        shared.journal.warn("rejected Raft message to mismatch member", &fields);
        return Some(error(StatusCode::PRECONDITION_FAILED, "cannot process message to mismatch member"));
    }
    None
}

async fn pipeline(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<ServiceBody> {
    if let Some(refused) = admit(shared, &request, &Method::POST) {
        return refused;
    }
    meet(shared, &request);
    let claimed = headers::sender(request.headers()).map(|(from, _)| from);
    let failed = |line: &str, why: String, text: &'static str| {
        let fields = [("local-member-id", shared.identity.member.to_string()), ("error", why)];
        shared.journal.warn(line, &fields);
        claimed.iter().for_each(|from| shared.metrics.of(*from).received_failures.add(1));
        error(StatusCode::BAD_REQUEST, text)
    };
    let limit = usize::try_from(MESSAGE_BYTES_MAX).unwrap_or(usize::MAX);
    let body = match whole(request.into_body(), limit).await {
        Ok(body) => body,
        Err(why) => return failed("failed to read Raft message", why, "error reading raft message"),
    };
    let bytes = body.len();
    let message = match raftpb::Message::decode(body) {
        Ok(message) => message,
        Err(why) => {
            return failed("failed to unmarshal Raft message", why.to_string(), "error unmarshalling raft message");
        }
    };
    if let Some(refused) = check(shared, &message) {
        return refused;
    }
    shared.metrics.of(MemberId(message.from())).received_bytes.add(bytes);
    // A snapshot without its database is worth nothing.
    if message.r#type() != MSG_SNAP {
        shared.inbox.receive(message);
    }
    no_content()
}

fn stream(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
    rest: &str,
    hang_up: &Arc<Notify>,
) -> Response<ServiceBody> {
    if let Some(refused) = admit(shared, request, &Method::GET) {
        return refused;
    }
    let Some((kind, from)) = rest.split_once('/') else { return error(StatusCode::NOT_FOUND, "invalid path") };
    let Some(kind) = Kind::BOTH.into_iter().find(|known| known.path() == kind) else {
        return error(StatusCode::NOT_FOUND, "invalid path");
    };
    let Some(from) = headers::member(from) else { return error(StatusCode::NOT_FOUND, "invalid from") };
    let fields = [
        ("local-member-id", shared.identity.member.to_string()),
        ("remote-peer-id-stream-handler", shared.identity.member.to_string()),
        ("remote-peer-id-from", from.to_string()),
    ];
    if shared.is_removed(from) {
        shared.journal.warn("rejected stream from remote peer because it was removed", &fields);
        return error(StatusCode::GONE, "removed member");
    }
    let Some(peer) = shared.peer(from) else {
        // Of another cluster with our id, or of one that joined and that we have not heard of yet.
        if let Some(urls) = headers::peer_urls(request.headers()) {
            shared.add_remote(from, &urls);
        }
        shared.journal.warn("failed to find remote peer in cluster", &fields);
        return error(StatusCode::NOT_FOUND, "error sender not found");
    };
    if headers::text(request.headers(), headers::TO) != Some(shared.identity.member.to_string().as_str()) {
        shared.journal.warn("ignored streaming request; ID mismatch", &fields);
        return error(StatusCode::PRECONDITION_FAILED, "to field mismatch");
    }
    attach(shared, &peer, kind, hang_up)
}

/// The stream that `peer` has asked for takes the place of an older one.
fn attach(shared: &Arc<Shared>, peer: &Arc<Peer>, kind: Kind, hang_up: &Arc<Notify>) -> Response<ServiceBody> {
    let fields = [
        ("stream-writer-type", kind.name().to_owned()),
        ("local-member-id", shared.identity.member.to_string()),
        ("remote-peer-id", peer.id.to_string()),
    ];
    let ended = {
        let (shared, peer, fields) = (Arc::clone(shared), Arc::clone(peer), fields.clone());
        move |cut: Cut| {
            peer.status.deactivate(kind.name(), "write", "the connection was closed");
            shared.journal.warn("lost TCP streaming connection with remote peer", &fields);
            if cut.lost_messages {
                peer.row.sent_failures.add(1);
                shared.inbox.unreachable(peer.id);
            }
        }
    };
    let row = Arc::clone(&peer.row);
    let (outgoing, cut) = Outgoing::attach(peer.outbox(kind), kind, shared.patience, hang_up, row, Box::new(ended));
    peer.status.activate();
    if cut.was_open {
        shared.journal.warn("closed TCP streaming connection with remote peer", &fields);
    }
    if cut.lost_messages {
        shared.inbox.unreachable(peer.id);
    }
    shared.journal.info("established TCP streaming connection with remote peer", &fields);
    Response::new(Box::pin(outgoing))
}

fn probing(shared: &Shared) -> Response<ServiceBody> {
    let mut answer = Response::new(text(probe::Reply::at(shared.clock.unix())));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

pub(crate) fn no_content() -> Response<ServiceBody> {
    let mut answer = Response::new(text(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// As Go's `http.Error` writes it.
pub(crate) fn error(status: StatusCode, why: &str) -> Response<ServiceBody> {
    let mut answer = Response::new(text(format!("{why}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

fn text(body: impl Into<Bytes>) -> ServiceBody {
    Box::pin(Whole::new(body))
}
