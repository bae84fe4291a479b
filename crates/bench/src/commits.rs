//! Puts beside the commits of the server's store: which of them ran while one was under way.
//!
//! The server's page of metrics tells from when to when its last commit went. It is asked often enough that few commits are
//! missed; what was answered while one may have been missed belongs to neither side.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};

use crate::endpoint::Endpoint;
use crate::meter::Meter;
use crate::metrics;
use crate::work::{Put, Work};

/// Between two looks. Commits are half a second apart or further; a look costs the server a page of metrics.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the end of a commit is waited for that may be under way when the load ends.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// The server does not tell.
#[derive(Debug, thiserror::Error)]
#[error("the server does not tell in /metrics when it commits ({START}); ours does, without TLS")]
pub struct Untold;

const COUNT: &str = "etcd_disk_backend_commit_duration_seconds_count";
const START: &str = "milepost_store_last_commit_start_seconds";
const END: &str = "milepost_store_last_commit_end_seconds";

/// Puts whose times are kept.
pub struct Timed {
    put: Put,
    times: Mutex<Vec<(Instant, Instant)>>,
}

impl Timed {
    /// Of these puts.
    pub fn new(put: Put) -> Timed {
        Timed { put, times: Mutex::default() }
    }

    /// From when to when each answered put went, since this was asked last.
    pub fn take(&self) -> Vec<(Instant, Instant)> {
        std::mem::take(&mut *self.times.lock().expect("nobody panics with it"))
    }
}

impl Work for Timed {
    fn path(&self) -> &'static str {
        self.put.path()
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        self.put.encode(n, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        self.put.check(n, answer)
    }

    fn timed(&self, since: Instant, now: Instant) {
        self.times.lock().expect("nobody panics with it").push((since, now));
    }
}

/// What a page says.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Look {
    count: f64,
    /// Of the last commit, in seconds of unix time.
    start: f64,
    end: f64,
}

impl Look {
    fn at(endpoint: &Endpoint) -> Option<Look> {
        let [count, start, end] = metrics::values(endpoint, [COUNT, START, END])?;
        Some(Look { count, start, end })
    }
}

/// Looks at a server's commits on a thread of its own.
pub struct Poll {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<Vec<Look>>>,
    /// One moment on both clocks.
    anchor: (Instant, f64),
}

impl Poll {
    /// Begins.
    ///
    /// # Errors
    /// The server does not tell.
    pub fn start(endpoint: &Endpoint) -> Result<Poll, Untold> {
        let first = Look::at(endpoint).ok_or(Untold)?;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let anchor = (Instant::now(), unix);
        let stop = Arc::new(AtomicBool::new(false));
        let (ours, endpoint) = (stop.clone(), endpoint.clone());
        let run = move || looks(&endpoint, first, &ours);
        let thread = std::thread::Builder::new().name("commits".into()).spawn(run);
        Ok(Poll { stop, thread: thread.expect("the system grants a thread"), anchor })
    }

    /// Waits for the end of the commit that may be under way, and ends.
    ///
    /// # Errors
    /// The server has ceased to tell.
    pub fn stop(self) -> Result<Commits, Untold> {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let looks = self.thread.join().expect("a thread that looks does not panic").ok_or(Untold)?;
        Ok(Commits { stretches: stretches(&looks), anchor: self.anchor })
    }
}

fn looks(endpoint: &Endpoint, first: Look, stop: &AtomicBool) -> Option<Vec<Look>> {
    let mut looks = vec![first];
    let mut last_chance: Option<Instant> = None;
    loop {
        std::thread::park_timeout(LOOK_EVERY);
        let look = Look::at(endpoint)?;
        let is_new = looks.last().is_none_or(|last| last.count < look.count);
        if is_new {
            looks.push(look);
        }
        if stop.load(Ordering::Acquire) {
            // Whatever is under way now has begun before the load's end. A server without changes has none to wait for.
            let chance = *last_chance.get_or_insert_with(|| Instant::now() + LAST_PATIENCE);
            if is_new || Instant::now() > chance {
                return Some(looks);
            }
        }
    }
}

/// A stretch of time, in seconds of unix time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stretch {
    start: f64,
    end: f64,
    /// A commit; else a time during which one may have been missed.
    is_commit: bool,
}

/// Stretches without overlap, ascending.
fn stretches(looks: &[Look]) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    for pair in looks.windows(2) {
        let (before, look) = (pair[0], pair[1]);
        if look.count > before.count + 1.0 {
            stretches.push(Stretch { start: before.end, end: look.start, is_commit: false });
        }
        stretches.push(Stretch { start: look.start, end: look.end, is_commit: true });
    }
    stretches
}

/// When the server was committing.
pub struct Commits {
    stretches: Vec<Stretch>,
    anchor: (Instant, f64),
}

impl Commits {
    /// Commits that were seen.
    pub fn count(&self) -> usize {
        self.seen().count()
    }

    /// How long they took.
    pub fn mean_us(&self) -> f64 {
        let sum = self.seen().fold(0.0, |sum, stretch| sum + (stretch.end - stretch.start));
        (sum * 1e6 / (self.count().max(1) as f64)).round()
    }

    fn seen(&self) -> impl Iterator<Item = &Stretch> {
        self.stretches.iter().filter(|stretch| stretch.is_commit)
    }

    /// Times of which some part ran beside a commit, and those of which none did.
    pub fn split(&self, times: &[(Instant, Instant)]) -> (Meter, Meter) {
        let (mut during, mut otherwise) = (Meter::default(), Meter::default());
        for &(since, now) in times {
            let (start, end) = (self.unix(since), self.unix(now));
            let first = self.stretches.partition_point(|stretch| stretch.end <= start);
            let beside = || self.stretches[first..].iter().take_while(|stretch| stretch.start < end);
            let meter = match (beside().any(|stretch| stretch.is_commit), beside().next()) {
                (true, _) => &mut during,
                (false, None) => &mut otherwise,
                (false, Some(_)) => continue,
            };
            meter.record(now.saturating_duration_since(since));
        }
        (during, otherwise)
    }

    fn unix(&self, at: Instant) -> f64 {
        let (instant, unix) = self.anchor;
        let ahead = at.saturating_duration_since(instant).as_secs_f64();
        unix + ahead - instant.saturating_duration_since(at).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_are_told_apart_by_the_commits_that_they_met() {
        let look = |count, start, end| Look { count, start, end };
        // One before everything, one seen, one missed, one seen.
        let looks = [look(7.0, 990.0, 991.0), look(8.0, 1001.0, 1002.0), look(10.0, 1005.0, 1006.0)];
        let start = Instant::now();
        let commits = Commits { stretches: stretches(&looks), anchor: (start, 1000.0) };
        assert_eq!((commits.count(), commits.mean_us()), (2, 1e6));
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let cases = [
            (0.1, 0.9, "otherwise"),
            (0.9, 1.1, "during"),
            (1.2, 1.3, "during"),
            (1.9, 2.5, "during"),
            (0.5, 7.0, "during"),
            (2.1, 2.2, "neither"),
            (4.0, 4.9, "neither"),
            (4.9, 5.1, "during"),
            (6.1, 9.0, "otherwise"),
        ];
        for (since, now, side) in cases {
            let (during, otherwise) = commits.split(&[(at(since), at(now))]);
            let found = match (during.count(), otherwise.count()) {
                (1, 0) => "during",
                (0, 1) => "otherwise",
                _ => "neither",
            };
            assert_eq!(found, side, "{since} to {now}");
        }
    }
}
