//! Several members: they form, elect, replicate; one goes and comes back.

use crate::cluster_world::{Cluster, Seat, founder};
use crate::world::{PATIENCE, answers, encode, get, put, reply, waiter};
use milepost_env::Disk;
use milepost_machine::Reply;
use milepost_machine::member::{Member, add, remove};
use milepost_node::{Completion, Join, Node, Role, StopReason};
use milepost_proto::Message as _;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::etcdserverpb::{LeaseGrantRequest, PutRequest};
use milepost_proto::raftpb::{ConfChange, Entry};
use milepost_types::MemberId;
use milepost_wal::{Options, Wal};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn founders_form_elect_and_replicate() {
    for count in [3, 5, 7] {
        let mut cluster = Cluster::new(count);
        cluster.start_all();
        let leader = cluster.leader();
        for (number, seat) in cluster.seats.iter().enumerate() {
            let answer = reply(seat.node(), put(&format!("k{number}"), "v")).expect("applied");
            assert!(matches!(answer, Reply::Put(_)), "{answer:?}");
        }
        for seat in &cluster.seats {
            for number in 0..count {
                assert_eq!(get(seat.node(), &format!("k{number}")).count, 1);
            }
            let members = seat.node().reader().members();
            assert_eq!(members.len(), count);
            assert!(!seat.node().reads_are_current(), "another member may answer writes");
            assert_eq!(seat.members.lock().expect("members").as_ref().expect("told").members.len(), count);
        }
        // Each is ready only when everybody can know its name; what the others have applied of that may be less.
        cluster.net.wait(|| {
            let members = cluster.seats[leader].node().reader().members();
            members.iter().all(|member| !member.name.is_empty() && !member.client_ur_ls.is_empty()).then_some(())
        });
    }
}

/// As etcd's: each founder's log begins with the founders by id, in term 1, then an empty entry by the first leader.
#[test]
fn all_logs_begin_alike() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    let ids: Vec<u64> = cluster.seats.iter().map(Seat::id).collect();
    (0..3).for_each(|at| cluster.stop(at));
    let mut logs = Vec::new();
    for (seat, id) in cluster.seats.iter().zip(&ids) {
        let disk: Arc<dyn Disk> = Arc::new(seat.home.disk.clone());
        let (_, log) = Wal::open(disk, Path::new("/data/member/wal"), Options::default()).expect("log");
        assert_eq!(log.metadata.node_id, *id);
        logs.push((log.metadata.cluster_id, log.entries.into_iter().take(4).collect::<Vec<Entry>>()));
    }
    assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "{logs:#?}");
    let shape: Vec<_> =
        logs[0].1.iter().map(|entry| (entry.term() > 1, entry.r#type(), entry.data().is_empty())).collect();
    assert_eq!(shape, [(false, 1, false), (false, 1, false), (false, 1, false), (true, 0, true)]);
}

#[test]
fn another_takes_over_and_who_comes_back_catches_up() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    for round in 0..3 {
        let leader = cluster.leader();
        reply(cluster.seats[leader].node(), put(&format!("before{round}"), "v")).expect("applied");
        cluster.stop(leader);
        let next = cluster.leader();
        assert_ne!(next, leader);
        let other = (0..3).find(|at| ![leader, next].contains(at)).expect("the third");
        for number in 0..50 {
            reply(cluster.seats[other].node(), put(&format!("r{round}k{number}"), "v")).expect("applied");
        }
        cluster.start(leader);
        // A linearizable read of the one that comes back sees everything, however far behind it is.
        cluster.net.wait(|| (cluster.seats[leader].node().status().leader.0 != 0).then_some(()));
        assert_eq!(get(cluster.seats[leader].node(), &format!("r{round}k49")).count, 1);
        assert_eq!(get(cluster.seats[leader].node(), &format!("before{round}")).count, 1);
    }
}

#[test]
fn all_may_stop_and_go_on() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    let before: Vec<u64> = cluster.seats.iter().map(Seat::id).collect();
    reply(cluster.seats[0].node(), put("k", "v")).expect("applied");
    for seed in 0..4 {
        (0..3).for_each(|at| cluster.crash(at, seed));
        cluster.start_all();
        cluster.leader();
        let after: Vec<u64> = cluster.seats.iter().map(Seat::id).collect();
        assert_eq!(before, after);
        for seat in &cluster.seats {
            assert_eq!(get(seat.node(), "k").kvs[0].value, "v");
        }
    }
}

