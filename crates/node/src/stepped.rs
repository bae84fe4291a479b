//! A node without threads: whoever holds it takes their turns, one at a time, in an order of their own.
//!
//! ```text
//!   Node::start:    Parts ──► four threads, each: wait for its queue, take a turn
//!   Stepped::start: Parts ──► raft(), log(), apply(), keeper(): the same turns, when the holder says so
//! ```
//! Everything that a turn does is the code of the threads (`shell`); what is missing is only their waiting. So a
//! simulation with a clock, disk and network of its own decides every interleaving, and one seed gives one run. Nothing
//! here blocks. Nothing in here changes what a node does: what is wrong with it shows in both.
//!
//! A crash is dropping it: nobody who waits is told anything.

use crate::config::NodeConfig;
use crate::core::{Core, Input, Persist};
use crate::install::{self, InstallError, Offered};
use crate::node::{Node, Pace, Parts, World};
use crate::recovery::StartError;
use crate::shell::apply_loop::ApplyJob;
use crate::shell::keeper::{BegunPoint, KeeperJob};
use crate::shell::log_loop::LogJob;
use crate::shell::raft_loop::Command;
use crate::shell::sender::Job;
use milepost_machine::Machine;
use milepost_proto::raftpb;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// What the apply thread would do next.
#[derive(Clone, Debug, PartialEq)]
pub enum ToApply {
    /// Committed and durable here; in order.
    Entries(Vec<raftpb::Entry>),
    /// The state is replaced by another member's.
    Snapshot(raftpb::Snapshot),
}

/// Whose turn would not be for nothing. A tick of the Raft thread is due by the clock, see [`Stepped::next_tick`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// The Raft thread.
    pub raft: bool,
    /// The log thread.
    pub log: bool,
    /// The apply thread.
    pub apply: bool,
    /// The keeper.
    pub keeper: bool,
}

/// See the module.
pub struct Stepped {
    node: Node,
    parts: Parts,
    /// Taken from the apply thread's queue.
    to_apply: VecDeque<ToApply>,
    /// The keeper waits for the log.
    begun: Option<BegunPoint>,
    /// A received snapshot waits for Raft.
    offered: Option<Offered>,
    /// Snapshots that others are to be sent.
    to_send: Arc<Mutex<VecDeque<Job>>>,
    fetches: u64,
}

