//! How far a stream is, for clients that want to know without an event.
//!
//! A report of revision R promises that every event up to R was sent before it. The hub may still have batches in its queue that
//! the store has published, so a report waits until the hub has seen what the store had when the client asked.

use super::{Frame, HubCore, StreamId};
use crate::watch::frame::NO_WATCHER;
use crate::watch::registry::{State, Watcher, Wishes};

/// A report that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Barrier {
    stream: StreamId,
    /// Until the hub has seen this revision.
    revision: i64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One reply for the whole stream, if all of it is synced.
    Request,
    /// One reply for each watcher that wants it, is synced, and was sent nothing since the last tick.
    Tick,
}

impl HubCore {
    pub(super) fn progress_request(&mut self, id: StreamId) {
        self.add_barrier(id, Kind::Request);
    }

    pub(super) fn progress_tick(&mut self, id: StreamId) {
        self.add_barrier(id, Kind::Tick);
    }

    fn add_barrier(&mut self, stream: StreamId, kind: Kind) {
        let watched = self.stream_slots.get(&stream).is_some_and(|&slot| !self.stream(slot).watchers.is_empty());
        if !watched {
            return;
        }
        let mut barrier = Barrier { stream, revision: self.history.revision(), kind };
        if !self.waits(&mut barrier) {
            return;
        }
        // A client may ask without end while the hub is behind. The oldest report that waits is made when it is due; all
        // asked for later become one.
        let mut same = self.barriers.iter_mut().filter(|known| (known.stream, known.kind) == (stream, kind));
        match same.nth(1) {
            Some(last) => last.revision = barrier.revision,
            None => self.barriers.push(barrier),
        }
    }

    /// Makes the reports that have waited long enough.
    pub(super) fn pass_barriers(&mut self) {
        let mut barriers = std::mem::take(&mut self.barriers);
        barriers.retain_mut(|barrier| self.waits(barrier));
        self.barriers = barriers;
    }

    /// Makes the report if it is due. True: it must wait on.
    fn waits(&mut self, barrier: &mut Barrier) -> bool {
        if barrier.revision > self.seen {
            return true;
        }
        let Some(&slot) = self.stream_slots.get(&barrier.stream) else { return false };
        barrier.revision = self.reached(slot);
        let waits = barrier.revision > self.seen;
        if !waits {
            match barrier.kind {
                Kind::Request => self.report_stream(slot),
                Kind::Tick => self.report_watchers(slot),
            }
        }
        waits
    }

    /// The newest revision that a watcher of the stream has read from history: a report must not fall behind it.
    fn reached(&self, stream: u32) -> i64 {
        let watchers = self.stream(stream).watchers.values().map(|&slot| self.registry.get(slot));
        let ahead = watchers.filter(|watcher| watcher.state == State::Synced && watcher.next != watcher.start);
        ahead.map(|watcher| watcher.next - 1).max().unwrap_or(0)
    }

    fn report_stream(&mut self, stream: u32) {
        let state = self.stream(stream);
        let current = state.watchers.values().all(|&slot| self.is_current(self.registry.get(slot)));
        if current && !state.watchers.is_empty() && state.has_room() {
            self.answer(stream, Frame { watch_id: NO_WATCHER, revision: self.seen, ..Frame::default() });
        }
    }

    fn report_watchers(&mut self, stream: u32) {
        let watchers: Vec<u32> = self.stream(stream).watchers.values().copied().collect();
        for slot in watchers {
            let watcher = self.registry.get(slot);
            if !watcher.wishes.has(Wishes::PROGRESS) {
                continue;
            }
            if watcher.quiet && self.is_current(watcher) && self.stream(stream).has_room() {
                self.answer(stream, Frame { watch_id: watcher.id, revision: self.seen, ..Frame::default() });
            }
            self.registry.get_mut(slot).quiet = true;
        }
    }

    /// Was the watcher offered every event up to what the hub has seen, and does it begin by then?
    fn is_current(&self, watcher: &Watcher) -> bool {
        watcher.state == State::Synced && watcher.start <= self.seen
    }
}