/// A leader without the others answers no read and no write; the others go on, and it follows them afterwards.
#[test]
fn a_leader_that_is_cut_off_answers_nothing_stale() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    let old = cluster.leader();
    let id = cluster.seats[old].id();
    reply(cluster.seats[old].node(), put("k", "old")).expect("applied");
    let others: Vec<u64> = cluster.seats.iter().map(Seat::id).filter(|&other| other != id).collect();
    cluster.net.cut(id, others);
    let (sink, heard) = answers();
    cluster.seats[old].node().read_index(waiter(&sink, 1));
    let new = cluster.net.wait(|| {
        let leads = |seat: &Seat| seat.id() != id && seat.node().status().role == Role::Leader;
        cluster.seats.iter().position(leads)
    });
    reply(cluster.seats[new].node(), put("k", "new")).expect("applied");
    assert!(heard.try_recv().is_err(), "nobody could confirm that read");
    cluster.net.heal();
    let (_, answer) = heard.recv_timeout(PATIENCE).expect("an answer");
    assert!(matches!(answer, Completion::ReadReady), "{answer:?}");
    let request = milepost_proto::etcdserverpb::RangeRequest { key: "k".into(), ..Default::default() };
    let now = cluster.seats[old].node().reader().range(&request).expect("a range");
    assert_eq!(now.kvs[0].value, "new", "a read that ends after the write was answered must see it");
}

/// A lone member becomes two voters and a learner: who joins begins with an empty log and hears everything from it.
#[test]
fn members_join_a_running_cluster() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    for number in 0..300 {
        reply(cluster.seats[0].node(), put(&format!("k{number}"), "v")).expect("applied");
    }
    for number in 1..3 {
        let (name, peer_urls) = founder(number);
        let joiner =
            Member { id: MemberId(0x100 + number as u64), peer_urls, is_learner: number == 2, ..Member::default() };
        let node = cluster.seats[0].node();
        let members = change(node, |id| add(id, &joiner));
        let cluster_id = node.status().cluster_id;
        let seat = cluster.add(number);
        assert_eq!(seat.home.config.name, name);
        seat.home.config.join = Some(Join { member: joiner.id, cluster: cluster_id, members });
        cluster.start(number);
        let seat = &cluster.seats[number];
        let first = cluster.net.wait(|| seat.members.lock().expect("members").clone());
        assert_eq!(first.members.len(), number + 1, "it knows whom to listen to");
        assert!(seat.node().wait_ready(PATIENCE), "{:?} {:#?}", seat.node().stopped(), seat.home.lines.all());
        assert_eq!(get(seat.node(), "k299").count, 1);
        assert_eq!(seat.node().status().is_learner, number == 2);
        reply(seat.node(), put(&format!("from{number}"), "v")).expect("applied");
    }
    assert!(!cluster.seats[0].node().reads_are_current());
    // A restart needs neither flags nor memory of how it began.
    cluster.seats[2].home.config.join = None;
    cluster.crash(2, 3);
    cluster.start(2);
    assert!(cluster.seats[2].node().wait_ready(PATIENCE));
    assert_eq!(get(cluster.seats[2].node(), "from2").count, 1);
}

/// Proposes a change of membership at `node`; who is in the cluster then.
fn change(node: &Node, change: impl FnOnce(u64) -> ConfChange) -> Vec<Member> {
    let (sink, heard) = answers();
    let id = node.next_request_id();
    node.propose_conf_change(id, change(id).encode_to_vec().into(), waiter(&sink, 1));
    let (_, answer) = heard.recv_timeout(PATIENCE).expect("an answer");
    assert!(matches!(answer, Completion::Reply(Ok(Reply::ConfChange(_)))), "{answer:?}");
    node.reader().membership().members.values().cloned().collect()
}

/// Two of three are lost for good. What only the lost ones may have heard of is dropped, the rest goes on as a cluster
/// of one, which may grow again.
#[test]
fn one_of_three_goes_on_alone_when_forced() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    reply(cluster.seats[0].node(), put("k", "v")).expect("applied");
    assert_eq!(get(cluster.seats[0].node(), "k").count, 1);
    let (id, cluster_id) = (cluster.seats[0].id(), cluster.seats[0].node().status().cluster_id);
    (1..3).for_each(|at| cluster.stop(at));
    // Nobody commits this.
    let (sink, _heard) = answers();
    let node = cluster.seats[0].node();
    let request = node.next_request_id();
    node.propose(request, encode(request, put("late", "v")), waiter(&sink, 1));
    cluster.net.wait(|| (cluster.seats[0].node().status().leader.0 == 0).then_some(()));
    cluster.stop(0);

    let config = &mut cluster.seats[0].home.config;
    config.force_new_cluster = Some(Arc::new(|others| Err(format!("{} others may live", others.len()))));
    let refused = cluster.seats[0].home.start().err().expect("the guard says no").to_string();
    assert_eq!(refused, "--force-new-cluster: 2 others may live");
    cluster.seats[0].home.config.force_new_cluster = Some(Arc::new(|_| Ok(())));
    cluster.start(0);
    let node = cluster.seats[0].node();
    assert!(node.wait_ready(PATIENCE), "{:?} {:#?}", node.stopped(), cluster.seats[0].home.lines.all());
    let status = node.status();
    assert_eq!((status.member_id.0, status.cluster_id, status.role), (id, cluster_id, Role::Leader));
    assert_eq!((get(node, "k").count, get(node, "late").count), (1, 0));
    assert_eq!(node.reader().members().len(), 1);
    assert!(node.reads_are_current());
    assert!(cluster.seats[0].home.lines.has("forcing restart member"));
    let (_, peer_urls) = founder(7);
    change(node, |id| add(id, &Member { id: MemberId(7), peer_urls, is_learner: true, ..Member::default() }));
    // Without the flag it stays what it is now.
    cluster.seats[0].home.config.force_new_cluster = None;
    cluster.crash(0, 1);
    cluster.start(0);
    assert!(cluster.seats[0].node().wait_ready(PATIENCE));
    assert_eq!(cluster.seats[0].node().reader().members().len(), 2);
}

