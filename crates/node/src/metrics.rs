//! What the node counts. Plain numbers; the door that shows them knows their names.
//!
//! Fields are named after etcd's metrics (`facts/metrics.md`), and keep their oddities: some "totals" are gauges.

use milepost_machine::OPERATIONS;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A histogram whose bounds double: `first`, `first` × 2, … , `N` buckets, then everything above.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// Upper bound of the first bucket.
    first: Duration,
    /// Observations at or below each bound and above the one before; not cumulative.
    buckets: [AtomicU64; N],
    /// Observations above the last bound.
    above: AtomicU64,
    sum_nanos: AtomicU64,
}

/// A histogram as it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramReading {
    /// (upper bound, observations at or below it), cumulative, ascending; without the infinite one.
    pub cumulative: Vec<(Duration, u64)>,
    /// All observations.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
}

impl<const N: usize> Histogram<N> {
    const fn new(first: Duration) -> Self {
        Self {
            first,
            buckets: [const { AtomicU64::new(0) }; N],
            above: AtomicU64::new(0),
            sum_nanos: AtomicU64::new(0),
        }
    }

    /// Counts one.
    pub fn observe(&self, value: Duration) {
        let mut bound = self.first;
        let mut bucket = &self.above;
        for candidate in &self.buckets {
            if value <= bound {
                bucket = candidate;
                break;
            }
            bound *= 2;
        }
        bucket.fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// As it stands.
    #[must_use]
    pub fn read(&self) -> HistogramReading {
        let mut count = 0;
        let mut bound = self.first;
        let mut cumulative = Vec::with_capacity(N);
        for bucket in &self.buckets {
            count += bucket.load(Ordering::Relaxed);
            cumulative.push((bound, count));
            bound *= 2;
        }
        count += self.above.load(Ordering::Relaxed);
        HistogramReading { cumulative, count, sum: Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)) }
    }
}

/// Everything that the node counts.
#[derive(Debug)]
pub struct NodeMetrics {
    /// 1 while a leader is known.
    pub has_leader: AtomicBool,
    /// 1 while this member leads.
    pub is_leader: AtomicBool,
    /// 1 while this member is a learner.
    pub is_learner: AtomicBool,
    /// Leaders seen, one for each change to a known leader.
    pub leader_changes_seen_total: AtomicU64,
    /// Proposals that were refused or not answered in time.
    pub proposals_failed_total: AtomicU64,
    /// Gauge: proposals without an answer.
    pub proposals_pending: AtomicU64,
    /// Gauge: the commit index.
    pub proposals_committed_total: AtomicU64,
    /// Gauge: the applied index.
    pub proposals_applied_total: AtomicU64,
    /// Linearizable reads without a confirmation in time.
    pub read_indexes_failed_total: AtomicU64,
    /// Linearizable reads whose confirmation had to be asked for again.
    pub slow_read_indexes_total: AtomicU64,
    /// Entries that took longer to apply than `--warning-apply-duration`.
    pub slow_apply_total: AtomicU64,
    /// Heartbeats that the leader sent late.
    pub heartbeat_send_failures_total: AtomicU64,
    /// Leases that ran out and were proposed to be revoked.
    pub lease_expired_total: AtomicU64,
    /// Syncs of the log.
    pub wal_fsync_duration_seconds: Histogram<14>,
    /// Writes to the log.
    pub wal_write_duration_seconds: Histogram<14>,
    /// Gauge: bytes written to the log since the start.
    pub wal_write_bytes_total: AtomicU64,
    /// Applying one request: by [`milepost_machine::OPERATIONS`], and done or refused.
    pub apply_duration_seconds: Vec<[Histogram<20>; 2]>,
    /// Making the bytes of a `.snap` file.
    pub snap_save_marshalling_duration_seconds: Histogram<14>,
    /// Writing it.
    pub snap_fsync_duration_seconds: Histogram<14>,
    /// Syncing the file of a received snapshot.
    pub snap_db_fsync_duration_seconds: Histogram<14>,
    /// Receiving that file, its sync included.
    pub snap_db_save_total_duration_seconds: Histogram<10>,
    /// A received snapshot is taking the place of the state.
    pub snapshot_apply_in_progress: AtomicBool,
    /// Making a whole snapshot point: the file and the log's note of it.
    pub snap_save_total_duration_seconds: Histogram<14>,
    /// Batches that the log thread synced; with the number of entries: how well syncs are shared. Ours.
    pub log_batches: AtomicU64,
    /// Entries written to the log. Ours.
    pub log_entries: AtomicU64,
    /// Peers' messages that were not let in. Ours.
    pub messages_refused: AtomicU64,
}

const MILLISECOND: Duration = Duration::from_millis(1);

impl Default for NodeMetrics {
    fn default() -> Self {
        Self {
            has_leader: AtomicBool::new(false),
            is_leader: AtomicBool::new(false),
            is_learner: AtomicBool::new(false),
            leader_changes_seen_total: AtomicU64::new(0),
            proposals_failed_total: AtomicU64::new(0),
            proposals_pending: AtomicU64::new(0),
            proposals_committed_total: AtomicU64::new(0),
            proposals_applied_total: AtomicU64::new(0),
            read_indexes_failed_total: AtomicU64::new(0),
            slow_read_indexes_total: AtomicU64::new(0),
            slow_apply_total: AtomicU64::new(0),
            heartbeat_send_failures_total: AtomicU64::new(0),
            lease_expired_total: AtomicU64::new(0),
            wal_fsync_duration_seconds: Histogram::new(MILLISECOND),
            wal_write_duration_seconds: Histogram::new(MILLISECOND),
            wal_write_bytes_total: AtomicU64::new(0),
            apply_duration_seconds: OPERATIONS
                .iter()
                .map(|_| std::array::from_fn(|_| Histogram::new(Duration::from_micros(100))))
                .collect(),
            snap_save_marshalling_duration_seconds: Histogram::new(MILLISECOND),
            snap_fsync_duration_seconds: Histogram::new(MILLISECOND),
            snap_db_fsync_duration_seconds: Histogram::new(MILLISECOND),
            snap_db_save_total_duration_seconds: Histogram::new(100 * MILLISECOND),
            snapshot_apply_in_progress: AtomicBool::new(false),
            snap_save_total_duration_seconds: Histogram::new(MILLISECOND),
            log_batches: AtomicU64::new(0),
            log_entries: AtomicU64::new(0),
            messages_refused: AtomicU64::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Histogram, MILLISECOND};
    use std::time::Duration;

    #[test]
    fn a_value_at_a_bound_belongs_to_it() {
        let histogram: Histogram<14> = Histogram::new(MILLISECOND);
        for millis in [0, 1, 2, 3, 8192, 8193] {
            histogram.observe(Duration::from_millis(millis));
        }
        let reading = histogram.read();
        assert_eq!(reading.cumulative[0], (MILLISECOND, 2));
        assert_eq!(reading.cumulative[1], (MILLISECOND * 2, 3));
        assert_eq!(reading.cumulative[2], (MILLISECOND * 4, 4));
        assert_eq!(reading.cumulative[13], (MILLISECOND * 8192, 5));
        assert_eq!((reading.count, reading.sum), (6, Duration::from_millis(16_391)));
    }
}
