//! Long calls: what ends them, what they send, what they count.
//!
//! A stream is a future that reads requests from an [`Inlet`] and writes answers to an [`Outlet`]. It runs only while
//! hyper wants more to send: what a client does not read is not made either.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use milepost_mvcc::watch::{Frame, Heads};
use milepost_proto::Message;
use milepost_proto::etcdserverpb::ResponseHeader;

use super::Method;
use super::reply::StreamBody;
use super::wire::{self, Messages};
use crate::call::Call;
use crate::completions::StreamWake;
use crate::door::Door;
use crate::status::{self, Code, Status};

/// Bytes of answers that are gathered before the stream pauses: one TLS record, or four HTTP/2 frames.
const GATHER_BYTES: usize = 64 * 1024;
/// Events longer than this are sent as they are; shorter ones are copied behind their head.
const COPY_MAX: usize = 8 * 1024;

/// Counts one call; one that is dropped before its end was cancelled by the client.
pub(crate) struct Accounting {
    door: Rc<Door>,
    method: Method,
    started: Instant,
    /// Its number among the calls that are remembered; 0: none are.
    number: u64,
    is_open: bool,
}

impl Accounting {
    /// A call of `method` begins.
    pub(crate) fn start(door: &Rc<Door>, method: Method, started: Instant) -> Self {
        door.metrics.of(method).started.add(1);
        let number = door.page.recent.as_ref().map_or(0, |recent| recent.begin(method, started));
        Self { door: Rc::clone(door), method, started, number, is_open: true }
    }

    /// The call ends with `code`; returns how long it took.
    pub(crate) fn finish(&mut self, code: Code) -> Duration {
        let took = self.started.elapsed();
        if std::mem::take(&mut self.is_open) {
            self.door.metrics.handled(self.method, code, took);
            if let Some(recent) = &self.door.page.recent {
                recent.end(self.method, self.number, self.started + took, code);
            }
        }
        took
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        self.finish(Code::Canceled);
    }
}

/// Where a stream's requests come from: HTTP/2 frames, or JSON in whatever carries it.
pub(crate) trait Requests {
    /// The next encoded request; `None` once the client has half-closed.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>>;
}

impl<B: Body<Data = Bytes> + Unpin> Requests for Messages<B> {
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        self.poll_next(cx)
    }
}

/// Requests of one stream, decoded.
pub(crate) struct Inlet<Q> {
    requests: Box<dyn Requests>,
    door: Rc<Door>,
    method: Method,
    kind: PhantomData<Q>,
}

impl<Q: Message + Default> Inlet<Q> {
    pub(crate) fn new(requests: Box<dyn Requests>, door: &Rc<Door>, method: Method) -> Self {
        Self { requests, door: Rc::clone(door), method, kind: PhantomData }
    }

    /// Whose requests they are.
    pub(crate) fn door(&self) -> Rc<Door> {
        Rc::clone(&self.door)
    }

    /// The next request; `None` once the client has half-closed.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Q, Status>>> {
        let next = std::task::ready!(self.requests.poll_request(cx));
        Poll::Ready(next.map(|message| {
            let message = message?;
            self.door.metrics.received(self.method, message.len());
            wire::decode(message)
        }))
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Option<Result<Q, Status>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

/// Answers of one stream on their way to hyper. Clones are the same outlet.
#[derive(Clone)]
pub(crate) struct Outlet {
    chunks: Rc<RefCell<Chunks>>,
    door: Rc<Door>,
    method: Method,
}

#[derive(Default)]
struct Chunks {
    full: VecDeque<Bytes>,
    /// Behind everything in `full`.
    tail: BytesMut,
    bytes: usize,
}

impl Chunks {
    fn pop(&mut self) -> Option<Bytes> {
        // Its memory goes with it: what remained of a large burst's would stay for as long as the stream is idle.
        let tail = || (!self.tail.is_empty()).then(|| std::mem::take(&mut self.tail).freeze());
        let chunk = self.full.pop_front().or_else(tail)?;
        self.bytes -= chunk.len();
        Some(chunk)
    }
}

impl Outlet {
    /// Sends one message.
    pub(crate) fn send(&self, message: &impl Message) {
        let chunks = &mut *self.chunks.borrow_mut();
        let before = chunks.tail.len();
        wire::append(message, &mut chunks.tail);
        let sent = chunks.tail.len() - before;
        chunks.bytes += sent;
        self.door.metrics.sent(self.method, 1, sent - wire::PREFIX_BYTES);
    }

