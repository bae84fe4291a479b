//! The Election service: first in line leads, and its key holds what it has to say.

use std::rc::Rc;

use bytes::Bytes;
use milepost_mvcc::watch::CreateRequest;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::request_op::Request as Op;
use milepost_proto::mvccpb::{KeyValue, event::EventType};
use milepost_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
    ResignRequest, ResignResponse,
};
use tokio::sync::oneshot;

use super::kv;
use super::line::{self, Place, Vigil};
use crate::call::Call;
use crate::door::Door;
use crate::grpc::Stage;
use crate::status::{self, Code, Status};

/// Source: etcd `concurrency.ErrElectionNotLeader`.
const NOT_LEADER: Status = Status::new(Code::Unknown, "election: not leader");
/// Source: etcd `concurrency.ErrElectionNoLeader`.
const NO_LEADER: Status = Status::new(Code::Unknown, "election: no leader");
/// Source: etcd `v3election.ErrMissingLeaderKey`.
const MISSING_LEADER: Status = Status::new(Code::Unknown, "\"leader\" field must be provided");

/// Waits to be the leader of `name`; it is until the key is deleted or the lease ends.
///
/// # Errors
/// No such lease, or as any write or read.
pub(crate) async fn campaign(
    door: &Rc<Door>,
    call: &Call,
    request: CampaignRequest,
) -> Result<CampaignResponse, Status> {
    let door = Rc::clone(door);
    line::attended(call, |caller| attempt(door, request, caller)).await
}

async fn attempt(
    door: Rc<Door>,
    request: CampaignRequest,
    mut caller: oneshot::Sender<Result<CampaignResponse, Status>>,
) {
    let (place, lease, header) = match stand(&door, &request).await {
        Ok(standing) => standing,
        Err(status) => {
            // Nobody is left to hear it, perhaps, and nothing to take back.
            let _ = caller.send(Err(line::as_heard(status)));
            return;
        }
    };
    let elected = tokio::select! {
        elected = place.turn(&door) => elected,
        () = caller.closed() => Err(status::CANCELED),
    };
    let answer = match elected {
        Ok(()) => {
            let leader = LeaderKey { name: request.name.clone(), key: place.key.clone(), rev: place.revision, lease };
            Ok(CampaignResponse { header: Some(header), leader: Some(leader) })
        }
        Err(status) => Err(line::as_heard(status)),
    };
    let is_elected = answer.is_ok();
    let is_unheard = caller.send(answer).is_err();
    // Who led before does not resign by asking again; who still waited leaves, as etcd does.
    if is_unheard && (place.is_new || !is_elected) {
        place.leave(&door).await;
    }
}

/// Takes a place in line with the value, or finds the one that the lease has and gives it the value.
async fn stand(door: &Rc<Door>, request: &CampaignRequest) -> Result<(Place, i64, pb::ResponseHeader), Status> {
    let lease = line::session(door, &line::step(), request.lease).await?;
    let prefix = line::prefix(&request.name);
    let key = line::key(&prefix, lease);
    let put = pb::PutRequest { key: key.clone(), value: request.value.clone(), lease, ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![line::created_at(&key, 0)],
        success: vec![line::op(Op::RequestPut(put))],
        failure: vec![line::op(Op::RequestRange(line::get(&key)))],
    };
    let mut drawn = kv::txn(door, &line::step(), txn).await?;
    let header = drawn.header.take().unwrap_or_default();
    let mut place = Place { prefix, key, revision: header.revision, is_new: drawn.succeeded };
    if let Some(mine) = line::kvs(&mut drawn, 0).first() {
        place.revision = mine.create_revision;
        if mine.value != request.value
            && let Err(status) = announce(door, &line::step(), &place.key, place.revision, &request.value, lease).await
        {
            place.leave(door).await;
            return Err(status);
        }
    }
    Ok((place, lease, header))
}

/// Gives the leader's key another value, if it is still the leader's.
async fn announce(
    door: &Rc<Door>,
    call: &Call,
    key: &Bytes,
    revision: i64,
    value: &Bytes,
    lease: i64,
) -> Result<Option<pb::ResponseHeader>, Status> {
    let put = pb::PutRequest { key: key.clone(), value: value.clone(), lease, ..Default::default() };
    let request = pb::TxnRequest {
        compare: vec![line::created_at(key, revision)],
        success: vec![line::op(Op::RequestPut(put))],
        failure: Vec::new(),
    };
    let done = kv::txn(door, call, request).await?;
    if done.succeeded { Ok(done.header) } else { Err(NOT_LEADER) }
}

