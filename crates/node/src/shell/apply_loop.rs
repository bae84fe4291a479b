//! The apply thread: owns the state machine, applies in log order, answers in batches. It waits for no disk. Of a lone
//! member's few entries the Raft thread takes its turns, see [`super::turns`].

use super::duties::Duty;
use super::keeper::{KeeperJob, Replaced};
use super::raft_loop::{Command, RaftLoop};
use super::shared::{MembershipAt, Shared};
use super::turns;
use crate::core::Input;
use crate::install;
use crate::log::Value;
use crate::request_id;
use crate::waiter::{Answers, Completion, Pending, Waiter};
use bytes::Bytes;
use milepost_machine::{Applied, Effect, Entry, EntryKind, Machine, Reply, Version};
use milepost_mvcc::{Store, Writer};
use milepost_proto::raftpb;
use milepost_types::{LogIndex, Term};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

/// Entries applied before their answers leave: enough to share a wake among many, little enough that nobody waits long.
const BATCH_ENTRIES: usize = 256;

/// Snapshot points are not made more often than this, unless by their bound in bytes: at a hundred thousand entries per
/// second their files would be written ten times a second, next to the log's own syncs.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// Work for the apply thread.
pub(crate) enum ApplyJob {
    /// Committed and durable here.
    Entries(Vec<raftpb::Entry>),
    /// The state is replaced by another member's.
    Snapshot(raftpb::Snapshot),
}

/// When snapshot points are due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SnapshotRule {
    pub entries: u64,
    pub bytes: u64,
}

/// The thread's state.
pub(crate) struct ApplyLoop {
    shared: Arc<Shared>,
    machine: Machine,
    answers: Answers,
    rule: SnapshotRule,
    /// Since the last snapshot point was asked for.
    since_snapshot: SnapshotRule,
    next_snapshot: Duration,
    /// The cluster's version, for the log.
    version: Option<Version>,
    warning_apply: Duration,
    /// Commit index at start: when it is applied, an election may be waiting for it.
    commit_at_start: u64,
    ids: Vec<u64>,
    waiting: Vec<Option<Pending>>,
    failed: bool,
}

impl ApplyLoop {
    pub fn new(
        shared: Arc<Shared>,
        machine: Machine,
        rule: SnapshotRule,
        since_snapshot: u64,
        warning_apply: Duration,
        commit_at_start: u64,
    ) -> Self {
        let version = shared.reader.cluster_version();
        Self {
            shared,
            machine,
            version,
            answers: Answers::default(),
            rule,
            since_snapshot: SnapshotRule { entries: since_snapshot, bytes: 0 },
            next_snapshot: Duration::ZERO,
            warning_apply,
            commit_at_start,
            ids: Vec::new(),
            waiting: Vec::new(),
            failed: false,
        }
    }

    /// Runs until the queue is closed, or an entry cannot be applied. With nothing to apply, stands in for a Raft thread that
    /// a turn of its own keeps.
    pub fn run(shared: &Shared, apply: &Mutex<Self>, raft: &Mutex<RaftLoop>) {
        let mut jobs = Vec::new();
        while shared.to_apply.wait(Some(turns::LONG_TURN)) {
            if shared.to_apply.is_empty() {
                turns::stand_in(shared, raft);
                continue;
            }
            let mut apply = apply.lock();
            // Not before it is this thread's turn: entries are applied in order.
            shared.to_apply.take_now(&mut jobs);
            if !jobs.drain(..).all(|job| apply.turn(job)) {
                return;
            }
        }
    }

    /// Does one job; false if the member must stop.
    pub fn turn(&mut self, job: ApplyJob) -> bool {
        // Nothing is applied after what could not be.
        self.failed = self.failed
            || !match job {
                ApplyJob::Entries(entries) => entries.chunks(BATCH_ENTRIES).all(|batch| self.batch(batch)),
                ApplyJob::Snapshot(snapshot) => {
                    let metadata = snapshot.metadata.unwrap_or_default();
                    self.install(metadata.index(), metadata.term())
                }
            };
        !self.failed
    }

