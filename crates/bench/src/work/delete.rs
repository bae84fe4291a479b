//! Deletes of one key each, and the look whether they happened.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse, RangeRequest, RangeResponse};

use super::{Acknowledged, Work, append, decode, revision};
use crate::keys::Keys;

/// Ticket n deletes the n-th key of a walk that meets every key once.
pub struct Delete {
    /// Which keys; all of them are there.
    pub keys: Arc<Keys>,
}

impl Work for Delete {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/DeleteRange"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        let key = self.keys.key(self.keys.once(n));
        append(&DeleteRangeRequest { key, ..DeleteRangeRequest::default() }, out);
    }

    fn check(&self, _: u64, answer: Bytes) -> Result<i64, String> {
        let answer: DeleteRangeResponse = decode(answer)?;
        if answer.deleted != 1 {
            return Err(format!("a delete of one loaded key deleted {}", answer.deleted));
        }
        revision(answer.header.as_ref())
    }
}

/// Tickets 2n and 2n + 1 read the key of the n-th sample: gone at the revision of its delete, there just before.
pub struct Gone {
    /// As they were deleted.
    pub keys: Arc<Keys>,
    /// What was acknowledged.
    pub samples: Vec<Acknowledged>,
}

impl Gone {
    /// How many tickets look at everything.
    pub fn tickets(&self) -> u64 {
        self.samples.len() as u64 * 2
    }

    fn place(&self, n: u64) -> (u64, i64, bool) {
        let sample = self.samples[(n / 2) as usize];
        let before = n % 2 == 1;
        (self.keys.once(sample.n), sample.revision - i64::from(before), before)
    }
}

impl Work for Gone {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Range"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        let (number, revision, _) = self.place(n);
        append(&RangeRequest { key: self.keys.key(number), revision, ..RangeRequest::default() }, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        let (number, _, before) = self.place(n);
        let answer: RangeResponse = decode(answer)?;
        match (&answer.kvs[..], before) {
            ([], false) => revision(answer.header.as_ref()),
            ([kv], true) if self.keys.is_ours(number, &kv.value) => revision(answer.header.as_ref()),
            (_, false) => Err("read-back: a deleted key is still there".into()),
            (_, true) => Err("read-back: a deleted key was not there before its delete".into()),
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
    fn a_delete_is_looked_at_from_both_sides() {
        let keys = Arc::new(Keys::new(8, 16, 100, false, 1));
        let gone = Gone { keys: keys.clone(), samples: vec![Acknowledged { n: 7, revision: 40 }] };
        assert_eq!(gone.tickets(), 2);
        let number = keys.once(7);
        assert_eq!((gone.place(0), gone.place(1)), ((number, 40, false), (number, 39, true)));
        let check = |n: u64, value: Option<Bytes>| {
            let kvs = value.into_iter().map(|value| KeyValue { value, ..KeyValue::default() }).collect();
            let header = Some(ResponseHeader { revision: 50, ..ResponseHeader::default() });
            gone.check(n, RangeResponse { header, kvs, ..RangeResponse::default() }.encode_to_vec().into())
        };
        assert_eq!(check(0, None), Ok(50));
        assert_eq!(check(1, Some(keys.value(number, 3))), Ok(50));
        assert!(check(0, Some(keys.value(number, 3))).unwrap_err().contains("still there"));
        assert!(check(1, None).unwrap_err().contains("not there before"));
        assert!(check(1, Some(keys.value(number + 1, 3))).is_err(), "another key's value");
    }

    #[test]
    fn deleting_nothing_is_an_error() {
        let delete = Delete { keys: Arc::new(Keys::new(8, 16, 100, false, 1)) };
        let header = Some(ResponseHeader { revision: 5, ..ResponseHeader::default() });
        let answer = |deleted| DeleteRangeResponse { header, deleted, ..Default::default() }.encode_to_vec().into();
        assert_eq!(delete.check(0, answer(1)), Ok(5));
        assert!(delete.check(0, answer(0)).unwrap_err().contains("deleted 0"));
    }
}
