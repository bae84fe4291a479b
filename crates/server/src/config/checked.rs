//! Settings turned into values that cannot be wrong. All complaints about one start are made here, in etcd's order and
//! words. Source: etcd `embed.Config.Validate`.

use std::path::PathBuf;
use std::time::Duration;

use milepost_peers::Patience;

use super::addresses::{Addresses, default_host};
use super::compaction::CompactionMode;
use super::discovery::Discovery;
use super::gates::Gates;
use super::security::Security;
use super::settings::{Note, Refusal, Settings};
use super::spelling;

/// The quota when the flag says 0.
pub const DEFAULT_QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A quota above this is unusual. Source: etcd `MaxQuotaBytes`.
const LARGE_QUOTA_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// A request limit above this is unusual. Source: etcd `recommendedMaxRequestBytes`.
const LARGE_REQUEST_BYTES: u64 = 10 * 1024 * 1024;

/// Longest message that gRPC can frame, less what a proposal is wrapped in.
const REQUEST_BYTES_MAX: u64 = i32::MAX as u64 - 1024 * 1024;

/// Progress replies are not sent more often. Source: etcd `watchServer`.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Everything a member is told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this member.
    pub name: String,
    /// Everything the member keeps.
    pub data_dir: PathBuf,
    /// The log's directory if it is not inside `data_dir`.
    pub wal_dir: Option<PathBuf>,
    /// Where it listens and what it tells others.
    pub addresses: Addresses,
    /// Members of a new cluster, `name=url` in a comma list.
    pub initial_cluster: String,
    /// True: form a cluster; false: join one.
    pub is_new_cluster: bool,
    /// Keeps clusters apart.
    pub token: String,
    /// Where the members of a new cluster find each other, if `initial_cluster` does not say so.
    pub discovery: Discovery,
    /// The name that other members' certificates carry, if not that of their URLs.
    pub peer_server_name: Option<String>,
    /// Applied entries between two Raft snapshots; never 0.
    pub snapshot_count: u64,
    /// Entries kept behind a Raft snapshot; never 0.
    pub catch_up_entries: u64,
    /// Raft snapshot files kept; 0: all.
    pub max_snapshots: usize,
    /// Log segments kept; 0: all.
    pub max_wals: usize,
    /// One Raft tick.
    pub heartbeat: Duration,
    /// How long a connection between members may be still.
    pub peer_patience: Patience,
    /// Ticks without a heartbeat before an election.
    pub election_ticks: u64,
    /// Election timeout in whole ticks.
    pub election: Duration,
    /// See `--pre-vote`.
    pub pre_vote: bool,
    /// Bytes of the store that raise NOSPACE; `None`: no limit.
    pub quota_bytes: Option<u64>,
    /// Longest time before a commit to the store; `None`: the store's own.
    pub batch_interval: Option<Duration>,
    /// Most changes in a commit to the store; `None`: the store's own.
    pub batch_limit: Option<usize>,
    /// Revisions in one step of a compaction; `None`: the store's own.
    pub compaction_batch: Option<usize>,
    /// Pause between such steps; `None`: the store's own.
    pub compaction_sleep: Option<Duration>,
    /// Defragment at start if it frees so many bytes; 0: never.
    pub defragment_bytes: u64,
    /// Keep memory out of swap.
    pub memory_mlock: bool,
    /// Operations in one branch of a transaction.
    pub max_txn_ops: usize,
    /// Bytes of one proposal.
    pub max_request_bytes: usize,
    /// Streams of one connection.
    pub max_concurrent_streams: u32,
    /// Clients may not ping more often; zero: as often as they like.
    pub keepalive_min_time: Duration,
    /// Idle clients are pinged; zero: never.
    pub keepalive_interval: Duration,
    /// Longest time for a ping's answer; zero: no pings.
    pub keepalive_timeout: Duration,
    /// Other processes may listen on the same ports.
    pub reuse_port: bool,
    /// Time between progress replies.
    pub watch_progress_interval: Duration,
    /// Slower unary requests are logged.
    pub slow_unary: Duration,
    /// Slower applies are logged.
    pub slow_apply: Duration,
    /// Learners that the cluster may have.
    pub max_learners: usize,
    /// Refuse changes of membership that would cost the quorum.
    pub strict_reconfig: bool,
    /// How often the leader compares the members' data; `None`: never.
    pub corrupt_check: Option<Duration>,
    /// How often it compares what compactions leave.
    pub compact_hash_check: Duration,
    /// JSON gateway.
    pub is_gateway_on: bool,
    /// Profiles over HTTP.
    pub is_pprof_on: bool,
    /// Remember calls for `/debug/requests`.
    pub is_tracing_on: bool,
    /// Histograms of request times.
    pub is_metrics_extensive: bool,
    /// Features.
    pub gates: Gates,
    /// TLS, origins, host names.
    pub security: Security,
    /// The disk is never waited for.
    pub unsafe_no_fsync: bool,
    /// How often the end of a downgrade is looked for; 0: never.
    pub downgrade_interval: Duration,
    /// The first election comes soon once others are connected.
    pub advances_ticks: bool,
    /// See `--force-new-cluster`.
    pub force_new_cluster: bool,
    /// Read at start, because etcd complains about them later than about the rest.
    auto_compaction: (String, String),
}

