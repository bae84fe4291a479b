//! TLS, origins and host names, as they were given; files are read by those who use them.

use super::settings::{Refusal, Settings};
use super::spelling;

/// TLS of one port: the one for clients or the one for other members. `[peer-]` stands before the flags of the second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSecurity {
    /// `--[peer-]cert-file`; empty: none. The same goes for the other files.
    pub cert_file: String,
    /// `--[peer-]key-file`.
    pub key_file: String,
    /// `--[peer-]client-cert-file`: for calls to other members; empty: `cert_file`. That of the client port is checked like
    /// etcd's, and not used: we do not call ourselves.
    pub client_cert_file: String,
    /// `--[peer-]client-key-file`.
    pub client_key_file: String,
    /// `--[peer-]trusted-ca-file`.
    pub trusted_ca_file: String,
    /// `--client-crl-file`, `--peer-crl-file`.
    pub crl_file: String,
    /// `--[peer-]client-cert-auth`.
    pub client_cert_auth: bool,
    /// Common names of which a caller must have one; empty: any. `--peer-cert-allowed-cn`; for clients only the
    /// configuration file can say so.
    pub allowed_cn: Vec<String>,
    /// Host names of which a caller must have one; empty: any. `--client-cert-allowed-hostname`,
    /// `--peer-cert-allowed-hostname`.
    pub allowed_hostname: Vec<String>,
    /// `--[peer-]auto-tls`.
    pub auto_tls: bool,
    /// `--peer-skip-client-san-verification`.
    pub skip_san_verification: bool,
}

impl PortSecurity {
    fn of_clients(settings: &Settings) -> Self {
        Self {
            crl_file: settings.text("client-crl-file").to_owned(),
            allowed_cn: settings.client_allowed_cn.clone(),
            allowed_hostname: list(settings, "client-cert-allowed-hostname"),
            ..Self::with_prefix(settings, "")
        }
    }

    fn of_peers(settings: &Settings) -> Self {
        Self {
            crl_file: settings.text("peer-crl-file").to_owned(),
            allowed_cn: list(settings, "peer-cert-allowed-cn"),
            allowed_hostname: list(settings, "peer-cert-allowed-hostname"),
            skip_san_verification: is_on(settings, "peer-skip-client-san-verification"),
            ..Self::with_prefix(settings, "peer-")
        }
    }

    /// What both ports have under the same name.
    fn with_prefix(settings: &Settings, prefix: &str) -> Self {
        let text = |name: &str| settings.text(&format!("{prefix}{name}")).to_owned();
        Self {
            cert_file: text("cert-file"),
            key_file: text("key-file"),
            client_cert_file: text("client-cert-file"),
            client_key_file: text("client-key-file"),
            trusted_ca_file: text("trusted-ca-file"),
            client_cert_auth: is_on(settings, &format!("{prefix}client-cert-auth")),
            auto_tls: is_on(settings, &format!("{prefix}auto-tls")),
            ..Self::default()
        }
    }

    /// Is any certificate given?
    #[must_use]
    pub fn has_files(&self) -> bool {
        !self.cert_file.is_empty() || !self.key_file.is_empty()
    }
}

fn list(settings: &Settings, name: &str) -> Vec<String> {
    match settings.text(name) {
        "" => Vec::new(),
        text => text.split(',').map(str::to_owned).collect(),
    }
}

fn is_on(settings: &Settings, name: &str) -> bool {
    spelling::boolean(settings.text(name)) == Ok(true)
}

/// TLS of both ports, origins, host names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// The port for clients.
    pub client: PortSecurity,
    /// The port for other members.
    pub peer: PortSecurity,
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
}

impl Security {
    /// Checks TLS versions and what this version cannot keep its word on.
    ///
    /// # Errors
    /// The first complaint, in etcd's words where it has some.
    pub fn new(settings: &Settings) -> Result<Self, Refusal> {
        let text = |name: &str| settings.text(name).to_owned();
        let security = Self {
            client: PortSecurity::of_clients(settings),
            peer: PortSecurity::of_peers(settings),
            self_signed_years: spelling::unsigned(settings.text("self-signed-cert-validity")).unwrap_or(1),
            cipher_suites: list(settings, "cipher-suites"),
            tls_min: text("tls-min-version"),
            tls_max: text("tls-max-version"),
            cors: list(settings, "cors"),
            host_whitelist: list(settings, "host-whitelist"),
            auth_token: text("auth-token"),
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
}
