//! As much gRPC as a load generator needs, straight on `h2`: unary calls and streams, no compression.
//!
//! ```text
//! request   HEADERS :method POST, :path /pkg.Service/Method   DATA [0][length: u32 BE][message]   END_STREAM
//! answer    HEADERS :status 200   DATA [0][length][message] ...   HEADERS grpc-status, grpc-message   END_STREAM
//! refusal   HEADERS :status 200, grpc-status, grpc-message   END_STREAM
//! ```
//! Source: gRPC over HTTP2 (PROTOCOL-HTTP2.md of the gRPC project); RFC 9113.

use std::future::poll_fn;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use tokio::net::TcpStream;

use crate::endpoint::Endpoint;
use crate::gathered::Gathered;

/// What the server may send on one stream before it must wait for us: large enough that a list flows freely.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The same for a whole connection. A large window means few window updates, which cost both sides.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// Compression flag and length in front of every message.
const PREFIX_BYTES: usize = 5;

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server refused with a gRPC status.
    #[error("status {code}: {message}")]
    Status {
        /// gRPC code, never 0.
        code: u32,
        /// The server's text.
        message: String,
    },
    /// The connection or the stream broke; the connection should not be used again.
    #[error("connection: {0}")]
    Broken(String),
}

impl CallError {
    fn broken(error: impl std::fmt::Display) -> CallError {
        CallError::Broken(error.to_string())
    }
}

/// One HTTP/2 connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    authority: String,
    scheme: &'static str,
}

/// A method on one server, ready to be called: what does not change from call to call.
#[derive(Clone)]
pub struct Route(Uri);

impl Connection {
    /// Connects, and spawns the task that moves the connection's frames onto the current `LocalSet`.
    ///
    /// # Errors
    /// [`CallError::Broken`] with the address in it.
    pub async fn open(endpoint: &Endpoint) -> Result<Connection, CallError> {
        let name = |error: &dyn std::fmt::Display| CallError::Broken(format!("{}: {error}", endpoint.authority));
        let stream = match &endpoint.tls {
            None => {
                let stream = TcpStream::connect(&endpoint.authority).await.map_err(|error| name(&error))?;
                stream.set_nodelay(true).map_err(|error| name(&error))?;
                Gathered::Plain(stream)
            }
            Some(tls) => {
                let stream = tls.0.dial(&endpoint.authority).await.map_err(|error| name(&error))?;
                Gathered::Secure(Box::new(stream))
            }
        };
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(|error| name(&error))?;
        // Its end shows in the calls that were under way.
        tokio::task::spawn_local(connection);
        let scheme = if endpoint.tls.is_some() { "https" } else { "http" };
        Ok(Connection { send, authority: endpoint.authority.clone(), scheme })
    }

    /// Prepares calls of `path`, as `/etcdserverpb.KV/Put`.
    pub fn route(&self, path: &str) -> Route {
        let uri = Uri::builder().scheme(self.scheme).authority(self.authority.as_str()).path_and_query(path).build();
        Route(uri.expect("the endpoint was checked and paths are constants"))
    }

    /// One request, one answer. `framed` comes from [`frame`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn unary(&mut self, route: &Route, framed: Bytes) -> Result<Bytes, CallError> {
        let (response, _) = self.start(route, framed, true).await?;
        let mut answer = Messages::of(response).await?;
        let Some(message) = answer.next().await? else {
            return Err(CallError::Broken("an answer without a message".into()));
        };
        match answer.next().await? {
            None => Ok(message),
            Some(_) => Err(CallError::Broken("two messages in a unary answer".into())),
        }
    }

    /// Opens a call that sends and receives many messages; `first` goes out at once.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn stream(&mut self, route: &Route, first: Bytes) -> Result<Stream, CallError> {
        let (response, out) = self.start(route, first, false).await?;
        Ok(Stream { out, answers: Answers::Awaited(response) })
    }

    /// Sends one request whose answer is many messages.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn download(&mut self, route: &Route, framed: Bytes) -> Result<Stream, CallError> {
        let (response, out) = self.start(route, framed, true).await?;
        Ok(Stream { out, answers: Answers::Awaited(response) })
    }

    async fn start(
        &mut self,
        route: &Route,
        framed: Bytes,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), CallError> {
        poll_fn(|cx| self.send.poll_ready(cx)).await.map_err(CallError::broken)?;
        let (response, mut out) = self.send.send_request(route.request(), false).map_err(CallError::broken)?;
        out.send_data(framed, end).map_err(CallError::broken)?;
        Ok((response, out))
    }
}

impl Route {
    fn request(&self) -> Request<()> {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.0.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        request
    }
}

/// A call in both directions. Dropping it resets the stream.
pub struct Stream {
    out: SendStream<Bytes>,
    answers: Answers,
}

