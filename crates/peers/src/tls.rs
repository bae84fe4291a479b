//! TLS as the one who calls: rustls, with what the peer flags say.
//!
//! A server is trusted if its chain ends at an authority of `--peer-trusted-ca-file` (without one: of the system), or if
//! its very certificate stands in that file: Go accepts that, and self-signed certificates of small setups live by it.
//! Every file that was named is read again for every connection, so that a renewed certificate needs no restart. Nothing is
//! offered by ALPN: members speak HTTP/1.1, and an etcd that is offered `h2` would choose it and not speak it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use milepost_trust::{Names, Trust};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, SupportedProtocolVersion};

use crate::dial::Pipe;

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `TLS1.2`
    V12,
    /// `TLS1.3`
    V13,
}

/// How other members are called over `https`. Source: etcd `TLSInfo.ClientConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Our certificate with the chain above it, and its key, both PEM: `--peer-client-cert-file` and
    /// `--peer-client-key-file`, without those `--peer-cert-file` and `--peer-key-file`.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Authorities for the certificates of others, PEM (`--peer-trusted-ca-file`); `None`: the system's.
    pub trusted_ca_file: Option<PathBuf>,
    /// Others' certificates are not looked at (`--peer-auto-tls`).
    pub skip_verify: bool,
    /// The name to look for in others' certificates instead of that of their URL.
    pub server_name: Option<String>,
    /// The other's certificate must be for one of these; empty: for any (`--peer-cert-allowed-hostname`).
    pub allowed_hostnames: Vec<String>,
    /// Its common name must be one of these; empty: any (`--peer-cert-allowed-cn`).
    pub allowed_cns: Vec<String>,
    /// Suites for TLS 1.2 by their numbers; empty: all that are safe (`--cipher-suites`).
    pub cipher_suites: Vec<u16>,
    /// Oldest version (`--tls-min-version`).
    pub min_version: Option<TlsVersion>,
    /// Newest version (`--tls-max-version`).
    pub max_version: Option<TlsVersion>,
}

/// Makes TLS out of a pipe.
pub(crate) struct TlsDialler {
    settings: TlsSettings,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    /// What the system trusts; read when it is wanted first.
    system: OnceLock<Trust>,
}

impl TlsDialler {
    /// Reads every file once, so that a mistake shows at once.
    ///
    /// # Errors
    /// Which file or setting is no good, and why.
    pub(crate) fn new(settings: TlsSettings) -> Result<Self, String> {
        let mut provider = aws_lc_rs::default_provider();
        if !settings.cipher_suites.is_empty() {
            // As in Go, the choice is about TLS 1.2; all of 1.3 stay.
            let chosen = |suite: u16| settings.cipher_suites.contains(&suite);
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || chosen(u16::from(suite.suite())));
        }
        let mut versions = Vec::new();
        if settings.max_version != Some(TlsVersion::V12) {
            versions.push(&TLS13);
        }
        if settings.min_version != Some(TlsVersion::V13) && provider.cipher_suites.iter().any(|s| s.tls13().is_none()) {
            versions.push(&TLS12);
        }
        if versions.is_empty() {
            return Err(
                "--cipher-suites, --tls-min-version and --tls-max-version together leave no way to connect".into()
            );
        }
        let dialler = Self { settings, provider: Arc::new(provider), versions, system: OnceLock::new() };
        dialler.config(false)?;
        Ok(dialler)
    }

    /// Shakes hands with `name`, or with the name that was configured.
    ///
    /// # Errors
    /// In Go's words where operators know them.
    pub(crate) async fn wrap(&self, pipe: Box<dyn Pipe>, name: &str) -> Result<TlsStream<Box<dyn Pipe>>, String> {
        let config = self.config(true)?;
        let name = self.settings.server_name.as_deref().unwrap_or(name);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("{name:?} is no host name: no certificate can be for it"))?;
        TlsConnector::from(Arc::new(config)).connect(name, pipe).await.map_err(|why| why.to_string())
    }

    /// `with_system`: the system's authorities are read if they are needed. That takes long, and they are not wanted
    /// before somebody is called.
    fn config(&self, with_system: bool) -> Result<ClientConfig, String> {
        let settings = &self.settings;
        let trust = match &settings.trusted_ca_file {
            _ if settings.skip_verify => Trust::of_anybody(&self.provider),
            Some(file) => Trust::of(&self.provider, certificates(file)?, file)?,
            None if with_system => self.of_the_system()?,
            None => Trust::of_anybody(&self.provider),
        };
        // etcd asks for them at both ends of a connection.
        let names = Names::new(&settings.allowed_hostnames, &settings.allowed_cns, "--peer-cert-allowed-hostname")?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&self.versions)
            .map_err(|why| format!("TLS cannot be set up: {why}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust.only(names)));
        let mut config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|why| {
                    let (cert, key) = (cert.display(), key.display());
                    format!("certificate {cert} and key {key} cannot be used together: {why}")
                })?
            }
        };
        // A resumed session would not be held against new authorities.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    fn of_the_system(&self) -> Result<Trust, String> {
        if let Some(trust) = self.system.get() {
            return Ok(trust.clone());
        }
        let trust = Trust::of_the_system(&self.provider)?
            .ok_or("this system has no certificate authorities: name the members' with --peer-trusted-ca-file")?;
        Ok(self.system.get_or_init(|| trust).clone())
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = milepost_trust::certificates(file)?;
    if found.is_empty() {
        return Err(format!("{}: no CERTIFICATE block (PEM) in it", file.display()));
    }
    Ok(found)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&milepost_trust::read(file)?)
        .map_err(|why| format!("{}: no private key in PEM, without password, in it: {why}", file.display()))
}
