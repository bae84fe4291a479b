//! The client against servers that answer what the test says, over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use milepost_proto::Message;
use milepost_proto::{etcdserverpb as pb, leasepb};
use milepost_types::{ClusterId, LeaseId, MemberId};
use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::{Blocking, CallError, Client, TlsSettings};

fn client() -> Blocking {
    let second = Duration::from_secs(5);
    Blocking::new(Client::new(TlsSettings::default(), second, second).unwrap()).unwrap()
}

/// Reads one request with its body.
fn request(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes.clone()).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    bytes.extend_from_slice(&body);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where nobody listens, of all the tests that run beside this one either: they listen on 127.0.0.1.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap()
}

/// Serves one request with `answer`; the URL, and the request when it has come.
fn answering(answer: impl Into<Vec<u8>>) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = answer.into();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let asked = request(&mut stream);
        stream.write_all(&answer).unwrap();
        asked
    });
    (url, served)
}

fn ok(extra: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\n{extra}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

#[test]
fn members_come_with_the_cluster() {
    // As etcd 3.7.1 writes it, for a member that has not started yet too.
    let body = br#"[{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"a","clientURLs":["http://localhost:2379"]},{"id":1,"peerURLs":null,"isLearner":true}]"#;
    let (url, served) = answering(ok("X-Etcd-Cluster-ID: cdf818194e3a8c32\r\n", body));
    let (cluster, members) = client().run(async |client| client.members(&url).await).unwrap();
    assert_eq!(cluster, ClusterId(0xcdf8_1819_4e3a_8c32));
    assert_eq!((members[0].id, members[0].name.as_str(), members[0].is_learner), (0x8e9e_05c5_2164_694d, "a", false));
    assert_eq!((members[0].peer_urls.len(), members[0].client_urls.len()), (1, 1));
    assert_eq!((members[1].peer_urls.len(), members[1].is_learner), (0, true));
    let asked = served.join().unwrap();
    let host = url.strip_prefix("http://").unwrap();
    assert!(asked.starts_with("GET /members HTTP/1.1\r\n") && asked.contains(host), "{asked}");
}

#[test]
fn an_answer_without_a_cluster_is_none() {
    let (url, _served) = answering(ok("", b"[]"));
    let why = client().run(async |client| client.members(&url).await).unwrap_err();
    assert!(matches!(&why, CallError::Malformed { .. }), "{why}");
}

#[test]
fn versions_and_downgrades() {
    let (url, _served) = answering(ok("", br#"{"etcdserver":"3.5.33","etcdcluster":"not_decided"}"#));
    let version = client().run(async |client| client.version(&url).await).unwrap();
    assert_eq!(
        (version.server.as_str(), version.cluster.as_str(), version.storage.as_str()),
        ("3.5.33", "not_decided", "")
    );
    for (text, expected) in [("true", Some(true)), ("false", Some(false)), ("yes", None)] {
        let (url, served) = answering(ok("", text.as_bytes()));
        let enabled = client().run(async |client| client.downgrade_enabled(&url).await);
        assert_eq!(enabled.ok(), expected);
        assert!(served.join().unwrap().starts_with("GET /downgrade/enabled "));
    }
}

#[test]
fn a_hash_is_asked_for_in_the_body_of_a_get() {
    let body = br#"{"header":{"cluster_id":1,"member_id":18446744073709551615,"revision":7},"hash":4294967295,"hash_revision":5}"#;
    let (url, served) = answering(ok("", body));
    let hash = client().run(async |client| client.hash_kv(&[url], ClusterId(0xab), 5).await).unwrap();
    assert_eq!(
        (hash.hash, hash.hash_revision, hash.compact_revision, hash.header.member_id),
        (u32::MAX, 5, 0, u64::MAX)
    );
    let asked = served.join().unwrap();
    assert!(asked.starts_with("GET /members/hashkv ") && asked.ends_with("{\"revision\":5}"), "{asked}");
    assert!(asked.to_lowercase().contains("x-etcd-cluster-id: ab\r\n"), "{asked}");
}

#[test]
fn leases_and_promotion() {
    let renewed = pb::LeaseKeepAliveResponse { id: 5, ttl: 60, ..Default::default() }.encode_to_vec();
    let (url, served) = answering(ok("", &renewed));
    assert_eq!(client().run(async |client| client.renew_lease(&[url], LeaseId(5)).await), Ok(60));
    assert!(served.join().unwrap().ends_with("\r\n\r\n\u{8}\u{5}"));
    let (url, _served) = answering(ok("", &renewed));
    let why = client().run(async |client| client.renew_lease(&[url], LeaseId(6)).await).unwrap_err();
    assert!(why.to_string().contains("mismatch"), "{why}");

    let told =
        pb::LeaseTimeToLiveResponse { id: 5, ttl: 9, granted_ttl: 10, keys: vec!["k".into()], ..Default::default() };
    let body = leasepb::LeaseInternalResponse { lease_time_to_live_response: Some(told.clone()) }.encode_to_vec();
    let (url, served) = answering(ok("", &body));
    assert_eq!(client().run(async |client| client.lease_time_to_live(&[url], LeaseId(5), true).await), Ok(told));
    assert!(served.join().unwrap().starts_with("POST /leases/internal "));

    let (url, served) = answering(ok("", br#"[{"id":2,"peerURLs":["http://h:1"]}]"#));
    let members = client().run(async |client| client.promote(&[url], MemberId(17), Some("t.1")).await).unwrap();
    assert_eq!(members[0].id, 2);
    let asked = served.join().unwrap();
    assert!(asked.starts_with("POST /members/promote/17 ") && asked.contains("t.1"), "{asked}");
}

#[test]
fn refusals_carry_status_and_text_and_end_the_search() {
    let text = "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 6\r\n\r\nwords\n";
    let (url, _served) = answering(text);
    let dead = nobody();
    // The first URL is dead, the second answers, the third is never asked.
    let urls = [format!("http://{dead}"), url, "nonsense".to_owned()];
    let why = client().run(async |client| client.renew_lease(&urls, LeaseId(1)).await).unwrap_err();
    assert_eq!(why.refusal(), Some((412, "words")));
}

#[test]
fn nobody_and_silence_are_told_apart() {
    let dead = nobody();
    let why = client().run(async |client| client.version(&format!("http://{dead}")).await).unwrap_err();
    assert!(why.to_string().contains(&format!("dial tcp {dead}: connect: connection refused")), "{why}");
    // Accepted by the kernel, never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let short = Duration::from_millis(50);
    let why = client().run(async |client| client.within(short).version(&url).await).unwrap_err();
    assert_eq!(why, CallError::Timeout { url, after: short });
}

/// Serves one request over TLS, with whatever ALPN the client offers noted.
fn answering_tls(cert: &rcgen::Certificate, key: &KeyPair, answer: Vec<u8>) -> (String, JoinHandle<Option<Vec<u8>>>) {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    // As etcd's listener: it offers HTTP/2, and speaks HTTP/1 alone.
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut stream: StreamOwned<ServerConnection, TcpStream> =
            StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream);
        let mut byte = [0];
        // A client that does not trust us goes away here.
        if stream.read_exact(&mut byte).is_err() {
            return None;
        }
        let _ = request(&mut stream);
        stream.write_all(&answer).unwrap();
        stream.conn.alpn_protocol().map(<[u8]>::to_vec)
    });
    (url, served)
}

#[test]
fn tls_trusts_the_file_alone_and_offers_no_http2() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "member");
    let cert = params.self_signed(&key).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, cert.pem()).unwrap();
    let second = Duration::from_secs(5);
    let with = |settings| Blocking::new(Client::new(settings, second, second).unwrap()).unwrap();
    let trusting = TlsSettings { trusted_ca_file: Some(file), ..TlsSettings::default() };
    let ask = |settings: &TlsSettings| {
        let (url, served) = answering_tls(&cert, &key, ok("", b"true"));
        let answer = with(settings.clone()).run(async |client| client.downgrade_enabled(&url).await);
        (answer, served.join().unwrap())
    };
    assert_eq!(ask(&trusting), (Ok(true), None));
    let named = |name: &str| TlsSettings { allowed_cns: vec![name.into()], ..trusting.clone() };
    assert_eq!(ask(&named("member")).0, Ok(true));
    assert!(ask(&named("somebody")).0.is_err());
    let anybody = TlsSettings { skip_verify: true, ..TlsSettings::default() };
    assert_eq!(ask(&anybody).0, Ok(true));
    let other = KeyPair::generate().unwrap();
    let other = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&other).unwrap();
    let stranger = dir.path().join("other.pem");
    std::fs::write(&stranger, other.pem()).unwrap();
    assert!(ask(&TlsSettings { trusted_ca_file: Some(stranger), ..TlsSettings::default() }).0.is_err());
    let missing = TlsSettings { trusted_ca_file: Some("/nowhere/ca.pem".into()), ..TlsSettings::default() };
    let why = Client::new(missing, second, second).err().unwrap();
    assert_eq!(why, "open /nowhere/ca.pem: no such file or directory");
}

/// Serves connection after connection, so many requests on each; how many connections there were.
fn serving(requests: Vec<usize>, answer: Vec<u8>) -> (String, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        for count in &requests {
            let (mut stream, _) = listener.accept().unwrap();
            for _ in 0..*count {
                request(&mut stream);
                stream.write_all(&answer).unwrap();
            }
        }
        requests.len()
    });
    (url, served)
}

#[test]
fn connections_are_kept_until_the_other_end_closes_them() {
    let answer = pb::LeaseKeepAliveResponse { header: None, id: 5, ttl: 60 }.encode_to_vec();
    let (url, served) = serving(vec![3, 2], ok("", &answer));
    let second = Duration::from_secs(5);
    let client = Client::new(TlsSettings::default(), second, second).unwrap().keeping();
    Blocking::new(client).unwrap().run(async |client| {
        for _ in 0..5 {
            let urls = [url.clone()];
            assert_eq!(client.renew_lease(&urls, LeaseId(5)).await, Ok(60));
        }
    });
    assert_eq!(served.join().unwrap(), 2);
}
