//! The Lease service. Deadlines are kept by the leader's lessor; only granting and revoking go through the log.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use milepost_machine::{Error, Renewal, Reply, cost, validate};
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_types::LeaseId;
use tokio::task::JoinHandle;

use crate::call::Call;
use crate::colleagues::Unheard;
use crate::door::{Door, confused};
use crate::grpc::{Inlet, Stage};
use crate::handlers::leader::{self, Heard};
use crate::status::{self, Code, Status};
use crate::workers;

/// Grants a lease; id 0 lets the server choose a positive one.
///
/// # Errors
/// `facts/errors.md` §3, LeaseGrant.
pub(crate) async fn grant(
    door: &Rc<Door>,
    call: &Call,
    mut request: pb::LeaseGrantRequest,
) -> Result<pb::LeaseGrantResponse, Status> {
    door.check_quota(call, cost::lease_grant()).await?;
    validate::lease_grant(&request)?;
    while request.id == 0 {
        request.id = (door.backend.next_request_id() & i64::MAX.unsigned_abs()).cast_signed();
    }
    match door.propose(call, Request::LeaseGrant(request)).await? {
        Reply::LeaseGrant(mut response) => {
            door.metrics.leases_granted.add(1);
            door.metrics.lease_ttl.observe(Duration::from_secs(response.ttl.unsigned_abs()));
            door.complete(&mut response.header);
            Ok(response)
        }
        _ => Err(confused("another reply than to a lease grant")),
    }
}

/// Revokes a lease with its keys.
///
/// # Errors
/// `facts/errors.md` §3, LeaseRevoke.
pub(crate) async fn revoke(
    door: &Rc<Door>,
    call: &Call,
    request: pb::LeaseRevokeRequest,
) -> Result<pb::LeaseRevokeResponse, Status> {
    match door.propose(call, Request::LeaseRevoke(request)).await? {
        Reply::LeaseRevoke(mut response) => {
            door.metrics.leases_revoked.add(1);
            door.complete(&mut response.header);
            Ok(response)
        }
        _ => Err(confused("another reply than to a lease revoke")),
    }
}

/// How long a lease still has; −1 if there is none of that id. Only the leader knows.
///
/// # Errors
/// No leader answers in time.
pub(crate) async fn time_to_live(
    door: &Rc<Door>,
    call: &Call,
    request: pb::LeaseTimeToLiveRequest,
) -> Result<pb::LeaseTimeToLiveResponse, Status> {
    let ours = call.started + door.config.limits.request_timeout();
    let until = call.deadline.map_or(ours, |theirs| theirs.min(ours));
    let mut response = loop {
        if leader::is_ourselves(door) {
            door.catch_up().await?;
            match look(door, request).await? {
                Ok(response) => break response,
                Err(Error::NotPrimary) => leader::pause(door, until, status::LEADER_CHANGED).await?,
                Err(why) => return Err(why.into()),
            }
            continue;
        }
        let ask = |urls: &[String]| door.config.colleagues.lease_time_to_live(urls, request);
        match leader::ask(door, until, ask, unknown).await {
            Ok(Heard::Answer(response)) => break response,
            Ok(Heard::IsOurselves) => {}
            Err(why) if why == status::LEASE_NOT_FOUND => {
                break pb::LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() };
            }
            Err(why) => return Err(why),
        }
    };
    // The leader's own header says nothing about this member.
    response.header = None;
    door.complete(&mut response.header);
    Ok(response)
}

/// What this member knows of a lease's time.
///
/// # Errors
/// A fault of ours; inside: this member does not keep the time.
pub(crate) async fn look(
    door: &Rc<Door>,
    request: pb::LeaseTimeToLiveRequest,
) -> Result<Result<pb::LeaseTimeToLiveResponse, Error>, Status> {
    let (reader, now) = (door.reader().clone(), door.backend.now());
    // A lease may have a million keys.
    if request.keys {
        workers::apart(move || reader.lease_time_to_live(&request, now)).await
    } else {
        Ok(reader.lease_time_to_live(&request, now))
    }
}

/// The one refusal of a leader that another attempt would not change.
fn unknown(why: &Unheard) -> Option<Status> {
    matches!(why, Unheard::Refused { status: 404, .. }).then_some(status::LEASE_NOT_FOUND)
}

/// All leases that this member knows.
///
/// # Errors
/// None but a fault of ours.
pub(crate) async fn leases(
    door: &Rc<Door>,
    _: &Call,
    _: pb::LeaseLeasesRequest,
) -> Result<pb::LeaseLeasesResponse, Status> {
    let reader = door.reader().clone();
    let mut response = workers::apart(move || reader.leases()).await?;
    door.complete(&mut response.header);
    Ok(response)
}

/// Renewals of one stream that may be under way: on a follower each takes a way to the leader and back.
const RENEWALS_MAX: usize = 64;

/// A renewal under way: its answer comes in the order of the requests.
struct Renewing {
    /// Older than the renewal, as in etcd: what a client sees after it may not be revealed by it.
    header: Option<pb::ResponseHeader>,
    id: i64,
    ttl: JoinHandle<Result<i64, Status>>,
}

