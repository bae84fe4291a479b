//! What is ready for one stream.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Frame;
use super::stats::Counters;

/// How much a stream may have waiting.
///
/// Events are refused while either bound is reached, so a stream holds at most the bounds and the one reply that crossed them.
/// A stream with nothing waiting takes one reply of any size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Sum of [`Frame::cost`], in bytes.
    pub bytes: usize,
    /// Number of frames.
    pub frames: usize,
}

impl Default for Bounds {
    /// 1 MiB, 1024 frames. etcd: 128 replies of any size. Small events fit by the frame bound, and a client that lags behind
    /// by more is served better by catching up, where one reply carries up to 1000 revisions.
    fn default() -> Self {
        Self { bytes: 1 << 20, frames: 1024 }
    }
}

/// Called when a stream that had nothing ready has something again. Must not block: the hub is waiting.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The frames that the hub has for one stream and its owner has not taken yet.
///
/// The hub appends, the owner takes; neither waits for the other beyond a short critical section.
pub struct Outbox {
    state: Mutex<State>,
    /// Copies of what `state` holds, so that the hub can ask for room without the lock.
    bytes: AtomicUsize,
    frames: AtomicUsize,
    ended: AtomicBool,
    bounds: Bounds,
    waker: Waker,
    counters: Arc<Counters>,
}

/// What came of [`Outbox::push`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Pushed {
    /// False: the owner has taken everything in the meantime, so that no one would ever report room.
    pub waiting: bool,
    /// The owner knows nothing of it yet: to be followed by [`Outbox::wake`].
    pub wake: bool,
}

#[derive(Default)]
struct State {
    frames: Vec<Frame>,
    /// The waker was called and nothing was taken since.
    woken: bool,
    /// The hub has held something back and wants to hear of the next take.
    blocked: bool,
}

impl Outbox {
    /// An empty one that calls `waker` when it gets its first frame.
    #[must_use]
    pub fn new(bounds: Bounds, waker: Waker, counters: Arc<Counters>) -> Self {
        Self {
            state: Mutex::new(State::default()),
            bytes: AtomicUsize::new(0),
            frames: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            bounds,
            waker,
            counters,
        }
    }

    /// Moves everything that is ready to the end of `out`. True: the hub held something back; tell it that there is room now.
    ///
    /// Take when the frames can be passed on, not before: what has been taken no longer counts against the bounds.
    #[must_use = "a blocked stream stays silent until the hub is told"]
    pub fn take(&self, out: &mut Vec<Frame>) -> bool {
        let mut state = self.state.lock();
        state.woken = false;
        let blocked = mem::take(&mut state.blocked);
        let events: u64 = state.frames.iter().map(|frame| u64::from(frame.event_count)).sum();
        if out.is_empty() {
            mem::swap(out, &mut state.frames);
        } else {
            out.append(&mut state.frames);
        }
        if state.frames.capacity() > Self::KEPT_CAPACITY {
            state.frames = Vec::new();
        }
        self.bytes.store(0, Ordering::Relaxed);
        self.frames.store(0, Ordering::Relaxed);
        drop(state);
        self.counters.events_taken(events);
        blocked
    }

    /// Number of frames that wait. Approximate while others work.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.load(Ordering::Relaxed)
    }

    /// Does nothing wait?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hub has stopped: nothing will come after what waits.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Frames' worth of memory that a stream keeps between takes: few, for there may be many thousand idle streams.
    pub(super) const KEPT_CAPACITY: usize = 4;

    /// What more the bounds allow, if `frames` frames costing `bytes` were added to what waits.
    pub(super) fn has_room(&self, frames: usize, bytes: usize) -> bool {
        self.frames.load(Ordering::Relaxed) + frames < self.bounds.frames
            && self.bytes.load(Ordering::Relaxed) + bytes < self.bounds.bytes
    }

    /// Appends all of `frames`, of which the caller made sure that there is room. `blocked`: something is held back.
    pub(super) fn push(&self, frames: &mut Vec<Frame>, blocked: bool) -> Pushed {
        let events: u64 = frames.iter().map(|frame| u64::from(frame.event_count)).sum();
        let cost: usize = frames.iter().map(Frame::cost).sum();
        self.counters.events_sent(events);
        let mut state = self.state.lock();
        state.frames.append(frames);
        self.frames.store(state.frames.len(), Ordering::Relaxed);
        self.bytes.fetch_add(cost, Ordering::Relaxed);
        let waiting = !state.frames.is_empty();
        state.blocked = blocked && waiting;
        let wake = waiting && !state.woken;
        state.woken |= wake;
        Pushed { waiting, wake }
    }

    /// Wakes the owner.
    pub(super) fn wake(&self) {
        (self.waker)();
    }

    /// Says that nothing will follow, and wakes the owner.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        (self.waker)();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let events = self.state.get_mut().frames.iter().map(|frame| u64::from(frame.event_count)).sum();
        self.counters.events_taken(events);
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("frames", &self.len()).finish_non_exhaustive()
    }
}
