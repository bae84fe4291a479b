//! What a client asks for: watchers to be, and watchers to be no more.

use std::sync::atomic::Ordering;

use super::{CreateRequest, Frame, HubCore, StreamId};
use crate::watch::frame::NO_WATCHER;
use crate::watch::registry::{State, Watcher, Wishes};

/// Why a create is refused, in etcd's words.
mod reason {
    /// A negative start revision. The words are those of a compacted one.
    pub const NEGATIVE_START: &str = "etcdserver: mvcc: required revision has been compacted";
    pub const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
    pub const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
}

impl HubCore {
    /// Answers first, so that the answer precedes every event. Source: etcd `serverWatchStream.recvLoop`, `watchableStore.watch`.
    pub(super) fn create(&mut self, id: StreamId, request: CreateRequest) {
        let Some(&stream) = self.stream_slots.get(&id) else {
            self.ended += 1;
            return;
        };
        // Everything published later than this will arrive as a batch: see the fences in `Hub`.
        let revision = self.history.revision();
        if self.registry.len() == 0 {
            // Batches may have been withheld while nobody watched. Nobody who is synced wants them.
            self.seen = self.seen.max(revision);
        }
        let watch_id = match self.admit(stream, &request) {
            Ok(watch_id) => watch_id,
            Err(reason) => {
                self.ended += 1;
                return self.refuse(id, reason);
            }
        };
        self.answer(stream, Frame { watch_id, revision, created: true, ..Frame::default() });
        let next = if request.start_revision == 0 { revision + 1 } else { request.start_revision };
        let state = if next > revision { State::Synced } else { State::Unsynced };
        let wishes = Wishes::default()
            .with(Wishes::NO_PUT, request.no_put)
            .with(Wishes::NO_DELETE, request.no_delete)
            .with(Wishes::PREV_KV, request.prev_kv)
            .with(Wishes::FRAGMENT, request.fragment)
            .with(Wishes::PROGRESS, request.progress_notify);
        let watcher = Watcher::new(watch_id, stream, next, request.start_revision, state, wishes);
        let slot = self.registry.add(watcher, request.first_key(), &request.range_end);
        self.stream_mut(stream).watchers.insert(watch_id, slot);
        self.counters.watchers.store(self.registry.len() as u64, Ordering::Relaxed);
        if state == State::Unsynced {
            self.fall_behind(slot, next);
        }
    }

    /// The id of the watcher-to-be, or why it cannot be.
    fn admit(&mut self, stream: u32, request: &CreateRequest) -> Result<i64, &'static str> {
        if request.start_revision < 0 {
            return Err(reason::NEGATIVE_START);
        }
        if request.is_empty_range() {
            return Err(reason::EMPTY_RANGE);
        }
        let stream = self.stream_mut(stream);
        let taken = |id: i64| stream.watchers.contains_key(&id) || stream.spent.contains(&id);
        if request.watch_id != 0 {
            return if taken(request.watch_id) { Err(reason::DUPLICATE_ID) } else { Ok(request.watch_id) };
        }
        let mut id = stream.next_id;
        while taken(id) {
            id += 1;
        }
        stream.next_id = id + 1;
        Ok(id)
    }

    /// Answers a create that cannot be.
    pub(super) fn refuse(&mut self, id: StreamId, cancel_reason: &'static str) {
        let Some(&stream) = self.stream_slots.get(&id) else { return };
        let revision = self.history.revision();
        let frame =
            Frame { watch_id: NO_WATCHER, revision, created: true, canceled: true, cancel_reason, ..Frame::default() };
        self.answer(stream, frame);
    }

    /// Ends a watcher. What was offered before still precedes the answer; an id that nobody has is met with silence.
    pub(super) fn cancel(&mut self, id: StreamId, watch_id: i64) {
        let Some(&stream) = self.stream_slots.get(&id) else { return };
        let state = self.stream_mut(stream);
        match state.watchers.get(&watch_id).copied() {
            Some(slot) => self.forget(slot),
            None if state.spent.remove(&watch_id) => {}
            None => return,
        }
        let revision = self.history.revision();
        self.answer(stream, Frame { watch_id, revision, canceled: true, ..Frame::default() });
    }

    /// Ends a watcher that cannot go on, with `frame` as its last word. False: its stream has no room for that.
    pub(super) fn end_watcher(&mut self, slot: u32, frame: Frame) -> bool {
        let watcher = self.registry.get(slot);
        let (stream, watch_id) = (watcher.stream, watcher.id);
        if !self.stream(stream).has_room() {
            return false;
        }
        self.forget(slot);
        self.stream_mut(stream).spent.insert(watch_id);
        self.answer(stream, Frame { watch_id, canceled: true, ..frame });
        true
    }

    /// Removes every trace of a watcher.
    pub(super) fn forget(&mut self, slot: u32) {
        let Watcher { id, next, stream, state, .. } = *self.registry.get(slot);
        let owner = self.stream_mut(stream);
        owner.watchers.remove(&id);
        match state {
            State::Synced => {}
            State::Parked => {
                owner.parked.remove(&(next, slot));
                self.parked -= 1;
            }
            State::Unsynced => {
                self.unsynced.remove(&(next, slot));
            }
        }
        self.registry.remove(slot);
        self.ended += 1;
        self.count_slow();
        self.counters.watchers.store(self.registry.len() as u64, Ordering::Relaxed);
    }
}
