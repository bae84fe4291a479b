//! One request, one answer of bounded size.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::dial::Dialler;
use crate::url::PeerUrl;

/// A body that is there as a whole.
pub(crate) struct Whole(Bytes);

impl Whole {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then_some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Reads the body of `response`, of at most `limit` bytes.
    ///
    /// # Errors
    /// The connection broke, or the body is longer.
    pub(crate) async fn read(response: Response<Incoming>, limit: usize) -> Result<Self, String> {
        let (head, body) = response.into_parts();
        let body = whole(body, limit).await?;
        Ok(Self { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// The body as text, without the newline at its end, as Go's clients compare it.
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }
}

/// All of `body`, of at most `limit` bytes.
///
/// # Errors
/// The connection broke, or the body is longer.
pub(crate) async fn whole(mut body: Incoming, limit: usize) -> Result<Bytes, String> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(chunk) = frame.map_err(|why| chain(&why))?.into_data() else { continue };
        if first.len() + rest.len() + chunk.len() > limit {
            return Err(format!("the body is longer than {limit} bytes"));
        }
        if first.is_empty() {
            first = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut all = BytesMut::with_capacity(first.len() + rest.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&rest);
    Ok(all.freeze())
}

/// Sends `request` over a connection of its own and reads the answer.
///
/// # Errors
/// There was no connection, it broke, or the answer is longer than `limit` bytes.
pub(crate) async fn once(
    dialler: &Dialler,
    url: &PeerUrl,
    request: Request<Whole>,
    limit: usize,
) -> Result<Answer, String> {
    let (mut sender, connection) = dialler.http(url).await?;
    let mut work = pin!(async move {
        let response = sender.send_request(request).await.map_err(|why| chain(&why))?;
        Answer::read(response, limit).await
    });
    tokio::select! {
        answer = &mut work => return answer,
        // What it has received is still to be read.
        _ = connection => {}
    }
    work.await
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
