//! Finding a place among sorted keys without touching most of them.

use std::ops::Range;

/// Of sorted keys the eight bytes behind what all of them begin with: a search looks at these, which lie side by side, and
/// only where they are alike at the keys themselves, each somewhere else in memory.
#[derive(Clone, Default)]
pub(super) struct Index {
    /// Length of what all keys begin with.
    common: usize,
    heads: Box<[u64]>,
}

/// Bytes of a key that a search looks at first.
pub(super) const HEAD: usize = size_of::<u64>();

pub(super) fn head(key: &[u8], from: usize) -> u64 {
    let rest = key.get(from..).unwrap_or_default();
    let mut bytes = [0; HEAD];
    let len = rest.len().min(HEAD);
    bytes[..len].copy_from_slice(&rest[..len]);
    u64::from_be_bytes(bytes)
}

impl Index {
    /// Of the keys that `key` gives, `len` of them.
    pub fn of<'k>(len: usize, key: impl Fn(usize) -> &'k [u8]) -> Self {
        let Some(last) = len.checked_sub(1) else { return Self::default() };
        let common = key(0).iter().zip(key(last)).take_while(|(one, other)| one == other).count();
        Self { common, heads: (0..len).map(|at| head(key(at), common)).collect() }
    }

    /// How many keys lie below `wanted`. `key`: as in [`Index::of`].
    pub fn below<'k>(&self, wanted: &[u8], key: impl Fn(usize) -> &'k [u8]) -> usize {
        if self.heads.is_empty() {
            return 0;
        }
        let begins = &wanted[..wanted.len().min(self.common)];
        match begins.cmp(&key(0)[..self.common]) {
            std::cmp::Ordering::Less => return 0,
            std::cmp::Ordering::Greater => return self.heads.len(),
            std::cmp::Ordering::Equal => {}
        }
        let alike = self.alike(head(wanted, self.common));
        alike.start + partition_point(alike.len(), |at| key(alike.start + at) < wanted)
    }

    fn alike(&self, head: u64) -> Range<usize> {
        self.heads.partition_point(|other| *other < head)..self.heads.partition_point(|other| *other <= head)
    }
}

/// As that of slices.
fn partition_point(len: usize, is_below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = usize::midpoint(low, high);
        if is_below(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::Index;

    #[test]
    fn every_key_finds_its_place() {
        let mut rng = SmallRng::seed_from_u64(1);
        for round in 0..2000 {
            let prefix: Vec<u8> = (0..rng.random_range(0..12)).map(|_| rng.random_range(0..3)).collect();
            let mut key = |prefix: &[u8]| -> Vec<u8> {
                let tail =
                    (0..rng.random_range(0..12)).map(|_| if rng.random() { 0 } else { 255 * rng.random_range(0..2) });
                prefix.iter().copied().chain(tail).collect()
            };
            let mut keys: Vec<Vec<u8>> = (0..round % 40).map(|_| key(&prefix)).collect();
            keys.sort();
            keys.dedup();
            let index = Index::of(keys.len(), |at| &keys[at][..]);
            for _ in 0..30 {
                let cut = rng_cut(&prefix, round);
                for wanted in [key(&prefix), key(&prefix[..cut]), key(&[])] {
                    let below = index.below(&wanted, |at| &keys[at][..]);
                    assert_eq!(below, keys.partition_point(|key| *key < wanted), "{wanted:?} in {keys:?}");
                }
            }
        }
    }

    fn rng_cut(prefix: &[u8], round: usize) -> usize {
        round % (prefix.len() + 1)
    }
}
