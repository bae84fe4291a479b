//! One door: everything that a core's connections share, and the verbs that handlers use.
//!
//! A [`Door`] lives on one thread and is never locked. Handlers see it, the [`Call`] and a decoded message; they answer
//! with a decoded message or a [`Status`]. No word about HTTP here.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use milepost_machine::{Member, Reader, Reply};
use milepost_proto::Message;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::raftpb::ConfChange;
use milepost_types::MemberId;
use tokio::sync::{Semaphore, watch};

use crate::backend::{Backend, Completion, NodeError, Waiter};
use crate::call::Call;
use crate::completions::{Expired, SWEEP_EVERY, Sink, Slots, Wait};
use crate::config::{ApiConfig, SlowCall};
use crate::handlers::leader;
use crate::metrics::{DoorMetrics, Page};
use crate::status::{self, Code, Status};

/// How long what is committed may take to be applied. Source: etcd `applyTimeout`.
const APPLY_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked at.
const APPLY_STEP: Duration = Duration::from_millis(2);
/// Names of kinds by their numbers. Source: `raftpb.ConfChangeType`.
const CONF_CHANGES: [&str; 4] =
    ["ConfChangeAddNode", "ConfChangeRemoveNode", "ConfChangeUpdateNode", "ConfChangeAddLearnerNode"];

/// What the connections of one core share.
pub(crate) struct Door {
    pub(crate) config: Arc<ApiConfig>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) metrics: Arc<DoorMetrics>,
    pub(crate) page: Arc<Page>,
    pub(crate) sink: Arc<Sink>,
    pub(crate) slots: Rc<Slots>,
    /// What the health service says: the same for every door.
    pub(crate) serving: Arc<watch::Sender<bool>>,
    /// A place for each snapshot that may be on its way to a client, over all doors.
    pub(crate) snapshots: Arc<Semaphore>,
    /// A place for each question that may be under way to the leader from this door.
    pub(crate) forwards: Semaphore,
    /// Set once, when the server stops: open streams end.
    pub(crate) is_stopping: Cell<bool>,
    /// No leader for three election timeouts: streams that asked for one end.
    pub(crate) is_leader_lost: Cell<bool>,
    reads: Reads,
    leadership: Leadership,
}

/// Linearizable reads that will share the next confirmation.
#[derive(Default)]
struct Reads {
    tickets: RefCell<Vec<u64>>,
    flusher: Cell<Option<Waker>>,
}

/// When the leader was last seen to change; tells the reasons of a timeout apart.
#[derive(Default)]
struct Leadership {
    leader: Cell<u64>,
    /// When somebody looked last; a change that nobody saw happen tells nothing.
    looked: Cell<Option<Instant>>,
    elected: Cell<Option<Instant>>,
    lost: Cell<Option<Instant>>,
}

impl Door {
    pub(crate) fn new(
        config: Arc<ApiConfig>,
        backend: Arc<dyn Backend>,
        metrics: Arc<DoorMetrics>,
        page: Arc<Page>,
        serving: Arc<watch::Sender<bool>>,
        snapshots: Arc<Semaphore>,
    ) -> Self {
        Self {
            config,
            backend,
            metrics,
            page,
            sink: Arc::new(Sink::new()),
            slots: Rc::default(),
            serving,
            snapshots,
            forwards: Semaphore::new(leader::AT_ONCE),
            is_stopping: Cell::new(false),
            is_leader_lost: Cell::new(false),
            reads: Reads::default(),
            leadership: Leadership::default(),
        }
    }

    fn waiter(&self, ticket: u64) -> Waiter {
        Waiter { sink: self.sink.clone(), ticket }
    }

    /// When `call` must be answered, and whose limit that is.
    fn deadline(&self, call: &Call) -> (Instant, Expired) {
        let ours = call.started + self.config.limits.request_timeout();
        match call.deadline {
            Some(theirs) if theirs < ours => (theirs, Expired::Client),
            _ => (ours, Expired::Server),
        }
    }

