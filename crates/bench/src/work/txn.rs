//! Transactions of several puts.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{RequestOp, TxnRequest, TxnResponse, request_op::Request};

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

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_proto::Message;

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
