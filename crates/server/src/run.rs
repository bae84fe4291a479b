//! The server program: from the words on the command line to an exit code.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use milepost_api::{ApiConfig, DoorError, Doors};
use milepost_env::{OsClock, ShortTurns};
use milepost_node::log::{Level, Log, Value};
use milepost_node::{Node, StopReason};
use milepost_peers::Transport;

use crate::cluster::colleagues::Others;
use crate::cluster::corruption::{Checker, Watch};
use crate::cluster::discovery;
use crate::cluster::forming::{self, Place};
use crate::cluster::letters::Post;
use crate::cluster::{ticks, versions};
use crate::config::cluster;
use crate::config::logging::{LogPlan, LogRefusal};
use crate::config::settings::{Note, Refusal, Settings};
use crate::config::words::{self, Request, UsageError};
use crate::config::{self, Config};
use crate::data_dir::{self, Before};
use crate::log::MemberLog;
use crate::peer_port::PeerPort;
use crate::{ready, signals, start, version, wiring};

/// How long a start may wait for the log to be applied before it says so.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How often a signal is looked for meanwhile.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// The environment; what is no UTF-8 in it is nobody's flag, and no reason to fall over.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

/// Runs the server with these words (without the program's name) until it is told to stop; the exit code.
///
/// Codes are etcd's: 2 for words that are not understood, 1 for a start that is refused, 0 for a member that was removed.
/// Ended by SIGTERM or SIGINT, the process dies by that same signal after its work is done.
#[must_use]
pub fn run(words: &[OsString]) -> i32 {
    milepost_env::keep_pages_small();
    let args: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let request = words::parse(&args, variables());
    let settings = match request {
        Ok(Request::Version) => {
            print!("{}", version::lines());
            return 0;
        }
        Ok(Request::Help) => {
            eprintln!("{}", config::usage());
            print!("{}", config::page());
            return 0;
        }
        Ok(Request::Serve(settings)) => Ok(settings),
        Ok(Request::ServeFile(path)) => config::read_file(&path).map(|mut settings| {
            let message = "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided";
            settings.notes.push(Note::info(message).with("path", path));
            settings
        }),
        Err(error) => Err(error),
    };
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return refuse_usage(error),
    };
    let log =
        LogPlan::new(&settings).and_then(|plan| MemberLog::open(&plan, Arc::new(OsClock)).map_err(LogRefusal::Other));
    let log: Arc<dyn Log> = match log {
        Ok(log) => Arc::new(log),
        Err(LogRefusal::Level(refusal)) => {
            eprintln!("{}\n  {}", refusal.complaint, refusal.remedy);
            return 2;
        }
        Err(LogRefusal::Other(refusal)) => return refuse_usage(UsageError::Refused(refusal)),
    };
    say_running(&*log);
    match serve(&settings, &log, args.is_empty()) {
        Ok(code) => code,
        Err(end) => end.tell(&*log),
    }
}

fn say_running(log: &dyn Log) {
    let called: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    log.info("Running: ", &[("args", Value::from(called))]);
}

/// Tells what is wrong with the words, where it belongs; the exit code.
fn refuse_usage(error: UsageError) -> i32 {
    let plain = MemberLog::plain(Arc::new(OsClock));
    let log: &dyn Log = &plain;
    match error {
        UsageError::CommandLine(Refusal { complaint, remedy }) => {
            let remedy = if remedy.is_empty() { remedy } else { format!("  {remedy}\n") };
            eprintln!("{complaint}\n{remedy}{}", config::usage());
            2
        }
        UsageError::Plain(text) => {
            eprintln!("{text}");
            1
        }
        UsageError::Conflict(variable) => {
            // The brackets do not match in etcd either; tools match on the text.
            let message = "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";
            log.log(Level::Fatal, None, message, &[("environment-variable", variable.into())]);
            1
        }
        UsageError::Refused(refusal) => {
            say_running(log);
            End::flags(refusal).tell(log)
        }
    }
}

/// Why the server does not start, or what ended it: one log line and an exit code.
struct End {
    level: Level,
    message: &'static str,
    refusal: Refusal,
    code: i32,
}

impl End {
    fn flags(refusal: Refusal) -> Self {
        Self { level: Level::Warn, message: "failed to verify flags", refusal, code: 1 }
    }

    fn start(refusal: impl Into<Refusal>) -> Self {
        Self { level: Level::Fatal, message: "discovery failed", refusal: refusal.into(), code: 1 }
    }

