//! The Lock service: first in line holds the lock.

use std::rc::Rc;

use bytes::Bytes;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::request_op::Request as Op;
use milepost_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tokio::sync::oneshot;

use super::kv;
use super::line::{self, Place};
use crate::call::Call;
use crate::door::Door;
use crate::status::{self, Code, Status};

/// The caller's lease ended while it waited. Source: etcd `concurrency.ErrSessionExpired`.
const EXPIRED: Status = Status::new(Code::Unknown, "mutex: session is expired");

/// Waits for the lock `name`; it is held until the key is deleted or the lease ends.
///
/// # Errors
/// No such lease, the lease ended meanwhile, or as any write or read.
pub(crate) async fn lock(door: &Rc<Door>, call: &Call, request: LockRequest) -> Result<LockResponse, Status> {
    let door = Rc::clone(door);
    line::attended(call, |caller| attempt(door, request, caller)).await
}

async fn attempt(door: Rc<Door>, request: LockRequest, mut caller: oneshot::Sender<Result<LockResponse, Status>>) {
    let (place, held) = match draw(&door, &request).await {
        Ok(drawn) => drawn,
        Err(status) => {
            // Nobody is left to hear it, perhaps, and nothing to take back.
            let _ = caller.send(Err(line::as_heard(status)));
            return;
        }
    };
    let (is_at_once, held) = match held {
        Some(header) => (true, Ok(header)),
        None => (
            false,
            tokio::select! {
                held = wait(&door, &place) => held,
                () = caller.closed() => Err(status::CANCELED),
            },
        ),
    };
    match held {
        Ok(header) => {
            let answer = LockResponse { header: Some(header), key: place.key.clone() };
            let is_unheard = caller.send(Ok(answer)).is_err();
            // A lock that the caller held before is not lost by asking again.
            if is_unheard && (place.is_new || !is_at_once) {
                place.leave(&door).await;
            }
        }
        Err(status) => {
            if status != EXPIRED {
                place.leave(&door).await;
            }
            // As above.
            let _ = caller.send(Err(line::as_heard(status)));
        }
    }
}

/// Takes a place in line, or finds the one that the lease has; with a header if that is the first one.
async fn draw(door: &Rc<Door>, request: &LockRequest) -> Result<(Place, Option<pb::ResponseHeader>), Status> {
    let lease = line::session(door, &line::step(), request.lease).await?;
    let prefix = line::prefix(&request.name);
    let key = line::key(&prefix, lease);
    let put = pb::PutRequest { key: key.clone(), lease, ..Default::default() };
    let owner = || line::op(Op::RequestRange(line::first(&prefix)));
    let request = pb::TxnRequest {
        compare: vec![line::created_at(&key, 0)],
        success: vec![line::op(Op::RequestPut(put)), owner()],
        failure: vec![line::op(Op::RequestRange(line::get(&key))), owner()],
    };
    let mut drawn = kv::txn(door, &line::step(), request).await?;
    let header = drawn.header.take().unwrap_or_default();
    let (is_new, mine) = (drawn.succeeded, line::kvs(&mut drawn, 0));
    let revision = if is_new { header.revision } else { mine.first().map_or(0, |kv| kv.create_revision) };
    let is_first = line::kvs(&mut drawn, 1).first().is_none_or(|owner| owner.create_revision == revision);
    Ok((Place { prefix, key, revision, is_new }, is_first.then_some(header)))
}

/// Waits for the turn of `place`, which may be lost meanwhile.
async fn wait(door: &Rc<Door>, place: &Place) -> Result<pb::ResponseHeader, Status> {
    place.turn(door).await?;
    let mine = kv::range(door, &line::step(), line::get(&place.key)).await?;
    if mine.kvs.is_empty() { Err(EXPIRED) } else { Ok(mine.header.unwrap_or_default()) }
}

/// Gives the lock back whose key this is. Whatever the key is, it is deleted.
///
/// # Errors
/// As any write.
pub(crate) async fn unlock(door: &Rc<Door>, call: &Call, request: UnlockRequest) -> Result<UnlockResponse, Status> {
    let delete = pb::DeleteRangeRequest { key: request.key, range_end: Bytes::new(), prev_kv: false };
    let deleted = kv::delete_range(door, call, delete).await.map_err(line::as_heard)?;
    Ok(UnlockResponse { header: deleted.header })
}
