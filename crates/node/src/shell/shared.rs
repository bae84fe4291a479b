//! What the threads of one node share.

use super::apply_loop::ApplyJob;
use super::defragmenter::Defragmenter;
use super::installer::Installer;
use super::keeper::KeeperJob;
use super::log_loop::LogJob;
use super::queue::Queue;
use super::raft_loop::Command;
use super::reads::AppliedReads;
use super::sender::Holds;
use crate::log::{Level, Log, Value};
use crate::metrics::NodeMetrics;
use crate::request_id::RequestIds;
use crate::waiter::Waiters;
use milepost_env::{Clock, Disk};
use milepost_machine::{Lessor, Reader};
use milepost_mvcc::watch::Hub;
use milepost_mvcc::{SpaceState, Store};
use milepost_proto::raftpb;
use milepost_types::{ClusterId, MemberId};
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

/// Why a node no longer runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked for it.
    Asked,
    /// The cluster has removed this member for good.
    Removed,
    /// Something is broken that going on would make worse. The text names it and the remedy.
    Broken(String),
}

/// The membership as it was after an entry: what a snapshot at that entry, or before the next change, says.
#[derive(Clone, Debug)]
pub(crate) struct MembershipAt {
    pub index: u64,
    pub conf_state: raftpb::ConfState,
    /// etcd's v2 JSON of members and cluster version.
    pub v2_json: Vec<u8>,
}

/// Where Raft stands, for everybody. Each number is exact; two of them may be from different moments.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    pub term: AtomicU64,
    /// 0: unknown.
    pub leader: AtomicU64,
    pub committed: AtomicU64,
    /// Everything up to here is visible to reads. Only who has the turn to apply moves it.
    pub applied: AtomicU64,
    /// [`crate::core::Role`] as a number.
    pub role: AtomicU64,
    /// Last entry of the log in memory.
    pub last: AtomicU64,
    /// Nobody but this member can commit or answer anything, and it has applied what its former lives committed: then
    /// every answered write is visible here. Cleared before a second member can hear of anything.
    pub alone: AtomicBool,
}