/// The answer's head comes with or before the first message: it is awaited then, not when the stream opens.
enum Answers {
    Awaited(ResponseFuture),
    Open(Messages),
}

impl Stream {
    /// Sends one framed message.
    ///
    /// # Errors
    /// The stream was closed by the server.
    pub fn send(&mut self, framed: Bytes) -> Result<(), CallError> {
        self.out.send_data(framed, false).map_err(CallError::broken)
    }

    /// The next message; `None` after a clean end.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        if let Answers::Awaited(response) = &mut self.answers {
            let messages = Messages::of(response).await?;
            self.answers = Answers::Open(messages);
        }
        match &mut self.answers {
            Answers::Open(messages) => messages.next().await,
            Answers::Awaited(_) => unreachable!("replaced above"),
        }
    }

    /// Hands every message that has come, and that [`Stream::next`] did not return, to `hear`, where it lies.
    ///
    /// # Errors
    /// A message in a form that was not asked for, or what `hear` finds wrong: the stream is of no use then.
    pub fn each(&mut self, hear: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        match &mut self.answers {
            Answers::Open(messages) => messages.received.each(hear),
            Answers::Awaited(_) => Ok(()),
        }
    }

    /// Waits for more bytes than [`Stream::each`] has seen; false after a clean end. To be called after it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn more(&mut self) -> Result<bool, CallError> {
        match &mut self.answers {
            Answers::Open(messages) => messages.more().await,
            Answers::Awaited(response) => {
                let messages = Messages::of(response).await?;
                self.answers = Answers::Open(messages);
                Ok(true)
            }
        }
    }
}

/// The messages of one answer, put together from DATA frames.
struct Messages {
    body: RecvStream,
    received: Received,
}

impl Messages {
    async fn of(
        response: impl Future<Output = Result<http::Response<RecvStream>, h2::Error>>,
    ) -> Result<Messages, CallError> {
        let (head, body) = response.await.map_err(CallError::broken)?.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(CallError::Broken(format!("HTTP status {}: is this a gRPC port?", head.status)));
        }
        if head.headers.contains_key("grpc-status") {
            // A refusal without a body; a status of 0 here would be an answer without a message.
            status(&head.headers)?;
        }
        Ok(Messages { body, received: Received::default() })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(message) = self.received.take()? {
                return Ok(Some(message));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Waits for more bytes, when there is no whole message in those that are there; false after a clean end.
    async fn more(&mut self) -> Result<bool, CallError> {
        if let Some(chunk) = poll_fn(|cx| self.body.poll_data(cx)).await {
            let chunk = chunk.map_err(CallError::broken)?;
            self.body.flow_control().release_capacity(chunk.len()).map_err(CallError::broken)?;
            self.received.push(chunk);
            return Ok(true);
        }
        if !self.received.is_empty() {
            return Err(CallError::Broken("the answer ends inside a message".into()));
        }
        match poll_fn(|cx| self.body.poll_trailers(cx)).await.map_err(CallError::broken)? {
            Some(trailers) => status(&trailers).map(|()| false),
            None => Ok(false),
        }
    }
}

/// Bytes received and not yet taken as messages. A message in one chunk is a slice of it; others are gathered.
#[derive(Default)]
struct Received {
    /// The beginning of a message that goes on in `chunk`.
    gathered: BytesMut,
    chunk: Bytes,
}

impl Received {
    fn is_empty(&self) -> bool {
        self.chunk.is_empty() && self.gathered.is_empty()
    }

    /// Adds a chunk, when there is no whole message in what was there.
    fn push(&mut self, chunk: Bytes) {
        let rest = std::mem::replace(&mut self.chunk, chunk);
        self.gathered.extend_from_slice(&rest);
    }

    fn take(&mut self) -> Result<Option<Bytes>, CallError> {
        if self.gathered.is_empty() {
            let Some(size) = whole_message(&self.chunk)? else { return Ok(None) };
            self.chunk.advance(PREFIX_BYTES);
            return Ok(Some(self.chunk.split_to(size)));
        }
        self.gather(PREFIX_BYTES);
        if let Some(size) = message_size(&self.gathered) {
            self.gather(PREFIX_BYTES + size);
        }
        let Some(size) = whole_message(&self.gathered)? else { return Ok(None) };
        let mut message = std::mem::take(&mut self.gathered).freeze();
        message.advance(PREFIX_BYTES);
        debug_assert_eq!(message.len(), size, "no more is gathered than one message");
        Ok(Some(message))
    }

    /// Moves bytes from the chunk until `bytes` are gathered, or it is empty.
    fn gather(&mut self, bytes: usize) {
        let missing = bytes.saturating_sub(self.gathered.len());
        self.gathered.reserve(missing);
        self.gathered.extend_from_slice(&self.chunk.split_to(missing.min(self.chunk.len())));
    }

