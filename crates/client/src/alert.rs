//! What a server says about our certificate, where a broken pipe would hide it.
//!
//! By TLS 1.3 a client has shaken hands before the server has looked at the certificate. A server that wants another one
//! sends an alert and closes; what the client writes then fails, and the reason waits unread.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{self, AlertDescription};

use crate::dial::Pipe;

/// A stream whose errors name the alert, in Go's words.
pub(crate) struct Attentive {
    stream: TlsStream<Box<dyn Pipe>>,
    /// Every error after an alert is its consequence.
    alert: Option<AlertDescription>,
}

impl Attentive {
    pub(crate) fn new(stream: TlsStream<Box<dyn Pipe>>) -> Attentive {
        Attentive { stream, alert: None }
    }

    /// Why nothing can be written: what the other end said before it went, or else `error`.
    fn reason(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        let mut bytes = [0; 1024];
        while self.alert.is_none() {
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                // Data of a connection that is lost.
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(Err(heard)) if alert(&heard).is_some() => self.alert = alert(&heard),
                _ => return error,
            }
        }
        self.alert.map_or(error, |alert| worded(io::Error::other(rustls::Error::AlertReceived(alert))))
    }
}

fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// An alert as Go words it, as far as it is about certificates; other errors stay.
pub(crate) fn worded(error: io::Error) -> io::Error {
    let text = match alert(&error) {
        Some(AlertDescription::CertificateRequired) => "certificate required",
        Some(AlertDescription::BadCertificate) => "bad certificate",
        Some(AlertDescription::UnsupportedCertificate) => "unsupported certificate",
        Some(AlertDescription::CertificateRevoked) => "revoked certificate",
        Some(AlertDescription::CertificateExpired) => "expired certificate",
        Some(AlertDescription::CertificateUnknown) => "unknown certificate",
        Some(AlertDescription::UnknownCA) => "unknown certificate authority",
        Some(AlertDescription::AccessDenied) => "access denied",
        Some(AlertDescription::HandshakeFailure) => "handshake failure",
        Some(AlertDescription::ProtocolVersion) => "protocol version not supported",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("remote error: tls: {text}"))
}

impl AsyncRead for Attentive {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf).map_err(|error| {
            self.alert = self.alert.or_else(|| alert(&error));
            worded(error)
        })
    }
}

impl AsyncWrite for Attentive {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf).map_err(|error| self.reason(cx, error))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs).map_err(|error| self.reason(cx, error))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|error| self.reason(cx, error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // HTTP/2 closes after an error, and shows the error of that instead of the first.
        Pin::new(&mut self.stream).poll_shutdown(cx).map_err(|error| self.reason(cx, error))
    }
}
