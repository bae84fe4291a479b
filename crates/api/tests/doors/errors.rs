//! Codes and texts that a client can provoke, and the order in which they come.

use milepost_api::NodeError;
use milepost_machine::Config;
use milepost_proto::etcdserverpb as pb;

use crate::keys::{COMPACT, DELETE, PUT, RANGE, TXN, get, put};
use crate::support::{Answer, Client, Member, Server, limits, run, serve};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";

fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn puts(keys: &[&str]) -> pb::TxnRequest {
    let success = keys.iter().map(|key| op(pb::request_op::Request::RequestPut(put(key, "")))).collect();
    pb::TxnRequest { success, ..Default::default() }
}

#[test]
fn requests_that_are_wrong_in_themselves() {
    serve(async |server| {
        let mut client = server.client().await;
        let empty = (3, "etcdserver: key is not provided".to_owned());
        assert_eq!(client.failure(PUT, &put("", "x")).await, empty);
        assert_eq!(client.failure(RANGE, &get("")).await, empty);
        assert_eq!(client.failure(DELETE, &pb::DeleteRangeRequest::default()).await, empty);
        assert_eq!(client.failure(TXN, &puts(&[""])).await, empty);
        let keep = pb::PutRequest { ignore_value: true, ..put("a", "x") };
        assert_eq!(client.failure(PUT, &keep).await, (3, "etcdserver: value is provided".into()));
        let keep = pb::PutRequest { ignore_lease: true, lease: 1, ..put("a", "x") };
        assert_eq!(client.failure(PUT, &keep).await, (3, "etcdserver: lease is provided".into()));
        let sorted = pb::RangeRequest { sort_target: 9, ..get("a") };
        assert_eq!(client.failure(RANGE, &sorted).await, (3, "etcdserver: invalid sort option".into()));
        assert_eq!(
            client.failure(TXN, &puts(&["a"; 129])).await,
            (3, "etcdserver: too many operations in txn request".into())
        );
        assert_eq!(
            client.failure(TXN, &puts(&["a", "a"])).await,
            (3, "etcdserver: duplicate key given in txn request".into())
        );
        let nothing = pb::TxnRequest { success: vec![pb::RequestOp::default()], ..Default::default() };
        assert_eq!(client.failure(TXN, &nothing).await, (3, "etcdserver: key not found".into()));
        let long = pb::LeaseGrantRequest { ttl: 9_000_000_001, id: 1 };
        assert_eq!(client.failure(GRANT, &long).await, (11, "etcdserver: too large lease TTL".into()));
    });
}

#[test]
fn requests_that_the_state_forbids() {
    serve(async |server| {
        let mut client = server.client().await;
        let keep = pb::PutRequest { ignore_value: true, ..put("missing", "") };
        assert_eq!(client.failure(PUT, &keep).await, (3, "etcdserver: key not found".into()));
        let leased = pb::PutRequest { lease: 77, ..put("a", "") };
        assert_eq!(client.failure(PUT, &leased).await, (5, "etcdserver: requested lease not found".into()));
        assert_eq!(
            client.failure(REVOKE, &pb::LeaseRevokeRequest { id: 77 }).await,
            (5, "etcdserver: requested lease not found".into())
        );
        let lease = pb::LeaseGrantRequest { ttl: 60, id: 7 };
        let _: pb::LeaseGrantResponse = client.unary(GRANT, &lease).await.unwrap();
        assert_eq!(client.failure(GRANT, &lease).await, (9, "etcdserver: lease already exists".into()));
        for _ in 0..3 {
            let _: pb::PutResponse = client.unary(PUT, &put("a", "")).await.unwrap();
        }
        let _: pb::CompactionResponse =
            client.unary(COMPACT, &pb::CompactionRequest { revision: 3, physical: false }).await.unwrap();
        let compacted = (11, "etcdserver: mvcc: required revision has been compacted".to_owned());
        let future = (11, "etcdserver: mvcc: required revision is a future revision".to_owned());
        assert_eq!(client.failure(COMPACT, &pb::CompactionRequest { revision: 3, physical: false }).await, compacted);
        assert_eq!(client.failure(COMPACT, &pb::CompactionRequest { revision: 99, physical: false }).await, future);
        assert_eq!(client.failure(RANGE, &pb::RangeRequest { revision: 2, ..get("a") }).await, compacted);
        assert_eq!(client.failure(RANGE, &pb::RangeRequest { revision: 99, ..get("a") }).await, future);
        let hash = "/etcdserverpb.Maintenance/HashKV";
        assert_eq!(client.failure(hash, &pb::HashKvRequest { revision: 2 }).await, compacted);
        assert_eq!(client.failure(hash, &pb::HashKvRequest { revision: 99 }).await, future);
        let alarm = pb::AlarmRequest { action: 1, member_id: 8, alarm: 2 };
        let _: pb::AlarmResponse = client.unary(ALARM, &alarm).await.unwrap();
        assert_eq!(client.failure(PUT, &put("a", "")).await, (15, "etcdserver: corrupt cluster".into()));
    });
}

