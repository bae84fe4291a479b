//! A client that speaks TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::authority::Identity;
use crate::keys::{PUT, put};
use crate::support::Client;

/// How to call.
#[derive(Clone)]
pub struct Caller {
    trusted: CertificateDer<'static>,
    identity: Option<Arc<Identity>>,
    alpn: Vec<&'static str>,
    suites: Vec<u16>,
    is_old: bool,
}

impl Caller {
    pub fn new(trusted: CertificateDer<'static>) -> Self {
        Self { trusted, identity: None, alpn: vec!["h2"], suites: Vec::new(), is_old: false }
    }

    pub fn with(mut self, identity: Identity) -> Self {
        self.identity = Some(Arc::new(identity));
        self
    }

    pub fn alpn(mut self, names: &[&'static str]) -> Self {
        self.alpn = names.to_vec();
        self
    }

    /// Speaks TLS 1.2 at most.
    pub fn old(mut self) -> Self {
        self.is_old = true;
        self
    }

    /// Has these suites alone.
    pub fn suites(mut self, numbers: &[u16]) -> Self {
        self.suites = numbers.to_vec();
        self
    }

    fn config(&self) -> ClientConfig {
        let mut provider = aws_lc_rs::default_provider();
        if !self.suites.is_empty() {
            provider.cipher_suites.retain(|suite| self.suites.contains(&u16::from(suite.suite())));
        }
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let versions: &[_] = if self.is_old { &[&TLS12] } else { &[&TLS13, &TLS12] };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// Shakes hands. That the server agrees shows only in an answer.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_over(TcpStream::connect(address).await?).await
    }

    pub async fn connect_over<I: AsyncRead + AsyncWrite + Unpin>(&self, socket: I) -> std::io::Result<TlsStream<I>> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(self.config())).connect(name, socket).await
    }

    /// A gRPC client.
    pub async fn client(&self, address: SocketAddr) -> Client {
        Client::over(self.connect(address).await.expect("a handshake")).await
    }

    /// Asks for a page by HTTP/1.1: the answer, or why there is none.
    pub async fn page(&self, address: SocketAddr, path: &str) -> Result<String, String> {
        let mut stream = self.connect(address).await.map_err(|why| why.to_string())?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|why| why.to_string())?;
        let mut answer = String::new();
        match stream.read_to_string(&mut answer).await {
            Ok(0) => Err("the server closed".into()),
            Ok(_) => Ok(answer),
            Err(why) => Err(why.to_string()),
        }
    }

    /// Whether a put is answered.
    pub async fn puts(&self, address: SocketAddr) {
        let mut client = self.client(address).await;
        let _: milepost_proto::etcdserverpb::PutResponse = client.unary(PUT, &put("a", "1")).await.unwrap();
    }

    /// Why the server does not let this caller in.
    pub async fn refusal(&self, address: SocketAddr) -> String {
        self.clone().alpn(&["http/1.1"]).page(address, "/version").await.expect_err("not let in")
    }
}
