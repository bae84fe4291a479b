//! Watch streams through the door.

use bytes::Bytes;
use milepost_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;

use crate::keys::{PUT, put};
use crate::support::{Client, serve};

const WATCH: &str = "/etcdserverpb.Watch/Watch";

fn ask(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(union) }
}

fn on(key: &'static str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.into(), ..Default::default() }
}

fn create(request: pb::WatchCreateRequest) -> pb::WatchRequest {
    ask(RequestUnion::CreateRequest(request))
}

async fn change(client: &mut Client, key: &str, value: &str) -> i64 {
    let answer: pb::PutResponse = client.unary(PUT, &put(key, value)).await.unwrap();
    answer.header.unwrap().revision
}

#[test]
fn created_then_events_also_after_half_close_then_canceled() {
    serve(async |server| {
        let mut client = server.client().await;
        let mut watch = client.open::<pb::WatchResponse>(WATCH).await;
        watch.send(&create(on("a")));
        let created = watch.next().await.unwrap().unwrap();
        let header = pb::ResponseHeader { cluster_id: 7, member_id: 8, raft_term: 2, revision: 1 };
        assert_eq!(created, pb::WatchResponse { header: Some(header), created: true, ..Default::default() });
        let revision = change(&mut client, "a", "1").await;
        let answer = watch.next().await.unwrap().unwrap();
        assert_eq!((answer.header.unwrap().revision, answer.watch_id, answer.events.len()), (revision, 0, 1));
        assert_eq!(answer.events[0].kv.as_ref().unwrap().value, Bytes::from("1"));
        watch.send(&create(pb::WatchCreateRequest { watch_id: 9, start_revision: 2, ..on("a") }));
        assert!(watch.next().await.unwrap().unwrap().created);
        assert_eq!(watch.next().await.unwrap().unwrap().events.len(), 1, "from history");
        watch.send(&ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 9 })));
        let canceled = watch.next().await.unwrap().unwrap();
        assert_eq!((canceled.watch_id, canceled.canceled), (9, true));
        watch.half_close();
        change(&mut client, "a", "2").await;
        assert_eq!(watch.next().await.unwrap().unwrap().events.len(), 1);
    });
}

#[test]
fn large_values_are_shared_and_whole() {
    serve(async |server| {
        let mut client = server.client().await;
        let mut watch = client.open::<pb::WatchResponse>(WATCH).await;
        for _ in 0..2 {
            watch.send(&create(on("a")));
            assert!(watch.next().await.unwrap().unwrap().created);
        }
        let value = "x".repeat(1_000_000);
        change(&mut client, "a", &value).await;
        change(&mut client, "a", "small").await;
        let mut sizes = [const { Vec::new() }; 2];
        for _ in 0..4 {
            let answer = watch.next().await.unwrap().unwrap();
            sizes[answer.watch_id as usize].push(answer.events[0].kv.as_ref().unwrap().value.len());
        }
        assert_eq!(sizes, [[1_000_000, 5], [1_000_000, 5]]);
    });
}

#[test]
fn progress_by_request_and_by_time() {
    serve(async |server| {
        let mut client = server.client().await;
        let mut watch = client.open::<pb::WatchResponse>(WATCH).await;
        watch.send(&create(on("a")));
        assert!(watch.next().await.unwrap().unwrap().created);
        watch.send(&ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})));
        let progress = watch.next().await.unwrap().unwrap();
        assert_eq!((progress.watch_id, progress.header.unwrap().revision, progress.events.len()), (-1, 1, 0));
        watch.send(&create(pb::WatchCreateRequest { progress_notify: true, ..on("b") }));
        assert!(watch.next().await.unwrap().unwrap().created);
        for _ in 0..2 {
            let progress = watch.next().await.unwrap().unwrap();
            assert_eq!((progress.watch_id, progress.header.unwrap().revision, progress.events.len()), (1, 1, 0));
        }
    });
}

#[test]
fn refusals_are_replies() {
    serve(async |server| {
        let mut client = server.client().await;
        let mut watch = client.open::<pb::WatchResponse>(WATCH).await;
        watch.send(&create(pb::WatchCreateRequest { range_end: "a".into(), ..on("b") }));
        let refused = watch.next().await.unwrap().unwrap();
        assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true));
        assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
        watch.send(&create(pb::WatchCreateRequest { start_revision: -1, ..on("b") }));
        let refused = watch.next().await.unwrap().unwrap();
        assert_eq!(refused.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
        watch.send(&pb::WatchRequest::default());
        watch.send(&create(on("b")));
        assert!(watch.next().await.unwrap().unwrap().created, "an unknown request is passed over");
    });
}

#[test]
fn the_leader_is_lost() {
    serve(async |server| {
        let mut client = server.client().await.with("hasleader", "true");
        let mut watch = client.open::<pb::WatchResponse>(WATCH).await;
        watch.send(&create(on("a")));
        assert!(watch.next().await.unwrap().unwrap().created);
        let mut other = server.client().await.open::<pb::WatchResponse>(WATCH).await;
        other.send(&create(on("a")));
        assert!(other.next().await.unwrap().unwrap().created);
        server.member.stand(|standing| standing.leader = 0);
        assert_eq!(watch.next().await.unwrap_err(), (14, "etcdserver: no leader".into()));
        server.member.stand(|standing| standing.leader = 8);
        change(&mut server.client().await, "a", "1").await;
        assert_eq!(other.next().await.unwrap().unwrap().events.len(), 1, "who did not ask for a leader stays");
    });
}

#[test]
fn a_client_that_never_reads_costs_a_bounded_amount() {
    serve(async |server| {
        let mut lazy_client = server.client().await;
        let mut lazy = lazy_client.open::<pb::WatchResponse>(WATCH).await;
        lazy.send(&create(pb::WatchCreateRequest { start_revision: 2, ..on("a") }));
        let mut client = server.client().await;
        let value = "x".repeat(100_000);
        for _ in 0..200 {
            change(&mut client, "a", &value).await;
        }
        let mut revisions = Vec::new();
        while revisions.len() < 200 {
            let answer = lazy.next().await.unwrap().unwrap();
            revisions.extend(answer.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
        }
        assert!(revisions.is_sorted() && revisions[199] - revisions[0] == 199, "nothing is lost: {revisions:?}");
    });
}

#[test]
fn streams_are_closed_with_their_clients() {
    serve(async |server| {
        let mut client = server.client().await;
        let mut watch = client.open::<pb::WatchResponse>(WATCH).await;
        watch.send(&create(on("a")));
        assert!(watch.next().await.unwrap().unwrap().created);
        assert_eq!(milepost_api::Backend::hub(&*server.member).stats().watchers, 1);
        watch.reset();
        while milepost_api::Backend::hub(&*server.member).stats().streams > 0 {
            tokio::task::yield_now().await;
        }
    });
}
