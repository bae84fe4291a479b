//! The node as its callers see it: a handle.

use crate::config::NodeConfig;
use crate::core::{Core, CoreConfig, Input, RaftStatus, Role};
use crate::install::{self, InstallError};
use crate::letters::Letters;
use crate::log::Value;
use crate::metrics::NodeMetrics;
use crate::recovery::{self, Recovery, StartError, guard};
use crate::shell::apply_loop::{ApplyLoop, SnapshotRule};
use crate::shell::defragmenter::{self, DefragmentDone};
use crate::shell::duties::Duties;
use crate::shell::keeper::Keeper;
use crate::shell::log_loop::LogLoop;
use crate::shell::raft_loop::{Command, MESSAGE_SNAPSHOT, RaftLoop, Succession, TellStatus};
use crate::shell::shared::{LeaderWatcher, MembershipAt, Shared, StopReason};
use crate::shell::turns::Turns;
use crate::waiter::{Completion, NodeError, Waiter};
use bytes::Bytes;
use milepost_env::{Clock, Disk, Lock, ShortTurns};
use milepost_machine::{Lessor, Machine, Reader};
use milepost_mvcc::watch::Hub;
use milepost_mvcc::{Opening, Store, StoreError};
use milepost_proto::raftpb;
use milepost_types::{ClusterId, MemberId};
use parking_lot::Mutex;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Committed entries that may wait to be applied before new proposals are refused. Source: etcd `maxGapBetweenApplyAndCommitIndex`.
pub(crate) const GAP_MAX: u64 = 5_000;
/// Bytes of proposals that may be without an answer: bounds memory where etcd has only the count of entries.
const PROPOSED_BYTES_MAX: u64 = 256 << 20;

/// Begins to open the store in a directory; the engine under it is the caller's choice.
pub type OpenStore = Box<dyn FnOnce(&Path) -> Result<Opening, StoreError>>;

/// The world that a node lives in.
pub struct World {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The way to other members.
    pub letters: Arc<dyn Letters>,
    /// The store.
    pub open_store: OpenStore,
}

/// Where a member stands. Each number is exact; two of them may be from different moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub member_id: MemberId,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Who leads; 0: unknown.
    pub leader: MemberId,
    /// Raft's term.
    pub term: u64,
    /// Commit index.
    pub committed: u64,
    /// Everything up to here is visible to reads.
    pub applied: u64,
    /// What this member is.
    pub role: Role,
    /// Has it no vote yet?
    pub is_learner: bool,
}

/// A running member's Raft. Clones are handles to the same one; it stops when the last is dropped, or is told to.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    raft: JoinHandle<()>,
    log: JoinHandle<()>,
    apply: JoinHandle<()>,
    keeper: JoinHandle<()>,
    /// What the apply thread works with; the Raft thread, too, takes turns at it.
    machine: Arc<Mutex<ApplyLoop>>,
    lock: Box<dyn Lock>,
}

impl Node {
    /// Opens or begins a member and starts its threads.
    ///
    /// It is not [ready](Node::wait_ready) at return: it knows no leader yet, and has not applied what is committed.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing runs then.
    pub fn start(config: &NodeConfig, world: World) -> Result<Self, StartError> {
        let parts = Parts::assemble(config, world, Pace::Threads)?;
        let shared = Arc::clone(&parts.shared);
        match parts.spawn() {
            Ok(threads) => Ok(Self { inner: Arc::new(Inner { shared, threads: Mutex::new(Some(threads)) }) }),
            Err(error) => {
                shared.stop(StopReason::Asked);
                Err(StartError::Thread(error))
            }
        }
    }

