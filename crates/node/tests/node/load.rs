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

#[test]
fn leases_end_by_themselves() {
    let mut home = Home::new();
    home.config.machine.min_lease_ttl = 1;
    let node = home.ready();
    for id in 1..=3_000 {
        let request = Request::LeaseGrant(LeaseGrantRequest { ttl: 1, id });
        let (sink, _) = answers();
        let request_id = node.next_request_id();
        node.propose(request_id, encode(request_id, request), waiter(&sink, 1));
    }
    let mut with_lease = put("leased", "x");
    if let Request::Put(put) = &mut with_lease {
        put.lease = 3_000;
    }
    reply(&node, with_lease).expect("applied");
    let (sink, gone) = answers();
    // A lease that is gone cannot hold a key: ask until that is so.
    let start = std::time::Instant::now();
    loop {
        let mut probe = put("probe", "x");
        if let Request::Put(put) = &mut probe {
            put.lease = 3_000;
        }
        let id = node.next_request_id();
        node.propose(id, encode(id, probe), waiter(&sink, 1));
        let (_, answer) = gone.recv_timeout(PATIENCE).expect("an answer");
        if matches!(answer, Completion::Reply(Err(_))) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the lease never ended");
    }
    assert_eq!(get(&node, "leased").count, 0, "its key went with it");
    while !node.lessor().is_empty() {
        assert!(start.elapsed() < PATIENCE, "{} leases are left", node.lessor().len());
        get(&node, "leased");
    }
    assert!(node.metrics().lease_expired_total.load(Ordering::Relaxed) >= 3_000);
}