    fn discovered(why: discovery::Failed) -> Self {
        match why {
            discovery::Failed::Look(refusal) => Self::start(refusal),
            discovery::Failed::Join(refusal) => {
                let message = "failed to bootstrap; discovery token was already used";
                Self { level: Level::Warn, message, refusal, code: 1 }
            }
        }
    }

    fn wired(fault: wiring::Fault) -> Self {
        Self { message: fault.message, ..Self::start(fault.refusal) }
    }

    fn failed(error: impl ToString) -> Self {
        Self::start(error.to_string())
    }

    fn tell(self, log: &dyn Log) -> i32 {
        let Refusal { complaint, remedy } = self.refusal;
        let told_twice = complaint == config::NOT_ADVERTISED;
        let fields: Vec<(&str, Value)> = [("error", complaint), ("remedy", remedy)]
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name, text.into()))
            .collect();
        log.log(self.level, None, self.message, &fields);
        if told_twice {
            log.warn("advertise client URLs are not set", &fields[..1]);
        }
        self.code
    }
}

/// The doors for clients and the one for other members.
struct AllDoors {
    peers: Doors,
    clients: Doors,
    /// The way to other members.
    post: Arc<Post>,
}

impl AllDoors {
    fn open(peers: ApiConfig, clients: ApiConfig, post: Arc<Post>, node: &Node) -> Result<Self, End> {
        // A door waits, does a little and waits again, with clients on the other side.
        let short_turns = ShortTurns::begin();
        let start = |config| Doors::start(config, Arc::new(node.clone()));
        let peers = start(peers).map_err(|error| End::start(in_gos_words(error)))?;
        let clients = start(clients);
        drop(short_turns);
        match clients {
            Ok(clients) => Ok(Self { peers, clients, post }),
            // etcd opens certificates of clients only when it serves.
            Err(DoorError::Tls(why)) => Err(End { message: "listener failed", ..End::start(why) }),
            Err(error) => Err(End::start(in_gos_words(error))),
        }
    }

    /// What reads certificates again.
    fn tls_reloader(&self) -> impl Fn() + Send + 'static {
        let (peers, clients) = (self.peers.tls_reloader(), self.clients.tls_reloader());
        move || {
            peers();
            clients();
        }
    }

    fn stop(self, patience: Duration) {
        self.clients.stop(patience);
        self.post.close();
        self.peers.stop(Duration::ZERO);
    }
}

/// What ends a running server.
enum Stop {
    Signal(i32),
    Stopped(StopReason),
}

fn serve(settings: &Settings, log: &Arc<dyn Log>, is_bare: bool) -> Result<i32, End> {
    let (mut config, notes) = checked(settings, &**log)?;
    tell(&notes, &**log);
    if config.unsafe_no_fsync {
        log.warn(
            "--unsafe-no-fsync: the disk is not waited for; acknowledged writes can be lost with the machine's power",
            &[],
        );
    }
    look(&config, &**log)?;
    config.addresses.check_listeners().map_err(End::start)?;
    // Ports first: a member that other members could not reach must not touch its directory.
    let peer_port = PeerPort::hold(&config.addresses.listen_peer, config.reuse_port).map_err(End::start)?;
    let has_log = forming::has_log(&config.wal_dir());
    discovery::resolve(&mut config, has_log, &**log).map_err(End::discovered)?;
    let place = place(&config, has_log, &**log)?;
    config.security.check_token().map_err(End::start)?;
    let compaction = config.compaction().map_err(End::start)?;
    start::say(&config, compaction, has_log, &**log);
    if config.memory_mlock {
        lock_memory(&**log)?;
    }
    let mut peers = wiring::peers(&config, log).map_err(End::wired)?;
    let mut clients = wiring::api(&config, log).map_err(End::wired)?;
    let post = wiring::post(&config, log).map_err(End::wired)?;
    let mut signals = signals::Signals::catch().map_err(End::failed)?;
    let told = wiring::node(&config, place, compaction, log).map_err(End::start)?;
    let node = Node::start(&told, wiring::world(&config, &post, log)).map_err(End::failed)?;
    let others = Arc::new(wiring::others(&config, &post).map_err(End::start).inspect_err(|_| node.stop())?);
    (peers.colleagues, clients.colleagues) = (others.clone(), others.clone());
    if has_log && config.gates.is_named_on("InitialCorruptCheck") {
        // Before a word is said to the others: what differs must not spread.
        compare(&config, &node, &others, log).inspect_err(|_| node.stop())?;
    }
    let transport = post.open(&node).map_err(End::failed).inspect_err(|_| node.stop())?.clone();
    peers.peer_service = Some(transport.service());
    watch_over(&config, &node, &transport, log).map_err(End::failed).inspect_err(|_| node.stop())?;
    clients.more_metrics = Some(Arc::new(move || transport.metrics()));
    drop(peer_port);
    let doors = AllDoors::open(peers, clients, post, &node).inspect_err(|_| node.stop())?;
    match until_ready(&node, &mut signals, &**log) {
        None => {}
        // As etcd, which catches no signal before it is ready: at once.
        Some(Stop::Signal(signal)) => return Ok(shut_down(&config, log, doors, &node, signal, Duration::ZERO)),
        Some(Stop::Stopped(StopReason::Broken(why))) => {
            node.stop();
            return Err(End::failed(why));
        }
        Some(Stop::Stopped(reason)) => {
            node.stop();
            return Ok(after(reason, &**log));
        }
    }
    doors.clients.open();
    log.info("ready to serve client requests", &[]);
    let field = wiring::field(&config, &node, &others, log);
    let _comparing = Watch::start(field, wiring::compare_times(&config)).map_err(End::failed)?;
    start::say_served(&config, &doors.clients, &doors.peers, &**log);
    ready::tell(&**log);
    start::greet(&config, is_bare);
    match wait(&node, signals, doors.tls_reloader()) {
        Stop::Signal(signal) => {
            let patience = Duration::from_secs(5) + 2 * config.election;
            Ok(shut_down(&config, log, doors, &node, signal, patience))
        }
        Stop::Stopped(reason) => {
            doors.stop(Duration::ZERO);
            node.stop();
            Ok(after(reason, &**log))
        }
    }
}

