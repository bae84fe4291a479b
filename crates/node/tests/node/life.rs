//! Beginning, answering, stopping, going on.

use crate::world::{Home, PATIENCE, answers, ask, encode, get, put, reply, waiter};
use milepost_env::Disk;
use milepost_machine::Reply;
use milepost_machine::member::{Member, add};
use milepost_node::stepped::ToApply;
use milepost_node::{Completion, NodeError, Role, StopReason};
use milepost_proto::Message as _;
use milepost_proto::raftpb::Entry;
use milepost_types::MemberId;
use milepost_wal::{Options, Wal};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

#[test]
fn a_new_member_answers_and_remembers() {
    let home = Home::new();
    let node = home.ready();
    for number in 0..100 {
        let answer = reply(&node, put(&format!("k{number}"), &number.to_string())).expect("applied");
        let Reply::Put(answer) = answer else { panic!("not a put's reply: {answer:?}") };
        assert_eq!(answer.header.expect("header").revision, number + 2);
    }
    assert_eq!(get(&node, "k7").kvs[0].value, "7");
    let before = node.status();
    assert_eq!((before.role, before.leader, before.term), (Role::Leader, before.member_id, 2));
    node.stop();
    assert_eq!(node.stopped(), Some(StopReason::Asked));
    assert!(matches!(ask(&node, put("late", "x")), Completion::Failed(NodeError::Stopped)));
    let (sink, read) = answers();
    node.read_index(waiter(&sink, 1));
    assert!(matches!(read.recv_timeout(PATIENCE), Ok((1, Completion::Failed(NodeError::Stopped)))));
    drop(node);

    let node = home.ready();
    let after = node.status();
    assert_eq!((after.member_id, after.cluster_id, after.term), (before.member_id, before.cluster_id, 3));
    assert_eq!(get(&node, "k99").kvs[0].value, "99");
    assert_eq!(node.reader().revision(), 101);
    assert!(get(&node, "late").kvs.is_empty());
}

