//! What is compared, and where it must stand: one table.

/// Servers on which a row is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// Two fresh servers a round, all rows turn by turn.
    Everyday,
    /// The same, both with TLS.
    Tls,
    /// Fresh servers that nobody speaks to; executables on the disk.
    Idle,
    /// Watchers that nothing happens to.
    Watchers,
    /// Leases that end together.
    Leases,
    /// A store of a million keys with three revisions each, loaded once.
    Big,
    /// Two million puts.
    Bytes,
    /// Two million keys, and puts beside the store's commits. Ours alone: etcd does not tell when it commits.
    Commits,
    /// Three members.
    Members,
}

/// How a row is measured where one run of `milepost bench` is not all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// One run with these words.
    Bench,
    /// One run while another one writes as fast as it can.
    UnderWrites,
    /// One run while another one puts 500 times a second, whose slowest put is what matters.
    Chore,
    /// A program with the usual Go client; the words are its flags.
    GoClient,
    /// Not by a load at all: the scene knows.
    Scene,
}

/// Whether a must compares with etcd or stands for itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// Ours by etcd's, at most.
    AtMost(f64),
    /// Ours by etcd's, at least.
    AtLeast(f64),
    /// Ours, at most, in the unit that is shown.
    Ours(f64),
}

impl Bound {
    /// Whether `ours` beside `etcd`, in the unit that is shown, is within; `None` where there is nothing to divide by.
    pub fn holds(self, etcd: f64, ours: f64) -> Option<bool> {
        let ratio = (etcd > 0.0).then(|| ours / etcd);
        match self {
            Bound::AtMost(most) => ratio.map(|ratio| ratio <= most),
            Bound::AtLeast(least) => ratio.map(|ratio| ratio >= least),
            Bound::Ours(most) => Some(ours <= most),
        }
    }

    /// As it stands in a table.
    pub fn text(self, unit: &str) -> String {
        match self {
            Bound::AtMost(most) => format!("≤ {most}"),
            Bound::AtLeast(least) => format!("≥ {least}"),
            Bound::Ours(most) => format!("≤ {most} {unit}"),
        }
    }
}

/// One figure of a row that must be somewhere.
#[derive(Debug, Clone, Copy)]
pub struct Must {
    /// Field of [`FIGURES`].
    pub field: &'static str,
    /// Missed is missed.
    pub must: Bound,
    /// Where it is to go.
    pub aim: f64,
}

const fn at_most(field: &'static str, must: f64, aim: f64) -> Must {
    Must { field, must: Bound::AtMost(must), aim }
}

const fn at_least(field: &'static str, must: f64, aim: f64) -> Must {
    Must { field, must: Bound::AtLeast(must), aim }
}

const fn ours(field: &'static str, must: f64, aim: f64) -> Must {
    Must { field, must: Bound::Ours(must), aim }
}

/// One row of the comparison.
#[derive(Debug)]
pub struct Row {
    /// As it stands in tables, and what `--only` looks at.
    pub name: &'static str,
    /// Where.
    pub scene: Scene,
    /// How.
    pub how: How,
    /// Words after `bench`.
    pub words: &'static str,
    /// Part of `--quick`.
    pub quick: bool,
    /// Where it must stand.
    pub musts: &'static [Must],
}

const CPU: &str = "server_cpu_us_per_op";
const OPS: &str = "ops_per_second";
const P50: &str = "p50_us";
const P99: &str = "p99_us";
const MAX: &str = "max_us";

/// Fields that scenes add to those of a report.
pub const GROWTH: &str = "anon_growth_bytes";
pub const ANON: &str = "server_rss_anon_bytes";
pub const RESTART: &str = "restart_us";
pub const WORST_PUT: &str = "worst_put_us";
pub const STRIPPED: &str = "stripped_bytes";
pub const FAILED_PUTS: &str = "failed_puts";
const COMMIT_RATIO: &str = "commit_p99_ratio";

const fn row(name: &'static str, scene: Scene, words: &'static str, musts: &'static [Must]) -> Row {
    Row { name, scene, how: How::Bench, words, quick: false, musts }
}

