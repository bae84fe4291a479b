//! Starts that must not happen.

use crate::world::{Home, PATIENCE, answers, ask, encode, get, put, reply, waiter};
use milepost_engine::mem::MemEngine;
use milepost_env::Disk;
use milepost_machine::Error;
use milepost_node::{Completion, GuardError, NodeError, StartError, StopReason};
use std::path::Path;
use std::sync::Arc;

fn refusal(home: &Home) -> StartError {
    match home.start() {
        Ok(_) => panic!("it started"),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n'), "one line: {text}");
            error
        }
    }
}

fn filled() -> Home {
    let home = Home::new();
    let node = home.ready();
    reply(&node, put("a", "b")).expect("applied");
    node.store().force_sync().expect("synced");
    node.stop();
    home
}

#[test]
fn one_process_at_a_time() {
    let home = Home::new();
    let node = home.ready();
    assert!(matches!(refusal(&home), StartError::Guard(GuardError::InUse { .. })));
    node.stop();
    drop(node);
    home.ready();
}

#[test]
fn a_store_without_its_log() {
    let home = filled();
    home.disk.remove_dir_all(Path::new("/data/member/wal")).expect("removed");
    assert!(matches!(refusal(&home), StartError::NoLog { .. }));
}

#[test]
fn a_log_that_ends_before_its_store() {
    let mut home = filled();
    let other = Home::new();
    other.ready().stop();
    // The log of a younger member, under the store of an older one.
    home.disk = other.disk.clone();
    let text = refusal(&home).to_string();
    assert!(text.contains("the store's applied index"), "{text}");
}

#[test]
fn a_store_that_ends_before_the_snapshot_point() {
    let mut home = Home::new();
    home.config.snapshot_count = 10;
    let node = home.ready();
    let start = std::time::Instant::now();
    while !home.lines.has("saved snapshot to disk") {
        assert!(start.elapsed() < PATIENCE, "{:#?}", home.lines.all());
        reply(&node, put("k", "v")).expect("applied");
    }
    node.stop();
    drop(node);
    home.engine = Arc::new(MemEngine::new());
    assert!(matches!(refusal(&home), StartError::StoreBehindLog { .. }));
}

#[test]
fn a_member_that_its_cluster_does_not_name() {
    let mut home = Home::new();
    home.config.name = "stranger".to_owned();
    assert!(matches!(refusal(&home), StartError::NotInCluster { .. }));
}

/// The process ends between making the log and writing its first entries.
#[test]
fn a_log_without_first_entries_gets_them() {
    let home = Home::new();
    let dir = Path::new("/data/member/wal");
    let node = home.ready();
    let status = node.status();
    node.stop();
    drop(node);
    let fresh = Home::new();
    let ids = milepost_wal::Metadata { node_id: status.member_id.0, cluster_id: status.cluster_id.0 };
    let first = fresh.ready();
    first.stop();
    drop(first);
    fresh.disk.remove_dir_all(dir).expect("removed");
    drop(
        milepost_wal::Wal::create(Arc::new(fresh.disk.clone()), dir, ids, milepost_wal::Options::default())
            .expect("an empty log"),
    );
    let fresh = Home { engine: Arc::new(MemEngine::new()), ..fresh };
    fresh.ready();
}

/// A failed sync says nothing about what is on the disk: the member stops, and answers nobody as if it were well.
#[test]
fn a_failed_sync_stops_the_member() {
    let home = Home::new();
    let node = home.ready();
    home.disk.fail(milepost_env::Fault::Sync, 1, std::io::ErrorKind::Other);
    let answer = ask(&node, put("a", "b"));
    assert!(matches!(answer, Completion::Failed(NodeError::Stopped)), "{answer:?}");
    let reason = node.wait_stopped();
    assert!(matches!(reason, StopReason::Broken(_)), "{reason:?}");
    node.stop();
    drop(node);
    home.ready();
}

