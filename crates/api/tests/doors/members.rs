//! Changes of membership, of the leader and of the version: who may, who is refused, and in which words.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use milepost_api::Backend;
use milepost_machine::Config;
use milepost_machine::member;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::downgrade_request::DowngradeAction;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::membershippb as mpb;
use milepost_types::MemberId;

use crate::support::{Client, Member, Others, Server, limits, refused, run};

const ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
const REMOVE: &str = "/etcdserverpb.Cluster/MemberRemove";
const UPDATE: &str = "/etcdserverpb.Cluster/MemberUpdate";
const PROMOTE: &str = "/etcdserverpb.Cluster/MemberPromote";
const LIST: &str = "/etcdserverpb.Cluster/MemberList";
const MOVE: &str = "/etcdserverpb.Maintenance/MoveLeader";
const DOWNGRADE: &str = "/etcdserverpb.Maintenance/Downgrade";

/// Member 8 in a cluster with `others`, all of them started voters; those in `there` are connected.
pub fn cluster(others: &[u64], there: &[u64]) -> (Server, Arc<Others>) {
    let member = Member::new();
    for &id in [8].iter().chain(others) {
        found(&member, id);
    }
    let colleagues = Arc::new(Others::with(there));
    let config = Arc::clone(&colleagues);
    let server = Server::configured(member, |set| (set.limits, set.colleagues) = (limits(), config));
    (server, colleagues)
}

/// Adds a voter that has told its name.
pub fn found(member: &Member, id: u64) {
    let added = milepost_machine::Member {
        id: MemberId(id),
        peer_urls: vec![format!("http://m{id}:2380")],
        ..Default::default()
    };
    member.apply_change(&member::add(0, &added));
    let attributes = mpb::Attributes { name: format!("m{id}"), client_urls: vec![format!("http://m{id}:2379")] };
    let request = mpb::ClusterMemberAttrSetRequest { member_id: id, member_attributes: Some(attributes) };
    member.apply_request(Request::ClusterMemberAttrSet(request));
}

fn add(url: &str, is_learner: bool) -> pb::MemberAddRequest {
    pb::MemberAddRequest { peer_ur_ls: vec![url.into()], is_learner }
}

async fn ids(client: &mut Client) -> Vec<u64> {
    let list: pb::MemberListResponse = client.unary(LIST, &pb::MemberListRequest { linearizable: true }).await.unwrap();
    list.members.iter().map(|member| member.id).collect()
}

#[test]
fn members_come_change_and_go() {
    run(async {
        let (server, _) = cluster(&[], &[]);
        let mut client = server.client().await;
        let request =
            pb::MemberAddRequest { peer_ur_ls: vec![" http://b:2".into(), "HTTP://a:1".into()], is_learner: true };
        let added: pb::MemberAddResponse = client.unary(ADD, &request).await.unwrap();
        let header = added.header.unwrap();
        assert_eq!((header.member_id, header.cluster_id, header.raft_term, header.revision), (8, 7, 2, 0));
        let new = added.member.unwrap();
        assert_eq!(new.peer_ur_ls, ["http://a:1", "http://b:2"]);
        assert!(new.is_learner && new.name.is_empty() && added.members.contains(&new) && added.members.len() == 2);

        let urls = vec!["anything".to_owned()];
        let request = pb::MemberUpdateRequest { id: new.id, peer_ur_ls: urls.clone() };
        let updated: pb::MemberUpdateResponse = client.unary(UPDATE, &request).await.unwrap();
        let found = updated.members.iter().find(|member| member.id == new.id).unwrap();
        assert_eq!((&found.peer_ur_ls, updated.header.unwrap().revision), (&urls, 0), "etcd does not look at them");

        *server.member.progress.lock().unwrap() = vec![(8, 30), (new.id, 27)];
        let promoted: pb::MemberPromoteResponse =
            client.unary(PROMOTE, &pb::MemberPromoteRequest { id: new.id }).await.unwrap();
        assert!(promoted.members.iter().all(|member| !member.is_learner) && promoted.members.len() == 2);

        let removed: pb::MemberRemoveResponse =
            client.unary(REMOVE, &pb::MemberRemoveRequest { id: new.id }).await.unwrap();
        assert_eq!((removed.members.len(), ids(&mut client).await), (1, vec![8]));
        let page = crate::support::request(server.doors.local_addrs()[0], "GET", "/metrics").await.body;
        assert!(page.contains("\netcd_server_learner_promote_successes 1\n"), "{page}");
        assert!(page.contains("state=\"StateReplicate\"} 27\n"), "{page}");
    });
}

