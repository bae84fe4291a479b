//! Transactions: several puts, or a read and a put.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{
    RangeRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse, request_op::Request, response_op::Response,
};

use super::put::put;
use super::{Work, append, decode, revision, rewritten};
use crate::keys::Keys;

/// Ticket n writes its value to `ops` neighbouring keys in one transaction without conditions.
pub struct TxnPut {
    /// Which keys, which values.
    pub keys: Arc<Keys>,
    /// Puts per transaction; not above the number of keys, a transaction must not write one twice.
    pub ops: u64,
}

impl Work for TxnPut {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Txn"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        let one =
            |part| RequestOp { request: Some(Request::RequestPut(put(&self.keys, rewritten(&self.keys, n, part), n))) };
        append(&TxnRequest { success: (0..self.ops).map(one).collect(), ..TxnRequest::default() }, out);
    }

    fn check(&self, _: u64, answer: Bytes) -> Result<i64, String> {
        let answer: TxnResponse = decode(answer)?;
        if !answer.succeeded || answer.responses.len() as u64 != self.ops {
            return Err(format!("a transaction of {} puts has {} answers", self.ops, answer.responses.len()));
        }
        revision(answer.header.as_ref())
    }
}

/// Ticket n reads the keys from its own on and writes its value to its key, in one transaction. The range ends after
/// the keys that are read: a page of a long range would measure the counting of the rest.
pub struct TxnMixed {
    /// Which keys, which values.
    pub keys: Arc<Keys>,
    /// Keys that are read, at least 1.
    pub read: u64,
}

impl Work for TxnMixed {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Txn"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        let number = self.keys.number(n);
        let end = (number + self.read).min(self.keys.space);
        let range_end = if end == self.keys.space { self.keys.end() } else { self.keys.key(end) };
        let some = RangeRequest { key: self.keys.key(number), range_end, ..RangeRequest::default() };
        let success = [Request::RequestRange(some), Request::RequestPut(put(&self.keys, number, n))];
        let success = success.map(|request| RequestOp { request: Some(request) }).into();
        append(&TxnRequest { success, ..TxnRequest::default() }, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        let answer: TxnResponse = decode(answer)?;
        let wanted = self.read.min(self.keys.space - self.keys.number(n)) as usize;
        let [ResponseOp { response: Some(Response::ResponseRange(some)) }, _] = &answer.responses[..] else {
            return Err("a transaction of a read and a put has other answers".into());
        };
        if some.kvs.len() != wanted {
            return Err(format!("a read of {wanted} keys in a transaction has {}", some.kvs.len()));
        }
        revision(answer.header.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_proto::Message;
    use milepost_proto::etcdserverpb::{PutResponse, RangeResponse, ResponseHeader};
    use milepost_proto::mvccpb::KeyValue;

    #[test]
    fn a_mixed_transaction_must_bring_all_its_keys() {
        let keys = Arc::new(Keys::new(2, 8, 10, true, 1));
        let work = TxnMixed { keys, read: 4 };
        let check = |n: u64, found: usize| {
            let page = RangeResponse { kvs: vec![KeyValue::default(); found], ..RangeResponse::default() };
            let responses = [Response::ResponseRange(page), Response::ResponsePut(PutResponse::default())];
            let responses = responses.map(|response| ResponseOp { response: Some(response) }).into();
            let header = Some(ResponseHeader { revision: 3, ..ResponseHeader::default() });
            work.check(n, TxnResponse { header, succeeded: true, responses }.encode_to_vec().into())
        };
        assert_eq!(check(0, 4), Ok(3));
        assert_eq!(check(8, 2), Ok(3), "two keys are left there");
        assert!(check(0, 3).unwrap_err().contains("a read of 4 keys in a transaction has 3"));
        assert!(work.check(0, Bytes::new()).unwrap_err().contains("other answers"));
    }

    #[test]
    fn no_key_is_written_twice_in_one_transaction() {
        let keys = Arc::new(Keys::new(2, 8, 4, false, 1));
        let work = TxnPut { keys, ops: 4 };
        for n in 0..50 {
            let mut out = BytesMut::new();
            work.encode(n, &mut out);
            let txn = TxnRequest::decode(out.freeze()).unwrap();
            let keys: std::collections::BTreeSet<Bytes> = txn
                .success
                .into_iter()
                .map(|op| match op.request {
                    Some(Request::RequestPut(put)) => put.key,
                    other => panic!("not a put: {other:?}"),
                })
                .collect();
            assert_eq!(keys.len(), 4);
        }
    }
}
