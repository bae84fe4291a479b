//! What the tests start nodes with.

use bytes::Bytes;
use milepost_engine::mem::MemEngine;
use milepost_env::{Clock, Disk, OsClock, SimDisk};
use milepost_machine::{Error, Reply};
use milepost_mvcc::{Store, StoreOptions};
use milepost_node::log::{Level, Log, Value};
use milepost_node::{Completion, CompletionSink, NoLetters, Node, NodeConfig, StartError, Stepped, Waiter, World};
use milepost_proto::Message as _;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::etcdserverpb::{InternalRaftRequest, PutRequest, RangeRequest, RangeResponse, RequestHeader};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Long enough that only something broken needs it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps every line.
#[derive(Default)]
pub struct Lines(Mutex<Vec<(Level, String)>>);

impl Log for Lines {
    fn log_at(
        &self,
        level: Level,
        _logger: Option<&str>,
        _at: &'static std::panic::Location<'static>,
        msg: &str,
        fields: &[(&str, Value)],
    ) {
        self.0.lock().expect("lines").push((level, format!("{msg} {fields:?}")));
    }
}

impl Lines {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().expect("lines").iter().map(|(_, line)| line.clone()).collect()
    }

    pub fn has(&self, text: &str) -> bool {
        self.all().iter().any(|line| line.contains(text))
    }
}

/// A member's disk and store, over several lives of its node.
pub struct Home {
    pub disk: SimDisk,
    pub engine: Arc<MemEngine>,
    pub lines: Arc<Lines>,
    pub config: NodeConfig,
    pub store: StoreOptions,
}

impl Home {
    pub fn new() -> Self {
        let lines = Arc::new(Lines::default());
        let mut config = NodeConfig::new("default", PathBuf::from("/data"), Arc::clone(&lines) as Arc<dyn Log>);
        config.heartbeat = Duration::from_millis(10);
        Self {
            disk: SimDisk::new(1),
            engine: Arc::new(MemEngine::new()),
            lines,
            config,
            store: StoreOptions::default(),
        }
    }

    pub fn start(&self) -> Result<Node, StartError> {
        self.start_by(Arc::new(OsClock))
    }

    pub fn start_by(&self, clock: Arc<dyn Clock>) -> Result<Node, StartError> {
        self.start_on(Arc::new(self.disk.clone()), clock)
    }

    pub fn start_on(&self, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Result<Node, StartError> {
        Node::start(&self.config, self.world(disk, clock))
    }

    pub fn stepped(&self) -> Stepped {
        let world = self.world(Arc::new(self.disk.clone()), Arc::new(OsClock));
        Stepped::start(&self.config, world).expect("it starts")
    }

    fn world(&self, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> World {
        let (engine, store) = (Arc::clone(&self.engine), self.store.clone());
        let open_store = Box::new(move |_: &_| Store::begin(engine, store));
        World { disk, clock, letters: Arc::new(NoLetters), open_store }
    }

    pub fn ready(&self) -> Node {
        let node = self.start().expect("it starts");
        assert!(node.wait_ready(PATIENCE), "not ready; {:?}; {:#?}", node.stopped(), self.lines.all());
        node
    }
}

/// Answers into a channel.
pub struct Channel(Mutex<Sender<(u64, Completion)>>);

impl CompletionSink for Channel {
    fn complete(&self, batch: &mut Vec<(u64, Completion)>) {
        for answer in batch.drain(..) {
            // A test that has what it wants no longer listens.
            let _ = self.0.lock().expect("channel").send(answer);
        }
    }
}

pub fn answers() -> (Arc<Channel>, Receiver<(u64, Completion)>) {
    let (sender, receiver) = channel();
    (Arc::new(Channel(Mutex::new(sender))), receiver)
}

pub fn waiter(sink: &Arc<Channel>, ticket: u64) -> Waiter {
    Waiter { sink: Arc::clone(sink) as Arc<dyn CompletionSink>, ticket }
}

pub fn encode(id: u64, request: Request) -> Bytes {
    let header = Some(RequestHeader { id, ..RequestHeader::default() });
    Bytes::from(InternalRaftRequest { header, id: 0, request: Some(request) }.encode_to_vec())
}

pub fn put(key: &str, value: &str) -> Request {
    Request::Put(PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..PutRequest::default()
    })
}

/// Proposes and waits.
pub fn ask(node: &Node, request: Request) -> Completion {
    let (sink, answers) = answers();
    let id = node.next_request_id();
    node.propose(id, encode(id, request), waiter(&sink, 1));
    answers.recv_timeout(PATIENCE).expect("an answer").1
}

pub fn reply(node: &Node, request: Request) -> Result<Reply, Error> {
    match ask(node, request) {
        Completion::Reply(reply) => reply,
        other => panic!("no reply but {other:?}"),
    }
}

/// A linearizable read of one key.
pub fn get(node: &Node, key: &str) -> RangeResponse {
    let (sink, answers) = answers();
    node.read_index(waiter(&sink, 1));
    let confirmed = answers.recv_timeout(PATIENCE).expect("an answer").1;
    assert!(matches!(confirmed, Completion::ReadReady), "{confirmed:?}");
    let request = RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..RangeRequest::default() };
    node.reader().range(&request).expect("a range")
}