    /// A handle to a node whose threads somebody else plays.
    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self { inner: Arc::new(Inner { shared, threads: Mutex::new(None) }) }
    }

    /// An id for a proposal, unique in the cluster.
    #[must_use]
    pub fn next_request_id(&self) -> u64 {
        self.inner.shared.request_ids.next()
    }

    /// Puts `payload`, an encoded `InternalRaftRequest` that carries `id`, into the replicated log.
    ///
    /// `waiter` is completed once: with the reply when it is applied here, or with the reason why that is not known. May
    /// be called from any thread; never blocks.
    pub fn propose(&self, id: u64, payload: Bytes, waiter: Waiter) {
        self.propose_entry(id, payload, false, waiter);
    }

    /// Puts `change`, an encoded `ConfChange` that carries `id`, into the replicated log; as [`Node::propose`].
    pub fn propose_conf_change(&self, id: u64, change: Bytes, waiter: Waiter) {
        self.propose_entry(id, change, true, waiter);
    }

    fn propose_entry(&self, id: u64, payload: Bytes, conf_change: bool, waiter: Waiter) {
        let shared = &self.inner.shared;
        let committed = shared.positions.committed.load(Ordering::Relaxed);
        if committed > shared.applied() + GAP_MAX || shared.waiters.bytes() > PROPOSED_BYTES_MAX {
            return waiter.complete(Completion::Failed(NodeError::TooManyRequests));
        }
        let bytes = payload.len() as u64;
        shared.waiters.add_bytes(bytes);
        shared.metrics.proposals_pending.fetch_add(1, Ordering::Relaxed);
        let refused = shared.to_raft.push(Command::Propose { id, payload, conf_change, waiter });
        if let Err(Command::Propose { waiter, .. }) = refused {
            shared.waiters.drop_bytes(bytes);
            shared.metrics.proposals_pending.fetch_sub(1, Ordering::Relaxed);
            waiter.complete(Completion::Failed(NodeError::Stopped));
        }
    }

    /// Completes `waiter` with [`Completion::ReadReady`] once everything that was committed anywhere before this call is
    /// applied here.
    pub fn read_index(&self, waiter: Waiter) {
        if self.reads_are_current() {
            return waiter.complete(Completion::ReadReady);
        }
        if let Err(Command::Read(waiter)) = self.inner.shared.to_raft.push(Command::Read(waiter)) {
            waiter.complete(Completion::Failed(NodeError::Stopped));
        }
    }

    /// Is what is applied here everything that was ever answered, so that a linearizable read needs no confirmation?
    ///
    /// So it is while this member is the whole cluster: only it answers writes, and only once they are applied. Entries
    /// that are committed and not yet applied have not been answered, so a read may come before them.
    #[must_use]
    pub fn reads_are_current(&self) -> bool {
        self.inner.shared.positions.alone.load(Ordering::SeqCst)
    }

    /// A message of another member. It is checked before Raft sees it.
    ///
    /// A snapshot is not one of them: see [`Node::install_snapshot`].
    pub fn receive(&self, message: raftpb::Message) {
        if message.r#type() == MESSAGE_SNAPSHOT {
            // Its database is missing; the sender believes that it is under way until it hears otherwise.
            self.inner.shared.metrics.messages_refused.fetch_add(1, Ordering::Relaxed);
            let fields = [("from", Value::from(format!("{:x}", message.from())))];
            return self.inner.shared.log.warn("dropped a snapshot that came without its database", &fields);
        }
        // A closed queue: the node stops, and the network loses messages anyway.
        let _ = self.inner.shared.to_raft.push(Command::Input(Input::Message(Box::new(message))));
    }

    /// Another member's snapshot: `message` says what it is, `body` is its database. Blocks until all of it is read,
    /// stored beside the state, and Raft has been told, which takes minutes for gigabytes; then the sender may hear that it
    /// has arrived. What this member has already is not read.
    ///
    /// One at a time. Reading may wait for the sender: a limit to that is the caller's.
    ///
    /// # Errors
    /// [`InstallError`]: the member goes on as it was, and nothing is left of what was received.
    pub fn install_snapshot(&self, message: raftpb::Message, body: &mut dyn Read) -> Result<(), InstallError> {
        install::install(&self.inner.shared, message, body)
    }

    /// Hands leadership to `to`, if this member leads. Watch the leader to learn of the result.
    pub fn transfer_leader(&self, to: MemberId) {
        let _ = self.inner.shared.to_raft.push(Command::Input(Input::TransferLeader(to.0)));
    }

    /// Hands leadership to the best other voter, as before a stop; waits until it is taken, or `patience` is over. True
    /// if this member does not lead then. Writes that come meanwhile wait, and go on with the new leader.
    ///
    /// Source: etcd `TryTransferLeadershipOnShutdown`, which asks who was connected longest: here it is who has most.
    #[must_use]
    pub fn hand_over(&self, patience: Duration) -> bool {
        let shared = &self.inner.shared;
        let own = ("local-member-id", Value::from(shared.member.to_string()));
        let start = shared.now();
        let (tell, leaders) = channel();
        let tell = Mutex::new(tell);
        // The watcher outlives this call; nobody listens then.
        self.watch_leader(Arc::new(move |leader, _| _ = tell.lock().send(leader)));
        let mut asked = 0;
        loop {
            let (answer, succession) = sync_channel(1);
            if shared.to_raft.push(Command::HandOver(answer)).is_err() {
                return false;
            }
            let Ok(succession) = succession.recv() else { return false };
            match succession {
                Succession::NotLeader if asked == 0 => {
                    let leader = MemberId(shared.positions.leader.load(Ordering::Relaxed)).to_string();
                    let fields = [own, ("current-leader-member-id", Value::from(leader))];
                    shared.log.info("skipped leadership transfer; local server is not leader", &fields);
                    return true;
                }
                Succession::NotLeader if shared.positions.leader.load(Ordering::Relaxed) != 0 => {
                    let took = shared.now().saturating_sub(start);
                    let leader = MemberId(shared.positions.leader.load(Ordering::Relaxed)).to_string();
                    let new = ("new-leader-member-id", Value::from(leader));
                    shared.log.info("leadership transfer finished", &[own, new, ("took", took.into())]);
                    return true;
                }
                Succession::OnlyVoter => {
                    shared.log.info("skipped leadership transfer for single voting member cluster", &[own]);
                    return false;
                }
                // Who was heard of is forgotten once in an election timeout, until the next heartbeat's answer.
                Succession::Nobody if shared.now().saturating_sub(start) > shared.election_timeout => {
                    let why = ("error", Value::from("no other voter answers"));
                    shared.log.warn("leadership transfer failed", &[own, why]);
                    return false;
                }
                Succession::Asked(to) if asked != to => {
                    let to_whom = ("transferee-member-id", Value::from(MemberId(to).to_string()));
                    shared.log.info("leadership transfer starting", &[own.clone(), to_whom]);
                    asked = to;
                }
                Succession::Asked(_) | Succession::NotLeader | Succession::Nobody => {}
            }
            // It ends with a new leader; a transfer that got lost is given up by Raft after an election timeout.
            let left = patience.saturating_sub(shared.now().saturating_sub(start));
            if left.is_zero() {
                let why = ("error", Value::from("etcdserver: request timed out, leader transfer took too long"));
                shared.log.warn("leadership transfer failed", &[own, why]);
                return false;
            }
            let _ = leaders.recv_timeout(left.min(shared.election_timeout / 4));
        }
    }

    /// The others can be reached: if nobody leads yet, the first election need not wait its full time.
    pub fn fast_forward(&self) {
        let _ = self.inner.shared.to_raft.push(Command::Input(Input::FastForward));
    }

    /// Another member says that this one was removed for good; it stops as if its own log said so.
    pub fn told_removed(&self) {
        let _ = self.inner.shared.to_raft.push(Command::Removed);
    }

    /// A message to `peer` was not delivered.
    pub fn report_unreachable(&self, peer: MemberId) {
        let _ = self.inner.shared.to_raft.push(Command::Input(Input::Unreachable(peer.0)));
    }

    /// The snapshot to `peer` has arrived, or not.
    pub fn report_snapshot(&self, peer: MemberId, ok: bool) {
        let _ = self.inner.shared.to_raft.push(Command::Input(Input::SnapshotSent { to: peer.0, ok }));
    }

    /// Has `tell` told how Raft stands; a stopped member drops it untold.
    pub fn raft_status(&self, tell: Box<dyn FnOnce(RaftStatus) + Send>) {
        let _ = self.inner.shared.to_raft.push(Command::Status(TellStatus(tell)));
    }

    /// Where this member stands. Cheap.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &self.inner.shared;
        let positions = &shared.positions;
        Status {
            member_id: shared.member,
            cluster_id: shared.cluster,
            leader: MemberId(positions.leader.load(Ordering::Relaxed)),
            term: positions.term.load(Ordering::Relaxed),
            committed: positions.committed.load(Ordering::Relaxed),
            applied: shared.applied(),
            role: Role::from_number(positions.role.load(Ordering::Relaxed)),
            is_learner: shared.metrics.is_learner.load(Ordering::Relaxed),
        }
    }

    /// Is the reserve of disk space used up? Then nothing should be put until some is free; what makes room still works.
    #[must_use]
    pub fn is_low_on_space(&self) -> bool {
        self.inner.shared.is_low_on_space()
    }

    /// Calls `watcher` with (leader, term) whenever one of them changes; from the Raft thread, so it must not block.
    pub fn watch_leader(&self, watcher: LeaderWatcher) {
        self.inner.shared.leader_watchers.lock().push(watcher);
    }

    /// Local reads: what is applied here.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.inner.shared.reader
    }

    /// Leases, as this member knows them.
    #[must_use]
    pub fn lessor(&self) -> &Arc<Lessor> {
        &self.inner.shared.lessor
    }

    /// Where watches begin.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.inner.shared.hub
    }

    /// The store that counts now, for what is not a read of keys: sizes, hashes, statistics.
    #[must_use]
    pub fn store(&self) -> Store {
        self.inner.shared.store()
    }

    /// Rewrites the store without its free space and tells `done` of the end. Reads and writes go on meanwhile.
    ///
    /// One run at a time: who asks meanwhile shares the next one.
    pub fn defragment(&self, done: DefragmentDone) {
        self.inner.shared.defragmenter.ask(&self.inner.shared, done);
    }

    /// What the node counts.
    #[must_use]
    pub fn metrics(&self) -> &NodeMetrics {
        &self.inner.shared.metrics
    }

    /// The clock that leases run by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.shared.clock
    }

    /// Blocks until the cluster knows this member and it has applied what was committed when it started, or until it
    /// stops, or `timeout`. True if it may answer clients.
    #[must_use]
    pub fn wait_ready(&self, timeout: Duration) -> bool {
        self.inner.shared.wait_ready(timeout)
    }

    /// Why it stopped; `None` while it runs.
    #[must_use]
    pub fn stopped(&self) -> Option<StopReason> {
        self.inner.shared.stopped()
    }

    /// Blocks until it stops.
    #[must_use]
    pub fn wait_stopped(&self) -> StopReason {
        self.inner.shared.wait_stopped()
    }

    /// Stops, and returns when every thread has ended. Who still waits for an answer hears [`NodeError::Stopped`].
    pub fn stop(&self) {
        self.inner.stop();
    }
}