/// What a member does beside serving, on threads that end with it.
fn watch_over(config: &Config, node: &Node, transport: &Transport, log: &Arc<dyn Log>) -> Result<(), String> {
    let no_thread = |error: std::io::Error| error.to_string();
    let ask = wiring::ask(config).map_err(|refusal| refusal.complaint)?;
    let patience = Duration::from_secs(5) + 2 * config.election;
    versions::watch(node.clone(), ask, config.downgrade_interval, patience, Arc::clone(log)).map_err(no_thread)?;
    if config.advances_ticks {
        ticks::advance(node.clone(), transport.clone(), config.election, Arc::clone(log)).map_err(no_thread)?;
    }
    Ok(())
}

/// Waits until clients may be answered; otherwise what ended the member before.
fn until_ready(node: &Node, signals: &mut signals::Signals, log: &dyn Log) -> Option<Stop> {
    let mut waited = Duration::ZERO;
    while !node.wait_ready(SIGNAL_INTERVAL) {
        if let Some(reason) = node.stopped() {
            return Some(Stop::Stopped(reason));
        }
        if let Some(signal) = signals.pending() {
            return Some(Stop::Signal(signal));
        }
        waited += SIGNAL_INTERVAL;
        if waited >= READY_PATIENCE {
            waited = Duration::ZERO;
            let status = node.status();
            let position = [("applied-index", status.applied.into()), ("commit-index", status.committed.into())];
            if status.leader.0 == 0 {
                log.warn(
                    "no leader yet; clients wait: are most of the members up, and can they reach each other?",
                    &position,
                );
            } else {
                log.warn("still applying the log before clients are answered", &position);
            }
        }
    }
    None
}

/// Compares this member's data with those of the others that answer.
fn compare(config: &Config, node: &Node, others: &Arc<Others>, log: &Arc<dyn Log>) -> Result<(), End> {
    if node.reader().membership().members.len() < 2 {
        return Ok(());
    }
    let checker = Checker::new(wiring::field(config, node, others, log), &**log);
    checker.initial().map_err(|why| {
        log.error("checkInitialHashKV failed", &[("error", Value::from(why.as_str()))]);
        let remedy = "if the others are right, remove this member, empty its data directory and add it again; if it is right, they are to be replaced; --feature-gates=InitialCorruptCheck=false starts it all the same";
        End::start(Refusal::new(why, remedy))
    })
}

/// The configuration, and what to log about it; notes are told even if it is refused.
fn checked(settings: &Settings, log: &dyn Log) -> Result<(Config, Vec<Note>), End> {
    tell(&settings.notes, log);
    let (config, notes) = Config::new(settings).map_err(End::flags)?;
    Ok((config, notes))
}

fn tell(notes: &[Note], log: &dyn Log) {
    for note in notes {
        let fields: Vec<(&str, Value)> =
            note.fields.iter().map(|(name, value)| (*name, Value::from(value.as_str()))).collect();
        let level = if note.is_warning { Level::Warn } else { Level::Info };
        log.log(level, None, &note.message, &fields);
    }
}

