//! RangeStream: one range, answered in pieces.
//!
//! Every piece is read at the revision of the first one, on a view of its own, so that a slow reader pins nothing: if
//! that revision is compacted meanwhile, the stream ends with the compacted error. The pieces put together are what
//! Range would have answered. Source: `facts/rpc-semantics.md` §1; etcd `rangeStream`, `adjustChunkLimit`.

use milepost_mvcc::View;
use milepost_proto::Message;
use milepost_proto::etcdserverpb as pb;

use super::{header, just_after, range};
use crate::error::Fault;

/// Keys in the first piece.
const FIRST_LIMIT: i64 = 10;

/// Plans the pieces of one RangeStream. Its request has passed `validate::range_stream`.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The request for the next piece: key and limit move on, the revision is pinned by the first.
    request: pb::RangeRequest,
    /// Keys that may still be sent; `None` = no limit.
    left: Option<i64>,
    sent: i64,
    /// Newest revision when the first piece was read; 0 before.
    opened_at: i64,
    /// Bytes a piece should have.
    target_bytes: usize,
    done: bool,
}

impl Plan {
    pub(crate) fn new(mut request: pb::RangeRequest, target_bytes: usize) -> Self {
        let left = Some(request.limit).filter(|&limit| limit > 0);
        request.limit = left.map_or(FIRST_LIMIT, |left| left.min(FIRST_LIMIT));
        Self { request, left, sent: 0, opened_at: 0, target_bytes, done: false }
    }

    /// The next piece, read on `view`; `None` after the last. Only the last has a header.
    pub(crate) fn next(&mut self, view: &View) -> Result<Option<pb::RangeResponse>, Fault> {
        if self.done {
            return Ok(None);
        }
        let mut piece = range::range(view, &self.request, false)?;
        if self.opened_at == 0 {
            self.opened_at = view.revision();
        }
        if self.request.count_only {
            self.done = true;
            return Ok(Some(pb::RangeResponse { header: header(self.opened_at), ..piece }));
        }
        if self.request.revision <= 0 {
            self.request.revision = self.opened_at;
        }
        let size = piece.encoded_len();
        let keys = i64::try_from(piece.kvs.len()).expect("a count of keys in memory fits i64");
        self.sent += keys;
        self.left = self.left.map(|left| left - keys);
        piece.header = None;
        if let Some(last) = piece.kvs.last().filter(|_| piece.more) {
            self.request.key = just_after(&last.key);
        }
        if piece.more && self.left != Some(0) {
            piece.more = false;
            self.request.limit = next_limit(self.request.limit, size, self.target_bytes);
            if let Some(left) = self.left {
                self.request.limit = self.request.limit.min(left);
            }
        } else {
            self.done = true;
            piece.header = header(self.opened_at);
            piece.count = self.sent + if piece.more { self.count_rest(view)? } else { 0 };
        }
        Ok(Some(piece))
    }

    fn count_rest(&self, view: &View) -> Result<i64, Fault> {
        let rest = pb::RangeRequest { count_only: true, ..self.request.clone() };
        Ok(range::range(view, &rest, true)?.count)
    }
}

/// Twice as many keys after a small piece, half as many after a large one, the same between half and twice the target;
/// never none, which would mean all.
fn next_limit(limit: i64, bytes: usize, target_bytes: usize) -> i64 {
    let limit = if bytes < target_bytes / 2 {
        limit.saturating_mul(2)
    } else if bytes > target_bytes.saturating_mul(2) {
        limit / 2
    } else {
        limit
    };
    limit.max(1)
}

#[cfg(test)]
mod tests {
    use super::next_limit;

    #[test]
    fn pieces_grow_and_shrink_towards_the_target() {
        assert_eq!(next_limit(10, 49, 100), 20);
        assert_eq!(next_limit(10, 50, 100), 10);
        assert_eq!(next_limit(10, 200, 100), 10);
        assert_eq!(next_limit(10, 201, 100), 5);
        assert_eq!(next_limit(1, 10_000, 100), 1);
    }
}