const fn quick(name: &'static str, words: &'static str, musts: &'static [Must]) -> Row {
    Row { name, scene: Scene::Everyday, how: How::Bench, words, quick: true, musts }
}

const fn how(name: &'static str, scene: Scene, how: How, words: &'static str, musts: &'static [Must]) -> Row {
    Row { name, scene, how, words, quick: false, musts }
}

/// A million keys of twelve digits.
const BIG: &str = "list --key-size 12 --key-space-size 1000000 --limit 500 --loaded";

/// In this order on one server: the puts fill it, the reads complete the key space, what deletes comes last. Keys of
/// another size sort between those of eight bytes: who lists a range shares its keys with the row before, or extends them.
pub const ROWS: &[Row] = &[
    quick(
        "put",
        "put --warmup 1s --duration 5s",
        &[at_most(CPU, 0.4, 0.25), at_least(OPS, 2.0, 3.5), at_most(P99, 0.5, 0.3)],
    ),
    quick("put, 1 client", "put --clients 1 --duration 3s", &[at_most(P50, 0.7, 0.55), at_most(CPU, 0.4, 0.2)]),
    quick(
        "get linearizable",
        "range --warmup 1s --duration 4s",
        &[at_most(CPU, 0.45, 0.25), at_least(OPS, 2.0, 4.0), at_most(P99, 0.5, 0.25)],
    ),
    quick(
        "get serializable",
        "range --consistency s --warmup 1s --duration 4s",
        &[at_most(CPU, 0.45, 0.25), at_least(OPS, 2.0, 4.0), at_most(P99, 0.5, 0.25)],
    ),
    how("put, usual Go client", Scene::Everyday, How::GoClient, "-op put -duration 4s", &[]),
    how("get, usual Go client", Scene::Everyday, How::GoClient, "-op get -duration 4s", &[]),
    row("get linearizable, 1 client", Scene::Everyday, "range --clients 1 --duration 3s", &[]),
    row("txn of 4 puts", Scene::Everyday, "txn-put --warmup 1s --duration 4s", &[at_most(CPU, 0.4, 0.25)]),
    row(
        "list of 10k × 1 KiB",
        Scene::Everyday,
        "list --key-size 40 --val-size 1024 --clients 4 --duration 4s",
        &[at_most(CPU, 0.3, 0.15)],
    ),
    row(
        "the same list, 50 at once",
        Scene::Everyday,
        "list --key-size 40 --val-size 1024 --clients 50 --duration 4s",
        &[at_most(GROWTH, 0.2, 0.1)],
    ),
    row(
        "page of 500 of 10k",
        Scene::Everyday,
        "list --key-size 40 --val-size 1024 --clients 10 --limit 500 --duration 3s",
        &[],
    ),
    row(
        "txn of a read and a put",
        Scene::Everyday,
        "txn-mixed --key-size 40 --warmup 1s --duration 4s",
        &[at_most(CPU, 0.4, 0.25)],
    ),
    row("lease grant", Scene::Everyday, "lease-grant --warmup 1s --duration 3s", &[]),
    row("lease keep-alive", Scene::Everyday, "lease-keepalive --warmup 1s --duration 3s", &[at_least(OPS, 2.0, 4.0)]),
    row(
        "watch, 1000 on one key",
        Scene::Everyday,
        "watch --watchers 1000 --streams 100 --duration 4s",
        &[at_least(OPS, 4.0, 10.0)],
    ),
    row("watch latency, 100 puts/s", Scene::Everyday, "watch-latency --duration 3s", &[]),
    row("lock, 100 clients on 10 locks", Scene::Everyday, "lock --warmup 500ms --duration 3s", &[]),
    row("Kubernetes-like mix", Scene::Everyday, "kube --key-size 40 --key-space-size 100000 --duration 4s", &[]),
    how(
        "gets at 2,000/s while writes saturate",
        Scene::Everyday,
        How::UnderWrites,
        "range --rate 2000 --clients 500 --duration 4s",
        &[at_most(P99, 0.3, 0.1)],
    ),
    row("snapshot", Scene::Everyday, "snapshot --duration 3s", &[]),
    row("delete", Scene::Everyday, "delete --key-size 10 --key-space-size 50000", &[]),
    row("put, TLS", Scene::Tls, "put --warmup 1s --duration 4s", &[at_most(CPU, 0.25, 0.15)]),
    row("get, TLS", Scene::Tls, "range --warmup 1s --duration 4s", &[at_most(CPU, 0.25, 0.15)]),
    how("idle for 10 s", Scene::Idle, How::Scene, "", &[at_most(ANON, 0.4, 0.25)]),
    how("stripped executable", Scene::Idle, How::Scene, "", &[at_most(STRIPPED, 0.7, 0.4)]),
    row(
        "100,000 idle watchers",
        Scene::Watchers,
        "watch --watchers 100000 --streams 100 --key-space-size 100000 --val-size 8 --total 1",
        &[at_most(GROWTH, 0.4, 0.2)],
    ),
    row(
        "100,000 leases ending together",
        Scene::Leases,
        "lease-expire --leases 100000 --ttl 45s --timeout 60s",
        &[ours(MAX, 1000.0, 300.0)],
    ),
    how("1 M keys × 3 revisions", Scene::Big, How::Scene, "", &[at_most(ANON, 0.3, 0.1)]),
    how("kill -9 to first read, 1 M keys × 3", Scene::Big, How::Scene, "", &[at_most(RESTART, 0.1, 0.03)]),
    Row {
        name: "page of 500 of 1 M, with its count, cold",
        scene: Scene::Big,
        how: How::Scene,
        words: BIG,
        quick: false,
        musts: &[at_most(P50, 1.0, 0.3)],
    },
    row("page of 500 of 1 M, with its count, warm", Scene::Big, BIG, &[at_most(CPU, 0.3, 0.05)]),
    how(
        "defragment of 1 GB",
        Scene::Big,
        How::Chore,
        "defragment",
        &[ours(WORST_PUT, 50.0, 10.0), at_most(CPU, 0.5, 0.2)],
    ),
    how(
        "compaction of 900,000 revisions",
        Scene::Big,
        How::Chore,
        "compact",
        &[ours(WORST_PUT, 50.0, 10.0), at_most(CPU, 0.5, 0.2)],
    ),
    how("defragment after that compaction", Scene::Big, How::Chore, "defragment", &[]),
    row(
        "2 M puts to 100 k keys",
        Scene::Bytes,
        "put --total 2000000",
        &[at_most("server_write_call_bytes_per_op", 1.0, 0.5)],
    ),
    row(
        "2 M puts to 2 M keys",
        Scene::Bytes,
        "put --total 2000000 --key-space-size 2000000",
        &[at_most("server_write_call_bytes_per_op", 1.0, 0.5)],
    ),
    how(
        "put beside commits, 2 M keys × 256 B",
        Scene::Commits,
        How::Scene,
        "--key-size 12 --key-space-size 2000000",
        &[ours(COMMIT_RATIO, 2.0, 1.2)],
    ),
    how(
        "put beside commits, 2 M keys × 4 KiB",
        Scene::Commits,
        How::Scene,
        "--key-size 12 --key-space-size 2000000 --val-size 4096",
        &[ours(COMMIT_RATIO, 2.0, 1.2)],
    ),
    row(
        "put, three members",
        Scene::Members,
        "put --warmup 1s --duration 5s",
        &[at_least(OPS, 1.7, 3.0), at_most(CPU, 0.5, 0.25)],
    ),
];

