//! The Lease service. Deadlines are kept by the leader's lessor; only granting and revoking go through the log.

use std::rc::Rc;
use std::time::{Duration, Instant};

use milepost_machine::{Error, Reply, cost, validate};
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_types::LeaseId;

use crate::call::Call;
use crate::door::{Door, confused};
use crate::grpc::{Inlet, Stage};
use crate::status::{self, Code, Status};
use crate::workers;

/// How long to wait before a member that is not (yet) the leader is asked again. Source: etcd `LeaseRenew`.
const NOT_PRIMARY_PAUSE: Duration = Duration::from_millis(50);

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

/// How long a lease still has; −1 if there is none of that id.
///
/// # Errors
/// No leader answers in time.
pub(crate) async fn time_to_live(
    door: &Rc<Door>,
    call: &Call,
    request: pb::LeaseTimeToLiveRequest,
) -> Result<pb::LeaseTimeToLiveResponse, Status> {
    let until = call.started + door.config.limits.request_timeout();
    let ask = async || {
        let (reader, request, now) = (door.reader().clone(), request, door.backend.now());
        // A lease may have a million keys.
        if request.keys {
            workers::apart(move || reader.lease_time_to_live(&request, now)).await
        } else {
            Ok(reader.lease_time_to_live(&request, now))
        }
    };
    let mut response = as_primary(door, until, ask).await?;
    door.complete(&mut response.header);
    Ok(response)
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

/// Renews leases, one per request, until the client half-closes.
pub(crate) async fn keep_alive(stage: Stage, mut requests: Inlet<pb::LeaseKeepAliveRequest>) -> Status {
    let door = &stage.door;
    loop {
        let request = match requests.next().await {
            Some(Ok(request)) => request,
            Some(Err(status)) => return status,
            None => return Status::new(Code::Ok, ""),
        };
        // The header is older than the renewal, as in etcd.
        let header = door.header(door.reader().revision());
        match renew(door, LeaseId(request.id)).await {
            Ok(ttl) => stage.outlet.send(&pb::LeaseKeepAliveResponse { header, id: request.id, ttl }),
            Err(status) => return status,
        }
        stage.outlet.pause_if_full().await;
    }
}

/// The TTL from now on; 0 if there is no such lease any more.
async fn renew(door: &Rc<Door>, id: LeaseId) -> Result<i64, Status> {
    let call = Call::internal(Instant::now());
    let until = call.started + door.config.limits.request_timeout();
    loop {
        match as_primary(door, until, async || Ok(door.reader().lessor().renew(id, door.backend.now()))).await {
            Ok(renewal) => {
                if renewal.clear_first && leads(door, &call).await? {
                    // A new leader must not believe the remaining time of an older checkpoint.
                    let checkpoint = pb::LeaseCheckpoint { id: id.0, remaining_ttl: 0 };
                    let request = pb::LeaseCheckpointRequest { checkpoints: vec![checkpoint] };
                    door.propose(&call, Request::LeaseCheckpoint(request)).await?;
                }
                door.metrics.leases_renewed.add(1);
                return Ok(renewal.ttl);
            }
            Err(status) if status == status::LEASE_NOT_FOUND => {}
            Err(status) => return Err(status),
        }
        if !door.reader().lessor().exists(id) {
            return Ok(0);
        }
        // It has ended and is about to be revoked: "gone" is said when it is.
        if leads(door, &call).await? {
            let revoke = Request::LeaseRevoke(pb::LeaseRevokeRequest { id: id.0 });
            match door.propose(&call, revoke).await {
                Err(status) if status != status::LEASE_NOT_FOUND => return Err(status),
                _ => return Ok(0),
            }
        }
        if Instant::now() >= until {
            return Err(status::TIMEOUT);
        }
        tokio::time::sleep(NOT_PRIMARY_PAUSE).await;
    }
}

/// Does this member lead, as a quorum has just confirmed? One that was cut off may keep deadlines for a while after
/// another has taken over and renewed what has ended here. Source: etcd `ensureLeadership`.
async fn leads(door: &Rc<Door>, call: &Call) -> Result<bool, Status> {
    let says_so = || {
        let standing = door.backend.standing();
        standing.leader == standing.member_id
    };
    if !says_so() {
        return Ok(false);
    }
    door.read_barrier(call).await?;
    Ok(says_so())
}

/// Asks until this member is the one that keeps the deadlines, or time is over.
async fn as_primary<T>(
    door: &Rc<Door>,
    until: Instant,
    mut ask: impl AsyncFnMut() -> Result<Result<T, Error>, Status>,
) -> Result<T, Status> {
    loop {
        match ask().await? {
            Err(Error::NotPrimary) if Instant::now() < until => tokio::time::sleep(NOT_PRIMARY_PAUSE).await,
            Err(Error::NotPrimary) if door.backend.standing().leader == 0 => return Err(status::NO_LEADER),
            Err(Error::NotPrimary) => return Err(status::TIMEOUT),
            result => return Ok(result?),
        }
    }
}
