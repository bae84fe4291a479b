//! What is spoken once a client is in: versions of HTTP, roles of listeners, versions of TLS.

use bytes::Bytes;
use milepost_api::{Listen, Listener, Role, TlsSettings, TlsVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Stage;
use crate::support::{Client, request, run};

/// A page by HTTP/2: status and `grpc-status`.
async fn page_over_http2(stage: &Stage, address: std::net::SocketAddr, content_type: &str) -> (u16, Option<String>) {
    let stream = stage.caller().connect(address).await.unwrap();
    let (mut connection, driver) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _ = driver.await;
    });
    let request = http::Request::get("https://x/version").header("content-type", content_type).body(()).unwrap();
    let (answer, _): (_, h2::SendStream<Bytes>) = connection.send_request(request, true).unwrap();
    let head = answer.await.unwrap();
    let status = head.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
    (head.status().as_u16(), status)
}

#[test]
fn pages_and_calls_share_a_port() {
    run(async {
        let stage = Stage::new();
        let (_server, address) = stage.serve(Role::Mixed, stage.settings());
        for alpn in [&["http/1.1"][..], &["http/1.1", "x"], &[]] {
            let page = stage.caller().alpn(alpn).page(address, "/version").await.unwrap();
            assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        }
        let why = stage.caller().alpn(&["spdy/3"]).page(address, "/version").await.unwrap_err();
        assert!(why.contains("NoApplicationProtocol"), "{why}");
        stage.caller().alpn(&["http/1.1", "h2"]).puts(address).await;
        assert_eq!(page_over_http2(&stage, address, "").await, (200, None));
        assert_eq!(page_over_http2(&stage, address, "application/grpc").await, (405, Some("13".into())));
    });
}

#[test]
fn a_listener_for_calls_has_no_pages() {
    run(async {
        let stage = Stage::new();
        let (_server, address) = stage.serve(Role::Grpc, stage.settings());
        stage.caller().puts(address).await;
        for alpn in [&["http/1.1"][..], &[]] {
            stage.caller().alpn(alpn).page(address, "/version").await.unwrap_err();
        }
        stage.log.reach(2, "missing selected ALPN property").await;
        assert_eq!(page_over_http2(&stage, address, "").await, (415, Some("3".into())));
    });
}

#[test]
fn a_listener_for_pages_has_no_calls() {
    run(async {
        let stage = Stage::new();
        let (_server, address) = stage.serve(Role::Http, stage.settings());
        assert!(stage.caller().alpn(&[]).page(address, "/version").await.unwrap().contains("etcdserver"));
        assert_eq!(page_over_http2(&stage, address, "application/grpc").await, (200, None));
    });
}

#[test]
fn metrics_have_no_other_pages() {
    run(async {
        let stage = Stage::new();
        let address = Listen::Tcp { host: "127.0.0.1".into(), port: 0 };
        let listener = Listener { address, role: Role::Metrics, is_tls: false };
        let (_server, address) = stage.listen(vec![listener], stage.settings());
        for (path, status) in [("/metrics", 200), ("/health", 200), ("/readyz", 200), ("/version", 404), ("/v3/x", 404)]
        {
            let page = request(address, "GET", path).await;
            assert_eq!(page.status, status, "{path}");
            assert!(!page.head.contains("access-control"), "{path}: {}", page.head);
        }
    });
}

#[test]
fn one_port_with_and_without_tls() {
    run(async {
        let stage = Stage::new();
        let address = Listen::Tcp { host: "127.0.0.1".into(), port: 0 };
        let both = [false, true].map(|is_tls| Listener { address: address.clone(), role: Role::Mixed, is_tls });
        let (server, address) = stage.listen(both.to_vec(), stage.settings());
        assert_eq!(server.doors.local_addrs().len(), 1);
        stage.caller().puts(address).await;
        assert!(stage.caller().alpn(&[]).page(address, "/version").await.unwrap().contains("etcdserver"));
        assert_eq!(request(address, "GET", "/version").await.status, 200);
        let mut plain = Client::connect(address).await;
        let put = crate::keys::put("a", "1");
        let _: milepost_proto::etcdserverpb::PutResponse = plain.unary(crate::keys::PUT, &put).await.unwrap();
    });
}

#[test]
fn unix_sockets_carry_tls() {
    run(async {
        let stage = Stage::new();
        let path = stage.files.path("socket");
        let listener = Listener { address: Listen::Unix(path.clone()), role: Role::Mixed, is_tls: true };
        let _server = crate::support::Server::configured(crate::support::Member::new(), |config| {
            config.listeners = vec![listener];
            config.tls = Some(stage.settings());
        });
        let socket = tokio::net::UnixStream::connect(path).await.unwrap();
        let mut client = Client::over(stage.caller().connect_over(socket).await.unwrap()).await;
        let put = crate::keys::put("a", "1");
        let _: milepost_proto::etcdserverpb::PutResponse = client.unary(crate::keys::PUT, &put).await.unwrap();
    });
}

#[test]
fn versions_and_suites_are_what_was_asked_for() {
    run(async {
        let stage = Stage::new();
        let ours = |settings| stage.serve(Role::Mixed, settings);
        let (_server, address) = ours(TlsSettings { min_version: Some(TlsVersion::V13), ..stage.settings() });
        stage.caller().puts(address).await;
        stage.caller().old().refusal(address).await;
        let (_server, address) = ours(TlsSettings { max_version: Some(TlsVersion::V12), ..stage.settings() });
        let stream = stage.caller().connect(address).await.unwrap();
        let version = stream.get_ref().1.protocol_version();
        assert_eq!(version, Some(tokio_rustls::rustls::ProtocolVersion::TLSv1_2));
        let cipher_suites = vec!["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384".parse().unwrap()];
        let (_server, address) = ours(TlsSettings { cipher_suites, ..stage.settings() });
        stage.caller().old().suites(&[0xc02c]).puts(address).await;
        stage.caller().old().suites(&[0xc02b]).refusal(address).await;
        // The choice is about TLS 1.2.
        stage.caller().suites(&[0x1301]).puts(address).await;
    });
}

#[test]
fn plain_text_on_a_tls_port_is_not_answered() {
    run(async {
        let stage = Stage::new();
        let (_server, address) = stage.serve(Role::Mixed, stage.settings());
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // The end may come as a reset.
        let _ = socket.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"));
        stage.log.reach(1, "first record does not look like a TLS handshake").await;
        // Who leaves at once is not worth a warning.
        drop(TcpStream::connect(address).await.unwrap());
        stage.log.reach(1, "EOF").await;
        assert_eq!((stage.log.count("Debug rejected"), stage.log.count("Warn rejected")), (1, 1));
    });
}

#[test]
fn stopping_does_not_wait_for_handshakes() {
    run(async {
        let stage = Stage::new();
        let (server, address) = stage.serve(Role::Mixed, stage.settings());
        let mut half_open = TcpStream::connect(address).await.unwrap();
        half_open.write_all(&[22, 3, 1]).await.unwrap();
        let doors = server.doors;
        tokio::task::spawn_blocking(move || doors.stop(std::time::Duration::from_secs(3600))).await.unwrap();
    });
}
