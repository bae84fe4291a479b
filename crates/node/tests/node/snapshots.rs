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

/// Writes through `node`; what watchers hear of it.
fn write(node: &Node, text: &str, count: usize) -> Vec<(i64, String)> {
    let written = (0..count).map(|number| {
        let key = format!("{text}{number}");
        reply(node, put(&key, "v")).expect("applied");
        (node.reader().revision(), key)
    });
    written.collect()
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

/// What the watcher on a member hears that another one's snapshot carries over a gap.
struct Gap {
    cluster: Cluster,
    leader: usize,
    /// The member that hears nobody from now on.
    behind: usize,
    /// The watcher on it, who has the first writes.
    stream: Stream,
    wakes: Receiver<()>,
    frames: Vec<Frame>,
    /// What it must hear of these writes.
    expected: Vec<(i64, String)>,
}

impl Gap {
    /// Three members, of which one has been cut off after some writes.
    fn begin() -> Self {
        let mut cluster = forgetful(3);
        cluster.start_all();
        let leader = cluster.leader();
        let behind = (leader + 1) % 3;
        let (stream, wakes) = watch(&cluster.seats[behind]);
        let mut gap = Self { cluster, leader, behind, stream, wakes, frames: Vec::new(), expected: Vec::new() };
        gap.write("before", 10);
        caught_up(&gap.cluster, behind, gap.node());
        isolate(&gap.cluster, behind);
        gap
    }

    fn node(&self) -> &Node {
        self.cluster.seats[self.leader].node()
    }

    /// Writes that the watcher must hear of.
    fn write(&mut self, text: &str, count: usize) {
        let written = write(self.node(), text, count);
        self.expected.extend(written);
    }

    /// The member hears the others again, and catches up by a snapshot.
    fn heal(&self) {
        self.cluster.net.heal();
        installed(&self.cluster, self.behind, 0);
    }

    /// Takes frames until `done` finds among them what it looks for.
    fn hear<T>(&mut self, done: impl Fn(&[Frame]) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = done(&self.frames) {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "{} events: {:?}", events(&self.frames).len(), self.frames);
            let _ = self.wakes.recv_timeout(PATIENCE);
            self.stream.take(&mut self.frames);
        }
    }
}

#[test]
fn watchers_go_on_across_a_snapshot_without_gap_or_duplicate() {
    let mut gap = Gap::begin();
    gap.write("apart", 300);
    gap.heal();
    gap.write("after", 10);
    let count = gap.expected.len();
    gap.hear(|frames| (events(frames).len() >= count).then_some(()));
    assert_eq!(events(&gap.frames), gap.expected);
}

#[test]
fn a_watcher_whose_past_is_compacted_in_the_snapshot_is_told_so() {
    let mut gap = Gap::begin();
    write(gap.node(), "apart", 150);
    let floor = gap.node().reader().revision() - 10;
    reply(gap.node(), Request::Compaction(CompactionRequest { revision: floor, physical: false })).expect("applied");
    write(gap.node(), "more", 150);
    gap.heal();
    let cancelled = gap.hear(|frames| {
        let told = frames.iter().find(|frame| frame.compact_revision != 0);
        told.map(|frame| frame.compact_revision)
    });
    assert_eq!((cancelled, events(&gap.frames)), (floor, gap.expected.clone()), "nothing of what lies behind the gap");
    assert_alike(&gap.cluster);
}
