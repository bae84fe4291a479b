//! What a member proposes of its own accord: its name, the cluster version, the end of leases, alarms, compactions.

use super::raft_loop::Command;
use super::shared::Shared;
use crate::compactor::Compactor;
use crate::core::{Role, Standing};
use crate::log::Value;
use crate::waiter::{Completion, CompletionSink, Waiter};
use bytes::Bytes;
use milepost_machine::Version;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, InternalRaftRequest, LeaseCheckpoint,
    LeaseCheckpointRequest, LeaseRevokeRequest, RequestHeader, alarm_request::AlarmAction,
};
use milepost_proto::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Leases proposed to be revoked at one look. The next ones follow when everything before these is applied, so at most
/// twice as many are on their way: tens of thousands per second, without a queue in front of clients' requests.
const REVOKES_MAX: usize = 1_024;

// Many leases that end together are no reason to refuse clients for what waits to be applied.
const _: () = assert!((REVOKES_MAX as u64) * 4 < crate::node::GAP_MAX, "room for clients beside the leases' ends");

/// Before a duty that failed is tried again. etcd tries to publish again after its request timeout.
const RETRY: Duration = Duration::from_secs(1);

/// A reason to propose something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Make this member's name and client URLs known.
    Publish,
    /// Set the cluster version.
    SetVersion,
    /// Raise the alarm that this member has no space.
    RaiseNoSpace,
    /// Raise the alarm that this member holds records that fail their checks.
    RaiseCorrupt,
    /// Compact to this revision.
    Compact(i64),
    /// The first entry of this term is applied.
    TermStarted(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not before this time.
    Due(Duration),
    UnderWay,
    Done,
}

/// One proposal: its id, its bytes, who waits for it.
pub(crate) type OwnProposal = (u64, Bytes, Option<Waiter>);

/// The Raft thread's memory of what is to be done.
pub(crate) struct Duties {
    publish: State,
    version: State,
    no_space: State,
    corrupt: State,
    /// A corrupt record has been told of.
    corrupt_told: bool,
    /// The newest term whose first entry is applied here; earlier terms' entries are then, too.
    led_term: u64,
    /// Commit index at start.
    commit_at_start: u64,
    compactor: Compactor,
    server_version: Version,
    election_timeout: Duration,
    next_leases: Duration,
    lease_interval: Duration,
    /// The log's last entry when leases were last proposed to be revoked.
    revokes_after: u64,
    sink: Arc<DutySinks>,
}

/// Answers to the member's own proposals go back to its Raft thread.
struct DutySinks {
    // Weak: waiters are held by what it points to.
    shared: Weak<Shared>,
}

impl CompletionSink for DutySinks {
    fn complete(&self, batch: &mut Vec<(u64, Completion)>) {
        let Some(shared) = self.shared.upgrade() else { return };
        for (ticket, completion) in batch.drain(..) {
            // A closed queue: the node stops.
            let _ = shared.to_raft.push(Command::DutyDone(duty_of(ticket), completion));
        }
    }
}

/// Tickets 1 to 4 are duties without a parameter; above that, a compaction's revision + 5.
fn ticket_of(duty: Duty) -> u64 {
    match duty {
        Duty::Publish => 1,
        Duty::SetVersion => 2,
        Duty::RaiseNoSpace => 3,
        Duty::RaiseCorrupt => 4,
        Duty::Compact(revision) => 5 + revision.unsigned_abs(),
        Duty::TermStarted(_) => 0,
    }
}

fn duty_of(ticket: u64) -> Duty {
    match ticket {
        0 => Duty::TermStarted(0),
        1 => Duty::Publish,
        2 => Duty::SetVersion,
        3 => Duty::RaiseNoSpace,
        4 => Duty::RaiseCorrupt,
        revision => Duty::Compact(i64::try_from(revision - 5).unwrap_or(0)),
    }
}

impl Duties {
    pub fn new(shared: &Arc<Shared>, config: &crate::NodeConfig, commit_at_start: u64) -> Self {
        let now = shared.now();
        Self {
            publish: State::Due(now),
            version: State::Due(now),
            no_space: State::Done,
            corrupt: State::Done,
            corrupt_told: false,
            led_term: 0,
            commit_at_start,
            compactor: Compactor::new(config.compaction, now),
            server_version: config.machine.server_version.minor_only(),
            election_timeout: config.election_timeout(),
            next_leases: now,
            lease_interval: config.heartbeat,
            revokes_after: 0,
            sink: Arc::new(DutySinks { shared: Arc::downgrade(shared) }),
        }
    }

    /// The newest term whose first entry is applied here.
    pub fn led_term(&self) -> u64 {
        self.led_term
    }

