//! Snapshots with their database, both ways: a Raft message with its length before it, then the file's bytes to the end.

pub(crate) mod receive;
pub(crate) mod send;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Writes a snapshot's database; waits for the writer as long as it must.
pub type WriteBody = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// Chunks that may wait between the network and the thread that reads or writes them.
const CHUNKS: usize = 16;

/// A place among a few; given back when it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(taken: &'a AtomicUsize, most: usize) -> Option<Self> {
        let place = Self(taken);
        if taken.fetch_add(1, Ordering::SeqCst) < most { Some(place) } else { None }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
