//! Calls over WebSockets, for browsers: a request is a text, an answer is a text.
//!
//! ```text
//!  socket ──texts──► Inbox ──► stream of the call ──lines──► socket      (one task: it listens only while there is
//!                                                                        room, and speaks only as fast as it is heard)
//! ```
//! Source: `facts/http.md` §3, "Streams"; grpc-websocket-proxy.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, Stream};
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HeaderName, HeaderValue, ORIGIN, REFERER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method as HttpMethod, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::{json, json_max, lines, routes, stream_json_max};
use crate::call::Call;
use crate::connection::Connection;
use crate::door::Door;
use crate::grpc::reply::{Reply, ReplyBody};
use crate::grpc::{Method, Requests, Shape};
use crate::http as pages;
use crate::status::Status;

/// How long a client may take to agree that the conversation is over.
const FAREWELL: Duration = Duration::from_secs(5);

/// Does the client want a WebSocket?
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    has_token(headers, CONNECTION, "upgrade") && has_token(headers, UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
}

/// Agrees to a WebSocket, whatever `path` is: what is wrong with it is said over the socket, as etcd does.
pub(crate) fn open(door: &Rc<Door>, connection: &Rc<Connection>, path: &str, mut request: Request<Incoming>) -> Reply {
    let headers = request.headers();
    if request.method() != HttpMethod::GET {
        return refused(StatusCode::METHOD_NOT_ALLOWED);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes()));
    let (Some(key), true) = (key, has_token(headers, SEC_WEBSOCKET_VERSION, "13")) else {
        return refused(StatusCode::BAD_REQUEST);
    };
    let mut reply = Response::new(ReplyBody::Empty);
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::try_from(accept_key(key.as_bytes())).expect("base64 is a header value");
    reply.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    reply.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if headers.get(SEC_WEBSOCKET_PROTOCOL).is_some_and(|protocol| protocol.as_bytes().starts_with(b"Bearer")) {
        reply.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    let (headers, path) = (forwarded(headers), path.to_owned());
    let (door, connection) = (Rc::clone(door), Rc::clone(connection));
    let upgrade = hyper::upgrade::on(&mut request);
    drop(tokio::task::spawn_local(async move {
        // A client that is gone already has nothing to hear.
        if let Ok(upgraded) = upgrade.await {
            let limits = &door.config.limits;
            let is_unary = routes::at(&path).is_some_and(|method| method.names().shape == Shape::Unary);
            let max = if is_unary { json_max(limits) } else { stream_json_max(limits) };
            let config = WebSocketConfig::default().max_message_size(Some(max)).max_frame_size(Some(max));
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            Conversation { socket, inbox: Inbox::default(), max }.hold(&door, &path, &headers).await;
        }
        // The connection counts as open until here.
        drop(connection);
    }));
    reply
}

/// What shows that we have understood. Source: RFC 6455, §4.2.2.
fn accept_key(key: &[u8]) -> String {
    const PROTOCOL: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(PROTOCOL).finalize())
}

/// Source: gorilla/websocket `returnError`.
fn refused(status: StatusCode) -> Reply {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut reply = pages::error(status, text);
    reply.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    reply
}

/// Sixteen bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_base64)
}

/// The headers that the call sees: where the page is from, and the token, which a script can give as a protocol
/// (`Bearer, TOKEN`) or a cookie (`token`) only.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::new();
    for name in [ORIGIN, REFERER] {
        if let Some(value) = headers.get(&name) {
            out.insert(name, value.clone());
        }
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let protocol = text(SEC_WEBSOCKET_PROTOCOL).and_then(|text| text.split_once("Bearer,")).map(|(_, token)| token);
    let mut cookies = text(COOKIE).unwrap_or_default().split(';');
    let cookie = cookies.find_map(|cookie| cookie.trim().strip_prefix("token="));
    if let Some(token) = cookie.or(protocol)
        && let Ok(value) = HeaderValue::try_from(format!("Bearer {}", token.trim()))
    {
        out.insert(AUTHORIZATION, value);
    }
    out
}

/// Why nothing more can be said.
enum End {
    /// The client has left.
    Gone,
    /// It sends more than we take.
    TooLong,
}

/// One socket.
struct Conversation {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    /// Requests that came and were not asked for yet.
    inbox: Inbox,
    /// Bytes of requests that may wait.
    max: usize,
}

