//! The payload of an entry, byte for byte as etcd writes it.
//!
//! etcd's encoder writes fields by their numbers, but the members of a oneof behind everything else; ours puts a oneof
//! where its lowest number belongs. That differs in two places: a compare of a range, whose end has a high number, and
//! requests whose number is above the header's, which is in etcd no member of a oneof.
//! Source: `google.golang.org/protobuf`, `internal/impl/codec_message.go`.

use milepost_proto::Message;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::etcdserverpb::request_op::Request as Op;
use milepost_proto::etcdserverpb::{Compare, InternalRaftRequest, RequestOp, TxnRequest};
use milepost_proto::prost::encoding::{WireType, encode_key, encode_varint};

/// Numbers of the fields that are written by hand.
mod field {
    pub const TXN_COMPARE: u32 = 1;
    pub const TXN_SUCCESS: u32 = 2;
    pub const TXN_FAILURE: u32 = 3;
    pub const OP_TXN: u32 = 4;
    pub const RAFT_TXN: u32 = 6;
}

/// The payload for `request`.
#[must_use]
pub fn encode(request: &InternalRaftRequest) -> Vec<u8> {
    let InternalRaftRequest { id, header, request: what } = request;
    let head = || InternalRaftRequest { id: *id, header: None, request: None };
    let middle = || InternalRaftRequest { id: 0, header: header.clone(), request: None };
    match what {
        Some(Request::Txn(txn)) if compares_ranges(txn) => {
            let mut out = head().encode_to_vec();
            put(field::RAFT_TXN, &of_txn(txn), &mut out);
            append(&middle(), &mut out);
            out
        }
        Some(what) if is_behind_header(what) => {
            let mut out = head().encode_to_vec();
            append(&middle(), &mut out);
            append(&InternalRaftRequest { id: 0, header: None, request: Some(what.clone()) }, &mut out);
            out
        }
        _ => request.encode_to_vec(),
    }
}

fn append(message: &impl Message, out: &mut Vec<u8>) {
    message.encode(out).expect("a Vec grows as needed");
}

/// Has it a number above the header's, 100?
fn is_behind_header(request: &Request) -> bool {
    !matches!(
        request,
        Request::Range(_)
            | Request::Put(_)
            | Request::DeleteRange(_)
            | Request::Txn(_)
            | Request::Compaction(_)
            | Request::LeaseGrant(_)
            | Request::LeaseRevoke(_)
            | Request::Alarm(_)
            | Request::LeaseCheckpoint(_)
    )
}

fn compares_ranges(txn: &TxnRequest) -> bool {
    let inside = |op: &RequestOp| matches!(&op.request, Some(Op::RequestTxn(txn)) if compares_ranges(txn));
    txn.compare.iter().any(|compare| !compare.range_end.is_empty() && compare.target_union.is_some())
        || txn.success.iter().chain(&txn.failure).any(inside)
}

fn of_txn(txn: &TxnRequest) -> Vec<u8> {
    let mut out = Vec::new();
    for compare in &txn.compare {
        let mut bytes = Compare { target_union: None, ..compare.clone() }.encode_to_vec();
        append(&Compare { target_union: compare.target_union.clone(), ..Compare::default() }, &mut bytes);
        put(field::TXN_COMPARE, &bytes, &mut out);
    }
    for (number, ops) in [(field::TXN_SUCCESS, &txn.success), (field::TXN_FAILURE, &txn.failure)] {
        for op in ops {
            put(number, &of_op(op), &mut out);
        }
    }
    out
}

fn of_op(op: &RequestOp) -> Vec<u8> {
    let Some(Op::RequestTxn(txn)) = &op.request else { return op.encode_to_vec() };
    let mut out = Vec::new();
    put(field::OP_TXN, &of_txn(txn), &mut out);
    out
}

fn put(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use milepost_proto::etcdserverpb::{
        AuthStatusRequest, PutRequest, RequestHeader, compare::CompareTarget, compare::TargetUnion,
    };

    use super::*;

    fn entry(request: Request) -> InternalRaftRequest {
        InternalRaftRequest {
            id: 0,
            header: Some(RequestHeader { id: 5, ..Default::default() }),
            request: Some(request),
        }
    }

    fn ranged() -> TxnRequest {
        let compare = Compare {
            target: CompareTarget::Value as i32,
            key: "b".into(),
            range_end: "c".into(),
            target_union: Some(TargetUnion::Value("v".into())),
            ..Default::default()
        };
        TxnRequest { compare: vec![compare], ..Default::default() }
    }

    #[test]
    fn a_compare_of_a_range_ends_with_its_value() {
        let bytes = encode(&entry(Request::Txn(ranged())));
        // target, key, range_end, value; then the header.
        assert_eq!(bytes, b"\x32\x0e\x0a\x0c\x10\x03\x1a\x01b\x82\x04\x01c\x3a\x01v\xa2\x06\x02\x08\x05");
    }

    #[test]
    fn requests_above_the_header_stand_behind_it() {
        let bytes = encode(&entry(Request::AuthStatus(AuthStatusRequest {})));
        assert_eq!(bytes, b"\xa2\x06\x02\x08\x05\xaa\x3f\x00");
    }

    #[test]
    fn the_rest_is_as_it_is_and_everything_can_be_read_back() {
        let put = PutRequest { key: "a".into(), ..Default::default() };
        assert_eq!(encode(&entry(Request::Put(put.clone()))), entry(Request::Put(put.clone())).encode_to_vec());
        let op = |request| RequestOp { request: Some(request) };
        let outer = TxnRequest {
            success: vec![op(Op::RequestPut(put)), op(Op::RequestTxn(ranged()))],
            failure: vec![RequestOp { request: None }],
            ..Default::default()
        };
        for request in [Request::Txn(outer), Request::Txn(ranged()), Request::AuthStatus(AuthStatusRequest {})] {
            let entry = InternalRaftRequest { id: 7, ..entry(request) };
            let bytes = encode(&entry);
            assert_eq!(bytes.len(), entry.encoded_len());
            assert_eq!(InternalRaftRequest::decode(&bytes[..]), Ok(entry));
        }
    }
}
