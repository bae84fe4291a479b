//! Who takes the turns: a lone member's Raft thread, while there is little to do.

use crate::cluster_world::Cluster;
use crate::held_disk::HeldDisk;
use crate::world::{Home, PATIENCE, encode, put};
use milepost_env::{Clock, Disk, Fault, OsClock};
use milepost_machine::Reply;
use milepost_node::{Completion, CompletionSink, Node, NodeError, StopReason, Waiter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Tells who answers.
struct Names(Mutex<Sender<(String, Completion)>>);

impl CompletionSink for Names {
    fn complete(&self, batch: &mut Vec<(u64, Completion)>) {
        for (_, completion) in batch.drain(..) {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            // A test that has what it wants no longer listens.
            let _ = self.0.lock().expect("names").send((name, completion));
        }
    }
}

fn names() -> (Arc<Names>, Receiver<(String, Completion)>) {
    let (sender, receiver) = channel();
    (Arc::new(Names(Mutex::new(sender))), receiver)
}

fn propose(node: &Node, sink: &Arc<Names>, value: &str) {
    let id = node.next_request_id();
    let waiter = Waiter { sink: Arc::clone(sink) as Arc<dyn CompletionSink>, ticket: 0 };
    node.propose(id, encode(id, put("k", value)), waiter);
}

/// Who answered a put.
fn answered(answers: &Receiver<(String, Completion)>) -> String {
    let (name, completion) = answers.recv_timeout(PATIENCE).expect("an answer");
    assert!(matches!(completion, Completion::Reply(Ok(Reply::Put(_)))), "{completion:?}");
    name
}

/// The apply thread may still be busy with what came before: then it is its turn.
fn put_until(node: &Node, at_once: usize, name: &str) {
    let (sink, answers) = names();
    let start = Instant::now();
    loop {
        (0..at_once).for_each(|_| propose(node, &sink, "v"));
        if (0..at_once).map(|_| answered(&answers)).filter(|by| by == name).count() > 0 {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{name} never answered {at_once} at once");
    }
}

#[test]
fn a_lone_member_does_little_at_once_and_much_side_by_side() {
    let home = Home::new();
    let node = home.ready();
    put_until(&node, 1, "raft");
    put_until(&node, 1000, "apply");
    put_until(&node, 1, "raft");
}

/// With others to lead, the Raft thread waits for no disk.
#[test]
fn a_leader_of_others_leaves_all_to_its_threads() {
    let mut cluster = Cluster::new(2);
    cluster.start_all();
    let leader = cluster.leader();
    let (sink, answers) = names();
    let mut applied = 0;
    while applied < 100 {
        propose(cluster.seats[leader].node(), &sink, "v");
        let (name, completion) = answers.recv_timeout(PATIENCE).expect("an answer");
        // On a busy machine leadership may move, and whoever waits hear of that from the Raft thread.
        if matches!(completion, Completion::Reply(_)) {
            assert_eq!(name, "apply");
            applied += 1;
        }
    }
}

struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn monotonic(&self) -> Duration {
        OsClock.monotonic() + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn unix(&self) -> Duration {
        OsClock.unix()
    }
}

/// The Raft thread is in the sync, and still requests end in time: the one that is being written, and one that comes later.
#[test]
fn a_disk_that_is_stuck_in_a_small_turn_keeps_nobody_waiting() {
    let home = Home::new();
    let clock = Arc::new(Ahead(AtomicU64::new(0)));
    let disk = Arc::new(HeldDisk::new(home.disk.clone()));
    let node =
        home.start_on(Arc::clone(&disk) as Arc<dyn Disk>, Arc::clone(&clock) as Arc<dyn Clock>).expect("a start");
    assert!(node.wait_ready(PATIENCE));
    let (sink, answers) = names();
    // Until it is the Raft thread that writes.
    let release = loop {
        put_until(&node, 1, "raft");
        let (begun, release) = disk.hold_next_sync();
        propose(&node, &sink, "stuck");
        begun.recv_timeout(PATIENCE).expect("a sync begins");
        clock.0.fetch_add(60, Ordering::Relaxed);
        let (name, answer) = answers.recv_timeout(PATIENCE).expect("an answer");
        assert!(matches!(answer, Completion::Failed(NodeError::Timeout)), "{answer:?}");
        if name == "apply" {
            break release;
        }
    };
    propose(&node, &sink, "later");
    let start = Instant::now();
    let (name, answer) = loop {
        if let Ok(answer) = answers.recv_timeout(Duration::from_millis(10)) {
            break answer;
        }
        clock.0.fetch_add(60, Ordering::Relaxed);
        assert!(start.elapsed() < PATIENCE, "whoever comes later waits for the disk");
    };
    assert!(name == "apply" && matches!(answer, Completion::Failed(NodeError::Timeout)), "{name}: {answer:?}");
    drop(release);
    put_until(&node, 1, "raft");
    put_until(&node, 1000, "apply");
    node.stop();
}

/// A sync that fails in the Raft thread's own turn ends the member as any other does: nobody is told of success.
#[test]
fn a_failed_sync_in_a_small_turn_stops_the_member() {
    let home = Home::new();
    let node = home.ready();
    put_until(&node, 1, "raft");
    home.disk.fail(Fault::Sync, 1, std::io::ErrorKind::Other);
    let (sink, answers) = names();
    propose(&node, &sink, "lost?");
    let (_, answer) = answers.recv_timeout(PATIENCE).expect("an answer");
    assert!(matches!(answer, Completion::Failed(NodeError::Stopped)), "{answer:?}");
    assert!(matches!(node.wait_stopped(), StopReason::Broken(_)));
    node.stop();
    drop(node);
    home.ready();
}
