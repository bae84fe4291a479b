//! What the n-th request writes: keys as decimal digits, values that name their writer.
//!
//! ```text
//! key    00000042                       the key's number, zeros in front, key-size bytes
//! value  [n: u64 BE][body ...]          body: a slice of one fixed random table, its place drawn from (key, n)
//! ```
//! A value can be checked by whoever knows its key: n is read from it and the same bytes are made again.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of the table that value bodies are cut from. Larger than any cache line game, small enough for L2.
const TABLE_BYTES: usize = 64 * 1024;

/// Written by the fill phase instead of a ticket's number: so that filled and put values differ.
pub const FILL_MARK: u64 = 1 << 63;

/// A well-mixed function of one word (the finaliser of SplitMix64).
pub fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The keys and values of one run.
pub struct Keys {
    /// Length of every key in bytes.
    pub key_size: usize,
    /// Length of every written value in bytes.
    pub val_size: usize,
    /// How many different keys there are, numbered from 0.
    pub space: u64,
    /// Ticket n takes key n mod space instead of a drawn one.
    pub sequential: bool,
    /// Decides which keys are drawn.
    pub seed: u64,
    table: Box<[u8]>,
}

impl Keys {
    /// Makes the table of value bodies; the sizes must already be checked ([`fits`]).
    pub fn new(key_size: usize, val_size: usize, space: u64, sequential: bool, seed: u64) -> Keys {
        let table = (0..TABLE_BYTES as u64 / 8).flat_map(|word| mix(word).to_le_bytes()).collect();
        Keys { key_size, val_size, space, sequential, seed, table }
    }

    /// Number of the key that ticket `n` is about.
    pub fn number(&self, n: u64) -> u64 {
        if self.sequential { n % self.space } else { mix(mix(self.seed) ^ n) % self.space }
    }

    /// Number of the key that comes at place `n` of a walk that meets every key once per `space` steps, far from its
    /// neighbours each time.
    pub fn once(&self, n: u64) -> u64 {
        /// Prime, and so without a common factor with any smaller space.
        const STRIDE: u64 = 2_654_435_761;
        if self.sequential || self.space.is_multiple_of(STRIDE) {
            return n % self.space;
        }
        (u128::from(n) * u128::from(STRIDE) % u128::from(self.space)) as u64
    }

    /// Bytes of key number `number`.
    pub fn key(&self, number: u64) -> Bytes {
        let mut key = vec![b'0'; self.key_size];
        let mut rest = number;
        for digit in key.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        key.into()
    }

    /// First key after all keys of the run: the end of the range that holds them.
    pub fn end(&self) -> Bytes {
        let mut end = BytesMut::from(&self.key(self.space - 1)[..]);
        end.put_u8(0);
        end.freeze()
    }

    /// The value that ticket `n` writes to key `number`.
    pub fn value(&self, number: u64, n: u64) -> Bytes {
        self.value_of_size(number, n, self.val_size)
    }

    fn value_of_size(&self, number: u64, n: u64, size: usize) -> Bytes {
        let mut value = BytesMut::with_capacity(size + 8);
        value.put_u64(n);
        let mut at = (mix(number ^ mix(n)) % TABLE_BYTES as u64) as usize;
        while value.len() < size {
            let slice = &self.table[at..];
            let take = slice.len().min(size - value.len());
            value.extend_from_slice(&slice[..take]);
            at = 0;
        }
        // Below eight bytes the low ones of n are kept: they change from write to write.
        if size < 8 {
            return value.freeze().slice(8 - size..8);
        }
        value.freeze()
    }

    /// Whether `value` is one that this tool writes to key `number`, by whichever ticket. Values below eight bytes
    /// carry too little to tell and pass.
    pub fn is_ours(&self, number: u64, value: &[u8]) -> bool {
        let Some((head, _)) = value.split_first_chunk::<8>() else { return true };
        self.value_of_size(number, u64::from_be_bytes(*head), value.len()) == value
    }
}

/// Whether `space` keys can be told apart by `key_size` decimal digits.
pub fn fits(space: u64, key_size: usize) -> bool {
    digits(space.saturating_sub(1)) <= key_size
}

/// How many decimal digits `number` has.
pub fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(val_size: usize) -> Keys {
        Keys::new(8, val_size, 1000, false, 1)
    }

    #[test]
    fn keys_are_padded_digits_in_numeric_order() {
        let keys = keys(16);
        assert_eq!(keys.key(0), "00000000");
        assert_eq!(keys.key(42), "00000042");
        assert_eq!(keys.end(), "00000999\0");
    }

    #[test]
    fn the_space_must_fit_the_key() {
        assert!(fits(1, 1) && fits(10, 1) && !fits(11, 1));
        assert!(fits(100_000_000, 8) && !fits(100_000_001, 8));
        assert!(fits(u64::MAX, 20));
    }

    #[test]
    fn sequential_walks_and_random_covers() {
        let walk = Keys::new(4, 8, 10, true, 9);
        assert_eq!((0..12).map(|n| walk.number(n)).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
        let drawn: std::collections::BTreeSet<u64> = (0..20_000).map(|n| keys(8).number(n)).take(20_000).collect();
        assert!(drawn.len() > 990 && drawn.iter().all(|number| *number < 1000), "{}", drawn.len());
    }

    #[test]
    fn the_walk_meets_every_key_once() {
        for space in [1, 2, 10, 1000, 99_999] {
            let keys = Keys::new(8, 8, space, false, 1);
            let met: std::collections::BTreeSet<u64> = (0..space).map(|n| keys.once(n)).collect();
            assert_eq!(met.len() as u64, space);
        }
    }

    #[test]
    fn a_value_tells_its_key_and_writer() {
        for size in [8, 9, 256, 100_000] {
            let keys = keys(size);
            let value = keys.value(3, 77);
            assert_eq!(value.len(), size);
            assert!(keys.is_ours(3, &value));
            assert_ne!(value, keys.value(3, 78));
        }
        let keys = keys(256);
        let value = keys.value(3, 77);
        assert!(!keys.is_ours(4, &value), "another key's value");
        let mut torn = value.to_vec();
        torn[200] ^= 1;
        assert!(!keys.is_ours(3, &torn), "a flipped bit");
        assert!(!keys.is_ours(3, &[b'x'; 256]), "somebody else's value");
        assert!(keys.is_ours(3, &value[..200]), "values of another size are checked at their own");
    }

    #[test]
    fn short_values_differ_from_write_to_write() {
        for size in 1..8 {
            assert_eq!(keys(size).value(1, 5).len(), size);
            assert_ne!(keys(size).value(1, 5), keys(size).value(1, 6));
        }
        assert!(keys(0).value(1, 5).is_empty());
    }
}
