//! Settings turned into values that cannot be wrong. All complaints about one start are made here, in etcd's order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::settings::Settings;
use super::spelling::{self, Url};

/// Log levels by name, most talkative first.
pub const LEVELS: [&str; 7] = ["debug", "info", "warn", "error", "dpanic", "panic", "fatal"];

/// The quota when the flag says 0.
pub const DEFAULT_QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// What automatic compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMode {
    /// Nothing is compacted by itself.
    Off,
    /// The history of this long.
    Periodic(Duration),
    /// This many revisions.
    Revision(i64),
}

/// Everything a member is told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this member.
    pub name: String,
    /// Everything the member keeps.
    pub data_dir: PathBuf,
    /// The log's directory if it is not inside `data_dir`.
    pub wal_dir: Option<PathBuf>,
    /// Applied entries between two Raft snapshots; never 0.
    pub snapshot_count: u64,
    /// One Raft tick.
    pub heartbeat: Duration,
    /// Ticks without a heartbeat before an election.
    pub election_ticks: u64,
    /// Election timeout as given.
    pub election: Duration,
    /// Where other members reach us.
    pub listen_peer: Vec<Url>,
    /// Where clients reach us.
    pub listen_client: Vec<Url>,
    /// What we tell other members.
    pub advertise_peer: Vec<Url>,
    /// What we tell clients.
    pub advertise_client: Vec<Url>,
    /// Members of a new cluster: name to URLs.
    pub initial_cluster: BTreeMap<String, Vec<String>>,
    /// The flag's text, for the log.
    pub initial_cluster_text: String,
    /// True: form a cluster; false: join one.
    pub is_new_cluster: bool,
    /// Keeps clusters apart.
    pub token: String,
    /// Bytes of the store that raise NOSPACE; `None`: no limit.
    pub quota_bytes: Option<u64>,
    /// Automatic compaction.
    pub compaction: CompactionMode,
    /// Operations in one branch of a transaction.
    pub max_txn_ops: usize,
    /// Bytes of one proposal.
    pub max_request_bytes: usize,
    /// Index into [`LEVELS`].
    pub log_level: usize,
    /// The disk is never waited for.
    pub unsafe_no_fsync: bool,
}

/// Host of a listener: an IP address or exactly `localhost`.
fn check_bind(url: &Url) -> Result<(), String> {
    let is_unix = url.scheme.starts_with("unix");
    if is_unix || url.host == "localhost" || url.host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("expected IP in URL for binding ({})", url.as_str()))
}

fn check_plain(flag: &str, url: &Url) -> Result<(), String> {
    match url.scheme.as_str() {
        "http" => Ok(()),
        scheme => Err(format!("--{flag}: {scheme} is not served yet by this version: use http ({})", url.as_str())),
    }
}

fn initial_cluster(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, url) = part.split_once('=').ok_or_else(|| {
            format!("--initial-cluster: {part:?} does not have the form name=url (for example default=http://localhost:2380)")
        })?;
        spelling::url(url).map_err(|why| format!("--initial-cluster: {why}"))?;
        members.entry(name.to_owned()).or_default().push(url.to_owned());
    }
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, urls) in &members {
        for url in urls {
            if let Some(other) = owners.insert(url, name) {
                return Err(format!(
                    "--initial-cluster: URL {url} is given twice, to {other:?} and {name:?}: each member needs its own"
                ));
            }
        }
    }
    Ok(members)
}

fn compaction(mode: &str, retention: &str) -> Result<CompactionMode, String> {
    let plain = retention.parse::<i64>().ok();
    let bad = |why: &str| format!("--auto-compaction-retention: invalid value {retention:?}: {why}");
    match (mode, plain) {
        ("periodic" | "revision", Some(0)) => Ok(CompactionMode::Off),
        ("periodic" | "revision", Some(n)) if n < 0 => Err(bad("must not be negative")),
        ("periodic", Some(hours)) => {
            Ok(CompactionMode::Periodic(Duration::from_secs(hours.unsigned_abs().saturating_mul(3600))))
        }
        ("periodic", None) => {
            let period = spelling::duration(retention).map_err(|why| bad(&why))?;
            Ok(if period.is_zero() { CompactionMode::Off } else { CompactionMode::Periodic(period) })
        }
        ("revision", Some(revisions)) => Ok(CompactionMode::Revision(revisions)),
        ("revision", None) => Err(bad("a number of revisions is wanted with --auto-compaction-mode=revision")),
        _ => Err(format!("unknown auto-compaction-mode {mode:?}: use \"periodic\" or \"revision\"")),
    }
}

