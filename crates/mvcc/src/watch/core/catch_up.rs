//! The past, for those who missed it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use milepost_types::Revision;

use super::HubCore;
use crate::watch::Frame;
use crate::watch::registry::State;
use crate::{Record, StoreError};

/// The words for a watcher that ends because the store cannot be read. (etcd ends the process.)
const UNREADABLE: &str = "milepost: the history of the watched keys cannot be read";

/// Up to this many interests, each record is held against each of them; above, the tables are asked.
const COMPARED_MAX: usize = 4;

/// A piece of history: whole revisions.
struct Chunk {
    records: Vec<Arc<Record>>,
    /// Every change up to this revision is in there, from the revision asked for on.
    through: i64,
}

impl HubCore {
    /// Serves some of the watchers that are behind: cancels those whose past is compacted, or reads a piece of history and offers
    /// it to up to [`super::HubOptions::catch_up_watchers`] of them. The work of one call is bounded, so that live events can be
    /// stepped in between. Does nothing if nobody is behind.
    ///
    /// Turns are taken between those who miss little (one piece of history and they are there) and a sweep over all the others
    /// from the oldest revision up, which collects everybody on its way: a newcomer with a million revisions to read delays
    /// nobody who misses ten.
    pub fn catch_up(&mut self) {
        let newest = self.history.revision();
        let floor = self.history.compact_revision();
        if self.cancel_compacted(floor) {
            return;
        }
        let Some((from, sweeping)) = self.choose(newest) else { return };
        assert!(from <= newest, "a watcher waits for revision {from}, but the store went back to {newest}");
        let chunk = match self.read(from, newest) {
            _ if from < self.history.compact_revision() => return, // Compacted under our hands: the next call cancels.
            Ok(chunk) => chunk,
            Err(_) => return self.cancel_unreadable(from),
        };
        if sweeping {
            self.sweep = chunk.through + 1;
        }
        let members = self.members(from, chunk.through);
        self.match_past(&members, &chunk.records);
        for slot in members {
            self.offer_past(slot, newest, &chunk);
        }
        self.count_slow();
    }

    /// Where to read next, and whether that is the sweep's turn.
    fn choose(&mut self, newest: i64) -> Option<(i64, bool)> {
        let span = i64::try_from(self.options.catch_up_records).unwrap_or(i64::MAX);
        let nearly_there = self.unsynced.range((newest.saturating_sub(span) + 1, 0)..).next();
        self.near_turn = !self.near_turn;
        if let Some(&(near, _)) = nearly_there
            && self.near_turn
        {
            return Some((near, false));
        }
        let ahead = self.unsynced.range((self.sweep, 0)..).next();
        ahead.or(self.unsynced.first()).map(|&(next, _)| (next, true))
    }

    /// The watchers that wait for a revision in [from, through], so many as are served at once.
    fn members(&self, from: i64, through: i64) -> Vec<u32> {
        let waiting = self.unsynced.range((from, 0)..=(through, u32::MAX));
        waiting.take(self.options.catch_up_watchers).map(|&(_, slot)| slot).collect()
    }

    fn match_past(&mut self, members: &[u32], records: &[Arc<Record>]) {
        self.delivery.begin(records.len());
        for &slot in members {
            let interest = self.registry.get(slot).interest;
            self.delivery.touch(interest, self.registry.interests.get_mut(interest));
        }
        let compared = self.delivery.len() <= COMPARED_MAX;
        for (index, record) in records.iter().enumerate() {
            if compared {
                for number in 0..self.delivery.len() {
                    if self.registry.interests.get(self.delivery.interest(number)).contains(&record.key) {
                        self.delivery.concerns(number, index);
                    }
                }
            } else {
                let (interests, delivery) = (&self.registry.interests, &mut self.delivery);
                interests.matching(&record.key, &mut |slot| {
                    if let Some(number) = delivery.number(slot, interests.get(slot)) {
                        delivery.concerns(number, index);
                    }
                });
            }
        }
    }

    fn offer_past(&mut self, slot: u32, newest: i64, chunk: &Chunk) {
        let watcher = self.registry.get(slot);
        let (next, wishes, interest) = (watcher.next, watcher.wishes, watcher.interest);
        let number = self.delivery.number(interest, self.registry.interests.get(interest)).expect("touched above");
        let first = chunk.records.partition_point(|record| record.revision.main < next);
        let events = self.delivery.encoded(number, first, wishes, &chunk.records, &*self.history);
        self.unsynced.remove(&(next, slot));
        if events.count > 0 && !self.offer(slot, newest, events) {
            return self.park(slot, next);
        }
        let next = chunk.through + 1;
        if next > self.seen {
            // From here on the batches bring everything.
            self.registry.get_mut(slot).next = next;
            self.registry.set_state(slot, State::Synced);
        } else {
            self.fall_behind(slot, next);
        }
    }

    /// Whole revisions from `from` on, none above `newest`, as many as one reading may have but at least one.
    fn read(&self, from: i64, newest: i64) -> Result<Chunk, StoreError> {
        let (most, bytes) = (self.options.catch_up_records, self.options.catch_up_bytes);
        let mut records = self.history.history(Revision::new(from, 0), most, bytes)?;
        loop {
            let (Some(first), Some(last)) = (records.first(), records.last()) else {
                return Ok(Chunk { records, through: newest });
            };
            let (first, last) = (first.revision, last.revision);
            if last.main > newest {
                records.retain(|record| record.revision.main <= newest);
                return Ok(Chunk { records, through: newest });
            }
            let several = first.main < last.main;
            let cut = several && last.main < newest;
            let more = match cut {
                true => vec![],
                false => self.history.history(Revision::new(last.main, last.sub + 1), most, bytes)?,
            };
            match more.first().map(|record| record.revision.main) {
                // The last revision may not be whole: the next reading begins with it.
                _ if cut => return Ok(Chunk::before(records, last.main)),
                Some(main) if main == last.main && several => return Ok(Chunk::before(records, last.main)),
                // One revision with more changes than a reading has.
                Some(main) if main == last.main => records.extend(more),
                Some(main) => return Ok(Chunk { records, through: newest.min(main - 1) }),
                None => return Ok(Chunk { records, through: newest }),
            }
        }
    }

    /// Ends some of the watchers whose next revision lies below the compacted one. False if there are none.
    fn cancel_compacted(&mut self, floor: i64) -> bool {
        let mut some = false;
        for _ in 0..self.options.catch_up_watchers {
            let Some(&(next, slot)) = self.unsynced.first() else { break };
            if next >= floor {
                break;
            }
            some = true;
            if !self.end_watcher(slot, Frame { compact_revision: floor, ..Frame::default() }) {
                self.unsynced.remove(&(next, slot));
                self.park(slot, next);
            }
        }
        some
    }

    /// Ends those who wait for exactly what could not be read; others may have better luck.
    fn cancel_unreadable(&mut self, from: i64) {
        self.counters.history_failures.fetch_add(1, Ordering::Relaxed);
        for slot in self.members(from, from) {
            let revision = self.history.revision();
            if !self.end_watcher(slot, Frame { revision, cancel_reason: UNREADABLE, ..Frame::default() }) {
                self.unsynced.remove(&(from, slot));
                self.park(slot, from);
            }
        }
    }
}

impl Chunk {
    /// Only what precedes revision `main`.
    fn before(mut records: Vec<Arc<Record>>, main: i64) -> Self {
        records.retain(|record| record.revision.main < main);
        Self { records, through: main - 1 }
    }
}
