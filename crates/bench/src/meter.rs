//! Latencies: one histogram per thread, merged at the end.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency kept apart, in nanoseconds: an hour. Anything longer counts as this.
const LONGEST_NANOS: u64 = 3_600_000_000_000;

/// Shortest, in nanoseconds; no request is faster than this.
const SHORTEST_NANOS: u64 = 100;

/// Three digits: a p99 of 12.3 ms is told from one of 12.4 ms.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Counts durations in buckets of 0.1 % width.
#[derive(Clone)]
pub struct Meter(Histogram<u64>);

impl Default for Meter {
    fn default() -> Meter {
        let histogram = Histogram::new_with_bounds(SHORTEST_NANOS, LONGEST_NANOS, SIGNIFICANT_DIGITS);
        Meter(histogram.expect("the bounds are constants in order"))
    }
}

impl Meter {
    /// Counts one duration.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts one duration that `count` had.
    pub fn record_many(&mut self, latency: Duration, count: u64) {
        self.0.saturating_record_n(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX), count);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: &Meter) {
        self.0.add(&other.0).expect("all meters have the same bounds");
    }

    /// The figures of a report. All zero when nothing was counted.
    pub fn summary(&self) -> Latency {
        let at = |quantile: f64| micros(self.0.value_at_quantile(quantile));
        Latency {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(self.0.max()),
            mean_us: round(self.0.mean() / 1000.0),
        }
    }
}

/// Quantiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the requests were at least this fast.
    pub p50_us: f64,
    /// Nine in ten.
    pub p90_us: f64,
    /// Ninety-nine in a hundred.
    pub p99_us: f64,
    /// 999 in a thousand.
    pub p999_us: f64,
    /// The slowest of all.
    pub max_us: f64,
    /// Sum by count.
    pub mean_us: f64,
}

fn micros(nanos: u64) -> f64 {
    round(nanos as f64 / 1000.0)
}

/// One digit after the point: finer than the histogram's buckets from 100 µs up.
pub fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, wanted: f64) {
        assert!((value - wanted).abs() <= wanted * 0.002, "{value} is not within 0.2 % of {wanted}");
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut meter = Meter::default();
        for micros in 1..=10_000 {
            meter.record(Duration::from_micros(micros));
        }
        let latency = meter.summary();
        near(latency.p50_us, 5_000.0);
        near(latency.p90_us, 9_000.0);
        near(latency.p99_us, 9_900.0);
        near(latency.p999_us, 9_990.0);
        near(latency.max_us, 10_000.0);
        near(latency.mean_us, 5_000.5);
    }

    #[test]
    fn merging_is_counting_in_one() {
        let (mut left, mut right, mut both) = (Meter::default(), Meter::default(), Meter::default());
        for n in 0..5_000u64 {
            let latency = Duration::from_nanos(crate::keys::mix(n) % 50_000_000);
            if n % 3 == 0 {
                left.record(latency)
            } else {
                right.record(latency)
            }
            both.record(latency);
        }
        left.merge(&right);
        assert_eq!(left.summary(), both.summary());
    }

    #[test]
    fn the_ends_saturate_and_empty_is_zero() {
        assert_eq!(Meter::default().summary().max_us, 0.0);
        let mut meter = Meter::default();
        meter.record(Duration::from_secs(1_000_000));
        near(meter.summary().max_us, 3_600_000_000.0);
    }
}