impl Config {
    /// Checks `settings`.
    ///
    /// # Errors
    /// The first complaint, with the value and what to change.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let text = |name| settings.text(name);
        let number = |name: &str| spelling::unsigned(settings.text(name)).map_err(|why| format!("--{name}: {why}"));
        let list = |name: &str| spelling::urls(settings.text(name)).map_err(|why| format!("--{name}: {why}"));

        let listen_peer = list("listen-peer-urls")?;
        let listen_client = list("listen-client-urls")?;
        listen_peer.iter().chain(&listen_client).try_for_each(check_bind)?;
        listen_peer.iter().try_for_each(|url| check_plain("listen-peer-urls", url))?;
        listen_client.iter().try_for_each(|url| check_plain("listen-client-urls", url))?;
        let advertise_peer = list("initial-advertise-peer-urls")?;
        let advertise_client = list("advertise-client-urls")?;
        if let Some(url) = advertise_peer.iter().chain(&advertise_client).find(|url| url.host.is_empty()) {
            return Err(format!("advertised URL {} has no host: other machines could not reach it", url.as_str()));
        }

        let heartbeat_ms = number("heartbeat-interval")?;
        let election_ms = number("election-timeout")?;
        if heartbeat_ms == 0 {
            return Err("--heartbeat-interval must be >0 (set to 0ms)".into());
        }
        if election_ms == 0 {
            return Err("--election-timeout must be >0 (set to 0ms)".into());
        }
        if election_ms < heartbeat_ms.saturating_mul(5) {
            return Err(format!(
                "--election-timeout[{election_ms}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat_ms}ms]"
            ));
        }
        if election_ms > 50_000 {
            return Err(format!(
                "--election-timeout[{election_ms}ms] is too long, and should be set less than 50000ms"
            ));
        }
        if settings.is_given("listen-client-urls") && !settings.is_given("advertise-client-urls") {
            return Err("--advertise-client-urls is required when --listen-client-urls is set explicitly".into());
        }
        let compaction = compaction(text("auto-compaction-mode"), text("auto-compaction-retention"))?;

        let name = text("name").to_owned();
        let mut initial_cluster_text = text("initial-cluster").to_owned();
        if !settings.is_given("initial-cluster")
            && (settings.is_given("name") || settings.is_given("initial-advertise-peer-urls"))
        {
            initial_cluster_text =
                advertise_peer.iter().map(|url| format!("{name}={}", url.as_str())).collect::<Vec<_>>().join(",");
        }
        let quota = spelling::signed(text("quota-backend-bytes"))?;
        let level = text("log-level");
        let snapshot_count = number("snapshot-count")?;
        let small = |name: &str| -> Result<usize, String> {
            let value = number(name)?;
            usize::try_from(value)
                .ok()
                .filter(|v| *v > 0 && *v <= i32::MAX as usize)
                .ok_or_else(|| format!("--{name}: {value} is out of range: 1 to 2147483647"))
        };
        Ok(Self {
            data_dir: PathBuf::from(match text("data-dir") {
                "" => format!("{name}.etcd"),
                dir => dir.to_owned(),
            }),
            wal_dir: Some(text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            snapshot_count: if snapshot_count == 0 { 10_000 } else { snapshot_count },
            heartbeat: Duration::from_millis(heartbeat_ms),
            election_ticks: election_ms / heartbeat_ms,
            election: Duration::from_millis(election_ms),
            listen_peer,
            listen_client,
            advertise_peer,
            advertise_client,
            initial_cluster: initial_cluster(&initial_cluster_text)?,
            initial_cluster_text,
            is_new_cluster: text("initial-cluster-state") == "new",
            token: text("initial-cluster-token").to_owned(),
            quota_bytes: match quota {
                0 => Some(DEFAULT_QUOTA_BYTES),
                negative if negative < 0 => None,
                bytes => Some(bytes.unsigned_abs()),
            },
            compaction,
            max_txn_ops: small("max-txn-ops")?,
            max_request_bytes: small("max-request-bytes")?,
            log_level: LEVELS
                .iter()
                .position(|known| *known == level)
                .ok_or_else(|| format!("unrecognized level: {level:?}"))?,
            unsafe_no_fsync: spelling::boolean(text("unsafe-no-fsync"))?,
            name,
        })
    }

