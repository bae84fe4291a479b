//! Disks that are full, in a cluster.

use crate::cluster_world::{Cluster, Seat};
use crate::world::{PATIENCE, ask, get, put};
use milepost_machine::Reply;
use milepost_node::{Completion, Role};
use milepost_proto::etcdserverpb::AlarmType;
use std::time::Instant;

fn alarmed(seat: &Seat) -> bool {
    seat.node().reader().alarms().any(AlarmType::Nospace)
}

fn fill(seat: &Seat) {
    seat.home.engine.fill_disk(u64::MAX);
}

fn no_longer_full(seat: &Seat) {
    seat.home.engine.fill_disk(0);
}

/// Puts through the first seat that answers, until `done`; returns how many were acknowledged.
fn put_until(cluster: &Cluster, mut done: impl FnMut() -> bool) -> u64 {
    let (start, mut acknowledged) = (Instant::now(), 0);
    while !done() {
        assert!(start.elapsed() < PATIENCE, "it never came");
        let answer = ask(cluster.seats[0].node(), put("a", "b"));
        acknowledged += u64::from(matches!(answer, Completion::Reply(Ok(Reply::Put(_)))));
    }
    acknowledged
}

/// It has to lead no more, and to stop nobody's writes.
#[test]
fn a_full_disk_of_the_leader_moves_leadership_and_raises_no_alarm() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    let full = cluster.leader();
    fill(&cluster.seats[full]);
    put_until(&cluster, || cluster.seats[full].node().status().role == Role::Follower);
    let home = &cluster.seats[full].home;
    assert!(home.lines.has("there is little room on the disk"), "{:#?}", home.lines.all());
    assert!(home.lines.has("gives leadership away: there is little room on the disk"), "{:#?}", home.lines.all());
    let other = &cluster.seats[(full + 1) % 3];
    for number in 0..50 {
        let answer = ask(other.node(), put(&format!("k{number}"), "v"));
        assert!(matches!(answer, Completion::Reply(Ok(Reply::Put(_)))), "{answer:?}");
    }
    assert!(!cluster.seats.iter().any(alarmed));
    no_longer_full(&cluster.seats[full]);
    cluster.net.wait(|| (get(cluster.seats[full].node(), "k49").count == 1).then_some(()));
    cluster.net.wait(|| home.lines.has("there is room on the disk again").then_some(()));
}

#[test]
fn full_disks_of_a_majority_raise_the_alarm() {
    let mut cluster = Cluster::new(3);
    cluster.start_all();
    cluster.seats.iter().for_each(fill);
    put_until(&cluster, || cluster.seats.iter().all(alarmed));
    cluster.seats.iter().for_each(no_longer_full);
}
