//! Watches through doors and broken wires.

use milepost_client::{Client, Update, Watcher};
use milepost_proto::etcdserverpb as pb;

use crate::support::relay::Relay;
use crate::support::{Server, client, put, run, soon};

fn all(start_revision: i64) -> pb::WatchCreateRequest {
    let everything = bytes::Bytes::from_static(b"\0");
    pb::WatchCreateRequest { key: everything.clone(), range_end: everything, start_revision, ..Default::default() }
}

fn key(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.to_owned().into(), ..Default::default() }
}

async fn write(client: &Client, count: usize) {
    for number in 0..count {
        client.kv().put(put("a", &number.to_string()), soon()).await.unwrap();
    }
}

/// The revisions of the next `count` events.
async fn revisions(watcher: &mut Watcher, count: usize) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let update = watcher.next().await.expect("the watcher lives");
        assert_eq!(update.error(), None);
        seen.extend(update.response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
    }
    seen
}

#[test]
fn events_arrive_in_order_across_broken_wires() {
    run(async {
        let server = Server::start();
        let direct = server.client().await;
        let relay = Relay::to(server.address()).await;
        let client = client(&[&relay.address().to_string()]).await;
        let mut watcher = client.watch(all(1));
        write(&direct, 3).await;
        assert_eq!(revisions(&mut watcher, 3).await, [2, 3, 4]);
        for round in 0..5 {
            relay.cut();
            write(&direct, 2).await;
            let first = 5 + round * 2;
            assert_eq!(revisions(&mut watcher, 2).await, [first, first + 1]);
        }
    });
}

#[test]
fn what_happens_while_the_server_is_away_is_not_lost() {
    run(async {
        let server = Server::start();
        let direct = server.client().await;
        let relay = Relay::to(server.address()).await;
        let address = relay.address();
        let client = client(&[&address.to_string()]).await;
        let mut watcher = client.watch(key("a"));
        // The watcher begins "now"; that it is there is known from its first event.
        while tokio::time::timeout(std::time::Duration::from_millis(20), watcher.next()).await.is_err() {
            write(&direct, 1).await;
        }
        drop(relay);
        let before = direct.kv().put(put("a", "away"), soon()).await.unwrap().header.unwrap().revision;
        let _relay = Relay::at(address, server.address()).await;
        // One update may hold the events of before the break and of after it.
        while *revisions(&mut watcher, 1).await.last().unwrap() < before {}
    });
}

#[test]
fn watchers_of_a_group_share_a_stream_and_its_progress() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let mut watches = client.watches(true);
        let mut a = watches.add(key("a"));
        let mut b = watches.add(key("b"));
        // Both are there once both have heard of a progress.
        watches.request_progress();
        let heard = |update: Option<Update>| update.is_some_and(|update| update.is_progress());
        while !heard(a.next().await) {}
        write(&client, 1).await;
        assert_eq!(revisions(&mut a, 1).await, [2]);
        // Dropped: the other one goes on.
        drop(a);
        client.kv().put(put("b", "1"), soon()).await.unwrap();
        assert_eq!(revisions(&mut b, 1).await, [3]);
    });
}

#[test]
fn a_watcher_below_the_history_ends_with_the_compacted_revision() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        write(&client, 5).await;
        let compact = pb::CompactionRequest { revision: 4, physical: true };
        client.kv().compact(compact, soon()).await.unwrap();
        let mut watcher = client.watch(all(2));
        let update = watcher.next().await.unwrap();
        assert_eq!(update.response.compact_revision, 4);
        let error = update.error().unwrap();
        assert_eq!(error.to_string(), "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(watcher.next().await, None);
    });
}

#[test]
fn a_watcher_that_the_server_refuses_is_told_why() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let empty = pb::WatchCreateRequest { range_end: "a".into(), ..key("b") };
        let mut watcher = client.watch(empty);
        let update = watcher.next().await.unwrap();
        assert!(update.response.canceled);
        assert_eq!(update.error().unwrap().to_string(), "mvcc: watcher range is empty");
        assert_eq!(watcher.next().await, None);
    });
}

#[test]
fn without_a_leader_a_watcher_that_asks_for_one_ends() {
    run(async {
        let server = Server::start();
        server.member.stand(|standing| standing.leader = 0);
        let client = server.client().await;
        let mut watcher = client.watches(true).add(key("a"));
        let update = watcher.next().await.unwrap();
        assert_eq!(update.error().unwrap().to_string(), "etcdserver: no leader");
        assert_eq!(watcher.next().await, None);
    });
}

#[test]
fn fragments_are_joined() {
    run(async {
        let server = Server::start();
        let client = server.client().await;
        let big = "x".repeat(900_000);
        let put_op =
            |key: &str| pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put(key, &big[..300_000]))) };
        // One revision of 0.9 MB, and another: an answer holds less than both.
        for _ in 0..4 {
            let txn = pb::TxnRequest { success: vec![put_op("a"), put_op("b"), put_op("c")], ..Default::default() };
            client.kv().txn(txn, soon()).await.unwrap();
        }
        let mut watcher = client.watch(pb::WatchCreateRequest { fragment: true, ..all(1) });
        let mut events = 0;
        while events < 12 {
            let update = watcher.next().await.unwrap();
            assert!(!update.response.fragment);
            events += update.response.events.len();
        }
        assert_eq!(events, 12);
    });
}
