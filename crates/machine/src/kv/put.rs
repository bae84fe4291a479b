//! Put and DeleteRange.

use std::sync::Arc;

use bytes::Bytes;
use milepost_mvcc::{Change, Record};
use milepost_proto::etcdserverpb as pb;
use milepost_types::{KeyRange, LeaseId};

use super::{Keys, header};
use crate::error::{Error, Fault};
use crate::lease::Lessor;

/// May this put be done? The lease must exist, then the key if its value or lease is to be kept.
///
/// # Errors
/// [`Error::LeaseNotFound`], [`Error::KeyNotFound`], in this order. Source: `facts/errors.md` §3.
pub(crate) fn check_put(change: &Change<'_>, leases: &Lessor, request: &pb::PutRequest) -> Result<(), Fault> {
    if request.lease != 0 && !leases.exists(LeaseId(request.lease)) {
        return Err(Error::LeaseNotFound.into());
    }
    if (request.ignore_value || request.ignore_lease) && change.get(&request.key)?.is_none() {
        return Err(Error::KeyNotFound.into());
    }
    Ok(())
}

/// Writes one key. [`check_put`] has passed, against this state or, within a transaction, against the one before it.
///
/// A transaction can take away the key between check and put (delete from a key on, then put with `ignore_value`: the
/// one overlap that etcd does not refuse). etcd's process ends there; here nothing is kept: empty value, no lease.
pub(crate) fn put(change: &mut Change<'_>, request: &pb::PutRequest) -> Result<pb::PutResponse, Fault> {
    let keeps = request.ignore_value || request.ignore_lease;
    let previous: Option<Arc<Record>> = if keeps || request.prev_kv { change.get(&request.key)? } else { None };
    let value = match &previous {
        _ if !request.ignore_value => request.value.clone(),
        Some(record) => record.value.clone(),
        None => Bytes::new(),
    };
    let lease = match &previous {
        _ if !request.ignore_lease => LeaseId(request.lease),
        Some(record) => record.lease,
        None => LeaseId(0),
    };
    change.put(request.key.clone(), value, lease)?;
    let prev_kv = previous.filter(|_| request.prev_kv).map(|record| record.to_kv());
    Ok(pb::PutResponse { header: header(change.newest()), prev_kv })
}

/// Deletes every key in the range, in key order. Nothing there: no change, and the revision stays.
pub(crate) fn delete_range(
    change: &mut Change<'_>,
    request: &pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, Fault> {
    let deleted = change.delete_range(KeyRange::from_wire(&request.key, &request.range_end), request.prev_kv)?;
    let prev_kvs = if request.prev_kv { deleted.iter().map(|record| record.to_kv()).collect() } else { Vec::new() };
    let count = i64::try_from(deleted.len()).expect("a count of keys in memory fits i64");
    Ok(pb::DeleteRangeResponse { header: header(change.newest()), deleted: count, prev_kvs })
}
