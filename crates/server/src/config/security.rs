//! TLS, origins and host names, as they were given; files are read by those who use them.

use super::settings::{Refusal, Settings};
use super::spelling;

/// TLS of the port for other members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSecurity {
    /// `--peer-cert-file`; empty: none. The same goes for the other files.
    pub cert_file: String,
    /// `--peer-key-file`.
    pub key_file: String,
    /// `--peer-client-cert-file`: for calls to other members; empty: `cert_file`.
    pub client_cert_file: String,
    /// `--peer-client-key-file`.
    pub client_key_file: String,
    /// `--peer-trusted-ca-file`.
    pub trusted_ca_file: String,
    /// `--peer-crl-file`.
    pub crl_file: String,
    /// `--peer-client-cert-auth`.
    pub client_cert_auth: bool,
    /// `--peer-cert-allowed-cn`.
    pub allowed_cn: Vec<String>,
    /// `--peer-cert-allowed-hostname`.
    pub allowed_hostname: Vec<String>,
    /// `--peer-auto-tls`.
    pub auto_tls: bool,
    /// `--peer-skip-client-san-verification`.
    pub skip_san_verification: bool,
}

/// TLS of the client side, origins, host names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// `--cert-file`; empty: none. The same goes for the other files.
    pub cert_file: String,
    /// `--key-file`.
    pub key_file: String,
    /// `--client-cert-file`; checked like etcd's, and not used: we do not call ourselves.
    pub client_cert_file: String,
    /// `--client-key-file`.
    pub client_key_file: String,
    /// `--trusted-ca-file`.
    pub trusted_ca_file: String,
    /// `--client-crl-file`.
    pub crl_file: String,
    /// `--client-cert-auth`.
    pub client_cert_auth: bool,
    /// Common names of which a client must have one; empty: any. Only the configuration file can say so.
    pub allowed_cn: Vec<String>,
    /// Host names of which a client must have one; empty: any.
    pub allowed_hostname: Vec<String>,
    /// `--auto-tls`.
    pub auto_tls: bool,
    /// Years that a certificate made by ourselves is good for.
    pub self_signed_years: u64,
    /// `--cipher-suites`, in order.
    pub cipher_suites: Vec<String>,
    /// `TLS1.2`, `TLS1.3` or empty.
    pub tls_min: String,
    /// `TLS1.2`, `TLS1.3` or empty.
    pub tls_max: String,
    /// `--cors`.
    pub cors: Vec<String>,
    /// `--host-whitelist`.
    pub host_whitelist: Vec<String>,
    /// `--auth-token`.
    pub auth_token: String,
    /// The port for other members.
    pub peer: PeerSecurity,
}

impl Security {
    /// Checks TLS versions and what this version cannot keep its word on.
    ///
    /// # Errors
    /// The first complaint, in etcd's words where it has some.
    pub fn new(settings: &Settings) -> Result<Self, Refusal> {
        let text = |name: &str| settings.text(name).to_owned();
        let list = |name: &str| match settings.text(name) {
            "" => Vec::new(),
            text => text.split(',').map(str::to_owned).collect(),
        };
        let security = Self {
            cert_file: text("cert-file"),
            key_file: text("key-file"),
            client_cert_file: text("client-cert-file"),
            client_key_file: text("client-key-file"),
            trusted_ca_file: text("trusted-ca-file"),
            crl_file: text("client-crl-file"),
            client_cert_auth: spelling::boolean(settings.text("client-cert-auth")) == Ok(true),
            allowed_cn: settings.client_allowed_cn.clone(),
            allowed_hostname: list("client-cert-allowed-hostname"),
            auto_tls: spelling::boolean(settings.text("auto-tls")) == Ok(true),
            self_signed_years: spelling::unsigned(settings.text("self-signed-cert-validity")).unwrap_or(1),
            cipher_suites: list("cipher-suites"),
            tls_min: text("tls-min-version"),
            tls_max: text("tls-max-version"),
            cors: list("cors"),
            host_whitelist: list("host-whitelist"),
            auth_token: text("auth-token"),
            peer: PeerSecurity {
                cert_file: text("peer-cert-file"),
                key_file: text("peer-key-file"),
                client_cert_file: text("peer-client-cert-file"),
                client_key_file: text("peer-client-key-file"),
                trusted_ca_file: text("peer-trusted-ca-file"),
                crl_file: text("peer-crl-file"),
                client_cert_auth: spelling::boolean(settings.text("peer-client-cert-auth")) == Ok(true),
                allowed_cn: list("peer-cert-allowed-cn"),
                allowed_hostname: list("peer-cert-allowed-hostname"),
                auto_tls: spelling::boolean(settings.text("peer-auto-tls")) == Ok(true),
                skip_san_verification: spelling::boolean(settings.text("peer-skip-client-san-verification"))
                    == Ok(true),
            },
        };
        security.check_versions()?;
        let token = security.auth_token.as_str();
        if token.split(',').next() == Some("jwt") {
            return Err(Refusal::new(
                format!("--auth-token={token} has no effect in this version of Milepost"),
                "users cannot be switched on yet: leave --auth-token out",
            ));
        }
        Ok(security)
    }

    /// What etcd finds out about tokens when it starts.
    ///
    /// # Errors
    /// An unknown kind of token.
    pub fn check_token(&self) -> Result<(), Refusal> {
        match self.auth_token.as_str() {
            "simple" | "" => Ok(()),
            other => Err(Refusal::new("auth: invalid auth options", format!("--auth-token={other}: use simple"))),
        }
    }

    fn check_versions(&self) -> Result<(), Refusal> {
        for version in [&self.tls_min, &self.tls_max] {
            if !["", "TLS1.2", "TLS1.3"].contains(&version.as_str()) {
                return Err(format!("unexpected TLS version {version:?} (must be one of: TLS1.2, TLS1.3)").into());
            }
        }
        if self.tls_min == "TLS1.3" && self.tls_max == "TLS1.2" {
            let complaint = "min version (TLS1.3) is greater than max version (TLS1.2)";
            return Err(Refusal::new(complaint, "exchange --tls-min-version and --tls-max-version, or leave one out"));
        }
        if self.tls_min == "TLS1.3" && !self.cipher_suites.is_empty() {
            let complaint = "cipher suites cannot be configured when only TLS1.3 is enabled";
            return Err(Refusal::new(complaint, "leave --cipher-suites out: all suites of TLS 1.3 are good"));
        }
        Ok(())
    }

    /// Is any certificate given?
    #[must_use]
    pub fn has_files(&self) -> bool {
        !self.cert_file.is_empty() || !self.key_file.is_empty()
    }
}