    /// Refuses what needs other members: this version runs alone.
    ///
    /// # Errors
    /// What was asked for, and what to do.
    pub fn check_alone(&self) -> Result<(), String> {
        if self.initial_cluster.len() > 1 {
            return Err(format!(
                "--initial-cluster names {} members; this version of Milepost runs as a lone member: name only {:?}",
                self.initial_cluster.len(),
                self.name
            ));
        }
        if !self.is_new_cluster {
            return Err(
                "--initial-cluster-state=existing: this version of Milepost cannot join a cluster; use \"new\"".into(),
            );
        }
        Ok(())
    }

    /// Shortest lease in whole seconds: one and a half election timeouts. Source: etcd `NewServer`, `minTTL`.
    #[must_use]
    pub fn min_lease_ttl(&self) -> i64 {
        let ticks = self.election_ticks.saturating_mul(3) / 2;
        let timeout = self.heartbeat.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
        i64::try_from(timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0)).unwrap_or(i64::MAX)
    }

    /// Checks that bind this member to the cluster it forms; only a member without a log needs them.
    ///
    /// # Errors
    /// The name or the URLs that do not fit, and what to change.
    pub fn check_bootstrap(&self) -> Result<(), String> {
        let Some(urls) = self.initial_cluster.get(&self.name) else {
            return Err(format!(
                "couldn't find local name {:?} in the initial cluster configuration {:?}: add {0}=<peer URL> to --initial-cluster, or change --name",
                self.name, self.initial_cluster_text
            ));
        };
        let mut listed = urls.clone();
        listed.sort();
        let advertised: Vec<String> = self.advertise_peer.iter().map(|url| url.as_str().to_owned()).collect();
        if listed != advertised {
            return Err(format!(
                "--initial-cluster has {}={} but --initial-advertise-peer-urls is {}: make them equal",
                self.name,
                listed.join(","),
                advertised.join(",")
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Request, parse};
    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        match parse(&args, []).expect("well-formed words") {
            Request::Serve(settings) => Config::new(&settings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_etcds() {
        let config = config(&[]).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!((config.snapshot_count, config.election_ticks), (10_000, 10));
        assert_eq!(config.quota_bytes, Some(DEFAULT_QUOTA_BYTES));
        assert_eq!(config.compaction, CompactionMode::Off);
        config.check_bootstrap().unwrap();
    }

    #[test]
    fn a_name_alone_makes_its_own_cluster() {
        let config = config(&["--name=n1"]).unwrap();
        assert_eq!(config.initial_cluster_text, "n1=http://localhost:2380");
        assert_eq!(config.data_dir, PathBuf::from("n1.etcd"));
        config.check_bootstrap().unwrap();
    }

    #[test]
    fn complaints_name_the_value() {
        for (args, part) in [
            (
                &["--listen-client-urls=http://example.com:1"][..],
                "expected IP in URL for binding (http://example.com:1)",
            ),
            (&["--listen-client-urls=http://127.0.0.1:1"], "--advertise-client-urls is required"),
            (&["--heartbeat-interval=0"], "must be >0"),
            (&["--election-timeout=400"], "should be at least as 5 times as"),
            (&["--election-timeout=60000"], "too long"),
            (&["--auto-compaction-mode=sometimes"], "sometimes"),
            (&["--auto-compaction-retention=soon"], "soon"),
            (&["--initial-cluster=x"], "\"x\""),
            (&["--initial-cluster=a=http://h:1,b=http://h:1"], "given twice"),
            (&["--log-level=loud"], "unrecognized level: \"loud\""),
            (&["--max-txn-ops=0"], "out of range"),
            (&["--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://127.0.0.1:1"], "https"),
        ] {
            let why = config(args).unwrap_err();
            assert!(why.contains(part), "{args:?}: {why}");
        }
        assert!(
            config(&["--name=x", "--initial-cluster=y=http://h:1"])
                .unwrap()
                .check_bootstrap()
                .unwrap_err()
                .contains("\"x\"")
        );
    }

    #[test]
    fn retention_forms() {
        let mode = |m: &str, r: &str| {
            config(&[&format!("--auto-compaction-mode={m}"), &format!("--auto-compaction-retention={r}")])
                .unwrap()
                .compaction
        };
        assert_eq!(mode("periodic", "2"), CompactionMode::Periodic(Duration::from_secs(7200)));
        assert_eq!(mode("periodic", "10m"), CompactionMode::Periodic(Duration::from_secs(600)));
        assert_eq!(mode("revision", "1000"), CompactionMode::Revision(1000));
        assert_eq!(mode("revision", "0"), CompactionMode::Off);
    }
}
