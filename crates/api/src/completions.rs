//! How an answer travels from the node's threads to the request that waits for it: one wake for a whole batch.
//!
//! ```text
//!  apply thread ──batch──► Sink ──one wake──► dispatcher task ──► slot ──► request   (same thread, no more locks)
//!  watch hub    ──ready──►   (queue under a mutex)      └───────► stream
//! ```
//! Each door has one [`Sink`], which other threads fill, and one [`Slots`], which only the door's thread touches. A
//! request opens a slot, hands its ticket to the node and awaits the [`Wait`]. Dropping the wait (the client went away)
//! frees the slot; an answer that comes later finds the ticket's generation gone and is dropped. Deadlines are swept
//! coarsely, so a request costs no timer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::backend::{Completion, CompletionSink};

/// How often deadlines are looked at while requests wait: deadlines are this coarse.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// The mailbox of one door; any thread may put answers in.
pub(crate) struct Sink {
    // Held for a push or a swap only, never across an await.
    queue: Mutex<Mail>,
    wake: Notify,
}

#[derive(Default)]
struct Mail {
    done: Vec<(u64, Completion)>,
    ready: Vec<u64>,
}

impl Sink {
    pub(crate) fn new() -> Self {
        Self { queue: Mutex::default(), wake: Notify::new() }
    }

    /// Tells the stream behind `ticket` to look for more.
    pub(crate) fn ready(&self, ticket: u64) {
        let mut mail = self.queue.lock();
        let was_empty = mail.done.is_empty() && mail.ready.is_empty();
        mail.ready.push(ticket);
        drop(mail);
        if was_empty {
            self.wake.notify_one();
        }
    }
}

impl CompletionSink for Sink {
    fn complete(&self, batch: &mut Vec<(u64, Completion)>) {
        if batch.is_empty() {
            return;
        }
        let mut mail = self.queue.lock();
        let was_empty = mail.done.is_empty() && mail.ready.is_empty();
        mail.done.append(batch);
        drop(mail);
        // Whoever finds mail waiting knows that its sender has woken the door already.
        if was_empty {
            self.wake.notify_one();
        }
    }
}

/// Why nobody answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The server's own limit for requests.
    Server,
    /// The deadline that the client sent.
    Client,
}

enum State {
    Free,
    Waiting(Option<Waker>),
    Done(Result<Completion, Expired>),
    /// One answer for many: the tickets that share it.
    Group(Vec<u64>),
    /// A stream; `true`: woken and not yet looked.
    Stream(bool, Option<Waker>),
}

struct Slot {
    /// Counts the uses of this place, so that an old ticket finds nothing.
    generation: u32,
    deadline: Option<(Instant, Expired)>,
    state: State,
}

#[derive(Default)]
struct Slab {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slab {
    fn insert(&mut self, state: State, deadline: Option<(Instant, Expired)>) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, deadline: None, state: State::Free });
            u32::try_from(self.slots.len() - 1).expect("a door does not hold 4 billion requests")
        });
        let slot = &mut self.slots[index as usize];
        slot.state = state;
        slot.deadline = deadline;
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    fn get(&mut self, ticket: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut((ticket & u64::from(u32::MAX)) as usize)?;
        (u64::from(slot.generation) == ticket >> 32).then_some(slot)
    }

    fn free(&mut self, ticket: u64) -> Option<State> {
        let slot = self.get(ticket)?;
        let state = std::mem::replace(&mut slot.state, State::Free);
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push((ticket & u64::from(u32::MAX)) as u32);
        Some(state)
    }
}

/// The requests and streams of one door that wait for something. Lives on the door's thread.
#[derive(Default)]
pub(crate) struct Slots {
    slab: RefCell<Slab>,
    /// Slots with a deadline; the sweeper sleeps for good while it is 0.
    timed: Cell<usize>,
    sweeper: Cell<Option<Waker>>,
}

impl Slots {
    /// Opens a slot for one answer that must come before `deadline`.
    pub(crate) fn open(self: &Rc<Self>, deadline: Instant, kind: Expired) -> Wait {
        let ticket = self.slab.borrow_mut().insert(State::Waiting(None), Some((deadline, kind)));
        self.count_timed();
        Wait { slots: Rc::clone(self), ticket }
    }

    /// Opens a slot whose one answer goes to all of `members`. It frees itself with the answer.
    pub(crate) fn open_group(&self, members: Vec<u64>, deadline: Instant) -> u64 {
        self.count_timed();
        self.slab.borrow_mut().insert(State::Group(members), Some((deadline, Expired::Server)))
    }

    /// Opens a slot that can be woken any number of times.
    pub(crate) fn open_stream(self: &Rc<Self>) -> StreamWake {
        let ticket = self.slab.borrow_mut().insert(State::Stream(false, None), None);
        StreamWake { slots: Rc::clone(self), ticket }
    }

    fn count_timed(&self) {
        self.timed.set(self.timed.get() + 1);
        if let Some(waker) = self.sweeper.take() {
            waker.wake();
        }
    }

