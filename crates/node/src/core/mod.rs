//! The deciding half of the node: plain input in, effects out.
//!
//! ```text
//!   Tick, Propose, Read, Message,          ┌──────────────────────────┐   Persist ──► log thread ──► Persisted ─┐
//!   Persisted, Applied, ConfChange… ─────► │ Core: raft::RawNode over │ ──► Apply ──► apply thread ─► Applied ──┤
//!                ▲                         │ MemoryLog, held messages │   Send ────► peers                      │
//!                │                         └──────────────────────────┘   ReadReady, RoleChanged, Fetch …       │
//!                └──────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! There is no IO here, no clock, no thread, and no randomness but a seed: the same inputs give the same effects, byte for
//! byte. Time is [`Input::Tick`]. One member alone is a cluster of one voter and takes the same path.
//!
//! # Rules
//! 1. Entries and snapshot of a Ready are visible in [`MemoryLog`] before the crate is advanced; nothing is stepped
//!    between.
//! 2. Readies are persisted in order; the crate hears of it before any message that waited for it leaves.
//! 3. A Ready that changes term or vote holds back all its messages and those of every later Ready until it is durable,
//!    also a leader's. (A lone voter becomes leader inside one Ready; its appends to learners must not outlive its term.)
//! 4. Otherwise a follower's append responses, votes and vote requests wait for their own Ready, in order; heartbeat
//!    responses and forwarded reads and proposals leave at once.
//! 5. A leader's appends leave before its own sync; it counts itself only after it.
//! 6. Raft follows a conf change when it is applied, once; append responses of a Ready that hands one out wait for that.
//! 7. Only entries that are committed *and* durable here are handed out to be applied.
//!
//! A commit index that moves alone is not worth a write: it travels with the next Ready that has something to persist, or
//! at the next tick.

mod changes;
mod convert;
mod effect;
mod held;
mod memory_log;
mod reads;
mod ready;
mod stall;
mod standing;
pub mod validate;

#[cfg(test)]
mod sim_test;

pub use effect::{Effect, Input, Persist, Proposal, Role, RoleChange};
pub use memory_log::MEMORY_BYTES_MAX;
pub use standing::{PeerProgress, RaftStatus, Standing};

use held::Held;
use memory_log::MemoryLog;
use milepost_proto::raftpb;
use raft::eraftpb::{self as inner, MessageType};
use raft::{GetEntriesContext, RawNode, StateRole};
use reads::Reads;
use stall::Stall;
use std::collections::{BTreeMap, VecDeque};

/// Bytes of entries in one append, and of committed entries in one Ready. etcd: `maxSizePerMsg`.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Appends under way to one follower. etcd: `maxInflightMsgs`.
const INFLIGHT_MESSAGES_MAX: usize = 512;

/// How this member takes part.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Its member id; not 0.
    pub id: u64,
    /// Where election timeouts come from, together with id and term.
    pub seed: u64,
    /// Ticks without a leader before an election; up to twice as many by chance. Above `heartbeat_ticks`.
    pub election_ticks: usize,
    /// Ticks between heartbeats. etcd: 1.
    pub heartbeat_ticks: usize,
    /// Ask before standing for election.
    pub pre_vote: bool,
    /// First of the numbers that mark this member's read requests; unique among members and over restarts.
    pub first_read_context: u64,
    /// Bytes of applied entries to keep in memory, see [`MEMORY_BYTES_MAX`].
    pub memory_bytes_max: usize,
}

/// What recovery found.
#[derive(Clone, Debug)]
pub struct Restart {
    /// From the log, see [`Restart::raise`].
    pub hard_state: raftpb::HardState,
    /// As of `applied`.
    pub conf_state: raftpb::ConfState,
    /// The cut, before the first entry that can be sent, and from there on to the first of `entries` where terms begin: the
    /// first index of each and the term. Never none; (0, 0) in a log from its start.
    pub terms: Vec<(u64, u64)>,
    /// Contiguous, from the cut or from a place between it and `applied`; what lies before is read from disk when somebody
    /// wants it.
    pub entries: Vec<raftpb::Entry>,
    /// The store has everything up to here. Between the cut and the commit index.
    pub applied: u64,
}

