//! One whole member: flags → config → open or form → wire → listen → shut down.
//!
//! ```text
//!   words, ETCD_*  ──►  config (one table, checked once)  ──►  run: ports, directory, node, doors  ──►  signals
//!                                                                │
//!                                                                └──►  log: what operators read
//! ```
//! What never happens here: meaning. Requests, Raft and files are other rooms' business; this one only brings them
//! together in the right order and takes them apart again.

pub mod config;

mod auto_tls;
mod cluster;
mod data_dir;
mod log;
mod peer_port;
mod ready;
mod run;
mod signals;
mod start;
mod store;
mod version;
mod wiring;

pub use run::run;
pub use version::ETCD_VERSION;
