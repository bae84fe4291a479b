//! A member's clocks: one that only runs, one that is set by whoever likes to.

use milepost_env::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Where every wall clock starts, in seconds since 1970.
const EPOCH_SECONDS: i64 = 1_800_000_000;

/// One simulated clock for all, in microseconds.
#[derive(Debug, Default)]
pub struct World {
    now: AtomicU64,
}

impl World {
    /// Now.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Time goes on.
    pub fn set(&self, now: u64) {
        self.now.store(now, Ordering::Relaxed);
    }
}

/// What one process reads.
#[derive(Debug)]
pub struct MemberClock {
    world: Arc<World>,
    /// When its machine was switched on: the running clock begins there.
    born: u64,
    /// Seconds by which its wall clock is wrong.
    wrong: AtomicI64,
    /// The running clock's speed in percent; other than 100 only where a bug is planted.
    percent: u64,
}

impl MemberClock {
    /// A clock that has just started.
    pub fn new(world: Arc<World>, percent: u64) -> Self {
        let born = world.now();
        Self { world, born, wrong: AtomicI64::new(0), percent }
    }

    /// Somebody sets the wall clock.
    pub fn jump(&self, seconds: i64) {
        self.wrong.fetch_add(seconds, Ordering::Relaxed);
    }

    /// When the running clock will show `time`, in the world's microseconds.
    pub fn world_at(&self, time: Duration) -> u64 {
        self.born + (u64::try_from(time.as_micros()).unwrap_or(u64::MAX) * 100).div_ceil(self.percent)
    }
}

impl Clock for MemberClock {
    fn monotonic(&self) -> Duration {
        Duration::from_micros((self.world.now() - self.born) * self.percent / 100)
    }

    fn unix(&self) -> Duration {
        let seconds = EPOCH_SECONDS + self.wrong.load(Ordering::Relaxed);
        Duration::from_secs(seconds.unsigned_abs()) + Duration::from_micros(self.world.now())
    }
}