impl Config {
    /// Checks `settings`, and says beside it what should be logged.
    ///
    /// # Errors
    /// The first complaint, with the value and what to change.
    pub fn new(settings: &Settings) -> Result<(Self, Vec<Note>), Refusal> {
        let text = |name| settings.text(name);
        let read = Read(settings);
        if text("discovery-fallback") == "proxy" {
            let complaint = "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"";
            return Err(Refusal::new(complaint, "leave --discovery-fallback out"));
        }
        let mut notes = Vec::new();
        let mut addresses = Addresses::new(settings)?;
        check_cluster(settings)?;
        let (heartbeat_ms, election_ms) = ticks(&read)?;
        if !settings.is_from_file
            && settings.is_given("listen-client-urls")
            && !settings.is_given("advertise-client-urls")
        {
            return Err(Refusal::new(
                NOT_ADVERTISED,
                format!("add --advertise-client-urls={} if clients reach it there", text("listen-client-urls")),
            ));
        }
        check_upkeep(settings, &read, &mut notes)?;
        let name = text("name").to_owned();
        if name == super::table::find("name").map_or("", |flag| flag.default) {
            let message = "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into issue when multiple members have the same default name";
            notes.push(Note::warning(message).with("name", name.clone()));
        }
        let security = Security::new(settings)?;
        let discovery = Discovery::new(settings)?;
        notes.extend(settings.without_effect());
        if text("logger") == "capnslog" {
            notes.push(Note::warning("--logger=capnslog is gone since etcd 3.5: lines are structured"));
        }
        let had_default_cluster = text("initial-cluster") == DEFAULT_CLUSTER;
        notes.extend(addresses.use_default_host(default_host));
        let initial_cluster = if has_discovery(settings) && !settings.is_given("initial-cluster") {
            String::new()
        } else if had_default_cluster && name != "default" {
            let urls =
                addresses.advertise_peer.iter().map(|url| format!("{}={}", name_or_default(&name), url.as_str()));
            urls.collect::<Vec<_>>().join(",")
        } else {
            text("initial-cluster").to_owned()
        };
        let config = Self {
            data_dir: match text("data-dir") {
                "" => {
                    let dir = format!("{name}.etcd");
                    notes.push(Note::warning("'data-dir' was empty; using default").with("data-dir", dir.clone()));
                    dir.into()
                }
                dir => dir.into(),
            },
            wal_dir: Some(text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
            addresses,
            initial_cluster,
            is_new_cluster: text("initial-cluster-state") == "new",
            // Who meets at another etcd has told each other one word already.
            token: match discovery.service.token.as_str() {
                "" => text("initial-cluster-token").to_owned(),
                token => token.to_owned(),
            },
            discovery,
            peer_server_name: None,
            snapshot_count: read.nonzero("snapshot-count", 10_000),
            catch_up_entries: read.nonzero("snapshot-catchup-entries", 5_000),
            max_snapshots: read.size("max-snapshots"),
            max_wals: read.size("max-wals"),
            heartbeat: Duration::from_millis(heartbeat_ms),
            peer_patience: peer_patience(&read, &mut notes),
            election_ticks: election_ms / heartbeat_ms,
            election: Duration::from_millis(election_ms / heartbeat_ms * heartbeat_ms),
            pre_vote: read.yes("pre-vote"),
            quota_bytes: quota(&read, &mut notes),
            batch_interval: read.positive_span("backend-batch-interval"),
            batch_limit: read.positive("backend-batch-limit"),
            compaction_batch: read.positive("compaction-batch-limit"),
            compaction_sleep: read.positive_span("compaction-sleep-interval"),
            defragment_bytes: read.number("bootstrap-defrag-threshold-megabytes").saturating_mul(1024 * 1024),
            memory_mlock: read.yes("memory-mlock"),
            max_txn_ops: read.size("max-txn-ops"),
            max_request_bytes: request_bytes(&read, &mut notes),
            max_concurrent_streams: u32::try_from(read.number("max-concurrent-streams")).unwrap_or(u32::MAX),
            keepalive_min_time: read.span("grpc-keepalive-min-time"),
            keepalive_interval: read.span("grpc-keepalive-interval"),
            keepalive_timeout: read.span("grpc-keepalive-timeout"),
            reuse_port: read.yes("socket-reuse-port"),
            watch_progress_interval: match read.positive_span("watch-progress-notify-interval") {
                None => Duration::from_secs(600),
                Some(interval) => interval.max(PROGRESS_INTERVAL_MIN),
            },
            slow_unary: read.positive_span("warning-unary-request-duration").unwrap_or(Duration::from_millis(300)),
            slow_apply: read.span("warning-apply-duration"),
            max_learners: read.positive("max-learners").unwrap_or(0),
            strict_reconfig: read.yes("strict-reconfig-check"),
            corrupt_check: read.positive_span("corrupt-check-time"),
            compact_hash_check: read.span("compact-hash-check-time"),
            is_gateway_on: read.yes("enable-grpc-gateway"),
            is_pprof_on: read.yes("enable-pprof") || text("log-level") == "debug",
            is_tracing_on: text("log-level") == "debug",
            is_metrics_extensive: text("metrics") == "extensive",
            gates: Gates::parse(text("feature-gates"))?,
            security,
            unsafe_no_fsync: read.yes("unsafe-no-fsync"),
            downgrade_interval: read.span("downgrade-check-time"),
            advances_ticks: read.yes("initial-election-tick-advance"),
            force_new_cluster: read.yes("force-new-cluster"),
            auto_compaction: (text("auto-compaction-mode").to_owned(), text("auto-compaction-retention").to_owned()),
            name,
        };
        Ok((config, notes))
    }

    /// Where the log is.
    #[must_use]
    pub fn wal_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("member").join("wal"))
    }

    /// Automatic compaction; asked for at start.
    ///
    /// # Errors
    /// A retention that is none.
    pub fn compaction(&self) -> Result<CompactionMode, Refusal> {
        CompactionMode::new(&self.auto_compaction.0, &self.auto_compaction.1)
    }

    /// The flags' texts, for the log.
    #[must_use]
    pub fn auto_compaction(&self) -> (&str, &str) {
        (&self.auto_compaction.0, &self.auto_compaction.1)
    }

    /// Shortest lease in whole seconds: one and a half election timeouts. Source: etcd `NewServer`, `minTTL`.
    #[must_use]
    pub fn min_lease_ttl(&self) -> i64 {
        let ticks = self.election_ticks.saturating_mul(3) / 2;
        let timeout = self.heartbeat.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
        i64::try_from(timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0)).unwrap_or(i64::MAX)
    }
}