    /// Another member's snapshot, which is durable in log and store, takes the place of the state; false if the member
    /// must stop. Who waits for an entry inside of it waits until its time is over, as in etcd: it cannot be told apart.
    fn install(&mut self, index: u64, term: u64) -> bool {
        let shared = Arc::clone(&self.shared);
        let fields = [
            ("current-applied-index", Value::from(self.machine.applied().0.0)),
            ("incoming-leader-snapshot-index", Value::from(index)),
            ("incoming-leader-snapshot-term", Value::from(term)),
        ];
        shared.log.info("applying snapshot", &fields);
        shared.metrics.snapshot_apply_in_progress.store(true, Ordering::Relaxed);
        let old = match self.replace(index) {
            Ok(old) => old,
            Err(why) => {
                shared.broken(format!("the snapshot at index {index} cannot take the place of the state: {why}"));
                return false;
            }
        };
        self.since_snapshot = SnapshotRule { entries: 0, bytes: 0 };
        self.note_membership(index);
        self.tell(Command::Members(shared.reader.membership()));
        // Watchers miss what lies between: they read it from the new store, or hear that it is compacted.
        shared.hub.invalidate();
        shared.positions.applied.store(index, Ordering::Release);
        shared.metrics.proposals_applied_total.store(index, Ordering::Relaxed);
        shared.metrics.proposals_committed_total.fetch_max(index, Ordering::Relaxed);
        shared.reads.applied_to(index, &mut self.answers);
        self.answers.deliver();
        self.tell(Command::Applied(index));
        let replaced = Replaced { index, old, spool: install::spool_path(&shared.snap_dir, index) };
        // A closed queue: the node stops, and the next start cleans up.
        let _ = shared.to_keeper.push(KeeperJob::Installed(replaced));
        shared.installer.finish();
        if let Some(version) = shared.reader.cluster_version().filter(|version| self.version != Some(*version)) {
            self.log_version(version);
        }
        shared.metrics.snapshot_apply_in_progress.store(false, Ordering::Relaxed);
        shared.log.info("applied snapshot", &fields);
        true
    }

    /// The store of before and its writer.
    fn replace(&mut self, index: u64) -> Result<(Store, Writer), String> {
        let old = self.shared.store();
        let imported = self.shared.installer.take(index).ok_or("its database is not there")?;
        let (revision, own) = (imported.revision(), old.revision());
        if revision < own {
            return Err(format!("it ends at revision {revision}, this member is at {own}: it is of another history"));
        }
        let (store, writer, opened) = imported.take_over().map_err(|error| error.to_string())?;
        let writer = self.machine.replace(store, writer, &opened).map_err(|error| error.to_string())?;
        Ok((old, writer))
    }

    /// The state machine, when all is over.
    pub fn into_machine(self) -> Machine {
        self.machine
    }

    /// The state machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// False if the member must stop.
    fn batch(&mut self, entries: &[raftpb::Entry]) -> bool {
        let ids = entries.iter().map(|entry| match kind(entry) {
            EntryKind::Normal => request_id::of_request(entry.data()),
            EntryKind::ConfChange => request_id::of_conf_change(entry.data()),
        });
        self.shared.log.debug_with("Applying entries", || [("num-entries", entries.len().into())]);
        self.ids.clear();
        self.ids.extend(ids);
        let mut waiting = std::mem::take(&mut self.waiting);
        self.shared.waiters.take_all(&self.ids, &mut waiting);
        let mut urgent = None;
        let mut ok = true;
        for (entry, pending) in entries.iter().zip(waiting.drain(..)) {
            let waiter = pending.map(|pending| pending.waiter);
            if !ok {
                self.give_up(waiter);
                continue;
            }
            match self.entry(entry, waiter) {
                Some(true) => urgent = Some(entry.index()),
                Some(false) => {}
                None => ok = false,
            }
        }
        self.waiting = waiting;
        self.answers.deliver();
        // After the positions of this batch: see the keeper, and `Shared::is_applied_or_tell`.
        fence(Ordering::SeqCst);
        if self.shared.is_applied_wanted() {
            urgent = Some(self.shared.applied());
        }
        if let Some(index) = urgent {
            self.tell(Command::Applied(index));
        }
        self.ask_for_snapshot_point();
        ok
    }

