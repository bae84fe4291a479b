//! Followers that are further behind than the log reaches.

use crate::cluster_world::{Cluster, Seat};
use crate::world::{PATIENCE, get, put, reply};
use milepost_mvcc::watch::{CreateRequest, Frame, Stream, StreamOptions};
use milepost_node::Node;
use milepost_proto::Message as _;
use milepost_proto::etcdserverpb::CompactionRequest;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// Members that throw their log away soon.
fn forgetful(count: usize) -> Cluster {
    let mut cluster = Cluster::new(count);
    for seat in &mut cluster.seats {
        seat.home.config.snapshot_bytes = 2_000;
        seat.home.config.snapshot_count = 20;
        seat.home.config.catch_up_entries = 5;
    }
    cluster
}

fn installs(seat: &Seat) -> usize {
    seat.home.lines.all().iter().filter(|line| line.starts_with("applied snapshot")).count()
}

/// Set when it goes, whatever happens.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until the member has installed more than `before` snapshots.
fn installed(cluster: &Cluster, at: usize, before: usize) {
    let begin = Instant::now();
    cluster.net.wait(|| {
        if begin.elapsed() > PATIENCE / 2 {
            let lines: Vec<_> = cluster.seats.iter().map(|seat| seat.home.lines.all()).collect();
            panic!("no snapshot came: {lines:#?}");
        }
        (installs(&cluster.seats[at]) > before).then_some(())
    });
}

/// The same history on all, as far as each has come.
fn assert_alike(cluster: &Cluster) {
    let newest = cluster.seats.iter().map(|seat| seat.node().reader().revision()).max().expect("some");
    let all_there = || cluster.seats.iter().all(|seat| seat.node().reader().revision() >= newest).then_some(());
    cluster.net.wait(all_there);
    let hashes: Vec<_> =
        cluster.seats.iter().map(|seat| seat.node().reader().hash_kv(newest).expect("a hash").hash).collect();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?} at {newest}");
}

#[test]
fn a_follower_far_behind_catches_up_while_writes_go_on() {
    let mut cluster = forgetful(3);
    cluster.start_all();
    let leader = cluster.leader();
    let behind = (leader + 1) % 3;
    cluster.stop(behind);
    for number in 0..300 {
        reply(cluster.seats[leader].node(), put(&format!("k{}", number % 70), "v")).expect("applied");
    }
    let before = installs(&cluster.seats[behind]);
    cluster.start(behind);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = cluster.seats[leader].node().clone();
        let done = &done;
        scope.spawn(move || {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                reply(&writer, put(&format!("meanwhile{}", number % 30), "v")).expect("applied");
            }
        });
        let done = Done(done);
        installed(&cluster, behind, before);
        drop(done);
    });
    assert_eq!(get(cluster.seats[behind].node(), "k69").count, 1);
    assert_alike(&cluster);
    let members = cluster.seats[behind].node().reader().members();
    assert!(members.len() == 3 && members.iter().all(|member| !member.name.is_empty()), "{members:?}");
    // What came in is gone, and the store that counts is the only one.
    (0..3).for_each(|at| cluster.stop(at));
    for seat in &cluster.seats {
        let names = milepost_env::Disk::list(&seat.home.disk, std::path::Path::new("/data/member/snap")).expect("list");
        assert!(names.iter().all(|name| !name.ends_with(".snap.db")), "{names:?}");
    }
    cluster.start_all();
    assert_alike(&cluster);
}

/// Every event from the frames of one watcher: (revision, key).
fn events(frames: &[Frame]) -> Vec<(i64, String)> {
    let mut out = Vec::new();
    for frame in frames {
        let response = milepost_proto::etcdserverpb::WatchResponse::decode(frame.events.clone()).expect("events");
        out.extend(response.events.into_iter().map(|event| {
            let kv = event.kv.expect("a key");
            (kv.mod_revision, String::from_utf8(kv.key.to_vec()).expect("text"))
        }));
    }
    out
}

