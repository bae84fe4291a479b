//! Standing in line under a name: what the lock and the election service have in common.
//!
//! ```text
//!  name/3f   create revision 7   holds         every key belongs to a lease: whoever dies leaves the line
//!  name/a1   create revision 9   waits for 3f  by a watch of that one key: a key that goes wakes one who waits,
//!  name/52   create revision 12  waits for a1  however many there are
//! ```
//! Source: etcd `client/v3/concurrency`, which its server runs against itself. Two things differ, because nobody can rely
//! on the opposite: a call that its client gives up while its place is being made gives the place back, too (there it stays
//! until the lease ends); and a place is given back only if it is still the same one.

use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use milepost_mvcc::watch::{CreateRequest, Frame, Stream, StreamOptions};
use milepost_proto::Message;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use milepost_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use milepost_proto::etcdserverpb::request_op::Request as Op;
use milepost_proto::mvccpb::{Event, KeyValue};
use tokio::sync::oneshot;

use crate::call::Call;
use crate::completions::StreamWake;
use crate::door::{Door, confused};
use crate::handlers::{kv, lease};
use crate::status::{self, Code, Status};

/// Seconds of a lease for who brings none. Source: etcd `defaultSessionTTL`.
const SESSION_TTL: i64 = 60;

/// etcd's server asks itself as a client, and hands on what it hears: the text survives, the code does not. Only what
/// became of the call itself keeps its code.
pub(crate) fn as_heard(status: Status) -> Status {
    match status.code {
        Code::DeadlineExceeded | Code::Canceled | Code::Internal => status,
        // Not heard from a client: the streams of this member are ending.
        _ if status == status::STOPPED => status,
        _ => Status { code: Code::Unknown, ..status },
    }
}

/// What `name` is in the keyspace: the front of the keys of all who stand in line.
pub(crate) fn prefix(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// The key of `lease` in the line `prefix`: its id in hexadecimal, with a sign as Go prints it.
pub(crate) fn key(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    Bytes::from([prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat())
}

/// `lease`, or a new one for 0. Nobody keeps it alive but the caller.
///
/// # Errors
/// As granting a lease.
pub(crate) async fn session(door: &Rc<Door>, call: &Call, lease: i64) -> Result<i64, Status> {
    if lease != 0 {
        return Ok(lease);
    }
    let request = pb::LeaseGrantRequest { ttl: SESSION_TTL, id: 0 };
    Ok(lease::grant(door, call, request).await?.id)
}

/// Runs `work` on this door's thread whether or not the caller waits for its end: what it has written it must be able to
/// take back. It learns from the sender that nobody listens any more.
pub(crate) async fn attended<T: 'static, F>(
    call: &Call,
    work: impl FnOnce(oneshot::Sender<Result<T, Status>>) -> F,
) -> Result<T, Status>
where
    F: Future<Output = ()> + 'static,
{
    let (answer, heard) = oneshot::channel();
    drop(tokio::task::spawn_local(work(answer)));
    let heard = async { heard.await.unwrap_or(Err(status::STOPPED)) };
    match call.deadline {
        Some(at) => tokio::time::timeout_at(at.into(), heard).await.unwrap_or(Err(status::DEADLINE)),
        None => heard.await,
    }
}

/// A step of a call that may wait for hours: its time begins now.
pub(crate) fn step() -> Call {
    Call::internal(Instant::now())
}

/// The holder of the line `prefix`: the oldest of its keys.
pub(crate) fn first(prefix: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: end(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..Default::default()
    }
}

/// The end of all keys that begin with `prefix`, which ends with a slash.
pub(crate) fn end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Bytes::from(end)
}

/// `key` has this create revision; 0: there is no such key.
pub(crate) fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

/// An operation of a transaction.
pub(crate) fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// A read of one key.
pub(crate) fn get(key: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key: key.clone(), ..Default::default() }
}

/// The keys that operation `index` of a transaction has read.
pub(crate) fn kvs(response: &mut pb::TxnResponse, index: usize) -> Vec<KeyValue> {
    match response.responses.get_mut(index).and_then(|op| op.response.take()) {
        Some(pb::response_op::Response::ResponseRange(range)) => range.kvs,
        _ => Vec::new(),
    }
}