impl Default for Restart {
    /// Of a log that holds nothing.
    fn default() -> Self {
        let (hard_state, conf_state) = Default::default();
        Self { hard_state, conf_state, terms: vec![(0, 0)], entries: Vec::new(), applied: 0 }
    }
}

impl Restart {
    /// Raises what the disk may have written late: the commit index to what is applied (a commit that moves alone is not
    /// synced), and the term to that of the last entry (an entry is written before the hard state of its term; a vote in
    /// that term would have been durable before, so there was none).
    pub fn raise(&mut self) {
        let state = &mut self.hard_state;
        state.commit = Some(state.commit().max(self.applied));
        let term_before = self.terms.last().map_or(0, |(_, term)| *term);
        let last_term = self.entries.last().map_or(term_before, raftpb::Entry::term);
        if last_term > state.term() {
            state.term = Some(last_term);
            state.vote = Some(0);
        }
    }
}

/// Broken truth: the member must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// Raft cannot start from what recovery found, or cannot follow a committed change.
    #[error("consensus: {doing}: {why}")]
    Raft {
        /// What was tried.
        doing: &'static str,
        /// The crate's words.
        why: String,
    },
}

fn broken(doing: &'static str) -> impl Fn(raft::Error) -> CoreError {
    move |error| CoreError::Raft { doing, why: error.to_string() }
}

/// See the module.
pub struct Core {
    config: CoreConfig,
    node: RawNode<MemoryLog>,
    held: Held,
    reads: Reads,
    stall: Stall,
    /// Ticks so far.
    now: u64,
    /// Last Ready's number.
    last_ready: u64,
    /// (number, tick) of those whose [`Persist`] is under way, ascending.
    outstanding: VecDeque<(u64, u64)>,
    /// As of the last Persist, and as of the last Ready; they differ in commit only.
    hard_state_written: raftpb::HardState,
    hard_state: raftpb::HardState,
    /// Last index handed out in an Apply or snapshot.
    handed_out: u64,
    /// Conf changes handed out and not reported, ascending.
    conf_changes_out: VecDeque<u64>,
    /// Messages that ask for conf changes and wait for another to be applied.
    changes: Vec<inner::Message>,
    /// Index of the newest snapshot received: conf changes before it are in its configuration.
    snapshot_index: u64,
    /// Received snapshots whose Persist is under way: (number, snapshot).
    snapshots: VecDeque<(u64, raftpb::Snapshot)>,
    /// Waiting for entries from disk, by ticket: the first entry, and for whom. Who needs the same shares one read.
    fetches: BTreeMap<u64, (u64, Vec<GetEntriesContext>)>,
    last_fetch: u64,
    /// Term whose first commit was seen.
    first_commit_term: u64,
    role: Role,
    term: u64,
    leader: u64,
    /// Commit index at start: a lone voter stands for election once it has applied that far.
    commit_at_start: u64,
    /// Has it?
    campaigned_at_start: bool,
}

