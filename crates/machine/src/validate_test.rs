use super::*;

use milepost_proto::Message;

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put_op(key: &str) -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest { key: key.to_owned().into(), ..Default::default() }))
}

fn delete_op(key: &str, range_end: &str) -> pb::RequestOp {
    op(Request::RequestDeleteRange(pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        prev_kv: false,
    }))
}

fn nested(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
    op(Request::RequestTxn(pb::TxnRequest { compare: vec![], success, failure }))
}

/// The verdict on a transaction with these operations in its first branch.
fn then(ops: Vec<pb::RequestOp>) -> Result<(), Error> {
    txn(&pb::TxnRequest { success: ops, ..Default::default() }, 128)
}

#[test]
fn single_requests() {
    let no_key = pb::RangeRequest { sort_order: 9, ..Default::default() };
    assert_eq!(range(&no_key), Err(Error::EmptyKey));
    let ranged = pb::RangeRequest { key: "k".into(), ..Default::default() };
    assert_eq!(range(&ranged), Ok(()));
    assert_eq!(range(&pb::RangeRequest { sort_order: 3, ..ranged.clone() }), Err(Error::InvalidSortOption));
    assert_eq!(range(&pb::RangeRequest { sort_target: 5, ..ranged.clone() }), Err(Error::InvalidSortOption));

    assert_eq!(range_stream(&ranged), Ok(()));
    assert_eq!(range_stream(&pb::RangeRequest { sort_order: 1, ..ranged.clone() }), Ok(()));
    assert_eq!(range_stream(&pb::RangeRequest { sort_target: 2, ..ranged.clone() }), Ok(()));
    assert_eq!(range_stream(&pb::RangeRequest { sort_order: 2, ..ranged.clone() }), Err(Error::StreamSort));
    assert_eq!(range_stream(&pb::RangeRequest { min_mod_revision: 1, ..ranged }), Err(Error::StreamFilter));

    let mut request =
        pb::PutRequest { value: "v".into(), lease: 1, ignore_value: true, ignore_lease: true, ..Default::default() };
    assert_eq!(put(&request), Err(Error::EmptyKey));
    request.key = "k".into();
    assert_eq!(put(&request), Err(Error::ValueProvided));
    request.value = Bytes::new();
    assert_eq!(put(&request), Err(Error::LeaseProvided));
    request.lease = 0;
    assert_eq!(put(&request), Ok(()));

    assert_eq!(delete_range(&pb::DeleteRangeRequest::default()), Err(Error::EmptyKey));
    assert_eq!(lease_grant(&pb::LeaseGrantRequest { ttl: 9_000_000_000, id: 0 }), Ok(()));
    assert_eq!(lease_grant(&pb::LeaseGrantRequest { ttl: 9_000_000_001, id: 0 }), Err(Error::LeaseTtlTooLarge));
}

/// errors.md §3: the largest list counts, and nested transactions get what is left.
#[test]
fn operations_are_counted_by_level() {
    let puts = |count: usize| (0..count).map(|i| put_op(&format!("k{i}"))).collect::<Vec<_>>();
    let request = |count| pb::TxnRequest { success: puts(count), failure: puts(count), ..Default::default() };
    assert_eq!(txn(&request(3), 3), Ok(()));
    assert_eq!(txn(&request(4), 3), Err(Error::TooManyOps));
    let outer = |inner| pb::TxnRequest { success: vec![nested(puts(inner), vec![])], ..Default::default() };
    assert_eq!(txn(&outer(2), 3), Ok(()));
    assert_eq!(txn(&outer(3), 3), Err(Error::TooManyOps));
    assert_eq!(txn(&pb::TxnRequest::default(), 0), Ok(()));
    let compared = pb::TxnRequest { compare: vec![pb::Compare::default()], ..Default::default() };
    assert_eq!(txn(&compared, 128), Err(Error::EmptyKey));
    assert_eq!(then(vec![pb::RequestOp { request: None }]), Err(Error::KeyNotFound));
}

