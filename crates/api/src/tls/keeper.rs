//! Certificates in force: read at start, and again when a file has changed.
//!
//! ```text
//!  cert + key ─► identity ────┐
//!  trusted CA ─► authorities ─┼─► Terms (two rustls configurations) ─► the next handshake
//!  CRL ────────► revoked ─────┘
//! ```
//! Every handshake asks the files' names for their stamps (a few microseconds, beside hundreds for the handshake); only
//! a file that changed is read. Connections that are open stay as they are.

use std::sync::Arc;

use milepost_node::log::Log;
use parking_lot::Mutex;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ServerConfig, SupportedProtocolVersion};

use super::files::Part;
use super::gate::{self, Gate};
use super::revoked::Revoked;
use super::settings::{TlsSettings, TlsVersion};

/// What a handshake goes by.
pub(super) struct Terms {
    /// HTTP/2 by ALPN.
    pub(super) with_alpn: Arc<ServerConfig>,
    /// For clients that speak of HTTP/1.1 alone: as if ALPN did not exist.
    pub(super) without_alpn: Arc<ServerConfig>,
    pub(super) revocations: Revocations,
}

/// Which certificates are no longer good.
#[derive(Clone)]
pub(super) enum Revocations {
    /// There is no list.
    None,
    /// There should be a list, and it could never be read: nobody with a certificate is let in.
    Unreadable,
    /// These.
    List(Arc<Revoked>),
}

/// Keeps [`Terms`] up to date; shared by the doors.
pub(crate) struct Keeper {
    settings: TlsSettings,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    log: Arc<dyn Log>,
    /// Held while files are looked at and read; never across an await.
    state: Mutex<State>,
}

struct State {
    identity: Part<Arc<CertifiedKey>>,
    authorities: Option<Part<Vec<CertificateDer<'static>>>>,
    /// The system's; read once.
    system: Vec<CertificateDer<'static>>,
    revoked: Option<Part<Arc<Revoked>>>,
    terms: Arc<Terms>,
}

impl Keeper {
    /// See [`TlsSettings::skip_san_verification`].
    pub(crate) fn skips_san_verification(&self) -> bool {
        self.settings.skip_san_verification
    }

    /// Reads the files of `settings`.
    ///
    /// # Errors
    /// The file and what is wrong with it, or settings that exclude each other. A list of revoked certificates that
    /// cannot be read is none: certificates are refused until it can.
    pub(crate) fn new(settings: TlsSettings, log: Arc<dyn Log>) -> Result<Self, String> {
        if !settings.allowed_cns.is_empty() && !settings.allowed_hostnames.is_empty() {
            return Err(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={:?}, hostnames={:?})",
                settings.allowed_cns, settings.allowed_hostnames
            ));
        }
        let (cert, key) = (settings.cert_file.display(), settings.key_file.display());
        if settings.cert_file.as_os_str().is_empty() || settings.key_file.as_os_str().is_empty() {
            return Err(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"));
        }
        let (provider, versions) = spoken(&settings)?;
        let mut identity = identity(&settings, &provider);
        identity.refresh(true)?;
        let mut authorities = settings.trusted_ca_file.as_ref().map(|path| {
            let name = path.display().to_string();
            Part::new(vec![path.clone()], move |bytes| {
                gate::authorities(&bytes[0]).map_err(|why| format!("--trusted-ca-file {name}: {why}"))
            })
        });
        let system = match &mut authorities {
            Some(part) => part.refresh(true).map(|_| Vec::new())?,
            None if settings.client_cert_auth => gate::system_authorities()?,
            None => Vec::new(),
        };
        let mut revoked = settings.crl_file.as_ref().map(|path| {
            let name = path.display().to_string();
            Part::new(vec![path.clone()], move |bytes| {
                Revoked::read(&bytes[0]).map(Arc::new).map_err(|why| format!("--client-crl-file {name}: {why}"))
            })
        });
        if let Some(Err(why)) = revoked.as_mut().map(|part| part.refresh(true)) {
            log.warn(
                "every client certificate is refused until the revocation list can be read",
                &[("error", why.into())],
            );
        }
        let terms = terms(&settings, &provider, &versions, &identity, authorities.as_ref(), &system, revoked.as_ref())?;
        let state = Mutex::new(State { identity, authorities, system, revoked, terms: Arc::new(terms) });
        Ok(Self { settings, provider, versions, log, state })
    }

    /// What the next handshake goes by.
    pub(super) fn terms(&self) -> Arc<Terms> {
        self.refresh(false)
    }

    /// Reads the files again, changed or not.
    pub(crate) fn reload(&self) {
        self.refresh(true);
    }

    fn refresh(&self, is_forced: bool) -> Arc<Terms> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let results = [
            state.identity.refresh(is_forced),
            state.authorities.as_mut().map_or(Ok(false), |part| part.refresh(is_forced)),
            state.revoked.as_mut().map_or(Ok(false), |part| part.refresh(is_forced)),
        ];
        if results.iter().all(|result| *result == Ok(false)) && !is_forced {
            return Arc::clone(&state.terms);
        }
        for why in results.iter().filter_map(|result| result.as_ref().err()) {
            self.log
                .warn("TLS goes on with what it had: a file changed and is no good", &[("error", why.as_str().into())]);
        }
        if results.contains(&Ok(true)) {
            let (settings, authorities) = (&self.settings, state.authorities.as_ref());
            let (identity, revoked) = (&state.identity, state.revoked.as_ref());
            match terms(settings, &self.provider, &self.versions, identity, authorities, &state.system, revoked) {
                Ok(terms) => {
                    state.terms = Arc::new(terms);
                    self.log.info("TLS files were read again", &[]);
                }
                Err(why) => self.log.warn("TLS goes on with what it had", &[("error", why.into())]),
            }
        } else if is_forced && results.iter().all(Result::is_ok) {
            self.log.info("TLS files are unchanged", &[]);
        }
        Arc::clone(&state.terms)
    }
}