impl Inner {
    fn stop(&self) {
        self.shared.stop(StopReason::Asked);
        let Some(threads) = self.threads.lock().take() else { return };
        let Threads { raft, log, apply, keeper, machine, lock } = threads;
        // A thread that panicked has said so; the others' ends are still to be waited for.
        let mut ends = vec![log.join().is_ok(), keeper.join().is_ok()];
        // Before those are waited for that apply: they may be waiting for room in a store whose disk is full.
        self.shared.store().close();
        self.shared.defragmenter.stop();
        ends.push(raft.join().is_ok());
        if apply.join().is_ok()
            && let Some(apply) = Arc::into_inner(machine)
        {
            apply.into_inner().into_machine().into_writer().stop();
        }
        // A received snapshot may have taken its place at the last moment.
        self.shared.store().close();
        self.shared.installer.close();
        if ends.contains(&false) {
            // What it left undone is unknown.
            self.shared.log.error("a thread of the node had panicked", &[]);
        } else {
            self.shared.store().ends_in_order();
        }
        self.shared.hub.stop();
        drop(lock);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

fn log_start(config: &NodeConfig, recovery: &Recovery) {
    let fields = [
        ("local-member-id", Value::from(recovery.member.to_string())),
        ("cluster-id", Value::from(recovery.cluster.to_string())),
    ];
    if recovery.fresh {
        config.log.info("starting local member", &fields);
        return;
    }
    let message = if config.force_new_cluster.is_some() { "forcing restart member" } else { "restarting local member" };
    let [member, cluster] = fields;
    let commit = ("commit-index", Value::from(recovery.restart.hard_state.commit()));
    let applied = ("applied-index", Value::from(recovery.restart.applied));
    config.log.info(message, &[cluster, member, commit, applied]);
}

/// May a start use threads of its own?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Log and store are read at the same time.
    Threads,
    /// One thing after the other.
    Steps,
}

/// A node before its threads are started: what each of them will own.
pub(crate) struct Parts {
    pub shared: Arc<Shared>,
    pub raft: RaftLoop,
    pub log: LogLoop,
    pub apply: ApplyLoop,
    pub keeper: Keeper,
    pub lock: Box<dyn Lock>,
}

impl Parts {
    /// Recovers the member and makes its loops; nothing runs yet.
    pub fn assemble(config: &NodeConfig, world: World, pace: Pace) -> Result<Self, StartError> {
        let World { disk, clock, letters, open_store } = world;
        let lock = guard::occupy(&*disk, &config.data_dir, config.wal_dir.as_deref())?;
        let opening = open_store(&config.store_path())?;
        let applied = opening.applied();
        let (opened, recovery) = if pace == Pace::Threads && recovery::has_log(&*disk, config)? {
            // Each reads some hundred megabytes in a large member that was killed.
            std::thread::scope(|scope| {
                let recovery = thread_in(scope, "recovery", || recovery::recover(config, &disk, applied))?;
                let opened = opening.finish();
                Ok::<_, StartError>((opened, recovery.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
            })?
        } else {
            let opened = opening.finish()?;
            (Ok(opened), recovery::recover(config, &disk, applied))
        };
        let (store, writer, opened) = opened?;
        let mut recovery = recovery?;
        defragmenter::at_start(&store, config.bootstrap_defragment_bytes, &*config.log)?;
        let mut machine_config = config.machine.clone();
        (machine_config.member_id, machine_config.cluster_id) = (recovery.member, recovery.cluster);
        let (store, writer, opened) = match &recovery.pending {
            Some(mark) => install::finish_pending(config, &*disk, &machine_config, (store, writer, opened), mark)?,
            None => (store, writer, opened),
        };
        install::clean(&*disk, &config.snap_path());
        let machine = Machine::open(store, writer, &opened, machine_config)
            .map_err(|error| StartError::Broken(error.to_string()))?;
        if let Some(may_drop) = &config.force_new_cluster {
            recovery::force::alone(&mut recovery, &machine, &**may_drop, &*config.log)?;
        }
        log_start(config, &recovery);
        let pace = Arc::clone(&clock);
        let hub = Hub::start(machine.reader(), config.watch, move || pace.monotonic());
        let membership = MembershipAt {
            index: recovery.restart.applied,
            conf_state: machine.conf_state().clone(),
            v2_json: machine.membership_v2_json(),
        };
        let ids = (recovery.member, recovery.cluster);
        let (reader, lessor) = (machine.reader(), machine.lessor());
        let shared = Arc::new(Shared::new(ids, config, clock, Arc::clone(&disk), reader, lessor, hub, membership));
        shared.positions.applied.store(recovery.restart.applied, Ordering::Release);
        let Recovery { wal, mut restart, snapshot_point, .. } = recovery;
        restart.conf_state = machine.conf_state().clone();
        let commit_at_start = restart.hard_state.commit();
        let core_config = CoreConfig {
            id: shared.member.0,
            seed: config.seed,
            election_ticks: usize::try_from(config.election_ticks).unwrap_or(usize::MAX),
            heartbeat_ticks: 1,
            pre_vote: config.pre_vote,
            first_read_context: shared.request_ids.next(),
            memory_bytes_max: config.log_memory_bytes,
        };
        let core = Core::new(core_config, &restart).map_err(|error| StartError::Broken(error.to_string()))?;
        let duties = Duties::new(&shared, config, commit_at_start);
        let raft = RaftLoop::new(Arc::clone(&shared), core, letters, duties, config);
        let log = LogLoop {
            shared: Arc::clone(&shared),
            wal,
            disk: Arc::clone(&disk),
            snap_dir: config.snap_path(),
            hard_state: restart.hard_state,
            written_commit: 0,
            failed: false,
        };
        let apply = ApplyLoop::new(
            Arc::clone(&shared),
            machine,
            SnapshotRule { entries: config.snapshot_count, bytes: config.snapshot_bytes },
            restart.applied - snapshot_point,
            config.warning_apply,
            commit_at_start,
        );
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            disk,
            snap_dir: config.snap_path(),
            catch_up_entries: config.catch_up_entries,
            max_snapshots: config.max_snapshots,
            last_point: snapshot_point,
            snapshot_count: config.snapshot_count,
        };
        Ok(Self { shared, raft, log, apply, keeper, lock })
    }

    fn spawn(self) -> std::io::Result<Threads> {
        let Self { shared, raft, log, apply, keeper, lock } = self;
        let (log, apply) = (Arc::new(Mutex::new(log)), Arc::new(Mutex::new(apply)));
        let (raft, machine) = (Arc::new(Mutex::new(raft)), Arc::clone(&apply));
        let turns = Turns::new(Arc::clone(&shared), Arc::clone(&log), Arc::clone(&apply));
        let (for_log, for_apply, stood_in_for) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&raft));
        Ok(Threads {
            keeper: thread("keeper", move || keeper.run())?,
            log: prompt_thread("log", move || LogLoop::run(&for_log, &log))?,
            apply: prompt_thread("apply", move || ApplyLoop::run(&for_apply, &apply, &stood_in_for))?,
            raft: prompt_thread("raft", move || RaftLoop::run(&shared, &raft, turns))?,
            machine,
            lock,
        })
    }
}

fn thread_in<'scope, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<std::thread::ScopedJoinHandle<'scope, T>, StartError> {
    std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, run).map_err(StartError::Thread)
}

/// For those whom clients and other members wait for.
fn prompt_thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread(name, || {
        let _short_turns = ShortTurns::begin();
        run();
    })
}

fn thread<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> std::io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}
