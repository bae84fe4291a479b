//! What members ask each other outside of Raft.

use milepost_api::{Listen, Listener, Role};
use milepost_proto::Message;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::{leasepb, membershippb as mpb};

use crate::members::found;
use crate::support::{Member, Server, exchange_bytes, limits, request, run};

/// Member 8, alone, with its peer port.
fn peer() -> Server {
    let member = Member::new();
    found(&member, 8);
    let address = Listen::Tcp { host: "127.0.0.1".into(), port: 0 };
    let listener = Listener { address, role: Role::Peer, is_tls: false };
    Server::configured(member, |set| (set.limits, set.listeners) = (limits(), vec![listener]))
}

/// Sends a message or text, and gives back status and body.
async fn ask(server: &Server, verb: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let head = format!(
        "{verb} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    let answer = exchange_bytes(server.doors.local_addrs()[0], [head.as_bytes(), body].concat()).await;
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer[split..].to_vec())
}

fn text(answer: (u16, Vec<u8>)) -> (u16, String) {
    (answer.0, String::from_utf8(answer.1).unwrap())
}

#[test]
fn members_and_versions() {
    run(async {
        let server = peer();
        let address = server.doors.local_addrs()[0];
        let page = request(address, "GET", "/members").await;
        let json = r#"[{"id":8,"peerURLs":["http://m8:2380"],"name":"m8","clientURLs":["http://m8:2379"]}]"#;
        assert_eq!((page.status, page.body), (200, format!("{json}\n")));
        assert!(page.head.contains("x-etcd-cluster-id: 7\r\n") && page.head.contains("application/json"));
        assert_eq!(request(address, "GET", "/version").await.status, 200);
        for path in ["/", "/members/", "/health", "/metrics", "/v3/kv/range", "/lease", "/downgrade"] {
            assert_eq!(request(address, "GET", path).await.status, 404, "{path}");
        }
        let wrong = request(address, "POST", "/members").await;
        assert!(wrong.status == 405 && wrong.head.contains("allow: get"), "{}", wrong.head);
        assert_eq!(request(address, "GET", "/leases").await.status, 405);
    });
}

#[test]
fn a_downgrade_is_told() {
    run(async {
        let server = peer();
        let told = async || text(ask(&server, "GET", "/downgrade/enabled", "", b"").await);
        assert_eq!(told().await, (200, "false".into()));
        let set = mpb::DowngradeInfoSetRequest { enabled: true, ver: "3.6.0".into() };
        server.member.apply_request(Request::DowngradeInfoSet(set));
        assert_eq!(told().await, (200, "true".into()));
        server.member.set(crate::support::Answer::Fail(milepost_api::NodeError::Timeout));
        assert_eq!(told().await, (500, "failed linearized read: etcdserver: request timed out\n".into()));
    });
}

