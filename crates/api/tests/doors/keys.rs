//! KV: what goes in comes out, with complete headers.

use milepost_api::Backend;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::watch_request::RequestUnion;

use crate::support::{Client, serve};

pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const TXN: &str = "/etcdserverpb.KV/Txn";
pub const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
pub const COMPACT: &str = "/etcdserverpb.KV/Compact";

pub fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

pub fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

pub fn prefix(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { range_end: vec![key.as_bytes()[0] + 1].into(), ..get(key) }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { cluster_id: 7, member_id: 8, raft_term: 2, revision })
}

#[test]
fn a_key_lives_and_dies() {
    serve(async |server| {
        let mut client = server.client().await;
        let answer: pb::PutResponse = client.unary(PUT, &put("a", "1")).await.unwrap();
        assert_eq!(answer.header, header(2));
        let again = pb::PutRequest { prev_kv: true, ..put("a", "2") };
        let answer: pb::PutResponse = client.unary(PUT, &again).await.unwrap();
        assert_eq!(answer.prev_kv.unwrap().value, "1");
        let answer: pb::RangeResponse = client.unary(RANGE, &get("a")).await.unwrap();
        assert_eq!((answer.header, answer.count, &answer.kvs[0].value[..]), (header(3), 1, &b"2"[..]));
        let old = pb::RangeRequest { revision: 2, serializable: true, ..get("a") };
        let answer: pb::RangeResponse = client.unary(RANGE, &old).await.unwrap();
        assert_eq!(answer.kvs[0].value, "1");
        let delete = pb::DeleteRangeRequest { key: "a".into(), ..Default::default() };
        let answer: pb::DeleteRangeResponse = client.unary(DELETE, &delete).await.unwrap();
        assert_eq!((answer.header, answer.deleted), (header(4), 1));
        let answer: pb::DeleteRangeResponse = client.unary(DELETE, &delete).await.unwrap();
        assert_eq!((answer.header, answer.deleted), (header(4), 0));
        let compact = pb::CompactionRequest { revision: 3, physical: true };
        let answer: pb::CompactionResponse = client.unary(COMPACT, &compact).await.unwrap();
        assert_eq!(answer.header, header(4));
    });
}

#[test]
fn transactions_write_and_read() {
    serve(async |server| {
        let mut client = server.client().await;
        let op = |request| pb::RequestOp { request: Some(request) };
        let write = pb::TxnRequest {
            success: vec![
                op(pb::request_op::Request::RequestPut(put("t", "1"))),
                op(pb::request_op::Request::RequestRange(get("t"))),
            ],
            ..Default::default()
        };
        let answer: pb::TxnResponse = client.unary(TXN, &write).await.unwrap();
        assert_eq!((answer.header, answer.succeeded, answer.responses.len()), (header(2), true, 2));
        let reads = server.member.reads.load(std::sync::atomic::Ordering::Relaxed);
        let empty: pb::TxnResponse = client.unary(TXN, &pb::TxnRequest::default()).await.unwrap();
        assert_eq!((empty.header, empty.succeeded), (header(2), true));
        assert_eq!(
            server.member.reads.load(std::sync::atomic::Ordering::Relaxed),
            reads,
            "without operations nothing is confirmed"
        );
        let read = pb::TxnRequest {
            failure: vec![],
            success: vec![op(pb::request_op::Request::RequestRange(get("t")))],
            ..Default::default()
        };
        let answer: pb::TxnResponse = client.unary(TXN, &read).await.unwrap();
        assert_eq!(answer.header, header(2));
        assert_eq!(server.member.reads.load(std::sync::atomic::Ordering::Relaxed), reads + 1);
    });
}

async fn fill(client: &mut Client, keys: usize) {
    for n in 0..keys {
        let _: pb::PutResponse = client.unary(PUT, &put(&format!("k{n:04}"), "v")).await.unwrap();
    }
}

#[test]
fn long_ranges_answer_as_short_ones_and_in_pieces() {
    serve(async |server| {
        let mut client = server.client().await;
        fill(&mut client, 1100).await;
        let whole: pb::RangeResponse = client.unary(RANGE, &prefix("k")).await.unwrap();
        assert_eq!((whole.kvs.len(), whole.count, whole.more, &whole.header), (1100, 1100, false, &header(1101)));
        let page = pb::RangeRequest { limit: 5, ..prefix("k") };
        let page: pb::RangeResponse = client.unary(RANGE, &page).await.unwrap();
        assert_eq!((page.kvs.len(), page.count, page.more), (5, 1100, true));

        let mut stream = client.open::<pb::RangeStreamResponse>("/etcdserverpb.KV/RangeStream").await;
        stream.send_last(&prefix("k"));
        let mut joined = pb::RangeResponse::default();
        let mut pieces = 0;
        while let Some(piece) = stream.next().await.unwrap() {
            assert!(joined.header.is_none(), "only the last piece has a header");
            let piece = piece.range_response.unwrap();
            joined.kvs.extend(piece.kvs);
            (joined.header, joined.count, joined.more) = (piece.header, piece.count, piece.more);
            pieces += 1;
        }
        assert!(pieces > 2, "{pieces} pieces");
        assert_eq!(joined, whole);

        let mut stream = client.open::<pb::RangeStreamResponse>("/etcdserverpb.KV/RangeStream").await;
        stream.send_last(&pb::RangeRequest { limit: 5, ..prefix("k") });
        let only = stream.next().await.unwrap().unwrap().range_response.unwrap();
        assert_eq!(only, page, "what is left is counted");
        assert!(stream.next().await.unwrap().is_none());
    });
}

#[test]
fn a_physical_compaction_is_answered_when_it_is_done() {
    serve(async |server| {
        let mut client = server.client().await;
        for value in ["1", "2", "3"] {
            let _: pb::PutResponse = client.unary(PUT, &put("a", value)).await.unwrap();
        }
        let pins_the_past = server.member.reader().store().view();
        let mut compaction = client.open::<pb::CompactionResponse>(COMPACT).await;
        compaction.send_last(&pb::CompactionRequest { revision: 3, physical: true });
        let mut answer = Box::pin(compaction.next());
        // Streams hear that the leader is lost, or that it is back; it is no answer here.
        let mut watch =
            client.clone().with("hasleader", "true").open::<pb::WatchResponse>("/etcdserverpb.Watch/Watch").await;
        let create = pb::WatchCreateRequest { key: "b".into(), ..Default::default() };
        watch.send(&pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        assert!(watch.next().await.unwrap().unwrap().created);
        server.member.stand(|standing| standing.leader = 0);
        tokio::select! {
            biased;
            _ = &mut answer => panic!("the past is still there"),
            end = watch.next() => assert_eq!(end.unwrap_err().0, 14),
        }
        server.member.stand(|standing| standing.leader = 8);
        drop(pins_the_past);
        let _: pb::PutResponse = server.client().await.unary(PUT, &put("b", "")).await.unwrap();
        assert_eq!(answer.await.unwrap().unwrap().header.unwrap().revision, 4);
    });
}
