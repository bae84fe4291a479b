//! TLS below HTTP/2: rustls, with what etcdctl's flags say.
//!
//! A server is trusted if its chain ends at an authority of `--cacert` (without one: of the system), or if its very
//! certificate stands in that file: Go accepts that, and self-signed certificates of small setups live by it. The client's
//! own certificate is read again for every connection, so that a tool that runs for long takes up a renewed one.

use std::fmt::Display;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::Secure;
use crate::dial::Pipe;

/// HTTP/2 is what is spoken above; a server that does not choose it is none of ours.
const H2: &[u8] = b"h2";

/// Makes TLS out of a pipe.
#[derive(Clone)]
pub(crate) struct TlsDialler {
    provider: Arc<CryptoProvider>,
    trust: Arc<dyn ServerCertVerifier>,
    /// Files of our certificate and its key.
    identity: Option<(String, String)>,
    /// The name to look for instead of the endpoint's.
    server_name: Option<String>,
}

impl TlsDialler {
    /// What `secure` asks for; `None` if it does not ask for TLS. Every file is read, so that a mistake shows at once.
    ///
    /// Source: etcd `client/v3/config.go`, `client/pkg/transport`.
    pub(crate) fn from_config(secure: &Secure) -> Result<Option<TlsDialler>, String> {
        let Secure { cert, key, cacert, server_name, insecure_transport, insecure_skip_verify } = secure;
        let names_nothing = [cert, key, cacert, server_name].iter().all(|text| text.is_empty());
        if names_nothing && *insecure_transport && !*insecure_skip_verify {
            return Ok(None);
        }
        if cert.is_empty() != key.is_empty() {
            return Err(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let trust: Arc<dyn ServerCertVerifier> = if *insecure_skip_verify {
            Arc::new(Anybody(Arc::clone(&provider)))
        } else if cacert.is_empty() {
            Arc::new(Trust::of_the_system(&provider)?)
        } else {
            Arc::new(Trust::of(&provider, cacert)?)
        };
        let identity = (!cert.is_empty()).then(|| (cert.clone(), key.clone()));
        let server_name = (!server_name.is_empty()).then(|| server_name.clone());
        let dialler = TlsDialler { provider, trust, identity, server_name };
        dialler.config(&[])?;
        Ok(Some(dialler))
    }

    /// For `https://` without any setting: the authorities of the system.
    pub(crate) fn plain() -> Result<TlsDialler, String> {
        let tls = Secure { insecure_transport: false, ..Secure::default() };
        TlsDialler::from_config(&tls).map(|tls| tls.expect("it was asked for"))
    }

    /// Shakes hands with `name`, or with the name that was configured, and agrees on HTTP/2.
    pub(crate) async fn wrap(&self, pipe: Box<dyn Pipe>, name: &str) -> Result<Box<dyn Pipe>, String> {
        let stream = self.connect(pipe, name, &[H2]).await?;
        if stream.get_ref().1.alpn_protocol() != Some(H2) {
            return Err(failed("credentials: cannot check peer: missing selected ALPN property"));
        }
        Ok(Box::new(stream))
    }

    /// The same for HTTP/1, which servers speak when nothing is agreed on.
    pub(crate) async fn wrap_http1(&self, pipe: Box<dyn Pipe>, name: &str) -> Result<Box<dyn Pipe>, String> {
        Ok(Box::new(self.connect(pipe, name, &[]).await?))
    }

    async fn connect(
        &self,
        pipe: Box<dyn Pipe>,
        name: &str,
        protocols: &[&[u8]],
    ) -> Result<TlsStream<Box<dyn Pipe>>, String> {
        let config = self.config(protocols).map_err(failed)?;
        // A dot at the end says that a name is complete; certificates do without.
        let name = self.server_name.as_deref().unwrap_or(name).trim_end_matches('.');
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| failed(format_args!("{name:?} is no host name: no certificate can carry it")))?;
        TlsConnector::from(Arc::new(config)).connect(name, pipe).await.map_err(failed)
    }

    fn config(&self, protocols: &[&[u8]]) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.trust));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|why| format!("certificate {cert} and key {key} cannot be used together: {why}"))?,
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

fn failed(why: impl Display) -> String {
    format!("connection error: desc = \"transport: authentication handshake failed: {why}\"")
}

fn read(file: &str) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| match error.kind() {
        // In Go's words, which users look for.
        std::io::ErrorKind::NotFound => format!("open {file}: no such file or directory"),
        std::io::ErrorKind::PermissionDenied => format!("open {file}: permission denied"),
        _ => format!("read {file}: {error}"),
    })
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|why| format!("{file} holds a malformed certificate: {why}"))?;
    if found.is_empty() {
        return Err(format!(
            "{file}: tls: failed to find any PEM data in certificate input: it needs a block BEGIN CERTIFICATE"
        ));
    }
    Ok(found)
}

fn private_key(file: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|why| {
        format!("{file}: tls: failed to find any PEM data in key input: it needs an unencrypted PRIVATE KEY ({why})")
    })
}

/// Chains to known authorities, and known certificates themselves.
#[derive(Debug)]
struct Trust {
    chains: Arc<WebPkiServerVerifier>,
    /// Certificates of the file that was named; none for the system's.
    known: Vec<CertificateDer<'static>>,
}

impl Trust {
    fn of(provider: &Arc<CryptoProvider>, file: &str) -> Result<Trust, String> {
        let known = certificates(file)?;
        let mut roots = RootCertStore::empty();
        for certificate in &known {
            let added = roots.add(certificate.clone());
            added.map_err(|why| format!("{file} holds a certificate that is no authority: {why}"))?;
        }
        Trust::with(provider, roots, known)
    }

    fn of_the_system(provider: &Arc<CryptoProvider>) -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err("this system has no certificate authorities: name the server's with --cacert".into());
        }
        Trust::with(provider, roots, Vec::new())
    }

    fn with(
        provider: &Arc<CryptoProvider>,
        roots: RootCertStore,
        known: Vec<CertificateDer<'static>>,
    ) -> Result<Trust, String> {
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|why| why.to_string())?;
        Ok(Trust { chains, known })
    }

    /// Whether the server shows a certificate of the file itself: its issuer is then of no interest, its name and time
    /// are.
    fn knows(&self, shown: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        self.known.iter().any(|known| known == shown)
            && is_current(shown, now)
            && ParsedCertificate::try_from(shown).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

fn is_current(der: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    let validity = certificate.validity();
    let now = now.as_secs().cast_signed();
    validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp()
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(_) if self.knows(end_entity, server_name, now) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Trusts whoever answers, as `--insecure-skip-tls-verify` asks; only that it holds the key of what it shows is checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
