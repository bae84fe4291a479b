//! The replicated state machine: keys, leases, membership, alarms, cluster version.
//!
//! ```text
//!   committed entries, in order, each once
//!        │
//!        ▼
//!   Machine::apply ──► decode ─► gates (CORRUPT, NOSPACE) ─► the request's own rules
//!        │                                                         │
//!        │            mvcc::Writer::begin(index, term) ◄── keys, small tables, conf state
//!        │                          finish() ──► visible to readers, all at once
//!        ▼
//!   Applied { reply, events for the watchers, effects for the member }
//!
//!   any thread: Reader ──► views of the keyspace, members, alarms, leases
//!   the leader: Lessor ──► which leases have ended, which need a checkpoint
//!   the door:   validate ──► the shape of a request, before it is proposed
//! ```
//! **Same log, same bytes.** Apply sees the entry and the state, nothing else: no clock, no chance, no order of a hash
//! table. Three local settings take part because they do in etcd: the minimal lease TTL and the number of learners
//! (equal on all members, by the operator's care), and the quota (decides who hears "no space", not what is written).
//! Every entry moves the applied index, also one that is refused or empty.
//!
//! Three fates of a request: applied; refused ([`Error`]: the same on all members, no change); or the entry cannot be
//! understood or carried out ([`Fatal`]), and the member stops rather than drift away from the others.
//!
//! What never happens here: waiting, clocks (time is an argument), Raft, encoding of replies, disk except through
//! `mvcc`. Users and roles are not here yet: entries about them are refused.
//!
//! Sources: `facts/apply-semantics.md`, `facts/rpc-semantics.md`, `facts/errors.md`; etcd 3.7.1 `server/etcdserver/apply`,
//! `server/etcdserver/txn`, `server/lease`, `server/etcdserver/api/membership`.

mod alarm;
mod cluster;
mod config;
pub mod cost;
mod database;
mod encode;
mod entry;
mod error;
mod import;
mod kv;
mod lease;
mod machine;
pub mod member;
mod reader;
mod step;
pub mod validate;

pub use alarm::Alarms;
pub use cluster::{ClusterInfo, Downgrade, Version};
pub use config::{Config, DEFAULT_QUOTA_BYTES, MAX_LEASE_TTL, SERVER_VERSION};
pub use database::{Database, DatabaseError};
pub use encode::encode;
pub use entry::{Applied, Effect, Entry, EntryKind, OPERATIONS, Reply};
pub use error::{Error, Fatal};
pub use import::{ImportError, Taken, import};
pub use kv::list::{LIST_PIECE, LIST_ROOM, List, ListRoom, is_list};
pub use kv::txn::{is_readonly as is_txn_readonly, is_serializable as is_txn_serializable};
pub use lease::{Lessor, Renewal, TimeToLive};
pub use machine::Machine;
pub use member::{Member, Membership};
pub use reader::{RangeStream, Reader};

/// Bytes as text, for messages.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
