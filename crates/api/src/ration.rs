//! Memory for long answers. Fifty clients that list ten megabytes each at the same time would have fifty answers made at
//! once, and wait for all of them; made one after the other, each is on its way while the next is made, and no client
//! waits longer for its last byte.
//!
//! So only a few are made at a time, and none while [`BYTES_MAX`] of answers wait for their clients: as long as these take
//! them. What slow clients leave lying does not keep others waiting.
//!
//! Pieces that are sent are used again while lists go on: fresh memory costs as much as what is copied into it, since the
//! system clears each page of it first. When nobody has listed for a while all of it is given back.

use std::num::NonZero;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use milepost_machine::LIST_PIECE;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Bytes of long answers that wait for their clients before no more are made.
const BYTES_MAX: u64 = 32 << 20;
/// Clients that take less than this in a [`TICK`] are not waited for.
const TICK_BYTES: u64 = 512 << 10;
const TICK: Duration = Duration::from_millis(200);

/// Pieces that are kept: no more than may have been on their way.
const SPARE_MAX: usize = BYTES_MAX as usize / LIST_PIECE;

/// As many at a time as there are cores to make them.
static RATION: LazyLock<Ration> =
    LazyLock::new(|| Ration::new(std::thread::available_parallelism().map_or(2, NonZero::get).max(2)));

struct Ration {
    making: Semaphore,
    /// Bytes of long answers in memory.
    held: AtomicU64,
    /// Bytes of long answers that are gone.
    gone: AtomicU64,
    /// Told when `held` falls below [`BYTES_MAX`].
    room: Notify,
    /// Pieces to be used again; `None` while there are no lists.
    spare: Mutex<Option<Vec<Vec<u8>>>>,
}

/// The right to make a long answer.
pub(crate) struct Turn {
    ration: &'static Ration,
    _permit: Option<SemaphorePermit<'static>>,
}

/// A piece of a long answer.
struct Held {
    bytes: Vec<u8>,
    ration: &'static Ration,
}

/// Waits for one's turn.
pub(crate) async fn turn() -> Turn {
    RATION.turn().await
}

/// Gives back what is kept for more lists.
pub(crate) fn rest() {
    RATION.rest();
}

impl Ration {
    const fn new(made_at_once: usize) -> Self {
        Self {
            making: Semaphore::const_new(made_at_once),
            held: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            room: Notify::const_new(),
            spare: Mutex::new(None),
        }
    }

    fn piece(&self, bytes: usize) -> Vec<u8> {
        let kept = if bytes == LIST_PIECE { self.spare.lock().get_or_insert_default().pop() } else { None };
        kept.unwrap_or_else(|| Vec::with_capacity(bytes))
    }

    /// Keeps a piece that is sent, if more lists may come.
    fn keep(&self, mut piece: Vec<u8>) {
        if piece.capacity() != LIST_PIECE {
            return;
        }
        if let Some(spare) = &mut *self.spare.lock()
            && spare.len() < SPARE_MAX
        {
            piece.clear();
            spare.push(piece);
        }
    }

    fn rest(&self) {
        let spare = self.spare.lock().take();
        drop(spare);
    }

    async fn turn(&'static self) -> Turn {
        // Never closed.
        let permit = self.making.acquire().await.ok();
        loop {
            let room = self.room.notified();
            if self.held.load(Ordering::Acquire) < BYTES_MAX {
                break;
            }
            let before = self.gone.load(Ordering::Relaxed);
            let is_late = tokio::time::timeout(TICK, room).await.is_err();
            if is_late && self.gone.load(Ordering::Relaxed) - before < TICK_BYTES {
                break;
            }
        }
        Turn { ration: self, _permit: permit }
    }
}

impl Turn {
    /// Where pieces of the answer come from.
    pub(crate) fn room(&self) -> impl FnMut(usize) -> Vec<u8> + Send + use<> {
        let ration = self.ration;
        move |bytes| ration.piece(bytes)
    }

