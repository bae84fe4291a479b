//! `cargo xtask bench-compare`: etcd and ours on the same machine, turn by turn, medians and ratios.
//!
//! ```text
//!  round 1   start both    put: etcd, ours    get: etcd, ours    …    kill both
//!  round 2   start both    put: ours, etcd    get: ours, etcd    …
//! ```
//! Every round has two fresh servers (or clusters, `--members`), each in a process of its own, with its data on the same disk and default flags.
//! They work in turn, row by row, so that what else the machine does meets both; an idle server costs about nothing.
//! The load generator is ours for both.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::flags::{Flag, Flags};
use crate::member::{Cluster, Place};
use crate::stats::{median, short};
use crate::{bins, json};

const FLAGS: &[Flag] = &[
    ("--quick", "", "the four rows of everyday, three rounds, under six minutes after the builds"),
    ("--members", "N", "members of each cluster, all on this machine (1)"),
    ("--rounds", "N", "turns of each server (quick: 3, else 5)"),
    ("--only", "TEXT", "only rows whose name contains this"),
    ("--dist", "", "measure what is shipped (fat LTO) instead of the ci profile"),
    ("--ours", "PATH", "a finished executable instead of a build"),
    ("--reference", "PATH", "a finished etcd instead of a build"),
    ("--bench", "PATH", "an executable whose `bench` verb makes the load (default: ours)"),
];

/// One row of the comparison.
struct Row {
    name: &'static str,
    /// Words after `bench`.
    words: &'static str,
    /// Part of `--quick`.
    quick: bool,
}

/// In this order on one server: the puts fill it, the reads complete the key space.
const ROWS: &[Row] = &[
    Row { name: "put", words: "put --warmup 1s --duration 6s", quick: true },
    Row { name: "put, 1 client", words: "put --clients 1 --duration 4s", quick: true },
    Row { name: "get linearizable", words: "range --warmup 1s --duration 5s", quick: true },
    Row { name: "get serializable", words: "range --consistency s --warmup 1s --duration 5s", quick: true },
    Row { name: "get linearizable, 1 client", words: "range --clients 1 --duration 3s", quick: false },
    Row { name: "txn of 4 puts", words: "txn-put --warmup 1s --duration 5s", quick: false },
    Row {
        name: "list of 10k × 1 KiB",
        words: "list --key-size 40 --val-size 1024 --clients 4 --duration 5s",
        quick: false,
    },
    Row {
        name: "page of 500",
        words: "list --key-size 40 --val-size 1024 --clients 10 --limit 500 --duration 5s",
        quick: false,
    },
    Row { name: "txn of a read and a put", words: "txn-mixed --key-size 40 --warmup 1s --duration 5s", quick: false },
    Row { name: "lease grant", words: "lease-grant --warmup 1s --duration 5s", quick: false },
    Row { name: "lease keep-alive", words: "lease-keepalive --warmup 1s --duration 5s", quick: false },
    Row { name: "watch, 1000 on one key", words: "watch --watchers 1000 --streams 100 --duration 5s", quick: false },
];

/// A figure that is compared: heading, field of the report, divisor for display.
struct Figure {
    name: &'static str,
    field: &'static str,
    divisor: f64,
}

const MIB: f64 = (1 << 20) as f64;

const FIGURES: &[Figure] = &[
    Figure { name: "ops/s", field: "ops_per_second", divisor: 1.0 },
    Figure { name: "p50 ms", field: "p50_us", divisor: 1000.0 },
    Figure { name: "p99 ms", field: "p99_us", divisor: 1000.0 },
    Figure { name: "CPU µs/op", field: "server_cpu_us_per_op", divisor: 1.0 },
    Figure { name: "anon RSS MiB", field: "server_rss_anon_max_bytes", divisor: MIB },
    Figure { name: "file RSS MiB", field: "server_rss_file_bytes", divisor: MIB },
    Figure { name: "syncs/s", field: "wal_syncs_per_second", divisor: 1.0 },
    Figure { name: "disk B/op", field: "server_disk_bytes_per_op", divisor: 1.0 },
];

/// What is compared with what.
struct Candidates {
    reference: PathBuf,
    ours: PathBuf,
    bench: PathBuf,
}

/// Values of every figure, round by round: `[row][figure] -> values`.
type Table = Vec<Vec<Vec<f64>>>;

/// The verb.
///
/// # Errors
/// A build, a server or a run failed; a run fails with its first wrong answer.
pub fn run(words: &[String]) -> Result<(), String> {
    let Some(flags) = Flags::read("bench-compare", FLAGS, words)? else { return Ok(()) };
    let quick = flags.has("--quick");
    let rounds = flags.count("--rounds")?.unwrap_or(if quick { 3 } else { 5 });
    let wanted = flags.text("--only").unwrap_or_default();
    let rows: Vec<&Row> = ROWS.iter().filter(|row| (row.quick || !quick) && row.name.contains(wanted)).collect();
    if rows.is_empty() {
        let names = ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join("; ");
        return Err(format!("--only {wanted:?} leaves no row: the rows are {names}"));
    }
    let candidates = candidates(&flags)?;
    let began = Instant::now();
    let members = flags.count("--members")?.unwrap_or(1);
    let (reference, ours) = turns(&rows, rounds, members, &candidates)?;
    let of = if members == 1 { String::new() } else { format!(", {members} members each, CPU and memory of all") };
    println!(
        "\nMedians of {rounds} rounds{of}, etcd → ours (ratio ours / etcd), in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    println!("{}", table(&rows, &reference, &ours));
    Ok(())
}

fn candidates(flags: &Flags) -> Result<Candidates, String> {
    let given = |flag: &str| flags.text(flag).map(PathBuf::from);
    let profile = if flags.has("--dist") { "dist" } else { "ci" };
    let ours = given("--ours").map_or_else(|| bins::ours(profile), Ok)?;
    let reference = given("--reference").map_or_else(bins::reference, Ok)?;
    let bench = given("--bench").unwrap_or_else(|| ours.clone());
    Ok(Candidates { reference, ours, bench })
}

/// One server of a round, with its data and the figures of all rounds so far.
struct Side<'a> {
    name: &'static str,
    program: &'a Path,
    table: Table,
}

