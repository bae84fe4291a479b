//! Sessions, locks and elections made of keys, leases and watches, laid out as etcd's `client/v3/concurrency` does, so
//! that its users and ours exclude each other.
//!
//! ```text
//!  NAME/<lease of a session, hex>  → value      the key with the lowest create revision holds the lock or leads;
//!  NAME/694d81417acb754            → "node-1"   everybody else waits for the deletion of the key just before its own
//!  NAME/694d81417acb75f            → "node-2"
//! ```
//! The key goes with the session's lease: who disappears gives way.

mod election;
mod mutex;
mod session;

pub use election::{Election, Observer};
pub use mutex::Mutex;
pub use session::Session;

use bytes::Bytes;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use milepost_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use milepost_proto::etcdserverpb::{request_op, response_op};
use milepost_proto::mvccpb;
use milepost_proto::mvccpb::event::EventType;

use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::Error;

/// `NAME/`
fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// `NAME/<lease hex>`
fn key(prefix: &[u8], lease: i64) -> Bytes {
    // As Go prints a signed number in hexadecimal.
    let lease = if lease < 0 { format!("-{:x}", lease.unsigned_abs()) } else { format!("{lease:x}") };
    [prefix, lease.as_bytes()].concat().into()
}

/// The end of the range of all keys that begin with `prefix`; `\0`, which is "no end", if there is no such key.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let keep = prefix.iter().rposition(|byte| *byte != u8::MAX);
    let Some(last) = keep else { return Bytes::from_static(b"\0") };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end.into()
}

fn get(key: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key: key.clone(), ..Default::default() }
}

/// Who came first below `prefix`.
fn first_created(prefix: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        range_end: prefix_end(prefix),
        limit: 1,
        sort_target: SortTarget::Create.into(),
        sort_order: SortOrder::Ascend.into(),
        ..get(prefix)
    }
}

fn put(key: &Bytes, value: Bytes, lease: i64) -> request_op::Request {
    request_op::Request::RequestPut(pb::PutRequest { key: key.clone(), value, lease, ..Default::default() })
}

fn op(request: request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// "`key` was created at `revision`"; 0: there is no such key.
fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

/// The first key of one read in the answer to a transaction.
fn read_in(answer: &pb::TxnResponse, index: usize) -> Result<Option<&mvccpb::KeyValue>, Error> {
    match answer.responses.get(index).and_then(|response| response.response.as_ref()) {
        Some(response_op::Response::ResponseRange(range)) => Ok(range.kvs.first()),
        _ => Err(Error::client("the server's answer does not fit the transaction")),
    }
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

fn is_delete(event: &mvccpb::Event) -> bool {
    event.r#type() == EventType::Delete
}

/// Waits until no key below `prefix` is left that was created at or before `max_create_revision`.
async fn wait_deletes(client: &Client, prefix: &Bytes, max_create_revision: i64) -> Result<(), Error> {
    let last_created = pb::RangeRequest {
        range_end: prefix_end(prefix),
        limit: 1,
        sort_target: SortTarget::Create.into(),
        sort_order: SortOrder::Descend.into(),
        max_create_revision,
        ..get(prefix)
    };
    loop {
        let answer = client.kv().range(last_created.clone(), Deadline::NEVER).await?;
        let Some(before) = answer.kvs.first() else { return Ok(()) };
        wait_delete(client, before.key.clone(), revision(answer.header.as_ref())).await?;
    }
}

async fn wait_delete(client: &Client, key: Bytes, start_revision: i64) -> Result<(), Error> {
    let mut watcher = client.watch(pb::WatchCreateRequest { key, start_revision, ..Default::default() });
    let mut why = None;
    while let Some(update) = watcher.next().await {
        if update.response.events.iter().any(is_delete) {
            return Ok(());
        }
        why = update.error();
    }
    Err(why.unwrap_or_else(|| Error::client("lost watcher waiting for delete")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_gos_are() {
        assert_eq!(prefix(b"lock"), "lock/");
        assert_eq!(key(b"lock/", 0x0694_d814_17ac_b754), "lock/694d81417acb754");
        assert_eq!(key(b"l/", -255), "l/-ff");
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"a/"), "a0");
        assert_eq!(prefix_end(b"a\xff"), "b");
        assert_eq!(prefix_end(b"\xff\xff"), "\0");
    }
}
