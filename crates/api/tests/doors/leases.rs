//! Leases: granted, renewed, looked at, revoked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use milepost_proto::etcdserverpb as pb;

use crate::keys::{PUT, RANGE, get, put};
use crate::support::{Client, Server, serve};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const KEEP: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const TTL: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
const LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";

#[test]
fn a_lease_takes_its_keys_with_it() {
    serve(async |server| {
        let mut client = server.client().await;
        let lease: pb::LeaseGrantResponse =
            client.unary(GRANT, &pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.unwrap();
        assert!(lease.id > 0 && lease.ttl == 60 && lease.header.unwrap().cluster_id == 7);
        let _: pb::PutResponse = client.unary(PUT, &pb::PutRequest { lease: lease.id, ..put("a", "1") }).await.unwrap();
        let asked = pb::LeaseTimeToLiveRequest { id: lease.id, keys: true };
        let left: pb::LeaseTimeToLiveResponse = client.unary(TTL, &asked).await.unwrap();
        assert_eq!((left.granted_ttl, &left.keys[..]), (60, &[bytes::Bytes::from("a")][..]));
        assert!((59..=60).contains(&left.ttl));
        let all: pb::LeaseLeasesResponse = client.unary(LEASES, &pb::LeaseLeasesRequest {}).await.unwrap();
        assert_eq!(all.leases, [pb::LeaseStatus { id: lease.id }]);
        let gone: pb::LeaseRevokeResponse =
            client.unary(REVOKE, &pb::LeaseRevokeRequest { id: lease.id }).await.unwrap();
        assert_eq!(gone.header.unwrap().revision, 3);
        let found: pb::RangeResponse = client.unary(RANGE, &get("a")).await.unwrap();
        assert_eq!(found.count, 0);
        let left: pb::LeaseTimeToLiveResponse = client.unary(TTL, &asked).await.unwrap();
        assert_eq!((left.ttl, left.granted_ttl), (-1, 0));
    });
}

#[test]
fn renewals_answer_one_by_one_and_end_with_the_client() {
    serve(async |server| {
        let mut client = server.client().await;
        let _: pb::LeaseGrantResponse = client.unary(GRANT, &pb::LeaseGrantRequest { ttl: 60, id: 5 }).await.unwrap();
        let mut keep = client.open::<pb::LeaseKeepAliveResponse>(KEEP).await;
        for (id, ttl) in [(5, 60), (6, 0), (5, 60)] {
            keep.send(&pb::LeaseKeepAliveRequest { id });
            let answer = keep.next().await.unwrap().unwrap();
            assert_eq!((answer.id, answer.ttl), (id, ttl));
            assert_eq!(answer.header.unwrap().member_id, 8);
        }
        for _ in 0..2000 {
            keep.send(&pb::LeaseKeepAliveRequest { id: 5 });
        }
        keep.half_close();
        let mut answers = 0;
        while keep.next().await.unwrap().is_some() {
            answers += 1;
        }
        assert_eq!(answers, 2000);
    });
}

#[test]
fn an_ended_lease_is_gone_when_its_renewal_says_so() {
    serve(async |server| {
        let mut client = server.client().await;
        end_a_lease(&server, &mut client).await;
        let reads = server.member.reads.load(Ordering::Relaxed);
        let mut keep = client.open::<pb::LeaseKeepAliveResponse>(KEEP).await;
        keep.send(&pb::LeaseKeepAliveRequest { id: 5 });
        assert_eq!(keep.next().await.unwrap().unwrap().ttl, 0);
        assert_eq!(server.member.reads.load(Ordering::Relaxed), reads + 1, "a quorum confirms who may revoke");
        let found: pb::RangeResponse = client.unary(RANGE, &get("a")).await.unwrap();
        assert_eq!(found.count, 0, "nobody else revokes here");
    });
}

#[test]
fn who_does_not_lead_any_more_leaves_an_ended_lease_alone() {
    serve(async |server| {
        let mut client = server.client().await;
        end_a_lease(&server, &mut client).await;
        // Its lessor has not heard of the new leader yet.
        server.member.stand(|standing| standing.leader = 9);
        let mut keep = client.open::<pb::LeaseKeepAliveResponse>(KEEP).await;
        keep.send(&pb::LeaseKeepAliveRequest { id: 5 });
        let status = keep.next().await.unwrap_err();
        assert_eq!(status, (14, "etcdserver: no leader".to_owned()), "nobody knows where the new one is");
        let found: pb::RangeResponse = client.unary(RANGE, &get("a")).await.unwrap();
        assert_eq!(found.count, 1, "the new leader may have renewed it");
    });
}

/// Lease 5, over and not revoked, with key `a`.
async fn end_a_lease(server: &Server, client: &mut Client) {
    let lease: pb::LeaseGrantResponse = client.unary(GRANT, &pb::LeaseGrantRequest { ttl: 1, id: 5 }).await.unwrap();
    let _: pb::PutResponse = client.unary(PUT, &pb::PutRequest { lease: 5, ..put("a", "1") }).await.unwrap();
    // The lease starts to run with the first look at it.
    let asked = pb::LeaseTimeToLiveRequest { id: 5, keys: false };
    let _: pb::LeaseTimeToLiveResponse = client.unary(TTL, &asked).await.unwrap();
    server.member.pass(Duration::from_secs(lease.ttl.unsigned_abs()) + Duration::from_millis(1));
}