impl Stepped {
    /// As [`Node::start`], up to the threads.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: &NodeConfig, world: World) -> Result<Self, StartError> {
        let mut parts = Parts::assemble(config, world, Pace::Steps)?;
        let to_send: Arc<Mutex<VecDeque<Job>>> = Arc::default();
        let queue = Arc::clone(&to_send);
        parts.raft.spawn = Box::new(move |job| {
            queue.lock().push_back(job);
            Ok(())
        });
        parts.raft.begin();
        let node = Node::of(parts.shared.clone());
        Ok(Self { node, parts, to_apply: VecDeque::new(), begun: None, offered: None, to_send, fetches: 0 })
    }

    /// The handle that doors and peers have.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The deciding half.
    #[must_use]
    pub fn core(&self) -> &Core {
        self.parts.raft.core()
    }

    /// The state machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        self.parts.apply.machine()
    }

    /// The newest snapshot point.
    #[must_use]
    pub fn snapshot_point(&self) -> u64 {
        self.parts.keeper.last_point
    }

    /// How often old entries were read from disk for followers.
    #[must_use]
    pub fn fetches(&self) -> u64 {
        self.fetches
    }

    /// When the Raft thread would wake up by itself, by the node's clock.
    #[must_use]
    pub fn next_tick(&self) -> Duration {
        self.parts.raft.next_tick()
    }

    /// Who has something to do.
    #[must_use]
    pub fn waits(&self) -> Waits {
        let shared = &self.parts.shared;
        Waits {
            raft: !shared.to_raft.is_empty(),
            log: !shared.to_log.is_empty(),
            apply: !self.to_apply.is_empty() || !shared.to_apply.is_empty(),
            keeper: self.begun.is_none() && !shared.to_keeper.is_empty(),
        }
    }

    /// What waits for the disk, in order.
    #[must_use]
    pub fn unwritten(&self) -> Vec<Persist> {
        let persists = |job: &LogJob| match job {
            LogJob::Persist(persist) => Some(persist.clone()),
            _ => None,
        };
        self.parts.shared.to_log.look(|jobs| jobs.iter().filter_map(persists).collect())
    }

    /// A turn of the Raft thread: all that has come, and a tick if one is due.
    pub fn raft(&mut self) {
        if self.parts.shared.to_raft.wait(Some(Duration::ZERO)) {
            self.parts.raft.next_round();
        }
        if let Some(offered) = self.offered.take()
            && let Err(offered) = install::try_settle(&self.parts.shared, offered)
        {
            self.offered = Some(offered);
        }
    }

    /// As [`Node::install_snapshot`], up to telling Raft; its next turn settles the rest.
    ///
    /// # Errors
    /// As there.
    pub fn offer_snapshot(&mut self, message: raftpb::Message, body: &mut dyn Read) -> Result<(), InstallError> {
        if let Some(offered) = install::offer(&self.parts.shared, message, body)? {
            self.offered = Some(offered);
        }
        Ok(())
    }

    /// Makes the next snapshot that another member is to be sent, and hands it to the letters; false: there is none.
    pub fn send_snapshot(&mut self) -> bool {
        let job = self.to_send.lock().pop_front();
        job.map(|job| job()).is_some()
    }

    /// Tells the core something, as the other threads do; it hears of it in the next turn of the Raft thread.
    pub fn tell(&self, input: Input) {
        // A closed queue: the node stops.
        let _ = self.parts.shared.to_raft.push(Command::Input(input));
    }

    /// A turn of the log thread: all that has queued is written and synced; then the keeper hears of a mark in it.
    pub fn log(&mut self) {
        let mut jobs = Vec::new();
        self.parts.shared.to_log.take(&mut jobs, Some(Duration::ZERO));
        let marks = jobs.iter().any(|job| matches!(job, LogJob::SnapshotPoint { .. }));
        self.fetches += jobs.iter().filter(|job| matches!(job, LogJob::Fetch { .. })).count() as u64;
        let goes_on = self.parts.log.turn(&mut jobs);
        drop(jobs);
        if (marks || !goes_on)
            && let Some(begun) = self.begun.take()
            && let Err(why) = self.parts.keeper.end_point(&begun, begun.wait())
        {
            self.parts.shared.broken(why);
        }
    }

    /// Takes what the apply thread would do next; it is then the holder's to hand to [`Stepped::apply`], whole or in
    /// pieces, in order.
    pub fn next_to_apply(&mut self) -> Option<ToApply> {
        let mut jobs = Vec::new();
        self.parts.shared.to_apply.take(&mut jobs, Some(Duration::ZERO));
        self.to_apply.extend(jobs.into_iter().map(|job| match job {
            ApplyJob::Entries(entries) => ToApply::Entries(entries),
            ApplyJob::Snapshot(snapshot) => ToApply::Snapshot(snapshot),
        }));
        self.to_apply.pop_front()
    }

    /// A turn of the apply thread. False if the member stops.
    pub fn apply(&mut self, what: ToApply) -> bool {
        self.parts.apply.turn(match what {
            ToApply::Entries(entries) => ApplyJob::Entries(entries),
            ToApply::Snapshot(snapshot) => ApplyJob::Snapshot(snapshot),
        })
    }

    /// A turn of the keeper: a snapshot point is begun; it ends with the turn of the log thread that writes its mark.
    pub fn keeper(&mut self) {
        if self.begun.is_some() {
            return;
        }
        let mut jobs: Vec<KeeperJob> = Vec::new();
        self.parts.shared.to_keeper.take(&mut jobs, Some(Duration::ZERO));
        if !self.parts.keeper.settle(&mut jobs) {
            return;
        }
        match self.parts.keeper.begin_point() {
            Ok(begun) => self.begun = begun,
            Err(why) => self.parts.shared.broken(why),
        }
    }

    /// An orderly end: who waits is told.
    pub fn stop(mut self) {
        self.node.stop();
        self.parts.raft.fail_everybody();
    }
}
