//! Counters that one door's thread writes and the scraper reads: no locked instruction on the way of a request.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A counter with one writing thread.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    /// Adds `n`. Only the owning thread may call this: a load and a store, not an atomic addition.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Durations in buckets, with one writing thread. `N` bounds; what lies above the last one is in the count alone.
#[derive(Debug)]
pub(crate) struct Timings<const N: usize> {
    bounds: &'static [f64; N],
    buckets: [Tally; N],
    count: Tally,
    nanoseconds: Tally,
}

/// A reading of one or more [`Timings`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    /// Upper bound in seconds and how many lie in the bucket below it (not cumulative).
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

impl Histogram {
    /// The same with bounds and sum in milliseconds.
    pub(crate) fn in_milliseconds(self) -> Self {
        let buckets = self.buckets.into_iter().map(|(bound, count)| (bound * 1000.0, count)).collect();
        Self { buckets, count: self.count, sum: self.sum * 1000.0 }
    }
}

impl<const N: usize> Timings<N> {
    pub(crate) fn new(bounds: &'static [f64; N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Tally::default()),
            count: Tally::default(),
            nanoseconds: Tally::default(),
        }
    }

    /// Notes one duration.
    pub(crate) fn observe(&self, took: Duration) {
        self.observe_many(took, 1);
    }

    /// Notes the same duration `times` times.
    pub(crate) fn observe_many(&self, took: Duration, times: u64) {
        if times == 0 {
            return;
        }
        let seconds = took.as_secs_f64();
        if let Some(bucket) = self.bounds.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].add(times);
        }
        self.count.add(times);
        self.nanoseconds.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).saturating_mul(times));
    }

    /// Adds this reading to `sum`.
    pub(crate) fn add_to(&self, sum: &mut Histogram) {
        if sum.buckets.is_empty() {
            sum.buckets = self.bounds.iter().map(|bound| (*bound, 0)).collect();
        }
        for (mine, total) in self.buckets.iter().zip(&mut sum.buckets) {
            total.1 += mine.get();
        }
        sum.count += self.count.get();
        sum.sum += self.nanoseconds.get() as f64 / 1e9;
    }
}

/// Bounds that double: `start`, `2 × start`, … as etcd's exponential buckets.
pub(crate) const fn doubling<const N: usize>(start: f64) -> [f64; N] {
    let mut out = [0.0; N];
    let mut bound = start;
    let mut i = 0;
    while i < N {
        out[i] = bound;
        bound *= 2.0;
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets() {
        static BOUNDS: [f64; 3] = doubling(0.001);
        let (a, b) = (Timings::new(&BOUNDS), Timings::new(&BOUNDS));
        for millis in [1, 2, 3, 9] {
            a.observe(Duration::from_millis(millis));
        }
        b.observe(Duration::from_micros(10));
        let mut sum = Histogram::default();
        a.add_to(&mut sum);
        b.add_to(&mut sum);
        assert_eq!(sum.buckets, [(0.001, 2), (0.002, 1), (0.004, 1)]);
        assert_eq!(sum.count, 5);
        assert!((sum.sum - 0.01501).abs() < 1e-9);
    }
}
