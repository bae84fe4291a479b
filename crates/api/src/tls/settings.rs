//! What operators say about TLS.

use std::path::PathBuf;
use std::str::FromStr;

use super::suites::CipherSuite;

/// Certificates of the client port, and who may call. Source: `facts/http.md` §9.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The server's certificate and the chain above it, PEM (`--cert-file`).
    pub cert_file: PathBuf,
    /// Its key, PEM (`--key-file`).
    pub key_file: PathBuf,
    /// Authorities for certificates of clients, PEM (`--trusted-ca-file`). Given alone it demands certificates too.
    pub trusted_ca_file: Option<PathBuf>,
    /// Clients must show a certificate (`--client-cert-auth`). Without `trusted_ca_file` the system's authorities decide.
    pub client_cert_auth: bool,
    /// Certificates that are no longer good, DER or PEM (`--client-crl-file`).
    pub crl_file: Option<PathBuf>,
    /// A client's certificate must be for one of these; empty: for any (`--client-cert-allowed-hostname`).
    pub allowed_hostnames: Vec<String>,
    /// Its common name must be one of these; empty: any. Not together with `allowed_hostnames`.
    pub allowed_cns: Vec<String>,
    /// Other members' certificates need not be for the addresses that they call from
    /// (`--peer-skip-client-san-verification`).
    pub skip_san_verification: bool,
    /// Suites for TLS 1.2; empty: all that are safe (`--cipher-suites`). TLS 1.3 always has all of its own.
    pub cipher_suites: Vec<CipherSuite>,
    /// Oldest version (`--tls-min-version`); `None`: 1.2.
    pub min_version: Option<TlsVersion>,
    /// Newest version (`--tls-max-version`); `None`: 1.3.
    pub max_version: Option<TlsVersion>,
}

impl TlsSettings {
    /// Whether clients must show a certificate.
    #[must_use]
    pub fn demands_certificate(&self) -> bool {
        self.client_cert_auth || self.trusted_ca_file.is_some()
    }
}

/// A version of TLS; older ones are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `TLS1.2`
    V12,
    /// `TLS1.3`
    V13,
}

impl FromStr for TlsVersion {
    type Err = String;

    /// # Errors
    /// etcd's text for any other word. The empty text, which means no limit, is for the caller to see first.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "TLS1.2" => Ok(Self::V12),
            "TLS1.3" => Ok(Self::V13),
            _ => Err(format!("unexpected TLS version {text:?} (must be one of: TLS1.2, TLS1.3)")),
        }
    }
}
