//! How long the store's background work takes. The store has no clock: it says when work begins and ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use milepost_mvcc::{Observer, Work};
use parking_lot::Mutex;

use super::tally::{Histogram, Timings, doubling};
use super::text::Text;

static COMMIT_BOUNDS: [f64; 14] = doubling(0.001);
/// In seconds; shown in milliseconds, of which etcd's first bound is one.
static STEP_BOUNDS: [f64; 13] = doubling(0.001);
/// Likewise.
static COMPACTION_BOUNDS: [f64; 14] = doubling(0.1);
static DEFRAGMENT_BOUNDS: [f64; 13] = doubling(0.1);

/// Times of commits and defragmentations.
#[derive(Debug)]
pub(crate) struct Background {
    commit: Stopwatch<14>,
    compaction: Stopwatch<14>,
    compaction_step: Stopwatch<13>,
    defragment: Stopwatch<13>,
    /// Unix time of the end of the last compaction, in seconds; 0: none yet.
    compacted: AtomicU64,
    /// From when to when the last commit went; the epoch: none yet.
    last_commit: Mutex<(SystemTime, SystemTime)>,
}

/// Of each kind one work is under way at a time, so its times have one writer, though not always the same thread.
#[derive(Debug)]
struct Stopwatch<const N: usize> {
    // Held for a store or a load.
    began: Mutex<Option<Instant>>,
    times: Timings<N>,
}

impl<const N: usize> Stopwatch<N> {
    fn new(bounds: &'static [f64; N]) -> Self {
        Self { began: Mutex::new(None), times: Timings::new(bounds) }
    }

    fn begin(&self) {
        *self.began.lock() = Some(Instant::now());
    }

    /// Returns how long it took, if it had a beginning.
    fn end(&self) -> Option<Duration> {
        // Taken under the lock that the next one begins with: what is counted is seen by it.
        let mut began = self.began.lock();
        let took = began.take()?.elapsed();
        self.times.observe(took);
        Some(took)
    }

    fn read(&self) -> Histogram {
        let mut sum = Histogram::default();
        self.times.add_to(&mut sum);
        sum
    }
}

impl Background {
    pub(crate) fn new() -> Self {
        Self {
            commit: Stopwatch::new(&COMMIT_BOUNDS),
            compaction: Stopwatch::new(&COMPACTION_BOUNDS),
            compaction_step: Stopwatch::new(&STEP_BOUNDS),
            defragment: Stopwatch::new(&DEFRAGMENT_BOUNDS),
            compacted: AtomicU64::new(0),
            last_commit: Mutex::new((UNIX_EPOCH, UNIX_EPOCH)),
        }
    }

    /// Appends the times.
    pub(crate) fn render(&self, text: &mut Text) {
        let name = "etcd_disk_backend_commit_duration_seconds";
        text.family(name, "histogram", "The latency distributions of commit called by backend.");
        text.histogram(name, &[], &self.commit.read());
        let (began, ended) = *self.last_commit.lock();
        let unix = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let help = "The unix time at which the last commit of the store began. 0 before the first.";
        text.gauge("milepost_store_last_commit_start_seconds", help, unix(began));
        let help = "The unix time at which the last commit of the store ended. 0 before the first.";
        text.gauge("milepost_store_last_commit_end_seconds", help, unix(ended));
        let name = "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds";
        text.family(name, "histogram", "Bucketed histogram of db compaction pause duration.");
        text.histogram(name, &[], &self.compaction_step.read().in_milliseconds());
        let name = "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds";
        text.family(name, "histogram", "Bucketed histogram of db compaction total duration.");
        text.histogram(name, &[], &self.compaction.read().in_milliseconds());
        let help = "The unix time of the last db compaction. Resets to 0 on start.";
        text.gauge("etcd_debugging_mvcc_db_compaction_last", help, self.compacted.load(Ordering::Relaxed));
        let name = "etcd_disk_backend_defrag_duration_seconds";
        text.family(name, "histogram", "The latency distribution of backend defragmentation.");
        text.histogram(name, &[], &self.defragment.read());
        let help = "Whether or not defrag is active on the member. 1 means active, 0 means not.";
        text.gauge("etcd_disk_defrag_inflight", help, u8::from(self.defragment.began.lock().is_some()));
    }
}

impl Observer for Background {
    fn begin(&self, work: Work) {
        match work {
            Work::Commit => self.commit.begin(),
            Work::Compaction => self.compaction.begin(),
            Work::CompactionStep => self.compaction_step.begin(),
            Work::Defragmentation => self.defragment.begin(),
        }
    }

    fn end(&self, work: Work) {
        match work {
            Work::Commit => {
                if let Some(took) = self.commit.end() {
                    let now = SystemTime::now();
                    *self.last_commit.lock() = (now.checked_sub(took).unwrap_or(UNIX_EPOCH), now);
                }
            }
            Work::CompactionStep => drop(self.compaction_step.end()),
            Work::Compaction => {
                self.compaction.end();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.compacted.store(now.as_secs(), Ordering::Relaxed);
            }
            Work::Defragmentation => drop(self.defragment.end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(background: &Background) -> String {
        let mut text = Text::default();
        background.render(&mut text);
        text.finish()
    }

    #[test]
    fn work_is_counted_when_it_ends() {
        let background = Background::new();
        assert!(page(&background).contains("\nmilepost_store_last_commit_end_seconds 0\n"), "none yet");
        background.begin(Work::Defragmentation);
        background.begin(Work::Commit);
        background.end(Work::Commit);
        let during = page(&background);
        assert!(during.contains("\netcd_disk_defrag_inflight 1\n"), "{during}");
        assert!(during.contains("\netcd_disk_backend_commit_duration_seconds_count 1\n"), "{during}");
        assert!(during.contains("\netcd_disk_backend_defrag_duration_seconds_count 0\n"), "{during}");
        let told = |name: &str| -> f64 {
            let line = during.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {during}"))
        };
        let [began, ended] = ["start", "end"].map(|what| told(&format!("milepost_store_last_commit_{what}_seconds")));
        assert!(began > 1e9 && ended >= began, "{began} {ended}");
        background.end(Work::Defragmentation);
        background.end(Work::CompactionStep);
        let after = page(&background);
        assert!(after.contains("\netcd_disk_defrag_inflight 0\n"), "{after}");
        assert!(after.contains("\netcd_disk_backend_defrag_duration_seconds_count 1\n"), "{after}");
        assert!(
            after.contains("\netcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count 0\n"),
            "an end without a beginning"
        );
    }
}