impl Conversation {
    async fn hold(mut self, door: &Rc<Door>, path: &str, headers: &HeaderMap) {
        let code = match self.answer(door, path, headers).await {
            Ok(()) => CloseCode::Normal,
            Err(End::TooLong) => CloseCode::Size,
            Err(End::Gone) => return,
        };
        // Until the client agrees, or long enough.
        let farewell = async {
            let frame = CloseFrame { code, reason: Utf8Bytes::default() };
            if self.socket.close(Some(frame)).await.is_ok() {
                self.is_gone().await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    async fn answer(&mut self, door: &Rc<Door>, path: &str, headers: &HeaderMap) -> Result<(), End> {
        let (method, call) = match super::open(path, &HttpMethod::POST, headers) {
            Ok(known) => known,
            Err(status) => return self.say(json::failure(&status)).await,
        };
        match method.names().shape {
            Shape::Unary => self.unary(door, method, call).await,
            Shape::ServerStream => {
                let request = lines::Single::new(method, &self.first().await?);
                self.stream(door, method, call, Box::new(request)).await
            }
            Shape::BidiStream => {
                let (inbox, tolerance) = (Rc::clone(&self.inbox), lines::Tolerance::default());
                let requests = Asked { method, inbox, tolerance };
                self.stream(door, method, call, Box::new(requests)).await
            }
        }
    }

    async fn unary(&mut self, door: &Rc<Door>, method: Method, call: Call) -> Result<(), End> {
        let request = self.first().await?;
        let answered = tokio::select! {
            answered = super::unary(door, method, call, request) => answered,
            () = self.is_gone() => return Err(End::Gone),
        };
        self.say(answered.unwrap_or_else(|status| json::failure(&status))).await
    }

    async fn stream(
        &mut self,
        door: &Rc<Door>,
        method: Method,
        call: Call,
        requests: Box<dyn Requests>,
    ) -> Result<(), End> {
        let mut lines = match lines::start(door, method, call, requests).await {
            Ok(lines) => lines,
            Err(status) => return self.say(lines::error_line(&status)).await,
        };
        loop {
            let happening = std::future::poll_fn(|cx| {
                if let Poll::Ready(said) = lines.poll_next(cx) {
                    return Poll::Ready(Happening::Said(said));
                }
                if self.inbox.borrow().waiting() > self.max {
                    Poll::Pending
                } else {
                    self.poll_hear(cx).map(Happening::Heard)
                }
            });
            match happening.await {
                Happening::Said(None) => return Ok(()),
                Happening::Said(Some(Ok(lines))) => self.say(lines).await?,
                Happening::Said(Some(Err(status))) => return self.say(lines::error_line(&status)).await,
                Happening::Heard(text) => self.take_in(&text?),
            }
        }
    }

    /// The first request.
    async fn first(&mut self) -> Result<Bytes, End> {
        loop {
            // What is no object is refused by whoever reads it.
            match self.inbox.borrow_mut().cut() {
                Ok(Some(object)) => return Ok(object),
                Ok(None) => {}
                Err(_) => return Ok(Bytes::from_static(b"no object")),
            }
            let text = std::future::poll_fn(|cx| self.poll_hear(cx)).await?;
            self.take_in(&text);
            if self.inbox.borrow().waiting() > self.max {
                return Err(End::TooLong);
            }
        }
    }

    fn take_in(&self, text: &[u8]) {
        let mut inbox = self.inbox.borrow_mut();
        inbox.push(text);
        inbox.push(b"\n");
    }

    /// Ends when the client has left; what it says meanwhile is for nobody.
    async fn is_gone(&mut self) {
        while std::future::poll_fn(|cx| self.poll_hear(cx)).await.is_ok() {}
    }

    /// What the client says next. Pings and farewells are answered on the way.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => Ok(text.into()),
                Some(Ok(Message::Binary(bytes))) => Ok(bytes),
                Some(Ok(_)) => continue,
                Some(Err(Error::Capacity(_))) => Err(End::TooLong),
                Some(Err(_)) | None => Err(End::Gone),
            });
        }
    }

    /// Sends each line as a text of its own.
    async fn say(&mut self, lines: Bytes) -> Result<(), End> {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let text = Utf8Bytes::try_from(lines.slice_ref(line)).map_err(|_| End::Gone)?;
            self.socket.send(Message::Text(text)).await.map_err(|_| End::Gone)?;
        }
        Ok(())
    }
}

type Inbox = Rc<RefCell<json::Objects>>;

/// Requests of a stream. Nobody needs waking: who fills the inbox looks at the stream next.
struct Asked {
    method: Method,
    inbox: Inbox,
    tolerance: lines::Tolerance,
}

impl Requests for Asked {
    fn poll_request(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let next = match self.inbox.borrow_mut().cut() {
            Ok(Some(object)) => json::request(self.method, &object),
            Ok(None) => return Poll::Pending,
            Err(status) => Err(status),
        };
        Poll::Ready(self.tolerance.judge(Some(next)))
    }
}

/// What happens in a conversation.
enum Happening {
    Said(Option<Result<Bytes, Status>>),
    Heard(Result<Bytes, End>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn upgrades() {
        assert!(is_wanted(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!is_wanted(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])));
        assert!(!is_wanted(&headers(&[("upgrade", "websocket")])));
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "the example of RFC 6455");
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j*Q==", "dGhlIHNhbXBsZSBub25jZQ==dGhl"] {
            assert!(!is_key(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn tokens() {
        let token = |pairs: &[(&str, &str)]| {
            forwarded(&headers(pairs)).get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(token(&[("sec-websocket-protocol", "Bearer, abc")]).as_deref(), Some("Bearer abc"));
        assert_eq!(token(&[("sec-websocket-protocol", "Bearer,abc ")]).as_deref(), Some("Bearer abc"));
        assert_eq!(token(&[("cookie", "a=b; token=abc")]).as_deref(), Some("Bearer abc"));
        let both = [("sec-websocket-protocol", "Bearer, abc"), ("cookie", "token=def")];
        assert_eq!(token(&both).as_deref(), Some("Bearer def"));
        assert_eq!(token(&[("sec-websocket-protocol", "chat"), ("authorization", "x")]), None);
        let kept = forwarded(&headers(&[("origin", "http://a"), ("grpc-metadata-hasleader", "true")]));
        assert_eq!((kept.len(), kept[ORIGIN].to_str().unwrap()), (1, "http://a"));
    }
}