/// A figure that is kept: field, heading, unit in tables, divisor to it, whether the wide table shows it.
#[derive(Debug)]
pub struct Figure {
    /// Name in a report.
    pub field: &'static str,
    /// Heading.
    pub name: &'static str,
    /// Unit that is shown; empty for a bare number.
    pub unit: &'static str,
    /// From the report's unit to the one that is shown.
    pub divisor: f64,
    /// A column of the wide table, or met in musts alone.
    pub wide: bool,
}

const MIB: f64 = (1 << 20) as f64;

const fn figure(field: &'static str, name: &'static str, unit: &'static str, divisor: f64, wide: bool) -> Figure {
    Figure { field, name, unit, divisor, wide }
}

/// Every figure.
pub const FIGURES: &[Figure] = &[
    figure(OPS, "ops/s", "", 1.0, true),
    figure(P50, "p50", "ms", 1000.0, true),
    figure(P99, "p99", "ms", 1000.0, true),
    figure("p999_us", "p99.9", "ms", 1000.0, false),
    figure(MAX, "max", "ms", 1000.0, true),
    figure(CPU, "CPU per op", "µs", 1.0, true),
    figure("server_rss_anon_max_bytes", "anonymous memory, most", "MiB", MIB, true),
    figure(ANON, "anonymous memory", "MiB", MIB, false),
    figure("server_rss_file_bytes", "file memory", "MiB", MIB, false),
    figure(GROWTH, "anonymous memory, growth", "MiB", MIB, false),
    figure("server_write_call_bytes_per_op", "bytes written per op", "B", 1.0, true),
    figure("server_disk_bytes_per_op", "bytes dirtied per op, as the kernel counts", "B", 1.0, false),
    figure("wal_syncs_per_second", "log syncs per second", "", 1.0, true),
    figure("server_switches_per_second", "context switches per second", "", 1.0, true),
    figure("bench_cpu_us_per_op", "the generator's CPU per op", "µs", 1.0, true),
    figure(RESTART, "time to the first read", "ms", 1000.0, false),
    figure(WORST_PUT, "slowest put meanwhile", "ms", 1000.0, false),
    figure(FAILED_PUTS, "puts refused meanwhile", "", 1.0, false),
    figure(STRIPPED, "size", "MiB", MIB, false),
    figure(COMMIT_RATIO, "p99 beside commits by p99 otherwise", "", 1.0, false),
    figure("commit_p99_us", "p99 beside commits", "ms", 1000.0, false),
    figure("no_commit_p99_us", "p99 without a commit", "ms", 1000.0, false),
    figure("commit_mean_us", "a commit", "ms", 1000.0, false),
];

