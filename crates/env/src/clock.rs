//! Time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Reads the time. Deciders take time as an argument instead; this is for the shells that call them.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed point of this process's life; never goes back.
    fn monotonic(&self) -> Duration;

    /// Time since 1970-01-01 UTC; may jump either way.
    fn unix(&self) -> Duration;
}

/// The kernel's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsClock;

impl Clock for OsClock {
    fn monotonic(&self) -> Duration {
        read(ClockId::Monotonic)
    }

    fn unix(&self) -> Duration {
        read(ClockId::Realtime)
    }
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    // A clock set to before 1970 reads as 1970.
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A clock that moves when told. Clones share the time.
#[derive(Clone, Debug, Default)]
pub struct SimClock {
    /// Nanoseconds since the start of the simulation; only grows.
    now_ns: Arc<AtomicU64>,
    /// What `unix` adds; one member's clock may be ahead of another's.
    unix_start: Duration,
}

impl SimClock {
    /// A clock that stands at zero, whose wall time is `unix_start` then.
    #[must_use]
    pub fn new(unix_start: Duration) -> Self {
        Self { now_ns: Arc::default(), unix_start }
    }

    /// Moves time forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.now_ns.fetch_add(by, Ordering::SeqCst);
    }

    /// The same time, seen by somebody whose wall clock differs.
    #[must_use]
    pub fn with_unix_start(&self, unix_start: Duration) -> Self {
        Self { now_ns: Arc::clone(&self.now_ns), unix_start }
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::SeqCst))
    }

    fn unix(&self) -> Duration {
        self.unix_start + self.monotonic()
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, OsClock, SimClock};
    use std::time::Duration;

    #[test]
    fn the_kernels_clocks_run() {
        let first = OsClock.monotonic();
        assert!(OsClock.monotonic() >= first);
        assert!(OsClock.unix() > Duration::from_secs(1_700_000_000));
    }

    #[test]
    fn simulated_time_moves_only_when_told_and_is_shared() {
        let clock = SimClock::new(Duration::from_secs(100));
        let skewed = clock.with_unix_start(Duration::from_secs(90));
        assert_eq!(clock.monotonic(), Duration::ZERO);
        clock.clone().advance(Duration::from_millis(5));
        assert_eq!(skewed.monotonic(), Duration::from_millis(5));
        assert_eq!(clock.unix() - skewed.unix(), Duration::from_secs(10));
    }
}
