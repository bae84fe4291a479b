//! Requests about keys: what they read, what they change, what they answer.
//!
//! Everything here works on "a state that can be read" ([`Keys`]): a published view for local reads, or the change of
//! the entry being applied, which sees its own writes.

pub(crate) mod list;
mod put;
pub(crate) mod range;
pub(crate) mod stream;
pub(crate) mod txn;

use bytes::{BufMut, Bytes, BytesMut};
use milepost_mvcc::{Change, RangeOptions, RangeResult, StoreError, View};
use milepost_proto::etcdserverpb as pb;
use milepost_types::KeyRange;

pub(crate) use put::{check_put, delete_range, put};

/// A readable state of the keyspace.
pub(crate) trait Keys {
    /// Revision to report in headers: the newest one visible here.
    fn newest(&self) -> i64;

    /// Keys in `range` as of revision `at` (0 or below: the newest).
    fn range(&self, range: KeyRange<'_>, at: i64, opts: RangeOptions) -> Result<RangeResult, StoreError>;
}

impl Keys for View {
    fn newest(&self) -> i64 {
        self.revision()
    }

    fn range(&self, range: KeyRange<'_>, at: i64, opts: RangeOptions) -> Result<RangeResult, StoreError> {
        View::range(self, range, at, opts)
    }
}

impl Keys for Change<'_> {
    fn newest(&self) -> i64 {
        if self.has_changes() { self.next_main() } else { self.revision() }
    }

    fn range(&self, range: KeyRange<'_>, at: i64, opts: RangeOptions) -> Result<RangeResult, StoreError> {
        Change::range(self, range, at, opts)
    }
}

/// The smallest key above `key`.
pub(crate) fn just_after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// A header that carries the revision; `api` adds who answers.
pub(crate) fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}
