//! The KV service. Order of checks: quota, the request's own shape, then what the state says.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use milepost_machine::{Error, RangeStream, Reply, cost, is_list, validate};
use milepost_proto::Message;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_types::KeyRange;

use crate::call::Call;
use crate::door::{Door, confused};
use crate::grpc::{Stage, wire};
use crate::status::{self, Code, Status};
use crate::{ration, workers};

/// Ranges of more keys than this are read on a thread of their own, so that one large list does not keep a core's other
/// clients waiting. Reading this many takes about 100 µs.
const SHORT_KEYS: usize = 256;

/// Stores one key.
///
/// # Errors
/// `facts/errors.md` §3, Put.
pub(crate) async fn put(door: &Rc<Door>, call: &Call, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
    door.check_quota(call, cost::put(&request)).await?;
    validate::put(&request)?;
    let bytes = request.key.len() + request.value.len();
    match door.propose(call, Request::Put(request)).await? {
        Reply::Put(mut response) => {
            door.metrics.operations.put.add(1);
            door.metrics.put_bytes.add(bytes as u64);
            door.complete(&mut response.header);
            Ok(response)
        }
        _ => Err(confused("another reply than to a put")),
    }
}

/// Reads keys: after the read barrier, unless the caller does without.
///
/// # Errors
/// `facts/errors.md` §3, Range.
pub(crate) async fn range(
    door: &Rc<Door>,
    call: &Call,
    request: pb::RangeRequest,
) -> Result<pb::RangeResponse, Status> {
    validate::range(&request)?;
    if !request.serializable {
        door.read_barrier(call).await?;
    }
    let started = Instant::now();
    let read = read(door, request, |reader, request| reader.range(request), is_long_range).await;
    door.metrics.ranges[usize::from(read.is_ok())].observe(started.elapsed());
    let mut response = read?;
    door.metrics.operations.range.add(1);
    door.complete(&mut response.header);
    Ok(response)
}

/// The same for a request that [`milepost_machine::is_list`], encoded.
///
/// # Errors
/// As [`range`], and for an answer that is too long for gRPC.
pub(crate) async fn list(door: &Rc<Door>, call: &Call, request: pb::RangeRequest) -> Result<wire::Framed, Status> {
    validate::range(&request)?;
    if !request.serializable {
        door.read_barrier(call).await?;
    }
    let reader = door.reader();
    let turn = if is_long_range(reader, &request) { Some(ration::turn().await) } else { None };
    let started = Instant::now();
    let read = match &turn {
        None => reader.list(&request, &mut Vec::with_capacity),
        Some(turn) => {
            let (reader, mut room) = (reader.clone(), turn.room());
            workers::apart(move || reader.list(&request, &mut room)).await?
        }
    };
    door.metrics.ranges[usize::from(read.is_ok())].observe(started.elapsed());
    let list = read?;
    door.metrics.operations.range.add(1);
    wire::Framed::list(&door.header(list.revision).unwrap_or_default(), list, |pieces| match turn {
        Some(turn) => turn.hold(pieces).collect(),
        None => pieces.into_iter().map(Bytes::from).collect(),
    })
}

/// The same in pieces; the last one carries the header.
pub(crate) async fn range_stream(stage: Stage, request: Result<pb::RangeRequest, Status>) -> Status {
    match stream_pieces(&stage, request).await {
        Ok(()) => Status::new(Code::Ok, ""),
        Err(status) => status,
    }
}

async fn stream_pieces(stage: &Stage, request: Result<pb::RangeRequest, Status>) -> Result<(), Status> {
    let (request, door) = (request?, &stage.door);
    validate::range_stream(&request)?;
    if !request.serializable {
        door.read_barrier(&stage.call).await?;
    }
    let reader = door.reader();
    let is_long = is_long_range(reader, &request);
    let mut pieces = reader.range_stream(request);
    loop {
        let next;
        (next, pieces) = if is_long { read_piece(pieces).await? } else { (pieces.next_piece(), pieces) };
        let Some(mut piece) = next? else { return Ok(()) };
        if piece.header.is_some() {
            door.complete(&mut piece.header);
        }
        let message = pb::RangeStreamResponse { range_response: Some(piece) };
        wire::check_length(message.encoded_len())?;
        stage.outlet.send(&message);
        stage.outlet.drained().await;
    }
}

/// The next piece, read on a thread of its own: the last one may have to count every key that is left.
async fn read_piece(
    mut pieces: RangeStream,
) -> Result<(Result<Option<pb::RangeResponse>, Error>, RangeStream), Status> {
    workers::apart(move || (pieces.next_piece(), pieces)).await
}

