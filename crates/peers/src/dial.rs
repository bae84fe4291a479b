//! From a peer URL to an HTTP/1.1 connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use milepost_types::refused::worded;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::{TlsDialler, TlsSettings};
use crate::url::{Address, PeerUrl};

/// A connected pipe, whatever it is made of.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// Opens connections to other members. Clones share the settings.
#[derive(Clone)]
pub(crate) struct Dialler {
    /// For `https`; `None`: nothing was configured, the system's authorities decide.
    tls: Arc<TlsDialler>,
    timeout: Duration,
}

impl Dialler {
    /// `timeout`: for TCP and TLS together.
    ///
    /// # Errors
    /// A file of `tls` is no good.
    pub(crate) fn new(tls: TlsSettings, timeout: Duration) -> Result<Self, String> {
        Ok(Self { tls: Arc::new(TlsDialler::new(tls)?), timeout })
    }

    /// A pipe to `url`.
    ///
    /// # Errors
    /// Why there is none, in words for the log.
    pub(crate) async fn pipe(&self, url: &PeerUrl) -> Result<Box<dyn Pipe>, String> {
        match tokio::time::timeout(self.timeout, self.open(url)).await {
            Ok(result) => result,
            Err(_) => Err(dialling(url, "i/o timeout")),
        }
    }

    async fn open(&self, url: &PeerUrl) -> Result<Box<dyn Pipe>, String> {
        let pipe = connect(&url.address).await.map_err(|why| dialling(url, &worded(&why)))?;
        if !url.is_tls {
            return Ok(pipe);
        }
        Ok(Box::new(self.tls.wrap(pipe, &url.server_name).await?))
    }

    /// An HTTP/1.1 connection to `url`: the half that sends requests, and the one that must be polled for anything to
    /// happen.
    ///
    /// # Errors
    /// As [`Dialler::pipe`].
    pub(crate) async fn http<B>(
        &self,
        url: &PeerUrl,
    ) -> Result<(http1::SendRequest<B>, http1::Connection<TokioIo<Box<dyn Pipe>>, B>), String>
    where
        B: Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let pipe = self.pipe(url).await?;
        http1::handshake(TokioIo::new(pipe)).await.map_err(|why| why.to_string())
    }
}

async fn connect(address: &Address) -> io::Result<Box<dyn Pipe>> {
    Ok(match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

fn dialling(url: &PeerUrl, why: &str) -> String {
    match &url.address {
        Address::Tcp(address) => format!("dial tcp {address}: {why}"),
        Address::Unix(path) => format!("dial unix {}: {why}", path.display()),
    }
}