/// The header's revision.
pub(crate) fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// Somebody's place in a line.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) prefix: Vec<u8>,
    pub(crate) key: Bytes,
    /// Its create revision: the number that was drawn.
    pub(crate) revision: i64,
    /// This call made it; else it was there.
    pub(crate) is_new: bool,
}

impl Place {
    /// Waits until everybody who came earlier has left.
    ///
    /// # Errors
    /// The line cannot be read or watched, or the member stops.
    pub(crate) async fn turn(&self, door: &Rc<Door>) -> Result<(), Status> {
        loop {
            let last_before = pb::RangeRequest {
                sort_order: SortOrder::Descend as i32,
                max_create_revision: self.revision - 1,
                ..first(&self.prefix)
            };
            let mut found = kv::range(door, &step(), last_before).await?;
            let Some(before) = found.kvs.pop() else { return Ok(()) };
            until_deleted(door, before.key, revision(found.header.as_ref())).await?;
        }
    }

    /// Leaves the line, if the place is still this one.
    pub(crate) async fn leave(&self, door: &Rc<Door>) {
        let delete = pb::DeleteRangeRequest { key: self.key.clone(), ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![created_at(&self.key, self.revision)],
            success: vec![op(Op::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        // Who gave up does not listen, and the lease sees to what could not be deleted.
        let _ = kv::txn(door, &step(), request).await;
    }
}

/// Waits until `key` is deleted at `revision` or later.
async fn until_deleted(door: &Rc<Door>, key: Bytes, revision: i64) -> Result<(), Status> {
    let request = CreateRequest { key, start_revision: revision, no_put: true, ..Default::default() };
    let mut vigil = Vigil::begin(door, request);
    while vigil.next().await?.1.is_empty() {}
    Ok(())
}

/// One watcher for a handler's own use.
pub(crate) struct Vigil {
    door: Rc<Door>,
    stream: Stream,
    wake: StreamWake,
    taken: Vec<Frame>,
    frames: VecDeque<Frame>,
}

impl Vigil {
    /// Begins to watch.
    pub(crate) fn begin(door: &Rc<Door>, request: CreateRequest) -> Self {
        let wake = door.slots.open_stream();
        let (sink, ticket) = (door.sink.clone(), wake.ticket());
        let options = StreamOptions { max_response_bytes: door.config.limits.max_receive_bytes() };
        let stream = door.backend.hub().open_stream(Arc::new(move || sink.ready(ticket)), options);
        stream.create(request);
        Self { door: Rc::clone(door), stream, wake, taken: Vec::new(), frames: VecDeque::new() }
    }

    /// What comes next, with the header's revision; possibly no event.
    ///
    /// # Errors
    /// What should be watched is compacted, or the member stops.
    pub(crate) async fn next(&mut self) -> Result<(i64, Vec<Event>), Status> {
        let frame = std::future::poll_fn(|cx| self.poll(cx)).await?;
        if frame.compact_revision != 0 {
            return Err(status::COMPACTED);
        }
        if frame.canceled {
            return Err(Status::new(Code::Unknown, frame.cancel_reason));
        }
        let events = pb::WatchResponse::decode(frame.events).map_err(|_| confused("events that are none"))?.events;
        Ok((frame.revision, events))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Status>> {
        while self.wake.poll(cx).is_ready() {}
        if self.frames.is_empty() {
            self.stream.take(&mut self.taken);
            self.frames.extend(self.taken.drain(..));
        }
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Ok(frame)),
            None if self.door.is_stopping.get() || self.stream.is_ended() => Poll::Ready(Err(status::STOPPED)),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_gos() {
        let line = prefix(b"a");
        assert_eq!(key(&line, 0x32_695d), "a/32695d");
        assert_eq!(key(&line, -1), "a/-1");
        assert_eq!(key(&line, i64::MIN), "a/-8000000000000000");
        assert_eq!(key(&prefix(b""), 10), "/a");
        assert_eq!(end(&line), "a0");
    }

    #[test]
    fn codes_are_lost_and_texts_are_not() {
        let heard = as_heard(status::LEASE_NOT_FOUND);
        assert_eq!(heard, Status::new(Code::Unknown, "etcdserver: requested lease not found"));
        assert_eq!(as_heard(status::DEADLINE), status::DEADLINE);
        assert_eq!(as_heard(status::STOPPED), status::STOPPED);
    }
}