/// etcd tells this one twice.
pub const NOT_ADVERTISED: &str = "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/// The default of `--initial-cluster`, which is made anew when only a name is given.
const DEFAULT_CLUSTER: &str = "default=http://localhost:2380";

fn name_or_default(name: &str) -> &str {
    if name.is_empty() { "default" } else { name }
}

fn has_discovery(settings: &Settings) -> bool {
    ["discovery-srv", "discovery-srv-name", "discovery-endpoints"].iter().any(|name| !settings.text(name).is_empty())
}

fn check_cluster(settings: &Settings) -> Result<(), Refusal> {
    let text = |name| settings.text(name);
    let state = text("initial-cluster-state");
    if !["new", "existing"].contains(&state) {
        return Err(Refusal::new(
            format!("unexpected clusterState {state:?}"),
            "initial-cluster-state is new or existing",
        ));
    }
    let by_hand =
        !text("initial-cluster").is_empty() && (settings.is_given("initial-cluster") || !has_discovery(settings));
    let ways = [by_hand, !text("discovery-srv").is_empty(), !text("discovery-endpoints").is_empty()];
    if ways.into_iter().filter(|is_set| *is_set).count() > 1 {
        return Err(Refusal::new(
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
            "keep --initial-cluster",
        ));
    }
    if text("discovery-token").is_empty() != text("discovery-endpoints").is_empty() {
        return Err(Refusal::new("both --discovery-token and --discovery-endpoints must be set", "leave both out"));
    }
    let mut endpoints = text("discovery-endpoints").split(',');
    if settings.is_given("discovery-endpoints") && endpoints.any(|endpoint| endpoint.trim().is_empty()) {
        return Err("--discovery-endpoints must not contain empty endpoints".into());
    }
    Ok(())
}

