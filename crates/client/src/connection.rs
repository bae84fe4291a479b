//! One HTTP/2 connection: made, kept alive, called through.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version, header};
use milepost_proto::Message;

use crate::dial::Pipe;
use crate::error::{Code, Error};
use crate::wire::{self, Received};

/// What the server may send on one stream before it must wait for us: large enough that a list flows freely.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// The same for a whole connection. A large window means few window updates, which cost both sides.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The version of etcd's client API that we say to speak; it shows in the server's metrics.
const API_VERSION: &str = "3.7";

/// When pings are sent, and how long they may go unanswered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    /// Zero for none.
    pub(crate) time: Duration,
    pub(crate) timeout: Duration,
}

/// A connection that has answered. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    send: SendRequest<Bytes>,
    scheme: Scheme,
    authority: Authority,
    peer: Arc<str>,
    /// Calls under way: without any, no ping is sent, for servers take that for abuse.
    calls: Arc<AtomicUsize>,
}

/// Why a call did not happen or broke, and what that says about the server's state.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server has certainly not acted on the request: any call may be repeated.
    NotSent(Error),
    /// The server answered, or the connection broke while it may have been acting.
    Ended(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Ended(error)
    }
}

/// The headers of one call.
pub(crate) struct Call<'a> {
    pub(crate) path: &'static str,
    pub(crate) timeout: Option<HeaderValue>,
    pub(crate) token: Option<&'a HeaderValue>,
    pub(crate) require_leader: bool,
}

impl Connection {
    /// Speaks HTTP/2 over `pipe` and waits for the server's first answer, so that whatever is not an HTTP/2 server is
    /// found before a request goes out. The returned future moves the frames; it ends with the connection.
    ///
    /// # Errors
    /// The text that grpc-go logs.
    pub(crate) async fn over(
        pipe: Box<dyn Pipe>,
        is_tls: bool,
        authority: &str,
        peer: &str,
        keepalive: KeepAlive,
    ) -> Result<(Connection, impl Future<Output = ()> + Send + use<>), String> {
        let no_preface = |error: &dyn std::fmt::Display| {
            format!("connection error: desc = \"error reading server preface: {error}\"")
        };
        let (send, mut frames) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(pipe)
            .await
            .map_err(|error| no_preface(&error))?;
        let mut pings = frames.ping_pong().expect("taken once per connection");
        tokio::select! {
            end = &mut frames => {
                return Err(end.err().map_or_else(|| no_preface(&"EOF"), |error| no_preface(&error)));
            }
            pong = pings.ping(Ping::opaque()) => { pong.map_err(|error| no_preface(&error))?; }
        }
        let calls = Arc::new(AtomicUsize::new(0));
        let watch = keep_alive(pings, keepalive, Arc::clone(&calls));
        let driver = async move {
            // Dropping the frames breaks every call under way.
            tokio::select! {
                _ = &mut frames => {}
                () = watch => {}
            }
        };
        let authority = Authority::try_from(authority).unwrap_or_else(|_| Authority::from_static("localhost"));
        let scheme = if is_tls { Scheme::HTTPS } else { Scheme::HTTP };
        Ok((Connection { send, scheme, authority, peer: peer.into(), calls }, driver))
    }

    /// Address of the server, for logs.
    pub(crate) fn peer(&self) -> &Arc<str> {
        &self.peer
    }

    /// One request, one answer.
    pub(crate) async fn unary(&self, call: &Call<'_>, framed: Bytes, limit: usize) -> Result<Bytes, Failure> {
        let mut exchange = self.start(call, framed, true, limit).await?;
        let Some(message) = exchange.next().await? else {
            return Err(Error::status(Code::Internal, "cardinality violation: received no response message").into());
        };
        match exchange.next().await? {
            None => Ok(message),
            Some(_) => {
                Err(Error::status(Code::Internal, "cardinality violation: received more than one message").into())
            }
        }
    }

    /// Opens a call; `first` goes out with it, and nothing after it if `last`.
    pub(crate) async fn start(
        &self,
        call: &Call<'_>,
        first: Bytes,
        last: bool,
        limit: usize,
    ) -> Result<Exchange, Failure> {
        let unsent = |error: h2::Error| Failure::NotSent(unavailable(&error));
        let mut send = self.send.clone();
        poll_fn(|cx| send.poll_ready(cx)).await.map_err(unsent)?;
        let (response, mut out) = send.send_request(self.request(call), false).map_err(unsent)?;
        out.send_data(first, last).map_err(|error| broken(&error))?;
        Ok(Exchange {
            out,
            answers: Answers::Awaited(response),
            received: Received::new(limit),
            _seat: Seat::taken(&self.calls),
        })
    }

