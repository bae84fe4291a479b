//! Clients that call us by URL are served as etcd serves them.
//!
//! `etcdctl` 3.4 and other programs with an old grpc-go send `:authority: http://127.0.0.1:2379`, etcd's own clients of
//! 3.5 `#initially=[http://127.0.0.1:2379]`. gRPC never looks at that field and etcd serves them; h2 wants a URI's authority there and resets the stream. It has no switch for that,
//! so the illegal value is made legal on its way from the socket to h2:
//!
//! ```text
//!  socket ──► Mended ──────────────► hyper (h2)
//!               │ until the first header block with a legal authority
//!               └─► frames ──► hpack ──► huffman     value: http://127.0.0.1:2379
//!                   (blocks)   (fields)  (text)          ──► httpz..127.0.0.1z2379
//! ```
//! The new value is as long as the old one in every encoding (see `hpack`), so frames and tables stay as they are.
//! Nobody above reads it. An ordinary client is looked at until its first request, and never again; bytes to the
//! client are never looked at.

mod frames;
#[cfg(test)]
mod frames_test;
mod hpack;
mod huffman;

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use frames::Frames;

/// Bytes that are read at once while frames are looked at.
const CHUNK_BYTES: usize = 8 * 1024;

/// A client's socket whose header blocks h2 accepts.
#[derive(Debug)]
pub struct Mended<I> {
    io: I,
    /// `None` once nothing has to be looked at any more.
    frames: Option<Frames>,
}

impl<I> Mended<I> {
    /// `io` must be at its first byte.
    pub fn new(io: I) -> Self {
        Self { io, frames: Some(Frames::default()) }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Mended<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(frames) = &mut this.frames else { return Pin::new(&mut this.io).poll_read(cx, out) };
        while frames.ready().is_empty() && !frames.is_done() {
            let mut chunk = [MaybeUninit::uninit(); CHUNK_BYTES];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut chunk))?;
            match chunk.filled() {
                // The end: h2 shall see what is held, too.
                [] => frames.finish(),
                bytes => frames.put(bytes),
            }
        }
        let count = frames.ready().len().min(out.remaining());
        out.put_slice(&frames.ready()[..count]);
        frames.consume(count);
        if frames.is_done() && frames.ready().is_empty() {
            this.frames = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Mended<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