/// A watcher of everything on `seat`.
fn watch(seat: &Seat) -> (Stream, Receiver<()>) {
    let (woken, wakes) = channel();
    let waker = Arc::new(move || _ = woken.send(()));
    let stream = seat.node().hub().open_stream(waker, StreamOptions::default());
    let all = CreateRequest { key: vec![0].into(), range_end: vec![0].into(), ..CreateRequest::default() };
    stream.create(CreateRequest { watch_id: 1, ..all });
    let mut frames = Vec::new();
    while !frames.iter().any(|frame: &Frame| frame.created) {
        wakes.recv_timeout(PATIENCE).expect("the watcher is made");
        stream.take(&mut frames);
    }
    (stream, wakes)
}

/// Writes through `node`, and adds what watchers must hear of it.
fn write(node: &Node, text: &str, count: usize, expected: &mut Vec<(i64, String)>) {
    for number in 0..count {
        let key = format!("{text}{number}");
        reply(node, put(&key, "v")).expect("applied");
        expected.push((node.reader().revision(), key));
    }
}

/// Nobody hears `at`, nor does it hear anybody.
fn isolate(cluster: &Cluster, at: usize) {
    let id = cluster.seats[at].id();
    cluster.net.cut(id, cluster.seats.iter().map(Seat::id).filter(|other| *other != id).collect::<Vec<_>>());
}

fn caught_up(cluster: &Cluster, at: usize, node: &Node) {
    let revision = || cluster.seats[at].node().reader().revision();
    cluster.net.wait(|| (revision() == node.reader().revision()).then_some(()));
}

#[test]
fn watchers_go_on_across_a_snapshot_without_gap_or_duplicate() {
    let mut cluster = forgetful(3);
    cluster.start_all();
    let leader = cluster.leader();
    let behind = (leader + 1) % 3;
    let node = cluster.seats[leader].node();
    let (stream, wakes) = watch(&cluster.seats[behind]);
    let mut expected = Vec::new();
    write(node, "before", 10, &mut expected);
    caught_up(&cluster, behind, node);
    isolate(&cluster, behind);
    write(node, "apart", 300, &mut expected);
    cluster.net.heal();
    installed(&cluster, behind, 0);
    write(node, "after", 10, &mut expected);
    let begin = Instant::now();
    let mut frames = Vec::new();
    while events(&frames).len() < expected.len() {
        assert!(begin.elapsed() < PATIENCE, "{} of {}", events(&frames).len(), expected.len());
        let _ = wakes.recv_timeout(PATIENCE);
        stream.take(&mut frames);
    }
    assert_eq!(events(&frames), expected);
}

#[test]
fn a_watcher_whose_past_is_compacted_in_the_snapshot_is_told_so() {
    let mut cluster = forgetful(3);
    cluster.start_all();
    let leader = cluster.leader();
    let behind = (leader + 1) % 3;
    let node = cluster.seats[leader].node();
    let (stream, wakes) = watch(&cluster.seats[behind]);
    let mut expected = Vec::new();
    write(node, "before", 10, &mut expected);
    caught_up(&cluster, behind, node);
    isolate(&cluster, behind);
    write(node, "apart", 150, &mut Vec::new());
    let floor = node.reader().revision() - 10;
    reply(node, Request::Compaction(CompactionRequest { revision: floor, physical: false })).expect("applied");
    write(node, "more", 150, &mut Vec::new());
    cluster.net.heal();
    installed(&cluster, behind, 0);
    let begin = Instant::now();
    let mut frames = Vec::new();
    let cancelled = loop {
        assert!(begin.elapsed() < PATIENCE, "{frames:?}");
        let _ = wakes.recv_timeout(PATIENCE);
        stream.take(&mut frames);
        if let Some(frame) = frames.iter().find(|frame| frame.compact_revision != 0) {
            break frame.compact_revision;
        }
    };
    assert_eq!((cancelled, events(&frames)), (floor, expected), "nothing of what lies behind the gap");
    assert_alike(&cluster);
}