    fn request(&self, call: &Call<'_>) -> Request<()> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(PathAndQuery::from_static(call.path));
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(uri).expect("its three parts are given");
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("milepost/", env!("CARGO_PKG_VERSION"))));
        headers.insert("client-api-version", HeaderValue::from_static(API_VERSION));
        if let Some(timeout) = &call.timeout {
            headers.insert("grpc-timeout", timeout.clone());
        }
        if let Some(token) = call.token {
            headers.insert("token", token.clone());
        }
        if call.require_leader {
            headers.insert("hasleader", HeaderValue::from_static("true"));
        }
        request
    }
}

/// A call under way. Dropping it resets the stream.
pub(crate) struct Exchange {
    out: SendStream<Bytes>,
    answers: Answers,
    received: Received,
    /// Counts the call for as long as it lives.
    _seat: Seat,
}

enum Answers {
    /// The head comes with or before the first message.
    Awaited(ResponseFuture),
    Open(RecvStream),
}

impl Exchange {
    /// Sends one framed message.
    pub(crate) fn send(&mut self, framed: Bytes) -> Result<(), Error> {
        self.out.send_data(framed, false).map_err(|error| unavailable(&error))
    }

    /// The next message; `None` after a clean end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Answers::Awaited(response) = &mut self.answers {
            let (head, body) = response.await.map_err(|error| broken(&error))?.into_parts();
            wire::head(head.status, &head.headers)?;
            self.answers = Answers::Open(body);
        }
        let Answers::Open(body) = &mut self.answers else { unreachable!("opened above") };
        loop {
            if let Some(message) = self.received.take()? {
                return Ok(Some(message));
            }
            let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await else { break };
            let chunk = chunk.map_err(|error| broken(&error))?;
            let size = chunk.len();
            body.flow_control().release_capacity(size).map_err(|error| broken(&error))?;
            self.received.push(chunk);
        }
        match poll_fn(|cx| body.poll_trailers(cx)).await.map_err(|error| broken(&error))? {
            Some(trailers) => wire::trailers(&trailers)?,
            None => {
                return Err(Error::status(Code::Internal, "server closed the stream without sending trailers").into());
            }
        }
        if !self.received.is_empty() {
            return Err(Error::status(Code::Internal, "unexpected EOF").into());
        }
        Ok(None)
    }
}

/// The message of `exchange` that comes next, decoded.
pub(crate) async fn next_message<M: Message + Default>(exchange: &mut Exchange) -> Result<Option<M>, Failure> {
    Ok(match exchange.next().await? {
        Some(bytes) => Some(wire::decode(bytes)?),
        None => None,
    })
}

/// A stream that broke: what that says about the request.
fn broken(error: &h2::Error) -> Failure {
    // A server that goes away names the last stream that it has looked at; h2 gives this error only to later ones.
    let untouched = error.is_remote()
        && (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)
            || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM));
    let error = match error.reason() {
        Some(Reason::CANCEL) if error.is_reset() && error.is_remote() => {
            Error::status(Code::Canceled, "stream terminated by RST_STREAM with error code: CANCEL")
        }
        _ => unavailable(error),
    };
    if untouched { Failure::NotSent(error) } else { Failure::Ended(error) }
}

fn unavailable(error: &h2::Error) -> Error {
    if error.is_io() {
        return Error::unavailable("error reading from server: EOF");
    }
    Error::unavailable(format!("closing transport due to: {error}"))
}

/// Pings while calls are under way; ends when one stays unanswered.
async fn keep_alive(mut pings: PingPong, keepalive: KeepAlive, calls: Arc<AtomicUsize>) {
    if keepalive.time.is_zero() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(keepalive.time).await;
        if calls.load(Ordering::Relaxed) == 0 {
            continue;
        }
        match tokio::time::timeout(keepalive.timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// One call in the count of calls.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn taken(calls: &Arc<AtomicUsize>) -> Seat {
        calls.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(calls))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