    /// Counts pieces of the answer until they are sent. The turn is the next one's.
    pub(crate) fn hold(self, pieces: Vec<Vec<u8>>) -> impl Iterator<Item = Bytes> {
        let ration = self.ration;
        let bytes: usize = pieces.iter().map(Vec::capacity).sum();
        ration.held.fetch_add(bytes as u64, Ordering::AcqRel);
        pieces.into_iter().map(move |bytes| Bytes::from_owner(Held { bytes, ration }))
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = self.bytes.capacity() as u64;
        self.ration.gone.fetch_add(bytes, Ordering::Relaxed);
        let before = self.ration.held.fetch_sub(bytes, Ordering::AcqRel);
        if before >= BYTES_MAX && before - bytes < BYTES_MAX {
            self.ration.room.notify_waiters();
        }
        self.ration.keep(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    const MADE_AT_ONCE: usize = 3;

    fn ration() -> &'static Ration {
        Box::leak(Box::new(Ration::new(MADE_AT_ONCE)))
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn nobody_waits_for_clients_that_take_nothing() {
        let ration = ration();
        runtime().block_on(async {
            let lying: Vec<_> = ration.turn().await.hold(vec![Vec::with_capacity(BYTES_MAX as usize)]).collect();
            let turn = ration.turn().await;
            assert_eq!(ration.held.load(Ordering::Relaxed), BYTES_MAX, "what lies there is still there");
            drop((lying, turn));
            assert_eq!(ration.held.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn the_next_is_made_when_enough_is_sent() {
        let ration = ration();
        runtime().block_on(async {
            let piece = || Vec::with_capacity(BYTES_MAX as usize / 2);
            let mut waiting: Vec<_> = ration.turn().await.hold(vec![piece(), piece()]).collect();
            let mut next = std::pin::pin!(ration.turn());
            let mut context = Context::from_waker(Waker::noop());
            assert!(next.as_mut().poll(&mut context).is_pending());
            waiting.pop();
            assert!(matches!(next.poll(&mut context), Poll::Ready(_)));
        });
    }

    #[test]
    fn what_is_sent_is_used_again_until_nobody_lists() {
        let ration = ration();
        runtime().block_on(async {
            let turn = ration.turn().await;
            let mut room = turn.room();
            let mut piece = room(LIST_PIECE);
            piece.extend_from_slice(b"told");
            let place = piece.as_ptr();
            let sent: Vec<_> = turn.hold(vec![piece, Vec::with_capacity(100)]).collect();
            assert_eq!(sent[0], &b"told"[..]);
            let other = room(LIST_PIECE);
            assert_ne!(other.as_ptr(), place, "it is not sent yet");
            drop(sent);
            let again = room(LIST_PIECE);
            assert!(again.as_ptr() == place && again.is_empty());
            assert_eq!(room(100).capacity(), 100, "short ones are not kept");

            let lying: Vec<_> = ration.turn().await.hold(vec![again]).collect();
            ration.keep(Vec::with_capacity(LIST_PIECE));
            ration.rest();
            drop(lying);
            assert!(ration.spare.lock().is_none(), "nor is what a slow client takes afterwards");
            let many = (0..=SPARE_MAX).map(|_| room(LIST_PIECE)).collect::<Vec<_>>();
            many.into_iter().for_each(|piece| ration.keep(piece));
            assert_eq!(ration.spare.lock().as_ref().map(Vec::len), Some(SPARE_MAX));
        });
    }

    #[test]
    fn few_are_made_at_once() {
        let ration = ration();
        runtime().block_on(async {
            let mut turns = Vec::new();
            for _ in 0..MADE_AT_ONCE {
                turns.push(ration.turn().await);
            }
            let mut next = std::pin::pin!(ration.turn());
            let mut context = Context::from_waker(Waker::noop());
            assert!(next.as_mut().poll(&mut context).is_pending());
            turns.pop();
            assert!(next.poll(&mut context).is_ready());
        });
    }
}
