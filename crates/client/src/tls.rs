//! TLS below HTTP/2.

use crate::config::Secure;
use crate::dial::Pipe;

/// Makes TLS out of a pipe.
#[derive(Clone)]
pub(crate) enum TlsDialler {}

const NOT_YET: &str = "this client does not speak TLS yet: leave certificates out and use an http:// endpoint";

impl TlsDialler {
    /// What `secure` asks for; `None` if it does not ask for TLS.
    pub(crate) fn from_config(secure: &Secure) -> Result<Option<TlsDialler>, String> {
        let named =
            [&secure.cert, &secure.key, &secure.cacert, &secure.server_name].iter().any(|text| !text.is_empty());
        let wanted = named || !secure.insecure_transport || secure.insecure_skip_verify;
        if wanted { Err(NOT_YET.into()) } else { Ok(None) }
    }

    /// For `https://` without any setting.
    pub(crate) fn plain() -> Result<TlsDialler, String> {
        Err(NOT_YET.into())
    }

    pub(crate) async fn wrap(&self, _: Box<dyn Pipe>, _: &str) -> Result<Box<dyn Pipe>, String> {
        match *self {}
    }
}
