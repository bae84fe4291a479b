//! What a request costs in bytes, by etcd's estimate.
//!
//! While the NOSPACE alarm is up the cost of a transaction decides whether it is applied: the formula is state, not
//! taste. Source: `facts/apply-semantics.md` §5; etcd `storage/quota.go`.

use milepost_proto::etcdserverpb as pb;
use pb::request_op::Request;

/// A key beside its bytes and its value's.
const KEY_BYTES: u64 = 256;
/// A lease.
const LEASE_BYTES: u64 = 64;

/// A put.
#[must_use]
pub fn put(request: &pb::PutRequest) -> u64 {
    KEY_BYTES + request.key.len() as u64 + request.value.len() as u64
}

/// A transaction: its dearer branch, whichever is taken; nested ones likewise.
#[must_use]
pub fn txn(request: &pb::TxnRequest) -> u64 {
    branch(&request.success).max(branch(&request.failure))
}

fn branch(ops: &[pb::RequestOp]) -> u64 {
    let cost = |op: &pb::RequestOp| match &op.request {
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestTxn(request)) => txn(request),
        _ => 0,
    };
    ops.iter().map(cost).sum()
}

/// A lease grant.
#[must_use]
pub fn lease_grant() -> u64 {
    LEASE_BYTES
}

#[cfg(test)]
mod tests {
    use super::{pb, put, txn};

    #[test]
    fn dearer_branch_counts_and_ranges_are_free() {
        let small = pb::PutRequest { key: "k".into(), ..Default::default() };
        let large = pb::PutRequest { value: vec![0; 1000].into(), ..small.clone() };
        assert_eq!((put(&small), put(&large)), (257, 1257));
        let op = |request| pb::RequestOp { request: Some(request) };
        let inner = pb::TxnRequest { failure: vec![op(super::Request::RequestPut(large))], ..Default::default() };
        let outer = pb::TxnRequest {
            success: vec![op(super::Request::RequestPut(small.clone())), op(super::Request::RequestPut(small))],
            failure: vec![
                op(super::Request::RequestTxn(inner)),
                op(super::Request::RequestDeleteRange(pb::DeleteRangeRequest::default())),
                op(super::Request::RequestRange(pb::RangeRequest::default())),
            ],
            ..Default::default()
        };
        assert_eq!(txn(&outer), 1257);
        assert_eq!(txn(&pb::TxnRequest::default()), 0);
    }
}