fn turns(rows: &[&Row], rounds: u64, members: u64, candidates: &Candidates) -> Result<(Table, Table), String> {
    let empty = || vec![vec![Vec::new(); FIGURES.len()]; rows.len()];
    let mut sides = [
        Side { name: "etcd", program: &candidates.reference, table: empty() },
        Side { name: "ours", program: &candidates.ours, table: empty() },
    ];
    for number in 1..=rounds {
        eprint!("round {number}/{rounds}:");
        round(rows, &mut sides, members, &candidates.bench)?;
        eprintln!();
        // Who goes first has the colder caches: it is the other one next time.
        sides.reverse();
    }
    sides.sort_by_key(|side| side.name);
    let [reference, ours] = sides;
    Ok((reference.table, ours.table))
}

/// Two fresh clusters, all rows turn by turn.
fn round(rows: &[&Row], sides: &mut [Side<'_>; 2], members: u64, bench: &Path) -> Result<(), String> {
    let mut started = Vec::new();
    for side in sides.iter() {
        let place = Place::new(&format!("compare-{}", side.name))?;
        let cluster =
            Cluster::start(side.program, &place, members).map_err(|error| format!("{}: {error}", side.name))?;
        // The cluster first, its folder second: that is the order in which they are dropped.
        started.push((cluster, place));
    }
    for (index, row) in rows.iter().enumerate() {
        eprint!(" {}", row.name);
        for (side, (cluster, _)) in sides.iter_mut().zip(&started) {
            let report = measure(bench, row, cluster).map_err(|error| format!("{}: {error}", side.name))?;
            eprint!(" {} {}", side.name, short(json::number(&report, "ops_per_second").unwrap_or(0.0)));
            for (figure, values) in FIGURES.iter().zip(&mut side.table[index]) {
                values.extend(json::number(&report, figure.field).map(|value| value / figure.divisor));
            }
        }
        eprint!(";");
    }
    Ok(())
}

/// Runs one row against `cluster` and returns the report.
fn measure(bench: &Path, row: &Row, cluster: &Cluster) -> Result<String, String> {
    let mut command = Command::new(bench);
    command
        .arg("bench")
        .args(row.words.split(' '))
        .args(["--endpoints", &cluster.clients(), "--server-pid", &cluster.pids(), "--json"])
        .stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("{}: {error}", bench.display()))?;
    let report = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() {
        return Err(format!("`{}`: {}\n{report}", bins::words(&command), output.status));
    }
    Ok(report)
}

/// The table in Markdown, so that it can be pasted where it belongs.
fn table(rows: &[&Row], reference: &Table, ours: &Table) -> String {
    let mut text = format!("| work | {} |\n", FIGURES.iter().map(|figure| figure.name).collect::<Vec<_>>().join(" | "));
    text.push_str(&format!("|---|{}", "---|".repeat(FIGURES.len())));
    for ((row, reference), ours) in rows.iter().zip(reference).zip(ours) {
        let cells: Vec<String> =
            reference.iter().zip(ours).map(|(reference, ours)| cell(median(reference), median(ours))).collect();
        text.push_str(&format!("\n| {} | {} |", row.name, cells.join(" | ")));
    }
    text
}

fn cell(reference: Option<f64>, ours: Option<f64>) -> String {
    match (reference, ours) {
        (Some(reference), Some(ours)) if reference > 0.0 => {
            format!("{} → {} (**{:.2}**)", short(reference), short(ours), ours / reference)
        }
        (Some(reference), Some(ours)) => format!("{} → {}", short(reference), short(ours)),
        _ => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_show_both_and_their_ratio() {
        assert_eq!(cell(Some(20_000.0), Some(50_000.0)), "20000 → 50000 (**2.50**)");
        assert_eq!(cell(Some(0.0), Some(0.0)), "0.00 → 0.00");
        assert_eq!(cell(None, Some(1.0)), "–");
    }

    #[test]
    fn the_table_has_a_line_per_row_and_medians_in_it() {
        let rows: Vec<&Row> = ROWS.iter().filter(|row| row.quick).collect();
        let values = |base: f64| vec![vec![vec![base, base * 9.0, base * 2.0]; FIGURES.len()]; rows.len()];
        let text = table(&rows, &values(10.0), &values(5.0));
        assert_eq!(text.lines().count(), 2 + 4);
        assert!(text.contains("| put, 1 client | 20.0 → 10.0 (**0.50**)"), "{text}");
        let columns = |line: &str| line.matches('|').count();
        assert!(text.lines().all(|line| columns(line) == FIGURES.len() + 2), "{text}");
    }

    #[test]
    fn quick_is_the_four_rows_of_everyday() {
        assert_eq!(ROWS.iter().filter(|row| row.quick).count(), 4);
    }
}
