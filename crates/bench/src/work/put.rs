//! Puts of one key each.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{PutRequest, PutResponse};

use super::{Work, append, decode, revision};
use crate::keys::Keys;

/// Ticket n writes its own value to its key.
pub struct Put {
    /// Which keys, which values.
    pub keys: Arc<Keys>,
}

impl Work for Put {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Put"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        append(&put(&self.keys, self.keys.number(n), n), out);
    }

    fn check(&self, _: u64, answer: Bytes) -> Result<i64, String> {
        revision(decode::<PutResponse>(answer)?.header.as_ref())
    }
}

/// The put of writer `n` to key `number`.
pub fn put(keys: &Keys, number: u64, n: u64) -> PutRequest {
    PutRequest { key: keys.key(number), value: keys.value(number, n), ..PutRequest::default() }
}
