//! Kinds of requests: how the n-th is written, and what its answer must be.

mod delete;
mod fill;
mod keepalive;
mod kube;
mod list;
mod lock;
mod maintenance;
mod put;
mod range;
mod readback;
mod snapshot;
mod txn;

pub use delete::{Delete, Gone};
pub use fill::{Count, Fill};
pub use keepalive::{Grant, KeepAlive, Leases, NEVER, Revoke};
pub use kube::{Kube, Tally};
pub use list::List;
pub use lock::Lock;
pub use maintenance::{Compact, Defragment, Newest};
pub use put::Put;
pub use range::Range;
pub use readback::{Acknowledged, ReadBack, rewritten};
pub use snapshot::Snapshot;
pub use txn::{TxnMixed, TxnPut};

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use milepost_proto::Message;
use milepost_proto::etcdserverpb::ResponseHeader;

/// One kind of request. Everything is a function of the ticket's number.
pub trait Work: Send + Sync {
    /// The method, as `/etcdserverpb.KV/Put`.
    fn path(&self) -> &'static str;

    /// How request and answer travel.
    fn talk(&self) -> Talk {
        Talk::Unary
    }

    /// Appends request `n`.
    fn encode(&self, n: u64, out: &mut BytesMut);

    /// Appends request `n` as client number `client` sends it; clients count from 0.
    fn encode_for(&self, _client: usize, n: u64, out: &mut BytesMut) {
        self.encode(n, out);
    }

    /// Looks at the answer to request `n`, and returns the revision in its header.
    ///
    /// # Errors
    /// What is wrong with it, for the report.
    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String>;

    /// The same for an operation of several calls: `call` counts from 0, and the answer may lead to the next one.
    ///
    /// # Errors
    /// What is wrong with it, for the report.
    fn answered(&self, _client: usize, n: u64, _call: usize, answer: Bytes) -> Result<Next, String> {
        self.check(n, answer).map(Next::Done)
    }

    /// Hears of each answer without error: latency counts from `since`.
    fn timed(&self, _since: Instant, _now: Instant) {}

    /// Takes the messages of a [`Talk::Download`].
    fn sink(&self) -> Option<Box<dyn Sink>> {
        None
    }
}

/// How a request and its answer travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// One message each way.
    Unary,
    /// All requests of a client go down one stream, an answer to each before the next.
    Stream,
    /// One request, many messages in return, for the work's [`Sink`].
    Download,
}

/// What an answer leads to.
pub enum Next {
    /// The operation is done, at this revision.
    Done(i64),
    /// A unary call of this method with this message.
    Call(&'static str, BytesMut),
}

/// Takes the messages of one download.
pub trait Sink {
    /// The next message.
    ///
    /// # Errors
    /// What is wrong with it.
    fn push(&mut self, message: Bytes) -> Result<(), String>;

    /// After the last one; returns the revision that was told, or 1 where none is.
    ///
    /// # Errors
    /// What is wrong with the whole.
    fn end(self: Box<Self>) -> Result<i64, String>;
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
