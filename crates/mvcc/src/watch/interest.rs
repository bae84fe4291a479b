//! What is watched: the distinct keys and ranges, and how to find those that a changed key belongs to.

use std::collections::HashMap;
use std::sync::Arc;

use super::interval::IntervalTree;

/// A set of keys that somebody watches.
///
/// Everybody who watches the same set shares one `Interest`: a change is matched against sets, not against watchers.
#[derive(Debug)]
pub(super) struct Interest {
    start: Arc<[u8]>,
    extent: Extent,
    /// The watchers, as slots of the registry; those that are synced come first.
    pub members: Vec<u32>,
    /// How many of `members` are synced.
    pub synced: u32,
    /// Where a delivery that is under way has put this interest; checked by the delivery, meaningless otherwise.
    pub mark: u32,
}

/// How far an interest reaches from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Extent {
    Single,
    /// Everything that begins with the start.
    Prefix,
    /// Up to the end, or without end; found by the interval tree.
    Range(Option<Arc<[u8]>>),
}

/// Above this many different lengths of watched prefixes, further ones go to the interval tree: each length costs every change a
/// hash of that many bytes, and at about this number a walk down the tree is as cheap.
const PREFIX_LENGTHS_MAX: usize = 12;

/// All interests. Single keys and prefixes are found by hash, other ranges in an interval tree.
#[derive(Debug, Default)]
pub(super) struct Interests {
    slots: Vec<Interest>,
    free: Vec<u32>,
    singles: HashMap<Arc<[u8]>, u32>,
    prefixes: HashMap<Arc<[u8]>, u32>,
    /// Lengths that occur in `prefixes`, ascending, and how often.
    prefix_lengths: Vec<(usize, u32)>,
    ranges: IntervalTree,
}

impl Interest {
    /// Is `key` in the set?
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.extent {
            Extent::Single => *key == *self.start,
            Extent::Prefix => key.starts_with(&self.start),
            Extent::Range(end) => *key >= *self.start && end.as_ref().is_none_or(|end| *key < **end),
        }
    }
}

impl Interests {
    /// The interest in the keys that the wire calls `key` and `range_end`; created if nobody had it.
    pub fn find_or_add(&mut self, key: &[u8], range_end: &[u8]) -> u32 {
        let end = match range_end {
            [] => return self.single(key),
            [0] => None,
            end => Some(end),
        };
        let prefix = end.is_some_and(|end| is_prefix_end(key, end));
        if prefix && let Some(&slot) = self.prefixes.get(key) {
            return slot;
        }
        if let Some(slot) = self.ranges.find(key, end) {
            return slot;
        }
        let start: Arc<[u8]> = key.into();
        if prefix && self.count_prefix(key.len()) {
            let slot = self.add(start.clone(), Extent::Prefix);
            self.prefixes.insert(start, slot);
            return slot;
        }
        let end: Option<Arc<[u8]>> = end.map(Into::into);
        let slot = self.add(start.clone(), Extent::Range(end.clone()));
        self.ranges.insert(start, end, slot);
        slot
    }

    /// Forgets an interest without members.
    pub fn remove(&mut self, slot: u32) {
        let interest = &mut self.slots[slot as usize];
        debug_assert!(interest.members.is_empty(), "somebody still watches");
        let start = std::mem::replace(&mut interest.start, Arc::from([]));
        let extent = std::mem::replace(&mut interest.extent, Extent::Single);
        interest.members = Vec::new();
        let removed = match extent {
            Extent::Single => self.singles.remove(&start),
            Extent::Prefix => {
                self.uncount_prefix(start.len());
                self.prefixes.remove(&start)
            }
            Extent::Range(end) => self.ranges.remove(&start, end.as_deref()),
        };
        debug_assert_eq!(removed, Some(slot), "an interest is found by what it says");
        self.free.push(slot);
    }

    /// Calls `visit` with every interest that holds `key`, once each, in an order that depends on the interests alone.
    pub fn matching(&self, key: &[u8], visit: &mut impl FnMut(u32)) {
        if let Some(&slot) = self.singles.get(key) {
            visit(slot);
        }
        for &(len, _) in &self.prefix_lengths {
            let Some(prefix) = key.get(..len) else { break };
            if let Some(&slot) = self.prefixes.get(prefix) {
                visit(slot);
            }
        }
        self.ranges.stab(key, visit);
    }

    pub fn get(&self, slot: u32) -> &Interest {
        &self.slots[slot as usize]
    }

    pub fn get_mut(&mut self, slot: u32) -> &mut Interest {
        &mut self.slots[slot as usize]
    }

    /// Bytes held, an estimate: exact for our own arrays; hash tables at 8/7 of their capacity and a byte of tag per entry, and
    /// 16 bytes for each allocation's own needs.
    pub fn memory_bytes(&self) -> usize {
        let table = size_of::<(Arc<[u8]>, u32)>() + 1;
        let tables = (self.singles.capacity() + self.prefixes.capacity()) * 8 / 7 * table;
        let each: usize = self
            .slots
            .iter()
            .map(|interest| {
                let end = if let Extent::Range(Some(end)) = &interest.extent { 32 + end.len() } else { 0 };
                let members = if interest.members.capacity() == 0 { 0 } else { 16 + interest.members.capacity() * 4 };
                32 + interest.start.len() + end + members
            })
            .sum();
        let slots = self.slots.capacity() * size_of::<Interest>() + self.free.capacity() * 4;
        tables + slots + each + self.ranges.memory_bytes()
    }

