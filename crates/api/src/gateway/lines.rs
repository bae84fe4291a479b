//! Streams: requests as JSON objects one behind the other, answers as lines.
//!
//! A line is `{"result":…}`; one that ends the stream early is `{"error":…}`. The answer's head waits for the first
//! line, and says how the stream failed if that is an error.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::Body;
use hyper::body::Incoming;

use super::{GRPC, JSON, NO_VERSION, http_status, json};
use crate::call::Call;
use crate::door::Door;
use crate::grpc::reply::{HttpBody, Reply, ReplyBody, StreamBody};
use crate::grpc::{Accounting, Method, Requests, open_stream, wire};
use crate::status::{Code, Status};

/// Answers a stream of `method`.
pub(crate) async fn serve(door: &Rc<Door>, method: Method, call: Call, requests: Box<dyn Requests>) -> Reply {
    let mut lines = match start(door, method, call, requests).await {
        Ok(lines) => lines,
        Err(status) => return broken(&status),
    };
    match lines.next().await {
        Some(Ok(first)) => {
            lines.first = Some(first);
            let mut reply = Response::new(ReplyBody::Http(Box::pin(lines)));
            reply.headers_mut().insert(CONTENT_TYPE, JSON);
            reply.headers_mut().insert("grpc-metadata-content-type", GRPC);
            reply
        }
        Some(Err(status)) => broken(&status),
        // Ended well without a word.
        None => Response::new(ReplyBody::Empty),
    }
}

/// Begins a stream of `method`.
///
/// # Errors
/// It is refused.
pub(crate) async fn start(
    door: &Rc<Door>,
    method: Method,
    call: Call,
    requests: Box<dyn Requests>,
) -> Result<Lines, Status> {
    door.metrics.client(NO_VERSION, true);
    let accounting = Accounting::start(door, method, call.started);
    let answers = open_stream(door, method, call, requests, accounting).await?;
    Ok(Lines { method, answers: Some(answers), framed: BytesMut::new(), first: None })
}

fn broken(status: &Status) -> Reply {
    let mut reply = Response::new(ReplyBody::Plain(error_line(status)));
    *reply.status_mut() = http_status(status.code);
    reply.headers_mut().insert(CONTENT_TYPE, JSON);
    reply
}

/// The last line of a stream that failed.
pub(crate) fn error_line(status: &Status) -> Bytes {
    [&br#"{"error":"#[..], &json::failure(status), b"}\n"].concat().into()
}

/// Answers of one stream as lines.
pub(crate) struct Lines {
    method: Method,
    /// Gone once it has ended.
    answers: Option<Pin<Box<dyn StreamBody>>>,
    /// gRPC's frames, of which the last may not be complete.
    framed: BytesMut,
    /// Taken before the head was sent.
    first: Option<Bytes>,
}

impl Lines {
    /// The next lines, as many as are there; `None` after the last.
    ///
    /// # Errors
    /// How the stream ends, if not well.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            let mut lines = Vec::new();
            while let Some(answer) = self.cut() {
                lines.extend_from_slice(br#"{"result":"#);
                if let Err(status) = json::answer(self.method, answer, &mut lines) {
                    self.answers = None;
                    return Poll::Ready(Some(Err(status)));
                }
                lines.extend_from_slice(b"}\n");
            }
            if !lines.is_empty() {
                return Poll::Ready(Some(Ok(lines.into())));
            }
            let Some(answers) = &mut self.answers else { return Poll::Ready(None) };
            match ready!(answers.as_mut().poll_chunk(cx)) {
                Ok(chunk) => self.framed.extend_from_slice(&chunk),
                Err(status) => {
                    self.answers = None;
                    return Poll::Ready((status.code != Code::Ok).then_some(Err(status)));
                }
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Takes the first message out of its frame, if it is complete.
    fn cut(&mut self) -> Option<Bytes> {
        let (&[_, a, b, c, d], rest) = self.framed.split_first_chunk::<{ wire::PREFIX_BYTES }>()?;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if rest.len() < length {
            return None;
        }
        self.framed.advance(wire::PREFIX_BYTES);
        Some(self.framed.split_to(length).freeze())
    }
}

impl HttpBody for Lines {
    fn poll_chunk(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        Poll::Ready(ready!(self.poll_next(cx)).map(|next| next.unwrap_or_else(|status| error_line(&status))))
    }
}

/// The one request of a call whose answers are a stream.
pub(crate) struct Single(Option<Result<Bytes, Status>>);

impl Single {
    pub(crate) fn new(method: Method, json: &[u8]) -> Self {
        Self(Some(json::request(method, json)))
    }
}

impl Requests for Single {
    fn poll_request(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        Poll::Ready(self.0.take())
    }
}

/// What becomes of broken JSON. The first request is refused; behind a good one, what cannot be read and all that
/// follows it is passed over, as if the client had half-closed: so does etcd, and a watch goes on.
#[derive(Default)]
pub(crate) struct Tolerance {
    is_begun: bool,
    is_over: bool,
}

impl Tolerance {
    /// `next`, or `None` if it is passed over.
    pub(crate) fn judge(&mut self, next: Option<Result<Bytes, Status>>) -> Option<Result<Bytes, Status>> {
        match &next {
            Some(Err(status)) if self.is_begun && status.code == Code::InvalidArgument => self.is_over = true,
            Some(Ok(_)) => self.is_begun = true,
            _ => {}
        }
        if self.is_over { None } else { next }
    }
}

/// Requests in the body of an HTTP request.
pub(crate) struct Objects {
    method: Method,
    tolerance: Tolerance,
    /// Gone once it has ended.
    body: Option<Incoming>,
    objects: json::Objects,
    /// Longest object.
    max: usize,
}

impl Objects {
    pub(crate) fn new(method: Method, body: Incoming, max: usize) -> Self {
        Self { method, tolerance: Tolerance::default(), body: Some(body), objects: json::Objects::default(), max }
    }
}

impl Requests for Objects {
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if self.tolerance.is_over {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_next(cx));
        Poll::Ready(self.tolerance.judge(next))
    }
}

impl Objects {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.objects.cut() {
                Ok(Some(object)) => return Poll::Ready(Some(json::request(self.method, &object))),
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            if self.objects.waiting() > self.max {
                return Poll::Ready(Some(Err(super::too_long(self.max))));
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(self.objects.end().err().map(Err));
            };
            match ready!(Pin::new(body).poll_frame(cx)) {
                None => self.body = None,
                Some(Err(why)) => return Poll::Ready(Some(Err(super::broken_off(&why)))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.objects.push(&data);
                    }
                }
            }
        }
    }
}