fn identity(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Part<Arc<CertifiedKey>> {
    let (cert_name, key_name) = (settings.cert_file.display().to_string(), settings.key_file.display().to_string());
    let provider = Arc::clone(provider);
    Part::new(vec![settings.cert_file.clone(), settings.key_file.clone()], move |bytes| {
        let chain = CertificateDer::pem_slice_iter(&bytes[0])
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| format!("certificate {cert_name}: not readable as PEM: {why}"))?;
        if chain.is_empty() {
            return Err(format!("certificate {cert_name}: no CERTIFICATE block (PEM) in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(&bytes[1])
            .map_err(|why| format!("key {key_name}: no private key in PEM, without password, in it: {why}"))?;
        CertifiedKey::from_der(chain, key, &provider).map(Arc::new).map_err(|why| match why {
            rustls::Error::InconsistentKeys(_) => {
                format!("certificate {cert_name} and key {key_name} do not belong together")
            }
            why => format!("certificate {cert_name} with key {key_name}: {why}"),
        })
    })
}

/// The cryptography and versions that `settings` leave.
fn spoken(settings: &TlsSettings) -> Result<(Arc<CryptoProvider>, Vec<&'static SupportedProtocolVersion>), String> {
    let mut provider = aws_lc_rs::default_provider();
    let chosen = &settings.cipher_suites;
    if !chosen.is_empty() {
        // As in Go, the choice is about TLS 1.2; all of 1.3 stay.
        provider.cipher_suites.retain(|suite| {
            suite.tls13().is_some() || chosen.iter().any(|chosen| chosen.number == u16::from(suite.suite()))
        });
    }
    let has_suite_of_12 = provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
    let oldest = settings.min_version.unwrap_or(TlsVersion::V12);
    let newest = settings.max_version.unwrap_or(TlsVersion::V13);
    let mut versions = Vec::new();
    if newest >= TlsVersion::V13 {
        versions.push(&TLS13);
    }
    if oldest <= TlsVersion::V12 && has_suite_of_12 {
        versions.push(&TLS12);
    }
    if versions.is_empty() {
        return Err("--cipher-suites, --tls-min-version and --tls-max-version together leave no way to connect".into());
    }
    Ok((Arc::new(provider), versions))
}

fn terms(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    identity: &Part<Arc<CertifiedKey>>,
    authorities: Option<&Part<Vec<CertificateDer<'static>>>>,
    system: &[CertificateDer<'static>],
    revoked: Option<&Part<Arc<Revoked>>>,
) -> Result<Terms, String> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|why| format!("TLS cannot be set up: {why}"))?;
    let builder = if settings.demands_certificate() {
        let anchors = authorities.and_then(Part::value).map_or(system, Vec::as_slice).to_vec();
        builder.with_client_cert_verifier(Arc::new(Gate::new(anchors, settings, provider)?))
    } else {
        builder.with_no_client_auth()
    };
    let identity = identity.value().ok_or("there is no certificate")?;
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity))));
    // A resumed session would not be held against new authorities, names and revocations.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let without_alpn = Arc::new(config.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let revocations = match revoked.map(Part::value) {
        None => Revocations::None,
        Some(None) => Revocations::Unreadable,
        Some(Some(list)) => Revocations::List(Arc::clone(list)),
    };
    Ok(Terms { with_alpn: Arc::new(config), without_alpn, revocations })
}
