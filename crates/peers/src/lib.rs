//! The way to other members: etcd's peer protocol, HTTP/1.1 with or without TLS.
//!
//! ```text
//!  Raft thread ─ send ─► outbox per peer and stream ─► Outgoing ─► answer to the peer's GET (a door of `api`)
//!                   └──► pipeline, when the peer has asked for no stream ─► POST ─┐
//!  snapshot ─ thread ─► chunks ─► POST /raft/snapshot ────────────────────────────┤  thread `peers`
//!  Inbox ◄─ receive ◄── decoder ◄─ answer to our GET of the peer's streams ───────┘
//!  Inbox ◄─ receive ◄── POSTs of peers and of strangers (a door of `api`)
//! ```
//! Who wants messages asks for them: each member holds two streams from every other one, and answers two. All that calls
//! others runs on one thread, which a member without others does not have; what answers runs on the peer port's door.
//! - [`Transport`] carries Raft's messages and snapshots; [`Inbox`] is what the member does with those that come.
//! - [`Client`] asks the questions that members ask each other outside Raft: who is in the cluster, which version, the
//!   hash of the keyspace, leases of the leader.
//!
//! Every queue is bounded. A full one drops, and Raft is told; nobody waits for a slow or dead member.
//!
//! What never happens here: anything that Raft decides, anything about keys. No thread of the caller ever waits for the
//! network. Sources: etcd 3.7.1 `server/etcdserver/api/rafthttp`.

mod client;
mod dial;
mod exchange;
mod framing;
mod headers;
mod journal;
mod kept;
mod metrics;
mod outbox;
mod peer;
mod picker;
mod pipeline;
mod pool;
mod probe;
mod reader;
mod service;
mod snapshot;
mod status;
mod tls;
mod transport;
mod url;

#[cfg(test)]
mod client_test;
#[cfg(test)]
mod transport_test;

pub use client::{Blocking, CallError, Client, HashHeader, HashRecord, MemberRecord, VersionRecord};
pub use journal::{Journal, Level, NoJournal};
pub use service::{Answering, Service, ServiceBody};
pub use snapshot::WriteBody;
pub use tls::{TlsSettings, TlsVersion};
pub use transport::{Inbox, Patience, Transport, TransportConfig};
