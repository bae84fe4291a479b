//! Who takes the turns: a lone member's Raft thread, while there is little to do.

use crate::cluster_world::Cluster;
use crate::world::{Home, PATIENCE, encode, put};
use milepost_env::Fault;
use milepost_machine::Reply;
use milepost_node::{Completion, CompletionSink, Node, NodeError, StopReason, Waiter};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

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
