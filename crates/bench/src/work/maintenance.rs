//! Chores: one compaction, one defragmentation. Their latency is how long they take.

use bytes::{Bytes, BytesMut};
use milepost_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse, RangeRequest, RangeResponse,
};

use super::{Work, append, decode, revision};

/// Compacts up to this revision, and waits until what it frees is free.
pub struct Compact {
    /// Everything that was superseded at this revision goes.
    pub revision: i64,
}

impl Work for Compact {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Compact"
    }

    fn encode(&self, _: u64, out: &mut BytesMut) {
        append(&CompactionRequest { revision: self.revision, physical: true }, out);
    }

    fn check(&self, _: u64, answer: Bytes) -> Result<i64, String> {
        revision(decode::<CompactionResponse>(answer)?.header.as_ref())
    }
}

/// Reads nothing much, for the revision in the answer.
pub struct Newest;

impl Work for Newest {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Range"
    }

    fn encode(&self, _: u64, out: &mut BytesMut) {
        let key = Bytes::from_static(b"\0");
        append(&RangeRequest { key, count_only: true, ..RangeRequest::default() }, out);
    }

    fn check(&self, _: u64, answer: Bytes) -> Result<i64, String> {
        revision(decode::<RangeResponse>(answer)?.header.as_ref())
    }
}

/// Defragments the member that is asked.
pub struct Defragment;

impl Work for Defragment {
    fn path(&self) -> &'static str {
        "/etcdserverpb.Maintenance/Defragment"
    }

    fn encode(&self, _: u64, out: &mut BytesMut) {
        append(&DefragmentRequest::default(), out);
    }

    /// The answer carries no revision; etcd's has no header either.
    fn check(&self, _: u64, answer: Bytes) -> Result<i64, String> {
        decode::<DefragmentResponse>(answer).map(|_| 1)
    }
}
