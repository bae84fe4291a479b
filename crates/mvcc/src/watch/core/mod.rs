//! The deciding half of the hub: a function of (state, input), with frames in outboxes as its output.

mod catch_up;
mod live;
mod progress;
mod requests;
mod streams;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::delivery::Delivery;
use super::encode::{Encoded, fragments};
use super::outbox::{Bounds, Outbox};
use super::registry::{Registry, State, Wishes};
use super::stats::Counters;
use super::{CreateRequest, Frame, History};
use crate::EventBatch;
use progress::Barrier;
use streams::StreamState;

/// A stream, as its owner and the hub call it. Never used twice in a hub's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What differs from stream to stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Replies of this many bytes or more are cut into fragments for watchers that asked for it. etcd: the largest request
    /// plus 512 KiB.
    pub max_response_bytes: usize,
}

impl Default for StreamOptions {
    /// etcd's 1.5 MiB for requests, and 512 KiB.
    fn default() -> Self {
        Self { max_response_bytes: 2 << 20 }
    }
}

/// How much the hub does at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubOptions {
    /// How much a stream may have waiting before its watchers fall behind.
    pub bounds: Bounds,
    /// Watchers served by one reading of the past. As etcd's `maxWatchersPerSync`.
    pub catch_up_watchers: usize,
    /// Records in one reading, unless a single revision has more. Also the most revisions in one reply; as etcd's
    /// `watchBatchMaxRevs`. Smaller: live events wait less behind a reading; larger: fewer, better filled replies.
    pub catch_up_records: usize,
    /// Bytes of one reading, about.
    pub catch_up_bytes: usize,
    /// Batches that may wait for the hub's thread. When there are more they are dropped and everybody catches up from history:
    /// the writer never waits, and memory is bounded by this many batches.
    pub queue_batches: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            bounds: Bounds::default(),
            catch_up_watchers: 512,
            catch_up_records: 1000,
            catch_up_bytes: 1 << 20,
            queue_batches: 16_384,
        }
    }
}