#[test]
fn hashes_of_the_keyspace() {
    run(async {
        let server = peer();
        let hash = async |headers: &str, body: &str| {
            text(ask(&server, "GET", "/members/hashkv", headers, body.as_bytes()).await)
        };
        let (status, body) = hash("X-Etcd-Cluster-ID: 7\r\n", r#"{"revision":1}"#).await;
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &json["header"]["revision"], &json["hash_revision"]), (200, &1.into(), &1.into()));
        let own = server.member.reader_hash(1);
        assert_eq!((&json["hash"], &json["compact_revision"]), (&own.into(), &(-1).into()));
        assert_eq!(hash("X-Etcd-Cluster-ID: 8\r\n", "{}").await, (412, "cluster ID mismatch\n".into()));
        let future = (400, "mvcc: required revision is a future revision\n".into());
        assert_eq!(hash("", r#"{"revision":9}"#).await, future);
        assert_eq!(hash("", "?").await, (400, "error unmarshalling request\n".into()));
    });
}

#[test]
fn leases_for_followers() {
    run(async {
        let server = peer();
        let grant = pb::LeaseGrantRequest { ttl: 60, id: 5 };
        server.member.apply_request(Request::LeaseGrant(grant));
        let renew =
            async |id| ask(&server, "POST", "/leases", "", &pb::LeaseKeepAliveRequest { id }.encode_to_vec()).await;
        let (status, body) = renew(5).await;
        let answer = pb::LeaseKeepAliveResponse::decode(&body[..]).unwrap();
        assert_eq!((status, answer), (200, pb::LeaseKeepAliveResponse { header: None, id: 5, ttl: 60 }));
        assert_eq!(text(renew(6).await), (404, "lease not found\n".into()));
        let look = async |id| {
            let request = pb::LeaseTimeToLiveRequest { id, keys: true };
            let request = leasepb::LeaseInternalRequest { lease_time_to_live_request: Some(request) };
            ask(&server, "POST", "/leases/internal", "", &request.encode_to_vec()).await
        };
        let (status, body) = look(5).await;
        let answer = leasepb::LeaseInternalResponse::decode(&body[..]).unwrap().lease_time_to_live_response.unwrap();
        assert_eq!((status, answer.id, answer.granted_ttl), (200, 5, 60));
        assert!(answer.header == Some(pb::ResponseHeader::default()) && (59..=60).contains(&answer.ttl));
        assert_eq!(text(look(6).await), (404, "lease not found\n".into()));
        let long = vec![0; 70_000];
        assert_eq!(text(ask(&server, "POST", "/leases", "", &long).await), (413, "request body too large\n".into()));
        assert_eq!(text(ask(&server, "POST", "/leases", "", b"\xff").await).0, 400);

        server.member.demote();
        assert_eq!(text(renew(5).await), (400, "not a primary lessor\n".into()));
        assert_eq!(text(look(5).await), (500, "not a primary lessor\n".into()));
        server.member.stand(|standing| standing.applied = 3);
        let behind = "waiting for node to catch up its applied index has timed out\n";
        assert_eq!(text(renew(5).await), (408, behind.into()));
    });
}

#[test]
fn promotions_for_followers() {
    run(async {
        let server = peer();
        *server.member.progress.lock().unwrap() = vec![(8, 30)];
        let promote = async |id: &str| text(ask(&server, "POST", &format!("/members/promote/{id}"), "", b"").await);
        assert_eq!(promote("9").await, (404, "membership: ID not found\n".into()));
        assert_eq!(promote("8f").await, (404, "member 8f not found in cluster\n".into()));
        assert_eq!(promote("8").await, (412, "membership: can only promote a learner member\n".into()));
        let learner = milepost_machine::Member {
            id: milepost_types::MemberId(9),
            peer_urls: vec!["http://m9:2380".into()],
            is_learner: true,
            ..Default::default()
        };
        server.member.apply_change(&milepost_machine::member::add(0, &learner));
        *server.member.progress.lock().unwrap() = vec![(8, 30), (9, 1)];
        let behind = "etcdserver: can only promote a learner member which is in sync with leader\n";
        assert_eq!(promote("9").await, (412, behind.into()));
        *server.member.progress.lock().unwrap() = vec![(8, 30), (9, 30)];
        let (status, body) = promote("9").await;
        let json = r#"[{"id":8,"peerURLs":["http://m8:2380"],"name":"m8","clientURLs":["http://m8:2379"]},{"id":9,"peerURLs":["http://m9:2380"]}]"#;
        assert_eq!((status, body), (200, format!("{json}\n")));
    });
}

/// A body that says one word, and then nothing for ever.
struct Endless(bool);

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        if std::mem::replace(&mut self.0, true) {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data("word".into()))))
    }
}

#[test]
fn streams_of_raft_go_to_their_service_and_are_hung_up() {
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    run(async {
        let hang_ups = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&hang_ups);
        let service: milepost_api::PeerService = Arc::new(move |request, hang_up| {
            assert!(request.uri().path().starts_with("/raft"), "{}", request.uri());
            kept.lock().unwrap().push(hang_up);
            let body: milepost_api::PeerBody = Box::pin(Endless(false));
            Box::pin(async move { http::Response::new(body) })
        });
        let address = Listen::Tcp { host: "127.0.0.1".into(), port: 0 };
        let listener = Listener { address, role: Role::Peer, is_tls: false };
        let server = Server::configured(Member::new(), |set| {
            (set.limits, set.listeners, set.peer_service) = (limits(), vec![listener], Some(service));
        });
        let stream = async || {
            let mut stream = tokio::net::TcpStream::connect(server.doors.local_addrs()[0]).await.unwrap();
            stream.write_all(b"GET /raft/stream/msgapp/1 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"4\r\nword\r\n") {
                head.push(stream.read_u8().await.expect("what is made is sent at once"));
            }
            stream
        };
        let (mut first, mut second) = (stream().await, stream().await);
        hang_ups.lock().unwrap()[0].notify_one();
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "hung up without an end that looks like one: {rest:?}");
        // The other one goes on until the doors stop, and then ends at once.
        server.doors.stop(std::time::Duration::ZERO);
        let _ = second.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{rest:?}");
    });
}
