//! One received snapshot, and a power cut or a failing disk at every step of it.
//!
//! Steps, each of which some run here ends in: the spool file half written, written, renamed; the store beside half filled,
//! filled, synced; `.snap`, the log's mark, its hard state; the flip; the old file's removal.

use crate::world::{Home, PATIENCE};
use milepost_engine::mem::MemEngine;
use milepost_engine::{Engine, EngineError, EngineSizes, ReadTxn, Room, Table, WriteTxn};
use milepost_env::{Disk, OsClock};
use milepost_machine::member::Bootstrap;
use milepost_machine::{Config, Database, Entry, EntryKind, Machine};
use milepost_mvcc::{Store, StoreOptions};
use milepost_node::{InstallError, NoLetters, Node, StartError, World};
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::etcdserverpb::{LeaseGrantRequest, PutRequest};
use milepost_proto::raftpb::{Message, Snapshot, SnapshotMetadata};
use milepost_types::Term;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const TERM: u64 = 4;
const PUTS: u64 = 60;

fn founders() -> BTreeMap<String, Vec<String>> {
    ["default", "other", "third"].map(|name| (name.to_owned(), vec![format!("http://{name}:1")])).into()
}

/// A leader's snapshot: the founders' entries, then `puts` keys and a lease.
fn snapshot(puts: u64) -> (Message, Vec<u8>) {
    let bootstrap = Bootstrap::new(&founders(), "etcd-cluster").expect("founders");
    let (store, writer, opened) = Store::open(Arc::new(MemEngine::new()), StoreOptions::default()).expect("open");
    let mut machine = Machine::open(store.clone(), writer, &opened, Config::default()).expect("machine");
    let mut apply = |term, kind, data: bytes::Bytes| {
        let index = machine.applied().0.next();
        machine.apply(Entry { index, term: Term(term), kind, data: &data }, false).expect("applied");
    };
    for entry in &bootstrap.entries {
        apply(1, EntryKind::ConfChange, entry.data.clone().expect("a change"));
    }
    let mut request = |request: Request| apply(TERM, EntryKind::Normal, crate::world::encode(9, request));
    request(Request::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 1000 }));
    for number in 0..puts {
        let lease = if number == 0 { 7 } else { 0 };
        let (key, value) = (format!("k{number}").into(), vec![b'v'; 5000].into());
        request(Request::Put(PutRequest { key, value, lease, ..PutRequest::default() }));
    }
    let database = Database::prepare(&store).expect("database");
    let metadata = SnapshotMetadata {
        conf_state: Some(database.conf_state().expect("conf state")),
        index: Some(database.applied().0),
        term: Some(database.term().0),
    };
    let id = |name: &str| bootstrap.members.iter().find(|member| member.name == name).expect("a founder").id.0;
    let message = Message {
        r#type: Some(7),
        from: Some(id("other")),
        to: Some(id("default")),
        term: Some(TERM),
        snapshot: Some(Snapshot { data: None, metadata: Some(metadata) }),
        ..Message::default()
    };
    (message, database.write(Vec::new()).expect("written"))
}

/// An engine that fails at its n-th step, counted over it and its successors, and ever after.
struct Frail {
    inner: Arc<dyn Engine>,
    /// Steps left.
    left: Arc<AtomicU64>,
}

impl Frail {
    fn step(&self, what: &'static str) -> Result<(), EngineError> {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.map(drop).map_err(|_| EngineError::Injected(what))
    }
}

struct FrailWrite<'e> {
    inner: Box<dyn WriteTxn + 'e>,
    engine: &'e Frail,
}

impl WriteTxn for FrailWrite<'_> {
    fn get(&self, table: milepost_engine::Table, key: &[u8]) -> Result<Option<&[u8]>, EngineError> {
        self.inner.get(table, key)
    }

    fn put(&mut self, table: milepost_engine::Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.inner.put(table, key, value)
    }

    fn append(&mut self, table: milepost_engine::Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.inner.append(table, key, value)
    }

    fn delete(&mut self, table: milepost_engine::Table, key: &[u8]) -> Result<bool, EngineError> {
        self.inner.delete(table, key)
    }

    fn pages_met(&self) -> usize {
        self.inner.pages_met()
    }

    fn commit(self: Box<Self>) -> Result<(), EngineError> {
        self.engine.step("commit")?;
        self.inner.commit()
    }
}