/// A leader says something new.
///
/// # Errors
/// It does not lead, or as any write.
pub(crate) async fn proclaim(
    door: &Rc<Door>,
    call: &Call,
    request: ProclaimRequest,
) -> Result<ProclaimResponse, Status> {
    let leader = request.leader.ok_or(MISSING_LEADER)?;
    let lease = line::session(door, call, leader.lease).await.map_err(line::as_heard)?;
    let header = announce(door, call, &leader.key, leader.rev, &request.value, lease).await.map_err(line::as_heard)?;
    Ok(ProclaimResponse { header })
}

/// A leader makes way; well if it does not lead any more.
///
/// # Errors
/// As any write.
pub(crate) async fn resign(door: &Rc<Door>, call: &Call, request: ResignRequest) -> Result<ResignResponse, Status> {
    let leader = request.leader.ok_or(MISSING_LEADER)?;
    // Of no use here, but who resigns with lease 0 gets a new one in etcd, too.
    line::session(door, call, leader.lease).await.map_err(line::as_heard)?;
    let delete = pb::DeleteRangeRequest { key: leader.key.clone(), ..Default::default() };
    let request = pb::TxnRequest {
        compare: vec![line::created_at(&leader.key, leader.rev)],
        success: vec![line::op(Op::RequestDeleteRange(delete))],
        failure: Vec::new(),
    };
    let done = kv::txn(door, call, request).await.map_err(line::as_heard)?;
    Ok(ResignResponse { header: done.header })
}

/// Who leads.
///
/// # Errors
/// Nobody, or as any read.
pub(crate) async fn leader(door: &Rc<Door>, call: &Call, request: LeaderRequest) -> Result<LeaderResponse, Status> {
    let first = line::first(&line::prefix(&request.name));
    let mut found = kv::range(door, call, first).await.map_err(line::as_heard)?;
    let kv = found.kvs.pop().ok_or(NO_LEADER)?;
    Ok(LeaderResponse { header: found.header, kv: Some(kv) })
}

/// Who leads, what it says, and who leads then.
pub(crate) async fn observe(stage: Stage, request: Result<LeaderRequest, Status>) -> Status {
    let prefix = match request {
        Ok(request) => line::prefix(&request.name),
        Err(status) => return status,
    };
    loop {
        if let Err(why) = follow(&stage, &prefix).await {
            // Whatever disturbs it ends the stream without an error, as in etcd; not our own end.
            return if why == status::STOPPED { why } else { Status::new(Code::Ok, "") };
        }
    }
}

/// Tells of one leader until its key is deleted.
async fn follow(stage: &Stage, prefix: &[u8]) -> Result<(), Status> {
    let door = &stage.door;
    let mut found = kv::range(door, &line::step(), line::first(prefix)).await?;
    let now = line::revision(found.header.as_ref());
    let (kv, since) = match found.kvs.pop() {
        Some(kv) => (kv, now),
        None => {
            let kv = next_in(door, prefix, now).await?;
            let since = kv.mod_revision;
            (kv, since)
        }
    };
    let key = kv.key.clone();
    tell(stage, since, kv).await;
    let mut vigil = Vigil::begin(door, CreateRequest { key, start_revision: since + 1, ..Default::default() });
    loop {
        let (revision, events) = vigil.next().await?;
        for event in events {
            match event.kv {
                Some(kv) if event.r#type == EventType::Put as i32 => tell(stage, revision, kv).await,
                _ => return Ok(()),
            }
        }
    }
}

async fn tell(stage: &Stage, revision: i64, kv: KeyValue) {
    stage.outlet.send(&LeaderResponse { header: stage.door.header(revision), kv: Some(kv) });
    stage.outlet.drained().await;
}

/// Waits for the first value that is put below `prefix` at `revision` or later.
async fn next_in(door: &Rc<Door>, prefix: &[u8], revision: i64) -> Result<KeyValue, Status> {
    let request = CreateRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: line::end(prefix),
        start_revision: revision,
        no_delete: true,
        ..Default::default()
    };
    let mut vigil = Vigil::begin(door, request);
    loop {
        if let Some(kv) = vigil.next().await?.1.into_iter().find_map(|event| event.kv) {
            return Ok(kv);
        }
    }
}
