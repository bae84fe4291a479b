//! Range, to the letter of etcd's: what is fetched, filtered, sorted, cut.
//!
//! ```text
//! fetch (limit+1 keys in key order, or all)  →  drop by revision bounds  →  sort  →  cut at limit
//! ```
//! The order of these steps is visible to clients: an explicit order or a revision bound makes the limit apply to the
//! sorted result, while order NONE with a target other than KEY cuts in key order *first* and sorts what is left
//! (fetching one key more than the limit, so that this one may push another one out).
//! Source: `facts/rpc-semantics.md` §1; etcd `txn.executeRange`.

use std::cmp::Ordering;
use std::sync::Arc;

use milepost_mvcc::{RangeOptions, Record};
use milepost_proto::etcdserverpb as pb;
use milepost_proto::mvccpb;
use milepost_types::KeyRange;
use pb::range_request::{SortOrder, SortTarget};

use super::{Keys, header};
use crate::error::Fault;

/// Does the request want keys as the store has them, ascending?
///
/// NONE counts as such with any target: the sort that follows is then one of the quirks above.
pub(crate) fn is_default_order(request: &pb::RangeRequest) -> bool {
    request.sort_order == SortOrder::None as i32
        || (request.sort_target == SortTarget::Key as i32 && request.sort_order == SortOrder::Ascend as i32)
}

/// Are there bounds on revisions? Zero means unset, anything else is a bound.
pub(crate) fn has_revision_bounds(request: &pb::RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// Runs `request` on `keys`. `want_count`: fill in how many keys the range holds, whatever the limit.
pub(crate) fn range(
    keys: &impl Keys,
    request: &pb::RangeRequest,
    want_count: bool,
) -> Result<pb::RangeResponse, Fault> {
    let span = KeyRange::from_wire(&request.key, &request.range_end);
    if request.count_only {
        let found = keys.range(span, request.revision, RangeOptions { limit: 1, count: true, values: false })?;
        return Ok(pb::RangeResponse { header: header(keys.newest()), count: found.count, ..Default::default() });
    }
    let by_value = request.sort_target == SortTarget::Value as i32;
    let opts = RangeOptions { limit: fetch_limit(request), count: want_count, values: !request.keys_only || by_value };
    let mut found = keys.range(span, request.revision, opts)?;
    drop_out_of_bounds(&mut found.records, request);
    sort(&mut found.records, request);

    let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0);
    let more = limit.is_some_and(|limit| found.records.len() > limit);
    if let Some(limit) = limit {
        found.records.truncate(limit);
    }
    let kvs = found.records.iter().map(|record| to_kv(record, request.keys_only, by_value)).collect();
    let count = if want_count { found.count } else { 0 };
    Ok(pb::RangeResponse { header: header(keys.newest()), kvs, more, count })
}

/// How many keys to take from the store: one above the limit tells whether there are more; 0 = all.
pub(crate) fn fetch_limit(request: &pb::RangeRequest) -> usize {
    if request.limit <= 0 || !is_default_order(request) || has_revision_bounds(request) {
        return 0;
    }
    usize::try_from(request.limit).unwrap_or(usize::MAX).saturating_add(1)
}

fn drop_out_of_bounds(records: &mut Vec<Arc<Record>>, request: &pb::RangeRequest) {
    if !has_revision_bounds(request) {
        return;
    }
    let inside = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    records.retain(|record| {
        inside(record.revision.main, request.min_mod_revision, request.max_mod_revision)
            && inside(record.create_revision, request.min_create_revision, request.max_create_revision)
    });
}

/// Ties keep key order: etcd leaves them undefined.
fn sort(records: &mut [Arc<Record>], request: &pb::RangeRequest) {
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    let descending = match SortOrder::try_from(request.sort_order) {
        Ok(SortOrder::Descend) => true,
        Ok(SortOrder::Ascend) if target != SortTarget::Key => false,
        Ok(SortOrder::None) if target != SortTarget::Key => false,
        _ => return,
    };
    let compare = |a: &Record, b: &Record| -> Ordering {
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.revision.main.cmp(&b.revision.main),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    };
    if descending {
        records.sort_by(|a, b| compare(b, a));
    } else {
        records.sort_by(|a, b| compare(a, b));
    }
}

/// etcd 3.7 answers keys-only ranges from its index, which knows no leases; a sort by value needs the records, and so
/// keeps the lease.
fn to_kv(record: &Record, keys_only: bool, by_value: bool) -> mvccpb::KeyValue {
    if !keys_only {
        return record.to_kv();
    }
    mvccpb::KeyValue {
        key: record.key.clone(),
        create_revision: record.create_revision,
        mod_revision: record.revision.main,
        version: record.version,
        value: bytes::Bytes::new(),
        lease: if by_value { record.lease.0 } else { 0 },
    }
}
