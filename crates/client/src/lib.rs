//! A client of etcd's API, for our tools: connections, retries, watches that resume, leases that stay alive.
//!
//! ```text
//!  tool ── kv().range(…) ──► Client ── attempts ──► Balancer ── turn by turn ──► Connection ── HTTP/2 ──► member 1
//!  tool ◄─ answer, or Error in etcd's words ────────┘    └── one task per endpoint keeps it connected ──► member 2
//! ```
//!
//! What holds:
//! - Making a client waits for nothing but a user's token. A call waits for a connection until its deadline; one
//!   endpoint that answers is enough.
//! - A write is sent once. It is sent again only if the server has certainly not looked at it: the connection took no
//!   more calls, or the server refused the stream unseen. Reads and calls that may run twice are tried elsewhere when a
//!   server is unavailable.
//! - Errors read as etcd's own tools show them; clients and scripts compare these texts.
//!
//! What never happens here: printing, reading the command line or the environment, ending the process.
//!
//! Sources: etcd `client/v3` for when a call is repeated and how errors read; gRPC over HTTP2 for the wire.

mod alert;
mod balancer;
mod bare;
mod client;
mod concurrency;
mod config;
mod connection;
mod deadline;
mod dial;
mod discover;
mod endpoint;
mod error;
mod keepalive;
mod line;
mod method;
mod page;
mod services;
mod stream;
mod tls;
mod watch;
mod wire;

pub use bare::SecureDialler;
pub use client::Client;
pub use concurrency::{Election, Mutex, Observer, Session};
pub use config::{Auth, Config, FailedAttempt, FailureWatcher, Secure};
pub use deadline::Deadline;
pub use discover::{LookupError, Resolver, Srv, service};
pub use error::{Code, ConnectError, Error};
pub use keepalive::{KeepAlive, KeepAlives};
pub use services::{AuthCalls, Cluster, ElectionCalls, Kv, Lease, LockCalls, Maintenance};
pub use stream::Stream;
pub use watch::{Update, Watcher, Watches};
