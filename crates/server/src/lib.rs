//! One whole member: flags → config → open or form → wire → listen → shut down.
//!
//! ```text
//!   words, ETCD_*  ──►  config (one table, checked once)  ──►  run: ports, directory, node, doors  ──►  signals
//!                                                                │
//!                                                                └──►  jsonlog: what operators read
//! ```
//! What never happens here: meaning. Requests, Raft and files are other rooms' business; this one only brings them
//! together in the right order and takes them apart again.

pub mod config;

mod jsonlog;
mod logline;
mod peer_port;
mod ready;
mod run;
mod signals;
mod store;
mod version;

pub use run::run;
pub use version::ETCD_VERSION;
