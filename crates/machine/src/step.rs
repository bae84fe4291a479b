//! One entry being applied: what each kind of request does to the state.

use std::sync::Arc;

use milepost_mvcc::{Change, EventBatch, SmallTable, Writer};
use milepost_proto::etcdserverpb as pb;
use milepost_proto::membershippb::{ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest};
use milepost_proto::raftpb::{ConfChange, ConfState};
use milepost_types::{KeyRange, LeaseId, LogIndex, MemberId};
use pb::alarm_request::AlarmAction;
use pb::internal_raft_request::Request;

use crate::alarm::Alarms;
use crate::cluster::{self, ClusterInfo, Downgrade, Version};
use crate::config::MAX_LEASE_TTL;
use crate::cost;
use crate::entry::{Effect, Entry, Reply};
use crate::error::{Error, Fatal, Fault};
use crate::kv::{self, Keys, header};
use crate::lease;
use crate::machine::{Shared, check_version};
use crate::member::{Member, Membership, conf_state_to_bytes};

/// Auth revision of a store in which auth was never touched. Source: `facts/apply-semantics.md` §6.
pub(crate) const FIRST_AUTH_REVISION: u64 = 1;

/// State beside the keys as it will be after the entry; `None`: as before.
#[derive(Debug, Default)]
pub(crate) struct Next {
    pub(crate) membership: Option<Membership>,
    pub(crate) alarms: Option<Alarms>,
    pub(crate) cluster: Option<ClusterInfo>,
    pub(crate) conf_state: Option<ConfState>,
    pub(crate) leases: Vec<LeaseChange>,
}

/// What the lessor has to be told.
#[derive(Debug)]
pub(crate) enum LeaseChange {
    Granted(LeaseId, i64),
    Revoked(LeaseId),
    Checkpointed(LeaseId, i64),
}

/// Outcome of an entry whose changes are in the store.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) result: Result<Reply, Error>,
    pub(crate) events: Option<Arc<EventBatch>>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) next: Next,
}

/// Why a request did not get its reply.
#[derive(Debug)]
pub(crate) enum Stop {
    Refused(Error),
    Fatal(Fatal),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

/// The change of one entry while it is made. Dropped without [`Step::finish`], nothing of it is visible.
pub(crate) struct Step<'a> {
    change: Change<'a>,
    shared: &'a Shared,
    conf_state: &'a ConfState,
    index: LogIndex,
    next: Next,
    effects: Vec<Effect>,
}

impl<'a> Step<'a> {
    pub(crate) fn new(writer: &'a mut Writer, shared: &'a Shared, conf_state: &'a ConfState, entry: Entry<'_>) -> Self {
        let change = writer.begin(entry.index, entry.term);
        Self { change, shared, conf_state, index: entry.index, next: Next::default(), effects: Vec::new() }
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Makes the change visible. A refused entry has none, but moves the applied index.
    pub(crate) fn finish(self, result: Result<Reply, Stop>) -> Result<Done, Fatal> {
        let Self { change, index, next, effects, .. } = self;
        let result = match result {
            Ok(reply) => Ok(reply),
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Fatal(fatal)) => return Err(fatal),
        };
        let events = change.finish().map_err(|source| Fatal::Store { index, source })?;
        Ok(Done { result, events, effects, next })
    }

    /// Applies a request. `want_reply` false: what only reads is not done.
    pub(crate) fn request(&mut self, request: &Request, want_reply: bool) -> Result<Reply, Stop> {
        self.gate(request)?;
        let fits = self.fits_quota(request);
        let reply = self.dispatch(request, want_reply)?;
        if fits {
            return Ok(reply);
        }
        // The write stands; only the answer says that there was no room. Source: etcd `quotaApplierV3`.
        if !self.shared.alarms.load().any(pb::AlarmType::Nospace) {
            let member = self.shared.config.member_id;
            self.effect(Effect::RaiseAlarm { member, alarm: pb::AlarmType::Nospace });
        }
        Err(Error::NoSpace.into())
    }