#[test]
fn a_full_store_raises_the_alarm_before_it_looks_at_the_request() {
    run(async {
        let server = Server::with(limits(), Member::with(Config { quota_bytes: 1, ..Config::default() }));
        let mut client = server.client().await;
        let no_space = (8, "etcdserver: mvcc: database space exceeded".to_owned());
        assert_eq!(client.failure(PUT, &put("", "")).await, no_space, "quota comes before validation");
        assert_eq!(client.failure(TXN, &puts(&["a"])).await, no_space);
        assert_eq!(client.failure(GRANT, &pb::LeaseGrantRequest { ttl: 60, id: 0 }).await, no_space);
        let alarms: pb::AlarmResponse = client.unary(ALARM, &pb::AlarmRequest::default()).await.unwrap();
        assert_eq!(alarms.alarms, [pb::AlarmMember { member_id: 8, alarm: 1 }]);
        let status: pb::StatusResponse =
            client.unary("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.unwrap();
        assert_eq!(status.errors, ["memberID:8 alarm:NOSPACE"]);
        let _: pb::RangeResponse = client.unary(RANGE, &get("a")).await.unwrap();
    });
}

#[test]
fn what_the_node_could_not_do() {
    serve(async |server| {
        let mut client = server.client().await;
        for (why, put_fails, get_fails) in [
            (NodeError::TooManyRequests, (2, "etcdserver: too many requests"), (2, "etcdserver: too many requests")),
            (
                NodeError::RequestTooLarge,
                (3, "etcdserver: request is too large"),
                (3, "etcdserver: request is too large"),
            ),
            (NodeError::NoLeader, (4, "context deadline exceeded"), (14, "etcdserver: request timed out")),
            (NodeError::Dropped, (2, "raft proposal dropped"), (2, "raft proposal dropped")),
            (NodeError::Timeout, (14, "etcdserver: request timed out"), (14, "etcdserver: request timed out")),
            (NodeError::Stopped, (14, "etcdserver: server stopped"), (14, "etcdserver: server stopped")),
        ] {
            server.member.set(Answer::Fail(why));
            assert_eq!(client.failure(PUT, &put("a", "")).await, (put_fails.0, put_fails.1.to_owned()));
            assert_eq!(client.failure(RANGE, &get("a")).await, (get_fails.0, get_fails.1.to_owned()));
        }
        let local = pb::RangeRequest { serializable: true, ..get("a") };
        let _: pb::RangeResponse = client.unary(RANGE, &local).await.expect("local reads go on");
    });
}

async fn silence(client: &mut Client) -> [(u32, String); 2] {
    let mut other = client.clone();
    let (put, get) = (put("a", ""), get("a"));
    let (put, get) = tokio::join!(client.failure(PUT, &put), other.failure(RANGE, &get));
    [put, get]
}

#[test]
fn nobody_answers() {
    serve(async |server| {
        server.member.set(Answer::Never);
        let mut hurried = server.client().await.with("grpc-timeout", "50m");
        for failure in silence(&mut hurried).await {
            assert_eq!(failure, (4, "context deadline exceeded".into()));
        }
        let mut patient = server.client().await;
        for failure in silence(&mut patient).await {
            assert_eq!(failure, (14, "etcdserver: request timed out".into()));
        }
    });
}

#[test]
fn nobody_leads() {
    serve(async |server| {
        server.member.set(Answer::Never);
        server.member.stand(|standing| standing.leader = 0);
        let mut client = server.client().await;
        let [put_fails, get_fails] = silence(&mut client).await;
        assert_eq!(put_fails, (4, "context deadline exceeded".into()));
        assert_eq!(get_fails, (14, "etcdserver: request timed out".into()));
    });
}

#[test]
fn learners_answer_almost_nothing() {
    serve(async |server| {
        server.member.stand(|standing| standing.is_learner = true);
        let mut client = server.client().await;
        let learner = (9, "etcdserver: rpc not supported for learner".to_owned());
        for (path, body) in [
            (PUT, put("", "")),
            (RANGE, put("a", "")),
            (TXN, put("", "")),
            ("/etcdserverpb.Cluster/MemberList", put("", "")),
        ] {
            assert_eq!(client.failure(path, &body).await, learner, "{path}");
        }
        let check = milepost_proto::health::HealthCheckRequest::default();
        assert_eq!(client.failure("/grpc.health.v1.Health/Check", &check).await, learner);
        let mut watch = client.open::<pb::WatchResponse>("/etcdserverpb.Watch/Watch").await;
        assert_eq!(watch.next().await.unwrap_err(), learner);
        let local = pb::RangeRequest { serializable: true, ..get("a") };
        let _: pb::RangeResponse = client.unary(RANGE, &local).await.unwrap();
        let status: pb::StatusResponse =
            client.unary("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.unwrap();
        assert!(status.is_learner);
    });
}

#[test]
fn clients_that_want_a_leader_hear_that_there_is_none() {
    serve(async |server| {
        server.member.stand(|standing| standing.leader = 0);
        let mut client = server.client().await.with("hasleader", "true");
        let no_leader = (14, "etcdserver: no leader".to_owned());
        assert_eq!(client.failure(PUT, &put("", "")).await, no_leader, "before the request is looked at");
        let local = pb::RangeRequest { serializable: true, ..get("a") };
        assert_eq!(client.failure(RANGE, &local).await, no_leader);
        let status: pb::StatusResponse =
            server.client().await.unary("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.unwrap();
        assert_eq!((status.leader, status.errors), (0, vec!["etcdserver: no leader".to_owned()]));
    });
}

#[test]
fn sizes() {
    serve(async |server| {
        let mut client = server.client().await;
        let large = put("a", &"x".repeat(1_572_864));
        assert_eq!(client.failure(PUT, &large).await, (3, "etcdserver: request is too large".into()));
        let huge = put("a", &"x".repeat(2_100_000));
        let bytes = milepost_proto::Message::encoded_len(&huge);
        assert_eq!(
            client.failure(PUT, &huge).await,
            (8, format!("grpc: received message larger than max ({bytes} vs. 2097152)"))
        );
        let fits = put("a", &"x".repeat(1_500_000));
        let _: pb::PutResponse = client.unary(PUT, &fits).await.unwrap();
    });
}

#[test]
fn auth_is_off() {
    serve(async |server| {
        let mut client = server.client().await;
        let status: pb::AuthStatusResponse =
            client.unary("/etcdserverpb.Auth/AuthStatus", &pb::AuthStatusRequest {}).await.unwrap();
        assert_eq!((status.enabled, status.auth_revision), (false, 1));
        let failure = client.failure("/etcdserverpb.Auth/Authenticate", &pb::AuthenticateRequest::default()).await;
        assert_eq!(failure, (9, "etcdserver: authentication is not enabled".into()));
        let (code, text) = client.failure("/etcdserverpb.Auth/UserAdd", &pb::AuthUserAddRequest::default()).await;
        assert_eq!(code, 12);
        assert!(text.contains("etcdserverpb.Auth.UserAdd is not served yet"), "{text}");
    });
}
