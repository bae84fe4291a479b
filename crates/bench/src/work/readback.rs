//! Reading acknowledged writes back at the very revision that the server named.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::{Work, append, decode, revision};
use crate::keys::Keys;

/// A write that the server acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Number of the ticket that wrote.
    pub n: u64,
    /// Revision in the answer.
    pub revision: i64,
}

/// Ticket n reads the n-th sample.
pub struct ReadBack {
    /// Keys and values as they were written.
    pub keys: Arc<Keys>,
    /// What was acknowledged.
    pub samples: Vec<Acknowledged>,
    /// Puts per write, each to the key that [`rewritten`] names.
    pub puts_per_write: u64,
}

/// Number of the key that put `part` of write `n` goes to: the first where ticket n points, the others next to it.
pub fn rewritten(keys: &Keys, n: u64, part: u64) -> u64 {
    (keys.number(n) + part) % keys.space
}

impl ReadBack {
    /// How many tickets read everything back.
    pub fn tickets(&self) -> u64 {
        self.samples.len() as u64 * self.puts_per_write
    }

    fn place(&self, n: u64) -> (Acknowledged, u64) {
        let sample = self.samples[(n / self.puts_per_write) as usize];
        (sample, rewritten(&self.keys, sample.n, n % self.puts_per_write))
    }
}

impl Work for ReadBack {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Range"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        let (sample, number) = self.place(n);
        append(&RangeRequest { key: self.keys.key(number), revision: sample.revision, ..RangeRequest::default() }, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        let (sample, number) = self.place(n);
        let answer: RangeResponse = decode(answer)?;
        match &answer.kvs[..] {
            [kv] if kv.mod_revision != sample.revision => {
                Err("read-back: an acknowledged write is missing, the key shows another revision".into())
            }
            [kv] if kv.value != self.keys.value(number, sample.n) => {
                Err("read-back: a key holds another value than the one acknowledged".into())
            }
            [_] => revision(answer.header.as_ref()),
            _ => Err("read-back: an acknowledged write is missing, the key is not there".into()),
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
    fn lost_stale_and_changed_writes_are_seen() {
        let keys = Arc::new(Keys::new(8, 64, 100, false, 1));
        let samples = vec![Acknowledged { n: 5, revision: 12 }];
        let back = ReadBack { keys: keys.clone(), samples, puts_per_write: 2 };
        assert_eq!(back.tickets(), 2);
        let number = rewritten(&keys, 5, 1);
        let check = |found: Vec<(i64, Bytes)>| {
            let kvs =
                found.into_iter().map(|(mod_revision, value)| KeyValue { mod_revision, value, ..KeyValue::default() });
            let header = Some(ResponseHeader { revision: 20, ..ResponseHeader::default() });
            let answer = RangeResponse { header, kvs: kvs.collect(), ..RangeResponse::default() };
            back.check(1, answer.encode_to_vec().into())
        };
        assert_eq!(check(vec![(12, keys.value(number, 5))]), Ok(20));
        assert!(check(vec![]).unwrap_err().contains("not there"));
        assert!(check(vec![(11, keys.value(number, 5))]).unwrap_err().contains("another revision"));
        assert!(check(vec![(12, keys.value(number, 6))]).unwrap_err().contains("another value"));
        assert!(check(vec![(12, keys.value(number + 1, 5))]).unwrap_err().contains("another value"));
    }

    #[test]
    fn the_read_names_the_acknowledged_revision() {
        let keys = Arc::new(Keys::new(8, 64, 100, false, 1));
        let samples = vec![Acknowledged { n: 5, revision: 12 }, Acknowledged { n: 9, revision: 13 }];
        let back = ReadBack { keys: keys.clone(), samples, puts_per_write: 1 };
        let mut out = BytesMut::new();
        back.encode(1, &mut out);
        let request = RangeRequest::decode(out.freeze()).unwrap();
        assert_eq!((request.key, request.revision), (keys.key(keys.number(9)), 13));
    }
}
