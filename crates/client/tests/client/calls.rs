//! Unary calls: answers, errors, deadlines, several endpoints.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use milepost_api::Listen;
use milepost_client::{Auth, Client, Code, Config, ConnectError, Deadline};
use milepost_proto::etcdserverpb as pb;

use crate::support::{Answer, Server, client, get, nobody, put, run, soon};

#[test]
fn what_is_put_is_read() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let answer = client.kv().put(put("a", "1"), soon()).await.unwrap();
        assert_eq!(answer.header.unwrap().revision, 2);
        let answer = client.kv().range(get("a"), soon()).await.unwrap();
        assert_eq!((&answer.kvs[0].value[..], answer.count), (&b"1"[..], 1));
        let members = client.cluster().member_list(pb::MemberListRequest { linearizable: true }, soon()).await;
        assert!(members.is_ok(), "{members:?}");
    });
}

#[test]
fn a_servers_refusal_keeps_its_code_and_text_and_is_told() {
    run(async {
        let server = Server::start();
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&told);
        let config = Config {
            endpoints: vec![server.address().to_string()],
            watcher: Some(Arc::new(move |failed| {
                let line = (failed.method.to_owned(), failed.attempt, failed.error.rpc_text());
                listener.lock().unwrap().push(line);
            })),
            ..Config::default()
        };
        let client = Client::connect(config).await.unwrap();
        let revoke = pb::LeaseRevokeRequest { id: 77 };
        let error = client.lease().revoke(revoke, soon()).await.unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (Code::NotFound, "etcdserver: requested lease not found")
        );
        let line = "rpc error: code = NotFound desc = etcdserver: requested lease not found".to_owned();
        assert_eq!(*told.lock().unwrap(), [("/etcdserverpb.Lease/LeaseRevoke".to_owned(), 0, line)]);
    });
}

#[test]
fn without_any_server_a_call_waits_for_its_deadline() {
    run(async {
        let client = client(&[&nobody()]).await;
        let error = client.kv().range(get("a"), Deadline::after(Duration::from_millis(100))).await.unwrap_err();
        assert_eq!(error.to_string(), "context deadline exceeded");
        assert!(error.message().contains("connect: connection refused"), "{}", error.message());
    });
}

#[test]
fn a_server_that_never_answers_is_given_up_at_the_deadline() {
    run(async {
        let server = Server::start();
        server.member.set(Answer::Never);
        let client = server.client().await;
        let error = client.kv().put(put("a", "1"), Deadline::after(Duration::from_millis(200))).await.unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (Code::DeadlineExceeded, "context deadline exceeded"));
        assert!(error.is_context());
    });
}

#[test]
fn dead_endpoints_are_passed_over() {
    run(async {
        let server = Server::start();
        let address = server.address().to_string();
        let client = client(&[&nobody(), &format!("http://{address}"), &nobody()]).await;
        for count in 0..5 {
            let answer = client.kv().put(put("a", &count.to_string()), soon()).await.unwrap();
            assert_eq!(answer.header.unwrap().revision, count + 2);
        }
    });
}

#[test]
fn endpoints_take_turns() {
    run(async {
        let servers = [Server::start(), Server::start()];
        let addresses = servers.each_ref().map(|server| server.address().to_string());
        let client = client(&[&addresses[0], &addresses[1]]).await;
        // Each server counts its own revisions: the second put of a server is its revision 3.
        let mut last = [0, 0];
        let mut calls = 0;
        while last.iter().any(|revision| *revision < 3) {
            client.kv().put(put("a", "1"), soon()).await.unwrap();
            for (last, server) in last.iter_mut().zip(&servers) {
                let own = server.client().await.kv().range(get("a"), soon()).await.unwrap();
                *last = own.header.unwrap().revision;
            }
            calls += 1;
            assert!(calls < 1000, "one endpoint is never asked: {last:?}");
        }
    });
}

#[test]
fn a_socket_is_an_endpoint_too() {
    run(async {
        let path = std::env::temp_dir().join(format!("milepost-client-{}.sock", std::process::id()));
        let path = path.to_str().unwrap().to_owned();
        let server = Server::on(vec![Listen::Unix(path.clone().into())]);
        let client = client(&[&format!("unix://{path}")]).await;
        assert!(client.kv().put(put("a", "1"), soon()).await.is_ok());
        drop(server);
    });
}

#[test]
fn one_endpoint_alone_can_be_asked() {
    run(async {
        let server = Server::start();
        let address = server.address().to_string();
        let client = client(&[&nobody()]).await.at(&address).unwrap();
        assert_eq!(client.endpoints(), [address]);
        let status = client.maintenance().status(pb::StatusRequest {}, soon()).await.unwrap();
        assert_eq!(status.leader, 8);
    });
}

#[test]
fn messages_above_our_limits_are_not_sent_or_not_taken() {
    run(async {
        let server = Server::start();
        let with = |max_send_bytes, max_recv_bytes| {
            let endpoints = vec![server.address().to_string()];
            Client::connect(Config { endpoints, max_send_bytes, max_recv_bytes, ..Config::default() })
        };
        let big = put("a", &"x".repeat(1000));
        let error = with(500, 0).await.unwrap().kv().put(big.clone(), soon()).await.unwrap_err();
        assert_eq!(error.message(), "trying to send message larger than max (1006 vs. 500)");
        with(0, 0).await.unwrap().kv().put(big, soon()).await.unwrap();
        let error = with(100, 500).await.unwrap().kv().range(get("a"), soon()).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.message().starts_with("grpc: received message larger than max (10"), "{error}");
        let refused = with(500, 100).await.err().unwrap().to_string();
        assert_eq!(refused, "gRPC message recv limit (100 bytes) must be greater than send limit (500 bytes)");
    });
}

#[test]
fn no_endpoints_and_no_connection_are_told_apart() {
    run(async {
        let none = Client::connect(Config::default()).await.err().unwrap();
        assert_eq!(none.to_string(), "etcdclient: no available endpoints");
        let config = Config {
            endpoints: vec![nobody()],
            dial_timeout: Duration::from_millis(50),
            auth: Auth::Password { user: "u".into(), password: "p".into() },
            ..Config::default()
        };
        let Err(ConnectError::Refused(error)) = Client::connect(config).await else { panic!("nobody gave a token") };
        assert_eq!(error.to_string(), "context deadline exceeded");
    });
}

#[test]
fn a_servers_pages_can_be_read() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let page = client.page("/metrics", soon()).await.unwrap();
        assert!(page.contains("\nprocess_resident_memory_bytes "), "{page}");
        let error = client.page("/nothing", soon()).await.unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    });
}
