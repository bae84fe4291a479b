//! What a run says at its end: the same figures as text and as one flat JSON object.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::meter::{Latency, round};
use crate::proc::Usage;

/// The figures of one run. Fields that are `None` could not be measured: no `--server-pid`, no `/metrics`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The command as typed.
    pub command: &'static str,
    /// Answers without error; for `watch`, events received.
    pub ops: u64,
    /// Requests refused, broken or answered wrongly, and failed comparisons.
    pub errors: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// `ops` by `seconds`.
    pub ops_per_second: f64,
    /// Latencies of answers without error.
    #[serde(flatten)]
    pub latency: Latency,
    /// This process's own CPU time per op.
    pub bench_cpu_us_per_op: Option<f64>,
    /// What the server's processes spent.
    #[serde(flatten)]
    pub server: Option<Server>,
    /// Syncs of the write-ahead log per second, from `/metrics`.
    pub wal_syncs_per_second: Option<f64>,
    /// Bytes of all answers' messages.
    pub received_bytes_per_second: f64,
    /// Figures that only this command has, by name.
    #[serde(flatten)]
    pub extras: BTreeMap<&'static str, f64>,
    /// Acknowledged writes, or events, that were compared with what they must be.
    pub compared: u64,
    /// Errors by text.
    pub error_texts: BTreeMap<String, u64>,
}

/// What the server's processes spent during the measured phase.
#[derive(Debug, Serialize)]
pub struct Server {
    /// CPU time per op.
    pub server_cpu_us_per_op: f64,
    /// CPU time by elapsed time; 2 is two whole cores.
    pub server_cpu_cores: f64,
    /// Anonymous memory before the connections were made.
    pub server_rss_anon_before_bytes: u64,
    /// Anonymous memory at the end.
    pub server_rss_anon_bytes: u64,
    /// The most that was seen; looked at five times a second.
    pub server_rss_anon_max_bytes: u64,
    /// File-backed memory at the end.
    pub server_rss_file_bytes: u64,
    /// Bytes handed to write calls (sockets too), per op: the figure to compare. Neither server writes through a map.
    pub server_write_call_bytes_per_op: f64,
    /// Bytes that the kernel says were dirtied, per op. With large folios it counts several pages where one of a mapped
    /// file was written, see docs/decisions/007.
    pub server_disk_bytes_per_op: f64,
    /// Context switches of all threads.
    pub server_switches_per_second: f64,
}

impl Server {
    /// Puts the counters into relation to `ops` requests in `seconds`.
    pub fn new(before: &Usage, spent: &Usage, anon_max: u64, ops: u64, seconds: f64) -> Server {
        Server {
            server_cpu_us_per_op: cpu_per(spent.cpu, ops),
            server_cpu_cores: (per_exact(spent.cpu.as_secs_f64(), seconds) * 100.0).round() / 100.0,
            server_rss_anon_before_bytes: before.rss_anon,
            server_rss_anon_bytes: spent.rss_anon,
            server_rss_anon_max_bytes: anon_max.max(spent.rss_anon),
            server_rss_file_bytes: spent.rss_file,
            server_disk_bytes_per_op: per(spent.written_to_disk as f64, ops as f64),
            server_write_call_bytes_per_op: per(spent.written_by_calls as f64, ops as f64),
            server_switches_per_second: per(spent.switches_total() as f64, seconds),
        }
    }
}

/// CPU time by operations, in microseconds to three digits: one event among a thousand costs less than one. 0 by none.
pub fn cpu_per(cpu: Duration, ops: u64) -> f64 {
    (per_exact(cpu.as_secs_f64() * 1e6, ops as f64) * 1000.0).round() / 1000.0
}

/// `amount` by `count`, to one digit; 0 by nothing.
pub fn per(amount: f64, count: f64) -> f64 {
    round(per_exact(amount, count))
}

fn per_exact(amount: f64, count: f64) -> f64 {
    if count > 0.0 { amount / count } else { 0.0 }
}

impl Report {
    /// Whether every request was answered rightly, and there was one.
    pub fn clean(&self) -> bool {
        self.errors == 0 && self.ops > 0
    }