/// What can happen to a hub.
#[derive(Clone, Debug)]
pub enum Input {
    /// A log entry changed the keyspace; the store has published it. In order of revision.
    Batch(Arc<EventBatch>),
    /// Batches were lost, or the store's content was replaced: what was seen so far is no ground to stand on.
    Invalidate,
    /// A stream begins.
    Open(StreamId, Arc<Outbox>, StreamOptions),
    /// Its owner wants a watcher.
    Create(StreamId, CreateRequest),
    /// Its owner wants a watcher no more.
    Cancel(StreamId, i64),
    /// A create was found wanting before it came here: answer it with this reason.
    Refuse(StreamId, &'static str),
    /// Its owner wants to know how far the stream is.
    ProgressRequest(StreamId),
    /// The stream's progress timer has fired.
    ProgressTick(StreamId),
    /// [`Outbox::take`] said that the hub had held something back.
    Drained(StreamId),
    /// Its owner is gone.
    Close(StreamId),
}

/// The watch hub without its thread.
///
/// Feed it with [`HubCore::step`], let it do a bounded piece of catching up with [`HubCore::catch_up`], and make what it has
/// produced visible in the outboxes with [`HubCore::flush`]. Same inputs and same history, same frames.
///
/// Invariants ([`HubCore::check`]):
/// - `seen` never goes back and never passes the store's revision. While there is a watcher, every batch above `seen` arrives
///   (or [`Input::Invalidate`] does).
/// - A synced watcher has been offered every event in [its start, `seen`]; `next` only says what it must not be offered
///   (again). An unsynced or parked one has been offered every event in [its start, `next`), and `next` is published.
/// - Unsynced watchers are exactly those in `unsynced`, parked ones those in their stream's `parked`, each under its `next`.
pub struct HubCore {
    history: Arc<dyn History>,
    counters: Arc<Counters>,
    options: HubOptions,
    registry: Registry,
    /// By slot, with gaps.
    streams: Vec<Option<StreamState>>,
    free_streams: Vec<u32>,
    stream_slots: HashMap<StreamId, u32>,
    delivery: Delivery,
    /// Interests found for one record; empty between uses.
    hits: Vec<u32>,
    /// The newest revision that synced watchers have been offered.
    seen: i64,
    /// (next, slot) of the watchers that history must be read for and that have room.
    unsynced: BTreeSet<(i64, u32)>,
    /// How many are parked, in all streams.
    parked: usize,
    /// Where the reading that serves the far ones goes on.
    sweep: i64,
    /// The next reading serves those that are nearly there.
    near_turn: bool,
    barriers: Vec<Barrier>,
    /// Slots of streams that the next flush must look at.
    dirty: Vec<u32>,
    /// Streams whose owners the flush under way will wake; empty between flushes.
    to_wake: Vec<u32>,
    /// Frames that wait for the next flush.
    staged: usize,
    /// Frames flushed; see [`HubCore::take_delivered`].
    delivered: usize,
    /// Create requests whose watcher is no more, or never was; see [`HubCore::take_ended`].
    ended: usize,
}

/// Frames that are produced before they are made visible, at most (about): so that a burst of batches or a popular key does not
/// pile up in two places.
const STAGED_MAX: usize = 16_384;

impl HubCore {
    /// A hub without streams over `history`.
    #[must_use]
    pub fn new(history: Arc<dyn History>, options: HubOptions, counters: Arc<Counters>) -> Self {
        Self {
            seen: history.revision(),
            history,
            counters,
            options,
            registry: Registry::default(),
            streams: Vec::new(),
            free_streams: Vec::new(),
            stream_slots: HashMap::new(),
            delivery: Delivery::default(),
            hits: Vec::new(),
            unsynced: BTreeSet::new(),
            parked: 0,
            sweep: 0,
            near_turn: false,
            barriers: Vec::new(),
            dirty: Vec::new(),
            to_wake: Vec::new(),
            staged: 0,
            delivered: 0,
            ended: 0,
        }
    }

    /// Takes one input in.
    pub fn step(&mut self, input: Input) {
        match input {
            Input::Batch(batch) => self.live(&batch),
            Input::Invalidate => self.invalidate(),
            Input::Open(id, outbox, options) => self.open(id, outbox, options),
            Input::Create(id, request) => self.create(id, request),
            Input::Cancel(id, watcher) => self.cancel(id, watcher),
            Input::Refuse(id, reason) => self.refuse(id, reason),
            Input::ProgressRequest(id) => self.progress_request(id),
            Input::ProgressTick(id) => self.progress_tick(id),
            Input::Drained(id) => self.drained(id),
            Input::Close(id) => self.close(id),
        }
        if self.staged >= STAGED_MAX {
            self.flush();
        }
    }

    /// Is there something for [`HubCore::catch_up`] to do?
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// How many create requests came to an end since this was last asked: refused, cancelled, or gone with their stream. What was
    /// asked for minus this is what the hub holds, so the writer can tell that nobody watches.
    pub fn take_ended(&mut self) -> usize {
        std::mem::take(&mut self.ended)
    }

    /// How many frames were made visible since this was last asked.
    pub fn take_delivered(&mut self) -> usize {
        std::mem::take(&mut self.delivered)
    }

    /// Bytes held for watchers and streams, an estimate; what waits in outboxes apart.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let streams: usize = self.streams.iter().flatten().map(StreamState::memory_bytes).sum();
        let slots = self.streams.capacity() * size_of::<Option<StreamState>>();
        // A B-tree's nodes are half full at worst.
        let unsynced = self.unsynced.len() * 2 * size_of::<(i64, u32)>();
        self.registry.memory_bytes() + streams + slots + unsynced
    }

