//! The Raft thread: owns the core, takes everything that has queued, runs what the core asks for.

use super::apply_loop::ApplyJob;
use super::duties::{Duties, Duty};
use super::log_loop::LogJob;
use super::reads::UnconfirmedReads;
use super::role_log::{log_role_change, log_step};
use super::sender::{self, Spawn};
use super::shared::{Shared, StopReason};
use super::space::{Space, Verdict};
use super::turns::{Laid, Turns};
use crate::core::{Core, Effect, Input, Proposal, RaftStatus, Role, RoleChange};
use crate::letters::Letters;
use crate::log::{Level, Value};
use crate::request_id;
use crate::waiter::{Answers, Completion, NodeError, Pending, Waiter};
use bytes::Bytes;
use milepost_machine::Membership;
use milepost_machine::member::Member;
use milepost_proto::raftpb;
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// How often waiters are looked through for those who waited too long; their timeout is seconds.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// A removed member goes on for so long, so that the others hear what it last had to say. Source: etcd `shouldstop`.
const LEAVE: Duration = Duration::from_secs(1);

/// `MsgSnap`.
pub(crate) const MESSAGE_SNAPSHOT: i32 = 7;

/// What the Raft thread is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Put this into the log; `bytes` of the bound on proposals are taken.
    Propose { id: u64, payload: Bytes, conf_change: bool, waiter: Waiter },
    /// Confirm a read.
    Read(Waiter),
    /// A snapshot whose database lies ready, and who wants to know whether Raft takes it.
    Install { message: Box<raftpb::Message>, taken: SyncSender<bool> },
    /// For the core.
    Input(Input),
    /// Applied up to here, and something waits for it. Comes after the conf changes before it. What nothing waits for
    /// the Raft thread finds out by itself.
    Applied(u64),
    /// Who is in the cluster from now on. Comes before the conf change that says so.
    Members(Arc<Membership>),
    /// The cluster has removed this member.
    Removed,
    /// Hand leadership over, if there is somebody to take it; the answer says to whom.
    HandOver(SyncSender<Succession>),
    /// One of the member's own proposals has ended.
    DutyDone(Duty, Completion),
    /// Applying showed that this member must do something.
    Duty(Duty),
    /// A write went over the quota: who asked for it hears so when the alarm is raised.
    OverQuota(Waiter, Completion),
    /// Somebody wants to know how things stand.
    Status(TellStatus),
}

/// What becomes of leadership when it is to be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Succession {
    /// This member does not lead.
    NotLeader,
    /// It is the only voter.
    OnlyVoter,
    /// No other voter was heard of lately.
    Nobody,
    /// This one was asked to take over.
    Asked(u64),
}

/// Who is told how things stand, on the Raft thread: must not block.
pub(crate) struct TellStatus(pub Box<dyn FnOnce(RaftStatus) + Send>);

impl fmt::Debug for TellStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TellStatus")
    }
}

/// The thread's state.
pub(crate) struct RaftLoop {
    shared: Arc<Shared>,
    core: Core,
    letters: Arc<dyn Letters>,
    /// Where snapshots for others are made.
    pub spawn: Spawn,
    duties: Duties,
    space: Space,
    /// Waiting for the leader's confirmation.
    reads: UnconfirmedReads,
    /// Proposals that no leader took yet.
    homeless: VecDeque<Proposal>,
    /// What is dropped now is not to be proposed again.
    forget_dropped: bool,
    answers: Answers,
    /// Answers that wait for the alarm that this member has no space.
    over_quota: Vec<(Waiter, Completion)>,
    effects: Vec<Effect>,
    tick: Duration,
    next_tick: Duration,
    /// Where the store was durable when the log was last told.
    told_durable: u64,
    next_expiry: Duration,
    /// Who is in the cluster that this member joins, while its own log does not say so yet.
    acquaintances: Vec<Member>,
    /// Applied index that the core knows of.
    told_applied: u64,
    /// Last entry when Raft last followed a change of members: one up to here that a removed member proposed may have
    /// been answered there before it is applied here.
    shared_to: u64,
    /// When a removed member stops.
    stop_at: Option<Duration>,
    /// What was laid into queues without a word to their threads.
    pub laid: Laid,
    /// Kept for its memory.
    commands: Vec<Command>,
}