    fn give_up(&mut self, waiter: Option<Waiter>) {
        if let Some(waiter) = waiter {
            self.shared.metrics.proposals_pending.fetch_sub(1, Ordering::Relaxed);
            self.answers.push(waiter, Completion::Failed(crate::NodeError::Stopped));
        }
    }

    /// Applies one; whether the Raft thread should hear of it at once, or `None` if it cannot be applied.
    fn entry(&mut self, entry: &raftpb::Entry, waiter: Option<Waiter>) -> Option<bool> {
        let index = entry.index();
        let empty = Bytes::new();
        let data = entry.data.as_ref().unwrap_or(&empty);
        self.shared.log.debug_with("Applying entry", || {
            let kind = if kind(entry) == EntryKind::ConfChange { "EntryConfChange" } else { "EntryNormal" };
            [
                ("entry-index", index.into()),
                ("entry-term", entry.term().into()),
                ("entry-type", kind.into()),
                ("entry-bytes", data.len().into()),
            ]
        });
        let start = self.shared.now();
        let subject = Entry { index: LogIndex(index), term: Term(entry.term()), kind: kind(entry), data };
        let applied = match self.machine.apply(subject, waiter.is_some()) {
            Ok(applied) => applied,
            Err(fatal) => {
                self.shared.broken(format!("entry {index} cannot be applied: {fatal}"));
                self.give_up(waiter);
                return None;
            }
        };
        self.measure(start, index, &applied);
        self.since_snapshot.entries += 1;
        self.since_snapshot.bytes += data.len() as u64;
        if let Some(events) = &applied.events {
            self.shared.hub.publish(Arc::clone(events));
        }
        let urgent = self.effects(&applied, index) || index == self.commit_at_start;
        // Now reads may see it, and the Raft thread may know.
        self.shared.positions.applied.store(index, Ordering::Release);
        self.shared.metrics.proposals_applied_total.store(index, Ordering::Relaxed);
        self.shared.reads.applied_to(index, &mut self.answers);
        if let Some(waiter) = waiter {
            self.answer(waiter, applied);
        }
        Some(urgent)
    }

    fn measure(&self, start: Duration, index: u64, applied: &Applied) {
        let took = self.shared.now().saturating_sub(start);
        let metrics = &self.shared.metrics;
        if let Some(operation) = applied.operation {
            metrics.apply_duration_seconds[operation][usize::from(applied.refused)].observe(took);
        }
        if took > self.warning_apply {
            metrics.slow_apply_total.fetch_add(1, Ordering::Relaxed);
            let fields = [
                ("took", Value::from(took)),
                ("expected-duration", Value::from(self.warning_apply)),
                ("index", Value::from(index)),
            ];
            self.shared.log.warn("apply request took too long", &fields);
        }
    }

    fn answer(&mut self, waiter: Waiter, applied: Applied) {
        self.shared.metrics.proposals_pending.fetch_sub(1, Ordering::Relaxed);
        let completion = Completion::Reply(applied.reply.unwrap_or(Ok(Reply::Empty)));
        let over_quota = applied.effects.iter().any(|effect| matches!(effect, Effect::RaiseAlarm { .. }));
        if over_quota {
            // As in etcd: whoever hears of it finds the alarm raised.
            let refused = self.shared.to_raft.push(Command::OverQuota(waiter, completion));
            if let Err(Command::OverQuota(waiter, completion)) = refused {
                self.answers.push(waiter, completion);
            }
            return;
        }
        self.answers.push(waiter, completion);
    }

    /// What the member has to do about an entry; whether the Raft thread should hear of it at once.
    fn effects(&mut self, applied: &Applied, index: u64) -> bool {
        let mut urgent = false;
        for effect in &applied.effects {
            match effect {
                Effect::ConfChange { change, peer_urls, .. } => {
                    urgent = true;
                    self.conf_change(index, change.as_ref(), peer_urls);
                }
                Effect::MemberAttributes { .. } => self.note_membership(index),
                Effect::ClusterVersion { version, .. } => {
                    self.note_membership(index);
                    self.log_version(*version);
                }
                Effect::EmptyEntry { term } => {
                    urgent = true;
                    self.tell(Command::Duty(Duty::TermStarted(term.0)));
                }
                Effect::RaiseAlarm { .. } => self.tell(Command::Duty(Duty::RaiseNoSpace)),
                Effect::PhysicalCompaction { .. } => {}
            }
        }
        urgent
    }

