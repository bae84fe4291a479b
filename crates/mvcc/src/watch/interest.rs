//! What is watched: the distinct keys and ranges, and how to find those that a changed key belongs to.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::interval::IntervalTree;
use super::members::Members;
use super::slots::Slots;

/// A set of keys that somebody watches.
///
/// Everybody who watches the same set shares one `Interest`: a change is matched against sets, not against watchers.
#[derive(Debug)]
pub(super) struct Interest {
    /// The start, and behind it the end of a range that has one.
    bounds: Box<[u8]>,
    /// The watchers, as slots of the registry; those that are synced come first.
    pub members: Members,
    /// Bytes of `bounds` that are the start.
    start_len: u32,
    /// How many of `members` are synced.
    pub synced: u32,
    /// Where a delivery that is under way has put this interest; checked by the delivery, meaningless otherwise.
    pub mark: u32,
    extent: Extent,
}

const _: () = assert!(size_of::<Interest>() <= 48, "an interest is small: most watchers have one of their own");

/// How far an interest reaches from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Single,
    /// Everything that begins with the start.
    Prefix,
    /// Up to the end; found by the interval tree.
    Range,
    /// Without end; found by the interval tree.
    Open,
}

/// Above this many different lengths of watched prefixes, further ones go to the interval tree: each length costs every change a
/// hash of that many bytes, and at about this number a walk down the tree is as cheap.
const PREFIX_LENGTHS_MAX: usize = 12;

/// All interests. Single keys and prefixes are found by hash, other ranges in an interval tree.
#[derive(Debug, Default)]
pub(super) struct Interests {
    slots: Slots<Interest>,
    singles: Starts,
    prefixes: Starts,
    /// Lengths that occur in `prefixes`, ascending, and how often.
    prefix_lengths: Vec<(usize, u32)>,
    ranges: IntervalTree,
}

/// Interests by their start. Only their slots are held: what they say stands there.
#[derive(Debug, Default)]
struct Starts {
    slots: HashTable<u32>,
    /// With keys of its own: clients choose what is hashed.
    hasher: RandomState,
}

impl Starts {
    fn get(&self, start: &[u8], interests: &Slots<Interest>) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(start);
        self.slots.find(hash, |&slot| interests[slot].start() == start).copied()
    }

    /// Adds an interest that is not there yet.
    fn insert(&mut self, slot: u32, interests: &Slots<Interest>) {
        let hash = |slot: &u32| self.hasher.hash_one(interests[*slot].start());
        self.slots.insert_unique(hash(&slot), slot, hash);
    }

    fn remove(&mut self, slot: u32, interests: &Slots<Interest>) -> Option<u32> {
        let hash = self.hasher.hash_one(interests[slot].start());
        self.slots.find_entry(hash, |&known| known == slot).ok().map(|entry| entry.remove().0)
    }
}

impl Interest {
    /// Is `key` in the set?
    pub fn contains(&self, key: &[u8]) -> bool {
        let (start, end) = self.bounds.split_at(self.start_len as usize);
        match self.extent {
            Extent::Single => *key == *start,
            Extent::Prefix => key.starts_with(start),
            Extent::Range => *key >= *start && *key < *end,
            Extent::Open => *key >= *start,
        }
    }

    fn start(&self) -> &[u8] {
        &self.bounds[..self.start_len as usize]
    }
}

impl Interests {
    /// The interest in the keys that the wire calls `key` and `range_end`; created if nobody had it.
    pub fn find_or_add(&mut self, key: &[u8], range_end: &[u8]) -> u32 {
        let end = match range_end {
            [] => {
                return self.singles.get(key, &self.slots).unwrap_or_else(|| {
                    let slot = self.add(key, &[], Extent::Single);
                    self.singles.insert(slot, &self.slots);
                    slot
                });
            }
            [0] => None,
            end => Some(end),
        };
        let prefix = end.is_some_and(|end| is_prefix_end(key, end));
        if prefix && let Some(slot) = self.prefixes.get(key, &self.slots) {
            return slot;
        }
        if let Some(slot) = self.ranges.find(key, end) {
            return slot;
        }
        if prefix && self.count_prefix(key.len()) {
            let slot = self.add(key, &[], Extent::Prefix);
            self.prefixes.insert(slot, &self.slots);
            return slot;
        }
        let extent = if end.is_some() { Extent::Range } else { Extent::Open };
        let slot = self.add(key, end.unwrap_or_default(), extent);
        let end: Option<Arc<[u8]>> = end.map(Into::into);
        self.ranges.insert(key.into(), end, slot);
        slot
    }

