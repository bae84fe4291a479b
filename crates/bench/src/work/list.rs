//! Lists: the whole key space, or pages of it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::{Work, append, decode, revision};
use crate::keys::Keys;

/// Ticket n lists from its key (paged) or from the first key (not paged) to the end of the space.
pub struct List {
    /// Which keys.
    pub keys: Arc<Keys>,
    /// Keys per page; 0 lists everything.
    pub limit: u64,
    /// Ask for the number of keys alone.
    pub count_only: bool,
    /// Ask the member for what it has instead of for the newest.
    pub serializable: bool,
    /// Distance of answers whose every key and value is compared (0: none is).
    pub check_every: u64,
}

impl List {
    fn first(&self, n: u64) -> u64 {
        if self.limit == 0 { 0 } else { self.keys.number(n) }
    }

    fn compare(&self, first: u64, answer: &RangeResponse) -> Result<(), String> {
        for (number, kv) in (first..).zip(&answer.kvs) {
            if kv.key != self.keys.key(number) {
                return Err("a list is out of order or has a gap".into());
            }
            if !self.keys.is_ours(number, &kv.value) {
                return Err("a list holds a value that this tool never wrote to the key: is the server fresh?".into());
            }
        }
        Ok(())
    }
}

impl Work for List {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Range"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        let request = RangeRequest {
            key: self.keys.key(self.first(n)),
            range_end: self.keys.end(),
            limit: self.limit as i64,
            count_only: self.count_only,
            serializable: self.serializable,
            ..RangeRequest::default()
        };
        append(&request, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        let answer: RangeResponse = decode(answer)?;
        let first = self.first(n);
        let there = self.keys.space - first;
        let page = match (self.count_only, self.limit) {
            (true, _) => 0,
            (false, 0) => there,
            (false, limit) => limit.min(there),
        };
        if answer.count as u64 != there || answer.kvs.len() as u64 != page {
            let found = format!("{} keys and a count of {}", answer.kvs.len(), answer.count);
            return Err(format!("a list of {page} of {there} keys has {found}"));
        }
        if self.check_every > 0 && n.is_multiple_of(self.check_every) {
            self.compare(first, &answer)?;
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

    #[test]
    fn a_page_must_be_whole_and_in_order() {
        let keys = Arc::new(Keys::new(8, 64, 100, true, 1));
        let list = List { keys: keys.clone(), limit: 3, count_only: false, serializable: false, check_every: 1 };
        let check = |numbers: &[u64], count: i64| {
            let kv = |n: &u64| KeyValue { key: keys.key(*n), value: keys.value(*n, 1), ..KeyValue::default() };
            let header = Some(ResponseHeader { revision: 4, ..ResponseHeader::default() });
            let kvs = numbers.iter().map(kv).collect();
            let answer = RangeResponse { header, kvs, count, ..RangeResponse::default() };
            list.check(10, answer.encode_to_vec().into())
        };
        assert_eq!(check(&[10, 11, 12], 90), Ok(4));
        assert!(check(&[10, 12, 13], 90).unwrap_err().contains("gap"));
        assert!(check(&[10, 11], 90).unwrap_err().contains("has 2 keys and a count of 90"));
        assert!(check(&[10, 11, 12], 89).unwrap_err().contains("count of 89"));
    }
}
