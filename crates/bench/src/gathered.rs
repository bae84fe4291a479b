//! The bytes below HTTP/2: a socket, or TLS on one, that claims no vectored writes, so that `h2` gathers frames.
//!
//! With vectored writes `h2` hands DATA frames from 256 bytes up to the kernel where they lie, one frame per system
//! call. A put of 256 bytes is just above that: 1.1 calls per put, 14 µs of the generator's CPU; gathered it is one
//! call for all the requests that a connection has ready, and a copy of some hundred bytes each.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Whatever carries bytes both ways.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// Reads and writes as what is inside does, one buffer at a time.
pub enum Gathered {
    /// A socket, without a detour through a table of functions: most runs are on these.
    Plain(TcpStream),
    /// TLS.
    Secure(Box<dyn Pipe>),
}

impl Gathered {
    fn pipe(self: Pin<&mut Self>) -> Pin<&mut dyn Pipe> {
        match self.get_mut() {
            Gathered::Plain(stream) => Pin::new(stream),
            Gathered::Secure(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl AsyncRead for Gathered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Gathered::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Gathered::Secure(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Gathered::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Gathered::Secure(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}
