//! The way to other members: etcd's peer protocol, HTTP/1.1 with or without TLS.
//!
//! - [`Client`] asks the questions that members ask each other outside Raft: who is in the cluster, which version, the
//!   hash of the keyspace, leases of the leader.
//!
//! What never happens here: anything that Raft decides, anything about keys. No thread of the caller ever waits for the
//! network.

mod client;
mod dial;
mod exchange;
mod headers;
mod tls;
mod url;

#[cfg(test)]
mod client_test;

pub use client::{Blocking, CallError, Client, HashHeader, HashRecord, MemberRecord, VersionRecord};
pub use tls::{TlsSettings, TlsVersion};