/// Deletes keys.
///
/// # Errors
/// `facts/errors.md` §3, DeleteRange.
pub(crate) async fn delete_range(
    door: &Rc<Door>,
    call: &Call,
    request: pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, Status> {
    validate::delete_range(&request)?;
    match door.propose(call, Request::DeleteRange(request)).await? {
        Reply::DeleteRange(mut response) => {
            door.metrics.operations.delete.add(1);
            door.complete(&mut response.header);
            Ok(response)
        }
        _ => Err(confused("another reply than to a delete")),
    }
}

/// Runs a transaction: through the log if it may write, else as a read.
///
/// # Errors
/// `facts/errors.md` §3, Txn.
pub(crate) async fn txn(door: &Rc<Door>, call: &Call, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
    door.check_quota(call, cost::txn(&request)).await?;
    validate::txn(&request, door.config.limits.max_txn_ops)?;
    let branches = [put_bytes(&request.success), put_bytes(&request.failure)];
    let mut response = if milepost_machine::is_txn_readonly(&request) {
        if !milepost_machine::is_txn_serializable(&request) {
            door.read_barrier(call).await?;
        }
        read(door, request, |reader, request| reader.txn_readonly(request), is_long_txn).await?
    } else {
        match door.propose(call, Request::Txn(request)).await? {
            Reply::Txn(response) => response,
            _ => return Err(confused("another reply than to a transaction")),
        }
    };
    door.metrics.operations.count_txn(&response.responses);
    door.metrics.put_bytes.add(branches[usize::from(!response.succeeded)]);
    door.complete(&mut response.header);
    Ok(response)
}

/// Bytes of the keys and values that a branch puts, without those of transactions inside it.
fn put_bytes(ops: &[pb::RequestOp]) -> u64 {
    let bytes = |op: &pb::RequestOp| match &op.request {
        Some(pb::request_op::Request::RequestPut(put)) => put.key.len() + put.value.len(),
        _ => 0,
    };
    ops.iter().map(bytes).sum::<usize>() as u64
}

/// Drops old revisions; `physical` waits until they are deleted.
///
/// # Errors
/// `facts/errors.md` §3, Compact.
pub(crate) async fn compact(
    door: &Rc<Door>,
    call: &Call,
    request: pb::CompactionRequest,
) -> Result<pb::CompactionResponse, Status> {
    let (revision, physical) = (request.revision, request.physical);
    match door.propose(call, Request::Compaction(request)).await? {
        Reply::Compaction(mut response) => {
            if physical {
                deleted(door, revision).await?;
            }
            door.complete(&mut response.header);
            Ok(response)
        }
        _ => Err(confused("another reply than to a compaction")),
    }
}

/// Waits until what the compaction to `revision` drops is deleted, however long that takes.
async fn deleted(door: &Rc<Door>, revision: i64) -> Result<(), Status> {
    let wake = door.slots.open_stream();
    let (sink, ticket) = (door.sink.clone(), wake.ticket());
    let is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&is_done);
    let tell = move || {
        done.store(true, Ordering::Release);
        sink.ready(ticket);
    };
    door.reader().store().when_compacted(revision, Box::new(tell));
    std::future::poll_fn(|cx| {
        // Streams are also woken for what concerns all of them: an end, or a lost leader.
        while wake.poll(cx).is_ready() {}
        match is_done.load(Ordering::Acquire) {
            true => Poll::Ready(Ok(())),
            false if door.is_stopping.get() => Poll::Ready(Err(status::STOPPED)),
            false => Poll::Pending,
        }
    })
    .await
}

/// Reads here if it is quick, else on a thread for long reads.
async fn read<Q: Send + 'static, A: Send + 'static>(
    door: &Rc<Door>,
    request: Q,
    answer: fn(&milepost_machine::Reader, &Q) -> Result<A, Error>,
    is_long: fn(&milepost_machine::Reader, &Q) -> bool,
) -> Result<A, Status> {
    let reader = door.reader();
    if !is_long(reader, &request) {
        return Ok(answer(reader, &request)?);
    }
    let reader = reader.clone();
    Ok(workers::apart(move || answer(&reader, &request)).await??)
}

/// Does it touch many keys? What a range holds beyond its limit is not touched to be counted, save at old revisions.
fn is_long_range(reader: &milepost_machine::Reader, request: &pb::RangeRequest) -> bool {
    let is_page = is_list(request) && (1..=SHORT_KEYS as i64).contains(&request.limit);
    if request.range_end.is_empty() || (request.revision <= 0 && (is_page || request.count_only)) {
        return false;
    }
    let keys = KeyRange::from_wire(&request.key, &request.range_end);
    // An error is found again, and reported, by the read itself.
    reader.store().view().is_longer(keys, request.revision, SHORT_KEYS).unwrap_or(false)
}

fn is_long_txn(reader: &milepost_machine::Reader, request: &pb::TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    let is_long_compare = request.compare.iter().any(|compare| !compare.range_end.is_empty());
    is_long_compare || ops.any(|op| matches!(&op.request, Some(pb::request_op::Request::RequestRange(range)) if is_long_range(reader, range)))
}
