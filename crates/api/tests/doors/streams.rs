//! Streams that are neither watches nor renewals.

use milepost_proto::etcdserverpb as pb;
use milepost_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};

use crate::keys::{get, prefix};
use crate::support::serve;

const HEALTH: &str = "/grpc.health.v1.Health";
const STREAM: &str = "/etcdserverpb.KV/RangeStream";

#[test]
fn health() {
    serve(async |server| {
        let mut client = server.client().await;
        let check = format!("{HEALTH}/Check");
        let all = HealthCheckRequest::default();
        let other = HealthCheckRequest { service: "etcdserverpb.KV".into() };
        let answer: HealthCheckResponse = client.unary(&check, &all).await.unwrap();
        assert_eq!(answer.status, 1);
        assert_eq!(client.failure(&check, &other).await, (5, "unknown service".into()));
        let list: HealthListResponse = client.unary(&format!("{HEALTH}/List"), &HealthListRequest {}).await.unwrap();
        assert_eq!(list.statuses.into_iter().collect::<Vec<_>>(), [(String::new(), HealthCheckResponse { status: 1 })]);
        for (request, status) in [(all, 1), (other, 3)] {
            let mut watch = client.open::<HealthCheckResponse>(&format!("{HEALTH}/Watch")).await;
            watch.send_last(&request);
            assert_eq!(watch.next().await.unwrap().unwrap().status, status);
        }
    });
}

#[test]
fn range_stream_refuses_what_it_cannot_cut() {
    serve(async |server| {
        let mut client = server.client().await;
        for (request, why) in [
            (pb::RangeRequest { sort_order: 2, ..get("a") }, (12, "RangeStream does not support custom sort orders")),
            (
                pb::RangeRequest { min_mod_revision: 2, ..get("a") },
                (12, "RangeStream does not support revision filters"),
            ),
            (
                pb::RangeRequest { revision: 99, ..get("a") },
                (11, "etcdserver: mvcc: required revision is a future revision"),
            ),
            (get(""), (3, "etcdserver: key is not provided")),
        ] {
            let mut stream = client.open::<pb::RangeStreamResponse>(STREAM).await;
            stream.send_last(&request);
            assert_eq!(stream.next().await.unwrap_err(), (why.0, why.1.to_owned()));
        }
        let mut stream = client.open::<pb::RangeStreamResponse>(STREAM).await;
        stream.send_last(&prefix("a"));
        let only = stream.next().await.unwrap().unwrap().range_response.unwrap();
        assert_eq!((only.header.unwrap().revision, only.count), (1, 0));
        assert!(stream.next().await.unwrap().is_none());
    });
}

#[test]
fn status_members_and_checksums() {
    serve(async |server| {
        server.member.stand(|standing| standing.applied = 29);
        let mut client = server.client().await;
        let status: pb::StatusResponse =
            client.unary("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.unwrap();
        assert_eq!(
            (status.version.as_str(), status.leader, status.raft_index, status.raft_applied_index, status.raft_term),
            ("3.7.1", 8, 30, 29, 2)
        );
        assert_eq!((status.db_size_quota, status.downgrade_info), (2_147_483_648, Some(pb::DowngradeInfo::default())));
        let members: pb::MemberListResponse = client
            .unary("/etcdserverpb.Cluster/MemberList", &pb::MemberListRequest { linearizable: true })
            .await
            .unwrap();
        assert_eq!(members.header.unwrap().revision, 0, "no revision in headers about members");
        let hash: pb::HashKvResponse =
            client.unary("/etcdserverpb.Maintenance/HashKV", &pb::HashKvRequest::default()).await.unwrap();
        assert_eq!((hash.compact_revision, hash.hash_revision), (-1, 1));
        let _: pb::HashResponse = client.unary("/etcdserverpb.Maintenance/Hash", &pb::HashRequest {}).await.unwrap();
    });
}

#[test]
fn nothing_lies_below_a_negative_revision() {
    serve(async |server| {
        let mut client = server.client().await;
        let request = pb::HashKvRequest { revision: -3 };
        let hash: pb::HashKvResponse = client.unary("/etcdserverpb.Maintenance/HashKV", &request).await.unwrap();
        assert_eq!((hash.hash, hash.compact_revision, hash.hash_revision), (1_084_519_789, -1, -3));
    });
}

#[test]
fn the_stores_background_is_timed() {
    serve(async |server| {
        let store = milepost_api::Backend::reader(&*server.member).store();
        tokio::task::spawn_blocking(move || store.defragment()).await.unwrap().unwrap();
        let metrics = crate::support::request(server.doors.local_addrs()[0], "GET", "/metrics").await.body;
        assert!(metrics.contains("\netcd_disk_backend_defrag_duration_seconds_count 1\n"), "{metrics}");
        assert!(metrics.contains("\netcd_disk_defrag_inflight 0\n"));
    });
}
