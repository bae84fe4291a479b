//! Answers on the wire: headers, at most one message or a stream of them, and the status in the trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::wire::Framed;
use crate::config::PeerBody;
use crate::guard::Debt;
use crate::status::{Code, Status};

/// The body of every answer, gRPC or HTTP.
#[derive(Default)]
pub(crate) enum ReplyBody {
    /// No body at all.
    #[default]
    Empty,
    /// Plain bytes of an HTTP answer.
    Plain(Bytes),
    /// One message, then status OK.
    Unary(Framed),
    /// The OK after a unary message.
    Trailers,
    /// Messages as they come.
    Stream(Pin<Box<dyn StreamBody>>),
    /// Bytes of an HTTP answer as they come.
    Http(Pin<Box<dyn HttpBody>>),
    /// What another member is told.
    Peer(PeerBody),
}

impl ReplyBody {
    /// Counts a whole answer until it is written. What is made while it is sent is not made for who does not take it.
    pub(crate) fn owe(&mut self, debt: &Arc<Debt>) {
        let owe = |bytes: &mut Bytes| *bytes = debt.owe(std::mem::take(bytes));
        match self {
            Self::Plain(bytes) => owe(bytes),
            Self::Unary(message) => message.pieces_mut().for_each(owe),
            _ => {}
        }
    }
}

/// An HTTP answer that is made while it is sent.
pub(crate) trait HttpBody {
    /// The next chunk; `None` after the last.
    fn poll_chunk(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// A stream of answers: chunks of whole framed messages, and at last a status.
pub(crate) trait StreamBody {
    /// The next chunk, or how the stream ends; not called again after the end.
    fn poll_chunk(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>>;
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Peer(body) => return body.as_mut().poll_frame(cx),
            Self::Stream(stream) => match std::task::ready!(stream.as_mut().poll_chunk(cx)) {
                Ok(chunk) => Frame::data(chunk),
                Err(status) => {
                    *self = Self::Empty;
                    let mut trailers = HeaderMap::with_capacity(2);
                    put_status(&status, &mut trailers);
                    Frame::trailers(trailers)
                }
            },
            Self::Http(body) => match std::task::ready!(body.as_mut().poll_chunk(cx)) {
                Some(chunk) => Frame::data(chunk),
                None => {
                    *self = Self::Empty;
                    return Poll::Ready(None);
                }
            },
            Self::Plain(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Frame::data(bytes)
            }
            Self::Unary(message) => {
                let (piece, is_last) = message.next();
                if is_last {
                    *self = Self::Trailers;
                }
                Frame::data(piece)
            }
            Self::Trailers => {
                *self = Self::Empty;
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Frame::trailers(trailers)
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Peer(body) => body.is_end_stream(),
            other => matches!(other, Self::Empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Plain(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Peer(body) => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// Any answer.
pub(crate) type Reply = Response<ReplyBody>;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// 200 with gRPC's content type and `body`.
pub(crate) fn ok(body: ReplyBody) -> Reply {
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

/// An answer that is nothing but a status: trailers only.
pub(crate) fn failed(status: &Status) -> Reply {
    let mut response = ok(ReplyBody::Empty);
    put_status(status, response.headers_mut());
    response
}

/// As [`failed`], with an HTTP status that says the same to those who do not speak gRPC.
pub(crate) fn refused(http_status: StatusCode, status: &Status) -> Reply {
    let mut response = failed(status);
    *response.status_mut() = http_status;
    response
}

fn put_status(status: &Status, headers: &mut HeaderMap) {
    headers.insert("grpc-status", HeaderValue::from(status.code as u16));
    if status.code != Code::Ok || !status.message.is_empty() {
        headers.insert("grpc-message", percent_encode(&status.message));
    }
}

/// `grpc-message` is percent-encoded outside of printable ASCII. Source: gRPC over HTTP/2, "Status-Message".
fn percent_encode(text: &str) -> HeaderValue {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes everything");
        }
    }
    HeaderValue::try_from(out).expect("printable ASCII is a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encode("etcdserver: key not found"), "etcdserver: key not found");
        assert_eq!(percent_encode("50 %\nü"), "50 %25%0A%C3%BC");
    }

    #[test]
    fn failures_are_trailers_only() {
        let reply = failed(&crate::status::EMPTY_KEY);
        assert!(reply.body().is_end_stream());
        assert_eq!(reply.headers()["grpc-status"], "3");
        assert_eq!(reply.headers()["grpc-message"], "etcdserver: key is not provided");
    }
}