fn ticks(read: &Read<'_>) -> Result<(u64, u64), Refusal> {
    let (heartbeat, election) = (read.number("heartbeat-interval"), read.number("election-timeout"));
    let defaults = "the defaults are 100 and 1000";
    if heartbeat == 0 {
        return Err(Refusal::new("--heartbeat-interval must be >0 (set to 0ms)", defaults));
    }
    if election == 0 {
        return Err(Refusal::new("--election-timeout must be >0 (set to 0ms)", defaults));
    }
    if election < heartbeat.saturating_mul(5) {
        let complaint = format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        );
        return Err(Refusal::new(complaint, defaults));
    }
    if election > 50_000 {
        let complaint = format!("--election-timeout[{election}ms] is too long, and should be set less than 50000ms");
        return Err(Refusal::new(complaint, defaults));
    }
    Ok((heartbeat, election))
}

fn check_upkeep(settings: &Settings, read: &Read<'_>, notes: &mut Vec<Note>) -> Result<(), Refusal> {
    let modes = "--auto-compaction-mode is periodic or revision";
    match settings.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return Err(Refusal::new("undefined auto-compaction-mode", modes)),
        other => return Err(Refusal::new(format!("unknown auto-compaction-mode {other:?}"), modes)),
    }
    if read.yes("enable-distributed-tracing") {
        let rate = spelling::signed(settings.text("distributed-tracing-sampling-rate")).unwrap_or(0);
        if !(0..=1_000_000).contains(&rate) {
            let why = if rate < 0 { "must be positive" } else { "must be less than 1000000" };
            return Err(Refusal::new(
                format!("distributed tracing configurition is not valid: (tracing sampling rate {why})"),
                "--distributed-tracing-sampling-rate is 0 to 1000000",
            ));
        }
    }
    let gates = Gates::parse(settings.text("feature-gates"))?;
    let (checkpoint, persist) = (gates.is_named_on("LeaseCheckpoint"), gates.is_named_on("LeaseCheckpointPersist"));
    if persist && !checkpoint {
        return Err(Refusal::new(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
            "add LeaseCheckpoint=true to --feature-gates",
        ));
    }
    let interval = settings.text("compact-hash-check-time");
    let nanos = spelling::span(interval).unwrap_or(0);
    if nanos <= 0 {
        let shown = milepost_node::log::go_duration(Duration::from_nanos(nanos.unsigned_abs()));
        let sign = if nanos < 0 { "-" } else { "" };
        let complaint = format!("--compact-hash-check-time must be >0 (set to {sign}{shown})");
        return Err(Refusal::new(complaint, "the default is 1m"));
    }
    for (name, message) in DEPRECATED {
        if settings.is_given(name) {
            notes.push(Note::warning(*message));
        }
    }
    Ok(())
}