impl Engine for Frail {
    fn read(&self) -> Result<Box<dyn ReadTxn + '_>, EngineError> {
        self.inner.read()
    }

    fn write(&self) -> Result<Box<dyn WriteTxn + '_>, EngineError> {
        Ok(Box::new(FrailWrite { inner: self.inner.write()?, engine: self }))
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.step("sync")?;
        self.inner.sync()
    }

    fn sizes(&self) -> Result<EngineSizes, EngineError> {
        self.inner.sizes()
    }

    fn leaves(&self, table: Table) -> Result<u64, EngineError> {
        self.inner.leaves(table)
    }

    fn open_reads(&self) -> u64 {
        self.inner.open_reads()
    }

    fn reserve(&self, bytes: u64) -> Room {
        self.inner.reserve(bytes)
    }

    fn condemn(&self, why: &str) {
        self.inner.condemn(why);
    }

    fn successor(&self, bytes: u64) -> Result<Arc<dyn Engine>, EngineError> {
        self.step("successor")?;
        Ok(Arc::new(Self { inner: self.inner.successor(bytes)?, left: Arc::clone(&self.left) }))
    }

    fn give_way(&self) -> Result<(), EngineError> {
        self.step("give way")?;
        self.inner.give_way()
    }

    fn retire(&self) {
        self.inner.retire();
    }
}

struct Follower {
    home: Home,
    left: Arc<AtomicU64>,
}

