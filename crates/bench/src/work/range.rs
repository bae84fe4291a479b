//! Reads of one key each.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::{Work, append, decode, revision};
use crate::keys::Keys;

/// Ticket n reads its key; every `check_every`-th value is compared byte by byte (0: none is).
pub struct Range {
    /// Which keys.
    pub keys: Arc<Keys>,
    /// Ask the member for what it has instead of for the newest.
    pub serializable: bool,
    /// Distance of compared answers.
    pub check_every: u64,
}

impl Work for Range {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Range"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        let key = self.keys.key(self.keys.number(n));
        append(&RangeRequest { key, serializable: self.serializable, ..RangeRequest::default() }, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        let answer: RangeResponse = decode(answer)?;
        let [kv] = &answer.kvs[..] else {
            return Err(format!("a read of one loaded key found {}", answer.kvs.len()));
        };
        if self.check_every > 0 && n.is_multiple_of(self.check_every) {
            let number = self.keys.number(n);
            if kv.key != self.keys.key(number) {
                return Err("a read answered with another key".into());
            }
            if !self.keys.is_ours(number, &kv.value) {
                return Err("a read found a value that this tool never wrote to the key: is the server fresh?".into());
            }
        }
        revision(answer.header.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_proto::Message;
    use milepost_proto::etcdserverpb::ResponseHeader;
    use milepost_proto::mvccpb::KeyValue;

    fn answer(kvs: Vec<KeyValue>) -> Bytes {
        let header = Some(ResponseHeader { revision: 7, ..ResponseHeader::default() });
        RangeResponse { header, kvs, ..RangeResponse::default() }.encode_to_vec().into()
    }

    #[test]
    fn wrong_answers_are_told_from_right_ones() {
        let keys = Arc::new(Keys::new(8, 64, 100, false, 1));
        let (number, n) = (keys.number(4), 4);
        let kv =
            |key: u64, value: u64| KeyValue { key: keys.key(key), value: keys.value(value, 9), ..KeyValue::default() };
        let range = Range { keys: keys.clone(), serializable: false, check_every: 2 };
        assert_eq!(range.check(n, answer(vec![kv(number, number)])), Ok(7));
        assert!(range.check(n, answer(vec![])).unwrap_err().contains("found 0"));
        assert!(range.check(n, answer(vec![kv(number + 1, number + 1)])).unwrap_err().contains("another key"));
        assert!(range.check(n, answer(vec![kv(number, number + 1)])).unwrap_err().contains("never wrote"));
        assert!(range.check(n, Bytes::from_static(b"\xff\xff")).unwrap_err().contains("undecodable"));
        let headless = RangeResponse { kvs: vec![kv(number, number)], ..RangeResponse::default() };
        assert!(range.check(n, headless.encode_to_vec().into()).unwrap_err().contains("without revision"));
    }
}