/// A port that cannot be had, as Go's `net` says it.
fn in_gos_words(error: DoorError) -> Refusal {
    match error {
        DoorError::Bind { address, source, remedy } => {
            let kind = if address.starts_with('/') || !address.contains(':') { "unix" } else { "tcp" };
            let shown = address.replacen("localhost", "127.0.0.1", 1);
            Refusal::new(format!("listen {kind} {shown}: bind: {}", config::system_words(&source)), remedy)
        }
        other => other.to_string().into(),
    }
}

/// Looks who was in the directory before us.
fn look(config: &Config, log: &dyn Log) -> Result<(), End> {
    let before = data_dir::look(&config.data_dir, log).map_err(|(message, why)| End {
        level: Level::Fatal,
        message,
        refusal: Refusal::new(
            why,
            "give --data-dir a directory of this member alone, which this user may read and write",
        ),
        code: 1,
    })?;
    let (message, kind) = match before {
        Before::Member => ("server has already been initialized", "member"),
        Before::Nobody => ("Initialize and start etcd server", "empty"),
        Before::Proxy => {
            return Err(End {
                level: Level::Fatal,
                message: "v2 http proxy has already been deprecated in 3.6",
                refusal: Refusal::new(
                    "",
                    format!("{} is a v2 proxy's: give --data-dir another", config.data_dir.display()),
                ),
                code: 2,
            });
        }
    };
    let fields = [("data-dir", config.data_dir.display().to_string().into()), ("dir-type", kind.into())];
    log.info(message, &fields);
    Ok(())
}

/// Whom this member forms a cluster with, or joins.
fn place(config: &Config, has_log: bool, log: &dyn Log) -> Result<Place, End> {
    let named = cluster::members(&config.initial_cluster);
    // A member with a log knows better.
    let named = if has_log { named.unwrap_or_default() } else { named.map_err(End::start)? };
    let ask = wiring::ask(config).map_err(End::start)?;
    forming::place(config, named, has_log, &ask, log).map_err(End::start)
}

fn lock_memory(log: &dyn Log) -> Result<(), End> {
    milepost_env::lock_memory().map_err(|error| {
        End::start(Refusal::new(
            format!("--memory-mlock: {}", config::system_words(&error)),
            "raise the limit of locked memory (ulimit -l unlimited, LimitMEMLOCK=infinity in systemd), or leave it out",
        ))
    })?;
    log.info("memory is kept out of swap", &[]);
    Ok(())
}

fn wait(node: &Node, signals: signals::Signals, on_hangup: impl Fn() + Send + 'static) -> Stop {
    let (tell, end) = mpsc::channel();
    let (node, told) = (node.clone(), tell.clone());
    // Both threads end with the process; whichever speaks first decides.
    std::thread::spawn(move || told.send(Stop::Stopped(node.wait_stopped())));
    std::thread::spawn(move || tell.send(Stop::Signal(signals.wait(on_hangup))));
    end.recv().unwrap_or(Stop::Stopped(StopReason::Asked))
}

/// The exit code of a member that stopped by itself.
fn after(reason: StopReason, log: &dyn Log) -> i32 {
    match reason {
        StopReason::Broken(why) => {
            let message = "the member stops: going on could lose or invent data";
            log.log(Level::Fatal, None, message, &[("error", why.into())]);
            1
        }
        StopReason::Removed => {
            log.warn("the member has been permanently removed from the cluster", &[]);
            0
        }
        StopReason::Asked => 0,
    }
}

/// Ends a member: somebody else leads first, then clients have `patience` to hear their answers.
fn shut_down(
    config: &Config,
    log: &Arc<dyn Log>,
    doors: AllDoors,
    node: &Node,
    signal: i32,
    patience: Duration,
) -> i32 {
    log.info("received signal; shutting down", &[("signal", signals::name(signal).into())]);
    let fields = [
        ("name", config.name.as_str().into()),
        ("data-dir", config.data_dir.display().to_string().into()),
        ("advertise-peer-urls", start::texts(&config.addresses.advertise_peer)),
        ("advertise-client-urls", start::texts(&config.addresses.advertise_client)),
    ];
    log.info("closing etcd server", &fields);
    if !patience.is_zero() {
        // Whatever comes of it, it was told.
        let _ = node.hand_over(patience);
    }
    doors.stop(patience);
    node.stop();
    log.info("closed etcd server", &fields);
    signals::die_by(signal)
}