    /// Something came up.
    pub fn ask(&mut self, duty: Duty) {
        match duty {
            Duty::RaiseNoSpace if self.no_space == State::Done => self.no_space = State::Due(Duration::ZERO),
            Duty::TermStarted(term) => self.led_term = term,
            _ => {}
        }
    }

    /// Is nothing to be done, or waited for, about the alarm that this member has no space?
    pub fn no_space_is_told(&self) -> bool {
        self.no_space == State::Done
    }

    /// A record of the store failed its check: tell it once, and raise the alarm. It is raised once: who disarms it has
    /// been told, and the same record fails each time it is read.
    pub fn found_corrupt(&mut self, why: &str, shared: &Shared) {
        if !std::mem::replace(&mut self.corrupt_told, true) {
            let remedy =
                "remove this member from the cluster, wipe its data directory and add it again, or restore a backup";
            shared.log.error("a record of the store is damaged", &[("error", why.into()), ("remedy", remedy.into())]);
            self.corrupt = State::Due(Duration::ZERO);
        }
    }

    /// One of the member's own proposals has ended.
    pub fn done(&mut self, duty: Duty, completion: &Completion, now: Duration, shared: &Shared) {
        let ok = matches!(completion, Completion::Reply(Ok(_)));
        let next = if ok { State::Done } else { State::Due(now + RETRY) };
        match duty {
            Duty::Publish => {
                self.publish = next;
                log_published(shared, ok);
                if ok {
                    shared.set_ready();
                }
            }
            Duty::SetVersion => self.version = next,
            // Another member of the alarm may have been refused for good; it is raised again by the next full write.
            Duty::RaiseNoSpace => self.no_space = State::Done,
            Duty::RaiseCorrupt => self.corrupt = next,
            Duty::Compact(revision) => {
                log_compacted(shared, revision, ok);
                if !ok {
                    self.compactor.failed(revision);
                }
            }
            Duty::TermStarted(_) => {}
        }
    }

    /// What is to be proposed now.
    pub fn due(&mut self, now: Duration, standing: &Standing, shared: &Shared) -> Vec<OwnProposal> {
        let mut out = Vec::new();
        let leads = standing.role == Role::Leader && self.led_term == standing.term;
        self.keep_leases_promoted(leads, now, shared);
        let settled = standing.leader != 0 && shared.applied() >= self.commit_at_start;
        if settled && (leads || standing.role != Role::Leader) {
            self.publish(now, shared, &mut out);
        }
        if standing.leader != 0 && is_due(self.no_space, now) {
            self.no_space = self.raise(Duty::RaiseNoSpace, AlarmType::Nospace, shared, &mut out);
        }
        if standing.leader != 0 && is_due(self.corrupt, now) {
            self.corrupt = self.raise(Duty::RaiseCorrupt, AlarmType::Corrupt, shared, &mut out);
        }
        if leads {
            self.set_version(now, shared, &mut out);
            self.end_leases(now, standing, shared, &mut out);
        }
        self.compact(now, leads, shared, &mut out);
        out
    }

    /// Leases run on the leader alone, from its own first entry on: by then it has applied every grant before it.
    fn keep_leases_promoted(&self, leads: bool, now: Duration, shared: &Shared) {
        if leads && !shared.lessor.is_primary() {
            shared.lessor.promote(now, self.election_timeout);
        }
    }