    /// Takes `request` through the log and returns what applying it answered.
    ///
    /// # Errors
    /// What the state machine refused, what the node could not do, or that time ran out. The last does not mean that
    /// the request will not be applied.
    pub(crate) async fn propose(&self, call: &Call, request: Request) -> Result<Reply, Status> {
        let wait = self.post(call, request)?;
        self.answer(call, wait.await)
    }

    /// Takes a change of membership through the log; the members after it. `change` is made with the id of the request.
    ///
    /// # Errors
    /// As [`Door::propose`].
    pub(crate) async fn propose_change(
        &self,
        call: &Call,
        change: impl FnOnce(u64) -> ConfChange,
    ) -> Result<Vec<pb::Member>, Status> {
        let id = self.backend.next_request_id();
        let change = change(id);
        let (deadline, kind) = self.deadline(call);
        let wait = self.slots.open(deadline, kind);
        self.backend.propose_conf_change(id, Bytes::from(change.encode_to_vec()), self.waiter(wait.ticket()));
        match self.answer(call, wait.await)? {
            Reply::ConfChange(members) => {
                let kind = CONF_CHANGES.get(usize::try_from(change.r#type()).unwrap_or(usize::MAX));
                let fields = [
                    ("local-member-id", MemberId(self.backend.standing().member_id).to_string().into()),
                    ("raft-conf-change", kind.copied().unwrap_or("unknown").into()),
                    ("raft-conf-change-node-id", MemberId(change.node_id()).to_string().into()),
                ];
                self.config.log.info("applied a configuration change through raft", &fields);
                Ok(members)
            }
            _ => Err(confused("another reply than to a change of membership")),
        }
    }

    /// What the end of a proposal means for its caller.
    fn answer(&self, call: &Call, end: Result<Completion, Expired>) -> Result<Reply, Status> {
        match end {
            Ok(Completion::Reply(reply)) => Ok(reply?),
            // Never proposed for want of a leader: etcd's callers see their own deadline pass.
            Ok(Completion::Failed(NodeError::NoLeader)) => Err(status::DEADLINE),
            Ok(Completion::Failed(NodeError::Timeout)) => Err(self.why_no_answer(call.started)),
            Ok(Completion::Failed(why)) => Err(why.into()),
            Ok(Completion::ReadReady) => Err(confused("a read's answer for a proposal")),
            Err(Expired::Client) => Err(status::DEADLINE),
            Err(Expired::Server) => Err(self.why_no_answer(call.started)),
        }
    }

    /// Hands `request` to the node. Not part of the future above, which would carry it while it waits.
    fn post(&self, call: &Call, request: Request) -> Result<Wait, Status> {
        let id = self.backend.next_request_id();
        let header = pb::RequestHeader { id, ..Default::default() };
        let entry = pb::InternalRaftRequest { header: Some(header), id: 0, request: Some(request) };
        let payload = milepost_machine::encode(&entry);
        if payload.len() > self.config.limits.max_request_bytes {
            return Err(status::REQUEST_TOO_LARGE);
        }
        let (deadline, kind) = self.deadline(call);
        let wait = self.slots.open(deadline, kind);
        self.backend.propose(id, Bytes::from(payload), self.waiter(wait.ticket()));
        Ok(wait)
    }

    /// Refuses a write of `cost` bytes when the store is full, and raises the alarm then.
    ///
    /// # Errors
    /// No space.
    pub(crate) async fn check_quota(&self, call: &Call, cost: u64) -> Result<(), Status> {
        let Err(why) = self.reader().check_quota(cost) else { return Ok(()) };
        let member_id = self.backend.standing().member_id;
        let nospace = pb::AlarmType::Nospace as i32;
        let is_raised = self.reader().alarms().list(nospace).iter().any(|alarm| alarm.member_id == member_id);
        if !is_raised {
            let action = pb::alarm_request::AlarmAction::Activate as i32;
            let alarm = pb::AlarmRequest { action, member_id, alarm: nospace };
            // Boxed: this happens once, and must not weigh on every put. The caller hears of the space, whether or not
            // the others could be told.
            let _ = Box::pin(self.propose(call, Request::Alarm(alarm))).await;
        }
        Err(why.into())
    }

    /// Waits until everything committed before now is applied here.
    ///
    /// # Errors
    /// The leader changed meanwhile, or did not answer in time.
    pub(crate) async fn read_barrier(&self, call: &Call) -> Result<(), Status> {
        let (deadline, kind) = self.deadline(call);
        let wait = self.slots.open(deadline, kind);
        self.reads.tickets.borrow_mut().push(wait.ticket());
        if let Some(flusher) = self.reads.flusher.take() {
            flusher.wake();
        }
        match wait.await {
            Ok(Completion::ReadReady) => Ok(()),
            Ok(Completion::Failed(NodeError::NoLeader)) => Err(status::TIMEOUT),
            Ok(Completion::Failed(why)) => Err(why.into()),
            Ok(Completion::Reply(_)) => Err(confused("a proposal's answer for a read")),
            Err(Expired::Client) => Err(status::DEADLINE),
            Err(Expired::Server) => Err(status::TIMEOUT),
        }
    }

    /// Asks the node once for all reads that joined since the last time, forever. The task runs after the requests
    /// that woke it have all been looked at, so that one confirmation serves whatever one round of the runtime read.
    pub(crate) async fn flush_reads(self: Rc<Self>) {
        loop {
            let tickets = std::future::poll_fn(|cx| {
                let mut tickets = self.reads.tickets.borrow_mut();
                if !tickets.is_empty() {
                    return Poll::Ready(std::mem::take(&mut *tickets));
                }
                self.reads.flusher.set(Some(cx.waker().clone()));
                Poll::Pending
            })
            .await;
            let ticket = match tickets[..] {
                [alone] => alone,
                _ => self.slots.open_group(tickets, Instant::now() + self.config.limits.request_timeout()),
            };
            self.backend.read_index(self.waiter(ticket));
        }
    }

    /// Looks at who leads. Called every [`SWEEP_EVERY`] while requests wait.
    pub(crate) fn note_leader(&self, now: Instant) {
        let leader = self.backend.standing().leader;
        let seen = &self.leadership;
        if leader == 0 && seen.lost.get().is_none() {
            seen.lost.set(Some(now));
        }
        let is_watched = seen.looked.replace(Some(now)).is_some_and(|last| now < last + 3 * SWEEP_EVERY);
        if leader != 0 {
            seen.lost.set(None);
            if leader != seen.leader.replace(leader) && is_watched {
                seen.elected.set(Some(now));
            }
        }
    }

    /// Why a proposal made at `started` got no answer. Source: etcd `parseProposeCtxErr`; a proposal that never found
    /// a leader ends with the text of Go's context, as there.
    fn why_no_answer(&self, started: Instant) -> Status {
        let slack = 2 * SWEEP_EVERY;
        if self.leadership.lost.get().is_some_and(|lost| lost <= started + slack) {
            return status::DEADLINE;
        }
        let window = 2 * self.config.limits.election_timeout;
        let is_due_to_election =
            self.leadership.elected.get().is_some_and(|elected| started < elected && elected < started + window);
        if is_due_to_election {
            status::TIMEOUT_LEADER_FAILURE
        } else if self.was_connected(started.elapsed()) {
            status::TIMEOUT
        } else {
            status::TIMEOUT_CONNECTION_LOST
        }
    }

    /// Did this member hear the leader, or as a leader a quorum, for all of `time`?
    fn was_connected(&self, time: Duration) -> bool {
        let standing = self.backend.standing();
        match standing.leader {
            0 => true,
            leader if leader == standing.member_id => {
                let membership = self.reader().membership();
                let others = || membership.members.values().filter(|member| member.id.0 != leader);
                1 + self.connected(others(), time) > others().count().div_ceil(2)
            }
            leader => self.config.colleagues.active_for(MemberId(leader)).is_some_and(|active| active >= time),
        }
    }

    /// How many of `members` have been connected to this one for all of `time`; itself counts.
    pub(crate) fn connected<'a>(&self, members: impl Iterator<Item = &'a Member>, time: Duration) -> usize {
        let own = MemberId(self.backend.standing().member_id);
        let is_connected = |id| id == own || self.config.colleagues.active_for(id).is_some_and(|active| active >= time);
        members.filter(|member| is_connected(member.id)).count()
    }

    /// Waits until what this member knows to be committed is applied here. Source: etcd `waitAppliedIndex`.
    ///
    /// # Errors
    /// It took longer than a second.
    pub(crate) async fn catch_up(&self) -> Result<(), Status> {
        let committed = self.backend.standing().committed;
        let until = Instant::now() + APPLY_PATIENCE;
        while self.backend.standing().applied < committed {
            if self.is_stopping.get() {
                return Err(status::STOPPED);
            }
            if Instant::now() >= until {
                return Err(status::TIMEOUT_APPLY);
            }
            tokio::time::sleep(APPLY_STEP).await;
        }
        Ok(())
    }

    /// Ends streams that want a leader once there was none for three election timeouts; forever.
    /// Source: etcd `monitorLeader`.
    pub(crate) async fn watch_leader(self: Rc<Self>) {
        let mut missed = 0;
        loop {
            tokio::time::sleep(self.config.limits.election_timeout).await;
            missed = if self.backend.standing().leader == 0 { missed + 1 } else { 0 };
            let is_lost = missed >= 3;
            if self.is_leader_lost.replace(is_lost) != is_lost {
                self.slots.wake_streams();
            }
        }
    }

    /// The state of the machine.
    pub(crate) fn reader(&self) -> &Reader {
        self.backend.reader()
    }

    /// A complete header: `revision` with who answers, in which cluster and term.
    pub(crate) fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        let standing = self.backend.standing();
        let (cluster_id, member_id, raft_term) = (standing.cluster_id, standing.member_id, standing.term);
        Some(pb::ResponseHeader { cluster_id, member_id, raft_term, revision })
    }

