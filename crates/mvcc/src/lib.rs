//! Revisions of keys, and who is watching them.
//!
//! # What happens here
//! Every change of a key is a [`Record`] with a revision of its own; old ones stay readable until they are compacted.
//! Changes come one log entry at a time from one [`Writer`], go to memory, and are committed to an engine behind its
//! back. Readers take a [`View`] and see one revision, whatever happens meanwhile.
//!
//! ```text
//!  apply ─► Writer.begin ─► Change: put, delete_range, … ─► finish ─► active generation ─┐ published: readers see it
//!                                                                                        │ full, or 0.5 s old
//!                                        commit thread ◄── sealed generation ◄───────────┘
//!                                             │ one engine transaction
//!                                             ▼
//!     history  (revision → record)  attached (lease, key)  small tables  meta       newest records: behind, in memory
//!                                                                                        │ merged now and then
//!     current  (key → newest record)  ◄──────────────────────────────────────────────────┘
//!                                             ▲
//!  Store.view ─► View: get, range at a revision ── merges active, sealed, behind, engine
//! ```
//!
//! # What never happens here
//! No clock is read: time passes only as the length of a wait. Nobody here has heard of Raft, beyond the index and term
//! of an entry as two numbers to remember. Apply never waits for a disk, unless two whole generations are full.
//!
//! # What must stay true
//! - A revision that was published is never taken back and never changes.
//! - A generation holds whole entries; a commit holds whole generations. After a crash the store is the state after
//!   some entry, and says which.
//! - What a view or a committed floor may still ask for is not deleted.
//! - Every record from disk is checked before it is believed.

mod behind;
mod codec;
mod commit;
mod compact;
mod counting;
mod counts;
mod defragment;
mod error;
mod export;
mod generation;
mod hash;
mod history;
mod import;
mod keys;
mod merge;
mod record;
mod salvage;
mod scan;
mod shared;
mod store;
mod tables;
mod turn;
mod view;
pub mod watch;
mod worth;
mod writer;

pub use codec::is_sealed;
pub use error::StoreError;
pub use export::{Export, Records, StoredRecord};
pub use hash::HashKv;
pub use import::{Import, ImportEnd, Imported, NewRecord};
pub use record::{Header, Record};
pub use salvage::{Walked, rescue, salvage, verify};
pub use store::{Durable, Observer, Opened, Opening, Sizes, SpaceState, Store, StoreOptions, StoreStats, Work};
pub use tables::{APP_PREFIX, SmallTable};
pub use view::{LiveRecord, RangeOptions, RangeResult, View};
pub use writer::{Change, EventBatch, Writer};
