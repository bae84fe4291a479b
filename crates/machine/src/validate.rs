//! Checks of a request's own shape, before it is proposed or read: what needs no state.
//!
//! `api` calls these at the door, in etcd's order (quota first for Put, Txn and LeaseGrant; identity after).
//! Apply does not repeat them: an entry is taken as it is, so that members of any make agree.
//! Source: `facts/errors.md` §3; etcd `v3rpc/key.go`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use milepost_proto::etcdserverpb as pb;
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;

use crate::config::MAX_LEASE_TTL;
use crate::error::Error;
use crate::kv::range::{has_revision_bounds, is_default_order};

/// Levels of transactions inside transactions.
///
/// etcd's only bound is the number of operations. Ours exists because a message nested deeper than 100 does not decode
/// (two levels for each transaction), and an entry that no member can decode would stop them all.
pub const TXN_DEPTH_MAX: usize = 40;

/// Range: a key, and an order that exists.
///
/// # Errors
/// [`Error::EmptyKey`], [`Error::InvalidSortOption`].
pub fn range(request: &pb::RangeRequest) -> Result<(), Error> {
    key(&request.key)?;
    let order = SortOrder::try_from(request.sort_order).is_ok();
    if order && SortTarget::try_from(request.sort_target).is_ok() { Ok(()) } else { Err(Error::InvalidSortOption) }
}

/// RangeStream: as Range, in key order and without bounds on revisions.
///
/// # Errors
/// As [`range()`], then [`Error::StreamSort`], [`Error::StreamFilter`].
pub fn range_stream(request: &pb::RangeRequest) -> Result<(), Error> {
    range(request)?;
    if !is_default_order(request) {
        return Err(Error::StreamSort);
    }
    if has_revision_bounds(request) { Err(Error::StreamFilter) } else { Ok(()) }
}

/// Put: a key; no value if the old one is kept; no lease if the old one is kept.
///
/// # Errors
/// [`Error::EmptyKey`], [`Error::ValueProvided`], [`Error::LeaseProvided`].
pub fn put(request: &pb::PutRequest) -> Result<(), Error> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 { Err(Error::LeaseProvided) } else { Ok(()) }
}

/// DeleteRange: a key.
///
/// # Errors
/// [`Error::EmptyKey`].
pub fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Error> {
    key(&request.key)
}

/// LeaseGrant: a TTL that etcd grants.
///
/// # Errors
/// [`Error::LeaseTtlTooLarge`]. (etcd finds it at apply, where it is found again.)
pub fn lease_grant(request: &pb::LeaseGrantRequest) -> Result<(), Error> {
    if request.ttl > MAX_LEASE_TTL { Err(Error::LeaseTtlTooLarge) } else { Ok(()) }
}

/// Txn: number of operations, each operation by its own rules, and no key changed twice.
///
/// `max_ops` bounds the largest of the three lists; what is left of it after that bounds each nested transaction.
///
/// # Errors
/// The first that etcd would name, except that nesting beyond [`TXN_DEPTH_MAX`] is [`Error::TooManyOps`].
pub fn txn(request: &pb::TxnRequest, max_ops: usize) -> Result<(), Error> {
    shape(request, max_ops, TXN_DEPTH_MAX)?;
    changes(&request.success)?;
    changes(&request.failure)?;
    Ok(())
}

fn key(key: &[u8]) -> Result<(), Error> {
    if key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

fn shape(request: &pb::TxnRequest, max_ops: usize, depth_left: usize) -> Result<(), Error> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > max_ops || depth_left == 0 {
        return Err(Error::TooManyOps);
    }
    request.compare.iter().try_for_each(|compare| key(&compare.key))?;
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(request)) => shape(request, max_ops - ops, depth_left - 1)?,
            None => return Err(Error::KeyNotFound),
        }
    }
    Ok(())
}

/// What the operations of one branch may change, nested transactions included.
#[derive(Default)]
struct Changes {
    puts: BTreeSet<Bytes>,
    deletes: Intervals,
}

/// Refuses a key that is put twice, or put and deleted.
///
/// Quirks of etcd's that clients may rely on: deletes may overlap each other; then and else of one nested transaction
/// may put the same key, those of two may not; a delete "from a key on" covers nothing here; and a nested transaction's
/// puts are compared with deletes of this level and of *earlier* nested ones only.
fn changes(ops: &[pb::RequestOp]) -> Result<Changes, Error> {
    let mut all = Changes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            all.deletes.insert(request.key.clone(), end_of(request));
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(request)) = &op.request {
            let then = changes(&request.success)?;
            let otherwise = changes(&request.failure)?;
            merge_nested(&mut all, then, otherwise)?;
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(request)) = &op.request {
            all.put(request.key.clone())?;
        }
    }
    Ok(all)
}

fn merge_nested(all: &mut Changes, then: Changes, otherwise: Changes) -> Result<(), Error> {
    for key in &then.puts {
        all.put(key.clone())?;
    }
    for key in &otherwise.puts {
        if !then.puts.contains(key) {
            all.put(key.clone())?;
        }
    }
    all.deletes.extend(then.deletes);
    all.deletes.extend(otherwise.deletes);
    Ok(())
}

impl Changes {
    fn put(&mut self, key: Bytes) -> Result<(), Error> {
        if self.deletes.cover(&key) {
            return Err(Error::DuplicateKey);
        }
        if self.puts.insert(key) { Ok(()) } else { Err(Error::DuplicateKey) }
    }
}

/// First key that a delete does not reach. One that begins at or above its end covers nothing; from-key deletes look
/// like that, with their end of one zero byte.
fn end_of(request: &pb::DeleteRangeRequest) -> Bytes {
    if !request.range_end.is_empty() {
        return request.range_end.clone();
    }
    let mut end = request.key.to_vec();
    end.push(0);
    end.into()
}

/// Disjoint half-open intervals of keys, start → end: looking a key up costs the logarithm of their number, where
/// comparing all puts with all deletes of a large nested transaction would cost seconds.
#[derive(Default)]
struct Intervals(BTreeMap<Bytes, Bytes>);

impl Intervals {
    fn cover(&self, key: &Bytes) -> bool {
        self.0.range(..=key.clone()).next_back().is_some_and(|(_, end)| key < end)
    }

    fn insert(&mut self, mut start: Bytes, mut end: Bytes) {
        if start >= end {
            return;
        }
        // Swallow every interval that begins at or before our end and reaches our start.
        while let Some((other_start, other_end)) = self.0.range(..=end.clone()).next_back() {
            if *other_end < start {
                break;
            }
            let (other_start, other_end) = (other_start.clone(), other_end.clone());
            self.0.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.0.insert(start, end);
    }

    fn extend(&mut self, other: Self) {
        for (start, end) in other.0 {
            self.insert(start, end);
        }
    }
}

#[cfg(test)]
#[path = "validate_test.rs"]
mod tests;
