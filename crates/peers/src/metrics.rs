//! What goes to and comes from other members, counted under etcd's names. Source: etcd `rafthttp/metrics.go`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milepost_types::MemberId;
use parking_lot::Mutex;

/// Members that are counted one by one; strangers beyond them share one row, which is not shown.
const ROWS_MAX: usize = 1024;
/// etcd's label for a snapshot that was refused before its message was read.
const UNKNOWN_SENDER: &str = "UNKNOWN_SNAPSHOT_SENDER";

/// A count; never goes back unless it is a gauge.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn take_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations in buckets whose bounds double.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper bound of the first bucket.
    first: Duration,
    buckets: Vec<Tally>,
    count: Tally,
    sum_nanos: Tally,
}

impl Histogram {
    fn new(first: Duration, buckets: usize) -> Self {
        let buckets = (0..buckets).map(|_| Tally::default()).collect();
        Self { first, buckets, count: Tally::default(), sum_nanos: Tally::default() }
    }

    pub(crate) fn observe(&self, value: Duration) {
        let mut bound = self.first;
        for bucket in &self.buckets {
            if value <= bound {
                bucket.add(1);
                break;
            }
            bound *= 2;
        }
        self.sum_nanos.add(usize::try_from(value.as_nanos()).unwrap_or(usize::MAX));
        self.count.add(1);
    }

    fn render(&self, out: &mut String, name: &str, label: &str) {
        let (mut bound, mut below) = (self.first, 0);
        for bucket in &self.buckets {
            below += bucket.get();
            line(out, format_args!("{name}_bucket{{{label},le=\"{}\"}} {below}", bound.as_secs_f64()));
            bound *= 2;
        }
        let count = self.count.get();
        line(out, format_args!("{name}_bucket{{{label},le=\"+Inf\"}} {count}"));
        let sum = Duration::from_nanos(self.sum_nanos.get()).as_secs_f64();
        line(out, format_args!("{name}_sum{{{label}}} {sum}"));
        line(out, format_args!("{name}_count{{{label}}} {count}"));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
    out.push('\n');
}

/// One direction of snapshots.
#[derive(Debug)]
pub(crate) struct Transfers {
    pub(crate) done: Tally,
    pub(crate) failed: Tally,
    pub(crate) under_way: Tally,
    pub(crate) seconds: Histogram,
}

impl Default for Transfers {
    fn default() -> Self {
        let seconds = Histogram::new(Duration::from_millis(100), 10);
        Self { done: Tally::default(), failed: Tally::default(), under_way: Tally::default(), seconds }
    }
}

/// What is counted of one other member.
#[derive(Debug)]
pub(crate) struct Row {
    /// 1 while it is connected.
    pub(crate) active: Tally,
    pub(crate) disconnected: Tally,
    pub(crate) sent_bytes: Tally,
    pub(crate) sent_failures: Tally,
    pub(crate) received_bytes: Tally,
    pub(crate) received_failures: Tally,
    pub(crate) snapshots_sent: Transfers,
    pub(crate) snapshots_received: Transfers,
    pub(crate) round_trip: Histogram,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            active: Tally::default(),
            disconnected: Tally::default(),
            sent_bytes: Tally::default(),
            sent_failures: Tally::default(),
            received_bytes: Tally::default(),
            received_failures: Tally::default(),
            snapshots_sent: Transfers::default(),
            snapshots_received: Transfers::default(),
            round_trip: Histogram::new(Duration::from_micros(100), 16),
        }
    }
}

/// All counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    rows: Mutex<BTreeMap<MemberId, Arc<Row>>>,
    overflow: Arc<Row>,
    pub(crate) unknown_snapshots: Tally,
}

impl Metrics {
    /// The counts of `member`.
    pub(crate) fn of(&self, member: MemberId) -> Arc<Row> {
        let mut rows = self.rows.lock();
        if rows.len() >= ROWS_MAX && !rows.contains_key(&member) {
            return Arc::clone(&self.overflow);
        }
        Arc::clone(rows.entry(member).or_default())
    }