/// What etcd says about flags that it will drop.
const DEPRECATED: &[(&str, &str)] = &[
    ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
    ),
];

fn quota(read: &Read<'_>, notes: &mut Vec<Note>) -> Option<u64> {
    let quota = match read.signed("quota-backend-bytes") {
        0 => DEFAULT_QUOTA_BYTES,
        negative if negative < 0 => return None,
        bytes => bytes.unsigned_abs(),
    };
    if quota > LARGE_QUOTA_BYTES {
        let note = Note::warning("quota exceeds the maximum value").with("quota-size-bytes", quota.to_string());
        notes.push(note.with("quota-maximum-size-bytes", LARGE_QUOTA_BYTES.to_string()));
    }
    Some(quota)
}

/// Shorter than etcd's own times is raised to them. Source: etcd `etcdmain.config.parse`.
fn peer_patience(read: &Read<'_>, notes: &mut Vec<Note>) -> Patience {
    let mut at_least = |name: &str, least: Duration| {
        let given = read.span(name);
        if given < least {
            notes.push(Note::info(format!("{name} increased to minimum value: {}s", least.as_secs())));
        }
        given.max(least)
    };
    let least = Patience::default();
    Patience { read: at_least("raft-read-timeout", least.read), write: at_least("raft-write-timeout", least.write) }
}

fn request_bytes(read: &Read<'_>, notes: &mut Vec<Note>) -> usize {
    let bytes = read.number("max-request-bytes");
    if bytes > LARGE_REQUEST_BYTES {
        let note = Note::warning("exceeded recommended request limit").with("max-request-bytes", bytes.to_string());
        notes.push(note.with("recommended-request-bytes", LARGE_REQUEST_BYTES.to_string()));
    }
    if bytes > REQUEST_BYTES_MAX {
        let note = Note::warning("--max-request-bytes is more than a message can hold and counts as its largest size");
        notes.push(note.with("bytes", REQUEST_BYTES_MAX.to_string()));
    }
    usize::try_from(bytes.min(REQUEST_BYTES_MAX)).unwrap_or(usize::MAX)
}

/// Values whose spelling was checked when they were set.
struct Read<'a>(&'a Settings);

impl Read<'_> {
    fn number(&self, name: &str) -> u64 {
        spelling::unsigned(self.0.text(name)).unwrap_or(0)
    }

    fn nonzero(&self, name: &str, default: u64) -> u64 {
        Some(self.number(name)).filter(|number| *number > 0).unwrap_or(default)
    }

    fn size(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap_or(usize::MAX)
    }

    fn signed(&self, name: &str) -> i64 {
        spelling::signed(self.0.text(name)).unwrap_or(0)
    }

    /// `None` for zero and below, which stand for a default.
    fn positive(&self, name: &str) -> Option<usize> {
        usize::try_from(self.signed(name)).ok().filter(|number| *number > 0)
    }

    fn span(&self, name: &str) -> Duration {
        spelling::duration(self.0.text(name)).unwrap_or(Duration::ZERO)
    }

    /// `None` for zero and below, which stand for a default.
    fn positive_span(&self, name: &str) -> Option<Duration> {
        Some(self.span(name)).filter(|span| !span.is_zero())
    }

    fn yes(&self, name: &str) -> bool {
        spelling::boolean(self.0.text(name)) == Ok(true)
    }
}