    /// Hands every whole message to `hear`; those in the chunk are not even sliced.
    fn each(&mut self, mut hear: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        let text = |error: CallError| error.to_string();
        if !self.gathered.is_empty() {
            match self.take().map_err(text)? {
                Some(message) => hear(&message)?,
                None => return Ok(()),
            }
        }
        let mut rest: &[u8] = &self.chunk;
        while let Some(size) = whole_message(rest).map_err(text)? {
            let (message, behind) = rest[PREFIX_BYTES..].split_at(size);
            hear(message)?;
            rest = behind;
        }
        let heard = self.chunk.len() - rest.len();
        self.chunk.advance(heard);
        Ok(())
    }
}

/// Length of the message that `bytes` begin with, if they hold all of it.
fn whole_message(bytes: &[u8]) -> Result<Option<usize>, CallError> {
    let Some(size) = message_size(bytes) else { return Ok(None) };
    if bytes[0] != 0 {
        return Err(CallError::Broken("a compressed message, though none was asked for".into()));
    }
    Ok((bytes.len() - PREFIX_BYTES >= size).then_some(size))
}

/// Length in the prefix; `None` while the prefix is incomplete.
fn message_size(bytes: &[u8]) -> Option<usize> {
    bytes.get(1..PREFIX_BYTES).map(|mut length| length.get_u32() as usize)
}

/// Puts the prefix in front of what `encode` writes.
pub fn frame(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    /// Holds a put of the usual sizes without growing.
    const USUAL_BYTES: usize = 512;
    let mut framed = BytesMut::with_capacity(USUAL_BYTES);
    framed.put_bytes(0, PREFIX_BYTES);
    encode(&mut framed);
    let size = u32::try_from(framed.len() - PREFIX_BYTES).expect("sizes are bounded by the options");
    framed[1..PREFIX_BYTES].copy_from_slice(&size.to_be_bytes());
    framed.freeze()
}

/// Reads `grpc-status` and `grpc-message`.
fn status(headers: &HeaderMap) -> Result<(), CallError> {
    let code = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
    match code {
        Some(0) => Ok(()),
        Some(code) => {
            let message = headers.get("grpc-message").map(|text| percent_decoded(text.as_bytes()));
            Err(CallError::Status { code, message: message.unwrap_or_default() })
        }
        None => Err(CallError::Broken("an answer without grpc-status".into())),
    }
}

fn percent_decoded(text: &[u8]) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let hex = tail.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match hex {
            Some(decoded) if byte == b'%' => {
                plain.push(decoded);
                rest = &tail[2..];
            }
            _ => plain.push(byte),
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &'static [u8]) -> Bytes {
        frame(|out| out.put_slice(message))
    }

    #[test]
    fn messages_survive_any_cut_of_their_bytes() {
        let messages: [&[u8]; 4] = [b"first", b"", &[7; 70_000], b"last"];
        let wire: Vec<u8> = messages.iter().flat_map(|message| framed(message).to_vec()).collect();
        for size in [1, 3, 5, 6, 4096, 16_384, wire.len()] {
            let mut received = Received::default();
            let mut seen = Vec::new();
            for chunk in wire.chunks(size) {
                received.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = received.take().unwrap() {
                    seen.push(message);
                }
            }
            assert!(received.is_empty());
            assert_eq!(seen, messages, "chunks of {size}");
            let mut heard: Vec<Vec<u8>> = Vec::new();
            for chunk in wire.chunks(size) {
                received.push(Bytes::copy_from_slice(chunk));
                received
                    .each(|message| {
                        heard.push(message.to_vec());
                        Ok(())
                    })
                    .unwrap();
            }
            assert!(received.is_empty());
            assert_eq!(heard, messages, "heard in chunks of {size}");
        }
    }

    #[test]
    fn a_message_in_one_chunk_is_not_copied() {
        let chunk = framed(b"payload");
        let place = chunk[PREFIX_BYTES..].as_ptr();
        let mut received = Received::default();
        received.push(chunk);
        assert_eq!(received.take().unwrap().unwrap().as_ptr(), place);
    }

    #[test]
    fn a_compressed_message_is_refused() {
        let mut received = Received::default();
        received.push(Bytes::from_static(&[1, 0, 0, 0, 0]));
        assert!(received.take().is_err());
        assert!(received.each(|_| Ok(())).is_err());
    }

    #[test]
    fn statuses_are_read_with_their_text() {
        let mut headers = HeaderMap::new();
        assert!(matches!(status(&headers), Err(CallError::Broken(_))));
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(status(&headers), Ok(()));
        headers.insert("grpc-status", HeaderValue::from_static("11"));
        headers.insert("grpc-message", HeaderValue::from_static("a%20b %e2%82%ac 5% %zz"));
        let refused = CallError::Status { code: 11, message: "a b € 5% %zz".into() };
        assert_eq!(status(&headers), Err(refused));
    }
}