impl Follower {
    fn new() -> Self {
        let mut home = Home::new();
        home.config.initial_cluster = founders();
        // Nobody is there to elect it; it only waits for letters.
        home.config.election_ticks = 1_000_000;
        home.store.background = false;
        Self { home, left: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    fn start(&self) -> Result<Node, StartError> {
        let (engine, left) = (Arc::clone(&self.home.engine), Arc::clone(&self.left));
        let store = self.home.store.clone();
        let world = World {
            disk: Arc::new(self.home.disk.clone()),
            clock: Arc::new(OsClock),
            letters: Arc::new(NoLetters),
            open_store: Box::new(move |_| Store::begin(Arc::new(Frail { inner: engine, left }), store)),
        };
        Node::start(&self.home.config, world)
    }

    /// The power is gone, with all that was not synced.
    fn crash(&mut self, seed: u64) {
        self.home.disk.crash(seed);
        self.home.engine = Arc::new(self.home.engine.crash(seed.is_multiple_of(2)));
        self.left.store(u64::MAX, Ordering::Relaxed);
    }
}

/// Waits until the node works with the snapshot, or has stopped.
fn applied(node: &Node, index: u64) -> bool {
    let begin = std::time::Instant::now();
    while node.status().applied < index && node.stopped().is_none() {
        assert!(begin.elapsed() < PATIENCE, "{:?}", node.status());
        std::thread::yield_now();
    }
    node.status().applied >= index
}

/// All of the snapshot is there, or nothing of it.
fn check(node: &Node, puts: u64) -> bool {
    assert!(applied(node, 3), "the founders' entries: {:?}", node.stopped());
    let reader = node.reader();
    assert_eq!(reader.members().len(), 3);
    let revision = reader.revision();
    assert!(revision == 1 || revision == 1 + puts as i64, "{revision}");
    let leases = reader.leases().leases.len();
    assert_eq!(leases, usize::from(revision > 1));
    if revision > 1 {
        let request = milepost_proto::etcdserverpb::RangeRequest { key: "k0".into(), ..Default::default() };
        assert_eq!(reader.range(&request).expect("a range").kvs[0].lease, 7);
    }
    assert_eq!(node.status().applied, if revision > 1 { 4 + puts } else { 3 });
    revision > 1
}

fn spool_files(home: &Home) -> Vec<String> {
    let names = home.disk.list(Path::new("/data/member/snap")).expect("list");
    names.into_iter().filter(|name| name.ends_with(".snap.db")).collect()
}

/// Installs over a failing world, crashes, starts again, and installs once more over a sound one. What came of the first
/// try, as the second start found it.
fn trial(follower: &mut Follower, message: &Message, bytes: &[u8], seed: u64) -> &'static str {
    let index = 4 + PUTS;
    let mut lived = false;
    if let Ok(node) = follower.start() {
        let told = node.install_snapshot(message.clone(), &mut &*bytes);
        lived = told.is_ok() && applied(&node, index);
        if lived {
            assert!(check(&node, PUTS));
        }
        follower.crash(seed);
        node.stop();
    } else {
        follower.crash(seed);
    }
    let node = follower.start().expect("whatever happened, it starts");
    let there = check(&node, PUTS);
    let pending = follower.home.lines.has("finishing the installation of a received snapshot");
    assert!(there || !lived, "the snapshot was visible and is gone");
    assert_eq!(spool_files(&follower.home), [""; 0], "a start leaves nothing behind");
    node.install_snapshot(message.clone(), &mut &*bytes).expect("again");
    assert!(applied(&node, index) && check(&node, PUTS));
    node.stop();
    match (there, pending) {
        (false, _) => "nothing of it",
        (true, true) => "finished at the start",
        (true, false) => "all of it",
    }
}

#[test]
fn a_power_cut_at_any_step_leaves_all_or_nothing() {
    let (message, bytes) = snapshot(PUTS);
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    // How many operations of the disk a whole run has.
    for cut in 1.. {
        let mut follower = Follower::new();
        // A life before, so that the cut falls into the snapshot's.
        follower.start().expect("it starts").stop();
        follower.home.disk.cut_power_after(cut);
        let end = trial(&mut follower, &message, &bytes, cut);
        *ends.entry(end).or_default() += 1;
        if ends.get("all of it").is_some_and(|runs| *runs > 12) {
            break;
        }
    }
    assert!(ends["nothing of it"] > 10, "{ends:?}");
}

#[test]
fn a_store_that_fails_at_any_step_leaves_all_or_nothing() {
    let (message, bytes) = snapshot(PUTS);
    let mut ends: BTreeSet<&str> = BTreeSet::new();
    for steps in 0.. {
        let mut follower = Follower::new();
        follower.start().expect("it starts").stop();
        follower.left.store(steps, Ordering::Relaxed);
        let end = trial(&mut follower, &message, &bytes, steps);
        ends.insert(end);
        if end == "all of it" && follower.left.load(Ordering::Relaxed) > 0 {
            break;
        }
    }
    let expected = ["nothing of it", "finished at the start", "all of it"];
    assert_eq!(ends, BTreeSet::from(expected));
}

/// Between the log's sync and the flip the file is all there is of the snapshot.
#[test]
fn a_pending_snapshot_without_its_file_is_refused() {
    let (message, bytes) = snapshot(PUTS);
    for damage in [false, true] {
        let mut follower = Follower::new();
        follower.start().expect("it starts").stop();
        // The steps of a whole run, but for the last ones: the flip fails.
        let node = follower.start().expect("it starts");
        follower.left.store(2, Ordering::Relaxed);
        let told = node.install_snapshot(message.clone(), &mut &*bytes);
        let mut steps = 2;
        let mut told = told;
        while told.is_err() {
            steps += 1;
            follower.left.store(steps, Ordering::Relaxed);
            told = node.install_snapshot(message.clone(), &mut &*bytes);
        }
        assert!(!applied(&node, 4 + PUTS), "the flip failed");
        node.stop();
        let old = Arc::new(follower.home.engine.crash(false));
        follower.home.engine = Arc::clone(&old);
        follower.left.store(u64::MAX, Ordering::Relaxed);
        let [name] = &spool_files(&follower.home)[..] else { panic!("one file") };
        let path = Path::new("/data/member/snap").join(name);
        if damage {
            let mut file = follower.home.disk.open(&path, milepost_env::Open::ReadWrite).expect("open");
            file.set_len(20_000).expect("cut");
        } else {
            follower.home.disk.remove_file(&path).expect("remove");
        }
        let refused = follower.start().err().map(|error| error.to_string()).expect("refused");
        let expected = if damage { "it was cut off" } else { "the store is an old copy" };
        assert!(refused.contains(expected) && refused.contains("64"), "{refused}");
    }
}

/// Gives its bytes, then asks the test before it says that there are no more.
struct Slow<'b, F: FnMut()> {
    bytes: &'b [u8],
    at_end: F,
}