/// The figure of a field.
pub fn figure_of(field: &str) -> &'static Figure {
    FIGURES.iter().find(|figure| figure.field == field).expect("musts name figures of the table")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_musts_name_figures() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.name != row.name), "{}", row.name);
            assert!(!row.name.contains(['\t', '|']), "{}", row.name);
            for must in row.musts {
                figure_of(must.field);
            }
        }
    }

    #[test]
    fn an_aim_is_harder_than_its_must() {
        for (row, must) in ROWS.iter().flat_map(|row| row.musts.iter().map(move |must| (row, must))) {
            let harder = match must.must {
                Bound::AtMost(most) | Bound::Ours(most) => must.aim < most,
                Bound::AtLeast(least) => must.aim > least,
            };
            assert!(harder, "{}: {must:?}", row.name);
        }
    }

    #[test]
    fn bounds_compare_with_etcd_or_stand_for_themselves() {
        assert_eq!(Bound::AtMost(0.4).holds(100.0, 40.0), Some(true));
        assert_eq!(Bound::AtMost(0.4).holds(100.0, 41.0), Some(false));
        assert_eq!(Bound::AtLeast(2.0).holds(10.0, 20.0), Some(true));
        assert_eq!(Bound::AtLeast(2.0).holds(10.0, 19.0), Some(false));
        assert_eq!(Bound::AtLeast(2.0).holds(0.0, 19.0), None);
        assert_eq!(Bound::Ours(50.0).holds(0.0, 49.0), Some(true));
        assert_eq!((Bound::AtMost(0.4).text("ms"), Bound::Ours(50.0).text("ms")), ("≤ 0.4".into(), "≤ 50 ms".into()));
    }

    #[test]
    fn quick_is_the_four_rows_of_everyday() {
        let quick: Vec<&str> = ROWS.iter().filter(|row| row.quick).map(|row| row.name).collect();
        assert_eq!(quick, ["put", "put, 1 client", "get linearizable", "get serializable"]);
    }
}
