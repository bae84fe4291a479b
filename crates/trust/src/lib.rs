//! Whose certificate is believed: by those who call others (etcdctl, members), and what a certificate is for, by these and
//! by the doors that others call.
//!
//! A server is trusted if its chain ends at a known authority, or if its very certificate stands in the file of
//! authorities: Go accepts that, and self-signed certificates of small setups live by it.
//!
//! What never happens here: sockets, handshakes, which files are meant; words about flags are the callers'.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

mod certificate;

use certificate::is_current;
pub use certificate::{Names, Subject, is_for_clients};

/// The bytes of `file`.
///
/// # Errors
/// In Go's words, which users and operators look for.
pub fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("open {}: no such file or directory", file.display()),
        std::io::ErrorKind::PermissionDenied => format!("open {}: permission denied", file.display()),
        _ => format!("read {}: {error}", file.display()),
    })
}

/// The certificates (PEM) in `file`; none if it holds no such block.
///
/// # Errors
/// It cannot be read, or a block is malformed.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    found.map_err(|why| format!("{} holds a malformed certificate: {why}", file.display()))
}

/// Whom a caller believes.
#[derive(Clone, Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    /// Chains to known authorities; `None`: whoever answers is believed.
    chains: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates of the file that was named, believed themselves; none for the system's.
    known: Vec<CertificateDer<'static>>,
    names: Names,
}

impl Trust {
    /// Believes what the certificates `known`, read from `file`, vouch for, and themselves.
    ///
    /// # Errors
    /// One of them cannot be an authority.
    pub fn of(
        provider: &Arc<CryptoProvider>,
        known: Vec<CertificateDer<'static>>,
        file: &Path,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in &known {
            let added = roots.add(certificate.clone());
            added.map_err(|why| format!("{} holds a certificate that is no authority: {why}", file.display()))?;
        }
        Self::with(provider, roots, known)
    }

    /// Believes what the system's authorities vouch for; `None`: it has none.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn of_the_system(provider: &Arc<CryptoProvider>) -> Result<Option<Self>, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        (!roots.is_empty()).then(|| Self::with(provider, roots, Vec::new())).transpose()
    }

    /// Believes whoever answers; only that it holds the key of what it shows is checked.
    #[must_use]
    pub fn of_anybody(provider: &Arc<CryptoProvider>) -> Self {
        Self { provider: Arc::clone(provider), chains: None, known: Vec::new(), names: Names::default() }
    }

    fn with(
        provider: &Arc<CryptoProvider>,
        roots: RootCertStore,
        known: Vec<CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|why| why.to_string())?;
        Ok(Self { chains: Some(chains), known, ..Self::of_anybody(provider) })
    }

    /// Believes of these only who has one of `names`.
    #[must_use]
    pub fn only(self, names: Names) -> Self {
        Self { names, ..self }
    }

    /// Whether the server shows a certificate of the file itself: its issuer is then of no interest, its name and time
    /// are.
    fn knows(&self, shown: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        self.known.iter().any(|known| known == shown)
            && is_current(shown, now)
            && ParsedCertificate::try_from(shown).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
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
        if let Some(chains) = &self.chains
            && let Err(why) = chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            && !self.knows(end_entity, server_name, now)
        {
            return Err(why);
        }
        if !self.names.admit(end_entity) {
            return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