/// Puts go on at another member while the leader hands over and stops: none is lost, none fails.
#[test]
fn leadership_is_handed_over_before_a_stop() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    for round in 0..3 {
        let old = cluster.leader();
        let (sink, heard) = answers();
        let node = cluster.seats[old].node();
        for ticket in 0..200 {
            if ticket == 100 {
                assert!(node.hand_over(PATIENCE), "{:#?}", cluster.seats[old].home.lines.all());
                assert_ne!(node.status().role, Role::Leader);
            }
            let id = node.next_request_id();
            node.propose(id, encode(id, put(&format!("r{round}k{ticket}"), "v")), waiter(&sink, ticket));
        }
        for _ in 0..200 {
            let (ticket, answer) = heard.recv_timeout(PATIENCE).expect("an answer");
            assert!(matches!(answer, Completion::Reply(Ok(_))), "{ticket}: {answer:?}");
        }
        let lines = &cluster.seats[old].home.lines;
        assert!(lines.has("leadership transfer starting") && lines.has("leadership transfer finished"));
        assert!(node.hand_over(PATIENCE), "it does not lead");
        cluster.stop(old);
        let new = cluster.leader();
        assert_ne!(new, old);
        assert_eq!(get(cluster.seats[new].node(), &format!("r{round}k199")).count, 1);
        cluster.start(old);
        assert!(cluster.seats[old].node().wait_ready(PATIENCE));
    }
}

/// Nobody is there to take over: a stop is not held up.
#[test]
fn who_is_left_alone_hands_over_to_nobody() {
    let mut cluster = Cluster::new(1);
    cluster.start_all();
    assert!(!cluster.seats[0].node().hand_over(PATIENCE));
    assert!(cluster.seats[0].home.lines.has("skipped leadership transfer for single voting member cluster"));
}

/// The second of two voters is removed: it stops by itself, and the other's reads need nobody any more.
#[test]
fn a_removed_member_stops_itself() {
    let mut cluster = Cluster::new(2);
    cluster.start_all();
    let leader = cluster.leader();
    let other = 1 - leader;
    let gone = cluster.seats[other].node().status().member_id;
    change(cluster.seats[leader].node(), |id| remove(id, gone));
    assert_eq!(cluster.seats[other].node().wait_stopped(), StopReason::Removed);
    assert!(cluster.seats[other].home.lines.has("the member has been permanently removed from the cluster"));
    cluster.stop(other);
    let node = cluster.seats[leader].node();
    reply(node, put("k", "v")).expect("applied");
    let start = Instant::now();
    while !node.reads_are_current() {
        assert!(start.elapsed() < PATIENCE, "still taken for one of two");
        std::thread::yield_now();
    }
    assert_eq!(get(node, "k").count, 1);
    // It does not know of its removal when it comes back from before; another member tells it.
    let seat = &cluster.seats[other];
    let back = seat.home.start().expect("its log is its own");
    back.told_removed();
    assert_eq!(back.wait_stopped(), StopReason::Removed);
    back.stop();
}

/// A lease outlives its leader: the next one counts what is left from its own first entry on, and ends it.
#[test]
fn leases_go_on_under_the_next_leader() {
    let mut cluster = Cluster::new(3);
    for seat in &mut cluster.seats {
        seat.home.config.machine.min_lease_ttl = 1;
    }
    cluster.start_all();
    let old = cluster.leader();
    let node = cluster.seats[old].node();
    let granted = Instant::now();
    reply(node, Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 1 })).expect("granted");
    let leased = PutRequest { key: "k".into(), lease: 7, ..PutRequest::default() };
    reply(node, Request::Put(leased)).expect("applied");
    assert!(node.lessor().is_primary());
    cluster.stop(old);
    let new = cluster.leader();
    let node = cluster.seats[new].node();
    cluster.net.wait(|| node.lessor().is_primary().then_some(()));
    for (at, seat) in cluster.seats.iter().enumerate() {
        assert!(
            seat.node.as_ref().is_none_or(|node| at == new || !node.lessor().is_primary()),
            "only the leader counts"
        );
    }
    cluster.net.wait(|| (get(node, "k").count == 0).then_some(()));
    assert!(granted.elapsed() >= Duration::from_secs(1), "never before its time");
}
