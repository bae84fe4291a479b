//! From an accepted socket to a TLS stream of somebody who may call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use milepost_node::log::{Level, Log, Value};
use milepost_trust::Subject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::keeper::{Keeper, Revocations};
use super::remote::{self, Names, System};

/// How long a client may take, look-ups of its names with it. Source: `facts/http.md` §9.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a listener asks for beyond certificates.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demands {
    /// ALPN must have chosen HTTP/2, as gRPC libraries insist.
    pub(crate) http2: bool,
    /// The certificate must be for the address that it comes from.
    pub(crate) own_address: bool,
}

/// A client that was let in.
pub(crate) struct Guest<I> {
    pub(crate) stream: TlsStream<I>,
    /// ALPN chose HTTP/2.
    pub(crate) is_http2: bool,
}

/// Why a client was not let in, as far as it is known who that is.
struct Rejection {
    why: String,
    /// It went away by itself.
    is_eof: bool,
    server_name: String,
    subject: Option<Subject>,
}

/// Shakes hands with the client behind `io`; `None` after a line in the log.
pub(crate) async fn shake<I: AsyncRead + AsyncWrite + Unpin>(
    keeper: &Keeper,
    log: &dyn Log,
    io: I,
    remote: Option<SocketAddr>,
    demands: Demands,
) -> Option<Guest<I>> {
    let shaken = attempt(PATIENCE, &System, keeper, io, remote, demands).await;
    match shaken {
        Ok(guest) => {
            tell_guest(log, &guest, remote);
            Some(guest)
        }
        Err(rejection) => {
            rejection.tell(log, remote);
            None
        }
    }
}

fn tell_guest<I>(log: &dyn Log, guest: &Guest<I>, remote: Option<SocketAddr>) {
    let session = guest.stream.get_ref().1;
    log.debug_with("shook hands with a client", || {
        let name = session.peer_certificates().and_then(|shown| Subject::read(shown.first()?));
        [
            ("remote-addr", remote.map_or_else(|| "@".to_owned(), |remote| remote.to_string()).into()),
            ("server-name", session.server_name().unwrap_or_default().into()),
            ("version", session.protocol_version().map_or_else(String::new, |version| format!("{version:?}")).into()),
            (
                "cipher-suite",
                session
                    .negotiated_cipher_suite()
                    .map_or_else(String::new, |suite| format!("{:?}", suite.suite()))
                    .into(),
            ),
            ("http2", guest.is_http2.into()),
            ("common-name", name.map_or_else(String::new, |subject| subject.common_name).into()),
        ]
    });
}

async fn attempt<I: AsyncRead + AsyncWrite + Unpin>(
    patience: Duration,
    names: &impl Names,
    keeper: &Keeper,
    io: I,
    remote: Option<SocketAddr>,
    demands: Demands,
) -> Result<Guest<I>, Rejection> {
    let shaking = async { check(names, agree(keeper, io).await?, remote, demands).await };
    match tokio::time::timeout(patience, shaking).await {
        Ok(shaken) => shaken,
        Err(_) => Err(Rejection::before(format!("i/o timeout: the handshake took longer than {patience:?}"))),
    }
}

struct Agreed<I> {
    stream: TlsStream<I>,
    server_name: String,
    revocations: Revocations,
}

async fn agree<I: AsyncRead + AsyncWrite + Unpin>(keeper: &Keeper, io: I) -> Result<Agreed<I>, Rejection> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), io).await.map_err(|why| Rejection::io(&why))?;
    let terms = keeper.terms();
    let server_name = start.client_hello().server_name().unwrap_or_default().to_owned();
    let config = if speaks_of_http1_alone(&start) { &terms.without_alpn } else { &terms.with_alpn };
    match start.into_stream(config.clone()).await {
        Ok(stream) => Ok(Agreed { stream, server_name, revocations: terms.revocations.clone() }),
        Err(why) => Err(Rejection { server_name, ..Rejection::io(&why) }),
    }
}