    fn was_learner(&self, id: u64) -> bool {
        self.shared.membership.lock().last().is_some_and(|before| before.conf_state.learners.contains(&id))
    }

    fn conf_change(&self, index: u64, change: Option<&raftpb::ConfChange>, peer_urls: &[String]) {
        let shared = &self.shared;
        if let Some(change) = change {
            let mut fields = vec![
                ("cluster-id", Value::from(shared.cluster.to_string())),
                ("local-member-id", Value::from(shared.member.to_string())),
            ];
            let subject = Value::from(format!("{:x}", change.node_id()));
            let urls = Value::from(peer_urls.to_vec());
            let message = match change.r#type() {
                1 => {
                    if change.node_id() == shared.member.0 {
                        self.tell(Command::Removed);
                    }
                    fields.push(("removed-remote-peer-id", subject));
                    "removed member"
                }
                2 => {
                    fields.extend([("updated-remote-peer-id", subject), ("updated-remote-peer-urls", urls)]);
                    "updated member"
                }
                0 if self.was_learner(change.node_id()) => {
                    fields.push(("promoted-member-id", subject));
                    "promote member"
                }
                kind => {
                    fields.extend([("added-peer-id", subject), ("added-peer-peer-urls", urls)]);
                    fields.push(("added-peer-is-learner", Value::from(kind == 3)));
                    "added member"
                }
            };
            shared.log.info(message, &fields);
        }
        self.note_membership(index);
        self.tell(Command::Members(shared.reader.membership()));
        self.tell(Command::Input(Input::ConfChangeApplied { index, change: change.cloned() }));
    }

    fn log_version(&mut self, version: Version) {
        let minor = |version: Version| format!("{}.{}", version.major, version.minor);
        let mut fields = vec![
            ("cluster-id", Value::from(self.shared.cluster.to_string())),
            ("local-member-id", Value::from(self.shared.member.to_string())),
        ];
        let now = [("cluster-version", Value::from(minor(version)))];
        match self.version.replace(version) {
            None => {
                fields.extend(now.clone());
                self.shared.log.info("set initial cluster version", &fields);
            }
            Some(before) => {
                fields.extend([("from", minor(before).into()), ("to", minor(version).into())]);
                self.shared.log.info("updated cluster version", &fields);
            }
        }
        self.shared.log.info("enabled capabilities for version", &now);
        self.shared.log.info("cluster version is updated", &now);
    }

    /// Remembers the membership after this entry, for snapshot points at or after it.
    fn note_membership(&self, index: u64) {
        let conf_state = self.machine.conf_state().clone();
        let v2_json = self.machine.membership_v2_json();
        let learner = conf_state.learners.contains(&self.shared.member.0);
        self.shared.metrics.is_learner.store(learner, Ordering::Relaxed);
        self.shared.membership.lock().push(MembershipAt { index, conf_state, v2_json });
    }

    fn ask_for_snapshot_point(&mut self) {
        if self.shared.point_waits.swap(false, Ordering::SeqCst) {
            // A closed queue: the node stops.
            let _ = self.shared.to_keeper.push(KeeperJob::SnapshotPoint);
        }
        let since = self.since_snapshot;
        let many = since.entries >= self.rule.entries && self.shared.now() >= self.next_snapshot;
        if many || since.bytes >= self.rule.bytes {
            self.next_snapshot = self.shared.now() + SNAPSHOT_INTERVAL;
            self.since_snapshot = SnapshotRule { entries: 0, bytes: 0 };
            // A closed queue: the node stops.
            let _ = self.shared.to_keeper.push(KeeperJob::SnapshotPoint);
        }
    }

    fn tell(&self, command: Command) {
        // A closed queue: the node stops.
        let _ = self.shared.to_raft.push(command);
    }
}

fn kind(entry: &raftpb::Entry) -> EntryKind {
    if entry.r#type() == 1 { EntryKind::ConfChange } else { EntryKind::Normal }
}