    /// Sends watch responses: their heads are encoded, their events are shared with everybody who gets the same.
    ///
    /// # Errors
    /// One of them is too long for a message; those before it are sent.
    pub(crate) fn send_frames(&self, header: &ResponseHeader, frames: &[Frame]) -> Result<(), Status> {
        let chunks = &mut *self.chunks.borrow_mut();
        let copied = |frame: &Frame| if frame.events.len() <= COPY_MAX { frame.events.len() } else { 0 };
        // Most often they fit into one piece of memory, made once.
        let room: usize = frames.iter().map(|frame| wire::PREFIX_BYTES + frame.head_bytes_max() + copied(frame)).sum();
        chunks.tail.reserve(room.min(GATHER_BYTES));
        let mut heads = Heads::new(header);
        let (mut sent, mut bytes) = (0, 0);
        let mut outcome = Ok(());
        for frame in frames {
            outcome = wire::check_length(frame.events.len() + frame.head_bytes_max());
            if outcome.is_err() {
                break;
            }
            let before = chunks.tail.len();
            chunks.tail.reserve(wire::PREFIX_BYTES + frame.head_bytes_max() + copied(frame));
            wire::put_prefix(0, &mut chunks.tail);
            heads.encode(frame, &mut chunks.tail);
            let length = chunks.tail.len() - before - wire::PREFIX_BYTES + frame.events.len();
            wire::set_length(&mut chunks.tail[before..], length);
            if copied(frame) == frame.events.len() {
                chunks.tail.extend_from_slice(&frame.events);
            } else {
                let tail = chunks.tail.split().freeze();
                chunks.full.extend([tail, frame.events.clone()]);
            }
            (sent, bytes) = (sent + 1, bytes + length);
        }
        chunks.bytes += bytes + usize::try_from(sent).expect("as many as there are") * wire::PREFIX_BYTES;
        self.door.metrics.sent(self.method, sent, bytes);
        outcome
    }

    /// Waits until everything has been handed to hyper.
    pub(crate) async fn drained(&self) {
        // No waker: the stream's future is polled whenever the outlet has been emptied.
        std::future::poll_fn(|_| if self.is_empty() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Waits if enough has been gathered. For streams that answer each request with one message.
    pub(crate) async fn pause_if_full(&self) {
        if self.chunks.borrow().bytes >= GATHER_BYTES {
            self.drained().await;
        }
    }

    fn is_empty(&self) -> bool {
        self.chunks.borrow().bytes == 0
    }

    fn pop(&self) -> Option<Bytes> {
        self.chunks.borrow_mut().pop()
    }
}

/// What a stream's future is given.
pub(crate) struct Stage {
    pub(crate) door: Rc<Door>,
    pub(crate) call: Rc<Call>,
    pub(crate) outlet: Outlet,
    /// Wakes the stream when called with [`crate::completions::Sink::ready`].
    pub(crate) ticket: u64,
}

/// A stream that is driven by hyper's wish for more.
pub(crate) struct Driven {
    door: Rc<Door>,
    call: Rc<Call>,
    wake: StreamWake,
    outlet: Outlet,
    accounting: Accounting,
    deadline: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Gone once it has ended; then `end` says how.
    future: Option<Pin<Box<dyn Future<Output = Status>>>>,
    end: Option<Status>,
}

impl Driven {
    /// Runs what `start` makes of the stage; its output is how the stream ends.
    pub(crate) fn start<F>(
        door: &Rc<Door>,
        method: Method,
        call: Call,
        accounting: Accounting,
        start: impl FnOnce(Stage) -> F,
    ) -> Pin<Box<dyn StreamBody>>
    where
        F: Future<Output = Status> + 'static,
    {
        let outlet = Outlet { chunks: Rc::default(), door: Rc::clone(door), method };
        let wake = door.slots.open_stream();
        let call = Rc::new(call);
        let stage =
            Stage { door: Rc::clone(door), call: Rc::clone(&call), outlet: outlet.clone(), ticket: wake.ticket() };
        let deadline = call.deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        let future: Pin<Box<dyn Future<Output = Status>>> = Box::pin(start(stage));
        Box::pin(Self {
            door: Rc::clone(door),
            call,
            wake,
            outlet,
            accounting,
            deadline,
            future: Some(future),
            end: None,
        })
    }

    /// Why the stream ends now although its future goes on, if so. Registers for the moment when that changes.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<Status> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Some(status::DEADLINE);
        }
        // A wake may concern this or the future: both look.
        while self.wake.poll(cx).is_ready() {}
        self.door.stream_end(&self.call)
    }

    fn finish(&mut self, status: Status) {
        self.accounting.finish(status.code);
        self.future = None;
        self.end = Some(status);
    }
}

impl StreamBody for Driven {
    fn poll_chunk(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        loop {
            if let Some(chunk) = self.outlet.pop() {
                return Poll::Ready(Ok(chunk));
            }
            if let Some(end) = self.end.take() {
                return Poll::Ready(Err(end));
            }
            if let Some(status) = self.poll_end(cx) {
                self.finish(status);
                continue;
            }
            let Some(future) = &mut self.future else { return Poll::Pending };
            match future.as_mut().poll(cx) {
                Poll::Ready(status) => self.finish(status),
                Poll::Pending if self.outlet.is_empty() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}
