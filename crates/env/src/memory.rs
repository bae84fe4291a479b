//! The process's memory and the swap device.

use std::io;

use rustix::mm::MlockAllFlags;

/// Keeps every page of this process in memory once it has been touched, those of the future too.
///
/// # Errors
/// More is mapped than this user may lock (`RLIMIT_MEMLOCK`).
pub fn lock_memory() -> io::Result<()> {
    // On fault: a store maps far more than it holds.
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(Into::into)
}