impl Core {
    /// Takes up where recovery says.
    ///
    /// # Errors
    /// If what recovery found cannot be true.
    pub fn new(config: CoreConfig, restart: &Restart) -> Result<Self, CoreError> {
        let log = MemoryLog::new(
            convert::hard_state_in(&restart.hard_state),
            convert::conf_state_in(&restart.conf_state),
            restart.terms.clone(),
            restart.applied,
            restart.entries.iter().map(convert::entry_in).collect(),
            config.memory_bytes_max,
        );
        let raft_config = raft::Config {
            id: config.id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: restart.applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
            check_quorum: true,
            pre_vote: config.pre_vote,
            max_committed_size_per_ready: MESSAGE_BYTES_MAX,
            ..raft::Config::default()
        };
        // The crate's own lines are for its developers; ours are made from role changes.
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&raft_config, log, &silent).map_err(broken("start"))?;
        let mut core = Self {
            held: Held::default(),
            reads: Reads::new(config.first_read_context),
            stall: Stall::default(),
            now: 0,
            last_ready: 0,
            outstanding: VecDeque::new(),
            hard_state_written: restart.hard_state,
            hard_state: restart.hard_state,
            handed_out: restart.applied,
            conf_changes_out: VecDeque::new(),
            changes: Vec::new(),
            snapshot_index: 0,
            snapshots: VecDeque::new(),
            fetches: BTreeMap::new(),
            last_fetch: 0,
            first_commit_term: 0,
            role: Role::Follower,
            term: node.raft.term,
            leader: 0,
            commit_at_start: node.raft.raft_log.committed,
            campaigned_at_start: false,
            config,
            node,
        };
        core.set_election_timeout();
        Ok(core)
    }

    /// Takes one input; what is to be done goes to the end of `effects`.
    ///
    /// # Errors
    /// Broken truth; the core must not be used any more.
    ///
    /// # Panics
    /// If the caller breaks the order of inputs: reports what was not asked for, or applied entries whose conf changes it
    /// kept for itself.
    pub fn handle(&mut self, input: Input, effects: &mut Vec<Effect>) -> Result<(), CoreError> {
        match input {
            Input::Tick => self.tick(effects),
            Input::Propose(proposals) => self.propose(proposals, effects),
            Input::Read { batch } => self.read(batch),
            Input::Message(message) => self.message(&message, effects),
            Input::Persisted(number) => self.persisted(number, effects),
            Input::ConfChangeApplied { index, change } => self.conf_change_applied(index, change.as_ref())?,
            Input::Applied(index) => self.applied(index),
            Input::Campaign => self.campaign(),
            Input::FastForward => self.fast_forward(),
            Input::TransferLeader(to) => self.node.transfer_leader(to),
            Input::Unreachable(peer) => self.node.report_unreachable(peer),
            Input::SnapshotSent { to, ok } => {
                let status = if ok { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
                self.node.report_snapshot(to, status);
            }
            Input::Fetched { ticket, entries } => self.fetched(ticket, &entries),
            Input::CutTo(index) => self.node.mut_store().cut_to(index),
        }
        self.settle(effects);
        self.campaign_alone_at_start(effects);
        Ok(())
    }

    /// After a step: the crate's random timeout is replaced, Readies become effects, whoever must know of a new role is
    /// told.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        self.set_election_timeout();
        self.release_changes();
        self.drain(effects);
        self.note_role(effects);
        self.resend_reads_at_first_commit();
        self.drain(effects);
    }

    fn tick(&mut self, effects: &mut Vec<Effect>) {
        self.now += 1;
        if self.may_tick() {
            self.node.tick();
        }
        self.leave_stalled_leadership();
        if self.reads.tick(self.now) {
            self.send_read();
        }
        self.write_lagging_commit(effects);
    }

    /// A lone voter whose log is not durable up to its end must not stand for election: it would win at once, over
    /// entries that it may still lose. Nor may a member whose state is being replaced by a received snapshot: what it has
    /// not applied is no longer in its log, where the crate looks for conf changes before it stands (and panics).
    fn may_tick(&self) -> bool {
        self.role == Role::Leader || (self.has_installed() && (!self.is_only_voter() || self.log_is_durable()))
    }

    /// Is every received snapshot applied?
    fn has_installed(&self) -> bool {
        self.node.raft.raft_log.applied + 1 >= self.node.store().first()
    }

    fn log_is_durable(&self) -> bool {
        let log = &self.node.raft.raft_log;
        log.persisted == log.last_index()
    }

    fn is_only_voter(&self) -> bool {
        let voters = self.node.raft.prs().conf().voters();
        voters.contains(self.config.id) && self.node.raft.prs().is_singleton()
    }

    fn campaign(&mut self) {
        if self.may_tick() {
            // Refused by the crate while a conf change is committed and not applied; the next tick tries again.
            let _ = self.node.campaign();
        }
    }

    /// Lets the first election come soon; a leader that is there is heard first. Source: etcd `adjustTicks`.
    fn fast_forward(&mut self) {
        let elapsed = self.config.election_ticks.saturating_sub(2);
        let raft = &mut self.node.raft;
        if raft.state == raft::StateRole::Follower && raft.leader_id == 0 {
            raft.election_elapsed = raft.election_elapsed.max(elapsed);
        }
    }

    /// Nobody else can lead: waiting for a timeout would only delay the first answer.
    fn campaign_alone_at_start(&mut self, effects: &mut Vec<Effect>) {
        let log = &self.node.raft.raft_log;
        if self.campaigned_at_start || log.applied < self.commit_at_start {
            return;
        }
        if !self.is_only_voter() {
            self.campaigned_at_start = !self.node.raft.prs().conf().voters().ids().is_empty();
        } else if self.log_is_durable() && self.outstanding.is_empty() {
            self.campaigned_at_start = true;
            self.campaign();
            self.settle(effects);
        }
    }

    fn propose(&mut self, proposals: Vec<Proposal>, effects: &mut Vec<Effect>) {
        if proposals.is_empty() {
            return;
        }
        // What is forwarded travels in pieces, so that other messages find gaps.
        let bytes_max = if self.role == Role::Leader { usize::MAX } else { MESSAGE_BYTES_MAX as usize };
        let mut rest = proposals;
        while !rest.is_empty() {
            let later = rest.split_off(first_piece(&rest, bytes_max));
            if self.step_proposals(&rest).is_err() {
                rest.extend(later);
                effects.push(Effect::Dropped(rest));
                return;
            }
            rest = later;
        }
    }

    fn step_proposals(&mut self, proposals: &[Proposal]) -> raft::Result<()> {
        let entries = proposals.iter().map(|proposal| {
            convert::entry_in(&raftpb::Entry {
                r#type: Some(if proposal.conf_change { convert::ENTRY_CONF_CHANGE } else { 0 }),
                data: Some(proposal.data.clone()),
                ..raftpb::Entry::default()
            })
        });
        let mut message = inner::Message { from: self.config.id, ..inner::Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.collect());
        self.node.step(message)
    }

    fn read(&mut self, batch: u64) {
        if self.reads.ask(batch) {
            self.send_read();
        }
    }

    fn send_read(&mut self) {
        let context = self.reads.next_context(self.now);
        self.node.read_index(context.to_be_bytes().to_vec());
    }

    fn resend_reads_at_first_commit(&mut self) {
        let raft = &self.node.raft;
        if self.first_commit_term != raft.term && raft.commit_to_current_term() {
            self.first_commit_term = raft.term;
            if self.reads.is_waiting() {
                self.send_read();
            }
        }
    }

    fn message(&mut self, message: &raftpb::Message, effects: &mut Vec<Effect>) {
        let view = validate::View {
            id: self.config.id,
            term: self.node.raft.term,
            leader: self.role == Role::Leader,
            last: self.node.raft.raft_log.last_index(),
        };
        if let Err(why) = validate::message(message, &view) {
            effects.push(Effect::Refused { from: message.from(), why });
            return;
        }
        let Some(message) = convert::message_in(message) else { return };
        if message.get_msg_type() == MessageType::MsgTimeoutNow && !self.may_tick() {
            return;
        }
        let Some(message) = self.keep_change_back(message) else { return };
        // What is left are normal events: responses of members we do not know, proposals while there is no leader.
        let _ = self.node.step(message);
    }

    fn persisted(&mut self, number: u64, effects: &mut Vec<Effect>) {
        assert!(number <= self.last_ready, "Ready {number} was never handed out, the last is {}", self.last_ready);
        while self.outstanding.front().is_some_and(|&(first, _)| first <= number) {
            self.outstanding.pop_front();
        }
        self.report_persisted();
        while self.snapshots.front().is_some_and(|&(first, _)| first <= number) {
            let (_, snapshot) = self.snapshots.pop_front().expect("it has a front");
            effects.push(Effect::ApplySnapshot(snapshot));
        }
        self.held.release(self.durable_ready(), self.conf_changes_out.front().copied(), effects);
    }

    /// Has Raft taken the snapshot at `index`, which is not handed out yet?
    #[must_use]
    pub fn has_taken_snapshot(&self, index: u64) -> bool {
        let is_it = |(_, snapshot): &(u64, raftpb::Snapshot)| {
            snapshot.metadata.as_ref().is_some_and(|metadata| metadata.index() == index)
        };
        self.snapshots.iter().any(is_it)
    }

    /// The highest Ready before which nothing waits for the disk.
    fn durable_ready(&self) -> u64 {
        self.outstanding.front().map_or(self.last_ready, |&(first, _)| first - 1)
    }

    fn report_persisted(&mut self) {
        let number = self.durable_ready();
        self.node.on_persist_ready(number);
    }

    fn conf_change_applied(&mut self, index: u64, change: Option<&raftpb::ConfChange>) -> Result<(), CoreError> {
        let expected = self.conf_changes_out.pop_front();
        assert_eq!(expected, Some(index), "conf changes are reported once each, in order");
        let news = change.filter(|_| index > self.snapshot_index);
        if let Some(change) = news.and_then(convert::conf_change_in) {
            let conf_state = self.node.apply_conf_change(&change).map_err(broken("follow a conf change"))?;
            self.node.mut_store().set_conf_state(conf_state);
            self.leave_leadership_when_removed();
        }
        Ok(())
    }

    /// A leader that has removed itself leads no longer: the crate looks for its own progress at every sync and every
    /// answer, and panics without it. What it committed it has told the others by now; who has most of them stands for
    /// election at once.
    fn leave_leadership_when_removed(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader || raft.prs().get(self.config.id).is_some() {
            return;
        }
        let (term, successor) = (raft.term, self.successor());
        let raft = &mut self.node.raft;
        if let Some((successor, _)) = successor {
            raft.send_timeout_now(successor);
        }
        raft.become_follower(term, 0);
    }

    fn applied(&mut self, index: u64) {
        assert!(index <= self.handed_out, "applied {index}, handed out only up to {}", self.handed_out);
        let conf_change = self.conf_changes_out.front().copied();
        assert!(conf_change.is_none_or(|at| at > index), "applied {index} with conf change {conf_change:?} unreported");
        if index <= self.node.raft.raft_log.applied {
            return;
        }
        self.node.advance_apply_to(index);
        let persisted = self.node.raft.raft_log.persisted;
        let alone = self.is_alone();
        self.node.mut_store().applied_to(index, persisted, alone);
    }

    fn fetched(&mut self, ticket: u64, entries: &[raftpb::Entry]) {
        let Some((from, contexts)) = self.fetches.remove(&ticket) else { return };
        for context in contexts {
            self.node.store().put_fetched(entries);
            self.node.on_entries_fetched(context);
        }
        // Who no longer wants them leaves them lying.
        self.node.store().drop_fetched(from);
    }

    /// Gives up leadership when the own disk keeps it from committing what a quorum already has.
    fn leave_stalled_leadership(&mut self) {
        let raft = &mut self.node.raft;
        let oldest = self.outstanding.front().map(|&(_, since)| since);
        match self.stall.tick(self.now, oldest, self.config.election_ticks as u64, self.config.id, raft) {
            stall::Verdict::None => {}
            stall::Verdict::Transfer(to) => self.node.transfer_leader(to),
            stall::Verdict::Resign => {
                let term = raft.term;
                raft.become_follower(term, 0);
            }
        }
    }

    /// The crate draws its timeout from the thread's generator; what counts is this one.
    fn set_election_timeout(&mut self) {
        let ticks = self.config.election_ticks as u64;
        let drawn = mix(self.config.seed ^ mix(self.config.id ^ mix(self.node.raft.term)));
        self.node.raft.set_randomized_election_timeout((ticks + drawn % ticks) as usize);
    }
}

/// How many of `proposals` make a message of at most `bytes_max`; one at least.
fn first_piece(proposals: &[Proposal], bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |proposal: &&Proposal| {
        bytes += proposal.data.len();
        bytes <= bytes_max
    };
    proposals.iter().take_while(fits).count().max(1)
}

/// A finalizer that spreads every bit of its input (the constants are splitmix64's).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
