//! Client doors: whatever knocks on the client port is answered here.
//!
//! ```text
//!  client ──► listener (one per core, same port) ──► tls/ ──► guard/, authority/, hyper: HTTP/1 or HTTP/2
//!                                                      │ HTTP/2                 │ HTTP/1
//!                                                    grpc/  framing, status   http/  pages    gateway/  JSON
//!                                                      └──────► handlers/ ◄──────────────────────┘
//!                                                                 │  decoded message and Call
//!                                                               Door ── propose, read barrier ──► node
//!                                                                 ▲                                 │
//!                                                           Slots ◄── one wake per batch ── Sink ◄──┘
//! ```
//! One thread per core runs everything of its connections: no lock, no other thread's cache line on a request's way
//! except the node's queue and the mailbox that brings its answers back in batches (`completions`).
//!
//! What never happens here: no decision about keys, leases or members, which is the machine's; no transport in a
//! handler; no answer text outside of the one table in `status`.

mod authority;
mod backend;
mod call;
mod colleagues;
mod completions;
mod config;
mod connection;
mod door;
mod doors;
mod gateway;
mod grpc;
mod guard;
mod hall;
mod handlers;
mod http;
mod listen;
mod metrics;
mod ration;
mod status;
mod tls;
mod wire;
mod workers;

pub use backend::{Backend, Completion, CompletionSink, DefragmentDone, NodeError, RaftStatus, Standing, Waiter};
pub use colleagues::{Asked, Colleagues, NoColleagues, Unheard};
pub use config::{ApiConfig, Feature, Limits, Listen, Listener, PeerAnswering, PeerBody, PeerService, Role, SlowCall};
pub use doors::{DoorError, Doors};
pub use status::{Code, Status};
pub use tls::{CipherSuite, TlsSettings, TlsVersion};
