//! The real machine, store and hub behind a mailbox instead of a log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use milepost_api::{Backend, Completion, CompletionSink, DefragmentDone, NodeError, RaftStatus, Standing, Waiter};
use milepost_engine::mem::MemEngine;
use milepost_machine::{Config, Entry, EntryKind, Machine, Reader};
use milepost_mvcc::watch::{Hub, HubOptions};
use milepost_mvcc::{Store, StoreOptions};
use milepost_node::core::PeerProgress;
use milepost_node::metrics::NodeMetrics;
use milepost_proto::Message;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::etcdserverpb::{InternalRaftRequest, RequestHeader};
use milepost_proto::raftpb::ConfChange;
use milepost_types::{LogIndex, MemberId, Term};

/// What becomes of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Apply,
    Fail(NodeError),
    /// Nobody ever answers.
    Never,
}

/// Hears nothing.
struct Nobody;

impl CompletionSink for Nobody {
    fn complete(&self, batch: &mut Vec<(u64, Completion)>) {
        batch.clear();
    }
}

enum Mail {
    Propose(Bytes, EntryKind, Waiter),
    Read(Waiter),
    /// Whoever asks is told the moment it is reached.
    Settle(mpsc::Sender<()>),
    /// Nothing goes on before this ends.
    Hold(mpsc::Receiver<()>),
}

pub struct Member {
    mail: Mutex<mpsc::Sender<Mail>>,
    ids: AtomicU64,
    reader: Reader,
    hub: Hub,
    started: Instant,
    /// Milliseconds that the clock is ahead.
    ahead: AtomicU64,
    metrics: NodeMetrics,
    /// Where the member says that it stands.
    pub standing: Mutex<Standing>,
    /// What becomes of proposals and reads.
    pub answer: Arc<Mutex<Answer>>,
    /// Held, it keeps defragmentations waiting; why they fail, if they do.
    pub defragment_gate: Arc<Mutex<Option<String>>>,
    /// Reads that were asked for.
    pub reads: AtomicU64,
    /// What a leader knows of the others' logs: member, last index that matches.
    pub progress: Mutex<Vec<(u64, u64)>>,
    /// Does leadership go over when it is asked to?
    pub hands_over: AtomicBool,
}

impl Member {
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    pub fn with(config: Config) -> Self {
        let (store, writer, opened) =
            Store::open(Arc::new(MemEngine::new()), StoreOptions::default()).expect("an empty store opens");
        let config = Config { member_id: MemberId(8), ..config };
        let machine = Machine::open(store.clone(), writer, &opened, config).expect("an empty machine opens");
        let reader = machine.reader();
        machine.lessor().promote(Duration::ZERO, Duration::ZERO);
        let start = Instant::now();
        let hub = Hub::start(store, HubOptions::default(), move || start.elapsed());
        let (mail, box_) = mpsc::channel();
        let answer = Arc::new(Mutex::new(Answer::Apply));
        let (watchers, how) = (hub.clone(), Arc::clone(&answer));
        std::thread::spawn(move || work(machine, &watchers, &box_, &how));
        let standing =
            Standing { cluster_id: 7, member_id: 8, leader: 8, term: 2, committed: 30, applied: 30, is_learner: false };
        Self {
            mail: Mutex::new(mail),
            ids: AtomicU64::new(1),
            reader,
            hub,
            started: Instant::now(),
            ahead: AtomicU64::new(0),
            metrics: NodeMetrics::default(),
            standing: Mutex::new(standing),
            answer,
            defragment_gate: Arc::default(),
            reads: AtomicU64::new(0),
            progress: Mutex::default(),
            hands_over: AtomicBool::new(true),
        }
    }