    /// One line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts")
    }

    /// A small table.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| writeln!(text, "{name:<22} {value}").expect("a String grows");
        let Latency { p50_us, p90_us, p99_us, p999_us, max_us, mean_us } = self.latency;
        line(self.command, format!("{:.0} ops/s ({} in {:.2} s)", self.ops_per_second, self.ops, self.seconds));
        line("latency", format!("mean {}  p50 {}  p90 {}", time(mean_us), time(p50_us), time(p90_us)));
        line("", format!("p99 {}  p99.9 {}  max {}", time(p99_us), time(p999_us), time(max_us)));
        if let Some(server) = &self.server {
            let cpu = (server.server_cpu_us_per_op, server.server_cpu_cores);
            line("server CPU", format!("{:.2} µs/op ({:.2} cores)", cpu.0, cpu.1));
            let anon = (server.server_rss_anon_bytes, server.server_rss_anon_max_bytes);
            let before = mib(server.server_rss_anon_before_bytes);
            line("server anonymous RSS", format!("{} (before {before}, most {})", mib(anon.0), mib(anon.1)));
            line("server file RSS", mib(server.server_rss_file_bytes));
            let written = (server.server_write_call_bytes_per_op, server.server_disk_bytes_per_op);
            let folios = "dirtied, as the kernel counts mapped files' pages";
            line("server writes", format!("{:.0} B/op in calls ({:.0} B/op {folios})", written.0, written.1));
            line("server switches", format!("{:.0} /s", server.server_switches_per_second));
        }
        if let Some(syncs) = self.wal_syncs_per_second {
            line("log syncs", format!("{syncs:.0} /s"));
        }
        if self.received_bytes_per_second > 0.0 {
            line("received", format!("{:.1} MiB/s", self.received_bytes_per_second / f64::from(1 << 20)));
        }
        for (name, value) in &self.extras {
            line(name, format!("{value:.1}"));
        }
        if let Some(cpu) = self.bench_cpu_us_per_op {
            line("load generator CPU", format!("{cpu:.2} µs/op"));
        }
        line("compared", self.compared.to_string());
        line("errors", self.errors.to_string());
        for (error, count) in &self.error_texts {
            line("", format!("{count} × {error}"));
        }
        text.truncate(text.trim_end().len());
        text
    }
}

fn time(micros: f64) -> String {
    match micros {
        short if short < 1000.0 => format!("{short:.0} µs"),
        middle if middle < 1_000_000.0 => format!("{:.2} ms", middle / 1000.0),
        long => format!("{:.2} s", long / 1_000_000.0),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report() -> Report {
        let spent = Usage {
            cpu: Duration::from_secs(1),
            written_to_disk: 4000,
            written_by_calls: 9000,
            rss_anon: 3 << 20,
            rss_file: 1 << 20,
            switches: BTreeMap::from([(1, 500)]),
        };
        let latency =
            Latency { p50_us: 400.0, p90_us: 900.0, p99_us: 1500.0, p999_us: 2e6, max_us: 3e6, mean_us: 410.0 };
        Report {
            command: "put",
            ops: 1000,
            errors: 0,
            seconds: 2.0,
            ops_per_second: 500.0,
            latency,
            bench_cpu_us_per_op: Some(8.2),
            server: Some(Server::new(&Usage::default(), &spent, 5 << 20, 1000, 2.0)),
            wal_syncs_per_second: None,
            received_bytes_per_second: 0.0,
            extras: BTreeMap::from([("overtaken", 3.0)]),
            compared: 10,
            error_texts: BTreeMap::new(),
        }
    }

    #[test]
    fn costs_are_per_op_and_per_second() {
        let server = report().server.unwrap();
        assert_eq!(server.server_cpu_us_per_op, 1000.0);
        assert_eq!(server.server_cpu_cores, 0.5);
        assert_eq!(server.server_disk_bytes_per_op, 4.0);
        assert_eq!(server.server_write_call_bytes_per_op, 9.0);
        assert_eq!(server.server_switches_per_second, 250.0);
        assert_eq!((server.server_rss_anon_bytes, server.server_rss_anon_max_bytes), (3 << 20, 5 << 20));
        assert_eq!(per(5.0, 0.0), 0.0);
    }

    #[test]
    fn json_is_one_flat_object() {
        let value: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(value["p999_us"], 2e6);
        assert_eq!(value["server_cpu_us_per_op"], 1000.0);
        assert_eq!(value["bench_cpu_us_per_op"], 8.2);
        assert!(value["wal_syncs_per_second"].is_null());
        assert_eq!((&value["errors"], &value["overtaken"]), (&0.into(), &3.0.into()));
    }

    #[test]
    fn text_shows_the_figures_with_units() {
        let text = report().text();
        for part in ["500 ops/s", "p50 400 µs", "p99 1.50 ms", "p99.9 2.00 s", "1000.00 µs/op", "3.0 MiB", "8.20 µs/op"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("log syncs"));
    }

    #[test]
    fn an_error_or_nothing_at_all_is_not_clean() {
        assert!(report().clean());
        assert!(!Report { errors: 1, ..report() }.clean());
        assert!(!Report { ops: 0, ..report() }.clean());
    }
}
