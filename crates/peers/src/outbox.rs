//! Messages that wait for a stream, and the stream that takes them.
//!
//! ```text
//!  Raft thread ── push ──► [queue] ──► Outgoing (the body of the answer to the other's GET) ──► socket
//! ```
//! The queue is bounded by count and bytes; when it is full, messages are dropped and the sender is told: Raft then
//! probes. A stream whose other end takes nothing for [`Patience::write`] is hung up.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use milepost_proto::{Message, raftpb};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use crate::framing::{Encoder, Kind};
use crate::metrics::Row;
use crate::transport::Patience;

/// Messages that may wait. Source: etcd `streamBufSize`.
const QUEUE_MAX: usize = 4096;
/// Bytes that may wait; etcd has the count alone.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Messages are put together up to this.
const CHUNK_BYTES: usize = 256 << 10;
/// How often it is looked at whether the other end takes something.
const LOOK: Duration = Duration::from_secs(1);

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No stream.
    NoStream,
    /// Too much waits.
    Full,
}

/// What waits for one stream.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Held for moments, by the Raft thread too; never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<raftpb::Message>,
    bytes: usize,
    line: Option<Line>,
    /// Numbers streams: an old one must not take what is meant for its successor.
    last: u64,
}

struct Line {
    number: u64,
    waker: Option<Waker>,
    hang_up: Arc<Notify>,
}

impl Outbox {
    /// Takes `message`, or gives it back.
    pub(crate) fn push(&self, message: raftpb::Message) -> Option<(Refusal, raftpb::Message)> {
        let bytes = message.encoded_len();
        let waker = {
            let mut state = self.state.lock();
            if state.line.is_none() {
                return Some((Refusal::NoStream, message));
            }
            let fits = state.queue.len() < QUEUE_MAX && state.bytes + bytes <= QUEUE_BYTES_MAX;
            // One that is larger than everything that may wait goes alone.
            if !fits && !state.queue.is_empty() {
                return Some((Refusal::Full, message));
            }
            state.queue.push_back(message);
            state.bytes += bytes;
            state.line.as_mut().and_then(|line| line.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        None
    }

    /// Makes a new stream the only one. Whether an old one was cut off, and whether messages were lost with it.
    fn attach(&self, hang_up: Arc<Notify>) -> (u64, Cut) {
        let mut state = self.state.lock();
        let cut = state.cut();
        state.last += 1;
        let number = state.last;
        state.line = Some(Line { number, waker: None, hang_up });
        (number, cut)
    }

    /// Ends the stream with `number`, if it is still the one.
    fn detach(&self, number: u64) -> Option<Cut> {
        let mut state = self.state.lock();
        (state.line.as_ref()?.number == number).then(|| state.cut())
    }

    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().line.is_some()
    }

    /// Ends whatever stream there is.
    pub(crate) fn close(&self) {
        self.state.lock().cut();
    }
}

/// What ended with a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// There was one.
    pub(crate) was_open: bool,
    /// Messages were waiting for it.
    pub(crate) lost_messages: bool,
}

impl State {
    fn cut(&mut self) -> Cut {
        let lost_messages = !self.queue.is_empty();
        self.queue.clear();
        self.bytes = 0;
        let Some(line) = self.line.take() else { return Cut { was_open: false, lost_messages } };
        line.hang_up.notify_one();
        if let Some(waker) = line.waker {
            waker.wake();
        }
        Cut { was_open: true, lost_messages }
    }
}

/// What has been made for the socket and is not written yet.
#[derive(Default)]
struct Unwritten {
    bytes: AtomicUsize,
    /// Grows whenever something was written.
    progress: AtomicU64,
}

