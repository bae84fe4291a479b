//! What the log says about a call that took long. Values are left out: they may be secrets, and they are long.
//!
//! Source: etcd `v3rpc/interceptor.go`, `etcdserverpb/raft_internal_stringer.go`; messages as Go's protobuf prints them.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use milepost_proto::Message;
use milepost_proto::etcdserverpb as pb;
use pb::compare::{CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request as Op;

use super::Method;
use super::wire::{self, Framed};
use crate::config::SlowCall;

/// A report on a call of `method`; `answer` is framed, and absent if the call failed.
pub(crate) fn report(method: Method, took: Duration, request: &Bytes, framed: Option<&Framed>) -> SlowCall {
    // In one piece, unless it is a list that has been counted.
    let listed = framed.and_then(Framed::listed);
    let whole = framed.filter(|_| listed.is_none()).map(Framed::joined);
    let answer = whole.map(|whole| whole.slice(wire::PREFIX_BYTES..));
    let (request_count, request_bytes, response_count, content) = match method {
        Method::Range => {
            let found = || read::<pb::RangeResponse>(answer.as_ref()).map_or(0, |found| found.count);
            (0, signed(request.len()), listed.unwrap_or_else(found), read(Some(request)).map(|range| of_range(&range)))
        }
        Method::Put => (1, signed(request.len()), 0, read(Some(request)).map(|put| of_put(&put))),
        Method::DeleteRange => {
            let gone = read::<pb::DeleteRangeResponse>(answer.as_ref()).map_or(0, |gone| gone.deleted);
            (0, signed(request.len()), gone, read(Some(request)).map(|delete| of_delete(&delete)))
        }
        Method::Txn => {
            let txn: pb::TxnRequest = read(Some(request)).unwrap_or_default();
            let done = read::<pb::TxnResponse>(answer.as_ref());
            let branch = done.map(|done| if done.succeeded { &txn.success } else { &txn.failure });
            let (count, bytes) = branch.map_or((0, 0), |ops| (ops.len(), ops.iter().map(Message::encoded_len).sum()));
            (signed(count), signed(bytes), 0, Some(of_txn(&txn)))
        }
        // etcd counts these alone.
        _ => (-1, -1, -1, None),
    };
    let response_bytes =
        if request_bytes < 0 { -1 } else { framed.map_or(0, |framed| signed(framed.len() - wire::PREFIX_BYTES)) };
    SlowCall {
        method: method.names().path,
        took,
        request_count,
        request_bytes,
        response_count,
        response_bytes,
        content: content.unwrap_or_default(),
    }
}

fn read<M: Message + Default>(bytes: Option<&Bytes>) -> Option<M> {
    bytes.and_then(|bytes| M::decode(bytes.clone()).ok())
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Fields of one message, in order; those at their default are left out.
#[derive(Default)]
struct Fields(String);

impl Fields {
    fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let gap = if self.0.is_empty() { "" } else { " " };
        write!(self.0, "{gap}{name}:{value}").expect("a String takes everything");
        self
    }

    fn bytes(self, name: &str, value: &[u8]) -> Self {
        if value.is_empty() { self } else { self.raw(name, quoted(value)) }
    }

    fn number(self, name: &str, value: i64) -> Self {
        if value == 0 { self } else { self.raw(name, value) }
    }

    fn flag(self, name: &str, value: bool) -> Self {
        if value { self.raw(name, true) } else { self }
    }

    fn word(self, name: &str, number: i32, word: Option<&str>) -> Self {
        match (number, word) {
            (0, _) => self,
            (_, Some(word)) => self.raw(name, word),
            (number, None) => self.raw(name, number),
        }
    }
}

fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => out.extend(['\\', character]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\0'..' ' | '\x7f' => write!(out, "\\x{:02x}", u32::from(character)).expect("a String"),
                other => out.push(other),
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("a String takes everything");
        }
    }
    out.push('"');
    out
}

fn of_range(range: &pb::RangeRequest) -> String {
    let order = SortOrder::try_from(range.sort_order).ok();
    let target = SortTarget::try_from(range.sort_target).ok();
    Fields::default()
        .bytes("key", &range.key)
        .bytes("range_end", &range.range_end)
        .number("limit", range.limit)
        .number("revision", range.revision)
        .word("sort_order", range.sort_order, order.as_ref().map(SortOrder::as_str_name))
        .word("sort_target", range.sort_target, target.as_ref().map(SortTarget::as_str_name))
        .flag("serializable", range.serializable)
        .flag("keys_only", range.keys_only)
        .flag("count_only", range.count_only)
        .number("min_mod_revision", range.min_mod_revision)
        .number("max_mod_revision", range.max_mod_revision)
        .number("min_create_revision", range.min_create_revision)
        .number("max_create_revision", range.max_create_revision)
        .0
}

