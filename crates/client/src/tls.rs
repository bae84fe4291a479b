//! TLS below HTTP/2: rustls, with what etcdctl's flags say.
//!
//! A server is trusted if its chain ends at an authority of `--cacert` (without one: of the system), or if its very
//! certificate stands in that file: Go accepts that, and self-signed certificates of small setups live by it. The client's
//! own certificate is read again for every connection, so that a tool that runs for long takes up a renewed one.

use std::fmt::Display;
use std::sync::Arc;

use milepost_trust::Trust;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::alert::{Attentive, worded};
use crate::config::Secure;
use crate::dial::Pipe;

/// HTTP/2 is what is spoken above; a server that does not choose it is none of ours.
const H2: &[u8] = b"h2";

/// Makes TLS out of a pipe.
#[derive(Clone)]
pub(crate) struct TlsDialler {
    provider: Arc<CryptoProvider>,
    trust: Arc<Trust>,
    /// Files of our certificate and its key.
    identity: Option<(String, String)>,
    /// The name to look for instead of the endpoint's.
    server_name: Option<String>,
}

impl TlsDialler {
    /// What `secure` asks for; `None` if it does not ask for TLS. Every file is read, so that a mistake shows at once.
    ///
    /// Source: etcd `client/v3/config.go`, `client/pkg/transport`.
    pub(crate) fn from_config(secure: &Secure) -> Result<Option<TlsDialler>, String> {
        let Secure { cert, key, cacert, server_name, insecure_transport, insecure_skip_verify } = secure;
        let names_nothing = [cert, key, cacert, server_name].iter().all(|text| text.is_empty());
        if names_nothing && *insecure_transport && !*insecure_skip_verify {
            return Ok(None);
        }
        if cert.is_empty() != key.is_empty() {
            return Err(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let trust = if *insecure_skip_verify {
            Trust::of_anybody(&provider)
        } else if cacert.is_empty() {
            let system = Trust::of_the_system(&provider)?;
            system.ok_or("this system has no certificate authorities: name the server's with --cacert")?
        } else {
            Trust::of(&provider, certificates(cacert)?, cacert.as_ref())?
        };
        let identity = (!cert.is_empty()).then(|| (cert.clone(), key.clone()));
        let server_name = (!server_name.is_empty()).then(|| server_name.clone());
        let dialler = TlsDialler { provider, trust: Arc::new(trust), identity, server_name };
        dialler.config(&[])?;
        Ok(Some(dialler))
    }

    /// For `https://` without any setting: the authorities of the system.
    pub(crate) fn plain() -> Result<TlsDialler, String> {
        let tls = Secure { insecure_transport: false, ..Secure::default() };
        TlsDialler::from_config(&tls).map(|tls| tls.expect("it was asked for"))
    }

    /// Shakes hands with `name`, or with the name that was configured, and agrees on HTTP/2.
    pub(crate) async fn wrap(&self, pipe: Box<dyn Pipe>, name: &str) -> Result<Box<dyn Pipe>, String> {
        let stream = self.connect(pipe, name, &[H2]).await?;
        if stream.get_ref().1.alpn_protocol() != Some(H2) {
            return Err(failed("credentials: cannot check peer: missing selected ALPN property"));
        }
        Ok(Box::new(Attentive::new(stream)))
    }

    /// The same for HTTP/1, which servers speak when nothing is agreed on.
    pub(crate) async fn wrap_http1(&self, pipe: Box<dyn Pipe>, name: &str) -> Result<Box<dyn Pipe>, String> {
        Ok(Box::new(Attentive::new(self.connect(pipe, name, &[]).await?)))
    }

    async fn connect(
        &self,
        pipe: Box<dyn Pipe>,
        name: &str,
        protocols: &[&[u8]],
    ) -> Result<TlsStream<Box<dyn Pipe>>, String> {
        let config = self.config(protocols).map_err(failed)?;
        // A dot at the end says that a name is complete; certificates do without.
        let name = self.server_name.as_deref().unwrap_or(name).trim_end_matches('.');
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| failed(format_args!("{name:?} is no host name: no certificate can carry it")))?;
        TlsConnector::from(Arc::new(config)).connect(name, pipe).await.map_err(|why| failed(worded(why)))
    }

    fn config(&self, protocols: &[&[u8]]) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Trust>::clone(&self.trust));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|why| format!("certificate {cert} and key {key} cannot be used together: {why}"))?,
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

fn failed(why: impl Display) -> String {
    format!("connection error: desc = \"transport: authentication handshake failed: {why}\"")
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = milepost_trust::certificates(file.as_ref())?;
    if found.is_empty() {
        return Err(format!(
            "{file}: tls: failed to find any PEM data in certificate input: it needs a block BEGIN CERTIFICATE"
        ));
    }
    Ok(found)
}

fn private_key(file: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&milepost_trust::read(file.as_ref())?).map_err(|why| {
        format!("{file}: tls: failed to find any PEM data in key input: it needs an unencrypted PRIVATE KEY ({why})")
    })
}