impl RaftLoop {
    pub fn new(
        shared: Arc<Shared>,
        core: Core,
        letters: Arc<dyn Letters>,
        duties: Duties,
        config: &crate::NodeConfig,
    ) -> Self {
        let tick = config.heartbeat;
        let now = shared.now();
        let told_applied = core.standing().applied;
        Self {
            shared,
            core,
            letters,
            spawn: sender::on_threads(),
            duties,
            space: Space::default(),
            reads: UnconfirmedReads::default(),
            homeless: VecDeque::new(),
            forget_dropped: false,
            answers: Answers::default(),
            over_quota: Vec::new(),
            effects: Vec::new(),
            tick,
            next_tick: now + tick,
            told_durable: 0,
            next_expiry: now + EXPIRY_INTERVAL,
            acquaintances: config.join.as_ref().map(|join| join.members.clone()).unwrap_or_default(),
            told_applied,
            shared_to: 0,
            stop_at: None,
            laid: Laid::default(),
            commands: Vec::new(),
        }
    }

    /// Runs until the queue is closed, or the core stops.
    pub fn run(shared: &Shared, raft: &Mutex<Self>, mut turns: Turns) {
        raft.lock().begin();
        loop {
            let laid = std::mem::take(&mut raft.lock().laid);
            // Not under the lock: a turn may take long, and somebody stands in then.
            turns.take(&laid);
            let wait = raft.lock().until_tick();
            if !shared.to_raft.wait(Some(wait)) {
                break;
            }
            raft.lock().next_round();
        }
        raft.lock().fail_everybody();
    }

    /// How long nothing is due.
    pub fn until_tick(&self) -> Duration {
        self.next_tick.saturating_sub(self.shared.now())
    }

    /// Does what has come, and what is due.
    pub fn next_round(&mut self) {
        // Before the queue is taken: conf changes are reported through it before they count as applied.
        let mut applied = self.shared.applied();
        let mut commands = std::mem::take(&mut self.commands);
        if !self.shared.to_raft.take_now(&mut commands) {
            // The member stops, and what it applied last could not be reported any more.
            applied = self.told_applied;
        }
        self.round(&mut commands, applied);
        self.commands = commands;
    }

    /// Before the first round.
    pub fn begin(&mut self) {
        let start = RoleChange { passed: vec![(Role::Follower, self.core.standing().term)], ..RoleChange::default() };
        log_role_change(&*self.shared.log, self.shared.member.0, &start);
        self.tell_members(self.shared.reader.membership());
        // What was applied at start may already allow an election.
        self.handle(Input::Applied(self.told_applied));
    }

    /// Does what has come, and what is due. `applied` was read before `commands` were taken.
    fn round(&mut self, commands: &mut Vec<Command>, mut applied: u64) {
        let mut proposals = Vec::new();
        let mut pending = Vec::new();
        let mut reads = Vec::new();
        let now = self.shared.now();
        let deadline = now + self.shared.request_timeout;
        for command in commands.drain(..) {
            match command {
                Command::Propose { id, payload, conf_change, waiter } => {
                    let bytes = payload.len() as u64;
                    proposals.push(Proposal { data: payload, conf_change });
                    pending.push((id, Pending { waiter, bytes, deadline }));
                }
                Command::Read(waiter) => reads.push(waiter),
                Command::Input(input) => {
                    if matches!(input, Input::ConfChangeApplied { .. }) {
                        // A new member may answer writes before they are applied here.
                        self.shared.positions.alone.store(false, Ordering::SeqCst);
                        self.shared_to = self.core.standing().last;
                    }
                    self.handle(input);
                }
                Command::Install { message, taken } => self.install(message, &taken),
                Command::Applied(index) => applied = applied.max(index),
                Command::Members(membership) => self.tell_members(membership),
                Command::Removed => self.removed(now),
                Command::HandOver(answer) => {
                    // Who asked may have given up.
                    let _ = answer.send(self.hand_over());
                }
                Command::Status(tell) => tell.0(self.core.raft_status()),
                Command::DutyDone(duty, completion) => self.duties.done(duty, &completion, now, &self.shared),
                Command::Duty(duty) => self.duties.ask(duty),
                Command::OverQuota(waiter, completion) => {
                    self.over_quota.push((waiter, completion));
                    self.duties.ask(Duty::RaiseNoSpace);
                }
            }
        }
        if applied > self.told_applied {
            self.told_applied = applied;
            self.handle(Input::Applied(applied));
        }
        if !proposals.is_empty() {
            self.shared.waiters.insert_all(pending.into_iter());
            self.propose(proposals);
        }
        if !reads.is_empty() {
            let batch = self.reads.push(now, reads);
            self.handle(Input::Read { batch });
        }
        if now >= self.next_tick {
            self.tick(now);
        }
        self.do_duties(now);
        self.retry_homeless();
        if self.duties.no_space_is_told() {
            self.answer_over_quota();
        }
        self.publish();
        self.answers.deliver();
    }

