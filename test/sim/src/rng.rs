//! Chance: the world's one seeded generator, with the draws that the simulation needs.

use milepost_env::{Rng as _, SeededRng};

/// See the module.
#[derive(Clone, Debug)]
pub struct Rng(SeededRng);

impl Rng {
    /// Everything follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(SeededRng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995))
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// A number in `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True in so many of so many cases.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.0.chance(numerator, denominator)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len() as u64) as usize]) }
    }
}