/// A full disk raises the alarm; the member stays up.
#[test]
fn a_full_disk_raises_the_alarm() {
    let home = Home::new();
    let node = home.ready();
    home.engine.fill_disk(u64::MAX);
    // Not more than that: memory takes only so much of what cannot be written, and the alarm passes through it, too.
    reply(&node, put("a", "b")).expect("applied");
    let start = std::time::Instant::now();
    while !node.reader().alarms().any(milepost_proto::etcdserverpb::AlarmType::Nospace) {
        assert!(start.elapsed() < PATIENCE, "no alarm");
        std::thread::yield_now();
    }
    assert_eq!(reply(&node, put("a", "c")).map(|_| ()), Err(Error::NoSpace));
    assert_eq!(node.stopped(), None);
}

/// Snapshot points need room for a file of their own: on a full disk they wait, and the member stays up.
#[test]
fn a_full_disk_puts_snapshot_points_off() {
    let mut home = Home::new();
    home.config.snapshot_count = 10;
    let node = home.ready();
    let start = std::time::Instant::now();
    for (capacity, line) in [(Some(0), "no snapshot point could be made"), (None, "saved snapshot to disk")] {
        home.disk.set_capacity(capacity);
        while !home.lines.has(line) {
            assert!(start.elapsed() < PATIENCE, "{:#?}", home.lines.all());
            reply(&node, put("a", "b")).expect("applied");
        }
    }
    assert_eq!(node.stopped(), None);
}

/// Apply waits for room in the store; a stop does not wait for it.
#[test]
fn a_full_disk_does_not_keep_a_member_from_stopping() {
    let mut home = Home::new();
    home.store.gen_changes = 1;
    let node = home.ready();
    home.engine.fill_disk(u64::MAX);
    let stalls = node.store().stats().stalls;
    let (sink, _answers) = answers();
    for ticket in 0..4 {
        let id = node.next_request_id();
        node.propose(id, encode(id, put("a", "b")), waiter(&sink, ticket));
    }
    let start = std::time::Instant::now();
    while node.store().stats().stalls == stalls {
        assert!(start.elapsed() < PATIENCE, "apply never had to wait");
        std::thread::yield_now();
    }
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        node.stop();
        ended.send(())
    });
    end.recv_timeout(PATIENCE).expect("it stops");
}

/// A write that goes over the quota when it is applied stands, and whoever hears of it finds the alarm raised.
#[test]
fn the_quota_raises_the_alarm_before_it_is_told_of() {
    let mut home = Home::new();
    home.config.machine.quota_bytes = 1;
    let node = home.ready();
    let raised = || node.reader().alarms().any(milepost_proto::etcdserverpb::AlarmType::Nospace);
    assert!(!raised());
    assert_eq!(reply(&node, put("a", "b")).map(|_| ()), Err(Error::NoSpace));
    assert!(raised());
    assert_eq!(get(&node, "a").kvs[0].value, "b");
    assert_eq!(reply(&node, put("a", "c")).map(|_| ()), Err(Error::NoSpace));
    assert_eq!(get(&node, "a").kvs[0].value, "b", "the alarm keeps the next one out");
}

/// One of three members, alone: nobody can lead. Requests wait for a leader, but not for ever.
#[test]
fn without_a_leader_requests_end_in_time() {
    let mut home = Home::new();
    let founder = |name: &str, port: u16| (name.to_owned(), vec![format!("http://localhost:{port}")]);
    home.config.initial_cluster = [founder("default", 1), founder("b", 2), founder("c", 3)].into();
    let node = home.start().expect("it starts");
    let (sink, answers) = answers();
    node.read_index(waiter(&sink, 2));
    let answer = ask(&node, put("a", "b"));
    assert!(matches!(answer, Completion::Failed(NodeError::NoLeader)), "{answer:?}");
    let (ticket, answer) = answers.recv_timeout(PATIENCE).expect("an answer");
    assert!(ticket == 2 && matches!(answer, Completion::Failed(NodeError::Timeout)), "{answer:?}");
    assert_eq!(node.status().leader.0, 0);
    assert_eq!(node.reader().members().len(), 3, "the founders are applied all the same");
    assert_eq!(node.metrics().proposals_pending.load(std::sync::atomic::Ordering::Relaxed), 0);
}