struct Chunk {
    bytes: Bytes,
    unwritten: Arc<Unwritten>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.unwritten.progress.fetch_add(1, Ordering::Relaxed);
        self.unwritten.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Told when a stream ends by itself.
pub(crate) type OnEnd = Box<dyn FnOnce(Cut) + Send + Sync>;

/// The body of an answer that never ends.
pub(crate) struct Outgoing {
    outbox: Arc<Outbox>,
    number: u64,
    encoder: Encoder,
    kind: Kind,
    /// How often the stream says that it is alive. Source: etcd `ConnReadTimeout / 3`.
    heartbeat: Duration,
    beat: Pin<Box<Sleep>>,
    unwritten: Arc<Unwritten>,
    row: Arc<Row>,
    on_end: Option<OnEnd>,
}

impl Outgoing {
    /// Takes over `outbox`; `hang_up` closes the connection that this is sent over. Must be made on the runtime that
    /// polls it.
    pub(crate) fn attach(
        outbox: &Arc<Outbox>,
        kind: Kind,
        patience: Patience,
        hang_up: &Arc<Notify>,
        row: Arc<Row>,
        on_end: OnEnd,
    ) -> (Self, Cut) {
        let (number, cut) = outbox.attach(Arc::clone(hang_up));
        let unwritten = Arc::<Unwritten>::default();
        tokio::spawn(watch(Arc::downgrade(&unwritten), patience.write, Arc::clone(hang_up)));
        let heartbeat = patience.read / 3;
        let outgoing = Self {
            outbox: Arc::clone(outbox),
            number,
            encoder: Encoder::new(kind),
            kind,
            heartbeat,
            beat: Box::pin(sleep(heartbeat)),
            unwritten,
            row,
            on_end: Some(on_end),
        };
        (outgoing, cut)
    }

    /// Messages in the order in which they came, as many as fit a chunk; `None`: this is no longer the stream.
    fn take(&self, cx: &Context<'_>) -> Option<Vec<raftpb::Message>> {
        let mut state = self.outbox.state.lock();
        let line = state.line.as_mut().filter(|line| line.number == self.number)?;
        line.waker = Some(cx.waker().clone());
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < CHUNK_BYTES
            && let Some(message) = state.queue.pop_front()
        {
            bytes += message.encoded_len();
            taken.push(message);
        }
        state.bytes = if state.queue.is_empty() { 0 } else { state.bytes.saturating_sub(bytes) };
        Some(taken)
    }

    fn frame(&self, out: BytesMut) -> Frame<Bytes> {
        self.row.sent_bytes.add(out.len());
        self.unwritten.bytes.fetch_add(out.len(), Ordering::Relaxed);
        Frame::data(Bytes::from_owner(Chunk { bytes: out.freeze(), unwritten: Arc::clone(&self.unwritten) }))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(messages) = self.take(cx) else { return Poll::Ready(None) };
        let mut out = BytesMut::new();
        for message in &messages {
            self.encoder.put(message, &mut out);
        }
        if self.beat.as_mut().poll(cx).is_ready() {
            self.encoder.put_heartbeat(&mut out);
            self.beat = Box::pin(sleep(self.heartbeat));
            // It must wake us as well.
            let _ = self.beat.as_mut().poll(cx);
        }
        if out.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(self.frame(out)))) }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let (Some(cut), Some(on_end)) = (self.outbox.detach(self.number), self.on_end.take()) {
            on_end(cut);
        }
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.number)
    }
}

/// Hangs up when the other end takes nothing; ends with the stream.
async fn watch(unwritten: std::sync::Weak<Unwritten>, patience: Duration, hang_up: Arc<Notify>) {
    let (mut seen, mut still) = (0, Duration::ZERO);
    loop {
        sleep(LOOK).await;
        let Some(unwritten) = unwritten.upgrade() else { return };
        let progress = unwritten.progress.load(Ordering::Relaxed);
        let is_stuck = unwritten.bytes.load(Ordering::Relaxed) > 0 && progress == seen;
        seen = progress;
        still = if is_stuck { still + LOOK } else { Duration::ZERO };
        if still >= patience {
            return hang_up.notify_one();
        }
    }
}