/// The first entries are etcd's: the founder, the leader's empty entry, the member's attributes, the cluster version.
#[test]
fn the_log_begins_as_etcds_does() {
    let home = Home::new();
    let node = home.ready();
    assert_eq!(reply(&node, put("a", "b")).map(|_| ()), Ok(()));
    let status = node.status();
    assert_eq!(format!("{}", status.member_id), "8e9e05c52164694d", "as every etcd with its defaults");
    assert_eq!(format!("{}", status.cluster_id), "cdf818194e3a8c32");
    assert_eq!(node.reader().cluster_version().expect("set").to_string(), "3.7.0");
    assert_eq!(node.reader().members()[0].client_ur_ls, ["http://localhost:2379"]);
    node.stop();
    let (_, log) =
        Wal::open(Arc::new(home.disk.clone()), Path::new("/data/member/wal"), Options::default()).expect("log");
    let shape: Vec<(u64, i32, bool)> =
        log.entries.iter().map(|entry: &Entry| (entry.term(), entry.r#type(), entry.data().is_empty())).collect();
    assert_eq!(shape, [(1, 1, false), (2, 0, true), (2, 0, false), (2, 0, false), (2, 0, false)]);
    for line in [
        "8e9e05c52164694d became follower at term 1",
        "8e9e05c52164694d became pre-candidate at term 1",
        "8e9e05c52164694d became candidate at term 2",
        "8e9e05c52164694d became leader at term 2",
        "raft.node: 8e9e05c52164694d elected leader 8e9e05c52164694d at term 2",
        "added member",
        "published local member to cluster through raft",
        "set initial cluster version",
    ] {
        assert!(home.lines.has(line), "no line {line:?} in {:#?}", home.lines.all());
    }
}

/// Power goes while puts are under way: every put that was answered is there afterwards.
#[test]
fn what_was_answered_survives_a_power_cut() {
    for seed in 0..20 {
        let mut home = Home::new();
        let node = home.ready();
        let (sink, answers) = answers();
        for number in 0..200 {
            let id = node.next_request_id();
            node.propose(id, encode(id, put(&format!("k{number}"), "v")), waiter(&sink, number));
        }
        let answered: Vec<u64> = (0..20 * (seed % 10))
            .map(|_| answers.recv_timeout(PATIENCE).expect("an answer"))
            .filter(|(_, answer)| matches!(answer, Completion::Reply(Ok(_))))
            .map(|(ticket, _)| ticket)
            .collect();
        // Nothing more reaches the disk; the threads find out by themselves.
        home.disk.crash(seed);
        home.engine = Arc::new(home.engine.crash(seed % 2 == 0));
        node.stop();
        drop(node);
        let node = home.ready();
        for ticket in answered {
            assert_eq!(get(&node, &format!("k{ticket}")).count, 1, "k{ticket} was answered, then lost (seed {seed})");
        }
    }
}

/// A member is stopped, as by a door that cannot open, after it was handed its founder and before it applied that.
#[test]
fn a_member_may_be_stopped_while_it_applies_a_conf_change() {
    let home = Home::new();
    let mut live = home.stepped();
    let founder = (0..10).find_map(|_| {
        live.raft();
        live.log();
        live.next_to_apply()
    });
    let founder = founder.expect("the founder is committed from the beginning");
    let ToApply::Entries(entries) = &founder else { panic!("no entries: {founder:?}") };
    assert_eq!(entries[0].r#type(), 1, "not a conf change: {entries:?}");
    let (sink, answers) = answers();
    live.node().read_index(waiter(&sink, 1));
    live.node().stop();
    assert!(live.apply(founder));
    live.raft();
    assert_eq!(live.node().stopped(), Some(StopReason::Asked));
    live.stop();
    assert!(matches!(answers.recv_timeout(PATIENCE), Ok((1, Completion::Failed(NodeError::Stopped)))));
}

#[test]
fn snapshot_points_bound_what_a_restart_reads() {
    let mut home = Home::new();
    home.config.snapshot_count = 50;
    let node = home.ready();
    let mut puts = 0;
    // The point is made in the background: a busy machine may take more puts than it needs.
    while puts < 300 || (puts < 100_000 && !home.lines.has("saved snapshot to disk")) {
        reply(&node, put(&format!("k{puts}"), "v")).expect("applied");
        puts += 1;
    }
    node.stop();
    drop(node);
    assert!(home.lines.has("saved snapshot to disk"), "{:#?}", home.lines.all());
    let snap = Path::new("/data/member/snap");
    let files = home.disk.list(snap).expect("list").into_iter().filter(|name| name.ends_with(".snap")).count();
    assert!((1..=5).contains(&files), "{files} snapshot files");
    let (wal, log) =
        Wal::open(Arc::new(home.disk.clone()), Path::new("/data/member/wal"), Options::default()).expect("log");
    assert!(log.snapshot.index.0 >= 50, "the newest point is {}", log.snapshot.index);
    assert_eq!(log.snapshot.conf_state.voters.len(), 1);
    drop(wal);
    let node = home.ready();
    assert_eq!(get(&node, "k299").count, 1);
    assert_eq!(node.reader().revision(), puts + 1);
}

#[test]
fn whoever_watches_hears_of_the_leader() {
    let home = Home::new();
    let node = home.start().expect("it starts");
    let (sender, receiver) = channel();
    let sender = std::sync::Mutex::new(sender);
    node.watch_leader(Arc::new(move |leader, term| {
        // The test may have what it wants.
        let _ = sender.lock().expect("channel").send((leader, term));
    }));
    assert!(node.wait_ready(PATIENCE));
    let status = node.status();
    let heard = receiver.try_iter().last();
    assert!(heard.is_none_or(|heard| heard == (status.leader.0, status.term)), "{heard:?}, {status:?}");
    assert!(node.metrics().is_leader.load(std::sync::atomic::Ordering::Relaxed));
}

/// While a member is the whole cluster its reads need nobody; from its first learner on they are confirmed.
#[test]
fn reads_are_current_while_alone() {
    let home = Home::new();
    let node = home.ready();
    assert!(node.reads_are_current());
    reply(&node, put("k", "1")).expect("applied");
    assert_eq!(get(&node, "k").kvs[0].value, "1");
    let learner = Member {
        id: MemberId(7),
        peer_urls: vec!["http://localhost:1".to_owned()],
        is_learner: true,
        ..Member::default()
    };
    let (sink, answers) = answers();
    let id = node.next_request_id();
    node.propose_conf_change(id, add(id, &learner).encode_to_vec().into(), waiter(&sink, 1));
    let (_, answer) = answers.recv_timeout(PATIENCE).expect("an answer");
    let Completion::Reply(Ok(Reply::ConfChange(members))) = answer else { panic!("{answer:?}") };
    assert_eq!(members.len(), 2);
    let start = std::time::Instant::now();
    while node.reads_are_current() {
        assert!(start.elapsed() < PATIENCE, "still taken for alone");
    }
    reply(&node, put("k", "2")).expect("applied");
    assert_eq!(get(&node, "k").kvs[0].value, "2");
    assert!(home.lines.has("added member"));
}

/// The commit index is written late, a tick at most. Without a tick the newest snapshot point counts all the same.
#[test]
fn a_snapshot_point_counts_although_no_tick_wrote_the_commit_index() {
    let mut home = Home::new();
    home.config.heartbeat = Duration::from_secs(3600);
    home.config.snapshot_count = 10;
    let node = home.ready();
    let mut puts = 0;
    let start = std::time::Instant::now();
    while !home.lines.has("saved snapshot to disk") {
        puts += 1;
        reply(&node, put("k", &puts.to_string())).expect("applied");
        assert!(start.elapsed() < PATIENCE, "no snapshot point");
    }
    home.disk.crash(5);
    home.engine = Arc::new(home.engine.crash(false));
    node.stop();
    drop(node);
    let (wal, log) =
        Wal::open(Arc::new(home.disk.clone()), Path::new("/data/member/wal"), Options::default()).expect("log");
    assert!(log.snapshot.index.0 >= 10, "the point at {} counts, of {:?}", log.snapshot.index, log.snapshots);
    drop(wal);
    let node = home.ready();
    assert_eq!(get(&node, "k").kvs[0].value, puts.to_string());
}
