//! An accepted socket, of whichever kind.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::tls;

/// How long a client may wait with its first byte where that byte decides: as long as where TLS alone is spoken.
const FIRST_BYTE_PATIENCE: Duration = tls::PATIENCE;
/// First byte of a TLS connection: a handshake record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// A client's socket.
pub(crate) struct Wire {
    stream: Stream,
    /// Was read to look at it, and comes first.
    held: Option<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Self {
        Self { stream: Stream::Tcp(stream), held: None }
    }
}

impl From<UnixStream> for Wire {
    fn from(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), held: None }
    }
}

impl Wire {
    /// Whether the client speaks TLS. One that says nothing is taken for one that does: a handshake has an end.
    pub(crate) async fn begins_tls(&mut self) -> bool {
        match tokio::time::timeout(FIRST_BYTE_PATIENCE, self.read_u8()).await {
            Ok(Ok(byte)) => {
                self.held = Some(byte);
                byte == TLS_HANDSHAKE
            }
            Ok(Err(_)) | Err(_) => true,
        }
    }
}

macro_rules! on {
    ($wire:expr, $method:ident($($argument:expr),*)) => {
        match &mut $wire.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(byte) = self.held.take_if(|_| out.remaining() > 0) {
            out.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        on!(self, poll_read(cx, out))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(self, poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        // Both kinds of sockets are.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, poll_shutdown(cx))
    }
}
