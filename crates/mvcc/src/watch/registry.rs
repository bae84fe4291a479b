//! Who watches: every watcher, and its seat in the interest it shares with others.

use super::interest::Interests;
use super::slots::Slots;

/// Where a watcher stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Receives changes as they happen, from revision `next` on.
    Synced,
    /// Is behind: history from `next` on must be read for it.
    Unsynced,
    /// Is behind, and its stream has no room.
    Parked,
}

/// What a watcher asked for, in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Wishes(u8);

impl Wishes {
    pub const NO_PUT: Self = Self(1);
    pub const NO_DELETE: Self = Self(2);
    pub const PREV_KV: Self = Self(4);
    pub const FRAGMENT: Self = Self(8);
    pub const PROGRESS: Self = Self(16);
    /// Those that decide the bytes of its events.
    const OF_EVENTS: u8 = 7;

    #[must_use]
    pub const fn with(self, wish: Self, on: bool) -> Self {
        if on { Self(self.0 | wish.0) } else { self }
    }

    pub const fn has(self, wish: Self) -> bool {
        self.0 & wish.0 != 0
    }

    /// Only what decides the bytes of its events.
    pub const fn of_events(self) -> Self {
        Self(self.0 & Self::OF_EVENTS)
    }
}

/// One watcher. There may be a million of them: kept small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watcher {
    /// Its number in its stream.
    pub id: i64,
    /// Changes below this revision are not for it (any more). For a synced watcher it may lag behind what the hub has seen;
    /// it never goes back.
    pub next: i64,
    /// The revision it asked to start at; zero: the first after its creation.
    pub start: i64,
    /// Slot of its stream.
    pub stream: u32,
    pub interest: u32,
    /// Its place in the interest's members.
    seat: u32,
    pub state: State,
    pub wishes: Wishes,
    /// Nothing was sent since the last progress tick, so the next one reports progress.
    pub quiet: bool,
}

impl Watcher {
    /// A watcher that has no seat yet; see [`Registry::add`].
    pub const fn new(id: i64, stream: u32, next: i64, start: i64, state: State, wishes: Wishes) -> Self {
        Self { id, next, start, stream, interest: 0, seat: 0, state, wishes, quiet: true }
    }
}

const _: () = assert!(size_of::<Watcher>() <= 40, "a watcher is small");

/// All watchers.
///
/// Invariants ([`Registry::check`]): a watcher sits where its `seat` says; in each interest the synced ones sit first and are
/// counted; a slot is either used or free.
#[derive(Debug, Default)]
pub(super) struct Registry {
    slots: Slots<Watcher>,
    pub interests: Interests,
}

impl Registry {
    /// Watchers there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn get(&self, slot: u32) -> &Watcher {
        &self.slots[slot]
    }

    pub fn get_mut(&mut self, slot: u32) -> &mut Watcher {
        &mut self.slots[slot]
    }

    /// Adds a watcher of `key` and `range_end`; its interest and seat are filled in here.
    pub fn add(&mut self, watcher: Watcher, key: &[u8], range_end: &[u8]) -> u32 {
        let interest = self.interests.find_or_add(key, range_end);
        let members = &mut self.interests.get_mut(interest).members;
        let seat = u32::try_from(members.len()).expect("fewer than four thousand million watchers");
        let synced = watcher.state == State::Synced;
        // It enters as unsynced, at the end of the row.
        let watcher = Watcher { interest, seat, state: State::Unsynced, ..watcher };
        let slot = self.slots.add(watcher);
        members.push(slot);
        if synced {
            self.set_state(slot, State::Synced);
        }
        slot
    }

    /// Removes a watcher, and its interest if it was the last.
    pub fn remove(&mut self, slot: u32) {
        self.set_state(slot, State::Unsynced);
        let Watcher { interest, seat, .. } = self.slots[slot];
        let members = &mut self.interests.get_mut(interest).members;
        members.swap_remove(seat);
        if let Some(moved) = members.get(seat) {
            self.slots[moved].seat = seat;
        }
        if members.is_empty() {
            self.interests.remove(interest);
        }
        self.slots.release(slot);
    }

    /// Changes where a watcher stands, and its seat with it.
    pub fn set_state(&mut self, slot: u32, state: State) {
        let watcher = &mut self.slots[slot];
        let before = std::mem::replace(&mut watcher.state, state);
        let (seat, interest) = (watcher.seat, watcher.interest);
        let (was, is) = (before == State::Synced, state == State::Synced);
        if was == is {
            return;
        }
        let interest = self.interests.get_mut(interest);
        // The border between the two groups moves by one seat; the watcher changes places with whoever sits there.
        let border = if is { interest.synced } else { interest.synced - 1 };
        interest.synced = if is { interest.synced + 1 } else { interest.synced - 1 };
        interest.members.swap(seat, border);
        let other = interest.members.as_slice()[seat as usize];
        self.slots[other].seat = seat;
        self.slots[slot].seat = border;
    }

    /// The slots of all synced watchers, in order of slot.
    pub fn synced(&self) -> Vec<u32> {
        let mut slots = self.live_slots();
        slots.retain(|&slot| self.get(slot).state == State::Synced);
        slots
    }

    /// Bytes held, an estimate.
    pub fn memory_bytes(&self) -> usize {
        self.slots.memory_bytes() + self.interests.memory_bytes()
    }

    /// Panics if an invariant does not hold. Walks everything.
    pub fn check(&self) {
        self.interests.check();
        for slot in self.live_slots() {
            let watcher = self.get(slot);
            let interest = self.interests.get(watcher.interest);
            assert_eq!(interest.members.get(watcher.seat), Some(slot), "watcher {slot} sits elsewhere");
            let synced = watcher.state == State::Synced;
            assert_eq!(watcher.seat < interest.synced, synced, "watcher {slot} sits in the wrong group");
        }
    }

    /// Slots in use, ascending.
    pub fn live_slots(&self) -> Vec<u32> {
        self.slots.used()
    }
}