    /// A member that joins hears its first entries from members that its own log does not know yet.
    fn tell_members(&mut self, mut membership: Arc<Membership>) {
        if membership.members.contains_key(&self.shared.member) {
            self.acquaintances.clear();
        } else if !self.acquaintances.is_empty() {
            let known = Arc::make_mut(&mut membership);
            for member in &self.acquaintances {
                if !known.removed.contains(&member.id) {
                    known.members.entry(member.id).or_insert_with(|| member.clone());
                }
            }
        }
        self.letters.set_members(membership);
    }

    /// One tick, however late it is: a member that was paused must hear its peers before it takes them for dead.
    fn tick(&mut self, now: Duration) {
        let late = now.saturating_sub(self.next_tick);
        self.next_tick = if late < self.tick { self.next_tick + self.tick } else { now + self.tick };
        if late > self.tick && self.core.progress().len() > 1 {
            self.shared.metrics.heartbeat_send_failures_total.fetch_add(1, Ordering::Relaxed);
            let msg = "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk";
            let fields = [
                ("heartbeat-interval", Value::from(self.tick)),
                ("expected-duration", Value::from(self.tick * 2)),
                ("exceeded-duration", Value::from(late)),
            ];
            self.shared.log.warn(msg, &fields);
        }
        self.handle(Input::Tick);
        if now >= self.next_expiry {
            self.next_expiry = now + EXPIRY_INTERVAL;
            self.expire(now);
        }
        self.tell_durable();
        let store = self.shared.store();
        if let Some(why) = store.failed() {
            self.shared.broken(why);
        }
        if self.stop_at.is_some_and(|at| at <= now) {
            self.shared.stop(StopReason::Removed);
        }
        let resent = self.core.standing().reads_resent;
        self.shared.metrics.slow_read_indexes_total.store(resent, Ordering::Relaxed);
        self.mind_space(now);
        if let Some(why) = store.corrupt() {
            self.duties.found_corrupt(&why, &self.shared);
        }
    }

    /// See [`super::space`].
    fn mind_space(&mut self, now: Duration) {
        let (role, voters) = (self.core.standing().role, self.core.voters());
        let is_low = self.shared.is_low_on_space();
        match self.space.tick(now, is_low, role, voters, self.shared.election_timeout) {
            Verdict::Nothing => {}
            Verdict::Tell { is_low } => self.tell_space(is_low),
            Verdict::RaiseAlarm => self.duties.ask(Duty::RaiseNoSpace),
            Verdict::HandOver => {
                if let Succession::Asked(to) = self.hand_over() {
                    self.space.handed_over(now);
                    let fields = [("transferee", Value::from(format!("{to:x}")))];
                    self.shared.log.warn("gives leadership away: there is little room on the disk", &fields);
                }
            }
        }
    }

    fn tell_space(&self, is_low: bool) {
        let log = &self.shared.log;
        if !is_low {
            log.info("there is room on the disk again", &[]);
        } else if self.core.voters() < 2 {
            log.warn("there is little room on the disk", &[("remedy", "free some, then disarm the alarm".into())]);
        } else {
            let remedy = "free some: without, this member falls behind while the others go on";
            log.warn("there is little room on the disk", &[("remedy", remedy.into())]);
        }
    }

    fn hand_over(&mut self) -> Succession {
        if self.core.standing().role != Role::Leader {
            return Succession::NotLeader;
        }
        if self.core.voters() < 2 {
            return Succession::OnlyVoter;
        }
        let Some((to, true)) = self.core.successor() else { return Succession::Nobody };
        self.handle(Input::TransferLeader(to));
        Succession::Asked(to)
    }

    /// A line when a commit of the store has become durable.
    fn tell_durable(&mut self) {
        let log = &self.shared.log;
        if log.is_on(Level::Debug) {
            let durable = self.shared.store().durable().index.0;
            if std::mem::replace(&mut self.told_durable, durable) != durable {
                log.debug("the store has committed", &[("durable-index", durable.into())]);
            }
        }
    }

    fn answer_over_quota(&mut self) {
        for (waiter, completion) in self.over_quota.drain(..) {
            self.answers.push(waiter, completion);
        }
    }

    /// Behind those that wait for a leader already: nobody overtakes.
    fn propose(&mut self, proposals: Vec<Proposal>) {
        if self.homeless.is_empty() {
            self.handle(Input::Propose(proposals));
        } else {
            self.homeless.extend(proposals);
        }
    }