    /// Completes the header that the state machine made, which carries the revision alone.
    pub(crate) fn complete(&self, header: &mut Option<pb::ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = self.header(if revision == 0 { self.reader().revision() } else { revision });
    }

    /// The checks that come before a message is looked at, in etcd's order.
    ///
    /// # Errors
    /// This member is a learner and the call is not for learners, an unreadable API version, or no leader for a
    /// client that wants one.
    pub(crate) fn admit(&self, call: &Call, is_for_learners: bool) -> Result<(), Status> {
        let standing = self.backend.standing();
        if standing.is_learner && !is_for_learners {
            return Err(status::LEARNER);
        }
        if !call.is_version_text {
            return Err(status::INVALID_CLIENT_API_VERSION);
        }
        if call.require_leader && standing.leader == 0 {
            return Err(status::NO_LEADER);
        }
        Ok(())
    }

    /// Why the streams of `call` end now, if they do.
    pub(crate) fn stream_end(&self, call: &Call) -> Option<Status> {
        if self.is_stopping.get() {
            return Some(status::STOPPED);
        }
        (call.require_leader && self.is_leader_lost.get()).then_some(status::NO_LEADER)
    }

    /// Waits until the server stops. For calls that wait for something else without end.
    pub(crate) async fn stopping(&self) {
        let wake = self.slots.open_stream();
        std::future::poll_fn(|cx| {
            while wake.poll(cx).is_ready() {}
            if self.is_stopping.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Reports a call that took long, or any if all are told of.
    pub(crate) fn note_slow(&self, took: Duration, describe: impl FnOnce() -> SlowCall) {
        let limit = self.config.limits.slow_unary;
        if let Some(report) = &self.config.on_slow
            && (took > limit && !limit.is_zero() || self.config.is_tracing_on)
        {
            report(describe());
        }
    }
}

/// The member answered a question that nobody asked: a fault of ours, never of the caller.
pub(crate) fn confused(what: &'static str) -> Status {
    Status::with(Code::Internal, format!("etcdserver: internal error: {what}"))
}
