//! Answers that a client has asked for and does not take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

/// Smaller answers are not counted: they are gone as soon as they are made, or cost little.
const COUNTED_BYTES: usize = 64 * 1024;
/// What a client must take within its patience.
const PROGRESS_BYTES: u64 = 64 * 1024;

/// What one connection owes its client. Counted by whoever frees the bytes, hence the atomics; nobody waits on them.
#[derive(Debug, Default)]
pub(crate) struct Debt {
    /// Bytes of answers made and not yet written.
    owed: AtomicU64,
    /// Bytes written so far.
    written: AtomicU64,
    /// Told when something is owed.
    made: Notify,
}

/// An answer's bytes; paid when the last of them is gone.
struct Owed {
    bytes: Bytes,
    debt: Arc<Debt>,
}

impl AsRef<[u8]> for Owed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.debt.owed.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

impl Debt {
    /// The same bytes, counted until they are written.
    pub(crate) fn owe(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        if bytes.len() < COUNTED_BYTES {
            return bytes;
        }
        if self.owed.fetch_add(bytes.len() as u64, Ordering::Relaxed) == 0 {
            self.made.notify_one();
        }
        Bytes::from_owner(Owed { bytes, debt: Arc::clone(self) })
    }

    pub(super) fn pay(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Ends when the client owes us its attention: for `patience` there were answers for it, and it took next to
    /// nothing.
    pub(crate) async fn is_ignored(&self, patience: Duration) {
        loop {
            self.made.notified().await;
            while self.owed.load(Ordering::Relaxed) > 0 {
                let before = self.written.load(Ordering::Relaxed);
                tokio::time::sleep(patience).await;
                let taken = self.written.load(Ordering::Relaxed) - before;
                if self.owed.load(Ordering::Relaxed) > 0 && taken < PROGRESS_BYTES {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_answers_are_not_counted_and_large_ones_until_they_are_gone() {
        let debt = Arc::new(Debt::default());
        let small = debt.owe(Bytes::from_static(b"x"));
        let large = debt.owe(Bytes::from(vec![7; COUNTED_BYTES]));
        assert_eq!((small.len(), large.len()), (1, COUNTED_BYTES));
        assert_eq!(debt.owed.load(Ordering::Relaxed), COUNTED_BYTES as u64);
        let tail = large.slice(COUNTED_BYTES - 1..);
        drop((small, large));
        assert_eq!(debt.owed.load(Ordering::Relaxed), COUNTED_BYTES as u64, "a part is still to be written");
        drop(tail);
        assert_eq!(debt.owed.load(Ordering::Relaxed), 0);
    }
}