impl<F: FnMut()> Read for Slow<'_, F> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.bytes.is_empty() {
            (self.at_end)();
        }
        self.bytes.read(into)
    }
}

#[test]
fn one_at_a_time_and_only_what_is_needed() {
    let follower = Follower::new();
    let node = follower.start().expect("it starts");
    let (message, bytes) = snapshot(PUTS);
    // Broken off.
    let half = &bytes[..bytes.len() / 2];
    let told = node.install_snapshot(message.clone(), &mut half.chain(Broken));
    assert!(matches!(told, Err(InstallError::Body { .. })), "{told:?}");
    // Cut off.
    let told = node.install_snapshot(message.clone(), &mut &*half);
    assert!(matches!(told, Err(InstallError::Import(_))), "{told:?}");
    // Of another entry.
    let mut other = message.clone();
    other.snapshot.as_mut().expect("a snapshot").metadata.as_mut().expect("metadata").index = Some(99);
    let told = node.install_snapshot(other, &mut &*bytes);
    assert!(matches!(told, Err(InstallError::Import(_))), "{told:?}");
    // For another member.
    let told = node.install_snapshot(Message { to: Some(77), ..message.clone() }, &mut &*bytes);
    assert!(matches!(told, Err(InstallError::Refused(_))), "{told:?}");
    assert!(!check(&node, PUTS) && spool_files(&follower.home).is_empty());
    let mut second = None;
    let at_end = || {
        second.get_or_insert_with(|| node.install_snapshot(message.clone(), &mut &*bytes));
    };
    node.install_snapshot(message.clone(), &mut Slow { bytes: &bytes, at_end }).expect("the first");
    assert!(matches!(second, Some(Err(InstallError::Busy))), "{second:?}");
    assert!(applied(&node, 4 + PUTS) && check(&node, PUTS));
    // A smaller one is not even read, and a smaller one that Raft does not want any more is thrown away.
    let (older, older_bytes) = snapshot(10);
    node.install_snapshot(older, &mut Broken).expect("nothing to do");
    drop(older_bytes);
    assert!(check(&node, PUTS));
    // The next one comes in as well.
    let (newer, bytes) = snapshot(PUTS + 5);
    node.install_snapshot(newer, &mut &*bytes).expect("the next");
    assert!(applied(&node, 9 + PUTS) && check(&node, PUTS + 5));
    // Of an old term: Raft does not listen.
    let (mut late, bytes) = snapshot(PUTS + 9);
    late.term = Some(TERM - 1);
    late.snapshot.as_mut().expect("a snapshot").metadata.as_mut().expect("metadata").term = Some(TERM - 1);
    assert!(node.install_snapshot(late, &mut &*bytes).is_err(), "the term is not the database's");
    assert!(check(&node, PUTS + 5));
    node.stop();
    drop(node);
    let node = follower_again(&follower);
    assert!(check(&node, PUTS + 5));
    node.stop();
}

fn follower_again(follower: &Follower) -> Node {
    let again = Follower {
        home: Home {
            disk: follower.home.disk.clone(),
            engine: follower.home.engine.that_counts(),
            lines: Arc::clone(&follower.home.lines),
            config: follower.home.config.clone(),
            store: follower.home.store.clone(),
        },
        left: Arc::clone(&follower.left),
    };
    again.start().expect("it starts")
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _into: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::ConnectionReset.into())
    }
}
