//! A server's client address, and how to reach it.

use std::fmt;

use milepost_client::SecureDialler;

/// A server's client address, as `127.0.0.1:2379`.
#[derive(Clone)]
pub struct Endpoint {
    /// Host and port.
    pub authority: String,
    /// How hands are shaken; `None` without TLS.
    pub tls: Option<Tls>,
}

/// The client's own TLS: same files, same trust.
#[derive(Clone)]
pub struct Tls(pub SecureDialler);

impl Endpoint {
    /// Without TLS.
    #[cfg(test)]
    pub fn plain(authority: impl Into<String>) -> Endpoint {
        Endpoint { authority: authority.into(), tls: None }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.tls.is_some() { "https://" } else { "" }, self.authority)
    }
}
