//! Whole clusters in one thread, under one seed.
//!
//! # What runs
//! The real node ([`milepost_node::Stepped`]: core, log loop, apply loop, keeper, duties, waiters, recovery), the real log
//! on a disk in memory that loses power, the real state machine on the in-memory engine. What is simulated is what
//! surrounds a process: time, the network, disks, power, clients. Nothing of the node is copied here; the threads' turns
//! are taken one at a time, each after a time that the seed draws, so that one seed is one interleaving and gives one
//! trace, byte for byte.
//!
//! ```text
//!             ┌─ clients: puts, deletes, compare-and-swap, reads, leases, compactions ─► history ─► linearizable?
//!   seed ─►  sim ─ faults: power cuts (at any call to the disk), kills, pauses, cuts and splits of the network,
//!             │           slow and failing disks, wall clocks set, leadership handed over, membership changed
//!             ▼
//!       member: Stepped │ SimDisk │ MemEngine │ clock ──► after each step: the rules of `truth`
//! ```
//!
//! # What is checked
//! After each step, for the member that did something: one leader per term; store durable ≤ applied ≤ min(committed,
//! persisted); snapshot point ≤ store durable; log's first − 1 ≤ snapshot point; entries that agree on (index, term)
//! agree in content and in what comes before them; what is applied anywhere is applied everywhere; `Machine::check`; at
//! every eighth entry the states of all members are equal (keyspace hash, compaction, leases, members, alarms,
//! configuration, version). No lease ends before the time that its owner was promised.
//!
//! At the end the world heals: every machine runs, nothing is lost. Within a minute of simulated time a write must reach
//! everybody, leases must have ended, all states are equal, and the clients' history must be linearizable with every
//! acknowledged write in the log ([`history`]).
//!
//! # Planted bugs
//! [`Plant`] puts a bug between the node and the world; the suite says after how many seeds each is found.
//!
//! # What is not real here
//! The engine: tables in memory, durable up to the newest commit or the one before, as LMDB's promise has it. A received
//! snapshot takes the store's place at once and for good. The transport: it knows where whoever wrote to it is.

mod clients;
mod clock;
mod counts;
mod faults;
pub mod history;
mod member;
pub mod model;
mod network;
mod plan;
mod rng;
mod sim;
mod suite;
mod truth;

pub use counts::{Counts, MUST};
pub use plan::Plant;
pub use suite::{Outcome, Report, replay, run, seeds_until_found, suite};
