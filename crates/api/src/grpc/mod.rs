//! gRPC over HTTP/2: from a path and bytes to a handler and back.
//!
//! ```text
//!  HTTP/2 stream ─► method ─► message ─► checks ─► handler ─► message + trailers
//!                   (table)   (wire)     (door)    (handlers/)     (reply)
//! ```
//! Framing, deadlines and status are ours, on hyper: about 400 lines instead of a framework, which gives etcd's exact
//! texts for oversized messages and unknown methods, request tasks that stay on one thread, and watch events that are
//! written without being copied.

mod method;
pub(crate) mod reply;
mod serve;
mod slow;
mod stream;
pub(crate) mod wire;

pub(crate) use method::{METHODS, Method, Names, Shape};
pub(crate) use serve::{Opening, answer, arrival, open, open_stream};
pub(crate) use stream::{Accounting, Inlet, Requests, Stage};