    /// Forgets an interest without members.
    pub fn remove(&mut self, slot: u32) {
        let interest = &self.slots[slot];
        debug_assert!(interest.members.is_empty(), "somebody still watches");
        let (start, end) = interest.bounds.split_at(interest.start_len as usize);
        let removed = match interest.extent {
            Extent::Single => self.singles.remove(slot, &self.slots),
            Extent::Prefix => self.prefixes.remove(slot, &self.slots),
            Extent::Range => self.ranges.remove(start, Some(end)),
            Extent::Open => self.ranges.remove(start, None),
        };
        debug_assert_eq!(removed, Some(slot), "an interest is found by what it says");
        if interest.extent == Extent::Prefix {
            let len = start.len();
            self.uncount_prefix(len);
        }
        self.slots[slot].bounds = Box::default();
        self.slots.release(slot);
    }

    /// Calls `visit` with every interest that holds `key`, once each, in an order that depends on the interests alone.
    pub fn matching(&self, key: &[u8], visit: &mut impl FnMut(u32)) {
        if let Some(slot) = self.singles.get(key, &self.slots) {
            visit(slot);
        }
        for &(len, _) in &self.prefix_lengths {
            let Some(prefix) = key.get(..len) else { break };
            if let Some(slot) = self.prefixes.get(prefix, &self.slots) {
                visit(slot);
            }
        }
        self.ranges.stab(key, visit);
    }

    pub fn get(&self, slot: u32) -> &Interest {
        &self.slots[slot]
    }

    pub fn get_mut(&mut self, slot: u32) -> &mut Interest {
        &mut self.slots[slot]
    }

    /// Bytes held, an estimate: exact for our own arrays; hash tables at 8/7 of their capacity and a byte of tag per entry, and
    /// 16 bytes for each allocation's own needs.
    pub fn memory_bytes(&self) -> usize {
        let tables = (self.singles.slots.capacity() + self.prefixes.slots.capacity()) * 8 / 7 * (size_of::<u32>() + 1);
        let each: usize = self
            .slots
            .all()
            .map(|interest| {
                let in_tree = match interest.extent {
                    Extent::Single | Extent::Prefix => 0,
                    // Start and end, each with two counts.
                    Extent::Range | Extent::Open => 64 + interest.bounds.len(),
                };
                let members = interest.members.memory_bytes();
                16 + interest.bounds.len() + in_tree + members
            })
            .sum();
        tables + self.slots.memory_bytes() + each + self.ranges.memory_bytes()
    }

    /// Panics if an invariant does not hold. Walks everything.
    pub fn check(&self) {
        self.ranges.check();
        let live = self.slots.all().filter(|interest| !interest.members.is_empty()).count();
        assert_eq!(live, self.slots.len(), "an interest without members is free");
        let counted: u32 = self.prefix_lengths.iter().map(|&(_, count)| count).sum();
        assert_eq!(counted as usize, self.prefixes.slots.len(), "prefixes are counted by length");
        for starts in [&self.singles, &self.prefixes] {
            for &slot in &starts.slots {
                assert_eq!(starts.get(self.get(slot).start(), &self.slots), Some(slot), "found by its start");
            }
        }
    }

    fn add(&mut self, start: &[u8], end: &[u8], extent: Extent) -> u32 {
        let start_len = u32::try_from(start.len()).expect("a key is smaller than a request");
        let bounds = [start, end].concat().into_boxed_slice();
        self.slots.add(Interest { bounds, members: Members::None, start_len, synced: 0, mark: 0, extent })
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

    use super::{Interests, Members, PREFIX_LENGTHS_MAX, is_prefix_end};

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
                interests.get_mut(slot).members = Members::None;
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
        assert!(!interests.prefixes.slots.is_empty() && interests.prefix_lengths.len() <= PREFIX_LENGTHS_MAX);
    }
}