    fn complete(&self, ticket: u64, result: Result<Completion, Expired>) {
        let mut slab = self.slab.borrow_mut();
        let Some(slot) = slab.get(ticket) else { return };
        match &mut slot.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                slot.state = State::Done(result);
                drop(slab);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Group(_) => {
                let Some(State::Group(members)) = slab.free(ticket) else { return };
                drop(slab);
                self.timed.set(self.timed.get() - 1);
                for member in members {
                    self.complete(member, result.clone());
                }
            }
            State::Done(_) | State::Stream(..) | State::Free => {}
        }
    }

    fn wake_stream(&self, ticket: u64) {
        let mut slab = self.slab.borrow_mut();
        let Some(Slot { state: State::Stream(woken, waker), .. }) = slab.get(ticket) else { return };
        *woken = true;
        let waker = waker.take();
        drop(slab);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes every stream, so that each looks at what has changed for all.
    pub(crate) fn wake_streams(&self) {
        let streams: Vec<u64> = {
            let slab = self.slab.borrow();
            let is_stream = |slot: &Slot| matches!(slot.state, State::Stream(..));
            let all = slab.slots.iter().enumerate().filter(|(_, slot)| is_stream(slot));
            all.map(|(index, slot)| u64::from(slot.generation) << 32 | index as u64).collect()
        };
        for ticket in streams {
            self.wake_stream(ticket);
        }
    }

    /// Answers everything whose deadline is not after `now`.
    fn sweep(&self, now: Instant) {
        let expired: Vec<(u64, Expired)> = {
            let slab = self.slab.borrow();
            let late = |(index, slot): (usize, &Slot)| {
                let (deadline, kind) = slot.deadline?;
                let waits = matches!(slot.state, State::Waiting(_) | State::Group(_));
                (waits && deadline <= now).then_some((u64::from(slot.generation) << 32 | index as u64, kind))
            };
            slab.slots.iter().enumerate().filter_map(late).collect()
        };
        for (ticket, kind) in expired {
            self.complete(ticket, Err(kind));
        }
    }

    /// Slots in use.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        let slab = self.slab.borrow();
        slab.slots.len() - slab.free.len()
    }
}

/// Streams that are woken before the door looks at its sockets and its mail again: a change that thousands watch must not keep
/// requests waiting until all have been told.
const STREAMS_IN_A_ROW: usize = 8;

/// Delivers the mail of `sink` to `slots`, forever.
pub(crate) async fn dispatch(sink: std::sync::Arc<Sink>, slots: Rc<Slots>) {
    let mut mail = Mail::default();
    let mut ready = VecDeque::new();
    loop {
        if ready.is_empty() {
            sink.wake.notified().await;
        } else {
            // Comes back when those who were woken have run, and the sockets were looked at.
            tokio::task::yield_now().await;
        }
        std::mem::swap(&mut *sink.queue.lock(), &mut mail);
        for (ticket, completion) in mail.done.drain(..) {
            slots.complete(ticket, Ok(completion));
        }
        ready.extend(mail.ready.drain(..));
        for ticket in ready.drain(..ready.len().min(STREAMS_IN_A_ROW)) {
            slots.wake_stream(ticket);
        }
    }
}

/// Ends waits whose deadline has passed, forever; `each` runs at every round.
pub(crate) async fn sweep(slots: Rc<Slots>, mut each: impl FnMut(Instant)) {
    loop {
        std::future::poll_fn(|cx| {
            if slots.timed.get() > 0 {
                return Poll::Ready(());
            }
            slots.sweeper.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        each(Instant::now());
        tokio::time::sleep(SWEEP_EVERY).await;
        slots.sweep(Instant::now());
    }
}

/// A pending answer. Dropping it gives the slot back.
pub(crate) struct Wait {
    slots: Rc<Slots>,
    ticket: u64,
}

impl Wait {
    /// What the node has to name when it answers.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }
}

impl Future for Wait {
    type Output = Result<Completion, Expired>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slab = self.slots.slab.borrow_mut();
        let slot = slab.get(self.ticket).expect("a slot lives as long as its wait");
        match &mut slot.state {
            State::Waiting(waker) => {
                match waker {
                    Some(known) => known.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            state @ State::Done(_) => match std::mem::replace(state, State::Waiting(None)) {
                State::Done(result) => Poll::Ready(result),
                _ => Poll::Pending,
            },
            State::Free | State::Group(_) | State::Stream(..) => Poll::Pending,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.slots.slab.borrow_mut().free(self.ticket);
        self.slots.timed.set(self.slots.timed.get() - 1);
    }
}

/// A stream's place among the slots: woken by [`Sink::ready`], any number of times.
pub(crate) struct StreamWake {
    slots: Rc<Slots>,
    ticket: u64,
}

impl StreamWake {
    /// What [`Sink::ready`] is called with.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Ready once for each time that the stream was woken since the last call.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slab = self.slots.slab.borrow_mut();
        let Some(Slot { state: State::Stream(woken, waker), .. }) = slab.get(self.ticket) else { return Poll::Pending };
        if std::mem::take(woken) {
            return Poll::Ready(());
        }
        match waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for StreamWake {
    fn drop(&mut self) {
        self.slots.slab.borrow_mut().free(self.ticket);
    }
}

#[cfg(test)]
#[path = "completions_test.rs"]
mod tests;
