//! Randomness.

/// A source of uniformly distributed bits.
pub trait Rng: Send {
    /// The next 64 bits.
    fn next_u64(&mut self) -> u64;

    /// A number below `bound`; 0 if `bound` is 0. The bias for bounds far below 2^64 does not matter here.
    fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is in 0..bound and needs no division.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True with the probability `numerator / denominator`.
    fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }
}

/// The kernel's generator: for identities that must never repeat.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRng;

impl Rng for OsRng {
    /// # Panics
    /// If the kernel has no generator: every identity made from here on could repeat.
    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the kernel gave no random bytes: {error}"),
            }
        }
        u64::from_le_bytes(bytes)
    }
}

/// A generator whose whole future is its seed: SplitMix64 (Steele, Lea, Flood 2014). Fast, and every seed is a good one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeededRng(pub u64);

impl Rng for SeededRng {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::{OsRng, Rng, SeededRng};

    #[test]
    fn a_seed_fixes_the_sequence() {
        // The published first outputs of SplitMix64 for seed 1234567.
        let mut rng = SeededRng(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut rng = SeededRng(1);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[rng.below(7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn the_kernel_does_not_repeat_itself() {
        assert_ne!(OsRng.next_u64(), OsRng.next_u64());
    }
}
