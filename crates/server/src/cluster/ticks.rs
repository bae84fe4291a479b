//! The first election of a member that finds the others: it need not wait its full time. Source: etcd `adjustTicks`.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use milepost_node::Node;
use milepost_node::log::{Log, Value};
use milepost_peers::Transport;
use parking_lot::Mutex;
use std::sync::Arc;

/// How often the connections are counted. Source: etcd.
const INTERVAL: Duration = Duration::from_millis(50);
/// After that it is no start any more. Source: etcd `rafthttp.ConnReadTimeout`.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets `node` stand for election soon, once more than one other member is connected and as long as nobody leads.
///
/// # Errors
/// The system gives no thread.
pub fn advance(node: Node, transport: Transport, election: Duration, log: Arc<dyn Log>) -> std::io::Result<()> {
    let (tell, leaders) = channel();
    let tell = Mutex::new(tell);
    node.watch_leader(Arc::new(move |leader, _| {
        if leader != 0 {
            // The watcher outlives the thread.
            let _ = tell.lock().send(());
        }
    }));
    let run = move || {
        let until = node.clock().monotonic() + PATIENCE;
        while node.stopped().is_none() && node.status().leader.0 == 0 && node.clock().monotonic() < until {
            let membership = node.reader().membership();
            let own = node.status().member_id;
            let others = membership.members.keys().filter(|id| **id != own);
            let active = others.filter(|id| transport.active_for(**id).is_some()).count();
            if active > 1 {
                let fields = [
                    ("local-member-id", Value::from(own.to_string())),
                    ("election-timeout", election.into()),
                    ("active-remote-members", active.into()),
                ];
                log.info("initialized peer connections; fast-forwarding election ticks", &fields);
                node.fast_forward();
                return;
            }
            if leaders.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("ticks".to_owned()).spawn(run).map(drop)
}
