//! The process's pages of memory.

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

/// Asks the kernel for pages of the usual size from here on, where it would otherwise give huge ones unasked
/// (`/sys/kernel/mm/transparent_hugepage/enabled` says `always`).
///
/// A server at rest uses two megabytes in many small places; a huge page for each place makes ten times that. Called first
/// in a program, before there is much memory to have pages. Programs that this process starts inherit it.
pub fn keep_pages_small() {
    // A kernel without huge pages refuses, and has none to give.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
