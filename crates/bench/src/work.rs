//! Kinds of requests: how the n-th is written, and what its answer must be.

mod fill;
mod keepalive;
mod list;
mod put;
mod range;
mod readback;
mod txn;

pub use fill::{Count, Fill};
pub use keepalive::{Grant, KeepAlive, Leases, Revoke};
pub use list::List;
pub use put::Put;
pub use range::Range;
pub use readback::{Acknowledged, ReadBack, rewritten};
pub use txn::{TxnMixed, TxnPut};

use bytes::{Bytes, BytesMut};
use milepost_proto::Message;
use milepost_proto::etcdserverpb::ResponseHeader;

/// One kind of request. Everything is a function of the ticket's number.
pub trait Work: Send + Sync {
    /// The method, as `/etcdserverpb.KV/Put`.
    fn path(&self) -> &'static str;

    /// Whether all requests of a client go down one stream, an answer to each before the next.
    fn streaming(&self) -> bool {
        false
    }

    /// Appends request `n`.
    fn encode(&self, n: u64, out: &mut BytesMut);

    /// Looks at the answer to request `n`, and returns the revision in its header.
    ///
    /// # Errors
    /// What is wrong with it, for the report.
    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String>;
}

/// Decodes an answer, or says that it is none.
fn decode<M: Message + Default>(answer: Bytes) -> Result<M, String> {
    M::decode(answer).map_err(|error| format!("undecodable answer: {error}"))
}

/// Revision of an answer. Every answer has a header, and no revision is below 1.
fn revision(header: Option<&ResponseHeader>) -> Result<i64, String> {
    match header {
        Some(header) if header.revision > 0 => Ok(header.revision),
        _ => Err("an answer without revision".into()),
    }
}

/// Appends a message. Growing is the buffer's business, so this cannot fail.
fn append(message: &impl Message, out: &mut BytesMut) {
    message.encode(out).expect("a BytesMut grows");
}
