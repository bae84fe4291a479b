//! When to forget old revisions by itself: decided from the time, the newest revision, and who leads.
//!
//! *Periodic*: note the revision every tenth of the period (of an hour at most); once a full period lies behind the
//! oldest note, compact to it, then again every period (every hour for longer ones). *Revision*: every 5 minutes compact
//! all but the newest `n` revisions. Only the leader proposes; a member that does not lead forgets its notes' due times
//! but goes on taking notes. Source: etcd `v3compactor`.

use std::collections::VecDeque;
use std::time::Duration;

/// How often revisions are looked at in revision mode.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Periods longer than this compact this often.
const PERIOD_STEP_MAX: Duration = Duration::from_secs(60 * 60);
/// Notes per step.
const NOTES_PER_STEP: u32 = 10;

/// `--auto-compaction-mode` and `--auto-compaction-retention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMode {
    /// Nothing is compacted unless somebody asks.
    Off,
    /// Keep this long.
    Periodic(Duration),
    /// Keep so many revisions.
    Revision(i64),
}

/// See the module.
#[derive(Debug)]
pub struct Compactor {
    mode: CompactionMode,
    /// Revisions noted, oldest first; periodic mode only.
    notes: VecDeque<i64>,
    next_look: Duration,
    /// When the newest compaction was decided, or the member started.
    last: Duration,
    /// Newest revision asked for.
    compacted: i64,
}

impl Compactor {
    /// Starts at `now` on the monotonic clock.
    #[must_use]
    pub fn new(mode: CompactionMode, now: Duration) -> Self {
        let mut compactor = Self { mode, notes: VecDeque::new(), next_look: now, last: now, compacted: 0 };
        if let CompactionMode::Revision(_) = mode {
            compactor.next_look = now + REVISION_INTERVAL;
        }
        compactor
    }

    /// What to compact to now, if anything. Call at least every few seconds.
    pub fn poll(&mut self, now: Duration, leads: bool, revision: i64) -> Option<i64> {
        if now < self.next_look {
            return None;
        }
        let target = match self.mode {
            CompactionMode::Off => return None,
            CompactionMode::Periodic(period) => self.poll_periodic(now, leads, revision, period),
            CompactionMode::Revision(keep) => {
                self.next_look = now + REVISION_INTERVAL;
                leads.then(|| revision - keep)
            }
        };
        let target = target.filter(|&target| target > self.compacted && target > 0)?;
        self.compacted = target;
        Some(target)
    }

    fn poll_periodic(&mut self, now: Duration, leads: bool, revision: i64, period: Duration) -> Option<i64> {
        let step = period.min(PERIOD_STEP_MAX);
        let interval = (step / NOTES_PER_STEP).max(Duration::from_nanos(1));
        self.next_look = now + interval;
        self.notes.push_back(revision);
        let full = usize::try_from(period.as_nanos() / interval.as_nanos()).unwrap_or(usize::MAX).max(1);
        while self.notes.len() > full {
            self.notes.pop_front();
        }
        let due = self.last + if self.compacted == 0 { period } else { step };
        if !leads || self.notes.len() < full || now < due {
            return None;
        }
        self.last = now;
        self.notes.front().copied()
    }

    /// It did not come to pass: ask for it again.
    pub fn failed(&mut self, target: i64) {
        if self.compacted == target {
            self.compacted = target - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CompactionMode, Compactor};
    use std::time::Duration;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Every revision asked for in `minutes`, with one new revision a minute.
    fn run(mode: CompactionMode, minutes: u32, leads: impl Fn(u32) -> bool) -> Vec<(u32, i64)> {
        let mut compactor = Compactor::new(mode, Duration::ZERO);
        let revision = i64::from;
        (0..minutes)
            .filter_map(|at| compactor.poll(MINUTE * at, leads(at), revision(at)).map(|target| (at, target)))
            .collect()
    }

    #[test]
    fn periods_up_to_an_hour() {
        let asked = run(CompactionMode::Periodic(MINUTE * 10), 35, |_| true);
        assert_eq!(asked, [(10, 1), (20, 11), (30, 21)]);
    }

    #[test]
    fn longer_periods_compact_hourly() {
        let asked = run(CompactionMode::Periodic(MINUTE * 120), 245, |_| true);
        assert_eq!(asked, [(120, 6), (180, 66), (240, 126)]);
    }

    #[test]
    fn revisions_are_kept() {
        let asked = run(CompactionMode::Revision(8), 21, |_| true);
        assert_eq!(asked, [(10, 2), (15, 7), (20, 12)]);
    }

    #[test]
    fn only_the_leader_asks() {
        assert_eq!(run(CompactionMode::Revision(1), 30, |_| false), []);
        assert_eq!(run(CompactionMode::Periodic(MINUTE * 10), 30, |at| at > 15), [(16, 7), (26, 17)]);
        assert_eq!(run(CompactionMode::Off, 30, |_| true), []);
    }

    #[test]
    fn a_failure_is_tried_again() {
        let mut compactor = Compactor::new(CompactionMode::Revision(10), Duration::ZERO);
        assert_eq!(compactor.poll(MINUTE * 5, true, 100), Some(90));
        assert_eq!(compactor.poll(MINUTE * 10, true, 100), None);
        compactor.failed(90);
        assert_eq!(compactor.poll(MINUTE * 15, true, 100), Some(90));
    }
}