#[test]
fn nesting_ends_where_every_member_can_still_decode() {
    let mut request = pb::TxnRequest { success: vec![put_op("k")], ..Default::default() };
    for _ in 1..TXN_DEPTH_MAX {
        request = pb::TxnRequest { success: vec![op(Request::RequestTxn(request))], ..Default::default() };
    }
    assert_eq!(txn(&request, 128), Ok(()));
    let entry = pb::InternalRaftRequest {
        request: Some(pb::internal_raft_request::Request::Txn(request.clone())),
        ..Default::default()
    };
    assert_eq!(pb::InternalRaftRequest::decode(entry.encode_to_vec().as_slice()), Ok(entry));
    let deeper = pb::TxnRequest { success: vec![op(Request::RequestTxn(request))], ..Default::default() };
    assert_eq!(txn(&deeper, 128), Err(Error::TooManyOps));
}

/// errors.md §3, the duplicate-key rules and what they let through.
#[test]
fn a_key_is_changed_once() {
    assert_eq!(then(vec![put_op("a"), put_op("b")]), Ok(()));
    assert_eq!(then(vec![put_op("a"), put_op("a")]), Err(Error::DuplicateKey));
    assert_eq!(then(vec![put_op("a"), delete_op("a", "")]), Err(Error::DuplicateKey));
    assert_eq!(then(vec![delete_op("a", "c"), put_op("b")]), Err(Error::DuplicateKey));
    assert_eq!(then(vec![delete_op("a", "c"), put_op("c")]), Ok(()));
    assert_eq!(then(vec![delete_op("a", "c"), delete_op("b", "d"), put_op("d")]), Ok(()));
    assert_eq!(then(vec![delete_op("a", "c"), delete_op("b", "d"), put_op("c")]), Err(Error::DuplicateKey));
    // A delete from a key on, and one that ends before it begins, cover nothing.
    assert_eq!(then(vec![delete_op("a", "\0"), put_op("b")]), Ok(()));
    assert_eq!(then(vec![delete_op("c", "a"), put_op("b")]), Ok(()));
    // The branches of one transaction never both happen.
    let both = pb::TxnRequest { success: vec![put_op("a")], failure: vec![put_op("a")], ..Default::default() };
    assert_eq!(txn(&both, 128), Ok(()));
}

#[test]
fn a_key_is_changed_once_across_levels() {
    assert_eq!(then(vec![put_op("a"), nested(vec![put_op("a")], vec![])]), Err(Error::DuplicateKey));
    assert_eq!(then(vec![put_op("a"), nested(vec![], vec![put_op("a")])]), Err(Error::DuplicateKey));
    assert_eq!(then(vec![nested(vec![put_op("a")], vec![put_op("a")])]), Ok(()));
    assert_eq!(
        then(vec![nested(vec![put_op("a")], vec![]), nested(vec![], vec![put_op("a")])]),
        Err(Error::DuplicateKey)
    );
    assert_eq!(then(vec![delete_op("a", "c"), nested(vec![], vec![put_op("b")])]), Err(Error::DuplicateKey));
    assert_eq!(then(vec![put_op("b"), nested(vec![delete_op("a", "c")], vec![])]), Err(Error::DuplicateKey));
    // Then and else of the same nested transaction may put and delete one key.
    assert_eq!(then(vec![nested(vec![put_op("a")], vec![delete_op("a", "")])]), Ok(()));
    // A delete in an earlier nested one is seen by later puts, one in a later nested one is not.
    let deletes = nested(vec![delete_op("a", "")], vec![]);
    let puts = nested(vec![put_op("a")], vec![]);
    assert_eq!(then(vec![deletes.clone(), puts.clone()]), Err(Error::DuplicateKey));
    assert_eq!(then(vec![puts, deletes]), Ok(()));
    // Both branches are examined.
    let request = pb::TxnRequest { failure: vec![put_op("a"), put_op("a")], ..Default::default() };
    assert_eq!(txn(&request, 128), Err(Error::DuplicateKey));
}

#[test]
fn intervals_cover_what_was_inserted() {
    let mut seed = 7_u64;
    let mut next = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    for _ in 0..300 {
        let mut intervals = Intervals::default();
        let mut naive = Vec::new();
        for _ in 0..next(12) {
            let (start, end) = (vec![next(30) as u8], vec![next(30) as u8]);
            naive.push((start.clone(), end.clone()));
            intervals.insert(start.into(), end.into());
        }
        for key in 0..31 {
            let covered = naive.iter().any(|(start, end)| start[0] <= key && key < end[0]);
            assert_eq!(intervals.cover(&vec![key].into()), covered, "{naive:?} {key}");
        }
        let ends: Vec<_> = intervals.0.iter().flat_map(|(start, end)| [start.clone(), end.clone()]).collect();
        assert!(ends.is_sorted());
    }
}
