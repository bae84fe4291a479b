//! Transactions.
//!
//! ```text
//! compares, all levels, on the state before   →  the path: which branch is taken at every level
//! checks of the path, on the state before     →  any refusal: nothing has happened
//! the path, in order, each operation seeing the ones before it  →  one revision for all
//! ```
//! Source: `facts/rpc-semantics.md` §1, `facts/apply-semantics.md` §2; etcd `txn.Txn`.

use milepost_mvcc::{Change, RangeOptions, Record, View};
use milepost_proto::etcdserverpb as pb;
use milepost_types::KeyRange;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;

use super::{Keys, check_put, delete_range, header, just_after, put, range};
use crate::error::{Error, Fault};
use crate::lease::Lessor;

/// Keys that a compare over a range looks at together.
const COMPARE_PIECE: usize = 1000;

/// Only ranges in both branches: such a transaction never enters the log. A nested one counts as a write.
#[must_use]
pub fn is_readonly(request: &pb::TxnRequest) -> bool {
    all_ranges(request, |_| true)
}

/// Every operation is a serializable range, or there is none at all: no ReadIndex is needed.
#[must_use]
pub fn is_serializable(request: &pb::TxnRequest) -> bool {
    all_ranges(request, |range| range.serializable)
}

fn all_ranges(request: &pb::TxnRequest, holds: impl Fn(&pb::RangeRequest) -> bool) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if holds(range)))
}

/// The branch taken by a transaction and, in the order of their operations, by the ones nested in it.
struct Path<'a> {
    succeeded: bool,
    ops: &'a [pb::RequestOp],
    nested: Vec<Path<'a>>,
}

/// Runs a transaction of an entry. `want_ranges` false: nobody waits, so ranges are checked but not run.
pub(crate) fn apply(
    change: &mut Change<'_>,
    leases: &Lessor,
    request: &pb::TxnRequest,
    want_ranges: bool,
) -> Result<pb::TxnResponse, TxnFault> {
    let path = choose(change, request).map_err(TxnFault::Before)?;
    check(change, leases, &path).map_err(TxnFault::Before)?;
    let mut response = run(change, &path, want_ranges).map_err(TxnFault::After)?;
    response.header = header(change.newest());
    Ok(response)
}

/// Where a transaction failed: before anything was done, or when part of it may be.
pub(crate) enum TxnFault {
    Before(Fault),
    After(Fault),
}

/// Runs a transaction of ranges alone on a view.
pub(crate) fn readonly(view: &View, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Fault> {
    let path = choose(view, request)?;
    for op in path.ops {
        if let Some(Request::RequestRange(range)) = &op.request {
            check_range(view.newest(), view.compact_revision(), range)?;
        }
    }
    let mut responses = Vec::with_capacity(path.ops.len());
    for op in path.ops {
        if let Some(Request::RequestRange(request)) = &op.request {
            let response = Response::ResponseRange(range::range(view, request, true)?);
            responses.push(pb::ResponseOp { response: Some(response) });
        }
    }
    Ok(pb::TxnResponse { header: header(view.newest()), succeeded: path.succeeded, responses })
}

fn choose<'a>(keys: &impl Keys, request: &'a pb::TxnRequest) -> Result<Path<'a>, Fault> {
    let mut succeeded = true;
    for compare in &request.compare {
        if !holds(keys, compare)? {
            succeeded = false;
            break;
        }
    }
    let ops = if succeeded { &request.success } else { &request.failure };
    let mut nested = Vec::new();
    for op in ops {
        if let Some(Request::RequestTxn(inner)) = &op.request {
            nested.push(choose(keys, inner)?);
        }
    }
    Ok(Path { succeeded, ops, nested })
}

/// All keys of the range must satisfy it; a missing key compares as zero, but never by value. Large ranges are read in
/// pieces, and only up to the first key that fails.
fn holds(keys: &impl Keys, compare: &pb::Compare) -> Result<bool, Fault> {
    let by_value = compare.target == CompareTarget::Value as i32;
    let opts = RangeOptions { limit: COMPARE_PIECE, count: false, values: by_value };
    let mut found = keys.range(KeyRange::from_wire(&compare.key, &compare.range_end), 0, opts)?;
    if found.records.is_empty() {
        return Ok(!by_value && verdict(compare, None));
    }
    loop {
        if !found.records.iter().all(|record| verdict(compare, Some(record))) {
            return Ok(false);
        }
        match found.records.last() {
            Some(last) if found.records.len() == COMPARE_PIECE => {
                found = keys.range(KeyRange::from_wire(&just_after(&last.key), &compare.range_end), 0, opts)?;
            }
            _ => return Ok(true),
        }
    }
}