#[test]
fn what_is_no_member_is_refused() {
    run(async {
        let (server, _) = cluster(&[], &[]);
        let mut client = server.client().await;
        let bad = (3, "etcdserver: given member URLs are invalid".to_owned());
        for urls in [&[][..], &["a:1"], &["http://a"], &["http://a:1", "ftp://b:1"], &["http://a:1/x"], &[""]] {
            let request = pb::MemberAddRequest {
                peer_ur_ls: urls.iter().map(|&url| url.to_owned()).collect(),
                is_learner: false,
            };
            assert_eq!(client.failure(ADD, &request).await, bad, "{urls:?}");
        }
        let taken = (9, "etcdserver: Peer URLs already exists".to_owned());
        assert_eq!(client.failure(ADD, &add("http://m8:2380", true)).await, taken);
        let _: pb::MemberAddResponse = client.unary(ADD, &add("http://a:1", true)).await.unwrap();
        let many = (9, "etcdserver: too many learner members in cluster".to_owned());
        assert_eq!(client.failure(ADD, &add("http://b:1", true)).await, many);
        let request = pb::MemberUpdateRequest { id: 8, peer_ur_ls: vec!["http://a:1".into()] };
        assert_eq!(client.failure(UPDATE, &request).await, taken);
        let unknown = (5, "etcdserver: member not found".to_owned());
        assert_eq!(client.failure(REMOVE, &pb::MemberRemoveRequest { id: 99 }).await, unknown);
        assert_eq!(client.failure(UPDATE, &pb::MemberUpdateRequest { id: 99, peer_ur_ls: vec![] }).await, unknown);
        *server.member.progress.lock().unwrap() = vec![(8, 30)];
        assert_eq!(client.failure(PROMOTE, &pb::MemberPromoteRequest { id: 99 }).await, unknown);
        let voter = (9, "etcdserver: can only promote a learner member".to_owned());
        assert_eq!(client.failure(PROMOTE, &pb::MemberPromoteRequest { id: 8 }).await, voter);
    });
}

#[test]
fn a_change_may_not_cost_the_quorum() {
    run(async {
        let not_started = (2, "etcdserver: re-configuration failed due to not enough started members".to_owned());
        let unhealthy = (14, "etcdserver: unhealthy cluster".to_owned());

        let (server, _) = cluster(&[], &[]);
        let mut client = server.client().await;
        let _: pb::MemberAddResponse = client.unary(ADD, &add("http://a:1", false)).await.unwrap();
        assert_eq!(client.failure(ADD, &add("http://b:1", false)).await, not_started);
        assert_eq!(client.failure(ADD, &add("http://b:1", true)).await, unhealthy, "a learner, too");
        assert_eq!(client.failure(REMOVE, &pb::MemberRemoveRequest { id: 8 }).await, not_started);

        let (server, others) = cluster(&[1, 2], &[1]);
        let mut client = server.client().await;
        assert_eq!(client.failure(ADD, &add("http://a:1", false)).await, unhealthy);
        assert_eq!(client.failure(ADD, &add("http://a:1", true)).await, unhealthy);
        // Two of three are there: none of them may go, but the third may.
        assert_eq!(client.failure(REMOVE, &pb::MemberRemoveRequest { id: 1 }).await, unhealthy);
        others.active.lock().unwrap().insert(2, Duration::from_millis(4900));
        assert_eq!(client.failure(REMOVE, &pb::MemberRemoveRequest { id: 2 }).await, unhealthy, "not for long enough");
        others.active.lock().unwrap().remove(&2);
        let _: pb::MemberRemoveResponse = client.unary(REMOVE, &pb::MemberRemoveRequest { id: 2 }).await.unwrap();
        assert_eq!(ids(&mut client).await, [1, 8]);
    });
}

