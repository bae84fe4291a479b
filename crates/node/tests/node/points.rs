//! Snapshot points: what they say, and what becomes of the files that say it.

use crate::world::{Channel, Home, PATIENCE, answers, get, put, reply, waiter};
use milepost_env::{Clock, Disk, Open, OsClock};
use milepost_machine::Reader;
use milepost_machine::member::{Member, add};
use milepost_node::Completion;
use milepost_node::log::Value;
use milepost_proto::Message as _;
use milepost_types::{LogIndex, MemberId};
use milepost_wal::{Options, Wal, snap};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

const SNAP: &str = "/data/member/snap";

/// A place where a thread stops and waits to be let on.
struct Gate {
    arrived: Mutex<Sender<()>>,
    open: Mutex<Receiver<()>>,
}

impl Gate {
    fn new() -> (Self, Receiver<()>, Sender<()>) {
        let ((arrived, arrivals), (opener, open)) = (channel(), channel());
        (Self { arrived: Mutex::new(arrived), open: Mutex::new(open) }, arrivals, opener)
    }

    fn pass(&self) {
        // The test that no longer listens lets everybody through.
        let _ = self.arrived.lock().expect("gate").send(());
        let _ = self.open.lock().expect("gate").recv();
    }
}

/// The time, and two threads that can be held where they ask for it.
struct HeldClock {
    ahead_seconds: AtomicU64,
    /// The keeper, between choosing a point and writing its file.
    keeper: OnceLock<Gate>,
    /// Apply, between the second member's entry and the note of the membership after it.
    apply: OnceLock<(Gate, Reader)>,
}

impl Clock for HeldClock {
    fn monotonic(&self) -> Duration {
        match std::thread::current().name() {
            Some("keeper") => _ = self.keeper.get().map(Gate::pass),
            // A lone member's Raft thread applies little by itself.
            Some("apply" | "raft") => {
                _ = self.apply.get().filter(|(_, reader)| reader.members().len() == 2).map(|(gate, _)| gate.pass());
            }
            _ => {}
        }
        OsClock.monotonic() + Duration::from_secs(self.ahead_seconds.load(Ordering::Relaxed))
    }

    fn unix(&self) -> Duration {
        OsClock.unix()
    }
}

/// The store has an entry an instant before the apply thread notes the membership after it. A snapshot point at that
/// entry, asked for in that instant, must not say who was a member before.
#[test]
fn a_point_at_a_new_member_names_it() {
    let mut home = Home::new();
    home.config.snapshot_count = 5;
    let clock =
        Arc::new(HeldClock { ahead_seconds: AtomicU64::new(0), keeper: OnceLock::new(), apply: OnceLock::new() });
    let node = home.start_by(Arc::clone(&clock) as Arc<dyn Clock>).expect("it starts");
    assert!(node.wait_ready(PATIENCE));
    let (gate, keeper_came, keeper_may_go) = Gate::new();
    assert!(clock.keeper.set(gate).is_ok());
    let begin = Instant::now();
    while keeper_came.try_recv().is_err() {
        assert!(begin.elapsed() < PATIENCE, "no snapshot point is made");
        clock.ahead_seconds.fetch_add(2, Ordering::Relaxed);
        reply(&node, put("a", "b")).expect("applied");
    }
    // The next point is asked for meanwhile; the last of these is applied in a batch after that.
    clock.ahead_seconds.fetch_add(2, Ordering::Relaxed);
    for _ in 0..7 {
        reply(&node, put("a", "c")).expect("applied");
    }
    let (gate, apply_came, apply_may_go) = Gate::new();
    assert!(clock.apply.set((gate, node.reader().clone())).is_ok());
    let learner =
        Member { id: MemberId(7), peer_urls: vec!["http://localhost:1".into()], is_learner: true, ..Member::default() };
    let (sink, answer): (Arc<Channel>, _) = answers();
    let id = node.next_request_id();
    node.propose_conf_change(id, add(id, &learner).encode_to_vec().into(), waiter(&sink, 1));
    apply_came.recv_timeout(PATIENCE).expect("apply is held behind the new member's entry");
    let at = node.store().force_sync().expect("sync").index;
    drop((keeper_may_go, keeper_came));
    let made =
        || home.lines.all().iter().any(|line| line.contains("saved snapshot") && line.contains(&at.0.to_string()));
    let begin = Instant::now();
    while !home.lines.has("a snapshot point waits for apply") && !made() {
        assert!(begin.elapsed() < PATIENCE, "{at}: {:#?}", home.lines.all());
    }
    drop((apply_may_go, apply_came));
    assert!(matches!(answer.recv_timeout(PATIENCE).expect("an answer").1, Completion::Reply(Ok(_))));
    let begin = Instant::now();
    while !made() {
        assert!(begin.elapsed() < PATIENCE, "the point that waited was never made: {:#?}", home.lines.all());
    }
    let newest = snap::newest(&home.disk, Path::new(SNAP), |_, index| index == at, &mut Vec::new());
    let conf_state =
        newest.expect("read").and_then(|snapshot| snapshot.metadata?.conf_state).expect("the point's file");
    assert_eq!(conf_state.learners, [7]);
    node.stop();
}

/// Nothing is taken from a `.snap` file, so a damaged one costs nothing; but it is told of and set aside as etcd does.
#[test]
fn a_damaged_snapshot_file_is_set_aside_and_nothing_is_lost() {
    let mut home = Home::new();
    home.config.snapshot_count = 20;
    let node = home.ready();
    for number in 0..100 {
        reply(&node, put("k", &number.to_string())).expect("applied");
    }
    let begin = Instant::now();
    while !home.lines.has("saved snapshot to disk") {
        assert!(begin.elapsed() < PATIENCE, "no snapshot point after 100 entries: {:#?}", home.lines.all());
        std::thread::yield_now();
    }
    node.stop();
    drop(node);
    let files = snap::list_newest_first(&home.disk, Path::new(SNAP)).expect("list");
    // A file whose mark the stop kept out of the log is nobody's, and nobody looks at it.
    let said = |index: LogIndex| {
        let field = format!("{:?}", [("snapshot-index", Value::from(index.0))]);
        home.lines.all().iter().any(|line| line.contains("saved snapshot to disk") && line.contains(&field))
    };
    let newest = &files.iter().find(|file| said(file.index)).expect("a snapshot file that the log names").path;
    let mut file = home.disk.open(newest, Open::ReadWrite).expect("open");
    let mut byte = [0];
    file.read_at(&mut byte, 30).expect("read");
    file.write_at(&[byte[0] ^ 4], 30).expect("write");
    let node = home.ready();
    assert_eq!(get(&node, "k").kvs[0].value, "99");
    node.stop();
    drop(node);
    let line = home.lines.all().into_iter().find(|line| line.contains("set a damaged snapshot file aside"));
    assert!(line.is_some_and(|line| line.contains(&*newest.to_string_lossy()) && line.contains("checksum")));
    let name = newest.file_name().expect("a name").to_string_lossy().into_owned();
    let names = home.disk.list(Path::new(SNAP)).expect("list");
    assert!(!names.contains(&name) && names.contains(&format!("{name}.broken")), "{names:?}");
    let (_, log) =
        Wal::open(Arc::new(home.disk.clone()), Path::new("/data/member/wal"), Options::default()).expect("log");
    assert!(log.snapshot.index.0 >= 20, "the log begins where it did");
}