/// A union that does not match the target counts as zero or empty. As in etcd, a target of unknown number compares as
/// equal, and a result of unknown number holds.
fn verdict(compare: &pb::Compare, record: Option<&Record>) -> bool {
    let given = compare.target_union.as_ref();
    let field = |get: fn(&Record) -> i64| record.map_or(0, get);
    let Ok(target) = CompareTarget::try_from(compare.target) else {
        return results_in(compare.result, std::cmp::Ordering::Equal);
    };
    let ordering = match (target, given) {
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => {
            record.map_or(&b""[..], |record| &record.value).cmp(value)
        }
        (CompareTarget::Value, _) => record.map_or(&b""[..], |record| &record.value).cmp(b""),
        (CompareTarget::Version, Some(TargetUnion::Version(version))) => field(|r| r.version).cmp(version),
        (CompareTarget::Version, _) => field(|r| r.version).cmp(&0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(main))) => field(|r| r.create_revision).cmp(main),
        (CompareTarget::Create, _) => field(|r| r.create_revision).cmp(&0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(main))) => field(|r| r.revision.main).cmp(main),
        (CompareTarget::Mod, _) => field(|r| r.revision.main).cmp(&0),
        (CompareTarget::Lease, Some(TargetUnion::Lease(lease))) => field(|r| r.lease.0).cmp(lease),
        (CompareTarget::Lease, _) => field(|r| r.lease.0).cmp(&0),
    };
    results_in(compare.result, ordering)
}

fn results_in(result: i32, ordering: std::cmp::Ordering) -> bool {
    match CompareResult::try_from(result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

fn check(change: &Change<'_>, leases: &Lessor, path: &Path<'_>) -> Result<(), Fault> {
    let mut nested = path.nested.iter();
    for op in path.ops {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(change.revision(), change.compact_revision(), range)?,
            Some(Request::RequestPut(put)) => check_put(change, leases, put)?,
            Some(Request::RequestTxn(_)) => {
                let inner = nested.next().expect("one path for each nested transaction");
                check(change, leases, inner)?;
            }
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

/// Stricter than a range of its own: a negative revision is not "the newest" here but lies below the compacted one.
/// Source: etcd `checkRange`.
fn check_range(revision: i64, compact_revision: i64, request: &pb::RangeRequest) -> Result<(), Fault> {
    match request.revision {
        0 => Ok(()),
        at if at > revision => Err(Error::FutureRevision.into()),
        at if at < compact_revision => Err(Error::Compacted.into()),
        _ => Ok(()),
    }
}

fn run(change: &mut Change<'_>, path: &Path<'_>, want_ranges: bool) -> Result<pb::TxnResponse, Fault> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::with_capacity(path.ops.len());
    for op in path.ops {
        let response = match &op.request {
            Some(Request::RequestRange(request)) if want_ranges => {
                Some(Response::ResponseRange(range::range(change, request, true)?))
            }
            Some(Request::RequestRange(_)) => Some(Response::ResponseRange(pb::RangeResponse {
                header: header(change.newest()),
                ..Default::default()
            })),
            Some(Request::RequestPut(request)) => Some(Response::ResponsePut(put(change, request)?)),
            Some(Request::RequestDeleteRange(request)) => {
                Some(Response::ResponseDeleteRange(delete_range(change, request)?))
            }
            Some(Request::RequestTxn(_)) => {
                let inner = nested.next().expect("one path for each nested transaction");
                Some(Response::ResponseTxn(run(change, inner, want_ranges)?))
            }
            None => None,
        };
        responses.push(pb::ResponseOp { response });
    }
    // Only the outermost one reports a revision; the header of a nested one is there, but empty.
    Ok(pb::TxnResponse { header: Some(pb::ResponseHeader::default()), succeeded: path.succeeded, responses })
}