/// Its ALPN has HTTP/1.1 and not HTTP/2: Go serves it as if it had none.
fn speaks_of_http1_alone<I: AsyncRead + AsyncWrite + Unpin>(start: &StartHandshake<I>) -> bool {
    let hello = start.client_hello();
    let offers = |name: &[u8]| hello.alpn().is_some_and(|mut names| names.any(|offered| offered == name));
    offers(b"http/1.1") && !offers(b"h2")
}

async fn check<I>(
    names: &impl Names,
    agreed: Agreed<I>,
    remote: Option<SocketAddr>,
    demands: Demands,
) -> Result<Guest<I>, Rejection> {
    let Agreed { stream, server_name, revocations } = agreed;
    let session = stream.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let certificates = session.peer_certificates().unwrap_or_default();
    let subject = certificates.first().and_then(Subject::read);
    let why = match (&revocations, certificates) {
        (Revocations::None, _) | (_, []) => None,
        (Revocations::Unreadable, _) => Some("the revocation list cannot be read".to_owned()),
        (Revocations::List(list), shown) => {
            list.find(shown).map(|serial| format!("transport: certificate serial {serial} revoked"))
        }
    };
    let why = match remote {
        Some(remote) if why.is_none() && demands.own_address && !certificates.is_empty() => {
            stranger(names, subject.as_ref(), remote.ip()).await
        }
        _ => why,
    };
    let why = why.or_else(|| {
        let text = "credentials: cannot check peer: missing selected ALPN property";
        (demands.http2 && !is_http2).then(|| text.to_owned())
    });
    match why {
        None => Ok(Guest { stream, is_http2 }),
        Some(why) => Err(Rejection { why, is_eof: false, server_name, subject }),
    }
}

/// Why who shows the certificate of `subject` must not come from `remote`. One that cannot be read might say anything.
async fn stranger(names: &impl Names, subject: Option<&Subject>, remote: IpAddr) -> Option<String> {
    match subject {
        Some(subject) => remote::mismatch(names, subject, remote).await,
        None => Some("x509: the certificate cannot be read, or not what it is for".into()),
    }
}

impl Rejection {
    fn before(why: String) -> Self {
        Self { why, is_eof: false, server_name: String::new(), subject: None }
    }

    fn io(why: &io::Error) -> Self {
        let tls = why.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let is_eof = why.kind() == io::ErrorKind::UnexpectedEof;
        let text = match tls {
            _ if is_eof => "EOF".to_owned(),
            Some(tls) => spelled(tls),
            None => why.to_string(),
        };
        Self { is_eof, ..Self::before(text) }
    }

    /// Source: etcd `logTLSHandshakeFailureFunc`.
    fn tell(self, log: &dyn Log, remote: Option<SocketAddr>) {
        let address = remote.map_or_else(|| "@".to_owned(), |remote| remote.to_string());
        let mut fields: Vec<(&str, Value)> =
            vec![("remote-addr", address.into()), ("server-name", self.server_name.into())];
        if let Some(subject) = self.subject {
            let addresses = subject.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
            fields.extend([("ip-addresses", addresses.into()), ("dns-names", subject.hosts.into())]);
        }
        fields.push(("error", self.why.into()));
        let level = if self.is_eof { Level::Debug } else { Level::Warn };
        log.log(level, None, "rejected connection on client endpoint", &fields);
    }
}

/// The usual failures in the words that operators of etcd know.
fn spelled(why: &rustls::Error) -> String {
    let unverified = |why: &str| format!("tls: failed to verify certificate: x509: {why}");
    match why {
        rustls::Error::NoCertificatesPresented => "tls: client didn't provide a certificate".into(),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            unverified("certificate signed by unknown authority")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => unverified("certificate has expired or is not yet valid"),
        rustls::Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => unverified("certificate specifies an incompatible key usage"),
        rustls::Error::InvalidCertificate(CertificateError::NotValidForName) => {
            "client certificate authentication failed".into()
        }
        rustls::Error::InvalidMessage(_) => "tls: first record does not look like a TLS handshake".into(),
        rustls::Error::AlertReceived(AlertDescription::BadCertificate) => "remote error: tls: bad certificate".into(),
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => {
            "remote error: tls: unknown certificate authority".into()
        }
        why => format!("tls: {why}"),
    }
}

#[cfg(test)]
#[path = "handshake_test.rs"]
mod tests;