#[test]
fn without_the_check_everything_goes_that_can() {
    run(async {
        let member = Member::with(Config { max_learners: 2, ..Config::default() });
        found(&member, 8);
        let server = Server::configured(member, |set| set.strict_reconfig = false);
        let mut client = server.client().await;
        for url in ["http://a:1", "http://b:1"] {
            let _: pb::MemberAddResponse = client.unary(ADD, &add(url, false)).await.unwrap();
        }
        assert_eq!(ids(&mut client).await.len(), 3);
    });
}

#[test]
fn a_learner_that_is_behind_waits() {
    run(async {
        let (server, _) = cluster(&[], &[]);
        let mut client = server.client().await;
        let added: pb::MemberAddResponse = client.unary(ADD, &add("http://a:1", true)).await.unwrap();
        let id = added.member.unwrap().id;
        *server.member.progress.lock().unwrap() = vec![(8, 30), (id, 26)];
        let behind = "etcdserver: can only promote a learner member which is in sync with leader";
        assert_eq!(client.failure(PROMOTE, &pb::MemberPromoteRequest { id }).await, (9, behind.to_owned()));
        server.member.stand(|standing| standing.applied = 20);
        let lagging = "etcdserver: request timed out, waiting for the applied index took too long";
        assert_eq!(client.failure(PROMOTE, &pb::MemberPromoteRequest { id }).await, (14, lagging.to_owned()));
        let page = crate::support::request(server.doors.local_addrs()[0], "GET", "/metrics").await.body;
        assert!(page.contains(&format!("etcd_server_learner_promote_failures{{Reason=\"{behind}\"}} 1\n")), "{page}");
    });
}

/// Only the leader knows how far a learner has come.
#[test]
fn a_follower_has_the_leader_promote() {
    run(async {
        let (server, others) = cluster(&[1], &[1]);
        let mut client = server.client().await;
        server.member.stand(|standing| standing.leader = 1);
        for (answer, why) in [
            (refused(404, "membership: ID not found\n"), (5, "etcdserver: member not found")),
            (
                refused(412, "membership: can only promote a learner member"),
                (9, "etcdserver: can only promote a learner member"),
            ),
            (
                refused(412, "etcdserver: can only promote a learner member which is in sync with leader"),
                (9, "etcdserver: can only promote a learner member which is in sync with leader"),
            ),
        ] {
            others.answer(answer);
            let failure = client.failure(PROMOTE, &pb::MemberPromoteRequest { id: 5 }).await;
            assert_eq!(failure, (why.0, why.1.to_owned()));
        }
        // What another attempt may change is asked again.
        others.answer(refused(500, "Internal Server Error"));
        others.answer(Ok(44));
        let done: pb::MemberPromoteResponse =
            client.unary(PROMOTE, &pb::MemberPromoteRequest { id: 0x5f }).await.unwrap();
        assert_eq!(done.members[0].id, 44);
        let asked = others.asked.lock().unwrap();
        assert_eq!((asked.len(), asked[4].as_str()), (5, "promote 5f at http://m1:2380"));
    });
}

#[test]
fn a_follower_has_the_leader_keep_leases() {
    run(async {
        const KEEP: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
        const TTL: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
        let (server, others) = cluster(&[1], &[1]);
        let mut client = server.client().await;
        server.member.stand(|standing| standing.leader = 1);
        server.member.demote();
        let mut keep = client.open::<pb::LeaseKeepAliveResponse>(KEEP).await;
        // A leader that does not answer, or not well, is asked again.
        others.answer(refused(408, "waiting"));
        others.answer(Ok(60));
        keep.send(&pb::LeaseKeepAliveRequest { id: 5 });
        let answer = keep.next().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl, answer.header.unwrap().member_id), (5, 60, 8));
        others.answer(refused(404, "lease not found"));
        keep.send(&pb::LeaseKeepAliveRequest { id: 6 });
        assert_eq!(keep.next().await.unwrap().unwrap().ttl, 0);
        // Many at once come back in their order.
        (0..200).for_each(|_| others.answer(Ok(60)));
        (0..200).for_each(|id| keep.send(&pb::LeaseKeepAliveRequest { id }));
        for id in 0..200 {
            assert_eq!(keep.next().await.unwrap().unwrap().id, id);
        }
        others.answer(Ok(17));
        let left: pb::LeaseTimeToLiveResponse =
            client.unary(TTL, &pb::LeaseTimeToLiveRequest { id: 5, keys: true }).await.unwrap();
        assert_eq!((left.ttl, left.granted_ttl), (17, 60));
        let header = left.header.unwrap();
        assert_eq!((header.member_id, header.revision), (8, 1), "who was asked has answered");
        others.answer(refused(404, "lease not found"));
        let gone: pb::LeaseTimeToLiveResponse =
            client.unary(TTL, &pb::LeaseTimeToLiveRequest { id: 6, keys: false }).await.unwrap();
        assert_eq!((gone.id, gone.ttl, gone.granted_ttl), (6, -1, 0));
        assert!(others.asked.lock().unwrap().contains(&"look at 6 at http://m1:2380".to_owned()));
    });
}

