//! Several members in one process: letters go from thread to thread, over links that a test can cut.

use crate::world::{Home, PATIENCE};
use milepost_env::OsClock;
use milepost_machine::Membership;
use milepost_mvcc::Store;
use milepost_node::{Letters, Node, Role, SnapshotLetter, World};
use milepost_proto::raftpb;
use milepost_types::MemberId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Instant;

/// Who can be reached.
#[derive(Default)]
pub struct Net {
    state: Mutex<NetState>,
    /// Rung at every letter: whatever a test waits for comes with one, or shortly after one, and heartbeats never end.
    letter: Condvar,
}

#[derive(Default)]
struct NetState {
    nodes: BTreeMap<u64, Node>,
    /// (from, to) that lose everything.
    cut: BTreeSet<(u64, u64)>,
}

impl Net {
    /// Both ways between `one` and everybody in `others`.
    pub fn cut(&self, one: u64, others: impl IntoIterator<Item = u64>) {
        let mut state = self.state.lock().expect("net");
        for other in others {
            state.cut.extend([(one, other), (other, one)]);
        }
    }

    pub fn heal(&self) {
        self.state.lock().expect("net").cut.clear();
    }

    fn find(&self, from: u64, to: u64) -> Option<Node> {
        self.letter.notify_all();
        let state = self.state.lock().expect("net");
        if state.cut.contains(&(from, to)) { None } else { state.nodes.get(&to).cloned() }
    }

    /// Asks until there is an answer, again after each letter.
    pub fn wait<T>(&self, mut ask: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "it never came");
            let state = self.state.lock().expect("net");
            drop(self.letter.wait_timeout(state, PATIENCE).expect("net"));
        }
    }

    fn hang_up(&self, id: u64) -> Option<Node> {
        self.state.lock().expect("net").nodes.remove(&id)
    }
}

/// One member's way to the others.
struct Post {
    net: Weak<Net>,
    /// Known once the node has started.
    own: Arc<Mutex<Option<Node>>>,
    pub members: Arc<Mutex<Option<Arc<Membership>>>>,
}

impl Letters for Post {
    fn send(&self, messages: Vec<raftpb::Message>) {
        let Some(net) = self.net.upgrade() else { return };
        for message in messages {
            match net.find(message.from(), message.to()) {
                Some(node) => node.receive(message),
                None => {
                    if let Some(own) = &*self.own.lock().expect("post") {
                        own.report_unreachable(MemberId(message.to()));
                    }
                }
            }
        }
    }

    fn send_snapshot(&self, letter: SnapshotLetter) {
        let (net, own) = (self.net.clone(), Arc::clone(&self.own));
        let carry = move || {
            let SnapshotLetter { message, total_bytes, body } = letter;
            let (from, to) = (message.from(), message.to());
            let mut bytes = Vec::new();
            let written = body.write(&mut bytes);
            assert!(written.is_err() || bytes.len() as u64 == total_bytes, "{} of {total_bytes}", bytes.len());
            let node = net.upgrade().and_then(|net| net.find(from, to)).filter(|_| written.is_ok());
            let arrived = node.is_some_and(|node| node.install_snapshot(message, &mut &*bytes).is_ok());
            let own = own.lock().expect("post").clone();
            if let Some(own) = own {
                own.report_snapshot(MemberId(to), arrived);
            }
        };
        drop(std::thread::spawn(carry));
    }

    fn set_members(&self, membership: Arc<Membership>) {
        *self.members.lock().expect("post") = Some(membership);
    }
}

/// A member over its lives.
pub struct Seat {
    pub home: Home,
    pub node: Option<Node>,
    own: Arc<Mutex<Option<Node>>>,
    /// Whom its letters were told of.
    pub members: Arc<Mutex<Option<Arc<Membership>>>>,
}

impl Seat {
    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("it is up")
    }

    pub fn id(&self) -> u64 {
        self.node().status().member_id.0
    }
}

/// Members and what lies between them.
pub struct Cluster {
    pub net: Arc<Net>,
    pub seats: Vec<Seat>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.seats.len() {
            self.stop(at);
        }
    }
}

pub fn founder(number: usize) -> (String, Vec<String>) {
    (format!("m{number}"), vec![format!("http://localhost:{}", 2000 + number)])
}

impl Cluster {
    /// `count` founders; none runs yet.
    pub fn new(count: usize) -> Self {
        let founders: BTreeMap<_, _> = (0..count).map(founder).collect();
        let mut cluster = Self { net: Arc::default(), seats: Vec::new() };
        for number in 0..count {
            let seat = cluster.add(number);
            seat.home.config.initial_cluster.clone_from(&founders);
        }
        cluster
    }

    /// One more place, not named in the initial cluster yet.
    pub fn add(&mut self, number: usize) -> &mut Seat {
        let mut home = Home::new();
        home.config.name = founder(number).0;
        home.config.client_urls = vec![format!("http://localhost:{}", 1000 + number)];
        home.config.seed = number as u64;
        self.seats.push(Seat { home, node: None, own: Arc::default(), members: Arc::default() });
        self.seats.last_mut().expect("just pushed")
    }

    pub fn start(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        seat.home.engine = seat.home.engine.that_counts();
        let (engine, store) = (Arc::clone(&seat.home.engine), seat.home.store.clone());
        let letters =
            Post { net: Arc::downgrade(&self.net), own: Arc::clone(&seat.own), members: Arc::clone(&seat.members) };
        let world = World {
            disk: Arc::new(seat.home.disk.clone()),
            clock: Arc::new(OsClock),
            letters: Arc::new(letters),
            open_store: Box::new(move |_| Store::begin(engine, store)),
        };
        let node = Node::start(&seat.home.config, world).expect("it starts");
        *seat.own.lock().expect("post") = Some(node.clone());
        self.net.state.lock().expect("net").nodes.insert(node.status().member_id.0, node.clone());
        seat.node = Some(node);
    }

    pub fn start_all(&mut self) {
        (0..self.seats.len()).for_each(|at| self.start(at));
        for seat in &self.seats {
            assert!(seat.node().wait_ready(PATIENCE), "{:?}: {:#?}", seat.node().stopped(), seat.home.lines.all());
        }
    }

    pub fn stop(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        if let Some(node) = seat.node.take() {
            self.net.hang_up(node.status().member_id.0);
            *seat.own.lock().expect("post") = None;
            node.stop();
        }
    }

    /// The power of one member goes, with what it had not synced.
    pub fn crash(&mut self, at: usize, seed: u64) {
        let seat = &mut self.seats[at];
        seat.home.disk.crash(seed);
        seat.home.engine = Arc::new(seat.home.engine.crash(seed.is_multiple_of(2)));
        self.stop(at);
    }

    /// The seat that leads the others that are up, once all of those agree on it.
    pub fn leader(&self) -> usize {
        self.net.wait(|| {
            let up: Vec<_> = self.seats.iter().filter_map(|seat| Some(seat.node.as_ref()?.status())).collect();
            let leader = up.iter().find(|status| status.role == Role::Leader)?;
            let agreed = up.iter().all(|status| (status.leader, status.term) == (leader.member_id, leader.term));
            let at = |seat: &Seat| seat.node.as_ref().is_some_and(|node| node.status().member_id == leader.member_id);
            agreed.then(|| self.seats.iter().position(at).expect("it is one of them"))
        })
    }
}
