//! Bare pipes, for a tool that speaks HTTP/2 by its own means: TCP and this client's TLS, nothing above them.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Secure;
use crate::dial::dial;
use crate::endpoint::Endpoint;
use crate::tls::TlsDialler;

/// Opens TLS connections on which HTTP/2 was agreed on.
#[derive(Clone)]
pub struct SecureDialler(TlsDialler);

impl SecureDialler {
    /// Reads the files that `secure` names.
    ///
    /// # Errors
    /// A file that is not there or holds something else, in words for a user.
    pub fn new(secure: &Secure) -> Result<SecureDialler, String> {
        let secure = Secure { insecure_transport: false, ..secure.clone() };
        TlsDialler::from_config(&secure).map(|tls| SecureDialler(tls.expect("it was asked for")))
    }

    /// Connects to `endpoint` (`host:port`) and shakes hands.
    ///
    /// # Errors
    /// Nobody listens, or no hand was shaken.
    pub async fn dial(&self, endpoint: &str) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, String> {
        let endpoint = Endpoint::of(endpoint);
        self.0.wrap(dial(&endpoint).await?, &endpoint.server_name).await
    }
}
