//! The server program: from the words on the command line to an exit code.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use milepost_api::{ApiConfig, Doors, Limits, Listen, Listener, SlowCall};
use milepost_env::{Disk, OsClock, OsDisk, OsRng, Rng, Unsynced};
use milepost_node::log::{Level, Log, Value};
use milepost_node::{NoLetters, Node, NodeConfig, StopReason, World};

use crate::config::settings::{self, Request, Settings, UsageError};
use crate::config::spelling::Url;
use crate::config::{self, CompactionMode, Config};
use crate::jsonlog::JsonLog;
use crate::peer_port::PeerPort;
use crate::store::open_store;
use crate::{ready, signals, version};

/// How long a start may wait for the log to be applied before it says so.
const READY_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the server with these words (without the program's name) until it is told to stop; the exit code.
///
/// Codes are etcd's: 2 for words that are not understood, 1 for a start that is refused, 0 for a member that was removed.
/// Ended by SIGTERM or SIGINT, the process dies by that same signal after its work is done.
#[must_use]
pub fn run(words: &[OsString]) -> i32 {
    let args: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let settings = match settings::parse(&args, std::env::vars()) {
        Ok(Request::Serve(settings)) => settings,
        Ok(Request::Version) => {
            print!("{}", version::lines());
            return 0;
        }
        Ok(Request::Help) => {
            eprintln!("{}", config::usage());
            print!("{}", config::page());
            return 0;
        }
        Err(UsageError::CommandLine(complaint)) => {
            eprintln!("{complaint}\n{}", config::usage());
            return 2;
        }
        Err(UsageError::Refused(complaint)) => {
            let log = json_log(Level::Info);
            let log: &dyn Log = &log;
            log.info("Running: ", &[("args", Value::from(args))]);
            log.warn("failed to verify flags", &[("error", complaint.into())]);
            return 1;
        }
    };
    let level = settings.text("log-level");
    if !config::LEVELS.contains(&level) {
        eprintln!("unrecognized level: {level:?}: --log-level is one of {}", config::LEVELS.join(", "));
        return 2;
    }
    let log: Arc<dyn Log> = Arc::new(json_log(JsonLog::level(level)));
    log.info("Running: ", &[("args", Value::from(args))]);
    match serve(&settings, &log) {
        Ok(code) => code,
        Err(refusal) => {
            log.log(refusal.level, None, refusal.message, &[("error", refusal.why.into())]);
            1
        }
    }
}

fn json_log(least: Level) -> JsonLog {
    JsonLog::new(least, Arc::new(OsClock), Box::new(std::io::stderr()))
}

/// Why the server does not start: one log line.
struct Refusal {
    level: Level,
    message: &'static str,
    why: String,
}

impl Refusal {
    fn flags(why: String) -> Self {
        Self { level: Level::Warn, message: "failed to verify flags", why }
    }

    fn start(why: impl ToString) -> Self {
        Self { level: Level::Fatal, message: "discovery failed", why: why.to_string() }
    }
}

/// What ends a running server.
enum End {
    Signal(i32),
    Stopped(StopReason),
}

fn serve(settings: &Settings, log: &Arc<dyn Log>) -> Result<i32, Refusal> {
    for variable in &settings.warnings {
        log.warn("unrecognized environment variable", &[("environment-variable", variable.as_str().into())]);
    }
    let config = Config::new(settings).map_err(Refusal::flags)?;
    config.check_alone().map_err(Refusal::flags)?;
    if settings.text("data-dir").is_empty() {
        log.warn("'data-dir' was empty; using default", &[("data-dir", config.data_dir.display().to_string().into())]);
    }
    if config.name == "default" {
        log.info("no --name was given; using the default name", &[("name", config.name.as_str().into())]);
    }
    if config.unsafe_no_fsync {
        log.warn(
            "--unsafe-no-fsync: the disk is not waited for; acknowledged writes can be lost with the machine's power",
            &[],
        );
    }
    if !OsDisk.exists(&config.data_dir.join("member")) {
        config.check_bootstrap().map_err(Refusal::start)?;
    }
    say_start(&config, log);
    // Ports first: a member that nobody could reach must not touch its directory.
    let peer_port = PeerPort::bind(&config.listen_peer).map_err(Refusal::start)?;
    let mut signals = signals::Signals::catch().map_err(Refusal::start)?;
    let node = Node::start(&node_config(&config, log), world(&config, log)).map_err(Refusal::start)?;
    let doors = Doors::start(api_config(&config, log), Arc::new(node.clone())).map_err(|error| {
        node.stop();
        Refusal::start(error)
    })?;
    peer_port.serve().map_err(Refusal::start)?;
    while !node.wait_ready(READY_PATIENCE) {
        if let Some(StopReason::Broken(why)) = node.stopped() {
            return Err(Refusal::start(why));
        }
        if let Some(signal) = signals.pending() {
            return Ok(shut_down(&config, log, doors, &node, signal));
        }
        log.warn("still applying the log before clients are answered", &[]);
    }
    log.info("ready to serve client requests", &[]);
    for url in &config.listen_client {
        let fields = [("traffic", Value::from("grpc+http")), ("address", url.authority().into())];
        log.info("serving client traffic insecurely; this is strongly discouraged!", &fields);
    }
    ready::tell(&**log);
    match wait(&node, signals) {
        End::Signal(signal) => Ok(shut_down(&config, log, doors, &node, signal)),
        End::Stopped(reason) => {
            doors.stop(Duration::ZERO);
            node.stop();
            match reason {
                StopReason::Broken(why) => {
                    log.log(
                        Level::Fatal,
                        None,
                        "the member stops: going on could lose or invent data",
                        &[("error", why.into())],
                    );
                    Ok(1)
                }
                StopReason::Removed => {
                    log.warn("the member has been permanently removed from the cluster", &[]);
                    Ok(0)
                }
                StopReason::Asked => Ok(0),
            }
        }
    }
}

fn wait(node: &Node, signals: signals::Signals) -> End {
    let (tell, end) = mpsc::channel();
    let (node, told) = (node.clone(), tell.clone());
    // Both threads end with the process; whichever speaks first decides.
    std::thread::spawn(move || told.send(End::Stopped(node.wait_stopped())));
    std::thread::spawn(move || tell.send(End::Signal(signals.wait())));
    end.recv().unwrap_or(End::Stopped(StopReason::Asked))
}

fn shut_down(config: &Config, log: &Arc<dyn Log>, doors: Doors, node: &Node, signal: i32) -> i32 {
    let texts = |urls: &[Url]| Value::from(urls.iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>());
    log.info("received signal; shutting down", &[("signal", signals::name(signal).into())]);
    let fields = [
        ("name", config.name.as_str().into()),
        ("data-dir", config.data_dir.display().to_string().into()),
        ("advertise-peer-urls", texts(&config.advertise_peer)),
        ("advertise-client-urls", texts(&config.advertise_client)),
    ];
    log.info("closing etcd server", &fields);
    doors.stop(Duration::from_secs(5) + 2 * config.election);
    node.stop();
    log.info("closed etcd server", &fields);
    signals::die_by(signal)
}

fn say_start(config: &Config, log: &Arc<dyn Log>) {
    let texts = |urls: &[Url]| Value::from(urls.iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>());
    let path = |path: std::path::PathBuf| Value::from(path.display().to_string());
    let member_dir = config.data_dir.join("member");
    log.info(
        "starting an etcd server",
        &[
            ("etcd-version", version::ETCD_VERSION.into()),
            ("milepost-version", env!("CARGO_PKG_VERSION").into()),
            ("git-sha", version::COMMIT.into()),
            ("go-version", format!("none (rustc {})", version::RUSTC).into()),
            ("go-os", std::env::consts::OS.into()),
            ("go-arch", version::go_arch().into()),
            ("max-cpu-available", std::thread::available_parallelism().map_or(1, usize::from).into()),
            ("member-initialized", OsDisk.exists(&member_dir).into()),
            ("name", config.name.as_str().into()),
            ("data-dir", path(config.data_dir.clone())),
            ("wal-dir", path(config.wal_dir.clone().unwrap_or_default())),
            ("member-dir", path(member_dir)),
            ("force-new-cluster", false.into()),
            ("heartbeat-interval", config.heartbeat.into()),
            ("election-timeout", config.election.into()),
            ("snapshot-count", config.snapshot_count.into()),
            ("initial-advertise-peer-urls", texts(&config.advertise_peer)),
            ("listen-peer-urls", texts(&config.listen_peer)),
            ("advertise-client-urls", texts(&config.advertise_client)),
            ("listen-client-urls", texts(&config.listen_client)),
            ("listen-metrics-urls", texts(&[])),
            ("initial-cluster", config.initial_cluster_text.as_str().into()),
            ("initial-cluster-state", if config.is_new_cluster { "new" } else { "existing" }.into()),
            ("initial-cluster-token", config.token.as_str().into()),
            ("quota-backend-bytes", config.quota_bytes.unwrap_or_default().into()),
            ("max-request-bytes", config.max_request_bytes.into()),
            ("pre-vote", true.into()),
        ],
    );
}

fn world(config: &Config, log: &Arc<dyn Log>) -> World {
    let disk: Arc<dyn Disk> = if config.unsafe_no_fsync { Arc::new(Unsynced(OsDisk)) } else { Arc::new(OsDisk) };
    World {
        disk: Arc::clone(&disk),
        clock: Arc::new(OsClock),
        letters: Box::new(NoLetters),
        open_store: open_store(disk, config.unsafe_no_fsync, Arc::clone(log)),
    }
}

fn node_config(config: &Config, log: &Arc<dyn Log>) -> NodeConfig {
    let mut node = NodeConfig::new(&config.name, config.data_dir.clone(), Arc::clone(log));
    node.wal_dir.clone_from(&config.wal_dir);
    node.client_urls = config.advertise_client.iter().map(|url| url.as_str().to_owned()).collect();
    node.initial_cluster.clone_from(&config.initial_cluster);
    node.cluster_token.clone_from(&config.token);
    node.heartbeat = config.heartbeat;
    node.election_ticks = config.election_ticks;
    node.seed = OsRng.next_u64();
    node.snapshot_count = config.snapshot_count;
    node.compaction = match config.compaction {
        CompactionMode::Off => milepost_node::CompactionMode::Off,
        CompactionMode::Periodic(period) => milepost_node::CompactionMode::Periodic(period),
        CompactionMode::Revision(revisions) => milepost_node::CompactionMode::Revision(revisions),
    };
    node.machine.quota_bytes = config.quota_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    node.machine.max_txn_ops = config.max_txn_ops;
    node.machine.max_request_bytes = config.max_request_bytes;
    node.machine.min_lease_ttl = config.min_lease_ttl();
    node
}

fn api_config(config: &Config, log: &Arc<dyn Log>) -> ApiConfig {
    let told = Arc::clone(log);
    let listen = |url: &Url| match url.scheme.as_str() {
        "unix" => Listen::Unix(url.host.clone().into()),
        _ => Listen::Tcp { host: url.host.clone(), port: url.port },
    };
    ApiConfig {
        listeners: config.listen_client.iter().map(listen).map(Listener::plain).collect(),
        log: Arc::clone(log),
        limits: Limits {
            max_request_bytes: config.max_request_bytes,
            max_txn_ops: config.max_txn_ops,
            election_timeout: config.election,
            ..Limits::default()
        },
        server_version: version::ETCD_VERSION.into(),
        own_version: env!("CARGO_PKG_VERSION").into(),
        on_slow: Some(Arc::new(move |call: SlowCall| {
            told.warn(
                "request took too long",
                &[
                    ("took", call.took.into()),
                    ("method", call.method.into()),
                    ("request-size", call.request_bytes.into()),
                    ("response-size", call.response_bytes.into()),
                ],
            );
        })),
        ..ApiConfig::default()
    }
}
