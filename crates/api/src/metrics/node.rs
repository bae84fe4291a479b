//! What Raft, the log and apply count.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use milepost_machine::OPERATIONS;
use milepost_node::metrics::{HistogramReading, NodeMetrics};

use super::tally::Histogram;
use super::text::Text;

/// Appends the node's part of the page.
pub(crate) fn render(text: &mut Text, node: &NodeMetrics) {
    let flags: [(&str, &str, &AtomicBool); 4] = [
        ("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", &node.has_leader),
        ("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", &node.is_leader),
        ("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", &node.is_learner),
        (
            "etcd_server_snapshot_apply_in_progress_total",
            "1 if the server is applying the incoming snapshot. 0 if none.",
            &node.snapshot_apply_in_progress,
        ),
    ];
    for (name, help, flag) in flags {
        text.gauge(name, help, u8::from(flag.load(Relaxed)));
    }
    let gauges: [(&str, &str, &AtomicU64); 4] = [
        (
            "etcd_server_proposals_pending",
            "The current number of pending proposals to commit.",
            &node.proposals_pending,
        ),
        (
            "etcd_server_proposals_committed_total",
            "The total number of consensus proposals committed.",
            &node.proposals_committed_total,
        ),
        (
            "etcd_server_proposals_applied_total",
            "The total number of consensus proposals applied.",
            &node.proposals_applied_total,
        ),
        ("etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL.", &node.wal_write_bytes_total),
    ];
    for (name, help, value) in gauges {
        text.gauge(name, help, value.load(Relaxed));
    }
    for (name, help, value) in counters(node) {
        text.counter(name, help, value.load(Relaxed));
    }
    let histograms = [
        (
            "etcd_disk_wal_fsync_duration_seconds",
            "The latency distributions of fsync called by WAL.",
            node.wal_fsync_duration_seconds.read(),
        ),
        (
            "etcd_disk_wal_write_duration_seconds",
            "The latency distributions of write called by WAL.",
            node.wal_write_duration_seconds.read(),
        ),
        (
            "etcd_snap_fsync_duration_seconds",
            "The latency distributions of fsync called by snap.",
            node.snap_fsync_duration_seconds.read(),
        ),
        (
            "etcd_snap_db_fsync_duration_seconds",
            "The latency distributions of fsyncing .snap.db file",
            node.snap_db_fsync_duration_seconds.read(),
        ),
        (
            "etcd_snap_db_save_total_duration_seconds",
            "The total latency distributions of v3 snapshot save",
            node.snap_db_save_total_duration_seconds.read(),
        ),
        (
            "etcd_debugging_snap_save_total_duration_seconds",
            "The total latency distributions of save called by snapshot.",
            node.snap_save_total_duration_seconds.read(),
        ),
        (
            "etcd_debugging_snap_save_marshalling_duration_seconds",
            "The marshalling cost distributions of save called by snapshot.",
            node.snap_save_marshalling_duration_seconds.read(),
        ),
    ];
    for (name, help, reading) in histograms {
        text.family(name, "histogram", help);
        text.histogram(name, &[], &from_reading(&reading));
    }
    let name = "etcd_server_apply_duration_seconds";
    text.family(name, "histogram", "The latency distributions of v2 apply called by backend.");
    for (operation, outcomes) in OPERATIONS.iter().zip(&node.apply_duration_seconds) {
        for (outcome, success) in outcomes.iter().zip(["true", "false"]) {
            let reading = outcome.read();
            if reading.count > 0 {
                let labels = [("version", "v3"), ("op", operation), ("success", success)];
                text.histogram(name, &labels, &from_reading(&reading));
            }
        }
    }
}

fn counters(node: &NodeMetrics) -> [(&'static str, &'static str, &AtomicU64); 10] {
    [
        (
            "etcd_server_leader_changes_seen_total",
            "The number of leader changes seen.",
            &node.leader_changes_seen_total,
        ),
        (
            "etcd_server_proposals_failed_total",
            "The total number of failed proposals seen.",
            &node.proposals_failed_total,
        ),
        (
            "etcd_server_read_indexes_failed_total",
            "The total number of failed read indexes seen.",
            &node.read_indexes_failed_total,
        ),
        (
            "etcd_server_slow_read_indexes_total",
            "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
            &node.slow_read_indexes_total,
        ),
        (
            "etcd_server_slow_apply_total",
            "The total number of slow apply requests (likely overloaded from slow disk).",
            &node.slow_apply_total,
        ),
        (
            "etcd_server_heartbeat_send_failures_total",
            "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
            &node.heartbeat_send_failures_total,
        ),
        ("etcd_debugging_server_lease_expired_total", "The total number of expired leases.", &node.lease_expired_total),
        ("milepost_log_batches_total", "Batches of entries that were synced to the log together.", &node.log_batches),
        ("milepost_log_entries_total", "Entries written to the log.", &node.log_entries),
        (
            "milepost_peer_messages_refused_total",
            "Messages of other members that were not let in.",
            &node.messages_refused,
        ),
    ]
}

/// The node reads its buckets cumulatively; the page adds them up itself.
fn from_reading(reading: &HistogramReading) -> Histogram {
    let mut below = 0;
    let inside = |(bound, count): &(std::time::Duration, u64)| {
        let inside = count - std::mem::replace(&mut below, *count);
        (bound.as_secs_f64(), inside)
    };
    let buckets = reading.cumulative.iter().map(inside).collect();
    Histogram { buckets, count: reading.count, sum: reading.sum.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_nodes_histograms_come_out_as_they_went_in() {
        let node = NodeMetrics::default();
        for millis in [1, 3, 9000] {
            node.wal_fsync_duration_seconds.observe(Duration::from_millis(millis));
        }
        node.has_leader.store(true, Relaxed);
        let mut text = Text::default();
        render(&mut text, &node);
        let page = text.finish();
        for line in [
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 1",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.002\"} 1",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"} 2",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 2",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 3",
            "etcd_disk_wal_fsync_duration_seconds_sum 9.004",
            "etcd_server_has_leader 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
    }
}
