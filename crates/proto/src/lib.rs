//! Wire and disk messages, generated from our own `.proto` files; no behaviour.
//!
//! Field names and numbers are those of etcd 3.7: they are the wire and disk format. `bytes` fields are
//! [`bytes::Bytes`], so that a decoded request shares the buffer it arrived in. Services are not generated here: the
//! rooms that speak gRPC (`api`, `client`) make theirs from the same files and use these types.
//!
//! What is absent: transport, validation, defaults beyond protobuf's own.

#![allow(missing_docs, reason = "generated from .proto files, whose names are the documentation")]
#![allow(clippy::all, reason = "generated code")]

/// The client API, and what an entry of the replicated log carries.
pub mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

/// Key-value records and events.
pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
}

/// Users, roles, permissions.
pub mod authpb {
    include!(concat!(env!("OUT_DIR"), "/authpb.rs"));
}

/// Members as stored and proposed.
pub mod membershippb {
    include!(concat!(env!("OUT_DIR"), "/membershippb.rs"));
}

/// Lock service.
pub mod v3lockpb {
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.rs"));
}

/// Election service.
pub mod v3electionpb {
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.rs"));
}

/// Leases as stored.
pub mod leasepb {
    include!(concat!(env!("OUT_DIR"), "/leasepb.rs"));
}

/// The standard health service.
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

/// Raft messages and entries as etcd stores and sends them.
pub mod raftpb {
    include!(concat!(env!("OUT_DIR"), "/raftpb.rs"));
}

/// Records of the write-ahead log.
pub mod walpb {
    include!(concat!(env!("OUT_DIR"), "/walpb.rs"));
}

/// An encoded `google.protobuf.FileDescriptorSet` of all our files: names and kinds of every field, for who translates
/// messages without knowing them.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use prost::{self, Message};