    fn propose(&self, shared: &Shared, duty: Option<Duty>, request: Request, out: &mut Vec<OwnProposal>) {
        let id = shared.request_ids.next();
        let header = RequestHeader { id, ..RequestHeader::default() };
        let payload = InternalRaftRequest { header: Some(header), id: 0, request: Some(request) };
        let waiter = duty
            .map(|duty| Waiter { sink: Arc::clone(&self.sink) as Arc<dyn CompletionSink>, ticket: ticket_of(duty) });
        if waiter.is_some() {
            shared.metrics.proposals_pending.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        out.push((id, Bytes::from(milepost_machine::encode(&payload)), waiter));
    }

    fn publish(&mut self, now: Duration, shared: &Shared, out: &mut Vec<OwnProposal>) {
        if !is_due(self.publish, now) {
            return;
        }
        self.publish = State::UnderWay;
        let attributes = Attributes { name: shared.name.clone(), client_urls: shared.client_urls.clone() };
        let request = ClusterMemberAttrSetRequest { member_id: shared.member.0, member_attributes: Some(attributes) };
        self.propose(shared, Some(Duty::Publish), Request::ClusterMemberAttrSet(request), out);
    }

    /// A lone member decides alone, before anybody has looked. Of several, the slowest one's version counts, which only
    /// their doors can tell; and a downgrade is the business of whoever watches those.
    fn set_version(&mut self, now: Duration, shared: &Shared, out: &mut Vec<OwnProposal>) {
        if !is_due(self.version, now) || shared.reader.members().len() > 1 {
            return;
        }
        let cluster = shared.reader.cluster();
        if cluster.downgrade.enabled || cluster.version.is_some_and(|version| version >= self.server_version) {
            self.version = State::Done;
            return;
        }
        self.version = State::UnderWay;
        let ver = self.server_version.to_string();
        shared
            .log
            .info("setting up initial cluster version using v3 API", &[("cluster-version", Value::from(ver.as_str()))]);
        self.propose(shared, Some(Duty::SetVersion), Request::ClusterVersionSet(ClusterVersionSetRequest { ver }), out);
    }

    /// Proposes `alarm` for this member, unless it is raised already.
    fn raise(&self, duty: Duty, alarm: AlarmType, shared: &Shared, out: &mut Vec<OwnProposal>) -> State {
        let own = |alarm: &AlarmMember| alarm.member_id == shared.member.0;
        if shared.reader.alarms().list(alarm.into()).iter().any(own) {
            return State::Done;
        }
        let request =
            AlarmRequest { action: AlarmAction::Activate.into(), member_id: shared.member.0, alarm: alarm.into() };
        self.propose(shared, Some(duty), Request::Alarm(request), out);
        State::UnderWay
    }

    fn end_leases(&mut self, now: Duration, standing: &Standing, shared: &Shared, out: &mut Vec<OwnProposal>) {
        // Another leader may have cut the log below where it ended then.
        if now < self.next_leases || !shared.is_applied_or_tell(self.revokes_after.min(standing.last)) {
            return;
        }
        self.next_leases = now + self.lease_interval;
        let expired = shared.lessor.expired(now, REVOKES_MAX);
        let count = expired.len() as u64;
        shared.metrics.lease_expired_total.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        for id in expired {
            self.propose(shared, None, Request::LeaseRevoke(LeaseRevokeRequest { id: id.0 }), out);
        }
        if count > 0 {
            self.revokes_after = standing.last;
        }
        if count == REVOKES_MAX as u64 {
            // There are more: look again as soon as these are through.
            self.next_leases = now;
        }
        let checkpoints = shared.lessor.checkpoints(now);
        if !checkpoints.is_empty() {
            let checkpoint =
                |(id, remaining_ttl): (milepost_types::LeaseId, i64)| LeaseCheckpoint { id: id.0, remaining_ttl };
            let request = LeaseCheckpointRequest { checkpoints: checkpoints.into_iter().map(checkpoint).collect() };
            self.propose(shared, None, Request::LeaseCheckpoint(request), out);
        }
    }

    fn compact(&mut self, now: Duration, leads: bool, shared: &Shared, out: &mut Vec<OwnProposal>) {
        let Some(revision) = self.compactor.poll(now, leads, shared.reader.revision()) else { return };
        shared.log.info("starting auto compaction", &[("revision", Value::Int(revision))]);
        let request = CompactionRequest { revision, physical: false };
        self.propose(shared, Some(Duty::Compact(revision)), Request::Compaction(request), out);
    }
}

fn is_due(state: State, now: Duration) -> bool {
    matches!(state, State::Due(at) if at <= now)
}

fn log_published(shared: &Shared, ok: bool) {
    let attributes = format!("{{Name:{} ClientURLs:[{}]}}", shared.name, shared.client_urls.join(" "));
    let fields = [
        ("local-member-id", Value::from(shared.member.to_string())),
        ("local-member-attributes", Value::from(attributes)),
        ("request-path", Value::from(format!("/0/members/{}/attributes", shared.member))),
        ("cluster-id", Value::from(shared.cluster.to_string())),
    ];
    if ok {
        shared.log.info("published local member to cluster through raft", &fields);
    } else {
        shared.log.warn("failed to publish local member to cluster through raft", &fields);
    }
}

fn log_compacted(shared: &Shared, revision: i64, ok: bool) {
    let fields = [("revision", Value::Int(revision))];
    if ok {
        shared.log.info("completed auto compaction", &fields);
    } else {
        shared.log.warn("failed auto compaction", &fields);
    }
}

#[cfg(test)]
mod tests {
    use super::{Duty, duty_of, ticket_of};

    #[test]
    fn tickets_name_their_duty() {
        for duty in [
            Duty::Publish,
            Duty::SetVersion,
            Duty::RaiseNoSpace,
            Duty::RaiseCorrupt,
            Duty::Compact(1),
            Duty::Compact(i64::MAX >> 1),
        ] {
            assert_eq!(duty_of(ticket_of(duty)), duty);
        }
    }
}