    /// Panics if an invariant does not hold. Walks everything.
    pub fn check(&self) {
        self.ranges.check();
        let live = self.slots.iter().filter(|interest| !interest.members.is_empty()).count();
        assert_eq!(live + self.free.len(), self.slots.len(), "an interest without members is free");
        let counted: u32 = self.prefix_lengths.iter().map(|&(_, count)| count).sum();
        assert_eq!(counted as usize, self.prefixes.len(), "prefixes are counted by length");
        for (start, &slot) in self.singles.iter().chain(&self.prefixes) {
            assert_eq!(*start, self.get(slot).start, "the tables name interests by their start");
        }
    }

    fn single(&mut self, key: &[u8]) -> u32 {
        if let Some(&slot) = self.singles.get(key) {
            return slot;
        }
        let start: Arc<[u8]> = key.into();
        let slot = self.add(start.clone(), Extent::Single);
        self.singles.insert(start, slot);
        slot
    }

    fn add(&mut self, start: Arc<[u8]>, extent: Extent) -> u32 {
        // Most interests have one member; room for it and no more.
        let interest = Interest { start, extent, members: Vec::with_capacity(1), synced: 0, mark: 0 };
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = interest;
            return slot;
        }
        self.slots.push(interest);
        u32::try_from(self.slots.len() - 1).expect("fewer than four thousand million interests")
    }

    /// Counts a prefix of this length; false if that would make one length too many.
    fn count_prefix(&mut self, len: usize) -> bool {
        match self.prefix_lengths.binary_search_by_key(&len, |&(len, _)| len) {
            Ok(at) => self.prefix_lengths[at].1 += 1,
            Err(_) if self.prefix_lengths.len() == PREFIX_LENGTHS_MAX => return false,
            Err(at) => self.prefix_lengths.insert(at, (len, 1)),
        }
        true
    }

    fn uncount_prefix(&mut self, len: usize) {
        let at = self.prefix_lengths.binary_search_by_key(&len, |&(len, _)| len).expect("a counted length");
        self.prefix_lengths[at].1 -= 1;
        if self.prefix_lengths[at].1 == 0 {
            self.prefix_lengths.remove(at);
        }
    }
}

/// Is [`start`, `end`) exactly the keys that begin with `start`? That is so if `end` is `start` with its last byte that is not
/// 0xff raised by one and everything after it gone.
fn is_prefix_end(start: &[u8], end: &[u8]) -> bool {
    let Some((&last, head)) = end.split_last() else { return false };
    let Some(raised) = start.get(head.len()) else { return false };
    start.starts_with(head)
        && last.checked_sub(1) == Some(*raised)
        && start[end.len()..].iter().all(|&byte| byte == 0xff)
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::{Interests, PREFIX_LENGTHS_MAX, is_prefix_end};

    #[test]
    fn prefixes_are_told_from_ranges() {
        assert!(is_prefix_end(b"a", b"b"));
        assert!(is_prefix_end(b"a/", b"a0"));
        assert!(is_prefix_end(b"a\xff\xff", b"b"));
        assert!(is_prefix_end(b"a\xfe", b"a\xff"));
        for (start, end) in [
            (&b"a"[..], &b"c"[..]),
            (b"a", b"a0"),
            (b"a/b", b"a0"),
            (b"b", b"b"),
            (b"\xff", b"\0"),
            (b"", b"\0"),
            (b"a", b"b0"),
        ] {
            assert!(!is_prefix_end(start, end), "{start:?} {end:?}");
        }
    }

    /// Every kind of interest against a scan of all of them, with more prefix lengths than have a place in the table.
    #[test]
    fn agrees_with_a_scan() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut interests = Interests::default();
        let mut known: Vec<(Vec<u8>, Vec<u8>, u32)> = Vec::new();
        let word = |rng: &mut SmallRng, max: usize| -> Vec<u8> {
            let len = rng.random_range(1..=max);
            (0..len).map(|_| *b"ab\xff".get(rng.random_range(0..3)).expect("three")).collect()
        };
        for round in 0..4000_u32 {
            if rng.random_bool(0.45) && !known.is_empty() {
                let (_, _, slot) = known.swap_remove(rng.random_range(0..known.len()));
                interests.get_mut(slot).members.clear();
                interests.remove(slot);
            } else {
                let start = word(&mut rng, PREFIX_LENGTHS_MAX + 6);
                let end = match rng.random_range(0..4) {
                    0 => vec![],
                    1 => vec![0],
                    2 => word(&mut rng, 3),
                    _ => {
                        let mut end = start.clone();
                        while end.last() == Some(&0xff) {
                            end.pop();
                        }
                        match end.last_mut() {
                            Some(last) => *last += 1,
                            None => end = vec![0],
                        }
                        end
                    }
                };
                let slot = interests.find_or_add(&start, &end);
                match known.iter().find(|(s, e, _)| (s, e) == (&start, &end)) {
                    Some(&(_, _, before)) => assert_eq!(slot, before, "one interest per set"),
                    None => {
                        interests.get_mut(slot).members.push(round);
                        known.push((start, end, slot));
                    }
                }
            }
            let probe = word(&mut rng, 20);
            let mut found = Vec::new();
            interests.matching(&probe, &mut |slot| found.push(slot));
            let mut expected: Vec<u32> = known
                .iter()
                .filter(|(start, end, _)| milepost_types::KeyRange::from_wire(start, end).contains(&probe))
                .map(|&(_, _, slot)| slot)
                .collect();
            let mut contained: Vec<u32> =
                known.iter().map(|&(_, _, slot)| slot).filter(|&slot| interests.get(slot).contains(&probe)).collect();
            for list in [&mut found, &mut expected, &mut contained] {
                list.sort_unstable();
            }
            assert_eq!(found, expected, "round {round} probe {probe:?}");
            assert_eq!(contained, expected, "round {round} probe {probe:?}");
        }
        interests.check();
        assert!(!interests.prefixes.is_empty() && interests.prefix_lengths.len() <= PREFIX_LENGTHS_MAX);
    }
}