    /// Those that no leader took: they are in no log, so each may be proposed again. At the end of each round.
    fn retry_homeless(&mut self) {
        if self.homeless.is_empty() {
            return;
        }
        let standing = self.core.standing();
        if standing.leader != 0 && standing.transferee == 0 {
            let proposals = self.homeless.drain(..).collect();
            self.handle(Input::Propose(proposals));
        }
    }

    /// The member's own proposals. Those that nobody waits for are decisions of a leader (a lease has ended): if they
    /// cannot go into the log now they are forgotten, since the next leader may know better.
    fn do_duties(&mut self, now: Duration) {
        let standing = self.core.standing();
        let duties = self.duties.due(now, &standing, &self.shared);
        if duties.is_empty() {
            return;
        }
        let (mut lasting, mut passing, mut pending) = (Vec::new(), Vec::new(), Vec::new());
        let deadline = now + self.shared.request_timeout;
        for (id, payload, waiter) in duties {
            let proposal = Proposal { data: payload, conf_change: false };
            if waiter.is_some() { &mut lasting } else { &mut passing }.push(proposal);
            pending.extend(waiter.map(|waiter| (id, Pending { waiter, bytes: 0, deadline })));
        }
        self.shared.waiters.insert_all(pending.into_iter());
        if !lasting.is_empty() {
            self.propose(lasting);
        }
        if standing.role == Role::Leader && !passing.is_empty() {
            self.forget_dropped = true;
            self.handle(Input::Propose(passing));
            self.forget_dropped = false;
        }
    }

    fn handle(&mut self, input: Input) {
        if let Input::Message(message) = &input {
            log_step(&*self.shared.log, "received", message);
        }
        let mut effects = std::mem::take(&mut self.effects);
        if let Err(error) = self.core.handle(input, &mut effects) {
            self.shared.broken(error);
        }
        for effect in effects.drain(..) {
            self.run_effect(effect);
        }
        self.effects = effects;
    }

    fn run_effect(&mut self, effect: Effect) {
        // Pushing into a closed queue: the node stops, and nothing of this was promised to anybody.
        match effect {
            Effect::Persist(persist) => {
                if self.core.is_alone() {
                    let _ = self.shared.to_log.lay(LogJob::Persist(persist));
                    self.laid.for_log = true;
                } else {
                    let _ = self.shared.to_log.push(LogJob::Persist(persist));
                }
            }
            Effect::Send(messages) => self.send(messages),
            Effect::Apply(entries) => {
                let committed = entries.last().map_or(0, raftpb::Entry::index);
                self.shared.metrics.proposals_committed_total.fetch_max(committed, Ordering::Relaxed);
                if self.core.is_alone() {
                    let _ = self.shared.to_apply.lay(ApplyJob::Entries(entries));
                    self.laid.for_apply = true;
                } else {
                    let _ = self.shared.to_apply.push(ApplyJob::Entries(entries));
                }
            }
            Effect::ApplySnapshot(snapshot) => {
                let _ = self.shared.to_apply.push(ApplyJob::Snapshot(snapshot));
            }
            Effect::ReadReady { batch, index } => {
                let waiters = self.reads.take_confirmed(batch);
                self.shared.reads.push(index, waiters, &self.shared.positions.applied, &mut self.answers);
            }
            Effect::RoleChanged(change) => self.role_changed(&change),
            Effect::Dropped(_) if self.forget_dropped => {}
            Effect::Dropped(proposals) => self.homeless.extend(proposals),
            Effect::Fetch { ticket, from, end, max_bytes } => {
                let _ = self.shared.to_log.push(LogJob::Fetch { ticket, from, end, max_bytes });
            }
            Effect::Refused { from, why } => {
                self.shared.metrics.messages_refused.fetch_add(1, Ordering::Relaxed);
                if why.is_broken_truth() {
                    self.shared.broken(why);
                } else {
                    let fields = [("from", Value::from(format!("{from:x}"))), ("error", Value::from(why.to_string()))];
                    self.shared.log.warn("dropped a message of a peer", &fields);
                }
            }
        }
    }

    /// Raft's wish for a snapshot is not yet one.
    fn send(&self, mut messages: Vec<raftpb::Message>) {
        messages.iter().for_each(|message| log_step(&*self.shared.log, "sent", message));
        for message in messages.extract_if(.., |message| message.r#type() == MESSAGE_SNAPSHOT) {
            sender::send(&self.shared, &self.letters, &self.spawn, message);
        }
        if !messages.is_empty() {
            self.letters.send(messages);
        }
    }

    fn install(&mut self, message: Box<raftpb::Message>, taken: &SyncSender<bool>) {
        let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        let index = metadata.map_or(0, raftpb::SnapshotMetadata::index);
        self.handle(Input::Message(message));
        // Whoever asked may have given up.
        let _ = taken.send(self.core.has_taken_snapshot(index));
    }

