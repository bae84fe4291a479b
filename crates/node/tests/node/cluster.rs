//! Several members: they form, elect, replicate; one goes and comes back.

use crate::cluster_world::{Cluster, Seat};
use crate::world::{PATIENCE, answers, get, put, reply, waiter};
use milepost_env::Disk;
use milepost_machine::Reply;
use milepost_node::{Completion, Role};
use milepost_proto::raftpb::Entry;
use milepost_wal::{Options, Wal};
use std::path::Path;
use std::sync::Arc;

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
