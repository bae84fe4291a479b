//! Who may call: certificates of clients.

use std::sync::Arc;

use milepost_trust::{Names, is_for_clients};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::settings::TlsSettings;

/// Demands a certificate that an authority vouches for and whose name is allowed. Source: etcd
/// `TLSInfo.baseConfig`; `facts/http.md` §9.
#[derive(Debug)]
pub(super) struct Gate {
    chain: Arc<dyn ClientCertVerifier>,
    /// The authorities' own certificates. A client may show one of them: who uses a self-signed certificate lists it as
    /// its own authority, which a chain of certificates would not allow.
    anchors: Vec<CertificateDer<'static>>,
    names: Names,
}

/// Certificates of authorities in PEM.
///
/// # Errors
/// None, or one that is not one.
pub(super) fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let anchors = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| format!("not readable as PEM: {why}"))?;
    if anchors.is_empty() {
        return Err("no CERTIFICATE block (PEM) in it: no client could be let in".into());
    }
    let mut roots = RootCertStore::empty();
    for (number, anchor) in anchors.iter().enumerate() {
        roots.add(anchor.clone()).map_err(|why| format!("certificate {} of it: {why}", number + 1))?;
    }
    Ok(anchors)
}

/// The authorities that the system trusts.
///
/// # Errors
/// There are none.
pub(super) fn system_authorities() -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = rustls_native_certs::load_native_certs().certs;
    if certificates.is_empty() {
        return Err("--client-cert-auth without --trusted-ca-file asks the system's authorities, and there are none: give --trusted-ca-file, or install the system's certificates (SSL_CERT_FILE names another bundle)".into());
    }
    Ok(certificates)
}

impl Gate {
    /// # Errors
    /// A name of `settings` is no name, or no anchor can be used.
    pub(super) fn new(
        anchors: Vec<CertificateDer<'static>>,
        settings: &TlsSettings,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        // Those of the system may hold oddities; a file of the operator's has been looked at already.
        roots.add_parsable_certificates(anchors.iter().cloned());
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(Self {
            chain: chain.build().map_err(|why| format!("clients cannot be verified: {why}"))?,
            anchors,
            names: Names::new(&settings.allowed_hostnames, &settings.allowed_cns, "--client-cert-allowed-hostname")?,
        })
    }
}

impl ClientCertVerifier for Gate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let is_anchor = self.anchors.iter().any(|anchor| anchor == leaf) && is_for_clients(leaf, now);
        if !is_anchor {
            self.chain.verify_client_cert(leaf, intermediates, now)?;
        }
        if !self.names.admit(leaf) {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