#[test]
fn leadership_goes_to_a_voter() {
    run(async {
        let (server, _) = cluster(&[1], &[1]);
        let mut client = server.client().await;
        let to = |target_id| pb::MoveLeaderRequest { target_id };
        let bad = (9, "etcdserver: bad leader transferee".to_owned());
        assert_eq!(client.failure(MOVE, &to(99)).await, bad);
        let same: pb::MoveLeaderResponse = client.unary(MOVE, &to(8)).await.unwrap();
        assert_eq!(same.header, None);
        server.member.hands_over.store(false, Ordering::Relaxed);
        let late = (2, "etcdserver: request timed out, leader transfer took too long".to_owned());
        assert_eq!(client.failure(MOVE, &to(1)).await, late);
        server.member.hands_over.store(true, Ordering::Relaxed);
        let _: pb::MoveLeaderResponse = client.unary(MOVE, &to(1)).await.unwrap();
        assert_eq!(server.member.standing().leader, 1);
        assert_eq!(client.failure(MOVE, &to(1)).await, (9, "etcdserver: not leader".to_owned()));
    });
}

#[test]
fn downgrades() {
    run(async {
        let (server, _) = cluster(&[], &[]);
        let mut client = server.client().await;
        let ask = |action: DowngradeAction, version: &str| pb::DowngradeRequest {
            action: action as i32,
            version: version.into(),
        };
        let undecided = (9, "etcdserver: cluster version not found during downgrade".to_owned());
        assert_eq!(client.failure(DOWNGRADE, &ask(DowngradeAction::Validate, "3.6")).await, undecided);
        server.member.apply_request(Request::ClusterVersionSet(mpb::ClusterVersionSetRequest { ver: "3.7.0".into() }));
        for (action, version, code, why) in [
            (DowngradeAction::Validate, "six", 3, "etcdserver: wrong downgrade target version format"),
            (DowngradeAction::Enable, "3.5.0", 3, "etcdserver: invalid downgrade target version"),
        ] {
            assert_eq!(client.failure(DOWNGRADE, &ask(action, version)).await, (code, why.to_owned()));
        }
        let strange = pb::DowngradeRequest { action: 9, version: String::new() };
        assert_eq!(client.failure(DOWNGRADE, &strange).await, (2, "etcdserver: unknown method".to_owned()));
        for (action, version, is_on) in [
            (DowngradeAction::Validate, "3.6", false),
            (DowngradeAction::Cancel, "", false),
            (DowngradeAction::Enable, "3.6.4", true),
            (DowngradeAction::Cancel, "", false),
        ] {
            let done: pb::DowngradeResponse = client.unary(DOWNGRADE, &ask(action, version)).await.unwrap();
            assert_eq!((done.version.as_str(), done.header.unwrap().revision), ("3.7", 1));
            let job = server.member.reader().cluster().downgrade.clone();
            assert_eq!((job.enabled, job.target.as_str()), (is_on, if is_on { "3.6.0" } else { "" }));
            if is_on {
                let running = (9, "etcdserver: cluster has a downgrade job in progress".to_owned());
                assert_eq!(client.failure(DOWNGRADE, &ask(DowngradeAction::Validate, "3.6")).await, running);
            }
        }
    });
}