    /// Panics if an invariant does not hold. Walks everything: for tests.
    pub fn check(&self) {
        self.registry.check();
        let revision = self.history.revision();
        assert!(self.seen <= revision, "seen {} but the store is at {revision}", self.seen);
        let (mut unsynced, mut parked) = (0, 0);
        for slot in self.registry.live_slots() {
            let watcher = self.registry.get(slot);
            let stream = self.streams[watcher.stream as usize].as_ref().expect("a watcher has a stream");
            assert_eq!(stream.watchers.get(&watcher.id), Some(&slot), "its stream knows watcher {slot}");
            let place = (watcher.next, slot);
            assert_eq!(self.unsynced.contains(&place), watcher.state == State::Unsynced, "watcher {slot}");
            assert_eq!(stream.parked.contains(&place), watcher.state == State::Parked, "watcher {slot}");
            if watcher.state != State::Synced {
                assert!(watcher.next <= revision, "watcher {slot} is behind at {} of {revision}", watcher.next);
            }
            unsynced += usize::from(watcher.state == State::Unsynced);
            parked += usize::from(watcher.state == State::Parked);
        }
        assert_eq!((unsynced, parked), (self.unsynced.len(), self.parked));
        let owned: usize = self.streams.iter().flatten().map(|stream| stream.watchers.len()).sum();
        assert_eq!(owned, self.registry.len(), "a watcher has one stream");
        assert_eq!(parked, self.streams.iter().flatten().map(|stream| stream.parked.len()).sum::<usize>());
    }

    /// Offers events to a watcher, as one reply or, if it asked for that, in fragments. False: its stream has no room.
    fn offer(&mut self, slot: u32, revision: i64, events: Encoded) -> bool {
        let watcher = self.registry.get_mut(slot);
        let stream = self.streams[watcher.stream as usize].as_mut().expect("a watcher has a stream");
        if !stream.has_room() {
            return false;
        }
        watcher.quiet = false;
        let reply = Frame { watch_id: watcher.id, revision, ..Frame::default() };
        if watcher.wishes.has(Wishes::FRAGMENT) {
            let pieces = fragments(events, HEAD_BYTES, stream.options.max_response_bytes);
            let last = pieces.len() - 1;
            for (index, piece) in pieces.into_iter().enumerate() {
                let fragment = index < last;
                let frame = Frame { fragment, events: piece.events, event_count: piece.count, ..reply.clone() };
                stream.stage(frame);
                self.staged += 1;
            }
        } else {
            stream.stage(Frame { events: events.events, event_count: events.count, ..reply });
            self.staged += 1;
        }
        let stream = self.registry.get(slot).stream;
        self.mark_dirty(stream);
        true
    }

    /// Adds a frame that is not subject to the bounds: an answer to a request.
    fn answer(&mut self, stream: u32, frame: Frame) {
        let state = self.streams[stream as usize].as_mut().expect("an open stream");
        state.stage(frame);
        self.staged += 1;
        self.mark_dirty(stream);
    }

    /// Puts a watcher among those that history is read for, from `next` on.
    fn fall_behind(&mut self, slot: u32, next: i64) {
        self.registry.get_mut(slot).next = next;
        self.registry.set_state(slot, State::Unsynced);
        self.unsynced.insert((next, slot));
        self.count_slow();
    }

    /// Puts a watcher aside until its stream has room; `next` is the first revision it was not offered.
    fn park(&mut self, slot: u32, next: i64) {
        let watcher = self.registry.get_mut(slot);
        watcher.next = next;
        let stream = watcher.stream;
        self.registry.set_state(slot, State::Parked);
        self.streams[stream as usize].as_mut().expect("a watcher has a stream").parked.insert((next, slot));
        self.parked += 1;
        self.mark_dirty(stream);
        self.count_slow();
    }

    fn count_slow(&self) {
        self.counters.slow_watchers.store((self.unsynced.len() + self.parked) as u64, Ordering::Relaxed);
    }
}

/// What a reply holds besides its events, about: cluster and member id are 64-bit hashes, a tag and nine or ten bytes each; then
/// revision, term, watch id and the fragment flag.
const HEAD_BYTES: usize = 40;
