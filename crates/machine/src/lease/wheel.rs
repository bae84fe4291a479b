//! Timers by tick.

use std::collections::BTreeMap;

/// Grain of the timers in milliseconds: a lease ends at most this much late, and 100 k leases that end within a second
/// share ten buckets.
const TICK_MS: u64 = 100;

/// Things to be looked at from some tick on. Costs are by due items and by distinct ticks, never by all items.
///
/// Nothing is removed or moved: an owner that changes its mind lets the old timer fire and ignores it.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    /// Tick → what is due then. No bucket is empty.
    buckets: BTreeMap<u64, Vec<T>>,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self { buckets: BTreeMap::new() }
    }
}

impl<T> Wheel<T> {
    /// The tick at which something due at `due_ms` fires: the first one not before it.
    pub(super) fn tick_of(due_ms: u64) -> u64 {
        due_ms.div_ceil(TICK_MS)
    }

    /// Fires `item` at `tick`.
    pub(super) fn insert(&mut self, tick: u64, item: T) {
        self.buckets.entry(tick).or_default().push(item);
    }

    /// Takes the earliest bucket that is due at `now_ms`.
    pub(super) fn pop_due(&mut self, now_ms: u64) -> Option<(u64, Vec<T>)> {
        let first = self.buckets.first_entry()?;
        (*first.key() <= now_ms / TICK_MS).then(|| first.remove_entry())
    }

    /// When the next bucket is due, in milliseconds.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.buckets.first_key_value().map(|(tick, _)| tick.saturating_mul(TICK_MS))
    }

    /// Distinct ticks that have something.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Timers, stale ones included.
    #[cfg(test)]
    pub(super) fn items(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.buckets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Wheel;

    #[test]
    fn fires_in_order_and_never_early() {
        let mut wheel = Wheel::default();
        for due in [250_u64, 100, 101, 0] {
            wheel.insert(Wheel::<u64>::tick_of(due), due);
        }
        assert_eq!(wheel.next_due_ms(), Some(0));
        assert_eq!(wheel.pop_due(99), Some((0, vec![0])));
        assert_eq!(wheel.pop_due(99), None);
        assert_eq!(wheel.pop_due(199), Some((1, vec![100])));
        assert_eq!(wheel.pop_due(199), None);
        assert_eq!(wheel.pop_due(1000), Some((2, vec![101])));
        assert_eq!(wheel.next_due_ms(), Some(300));
        wheel.clear();
        assert_eq!(wheel.pop_due(u64::MAX), None);
    }
}