    pub fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Changes where the member stands.
    pub fn stand(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.standing.lock().unwrap());
    }

    /// Lets the clock of leases jump.
    pub fn pass(&self, time: Duration) {
        self.ahead.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Waits until everything posted so far is answered.
    pub fn settle(&self) {
        let (done, is_done) = mpsc::channel();
        self.post(Mail::Settle(done));
        is_done.recv().expect("the member works");
    }

    /// Answers nothing that is posted from now on until the result is dropped.
    pub fn hold(&self) -> mpsc::Sender<()> {
        let (held, until) = mpsc::channel();
        self.post(Mail::Hold(until));
        held
    }

    /// Applies a change of membership now.
    pub fn apply_change(&self, change: &ConfChange) {
        self.apply(change.encode_to_vec().into(), EntryKind::ConfChange);
    }

    /// Applies a request now.
    pub fn apply_request(&self, request: Request) {
        let header = Some(RequestHeader::default());
        let entry = InternalRaftRequest { header, id: 0, request: Some(request) };
        self.apply(milepost_machine::encode(&entry).into(), EntryKind::Normal);
    }

    fn apply(&self, data: Bytes, kind: EntryKind) {
        let waiter = Waiter { sink: Arc::new(Nobody), ticket: 0 };
        self.post(Mail::Propose(data, kind, waiter));
        self.settle();
    }

    /// Does not keep the time of leases any more.
    pub fn demote(&self) {
        self.reader.lessor().demote();
    }

    /// The hash of the keyspace up to `revision`.
    pub fn reader_hash(&self, revision: i64) -> u32 {
        self.reader.hash_kv(revision).expect("the revision is there").hash
    }

    fn post(&self, mail: Mail) {
        self.mail.lock().unwrap().send(mail).expect("the member works");
    }
}

fn work(mut machine: Machine, hub: &Hub, mail: &mpsc::Receiver<Mail>, answer: &Mutex<Answer>) {
    let mut index = 0;
    for mail in mail {
        let answer = *answer.lock().unwrap();
        let (waiter, completion) = match (mail, answer) {
            (Mail::Settle(done), _) => {
                done.send(()).expect("somebody waits");
                continue;
            }
            (Mail::Hold(until), _) => {
                // The sender's end is what is waited for.
                let _ = until.recv();
                continue;
            }
            (_, Answer::Never) => continue,
            (Mail::Propose(_, _, waiter) | Mail::Read(waiter), Answer::Fail(why)) => (waiter, Completion::Failed(why)),
            (Mail::Read(waiter), Answer::Apply) => (waiter, Completion::ReadReady),
            (Mail::Propose(data, kind, waiter), Answer::Apply) => {
                index += 1;
                let entry = Entry { index: LogIndex(index), term: Term(2), kind, data: &data };
                let applied = machine.apply(entry, true).expect("requests apply");
                if let Some(events) = applied.events {
                    hub.publish(events);
                }
                (waiter, Completion::Reply(applied.reply.expect("a reply was wanted")))
            }
        };
        waiter.sink.complete(&mut vec![(waiter.ticket, completion)]);
    }
}

impl Backend for Member {
    fn next_request_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn propose(&self, _: u64, payload: Bytes, waiter: Waiter) {
        self.post(Mail::Propose(payload, EntryKind::Normal, waiter));
    }

    fn propose_conf_change(&self, _: u64, change: Bytes, waiter: Waiter) {
        self.post(Mail::Propose(change, EntryKind::ConfChange, waiter));
    }

    fn transfer_leader(&self, to: MemberId) {
        if self.hands_over.load(Ordering::Relaxed) {
            self.stand(|standing| standing.leader = to.0);
        }
    }

    fn read_index(&self, waiter: Waiter) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.post(Mail::Read(waiter));
    }

    fn standing(&self) -> Standing {
        *self.standing.lock().unwrap()
    }

    fn raft_status(&self, tell: Box<dyn FnOnce(RaftStatus) + Send>) {
        let standing = self.standing();
        let standing =
            milepost_node::core::Standing { term: standing.term, leader: standing.leader, ..Default::default() };
        let peer = |&(id, matched)| PeerProgress { id, matched, next: matched + 1, state: "StateReplicate" };
        tell(RaftStatus { standing, progress: self.progress.lock().unwrap().iter().map(peer).collect() });
    }

    fn reader(&self) -> &Reader {
        &self.reader
    }

    fn hub(&self) -> &Hub {
        &self.hub
    }

    fn now(&self) -> Duration {
        self.started.elapsed() + Duration::from_millis(self.ahead.load(Ordering::Relaxed))
    }

    fn defragment(&self, done: DefragmentDone) {
        let (store, gate) = (self.reader.store(), Arc::clone(&self.defragment_gate));
        std::thread::spawn(move || {
            let result = match &*gate.lock().unwrap() {
                Some(why) => Err(why.clone()),
                None => store.defragment().map_err(|error| error.to_string()),
            };
            done(result);
        });
    }

    fn metrics(&self) -> &NodeMetrics {
        &self.metrics
    }
}
