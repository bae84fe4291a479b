//! Loading: every key of the space once, many per transaction, so that a later read finds what it asks for.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, request_op::Request,
};

use super::put::put;
use super::{Work, append, decode, revision};
use crate::keys::{FILL_MARK, Keys};

/// Puts per transaction: below the 128 that a server allows by default (`--max-txn-ops`).
const PUTS_PER_TXN: u64 = 100;

/// Bytes per transaction: well below the 1.5 MiB that a server allows by default (`--max-request-bytes`).
const BYTES_PER_TXN: u64 = 512 * 1024;

/// Ticket n writes the n-th group of keys in one transaction, and after the last group the first again.
pub struct Fill {
    keys: Arc<Keys>,
    group: u64,
}

/// Where in a value's mark the round stands: above any number of a key that a machine could hold.
const ROUND_SHIFT: u32 = 48;

impl Fill {
    /// Groups as large as a server takes by default.
    pub fn new(keys: Arc<Keys>) -> Fill {
        let pair_bytes = (keys.key_size + keys.val_size) as u64;
        let group = (BYTES_PER_TXN / pair_bytes).clamp(1, PUTS_PER_TXN);
        Fill { keys, group }
    }

    /// How many tickets write all keys once.
    pub fn tickets(&self) -> u64 {
        self.keys.space.div_ceil(self.group)
    }

    fn numbers(&self, n: u64) -> std::ops::Range<u64> {
        let n = n % self.tickets();
        n * self.group..((n + 1) * self.group).min(self.keys.space)
    }

    /// What stands in the value instead of a ticket's number.
    fn mark(&self, n: u64, number: u64) -> u64 {
        FILL_MARK | (n / self.tickets()) << ROUND_SHIFT | number
    }
}

impl Work for Fill {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Txn"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        let one =
            |number| RequestOp { request: Some(Request::RequestPut(put(&self.keys, number, self.mark(n, number)))) };
        append(&TxnRequest { success: self.numbers(n).map(one).collect(), ..TxnRequest::default() }, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        let answer: TxnResponse = decode(answer)?;
        let wanted = self.numbers(n).count();
        if answer.responses.len() != wanted {
            return Err(format!("a transaction of {wanted} puts has {} answers", answer.responses.len()));
        }
        revision(answer.header.as_ref())
    }
}

/// Counts the keys of the space and looks at the first; an error unless all are there, in the size asked for.
pub struct Count {
    /// Which keys.
    pub keys: Arc<Keys>,
    /// Keys of other sizes between them are an error too: a list would meet them.
    pub alone: bool,
}

impl Work for Count {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Range"
    }

    fn encode(&self, _: u64, out: &mut BytesMut) {
        let (key, range_end) = (self.keys.key(0), self.keys.end());
        append(&RangeRequest { key, range_end, limit: 1, ..RangeRequest::default() }, out);
    }

    fn check(&self, _: u64, answer: Bytes) -> Result<i64, String> {
        let answer: RangeResponse = decode(answer)?;
        let (found, wanted) = (answer.count, self.keys.space as i64);
        if found < wanted {
            return Err(format!("{found} of {wanted} keys are there"));
        }
        if found > wanted && self.alone {
            return Err(format!(
                "{found} keys are in the range of the {wanted}: take a fresh server, or --key-size and \
                 --key-space-size of the load before"
            ));
        }
        // One value speaks for all: a load with another --val-size must not be measured as this one.
        match answer.kvs.first().map(|kv| kv.value.len()) {
            Some(size) if size == self.keys.val_size => revision(answer.header.as_ref()),
            size => Err(format!("values have {} bytes, not {}", size.unwrap_or(0), self.keys.val_size)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_proto::Message;
    use milepost_proto::etcdserverpb::ResponseHeader;
    use milepost_proto::mvccpb::KeyValue;

    #[test]
    fn a_load_is_used_again_only_if_it_is_the_same() {
        let keys = Arc::new(Keys::new(8, 16, 100, false, 1));
        let check = |count: i64, size: usize, alone: bool| {
            let header = Some(ResponseHeader { revision: 5, ..ResponseHeader::default() });
            let kvs = vec![KeyValue { value: vec![0; size].into(), ..KeyValue::default() }];
            let answer = RangeResponse { header, kvs, count, more: true };
            Count { keys: keys.clone(), alone }.check(0, answer.encode_to_vec().into())
        };
        assert_eq!(check(100, 16, true), Ok(5));
        assert!(check(99, 16, true).unwrap_err().contains("99 of 100 keys"));
        assert!(check(101, 16, true).unwrap_err().contains("fresh server"));
        assert_eq!(check(101, 16, false), Ok(5));
        assert!(check(100, 17, true).unwrap_err().contains("17 bytes, not 16"));
    }

    fn written(fill: &Fill, n: u64) -> Vec<Bytes> {
        let mut out = BytesMut::new();
        fill.encode(n, &mut out);
        let txn = TxnRequest::decode(out.freeze()).unwrap();
        let key = |op: RequestOp| match op.request {
            Some(Request::RequestPut(put)) => put.key,
            other => panic!("not a put: {other:?}"),
        };
        txn.success.into_iter().map(key).collect()
    }

    #[test]
    fn every_key_is_written_once() {
        for (space, val_size) in [(1, 8), (99, 8), (100, 8), (1_001, 256), (7, 400_000)] {
            let keys = Arc::new(Keys::new(8, val_size, space, false, 1));
            let fill = Fill::new(keys.clone());
            let all: Vec<Bytes> = (0..fill.tickets()).flat_map(|n| written(&fill, n)).collect();
            assert_eq!(all, (0..space).map(|number| keys.key(number)).collect::<Vec<_>>());
            assert_eq!(written(&fill, fill.tickets()), written(&fill, 0), "another round begins");
            assert_ne!(fill.mark(fill.tickets(), 0), fill.mark(0, 0), "with other values");
        }
    }
}