    /// What the alarms in force forbid: this decides state. CORRUPT is asked first.
    fn gate(&self, request: &Request) -> Result<(), Error> {
        let alarms = self.shared.alarms.load();
        let keys_or_leases = matches!(
            request,
            Request::Put(_)
                | Request::Range(_)
                | Request::DeleteRange(_)
                | Request::Txn(_)
                | Request::Compaction(_)
                | Request::LeaseGrant(_)
                | Request::LeaseRevoke(_)
        );
        if keys_or_leases && alarms.any(pb::AlarmType::Corrupt) {
            return Err(Error::Corrupt);
        }
        if write_cost(request) > 0 && alarms.any(pb::AlarmType::Nospace) {
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    /// The local quota, on live bytes.
    fn fits_quota(&self, request: &Request) -> bool {
        match write_cost(request) {
            0 => true,
            cost => self.shared.fits_quota(cost),
        }
    }

    fn dispatch(&mut self, request: &Request, want_reply: bool) -> Result<Reply, Stop> {
        match request {
            Request::Range(_) if !want_reply => Ok(Reply::Empty),
            Request::Range(request) => {
                let reply = kv::range::range(&self.change, request, true);
                self.lift(reply).map(Reply::Range)
            }
            Request::Put(request) => self.put(request).map(Reply::Put),
            Request::DeleteRange(request) => {
                let reply = kv::delete_range(&mut self.change, request);
                self.lift(reply).map(Reply::DeleteRange)
            }
            Request::Txn(request) => self.txn(request, want_reply).map(Reply::Txn),
            Request::Compaction(request) => self.compaction(request).map(Reply::Compaction),
            Request::LeaseGrant(request) => self.lease_grant(request).map(Reply::LeaseGrant),
            Request::LeaseRevoke(request) => self.lease_revoke(request).map(Reply::LeaseRevoke),
            Request::LeaseCheckpoint(request) => Ok(Reply::LeaseCheckpoint(self.lease_checkpoint(request))),
            Request::Alarm(request) => Ok(Reply::Alarm(self.alarm(request))),
            Request::ClusterVersionSet(request) => self.cluster_version_set(request),
            Request::ClusterMemberAttrSet(request) => Ok(self.member_attributes_set(request)),
            Request::DowngradeInfoSet(request) => Ok(self.downgrade_info_set(request)),
            Request::DowngradeVersionTest(_) => Ok(Reply::Empty),
            Request::AuthStatus(_) => Ok(Reply::AuthStatus(self.auth_status())),
            Request::AuthEnable(_)
            | Request::AuthDisable(_)
            | Request::Authenticate(_)
            | Request::AuthUserAdd(_)
            | Request::AuthUserDelete(_)
            | Request::AuthUserGet(_)
            | Request::AuthUserChangePassword(_)
            | Request::AuthUserGrantRole(_)
            | Request::AuthUserRevokeRole(_)
            | Request::AuthUserList(_)
            | Request::AuthRoleList(_)
            | Request::AuthRoleAdd(_)
            | Request::AuthRoleDelete(_)
            | Request::AuthRoleGet(_)
            | Request::AuthRoleGrantPermission(_)
            | Request::AuthRoleRevokePermission(_) => Err(Error::AuthUnavailable.into()),
        }
    }

    /// Keys: a refusal is the caller's, anything else of the store's ends this member.
    fn lift<T>(&self, result: Result<T, Fault>) -> Result<T, Stop> {
        result.map_err(|fault| match fault {
            Fault::Refused(error) => Stop::Refused(error),
            Fault::Store(source) => Stop::Fatal(Fatal::Store { index: self.index, source }),
        })
    }

    fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Stop> {
        let checked = kv::check_put(&self.change, &self.shared.lessor, request);
        self.lift(checked)?;
        let reply = kv::put(&mut self.change, request);
        self.lift(reply)
    }

    fn txn(&mut self, request: &pb::TxnRequest, want_ranges: bool) -> Result<pb::TxnResponse, Stop> {
        match kv::txn::apply(&mut self.change, &self.shared.lessor, request, want_ranges) {
            Ok(reply) => Ok(reply),
            Err(kv::txn::TxnFault::Before(fault)) => self.lift(Err(fault)),
            Err(kv::txn::TxnFault::After(fault)) => match fault {
                Fault::Refused(error) => Err(Fatal::HalfDone { index: self.index, error }.into()),
                fault => self.lift(Err(fault)),
            },
        }
    }

    fn compaction(&mut self, request: &pb::CompactionRequest) -> Result<pb::CompactionResponse, Stop> {
        let compacted = self.change.compact(request.revision).map_err(Fault::from);
        self.lift(compacted)?;
        if request.physical {
            self.effect(Effect::PhysicalCompaction { revision: request.revision });
        }
        Ok(pb::CompactionResponse { header: header(self.change.newest()) })
    }

    // Leases.

    fn lease_grant(&mut self, request: &pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Stop> {
        let id = LeaseId(request.id);
        if id == LeaseId(0) {
            return Err(Error::LeaseNotFound.into());
        }
        if request.ttl > MAX_LEASE_TTL {
            return Err(Error::LeaseTtlTooLarge.into());
        }
        if self.shared.lessor.exists(id) {
            return Err(Error::LeaseExists.into());
        }
        let ttl = request.ttl.max(self.shared.config.min_lease_ttl);
        self.change.table_put(SmallTable::Lease, lease::key(id), lease::record(id, ttl, 0));
        self.next.leases.push(LeaseChange::Granted(id, ttl));
        Ok(pb::LeaseGrantResponse { header: header(self.change.newest()), id: id.0, ttl, error: String::new() })
    }

    /// The keys of the lease go in byte order, as one revision; no keys, no revision.
    fn lease_revoke(&mut self, request: &pb::LeaseRevokeRequest) -> Result<pb::LeaseRevokeResponse, Stop> {
        let id = LeaseId(request.id);
        if !self.shared.lessor.exists(id) {
            return Err(Error::LeaseNotFound.into());
        }
        let deleted = self.delete_attached(id);
        self.lift(deleted)?;
        self.change.table_delete(SmallTable::Lease, &lease::key(id));
        self.next.leases.push(LeaseChange::Revoked(id));
        Ok(pb::LeaseRevokeResponse { header: header(self.change.newest()) })
    }

    fn delete_attached(&mut self, id: LeaseId) -> Result<(), Fault> {
        for key in self.change.attached(id)? {
            self.change.delete_range(KeyRange::single(&key), false)?;
        }
        Ok(())
    }

    /// Unknown leases are passed over: they may have been revoked meanwhile.
    fn lease_checkpoint(&mut self, request: &pb::LeaseCheckpointRequest) -> pb::LeaseCheckpointResponse {
        for checkpoint in &request.checkpoints {
            let (id, remaining) = (LeaseId(checkpoint.id), checkpoint.remaining_ttl);
            if let Some((ttl, _)) = self.shared.lessor.replicated(id) {
                self.change.table_put(SmallTable::Lease, lease::key(id), lease::record(id, ttl, remaining));
                self.next.leases.push(LeaseChange::Checkpointed(id, remaining));
            }
        }
        pb::LeaseCheckpointResponse { header: header(self.change.newest()) }
    }

    // Alarms.

    fn alarm(&mut self, request: &pb::AlarmRequest) -> pb::AlarmResponse {
        let (member, kind) = (MemberId(request.member_id), request.alarm);
        let this = pb::AlarmMember { member_id: member.0, alarm: kind };
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => self.shared.alarms.load().list(kind),
            Ok(AlarmAction::Activate) if kind != pb::AlarmType::None as i32 => {
                self.raise_alarm(member, kind);
                vec![this]
            }
            Ok(AlarmAction::Deactivate) if self.clear_alarm(member, kind) => vec![this],
            _ => Vec::new(),
        };
        pb::AlarmResponse { header: header(self.change.newest()), alarms }
    }

    /// Raising it twice changes nothing.
    fn raise_alarm(&mut self, member: MemberId, kind: i32) {
        let mut alarms = Alarms::clone(&self.shared.alarms.load());
        if alarms.raise(member, kind) {
            self.change.table_put(SmallTable::Alarm, Alarms::key(member, kind), Vec::new());
            self.next.alarms = Some(alarms);
        }
    }

    fn clear_alarm(&mut self, member: MemberId, kind: i32) -> bool {
        let mut alarms = Alarms::clone(&self.shared.alarms.load());
        let cleared = alarms.clear(member, kind);
        if cleared {
            self.change.table_delete(SmallTable::Alarm, &Alarms::key(member, kind));
            self.next.alarms = Some(alarms);
        }
        cleared
    }

    // The cluster.

    fn cluster_version_set(&mut self, request: &ClusterVersionSetRequest) -> Result<Reply, Stop> {
        let version = Version::parse(&request.ver).ok_or_else(|| Fatal::Undecodable {
            index: self.index,
            why: format!("cluster version {:?} is not a version", request.ver),
        })?;
        check_version(&self.shared.config, version, self.index)?;
        let before = ClusterInfo::clone(&self.shared.cluster.load());
        let lowered = before.version.is_some_and(|before| version < before);
        let text = version.to_string().into_bytes();
        self.change.table_put(SmallTable::Cluster, cluster::VERSION_KEY.to_vec(), text);
        self.next.cluster = Some(ClusterInfo { version: Some(version), ..before });
        self.effect(Effect::ClusterVersion { version, lowered });
        Ok(Reply::Empty)
    }

    fn downgrade_info_set(&mut self, request: &DowngradeInfoSetRequest) -> Reply {
        let target = if request.enabled { request.ver.clone() } else { String::new() };
        let downgrade = Downgrade { target, enabled: request.enabled };
        let json = serde_json::to_vec(&downgrade).expect("a string and a flag have a JSON form");
        self.change.table_put(SmallTable::Cluster, cluster::DOWNGRADE_KEY.to_vec(), json);
        let before = ClusterInfo::clone(&self.shared.cluster.load());
        self.next.cluster = Some(ClusterInfo { downgrade, ..before });
        Reply::Empty
    }

    /// A member tells its name and client URLs. From one that has left, or was never here, nothing follows. (etcd ends
    /// the process for the latter; no member of ours sends it.)
    fn member_attributes_set(&mut self, request: &ClusterMemberAttrSetRequest) -> Reply {
        let id = MemberId(request.member_id);
        let mut membership = Membership::clone(&self.shared.membership.load());
        if let Some(member) = membership.members.get_mut(&id) {
            let attributes = request.member_attributes.clone().unwrap_or_default();
            member.name = attributes.name;
            member.client_urls = attributes.client_urls;
            self.change.table_put(SmallTable::Members, Member::key(id), member.to_json());
            self.next.membership = Some(membership);
            self.effect(Effect::MemberAttributes { member: id });
        }
        Reply::Empty
    }

    fn auth_status(&self) -> pb::AuthStatusResponse {
        pb::AuthStatusResponse {
            header: header(self.change.newest()),
            enabled: false,
            auth_revision: FIRST_AUTH_REVISION,
        }
    }

    /// Applies a change of membership, or refuses it; Raft hears of it either way.
    pub(crate) fn conf_change(&mut self, change: ConfChange) -> Result<Reply, Stop> {
        let membership = self.shared.membership.load();
        let verdict = membership
            .judge(&change, self.shared.config.max_learners)
            .map_err(|malformed| Fatal::Undecodable { index: self.index, why: malformed.0 })?;
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) => {
                let conf_state = self.conf_state.clone();
                self.effect(Effect::ConfChange { change: None, peer_urls: Vec::new(), conf_state });
                return Err(error.into());
            }
        };
        let mut membership = Membership::clone(&membership);
        membership.apply(&verdict);
        let id = MemberId(change.node_id());
        let peer_urls = self.store_member(id, &membership);
        let conf_state = verdict.next_conf_state(self.conf_state);
        self.change.set_conf_state(conf_state_to_bytes(&conf_state));
        self.effect(Effect::ConfChange { change: Some(change), peer_urls, conf_state: conf_state.clone() });
        let members = membership.to_wire();
        (self.next.membership, self.next.conf_state) = (Some(membership), Some(conf_state));
        Ok(Reply::ConfChange(members))
    }

    /// Writes what `membership` says of a member; returns its peer URLs, none if it is gone.
    fn store_member(&mut self, id: MemberId, membership: &Membership) -> Vec<String> {
        match membership.members.get(&id) {
            Some(member) => {
                self.change.table_put(SmallTable::Members, Member::key(id), member.to_json());
                member.peer_urls.clone()
            }
            None => {
                self.change.table_delete(SmallTable::Members, &Member::key(id));
                self.change.table_put(SmallTable::Removed, Member::key(id), b"removed".to_vec());
                Vec::new()
            }
        }
    }
}

/// What the quota and the NOSPACE alarm count; 0: not a write in their sense.
fn write_cost(request: &Request) -> u64 {
    match request {
        Request::Put(request) => cost::put(request),
        Request::Txn(request) => cost::txn(request),
        Request::LeaseGrant(_) => cost::lease_grant(),
        _ => 0,
    }
}
