//! What Raft must not forget: etcd's write-ahead log and `.snap` files, byte for byte.
//!
//! ```text
//!            append(entries, HardState)                          open(dir)
//!                    │ encode, one buffer                           │ read all segments, verify all checksums
//!                    ▼                                              ▼
//!   sync() ── one write, one fdatasync              Recovered { metadata, hard_state, snapshot mark, entries }
//!                    │                                              ▲
//!   member/wal/      ▼                                              │
//!   0000000000000000-0000000000000000.wal   [crc 0][metadata][snapshot 0/0][entry]…[state]…  closed, cut to size
//!   0000000000000001-0000000000004e21.wal   [crc][metadata][state][entry]…[snapshot]…        closed
//!   0000000000000002-0000000000009c40.wal   [crc][metadata][state][entry]…000000000000000    the tail, 64 MB reserved
//!   1.tmp                                   000000000000000000000000000000000000000000000    the next one, reserved
//! ```
//!
//! A record's checksum runs over the data of all records before it, across segments: a log cannot lose its middle
//! unnoticed. Frames are drawn in `frame.rs`, the rules for torn writes in `reader.rs`, what records add up to in
//! `replay.rs`, the order of writes, syncs and renames in `wal.rs`.
//!
//! What holds:
//! - what [`Wal::sync`] returned for is found by every later [`Wal::open`], or `open` refuses;
//! - nothing is found that was not appended;
//! - a failed write or sync poisons the log: the process that saw it writes nothing more, and the next one reads what
//!   the disk holds, not what the cache says;
//! - space is reserved before it is written to: a full disk is [`WalError::NoSpace`] from `append` with the log intact,
//!   never a half-written batch.
//!
//! What never happens here: no thread, no clock, no sleeping, no retry, no decision about what the log means: whether
//! entries are committed, applied or to be thrown away is for the caller. The v2 JSON inside a `.snap` file is the
//! caller's bytes.
//!
//! Source: etcd `server/storage/wal`, `server/etcdserver/api/snap`; the stricter reading and the order at a cut are ours.

mod catalog;
mod error;
mod frame;
mod name;
mod read;
mod reader;
mod record;
mod recover;
mod replay;
mod segment;
pub mod snap;
mod wal;

pub use error::WalError;
pub use read::WalReader;
pub use record::{Metadata, SnapshotMark};
pub use recover::{Recovered, TornTail};
pub use wal::{MAX_WALS, Options, SEGMENT_BYTES, Wal};
