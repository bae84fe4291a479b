//! Who is watching, and what they are told.
//!
//! ```text
//!  apply ── publish(batch) ──► queue ──► HubCore ──► outbox ── take ──► client door ──► client
//!  client door ── create, cancel, progress ──┘  ▲                          │
//!                                               │ history(from)            └── drained ──► queue
//!                                             store
//! ```
//!
//! A **watcher** is a cursor over the history of some keys. While it is *synced*, changes reach it as the writer publishes them;
//! when it starts in the past, or its stream is full, or batches were lost, it is *unsynced*: history is read for it, in bounded
//! pieces and together with others, until it is where the live events are. Nothing is ever kept for a slow client but its cursor.
//!
//! **Nothing is lost between the two.** `seen` is the newest revision offered to synced watchers. A watcher that has read history
//! through revision T, T ≥ `seen`, becomes synced and refuses batches ≤ T; every batch above `seen` is still to come. A hole in the
//! batches is noticed, for revisions are counted without gaps, and turns everybody unsynced; so batches may be dropped at any
//! time, and are: when nobody watches, and when the hub's queue is full.
//!
//! **What is shared.** Watchers of the same keys share one *interest*; a change is matched against interests: single keys and
//! prefixes by hash, ranges by an interval tree. Events are encoded once for all who get the same ones and shared as
//! reference-counted bytes; only a [`Frame`]'s few fields are per watcher.
//!
//! **What is bounded.** Each stream's outbox, in frames and bytes: a stream that is full costs its own watchers a detour through
//! history and nobody else anything. The queue, in batches. One step of catching up, in records, bytes and watchers.
//!
//! What is absent: clocks (the stream's owner has the progress timer), permissions (checked by whoever calls), sockets. The core
//! ([`HubCore`]) has no thread either: tests and the simulation step it by hand; [`Hub`] is the thread around it.
//!
//! Sources: etcd `server/storage/mvcc/watchable_store.go`, `server/etcdserver/api/v3rpc/watch.go` for what clients see. Where we
//! differ, because it spares clients trouble and none can rely on the opposite: after an installed snapshot a watcher goes on from
//! the last revision the hub has seen, not from its own last event, so that compaction cancels only those who did miss
//! something; and a watcher that compaction has cancelled does not silence its stream's progress until the client confirms.

mod core;
mod delivery;
mod encode;
mod frame;
mod history;
mod hub;
mod interest;
mod interval;
mod members;
mod outbox;
mod pace;
mod registry;
mod request;
mod slots;
mod stats;

pub use self::core::{HubCore, HubOptions, Input, StreamId, StreamOptions};
pub use frame::{Frame, Heads, NO_WATCHER};
pub use history::History;
pub use hub::{Hub, Stream};
pub use outbox::{Bounds, Outbox, Waker};
pub use request::CreateRequest;
pub use stats::{Counters, HubStats};