    fn role_changed(&mut self, change: &RoleChange) {
        let metrics = &self.shared.metrics;
        log_role_change(&*self.shared.log, self.shared.member.0, change);
        metrics.has_leader.store(change.leader != 0, Ordering::Relaxed);
        metrics.is_leader.store(change.role == Role::Leader, Ordering::Relaxed);
        if change.leader != 0 && change.leader != change.previous_leader {
            metrics.leader_changes_seen_total.fetch_add(1, Ordering::Relaxed);
        }
        // A leader of a new term is a new leader, also if it is this member again: leases run anew.
        if change.role != Role::Leader || !change.passed.is_empty() {
            self.shared.lessor.demote();
        }
        self.publish();
        let watchers = self.shared.leader_watchers.lock().clone();
        for watcher in watchers {
            watcher(change.leader, change.term);
        }
    }

    /// The deciding half.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// When the next tick is due, by the node's clock.
    pub fn next_tick(&self) -> Duration {
        self.next_tick
    }

    fn publish(&self) {
        let standing = self.core.standing();
        let positions = &self.shared.positions;
        positions.term.store(standing.term, Ordering::Relaxed);
        positions.leader.store(standing.leader, Ordering::Relaxed);
        positions.committed.store(standing.committed, Ordering::Relaxed);
        positions.role.store(standing.role as u64, Ordering::Relaxed);
        positions.last.store(standing.last, Ordering::Relaxed);
        let leads = standing.role == Role::Leader && self.duties.led_term() == standing.term;
        let alone = leads && self.core.is_alone() && self.told_applied >= self.shared_to;
        positions.alone.store(alone, Ordering::SeqCst);
    }

    fn removed(&mut self, now: Duration) {
        if self.stop_at.is_some() {
            return;
        }
        let fields = [("local-member-id", Value::from(self.shared.member.to_string()))];
        self.shared.log.warn("the member has been permanently removed from the cluster", &fields);
        let msg = "the data-dir used by this member must be removed";
        self.shared.log.warn(msg, &fields);
        self.stop_at = Some(now + LEAVE);
    }

    /// Ends the waits of those who waited too long.
    fn expire(&mut self, now: Duration) {
        let expired = self.shared.waiters.take_expired(now);
        if !expired.is_empty() {
            let homeless: BTreeSet<u64> = self.homeless.iter().map(id_of).collect();
            let gone: BTreeSet<u64> = expired.iter().map(|&(id, _)| id).collect();
            self.homeless.retain(|proposal| !gone.contains(&id_of(proposal)));
            let transfer = self.core.standing().transferee != 0;
            for (id, waiter) in expired {
                let error = match (homeless.contains(&id), transfer) {
                    (false, _) => NodeError::Timeout,
                    (true, true) => NodeError::Dropped,
                    (true, false) => NodeError::NoLeader,
                };
                self.fail(waiter, error);
            }
        }
        let oldest = now.saturating_sub(self.shared.request_timeout);
        for waiter in self.reads.take_older(oldest) {
            self.shared.metrics.read_indexes_failed_total.fetch_add(1, Ordering::Relaxed);
            self.answers.push(waiter, Completion::Failed(NodeError::Timeout));
        }
    }

    fn fail(&mut self, waiter: Waiter, error: NodeError) {
        self.shared.metrics.proposals_failed_total.fetch_add(1, Ordering::Relaxed);
        self.shared.metrics.proposals_pending.fetch_sub(1, Ordering::Relaxed);
        self.answers.push(waiter, Completion::Failed(error));
    }

    /// The end: nobody is left waiting.
    pub fn fail_everybody(&mut self) {
        // If this thread ends for another reason than a stop, the node must stop all the same.
        self.shared.stop(StopReason::Asked);
        self.shared.positions.alone.store(false, Ordering::SeqCst);
        self.answer_over_quota();
        for (_, waiter) in self.shared.waiters.take_everybody() {
            self.fail(waiter, NodeError::Stopped);
        }
        let mut reads = self.reads.take_older(Duration::MAX);
        reads.extend(self.shared.reads.take_everybody());
        for waiter in reads {
            self.answers.push(waiter, Completion::Failed(NodeError::Stopped));
        }
        self.answers.deliver();
    }
}

fn id_of(proposal: &Proposal) -> u64 {
    if proposal.conf_change {
        request_id::of_conf_change(&proposal.data)
    } else {
        request_id::of_request(&proposal.data)
    }
}
