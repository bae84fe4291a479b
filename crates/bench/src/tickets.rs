//! Who may send next: numbered tickets until the total or the deadline, as fast as clients ask or at a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// When a phase ends: after so many requests, or when the time is up and what was sent is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// This many requests.
    Total(u64),
    /// This long.
    Duration(Duration),
}

/// Permission to send request number `n`.
pub struct Ticket {
    /// Counts from 0 within the phase.
    pub n: u64,
    /// Latency counts from here: when the request was due, or in a closed loop when it was asked for.
    pub since: Instant,
}

/// The tickets of one phase, shared by all clients of all threads.
pub struct Tickets {
    next: AtomicU64,
    answered: AtomicU64,
    /// First number that is not sent any more. The pacer lowers it when the time is up.
    end: AtomicU64,
    start: Instant,
    deadline: Option<Instant>,
    pace: Option<Pace>,
}

struct Pace {
    per_second: f64,
    due: Semaphore,
}

/// How often the pacer looks at the clock. Much finer than the latencies of interest, coarse enough to cost ~1 % CPU.
const PACER_STEP: Duration = Duration::from_micros(250);

/// Permits that end an open loop. A semaphore holds up to usize::MAX / 8; clients are bounded far below this.
const MORE_THAN_CLIENTS: usize = 1 << 24;

impl Tickets {
    /// Tickets from now on; with `rate` (requests per second) an open loop: [`pace`] must then run on a
    /// thread of its own.
    pub fn new(until: Until, rate: Option<f64>) -> Arc<Tickets> {
        let start = Instant::now();
        let (total, deadline) = match until {
            Until::Total(total) => (total, None),
            Until::Duration(length) => (u64::MAX, Some(start + length)),
        };
        let pace = rate.map(|per_second| Pace { per_second, due: Semaphore::new(0) });
        let (next, answered, end) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(total));
        Arc::new(Tickets { next, answered, end, start, deadline, pace })
    }

    /// When the phase began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The next ticket, or `None` when the phase is over. `now` spares a look at the clock in the closed loop: the
    /// moment of the previous answer is the moment of the next request. Cancel-safe.
    pub async fn next(&self, now: Instant) -> Option<Ticket> {
        if let Some(pace) = &self.pace {
            pace.due.acquire().await.ok()?.forget();
        } else if self.deadline.is_some_and(|deadline| now >= deadline) {
            return None;
        }
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        if n >= self.end.load(Ordering::Acquire) {
            return None;
        }
        let since = self.pace.as_ref().map_or(now, |pace| self.start + pace.offset(n));
        Some(Ticket { n, since })
    }

    /// Ends the phase: nobody is left to take tickets. The pacer sees it at its next step.
    pub fn stop(&self) {
        self.end.store(0, Ordering::Release);
    }

    /// Counts an answer, good or bad: the watchdog's sign of life.
    pub fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// How many answers came so far.
    pub fn answers(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Number of tickets due at `now` in an open loop, and whether that is the last of them.
    fn due(&self, pace: &Pace, now: Instant) -> (u64, bool) {
        let end = self.deadline.unwrap_or(now).min(now);
        let due = (end.saturating_duration_since(self.start).as_secs_f64() * pace.per_second) as u64 + 1;
        let total = self.end.load(Ordering::Relaxed);
        let over = due >= total || self.deadline.is_some_and(|deadline| now >= deadline);
        (due.min(total), over)
    }
}

impl Pace {
    fn offset(&self, n: u64) -> Duration {
        Duration::from_secs_f64(n as f64 / self.per_second)
    }
}

/// Lets the tickets of an open loop out when they are due, until the phase is over. Does nothing for a closed loop.
/// Blocks its thread: a runtime's timer, with its steps of a millisecond, would make requests late by itself.
pub fn pace(tickets: &Tickets) {
    let Some(pace) = &tickets.pace else { return };
    let mut issued = 0;
    loop {
        let (due, over) = tickets.due(pace, Instant::now());
        pace.due.add_permits(due.saturating_sub(issued) as usize);
        issued = due;
        if over {
            break;
        }
        std::thread::sleep(PACER_STEP);
    }
    // Wake whoever still waits: they draw numbers from here on and see that it is over.
    tickets.end.store(issued, Ordering::Release);
    pace.due.add_permits(MORE_THAN_CLIENTS);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(tickets: &Tickets) -> Vec<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut seen = Vec::new();
            while let Some(ticket) = tickets.next(tickets.start).await {
                seen.push(ticket.n);
                tickets.answered();
            }
            seen
        })
    }

    #[test]
    fn a_total_is_kept_exactly() {
        let tickets = Tickets::new(Until::Total(5), None);
        assert_eq!(drain(&tickets), [0, 1, 2, 3, 4]);
        assert_eq!(tickets.answers(), 5);
    }

    #[test]
    fn a_deadline_turns_away_whoever_comes_later() {
        let tickets = Tickets::new(Until::Duration(Duration::from_secs(3600)), None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            assert!(tickets.next(tickets.start + Duration::from_secs(3599)).await.is_some());
            assert!(tickets.next(tickets.start + Duration::from_secs(3600)).await.is_none());
        });
    }

    #[test]
    fn an_open_loop_counts_from_when_a_request_was_due() {
        let tickets = Tickets::new(Until::Total(50), Some(1000.0));
        std::thread::scope(|scope| {
            scope.spawn(|| pace(&tickets));
            assert_eq!(drain(&tickets).len(), 50);
        });
        let pace = tickets.pace.as_ref().unwrap();
        assert_eq!(pace.offset(20), Duration::from_millis(20));
        assert!(tickets.start.elapsed() >= pace.offset(49), "the last one was handed out early");
    }

    #[test]
    fn what_is_due_follows_the_clock_up_to_the_end() {
        let tickets = Tickets::new(Until::Duration(Duration::from_secs(2)), Some(100.0));
        let pace = tickets.pace.as_ref().unwrap();
        let at = |millis| tickets.due(pace, tickets.start + Duration::from_millis(millis));
        assert_eq!(at(0), (1, false));
        assert_eq!(at(1000), (101, false));
        assert_eq!(at(5000), (201, true));
    }
}