/// Renews leases, one per request, until the client half-closes.
pub(crate) async fn keep_alive(stage: Stage, mut requests: Inlet<pb::LeaseKeepAliveRequest>) -> Status {
    let door = &stage.door;
    let mut under_way: VecDeque<Renewing> = VecDeque::new();
    let mut is_open = true;
    while is_open || !under_way.is_empty() {
        let may_take = is_open && under_way.len() < RENEWALS_MAX;
        tokio::select! {
            biased;
            ttl = first(&mut under_way) => {
                let Some(Renewing { header, id, .. }) = under_way.pop_front() else { continue };
                match ttl {
                    Ok(ttl) => stage.outlet.send(&pb::LeaseKeepAliveResponse { header, id, ttl }),
                    Err(status) => return status,
                }
                stage.outlet.pause_if_full().await;
            }
            request = requests.next(), if may_take => {
                let id = match request {
                    Some(Ok(request)) => request.id,
                    Some(Err(status)) => return status,
                    None => {
                        is_open = false;
                        continue;
                    }
                };
                let header = door.header(door.reader().revision());
                // The leader's own clients are many, and answered at once.
                if under_way.is_empty() && let Some(ttl) = renew_at_once(door, LeaseId(id)) {
                    stage.outlet.send(&pb::LeaseKeepAliveResponse { header, id, ttl });
                    stage.outlet.pause_if_full().await;
                    continue;
                }
                let renewing = Rc::clone(door);
                let ttl = tokio::task::spawn_local(async move { renew(&renewing, LeaseId(id)).await });
                under_way.push_back(Renewing { header, id, ttl });
            }
        }
    }
    Status::new(Code::Ok, "")
}

/// The end of the oldest renewal; never, if there is none.
async fn first(under_way: &mut VecDeque<Renewing>) -> Result<i64, Status> {
    match under_way.front_mut() {
        Some(oldest) => (&mut oldest.ttl).await.unwrap_or_else(|_| Err(confused("a renewal broke off"))),
        None => std::future::pending().await,
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.ttl.abort();
    }
}

/// Renews on the leader, if that takes no waiting.
fn renew_at_once(door: &Door, id: LeaseId) -> Option<i64> {
    match door.reader().lessor().renew(id, door.backend.now()) {
        Ok(Renewal { ttl, clear_first: false }) => {
            door.metrics.leases_renewed.add(1);
            Some(ttl)
        }
        _ => None,
    }
}

/// The TTL from now on; 0 if there is no such lease any more. Source: etcd `EtcdServer.LeaseRenew`.
async fn renew(door: &Rc<Door>, id: LeaseId) -> Result<i64, Status> {
    let until = Instant::now() + door.config.limits.request_timeout();
    loop {
        if leader::is_ourselves(door) {
            match renew_here(door, id).await? {
                Renewed::Ttl(ttl) => return Ok(ttl),
                Renewed::Unknown => return Ok(0),
                Renewed::NotPrimary => leader::pause(door, until, status::TIMEOUT).await?,
            }
            continue;
        }
        let ask = |urls: &[String]| door.config.colleagues.renew_lease(urls, id);
        match leader::ask(door, until, ask, unknown).await {
            Ok(Heard::Answer(ttl)) => return Ok(ttl),
            Ok(Heard::IsOurselves) => {}
            Err(why) if why == status::LEASE_NOT_FOUND => return Ok(0),
            Err(why) => return Err(why),
        }
    }
}

/// What came of renewing on this member.
pub(crate) enum Renewed {
    /// It is alive for so many seconds from now on.
    Ttl(i64),
    /// There is no such lease, or not any more.
    Unknown,
    /// This member does not keep the time.
    NotPrimary,
}

/// Renews as the member that keeps the time, if this is it.
///
/// # Errors
/// What could not be proposed or confirmed in time.
pub(crate) async fn renew_here(door: &Rc<Door>, id: LeaseId) -> Result<Renewed, Status> {
    let call = Call::internal(Instant::now());
    if !door.reader().lessor().exists(id) {
        // It may have been granted a moment ago, by another member.
        door.catch_up().await?;
    }
    match door.reader().lessor().renew(id, door.backend.now()) {
        Ok(renewal) => {
            if renewal.clear_first {
                if !leads(door, &call).await? {
                    return Ok(Renewed::NotPrimary);
                }
                // A new leader must not believe the remaining time of an older checkpoint.
                let checkpoint = pb::LeaseCheckpoint { id: id.0, remaining_ttl: 0 };
                let request = pb::LeaseCheckpointRequest { checkpoints: vec![checkpoint] };
                door.propose(&call, Request::LeaseCheckpoint(request)).await?;
                // Another member may lead by now, which had begun with that older time before it applied this.
                if door.reader().lessor().renew(id, door.backend.now()).is_err() {
                    return Ok(Renewed::NotPrimary);
                }
            }
            door.metrics.leases_renewed.add(1);
            Ok(Renewed::Ttl(renewal.ttl))
        }
        Err(Error::LeaseNotFound) if !door.reader().lessor().exists(id) => Ok(Renewed::Unknown),
        // It has ended and is about to be revoked: "gone" is said when it is.
        Err(Error::LeaseNotFound) if leads(door, &call).await? => {
            match door.propose(&call, Request::LeaseRevoke(pb::LeaseRevokeRequest { id: id.0 })).await {
                Err(status) if status != status::LEASE_NOT_FOUND => Err(status),
                _ => Ok(Renewed::Unknown),
            }
        }
        Err(Error::LeaseNotFound | Error::NotPrimary) => Ok(Renewed::NotPrimary),
        Err(why) => Err(why.into()),
    }
}

/// Does this member lead, as a quorum has just confirmed? One that was cut off may keep deadlines for a while after
/// another has taken over and renewed what has ended here. Source: etcd `ensureLeadership`.
async fn leads(door: &Rc<Door>, call: &Call) -> Result<bool, Status> {
    if !leader::is_ourselves(door) {
        return Ok(false);
    }
    door.read_barrier(call).await?;
    Ok(leader::is_ourselves(door))
}
