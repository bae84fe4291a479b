//! What is below the calls: framing, paths, stopping.

use std::time::Duration;

use milepost_api::{Listen, Listener, Role};
use milepost_proto::etcdserverpb as pb;
use tokio::net::TcpStream;

use crate::keys::{PUT, RANGE, get, put};
use crate::support::{Answer, Server, run, serve};

#[test]
fn unknown_paths() {
    serve(async |server| {
        let mut client = server.client().await;
        assert_eq!(client.failure("/x.Y/Z", &put("", "")).await, (12, "unknown service x.Y".into()));
        assert_eq!(
            client.failure("/etcdserverpb.KV/Zap", &put("", "")).await,
            (12, "unknown method Zap for service etcdserverpb.KV".into())
        );
        let (code, text) = client.failure("/etcdserverpb.Auth/UserList", &put("", "")).await;
        assert!(code == 12 && text.contains("not served yet"), "{text}");
    });
}

#[test]
fn half_a_message_and_no_message() {
    serve(async |server| {
        let mut client = server.client().await;
        let mut call = client.open::<pb::PutResponse>(PUT).await;
        call.send_raw(&[0, 0, 0, 0, 9, 1], true);
        assert_eq!(call.next().await.unwrap_err(), (13, "unexpected EOF".into()));
        let mut call = client.open::<pb::PutResponse>(PUT).await;
        call.half_close();
        assert_eq!(call.next().await.unwrap_err().0, 13);
        let mut call = client.open::<pb::PutResponse>(PUT).await;
        call.send_raw(&[0, 0, 0, 0, 2, 0xff, 0xff], true);
        let (code, text) = call.next().await.unwrap_err();
        assert!(code == 13 && text.starts_with("grpc: error unmarshalling request: "), "{text}");
        let mut squeezed = server.client().await.with("grpc-encoding", "gzip");
        assert_eq!(
            squeezed.failure(PUT, &put("a", "")).await,
            (12, "grpc: Decompressor is not installed for grpc-encoding \"gzip\"".into())
        );
    });
}

#[test]
fn no_time_at_all() {
    serve(async |server| {
        for none in ["0S", "1n"] {
            let mut client = server.client().await.with("grpc-timeout", none);
            let failure = client.failure(PUT, &put("a", "")).await;
            assert_eq!(failure, (4, "context deadline exceeded".into()));
        }
        let revision = milepost_api::Backend::reader(&*server.member).revision();
        assert_eq!(revision, 1, "nothing was proposed");
    });
}

/// An answer to a request that is no gRPC over HTTP/2.
async fn other_http2(server: &Server, method: &str, content_type: &str) -> (u16, String) {
    let socket = TcpStream::connect(server.doors.local_addrs()[0]).await.unwrap();
    let (mut connection, driver) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(async move {
        let _ = driver.await;
    });
    let request = http::Request::builder()
        .method(method)
        .uri("http://x/version")
        .header("content-type", content_type)
        .body(())
        .unwrap();
    let head = connection.send_request(request, true).unwrap().0.await.unwrap();
    (head.status().as_u16(), head.headers()["grpc-status"].to_str().unwrap().to_owned())
}

#[test]
fn http2_is_grpc_only() {
    serve(async |server| {
        assert_eq!(other_http2(&server, "GET", "").await, (415, "3".into()));
        assert_eq!(other_http2(&server, "POST", "application/json").await, (415, "3".into()));
        assert_eq!(other_http2(&server, "GET", "application/grpc").await, (405, "13".into()));
    });
}

#[test]
fn many_calls_on_one_connection_share_confirmations() {
    serve(async |server| {
        let client = server.client().await;
        let calls: Vec<_> = (0..200)
            .map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move { client.unary::<pb::RangeResponse>(RANGE, &get("a")).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        let reads = server.member.reads.load(std::sync::atomic::Ordering::Relaxed);
        assert!(reads < 200, "{reads} confirmations for 200 reads");
    });
}

#[test]
fn cancelled_calls_are_counted_and_answered_late_to_nobody() {
    serve(async |server| {
        server.member.set(Answer::Never);
        let mut client = server.client().await;
        let mut call = client.open::<pb::PutResponse>(PUT).await;
        call.send_last(&put("a", ""));
        server.member.settle();
        call.reset();
        server.member.set(Answer::Apply);
        let _: pb::PutResponse = client.unary(PUT, &put("a", "")).await.unwrap();
        let line = "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1";
        let metrics = crate::support::request(server.doors.local_addrs()[0], "GET", "/metrics").await.body;
        assert!(metrics.contains(line));
    });
}

#[test]
fn stopping_ends_streams_and_waits_for_requests() {
    run(async {
        let server = Server::start();
        let mut client = server.client().await;
        let mut watch = client.open::<pb::WatchResponse>("/etcdserverpb.Watch/Watch").await;
        let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
        watch.send(&pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) });
        assert!(watch.next().await.unwrap().unwrap().created);
        let mut call = client.open::<pb::PutResponse>(PUT).await;
        let address = server.doors.local_addrs()[0];
        let doors = server.doors;
        let stopping = tokio::task::spawn_blocking(move || doors.stop(Duration::from_secs(10)));
        assert_eq!(watch.next().await.unwrap_err(), (14, "etcdserver: server stopped".into()));
        call.send_last(&put("a", "1"));
        assert_eq!(call.next().await.unwrap().unwrap().header.unwrap().revision, 2, "a request under way is answered");
        drop((client, watch, call));
        stopping.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    });
}

