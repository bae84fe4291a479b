//! Propose → replicate → apply → reply.
//!
//! ```text
//!              propose(id, bytes, waiter)                 read_index(waiter)
//!                        │                                       │
//!            ┌───────────▼───────────────────────────────────────▼──────────┐
//!            │ Raft thread: Core (pure) decides; its effects are data       │◄──► other members
//!            └──┬──────────────────────────▲────────────────────────┬───────┘
//!       Persist │                          │ Persisted(n)           │ Apply(entries)
//!            ┌──▼──────────┐               │                ┌───────▼────────┐
//!            │ log thread  │───────────────┘                │ apply thread   │──► waiters, one call per sink and batch
//!            │ write, sync │                                │ machine::apply │──► watch hub
//!            └─────────────┘                                └────────────────┘
//! ```
//! - [`core`] is the deciding half: input in, effects out, nothing else. `validate` inside it is the gate for peers'
//!   bytes.
//! - `shell` is the doing half: threads, queues, waiters.
//! - [`stepped`] is a node without threads, whose turns somebody else takes: how simulations drive the real one.
//! - `recovery` turns a directory into a place to go on from, or refuses with a sentence.
//! - [`log`] is how every room speaks to the operator.
//!
//! A single member is a cluster of one voter and takes the same path as any other; with little to do, its Raft thread
//! takes the turns of the other two itself.
//!
//! What never happens here: anything about keys, leases or members (that is `machine`), bytes of the log's files (`wal`),
//! anything about clients or sockets (`api`, `peers`). No thread waits for another member or a client; the log thread
//! alone waits for the disk, or the Raft thread of a member that is alone.
//!
//! Rules and their reasons: the design log, sections 1 to 4. Sources of behaviour: etcd 3.7.1 `server/etcdserver`.

pub mod compactor;
pub mod config;
pub mod core;
mod install;
pub mod letters;
pub mod log;
pub mod metrics;
mod node;
mod recovery;
pub mod request_id;
mod shell;
pub mod stepped;
mod waiter;

pub use compactor::CompactionMode;
pub use config::{Join, MayDrop, NodeConfig};
pub use core::Role;
pub use install::InstallError;
pub use letters::{Letters, NoLetters, SnapshotBody, SnapshotLetter};
pub use node::{Node, OpenStore, Status, World};
pub use recovery::StartError;
pub use recovery::guard::GuardError;
pub use shell::defragmenter::DefragmentDone;
pub use shell::shared::{LeaderWatcher, StopReason};
pub use stepped::Stepped;
pub use waiter::{Completion, CompletionSink, NodeError, Waiter};
