//! What a put costs behind the doors: a lone member over real files, callers that wait for their answer.
//!
//! `cargo run --release -p milepost-node --example put_cost -- <directory> [outstanding] [puts]`
//!
//! Prints throughput, latency, processor time per put, and how well syncs were shared.

use bytes::Bytes;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_env::{Clock, OsClock, OsDisk};
use milepost_mvcc::{Store, StoreOptions};
use milepost_node::log::NoLog;
use milepost_node::{Completion, CompletionSink, NoLetters, Node, NodeConfig, Waiter, World};
use milepost_proto::Message as _;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

struct Answers(Mutex<Sender<usize>>);

impl CompletionSink for Answers {
    fn complete(&self, batch: &mut Vec<(u64, Completion)>) {
        let failed = batch.iter().find(|(_, answer)| !matches!(answer, Completion::Reply(Ok(_))));
        assert!(failed.is_none(), "{failed:?}");
        self.0.lock().expect("answers").send(batch.len()).expect("somebody counts");
        batch.clear();
    }
}

fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or(vec![], |(_, rest)| rest.split(' ').collect());
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().expect("a directory"));
    let outstanding: usize = args.next().map_or(1000, |text| text.parse().expect("a number"));
    let puts: usize = args.next().map_or(200_000, |text| text.parse().expect("a number"));
    let world = World {
        disk: Arc::new(OsDisk),
        clock: Arc::new(OsClock),
        letters: Arc::new(NoLetters),
        open_store: Box::new(|path| {
            let engine = LmdbEngine::open(path, LmdbOptions::default())?;
            Store::begin(Arc::new(engine), StoreOptions::default())
        }),
    };
    let begin = OsClock.monotonic();
    let node = Node::start(&NodeConfig::new("default", dir, Arc::new(NoLog)), world).expect("it starts");
    assert!(node.wait_ready(Duration::from_secs(10)), "{:?}", node.stopped());
    println!("ready after {:?}", OsClock.monotonic() - begin);
    run(&node, outstanding, puts);
    node.stop();
}

fn run(node: &Node, outstanding: usize, puts: usize) {
    let (sender, answers) = channel();
    let sink: Arc<dyn CompletionSink> = Arc::new(Answers(Mutex::new(sender)));
    let value = Bytes::from(vec![b'v'; 256]);
    let (begin, cpu) = (OsClock.monotonic(), cpu_time());
    let (mut sent, mut answered) = (0, 0);
    while answered < puts {
        while sent < puts && sent - answered < outstanding {
            let id = node.next_request_id();
            let key = Bytes::from(format!("{:08x}", sent as u32));
            let put = PutRequest { key, value: value.clone(), ..PutRequest::default() };
            let header = Some(RequestHeader { id, ..RequestHeader::default() });
            let request = InternalRaftRequest { header, id: 0, request: Some(Request::Put(put)) };
            node.propose(id, Bytes::from(request.encode_to_vec()), Waiter { sink: Arc::clone(&sink), ticket: 0 });
            sent += 1;
        }
        answered += answers.recv().expect("an answer");
    }
    let (took, cpu) = (OsClock.monotonic() - begin, cpu_time() - cpu);
    let batches = node.metrics().log_batches.load(Ordering::Relaxed);
    println!(
        "{outstanding} outstanding: {:.0} puts/s, {:?} each waited, {:?} cpu per put, {:.1} puts per sync",
        puts as f64 / took.as_secs_f64(),
        took * outstanding as u32 / puts as u32,
        cpu / puts as u32,
        puts as f64 / batches as f64,
    );
}
