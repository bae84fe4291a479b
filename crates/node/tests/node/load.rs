//! Many at once: shared syncs, shared answers, leases by the thousand.

use crate::world::{Home, PATIENCE, answers, encode, get, put, reply, waiter};
use milepost_machine::Reply;
use milepost_node::Completion;
use milepost_proto::etcdserverpb::LeaseGrantRequest;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use std::sync::atomic::Ordering;

#[test]
fn many_puts_share_syncs_and_keep_their_order() {
    let home = Home::new();
    let node = home.ready();
    let (sink, answers) = answers();
    const PUTS: u64 = 2_000;
    for number in 0..PUTS {
        let id = node.next_request_id();
        node.propose(id, encode(id, put("same", &number.to_string())), waiter(&sink, number));
    }
    let mut revision = 1;
    for number in 0..PUTS {
        let (ticket, answer) = answers.recv_timeout(PATIENCE).expect("an answer");
        let Completion::Reply(Ok(Reply::Put(answer))) = answer else { panic!("{answer:?}") };
        assert_eq!(ticket, number);
        revision += 1;
        assert_eq!(answer.header.expect("header").revision, revision);
    }
    assert_eq!(get(&node, "same").kvs[0].version, i64::try_from(PUTS).expect("small"));
    let metrics = node.metrics();
    let batches = metrics.log_batches.load(Ordering::Relaxed);
    assert!(batches < PUTS / 2, "{batches} syncs for {PUTS} puts");
    assert_eq!(metrics.proposals_pending.load(Ordering::Relaxed), 0);
}

#[test]
fn reads_wait_for_what_was_committed_before_them() {
    let home = Home::new();
    let node = home.ready();
    for number in 0..200 {
        let value = number.to_string();
        reply(&node, put("k", &value)).expect("applied");
        assert_eq!(get(&node, "k").kvs[0].value, value.as_bytes());
    }
}

/// More of them than may wait to be applied: nobody else is refused for their sake.
#[test]
fn leases_end_by_themselves() {
    const LEASES: i64 = 12_000;
    let mut home = Home::new();
    home.config.machine.min_lease_ttl = 2;
    let node = home.ready();
    let (sink, granted) = answers();
    for ids in (1..=LEASES).collect::<Vec<_>>().chunks(2_000) {
        for &id in ids {
            let request = Request::LeaseGrant(LeaseGrantRequest { ttl: 2, id });
            let request_id = node.next_request_id();
            node.propose(request_id, encode(request_id, request), waiter(&sink, 1));
        }
        for _ in ids {
            let (_, answer) = granted.recv_timeout(PATIENCE).expect("an answer");
            assert!(matches!(answer, Completion::Reply(Ok(_))), "{answer:?}");
        }
    }
    let (sink, answers) = answers();
    let start = std::time::Instant::now();
    while !node.lessor().is_empty() {
        assert!(start.elapsed() < PATIENCE, "{} leases are left", node.lessor().len());
        let id = node.next_request_id();
        node.propose(id, encode(id, put("probe", "x")), waiter(&sink, 1));
        let (_, answer) = answers.recv_timeout(PATIENCE).expect("an answer");
        assert!(matches!(answer, Completion::Reply(Ok(_))), "{answer:?}");
    }
    assert!(node.metrics().lease_expired_total.load(Ordering::Relaxed) >= LEASES as u64);
}

#[test]
fn the_end_of_a_lease_takes_its_keys_along() {
    let mut home = Home::new();
    home.config.machine.min_lease_ttl = 2;
    let node = home.ready();
    reply(&node, Request::LeaseGrant(LeaseGrantRequest { ttl: 2, id: 7 })).expect("granted");
    let leased = |key| match put(key, "x") {
        Request::Put(put) => Request::Put(milepost_proto::etcdserverpb::PutRequest { lease: 7, ..put }),
        other => other,
    };
    reply(&node, leased("leased")).expect("applied");
    let start = std::time::Instant::now();
    // A lease that is gone cannot hold a key: ask until that is so.
    while reply(&node, leased("probe")).is_ok() {
        assert!(start.elapsed() < PATIENCE, "the lease never ended");
    }
    assert_eq!(get(&node, "leased").count, 0, "its key went with it");
}
