//! One machine of the cluster: its disk, its store, its clock, and the process that runs on it or does not.

use crate::clock::{MemberClock, World as Time};
use crate::network::Outbox;
use milepost_engine::mem::MemEngine;
use milepost_env::{Clock, SimDisk};
use milepost_machine::Reader;
use milepost_mvcc::{Store, StoreOptions};
use milepost_node::log::{Level, Log, Value};
use milepost_node::{Completion, CompletionSink, NodeConfig, StartError, Stepped, World};
use milepost_proto::raftpb;
use milepost_types::LogIndex;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The four threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thread {
    /// The one that owns the core.
    Raft,
    /// The one that syncs.
    Log,
    /// The one that applies.
    Apply,
    /// The one that makes snapshot points.
    Keeper,
}

/// Answers on their way back to clients.
#[derive(Default)]
pub struct Answers(Mutex<Vec<(u64, Completion)>>);

impl Answers {
    /// Takes everything out.
    pub fn take(&self) -> Vec<(u64, Completion)> {
        std::mem::take(&mut self.0.lock())
    }
}

impl CompletionSink for Answers {
    fn complete(&self, batch: &mut Vec<(u64, Completion)>) {
        self.0.lock().append(batch);
    }
}

/// What the member's log says: kept while somebody looks.
#[derive(Default)]
pub struct Lines {
    on: bool,
    lines: Mutex<Vec<String>>,
    /// Lines about torn tails.
    torn: Mutex<u64>,
}

impl Lines {
    /// Takes everything out.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock())
    }

    /// How many torn tails were repaired since the last look.
    pub fn take_torn(&self) -> u64 {
        std::mem::take(&mut self.torn.lock())
    }
}

impl Log for Lines {
    fn log_at(
        &self,
        level: Level,
        _logger: Option<&str>,
        _caller: &'static std::panic::Location<'static>,
        msg: &str,
        fields: &[(&str, Value)],
    ) {
        if msg.starts_with("cut a torn tail") {
            *self.torn.lock() += 1;
        }
        if self.on {
            self.lines.lock().push(format!("{level:?} {msg} {fields:?}"));
        }
    }
}

/// See the module.
pub struct Member {
    /// Its id.
    pub id: u64,
    /// For people.
    pub name: String,
    /// What its process is told.
    pub config: NodeConfig,
    /// Its files.
    pub disk: SimDisk,
    /// Its store.
    pub engine: Arc<MemEngine>,
    /// Its clock of this life.
    pub clock: Arc<MemberClock>,
    /// Its letters.
    pub outbox: Arc<Outbox>,
    /// Its answers.
    pub answers: Arc<Answers>,
    /// Its log.
    pub lines: Arc<Lines>,
    /// The process, while it runs.
    pub live: Option<Stepped>,
    /// Counts the processes.
    pub life: u64,
    /// Turns that are planned.
    pub planned: BTreeMap<Thread, u64>,
    /// Handed out to be applied, and taken from the queue.
    pub pending: VecDeque<raftpb::Entry>,
    /// The newest snapshot that was offered to this process.
    pub received: u64,
    /// It does nothing before this time.
    pub paused_until: u64,
    /// A sync takes up to so long, in microseconds.
    pub sync_time: u64,
    /// A fault was planned for its disk: it may stop.
    pub excused: bool,
    /// It stopped itself for good.
    pub gone: bool,
    /// Term and vote as last seen on the way to the disk.
    pub written: (u64, u64),
    /// Number of the last write that was looked at.
    pub noted: u64,
    /// Syncs so far, over all lives.
    pub syncs: u64,
    /// Of this life: snapshot point, repeated reads, fetches.
    pub progress: [u64; 3],
}

impl Member {
    /// A machine that was never switched on.
    pub fn new(id: u64, name: String, mut config: NodeConfig, seed: u64, time: &Arc<Time>, traced: bool) -> Self {
        let lines = Arc::new(Lines { on: traced, ..Lines::default() });
        config.log = Arc::clone(&lines) as Arc<dyn Log>;
        Self {
            id,
            name,
            config,
            disk: SimDisk::new(seed),
            engine: Arc::new(MemEngine::new()),
            clock: Arc::new(MemberClock::new(Arc::clone(time), 100)),
            outbox: Arc::default(),
            answers: Arc::default(),
            lines,
            live: None,
            life: 0,
            planned: BTreeMap::new(),
            pending: VecDeque::new(),
            received: 0,
            paused_until: 0,
            sync_time: 1_000,
            excused: false,
            gone: false,
            written: (0, 0),
            noted: 0,
            syncs: 0,
            progress: [0; 3],
        }
    }

    /// Starts a process on what is there: the real recovery.
    ///
    /// # Errors
    /// Its refusal.
    pub fn start(&mut self, time: &Arc<Time>, clock_percent: u64) -> Result<(), StartError> {
        self.life += 1;
        self.planned.clear();
        self.pending.clear();
        self.noted = 0;
        self.paused_until = 0;
        self.clock = Arc::new(MemberClock::new(Arc::clone(time), clock_percent));
        self.outbox = Arc::default();
        self.answers = Arc::default();
        self.received = 0;
        // What a process has committed outlives it; a received snapshot may have taken its place.
        self.engine = Arc::new(self.engine.crash(true));
        let (engine, options) = (Arc::clone(&self.engine), store_options());
        let world = World {
            disk: Arc::new(self.disk.clone()),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            letters: Arc::clone(&self.outbox) as _,
            open_store: Box::new(move |_| Store::begin(engine, options)),
        };
        let live = Stepped::start(&self.config, world)?;
        let standing = live.core().standing();
        self.written = (standing.term, standing.vote);
        self.progress = [live.snapshot_point(), 0, 0];
        self.live = Some(live);
        Ok(())
    }

    /// Local reads, while it runs.
    pub fn reader(&self) -> Option<Reader> {
        self.live.as_ref().map(|live| live.machine().reader())
    }

    /// Does it wait for its turn?
    pub fn is_paused(&self, now: u64) -> bool {
        now < self.paused_until
    }
}

fn store_options() -> StoreOptions {
    StoreOptions {
        gen_changes: 40,
        gen_age: Duration::from_millis(100),
        compaction_batch: 16,
        background: false,
        behind_bytes: 2000,
        behind_values_bytes: 500,
        behind_records_most: 60,
        ..StoreOptions::default()
    }
}

/// Position of the last entry that the store of a machine has for sure.
pub fn durable(reader: &Reader) -> LogIndex {
    reader.store().durable().index
}