/// Told of every change of leader or term.
pub type LeaderWatcher = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// See the module.
pub(crate) struct Shared {
    pub member: MemberId,
    pub cluster: ClusterId,
    pub name: String,
    pub client_urls: Vec<String>,
    pub request_timeout: Duration,
    pub election_timeout: Duration,
    pub clock: Arc<dyn Clock>,
    pub log: Arc<dyn Log>,
    pub metrics: NodeMetrics,
    pub request_ids: RequestIds,
    pub to_raft: Queue<Command>,
    pub to_log: Queue<LogJob>,
    pub to_apply: Queue<ApplyJob>,
    pub to_keeper: Queue<KeeperJob>,
    pub waiters: Waiters,
    pub reads: AppliedReads,
    pub positions: Positions,
    pub reader: Reader,
    pub lessor: Arc<Lessor>,
    pub hub: Hub,
    /// No space could be reserved for the next segment of the log.
    pub log_full: AtomicBool,
    pub defragmenter: Defragmenter,
    pub disk: Arc<dyn Disk>,
    /// `.snap` files, and snapshots on their way in.
    pub snap_dir: PathBuf,
    pub installer: Installer,
    /// What the log keeps for followers that are sent snapshots.
    pub holds: Holds,
    /// Ascending by index; entries older than the newest snapshot point are forgotten.
    pub membership: Mutex<Vec<MembershipAt>>,
    /// A snapshot point waits for the apply thread to note what the store has already.
    pub point_waits: AtomicBool,
    /// Since when the Raft thread has been in a turn of another thread's, in nanoseconds; 0: it is in its own.
    pub turn_since: AtomicU64,
    /// The Raft thread waits for this entry to be applied; `u64::MAX`: for none.
    pub applied_wanted: AtomicU64,
    pub leader_watchers: Mutex<Vec<LeaderWatcher>>,
    life: Mutex<Life>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Life {
    ready: bool,
    stopped: Option<StopReason>,
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "each is a different thing, and there is one caller")]
    pub fn new(
        (member, cluster): (MemberId, ClusterId),
        config: &crate::NodeConfig,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
        reader: Reader,
        lessor: Arc<Lessor>,
        hub: Hub,
        membership: MembershipAt,
    ) -> Self {
        let metrics = NodeMetrics::default();
        metrics.is_learner.store(membership.conf_state.learners.contains(&member.0), Ordering::Relaxed);
        Self {
            member,
            cluster,
            name: config.name.clone(),
            client_urls: config.client_urls.clone(),
            request_timeout: config.request_timeout(),
            election_timeout: config.election_timeout(),
            request_ids: RequestIds::new(member, clock.unix()),
            clock,
            log: Arc::clone(&config.log),
            metrics,
            to_raft: Queue::default(),
            to_log: Queue::default(),
            to_apply: Queue::default(),
            to_keeper: Queue::default(),
            waiters: Waiters::default(),
            reads: AppliedReads::default(),
            positions: Positions::default(),
            reader,
            lessor,
            hub,
            defragmenter: Defragmenter::default(),
            disk,
            snap_dir: config.snap_path(),
            installer: Installer::default(),
            holds: Holds::default(),
            log_full: AtomicBool::new(false),
            membership: Mutex::new(vec![membership]),
            point_waits: AtomicBool::new(false),
            turn_since: AtomicU64::new(0),
            applied_wanted: AtomicU64::new(u64::MAX),
            leader_watchers: Mutex::default(),
            life: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The store that counts: another one after a received snapshot.
    pub fn store(&self) -> Store {
        self.reader.store()
    }

    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub fn applied(&self) -> u64 {
        self.positions.applied.load(Ordering::Acquire)
    }

    /// Is the entry at `index` applied? If not, the Raft thread is told when it is.
    pub fn is_applied_or_tell(&self, index: u64) -> bool {
        if self.applied() >= index {
            return true;
        }
        self.applied_wanted.store(index, Ordering::SeqCst);
        // Pairs with the fence of the apply thread, which stores its position and then looks at this wish.
        fence(Ordering::SeqCst);
        self.applied() >= index
    }

    /// Is somebody to be told that so much is applied? Once.
    pub fn is_applied_wanted(&self) -> bool {
        let wanted = self.applied_wanted.load(Ordering::Relaxed);
        wanted <= self.applied() && self.applied_wanted.swap(u64::MAX, Ordering::Relaxed) != u64::MAX
    }

    /// Is the reserve of log or store used up? What is committed still fits; nothing more should be put.
    pub fn is_low_on_space(&self) -> bool {
        self.log_full.load(Ordering::Relaxed) || self.store().space() == SpaceState::Low
    }

    /// Ends every thread. The first reason counts.
    pub fn stop(&self, reason: StopReason) {
        let mut life = self.life.lock();
        if life.stopped.is_some() {
            return;
        }
        if let StopReason::Broken(why) = &reason {
            self.log.log(Level::Error, None, "member stops", &[("error", Value::from(why.as_str()))]);
        }
        life.stopped = Some(reason);
        self.positions.alone.store(false, Ordering::SeqCst);
        drop(life);
        self.changed.notify_all();
        self.to_raft.close();
        self.to_log.close();
        self.to_apply.close();
        self.to_keeper.close();
    }

    pub fn broken(&self, why: impl std::fmt::Display) {
        self.stop(StopReason::Broken(why.to_string()));
    }

    pub fn stopped(&self) -> Option<StopReason> {
        self.life.lock().stopped.clone()
    }

    /// The member is known to the cluster and has applied what was committed when it started.
    pub fn set_ready(&self) {
        self.life.lock().ready = true;
        self.changed.notify_all();
    }

    /// Waits until [`Shared::set_ready`] or a stop; whether it is ready now.
    pub fn wait_ready(&self, timeout: Duration) -> bool {
        let mut life = self.life.lock();
        let idle = |life: &mut Life| !life.ready && life.stopped.is_none();
        self.changed.wait_while_for(&mut life, idle, timeout);
        life.ready && life.stopped.is_none()
    }

    /// Waits until the node stops.
    pub fn wait_stopped(&self) -> StopReason {
        let mut life = self.life.lock();
        loop {
            if let Some(reason) = &life.stopped {
                return reason.clone();
            }
            self.changed.wait(&mut life);
        }
    }
}
