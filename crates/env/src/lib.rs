//! The outside world as traits: disk, clock, randomness.
//!
//! Every room that touches the world does so through here, so that one seed can drive a whole simulated cluster: the
//! shipped binary hands out [`OsDisk`], [`OsClock`], [`OsRng`]; the simulator hands out [`SimDisk`], [`SimClock`],
//! [`SeededRng`] and nothing above can tell.
//!
//! ```text
//!   wal, node's shell, engine's directory handling
//!        │ &dyn Disk      │ &dyn Clock     │ &mut dyn Rng
//!        ▼                ▼                ▼
//!   ┌─────────┐      ┌─────────┐      ┌───────────┐
//!   │ OsDisk  │      │ OsClock │      │ OsRng     │   the kernel
//!   │ SimDisk │      │ SimClock│      │ SeededRng │   memory, and a seed
//!   └─────────┘      └─────────┘      └───────────┘
//! ```
//!
//! What never happens here: a decision. Nothing is retried, buffered or cached; an error of the kernel goes up as it
//! came. Nothing above this room calls `std::fs`, `Instant::now` or `SystemTime`.
//!
//! What a caller must know about disks, and what [`SimDisk`] therefore acts out:
//! - written bytes are in memory until `sync_data` returned; after a power cut each 512-byte sector of them is there
//!   or not, in any combination;
//! - a created, renamed or removed name is in memory until `sync_dir` of its directory returned;
//! - after a *failed* sync the kernel may have dropped the pages and forgotten about it: a second sync that succeeds
//!   says nothing. Only [`File::forget_cached`] and reading again tells what the disk holds.

mod bus_error;
mod clock;
mod disk;
mod memory;
mod os_disk;
mod rng;
mod sim;
mod turns;
mod unsynced;

pub use bus_error::tell_of_bus_errors;
pub use clock::{Clock, OsClock, SimClock};
pub use disk::{Disk, File, Lock, Open, SECTOR_BYTES};
pub use memory::{keep_pages_small, lock_memory};
pub use os_disk::OsDisk;
pub use rng::{OsRng, Rng, SeededRng};
pub use sim::{Counts, CrashReport, Fault, SimDisk};
pub use turns::ShortTurns;
pub use unsynced::Unsynced;