    /// In Prometheus' text format. What never happened is not shown, as with etcd.
    pub(crate) fn render(&self, local: MemberId) -> String {
        let rows: Vec<_> = self.rows.lock().iter().map(|(id, row)| (id.to_string(), Arc::clone(row))).collect();
        let mut out = String::new();
        type Pick = fn(&Row) -> &Tally;
        let pairs: [(&str, &str, &str, Pick); 2] = [
            ("active_peers", "gauge", "The current number of active peer connections.", |row| &row.active),
            ("disconnected_peers_total", "counter", "The total number of disconnected peers.", |row| &row.disconnected),
        ];
        for (name, kind, help, pick) in pairs {
            family(&mut out, name, kind, help);
            for (id, row) in rows.iter().filter(|(_, row)| pick(row).get() + row.disconnected.get() > 0) {
                let value = pick(row).get();
                line(&mut out, format_args!("etcd_network_{name}{{Local=\"{local}\",Remote=\"{id}\"}} {value}"));
            }
        }
        let singles: [(&str, &str, &str, &str, Pick); 10] = [
            ("peer_sent_bytes_total", "counter", "To", "The total number of bytes sent to peers.", |row| {
                &row.sent_bytes
            }),
            ("peer_sent_failures_total", "counter", "To", "The total number of send failures from peers.", |row| {
                &row.sent_failures
            }),
            ("peer_received_bytes_total", "counter", "From", "The total number of bytes received from peers.", |row| {
                &row.received_bytes
            }),
            (
                "peer_received_failures_total",
                "counter",
                "From",
                "The total number of receive failures from peers.",
                |row| &row.received_failures,
            ),
            ("snapshot_send_success", "counter", "To", "Total number of successful snapshot sends", |row| {
                &row.snapshots_sent.done
            }),
            ("snapshot_send_failures", "counter", "To", "Total number of snapshot send failures", |row| {
                &row.snapshots_sent.failed
            }),
            ("snapshot_send_inflights_total", "gauge", "To", "Total number of inflight snapshot sends", |row| {
                &row.snapshots_sent.under_way
            }),
            ("snapshot_receive_success", "counter", "From", "Total number of successful snapshot receives", |row| {
                &row.snapshots_received.done
            }),
            (
                "snapshot_receive_inflights_total",
                "gauge",
                "From",
                "Total number of inflight snapshot receives",
                |row| &row.snapshots_received.under_way,
            ),
            ("snapshot_receive_failures", "counter", "From", "Total number of snapshot receive failures", |row| {
                &row.snapshots_received.failed
            }),
        ];
        for (name, kind, label, help, pick) in singles {
            family(&mut out, name, kind, help);
            for (id, row) in rows.iter().filter(|(_, row)| pick(row).get() > 0) {
                line(&mut out, format_args!("etcd_network_{name}{{{label}=\"{id}\"}} {}", pick(row).get()));
            }
        }
        if self.unknown_snapshots.get() > 0 {
            let count = self.unknown_snapshots.get();
            // Belongs to the last family above.
            line(&mut out, format_args!("etcd_network_snapshot_receive_failures{{From=\"{UNKNOWN_SENDER}\"}} {count}"));
        }
        type PickTimes = fn(&Row) -> &Histogram;
        let times: [(&str, &str, &str, PickTimes); 3] = [
            ("snapshot_send_total_duration_seconds", "To", "Total latency distributions of v3 snapshot sends", |row| {
                &row.snapshots_sent.seconds
            }),
            (
                "snapshot_receive_total_duration_seconds",
                "From",
                "Total latency distributions of v3 snapshot receives",
                |row| &row.snapshots_received.seconds,
            ),
            ("peer_round_trip_time_seconds", "To", "Round-Trip-Time histogram between peers", |row| &row.round_trip),
        ];
        for (name, label, help, pick) in times {
            family(&mut out, name, "histogram", help);
            for (id, row) in rows.iter().filter(|(_, row)| pick(row).count.get() > 0) {
                pick(row).render(&mut out, &format!("etcd_network_{name}"), &format!("{label}=\"{id}\""));
            }
        }
        out
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP etcd_network_{name} {help}\n# TYPE etcd_network_{name} {kind}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_buckets_are_etcds() {
        let metrics = Metrics::default();
        let row = metrics.of(MemberId(0xab));
        row.sent_bytes.add(7);
        row.active.set(1);
        row.round_trip.observe(Duration::from_micros(150));
        metrics.unknown_snapshots.add(2);
        let page = metrics.render(MemberId(1));
        for want in [
            "etcd_network_active_peers{Local=\"1\",Remote=\"ab\"} 1\n",
            "etcd_network_peer_sent_bytes_total{To=\"ab\"} 7\n",
            "etcd_network_snapshot_receive_failures{From=\"UNKNOWN_SNAPSHOT_SENDER\"} 2\n",
            "etcd_network_peer_round_trip_time_seconds_bucket{To=\"ab\",le=\"0.0001\"} 0\n",
            "etcd_network_peer_round_trip_time_seconds_bucket{To=\"ab\",le=\"0.0002\"} 1\n",
            "etcd_network_peer_round_trip_time_seconds_bucket{To=\"ab\",le=\"3.2768\"} 1\n",
            "etcd_network_peer_round_trip_time_seconds_sum{To=\"ab\"} 0.00015\n",
            "# TYPE etcd_network_snapshot_send_inflights_total gauge\n",
        ] {
            assert!(page.contains(want), "{want} in {page}");
        }
        assert!(!page.contains("peer_sent_failures_total{"), "{page}");
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let metrics = Metrics::default();
        (0..5000).for_each(|id| metrics.of(MemberId(id)).sent_bytes.add(1));
        assert_eq!(metrics.rows.lock().len(), ROWS_MAX);
    }
}
