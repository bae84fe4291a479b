//! How fast the hub delivers, so that many events at once cost less.
//!
//! A frame for a stream that has nothing else waiting costs its door a wake-up and the kernel a write of its own, as much as
//! fifty frames that come together. Nobody gathers them: a door is as fast as the writer, and each change of a key with
//! a thousand watchers would make the whole round. So the hub takes its time when it has delivered more than a door can pass on
//! frame by frame, and what the writer publishes meanwhile goes out together. Few watchers, or rare changes, never wait.

use std::time::Duration;

/// What passing a frame on costs, about, if it comes alone.
const FRAME: Duration = Duration::from_micros(2);
/// So much may be on its way before the hub waits: a change with a thousand watchers now and then is not held up.
const FREE: Duration = Duration::from_millis(2);
/// The longest that a change waits for others.
const WAIT: Duration = Duration::from_millis(4);

/// The work that the hub has made for the doors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// When it is done, as far as is known here, on the clock that the callers have.
    done: Duration,
}

impl Pace {
    pub fn new(now: Duration) -> Self {
        Self { done: now }
    }

    /// So many frames were delivered.
    pub fn delivered(&mut self, frames: usize, now: Duration) {
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.done = (self.done.max(now) + FRAME.saturating_mul(frames)).min(now + FREE + WAIT);
    }

    /// For how long the next changes should be gathered; zero: they may go out at once.
    pub fn wait(&self, now: Duration) -> Duration {
        self.done.saturating_sub(FREE).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FRAME, FREE, Pace, WAIT};

    /// Changes with `frames` watchers each, one `every` so long, through a pace: how many, and in how many deliveries.
    fn changes_and_deliveries(frames: usize, every: Duration) -> (u32, u32) {
        let mut pace = Pace::new(Duration::ZERO);
        let (mut waiting, mut deliveries) = (0, 0);
        let changes = u32::try_from(Duration::from_secs(1).as_nanos() / every.as_nanos()).expect("not many");
        for change in 0..changes {
            let now = every * change;
            waiting += 1;
            if pace.wait(now).is_zero() {
                pace.delivered(waiting * frames, now);
                (waiting, deliveries) = (0, deliveries + 1);
            }
        }
        (changes, deliveries)
    }

    #[test]
    fn few_watchers_and_rare_changes_never_wait() {
        for (frames, every) in [(1, Duration::from_micros(50)), (1000, Duration::from_millis(3)), (0, FRAME)] {
            let (changes, deliveries) = changes_and_deliveries(frames, every);
            assert_eq!(changes, deliveries, "{frames} watchers, a change every {every:?}");
        }
    }

    #[test]
    fn what_is_too_much_is_gathered_for_as_long_as_a_change_may_wait() {
        let (changes, deliveries) = changes_and_deliveries(1000, Duration::from_millis(1));
        // Four together, but for the first few.
        let together = changes / 4;
        assert!((together..together + 10).contains(&deliveries), "{changes} changes in {deliveries} deliveries");
    }

    #[test]
    fn no_change_waits_longer_than_it_may() {
        let now = Duration::from_secs(7);
        let mut pace = Pace::new(now);
        assert_eq!(pace.wait(now), Duration::ZERO);
        pace.delivered(usize::MAX, now);
        assert_eq!(pace.wait(now), WAIT);
        assert_eq!(pace.wait(now + WAIT), Duration::ZERO);
        pace.delivered(1, now + WAIT + FREE);
        assert_eq!(pace.wait(now + WAIT + FREE), Duration::ZERO);
    }
}