fn of_put(put: &pb::PutRequest) -> String {
    Fields::default()
        .bytes("key", &put.key)
        .number("value_size", signed(put.value.len()))
        .number("lease", put.lease)
        .flag("prev_kv", put.prev_kv)
        .flag("ignore_value", put.ignore_value)
        .flag("ignore_lease", put.ignore_lease)
        .0
}

fn of_delete(delete: &pb::DeleteRangeRequest) -> String {
    let fields = Fields::default().bytes("key", &delete.key).bytes("range_end", &delete.range_end);
    fields.flag("prev_kv", delete.prev_kv).0
}

fn of_txn(txn: &pb::TxnRequest) -> String {
    let ops = |ops: &[pb::RequestOp]| ops.iter().map(of_op).collect::<Vec<_>>().join(" ");
    let compares: Vec<_> = txn.compare.iter().map(of_compare).collect();
    format!("compare:<{}> success:<{}> failure:<{}>", compares.join(" "), ops(&txn.success), ops(&txn.failure))
}

fn of_op(op: &pb::RequestOp) -> String {
    match &op.request {
        Some(Op::RequestPut(put)) => format!("request_put:<{}>", of_put(put)),
        Some(Op::RequestTxn(txn)) => format!("request_txn:<{}>", of_txn(txn)),
        Some(Op::RequestRange(range)) => format!("request_range:{{{}}}", of_range(range)),
        Some(Op::RequestDeleteRange(delete)) => format!("request_delete_range:{{{}}}", of_delete(delete)),
        None => String::new(),
    }
}

fn of_compare(compare: &pb::Compare) -> String {
    let result = pb::compare::CompareResult::try_from(compare.result).ok();
    let target = CompareTarget::try_from(compare.target).ok();
    let fields = Fields::default()
        .word("result", compare.result, result.as_ref().map(pb::compare::CompareResult::as_str_name))
        .word("target", compare.target, target.as_ref().map(CompareTarget::as_str_name))
        .bytes("key", &compare.key);
    let fields = match &compare.target_union {
        Some(TargetUnion::Version(version)) => fields.raw("version", version),
        Some(TargetUnion::CreateRevision(revision)) => fields.raw("create_revision", revision),
        Some(TargetUnion::ModRevision(revision)) => fields.raw("mod_revision", revision),
        Some(TargetUnion::Value(value)) => fields.raw("value_size", value.len()),
        Some(TargetUnion::Lease(lease)) => fields.raw("lease", lease),
        None => fields,
    };
    fields.bytes("range_end", &compare.range_end).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
        pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
    }

    #[test]
    fn values_stay_out() {
        let request = Bytes::from(put("k\"\n\0é", "secret").encode_to_vec());
        let call = report(Method::Put, Duration::from_secs(1), &request, None);
        assert_eq!((call.request_count, call.request_bytes, call.response_bytes), (1, signed(request.len()), 0));
        assert_eq!(call.content, "key:\"k\\\"\\n\\x00é\" value_size:6");
        let txn = pb::TxnRequest {
            compare: vec![pb::Compare {
                target: CompareTarget::Value as i32,
                key: "a".into(),
                target_union: Some(TargetUnion::Value("secret".into())),
                ..Default::default()
            }],
            success: vec![pb::RequestOp { request: Some(Op::RequestPut(put("b", "secret"))) }],
            failure: vec![pb::RequestOp {
                request: Some(Op::RequestRange(pb::RangeRequest {
                    key: "c".into(),
                    sort_order: 2,
                    ..Default::default()
                })),
            }],
        };
        let answer = wire::encode(&pb::TxnResponse { succeeded: true, ..Default::default() }).unwrap();
        let request = Bytes::from(txn.encode_to_vec());
        let call = report(Method::Txn, Duration::from_secs(1), &request, Some(&answer.into()));
        let text = "compare:<target:VALUE key:\"a\" value_size:6> success:<request_put:<key:\"b\" value_size:6>> \
            failure:<request_range:{key:\"c\" sort_order:DESCEND}>";
        assert_eq!((call.content.as_str(), call.request_count, call.response_bytes), (text, 1, 2));
    }

    #[test]
    fn other_calls_are_not_counted() {
        let call = report(Method::Lock, Duration::from_secs(1), &Bytes::from_static(b"x"), None);
        assert_eq!(
            (call.request_count, call.request_bytes, call.response_count, call.response_bytes),
            (-1, -1, -1, -1)
        );
        assert_eq!((call.method, call.content.as_str()), ("/v3lockpb.Lock/Lock", ""));
    }
}