const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

#[test]
fn requests_that_never_come_have_a_deadline() {
    serve(async |server| {
        for path in [PUT, SNAPSHOT] {
            let mut client = server.client().await.with("grpc-timeout", "50m");
            let mut call = client.open::<()>(path).await;
            // Half of one is none.
            call.send_raw(&[0, 0, 0, 0, 9, 1], false);
            assert_eq!(call.next().await.unwrap_err(), (4, "context deadline exceeded".into()), "{path}");
        }
    });
}

#[test]
fn requests_that_never_come_do_not_keep_the_server() {
    run(async {
        let server = Server::start();
        let mut client = server.client().await;
        let mut unary = client.open::<pb::PutResponse>(PUT).await;
        let mut stream = client.open::<pb::SnapshotResponse>(SNAPSHOT).await;
        // Once this is answered the others have begun.
        let _: pb::RangeResponse = client.unary(RANGE, &get("a")).await.unwrap();
        let doors = server.doors;
        let stopping = tokio::task::spawn_blocking(move || doors.stop(Duration::from_secs(3600)));
        assert_eq!(unary.next().await.unwrap_err(), (14, "etcdserver: server stopped".into()));
        assert_eq!(stream.next().await.unwrap_err(), (14, "etcdserver: server stopped".into()));
        drop((client, unary, stream));
        stopping.await.unwrap();
    });
}

#[test]
fn a_dropped_server_does_not_wait() {
    run(async {
        let server = Server::start();
        server.member.set(Answer::Never);
        let mut client = server.client().await;
        let mut call = client.open::<pb::PutResponse>(PUT).await;
        call.send_last(&put("a", "1"));
        server.member.settle();
        let doors = server.doors;
        tokio::task::spawn_blocking(move || doors.stop(Duration::ZERO)).await.unwrap();
    });
}

#[test]
fn clients_who_take_every_place_do_not_hide_the_metrics() {
    run(async {
        let server = Server::configured(crate::support::Member::new(), |config| {
            config.limits = milepost_api::Limits { max_connections: 1, ..crate::support::limits() };
            let address = Listen::Tcp { host: "127.0.0.1".into(), port: 0 };
            let metrics = Listener { address: address.clone(), role: Role::Metrics, is_tls: false };
            config.listeners = vec![Listener::plain(address), metrics];
        });
        let addresses = server.doors.local_addrs().to_vec();
        let mut client = server.client().await;
        let _: pb::PutResponse = client.unary(PUT, &put("a", "1")).await.unwrap();
        // The only place is taken, and silent ones wait in front of it.
        let _silent =
            (TcpStream::connect(addresses[0]).await.unwrap(), TcpStream::connect(addresses[0]).await.unwrap());
        for path in ["/metrics", "/health"] {
            assert_eq!(crate::support::request(addresses[1], "GET", path).await.status, 200);
        }
    });
}

#[test]
fn clients_above_the_limit_wait() {
    run(async {
        let limits = milepost_api::Limits { max_connections: 2, ..crate::support::limits() };
        let server = Server::with(limits, crate::support::Member::new());
        let mut first = server.client().await;
        let _: pb::PutResponse = first.unary(PUT, &put("a", "1")).await.unwrap();
        let mut second = server.client().await;
        let _: pb::PutResponse = second.unary(PUT, &put("a", "2")).await.unwrap();
        let mut third = server.client().await;
        let waiting = tokio::spawn(async move { third.unary::<pb::PutResponse>(PUT, &put("a", "3")).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        let answer = waiting.await.unwrap().unwrap();
        assert_eq!(answer.header.unwrap().revision, 4);
    });
}
