use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::tls::TlsSettings;

/// A resolver that never answers.
struct Silence;

impl Names for Silence {
    async fn of(&self, _: IpAddr) -> Option<String> {
        std::future::pending().await
    }

    async fn addresses(&self, _: &str) -> Vec<IpAddr> {
        std::future::pending().await
    }
}

const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn look_ups_count_as_part_of_the_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    // Server and client at once.
    let params = CertificateParams::new(["member.example".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = params.signed_by(&key, &authority).unwrap();
    let file = |name: &str, text: String| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name)
    };
    let settings = TlsSettings {
        cert_file: file("cert", own.pem()),
        key_file: file("key", key.serialize_pem()),
        trusted_ca_file: Some(file("ca", authority.pem())),
        ..TlsSettings::default()
    };
    let keeper = Keeper::new(settings, Arc::new(milepost_node::log::NoLog)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let (near, far) = tokio::io::duplex(1 << 16);
    let demands = Demands { own_address: true, ..Demands::default() };
    let patience = Duration::from_secs(1);
    let why = wait(async {
        let shaking = attempt(patience, &Silence, &keeper, near, Some((REMOTE, 1).into()), demands);
        let calling = TlsConnector::from(Arc::new(client)).connect("member.example".try_into().unwrap(), far);
        let (shaken, called) = tokio::join!(shaking, calling);
        called.expect("the client has done all of its part");
        shaken.map(|_| ()).unwrap_err().why
    });
    assert_eq!(why, "i/o timeout: the handshake took longer than 1s");
}

#[test]
fn what_cannot_be_read_is_for_nobody() {
    let refused = |der: &[u8]| {
        let subject = Subject::read(&CertificateDer::from(der.to_vec()));
        wait(stranger(&Silence, subject.as_ref(), REMOTE))
    };
    assert!(refused(b"no certificate").unwrap().contains("cannot be read"));
    // An extension that says for whom it is, in bytes that say nothing: half an address, and no list of names.
    for names in [&[0x30, 4, 0x87, 2, 10, 0][..], &[0x05, 0]] {
        let mut params = CertificateParams::default();
        let extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], names.to_vec());
        params.custom_extensions = vec![extension];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert!(refused(certificate.der()).unwrap().contains("cannot be read"), "{names:?}");
    }
    let plain = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(refused(plain.der()), None, "without names it may come from everywhere");
}
