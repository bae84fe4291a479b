//! Streams: opening, closing, and handing frames over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Frame, HubCore, Outbox, StreamId, StreamOptions};

/// One stream, as the core knows it.
pub(super) struct StreamState {
    pub outbox: Arc<Outbox>,
    pub options: StreamOptions,
    /// Watch id to slot.
    pub watchers: BTreeMap<i64, u32>,
    /// Ids of watchers that the hub ended, and that their owner has not cancelled since. They stay taken, and cancelling them is
    /// answered, as in etcd.
    pub spent: BTreeSet<i64>,
    /// Where the search for the next automatic id begins. Only rises.
    pub next_id: i64,
    /// (next, slot) of watchers that wait for room.
    pub parked: BTreeSet<(i64, u32)>,
    staged: Vec<Frame>,
    staged_bytes: usize,
    dirty: bool,
}

impl StreamState {
    /// May events be added? Yes while the bounds are not reached, and always if nothing waits.
    pub fn has_room(&self) -> bool {
        self.outbox.has_room(self.staged.len(), self.staged_bytes)
    }

    pub fn stage(&mut self, frame: Frame) {
        self.staged_bytes += frame.cost();
        self.staged.push(frame);
    }

    pub fn memory_bytes(&self) -> usize {
        // A B-tree that grew in order is half full.
        let ids = self.watchers.len() * 2 * size_of::<(i64, u32)>() + self.spent.len() * 2 * size_of::<i64>();
        ids + self.parked.len() * 2 * size_of::<(i64, u32)>() + self.staged.capacity() * size_of::<Frame>()
    }
}

impl HubCore {
    pub(super) fn open(&mut self, id: StreamId, outbox: Arc<Outbox>, options: StreamOptions) {
        let state = StreamState {
            outbox,
            options,
            watchers: BTreeMap::new(),
            spent: BTreeSet::new(),
            next_id: 0,
            parked: BTreeSet::new(),
            staged: Vec::new(),
            staged_bytes: 0,
            dirty: false,
        };
        let slot = match self.free_streams.pop() {
            Some(slot) => {
                self.streams[slot as usize] = Some(state);
                slot
            }
            None => {
                self.streams.push(Some(state));
                u32::try_from(self.streams.len() - 1).expect("fewer than four thousand million streams")
            }
        };
        let before = self.stream_slots.insert(id, slot);
        assert!(before.is_none(), "stream {id:?} was opened twice");
        self.counters.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn close(&mut self, id: StreamId) {
        let Some(slot) = self.stream_slots.remove(&id) else { return };
        let watchers: Vec<u32> = self.stream(slot).watchers.values().copied().collect();
        for watcher in watchers {
            self.forget(watcher);
        }
        self.streams[slot as usize] = None;
        self.free_streams.push(slot);
        self.counters.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes every staged frame visible to its stream's owner; each is woken at most once until it takes. Nobody is woken before
    /// all is there: owners of many streams go through them in one turn, instead of waiting for the next one after each.
    pub fn flush(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        let mut to_wake = std::mem::take(&mut self.to_wake);
        for slot in dirty {
            let Some(stream) = self.streams[slot as usize].as_mut() else { continue };
            if !std::mem::take(&mut stream.dirty) {
                continue;
            }
            let held_back = !stream.parked.is_empty();
            let pushed = stream.outbox.push(&mut stream.staged, held_back);
            stream.staged_bytes = 0;
            if pushed.wake {
                to_wake.push(slot);
            }
            if stream.staged.capacity() > Outbox::KEPT_CAPACITY {
                stream.staged = Vec::new();
            }
            // Nothing waits, so nobody would tell us of room; there is some.
            if held_back && !pushed.waiting {
                self.unpark(slot);
            }
        }
        for slot in to_wake.drain(..) {
            self.stream(slot).outbox.wake();
        }
        self.to_wake = to_wake;
        self.delivered += self.staged;
        self.staged = 0;
    }

    pub(super) fn drained(&mut self, id: StreamId) {
        if let Some(&slot) = self.stream_slots.get(&id) {
            self.unpark(slot);
        }
    }

    /// Lets the parked watchers of a stream that are furthest behind catch up: as many as can have a reply each. The others stay,
    /// and the stream stays under watch until the next flush has decided who will wake them.
    fn unpark(&mut self, slot: u32) {
        let most = self.options.bounds.frames.max(1);
        for _ in 0..most {
            let Some((next, watcher)) = self.stream_mut(slot).parked.pop_first() else { break };
            self.parked -= 1;
            self.fall_behind(watcher, next);
        }
        self.mark_dirty(slot);
    }

    /// Tells every stream that nothing will follow.
    pub fn end(&mut self) {
        self.flush();
        for stream in self.streams.iter().flatten() {
            stream.outbox.end();
        }
    }

    pub(super) fn mark_dirty(&mut self, slot: u32) {
        let stream = self.streams[slot as usize].as_mut().expect("an open stream");
        if !std::mem::replace(&mut stream.dirty, true) {
            self.dirty.push(slot);
        }
    }

    pub(super) fn stream(&self, slot: u32) -> &StreamState {
        self.streams[slot as usize].as_ref().expect("an open stream")
    }

    pub(super) fn stream_mut(&mut self, slot: u32) -> &mut StreamState {
        self.streams[slot as usize].as_mut().expect("an open stream")
    }
}
