//! TLS: whom the client trusts, and who it says to be.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use milepost_client::{Client, Config, ConnectError, Deadline, Error, Secure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::support::scripted::Scripted;
use crate::support::{put, run, soon};

/// A directory of certificates: `ca.crt`, `server.{crt,key}` for 127.0.0.1 and db.example, `client.{crt,key}`, and
/// `self.{crt,key}`, an authority of its own that is no other's.
struct Office {
    dir: TempDir,
}

impl Office {
    fn new() -> Office {
        let dir = TempDir::new().unwrap();
        let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
        let authority = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let ca = authority(&[]);
        write("ca.crt", ca.pem());
        for (file, names) in [("server", &["127.0.0.1", "db.example"][..]), ("client", &["someone"][..])] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
            write(&format!("{file}.crt"), certificate.pem());
            write(&format!("{file}.key"), key.serialize_pem());
        }
        let own = authority(&["127.0.0.1"]);
        write("self.crt", own.pem());
        write("self.key", own.key().serialize_pem());
        write("empty.crt", String::new());
        Office { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A server that shows `name`'s certificate, and asks for one of the authority's if `asks`.
    async fn server(&self, name: &str, asks: bool) -> Scripted {
        let config =
            ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap();
        let config = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(self.path("ca.crt"))).unwrap();
            let provider = Arc::clone(config.crypto_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            config.with_client_cert_verifier(verifier)
        } else {
            config.with_no_client_auth()
        };
        let key = std::fs::read(self.path(&format!("{name}.key"))).unwrap();
        let key: PrivateKeyDer<'static> =
            tokio_rustls::rustls::pki_types::pem::PemObject::from_pem_slice(&key).unwrap();
        let mut config = config.with_single_cert(vec![certificate(self.path(&format!("{name}.crt")))], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Scripted::start_with([], Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    /// With the authority's certificate.
    fn trusting(&self) -> Secure {
        Secure { cacert: self.path("ca.crt"), ..Secure::default() }
    }
}

fn certificate(path: impl AsRef<Path>) -> CertificateDer<'static> {
    tokio_rustls::rustls::pki_types::pem::PemObject::from_pem_file(path).unwrap()
}

async fn of(server: &Scripted, secure: Secure) -> Client {
    let endpoints = vec![format!("https://{}", server.address)];
    Client::connect(Config { endpoints, secure, ..Config::default() }).await.unwrap()
}

async fn works(server: &Scripted, secure: Secure) {
    of(server, secure).await.kv().put(put("a", "1"), soon()).await.expect("it is trusted");
}

async fn fails(server: &Scripted, secure: Secure) -> Error {
    let client = of(server, secure).await;
    let error = client.kv().put(put("a", "1"), Deadline::after(Duration::from_millis(300))).await.unwrap_err();
    assert_eq!(error.to_string(), "context deadline exceeded");
    assert_eq!(server.asked(), [], "a request went to a server that is not trusted");
    error
}

#[test]
fn a_server_of_the_named_authority_is_trusted_and_no_other() {
    run(async {
        let office = Office::new();
        let server = office.server("server", false).await;
        let error = fails(&server, Secure { cacert: office.path("self.crt"), ..Secure::default() }).await;
        assert!(error.message().contains("authentication handshake failed"), "{}", error.message());
        works(&server, office.trusting()).await;
        // An endpoint without a scheme takes TLS because it was configured.
        let config =
            Config { endpoints: vec![server.address.to_string()], secure: office.trusting(), ..Config::default() };
        Client::connect(config).await.unwrap().kv().put(put("a", "1"), soon()).await.unwrap();
    });
}

#[test]
fn the_servers_name_must_be_the_endpoints_or_the_one_given() {
    run(async {
        let office = Office::new();
        let server = office.server("server", false).await;
        let named = |name: &str| Secure { server_name: name.into(), ..office.trusting() };
        fails(&server, named("other.example")).await;
        works(&server, named("db.example")).await;
    });
}

#[test]
fn verification_can_be_switched_off() {
    run(async {
        let office = Office::new();
        let server = office.server("self", false).await;
        works(&server, Secure { insecure_skip_verify: true, ..Secure::default() }).await;
    });
}

#[test]
fn a_certificate_that_is_its_own_authority_is_trusted_when_named() {
    run(async {
        let office = Office::new();
        let server = office.server("self", false).await;
        fails(&server, office.trusting()).await;
        works(&server, Secure { cacert: office.path("self.crt"), ..Secure::default() }).await;
        let other_name =
            Secure { cacert: office.path("self.crt"), server_name: "x.example".into(), ..Secure::default() };
        fails(&office.server("self", false).await, other_name).await;
    });
}

#[test]
fn a_client_shows_its_certificate_when_asked() {
    run(async {
        let office = Office::new();
        let server = office.server("server", true).await;
        let error = fails(&server, office.trusting()).await;
        assert!(error.message().contains("remote error: tls: certificate required"), "{}", error.message());
        let with = |name: &str| Secure {
            cert: office.path(&format!("{name}.crt")),
            key: office.path(&format!("{name}.key")),
            ..office.trusting()
        };
        let error = fails(&server, with("self")).await;
        assert!(error.message().contains("remote error: tls: "), "{}", error.message());
        works(&server, with("client")).await;
    });
}

#[test]
fn http_refuses_tls_whatever_is_configured() {
    run(async {
        let office = Office::new();
        let server = Scripted::start([]).await;
        let endpoints = vec![format!("http://{}", server.address)];
        let client =
            Client::connect(Config { endpoints, secure: office.trusting(), ..Config::default() }).await.unwrap();
        client.kv().put(put("a", "1"), soon()).await.unwrap();
    });
}

#[test]
fn files_that_cannot_be_used_are_named() {
    run(async {
        let office = Office::new();
        let complaint = async |secure: Secure| {
            let config = Config { endpoints: vec!["127.0.0.1:1".into()], secure, ..Config::default() };
            match Client::connect(config).await {
                Err(ConnectError::Config(why)) => why,
                other => panic!("{:?}", other.err()),
            }
        };
        let path = |name: &str| office.path(name);
        let missing = complaint(Secure { cacert: path("nothing"), ..Secure::default() }).await;
        assert_eq!(missing, format!("open {}: no such file or directory", path("nothing")));
        let half = complaint(Secure { cert: "x.crt".into(), ..Secure::default() }).await;
        assert_eq!(half, "KeyFile and CertFile must both be present[key: , cert: x.crt]");
        let empty = complaint(Secure { cacert: path("empty.crt"), ..Secure::default() }).await;
        assert!(empty.starts_with(&path("empty.crt")), "{empty}");
        let pair = Secure { cert: path("client.crt"), key: path("server.key"), ..office.trusting() };
        let unfit = complaint(pair).await;
        assert!(unfit.contains("cannot be used together"), "{unfit}");
    });
}
