//! What to run: the flags of the command line as values that cannot be wrong.

use std::ffi::OsString;
use std::time::Duration;

use milepost_client::{Secure, SecureDialler};

use crate::args::{Given, UsageError};
use crate::endpoint::{Endpoint, Tls};
use crate::keys;
use crate::load::Shape;
use crate::table::{CLIENTS_MAX, COMMANDS, CONNS_MAX, FLAGS, VALUE_MAX, WATCHERS_MAX, help, names, overview};
use crate::tickets::Until;

/// Which kind of requests is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Puts of one key each.
    Put,
    /// Reads of one key each.
    Range,
    /// Lists of many keys.
    List {
        /// Keys per page, 0 for all.
        limit: u64,
        /// Only the number of keys.
        count_only: bool,
    },
    /// Transactions of several puts.
    TxnPut {
        /// Puts in each.
        ops: u64,
    },
    /// Transactions of a read of several keys and a put.
    TxnMixed {
        /// Keys read in each.
        read: u64,
    },
    /// Deletes of one key each.
    Delete,
    /// The whole key space, several times.
    Load {
        /// How often each key is written.
        revisions: u64,
    },
    /// What Kubernetes does all day.
    Kube {
        /// Keys per page.
        page: u64,
        /// How many watchers, each of one slice of the keys.
        watchers: u64,
        /// How many watch streams.
        streams: u64,
    },
    /// Grants of leases.
    LeaseGrant,
    /// Renewals of leases.
    LeaseKeepAlive {
        /// How many leases.
        leases: u64,
    },
    /// Leases that end together.
    LeaseExpire {
        /// How many leases.
        leases: u64,
        /// Time to live.
        ttl: Duration,
    },
    /// Locks that many want.
    Lock {
        /// How many different ones.
        locks: u64,
    },
    /// Downloads of the store.
    Snapshot,
    /// One compaction.
    Compact {
        /// Revisions that stay below the newest.
        keep: u64,
    },
    /// One defragmentation of each endpoint.
    Defragment,
    /// Puts that many watchers hear of.
    Watch {
        /// How many watchers over all streams.
        watchers: u64,
        /// How many watch streams.
        streams: u64,
    },
}

/// Everything about one run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is measured.
    pub command: Command,
    /// The command as it was typed.
    pub name: &'static str,
    /// Connections and clients.
    pub shape: Shape,
    /// When the measured phase ends.
    pub until: Until,
    /// Length of the same work before the measured phase; zero for none.
    pub warmup: Duration,
    /// Requests per second of an open loop; `None` is a closed loop.
    pub rate: Option<f64>,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub val_size: usize,
    /// How many different keys.
    pub key_space: u64,
    /// Nothing is loaded or counted before reads.
    pub loaded: bool,
    /// Keys in order instead of drawn.
    pub sequential: bool,
    /// What the draw depends on.
    pub seed: u64,
    /// Reads ask the member alone.
    pub serializable: bool,
    /// How many acknowledged writes are read back; 0 turns all comparing of content off.
    pub sample: usize,
    /// Puts beside commits of the server's store are told from the others.
    pub commits: bool,
    /// Processes whose cost is the server's.
    pub server_pids: Vec<u32>,
    /// How long silence is borne.
    pub patience: Duration,
    /// One JSON object instead of text.
    pub json: bool,
}

/// What the user wants.
pub enum Asked {
    /// A run.
    Run(Box<Options>),
    /// This text.
    Help(String),
}

/// Reads the words after `bench`.
///
/// # Errors
/// One line that names the flag, the value and the remedy.
pub fn parse(words: Vec<OsString>) -> Result<Asked, UsageError> {
    let mut words = words.into_iter();
    let Some(first) = words.next() else {
        return Err(UsageError(format!("no command: give one of {}", names())));
    };
    if first == "--help" || first == "-h" || first == "help" {
        return Ok(Asked::Help(overview()));
    }
    let Some((name, about)) = COMMANDS.iter().copied().find(|(name, _)| first == *name) else {
        return Err(UsageError(format!("unknown command {first:?}: give one of {}", names())));
    };
    let words: Vec<OsString> = words.collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        return Ok(Asked::Help(help(name, about)));
    }
    options(name, &Given::read(name, FLAGS, words)?).map(|options| Asked::Run(Box::new(options)))
}

fn options(name: &'static str, given: &Given) -> Result<Options, UsageError> {
    let number = |flag, low, high| Ok(given.count(flag, low, high)?.unwrap_or(low));
    let watching = matches!(name, "watch" | "watch-latency" | "kube");
    let watchers = given.count("--watchers", 1, WATCHERS_MAX)?.unwrap_or(match name {
        "watch" => 1000,
        "kube" => 100,
        _ => 1,
    });
    let streams = given.count("--streams", 1, CLIENTS_MAX)?.unwrap_or(watchers.min(100));
    let command = match name {
        "put" => Command::Put,
        "range" => Command::Range,
        "list" => {
            Command::List { limit: number("--limit", 0, u64::MAX >> 1)?, count_only: given.switch("--count-only")? }
        }
        "txn-put" => Command::TxnPut { ops: number("--txn-ops", 1, 10_000)? },
        "txn-mixed" => Command::TxnMixed { read: number("--read-keys", 1, 1_000_000)? },
        "lease-grant" => Command::LeaseGrant,
        "lease-keepalive" => Command::LeaseKeepAlive { leases: number("--leases", 1, 10_000_000)? },
        "delete" => Command::Delete,
        "load" => Command::Load { revisions: number("--revisions", 1, 1000)? },
        "kube" => Command::Kube { page: number("--page", 1, 1_000_000)?, watchers, streams },
        "lease-expire" => Command::LeaseExpire { leases: number("--leases", 1, 10_000_000)?, ttl: ttl(given)? },
        "lock" => Command::Lock { locks: number("--locks", 1, 1_000_000)? },
        "snapshot" => Command::Snapshot,
        "compact" => Command::Compact { keep: number("--keep", 0, u64::MAX >> 1)? },
        "defragment" => Command::Defragment,
        _ => Command::Watch { watchers, streams },
    };
    let key_size = number("--key-size", 1, VALUE_MAX)? as usize;
    // A watch event is told from others by its value's first eight bytes.
    let val_size = number("--val-size", if watching { 8 } else { 0 }, VALUE_MAX)? as usize;
    let options = Options {
        name,
        shape: shape(name, given, &command)?,
        until: until(name, given)?,
        warmup: given.duration("--warmup")?.unwrap_or_default(),
        rate: rate(name, given)?,
        key_size,
        val_size,
        key_space: key_space(name, given, key_size, &command)?,
        loaded: given.switch("--loaded")?,
        sequential: given.switch("--sequential")?,
        seed: given.count("--seed", 0, u64::MAX)?.unwrap_or(1),
        serializable: serializable(given)?,
        sample: number("--sample", 0, 1_000_000)? as usize,
        commits: given.switch("--commits")?,
        server_pids: server_pids(given)?,
        patience: given.duration("--timeout")?.unwrap_or(Duration::from_secs(30)),
        json: given.switch("--json")?,
        command,
    };
    if options.commits && options.shape.endpoints.len() > 1 {
        let several = given.text("--endpoints").unwrap_or_default();
        return Err(given.bad(
            "--endpoints",
            several,
            "are several, each with commits of its own",
            "one with --commits",
        ));
    }
    if options.patience.is_zero() {
        return Err(given.bad("--timeout", "0s", "leaves no time to answer", "30s or so"));
    }
    Ok(options)
}

/// Whole seconds: that is what leases are granted for.
fn ttl(given: &Given) -> Result<Duration, UsageError> {
    let ttl = given.duration("--ttl")?.unwrap_or(Duration::from_secs(20));
    if ttl.subsec_nanos() != 0 || ttl.is_zero() {
        let value = given.text("--ttl").unwrap_or_default();
        return Err(given.bad("--ttl", value, "is not a number of whole seconds", "one from 1s up"));
    }
    Ok(ttl)
}

fn rate(name: &str, given: &Given) -> Result<Option<f64>, UsageError> {
    let usual = (name == "watch-latency").then_some(100);
    Ok(given.count("--rate", 1, 10_000_000)?.or(usual).map(|rate| rate as f64))
}

fn shape(name: &str, given: &Given, command: &Command) -> Result<Shape, UsageError> {
    let watching = name == "watch";
    let usual = match name {
        "watch" | "snapshot" | "compact" | "defragment" => 1,
        "load" | "lock" | "kube" | "watch-latency" => 100,
        // A thousand whole lists at once would be gigabytes on both sides.
        "list" => 10,
        _ => 1000,
    };
    let clients = given.count("--clients", 1, CLIENTS_MAX)?.unwrap_or(usual);
    // Watch streams need the connections there, the few clients that put share them out of sight.
    let users = match command {
        Command::Watch { streams, .. } if watching => *streams,
        _ => clients,
    };
    let conns = given.count("--conns", 1, CONNS_MAX)?.unwrap_or(users.min(100));
    if conns > users {
        let (flag, remedy) = if watching { ("--streams", "streams") } else { ("--clients", "clients") };
        let remedy = format!("at most {users}, or more {remedy} ({flag})");
        return Err(given.bad("--conns", &conns.to_string(), "leaves connections without work", &remedy));
    }
    let threads = given.count("--threads", 1, 1024)?.unwrap_or(1);
    if threads > conns {
        let remedy = format!("at most {conns}, or more connections (--conns)");
        return Err(given.bad("--threads", &threads.to_string(), "leaves threads without a connection", &remedy));
    }
    let (conns, clients, threads) = (conns as usize, clients as usize, threads as usize);
    Ok(Shape { endpoints: endpoints(given)?, conns, clients, threads })
}

fn until(name: &str, given: &Given) -> Result<Until, UsageError> {
    let total = given.count("--total", 1, u64::MAX >> 1)?;
    let duration = given.duration("--duration")?;
    match (total, duration) {
        (Some(_), Some(_)) => Err(UsageError("--total and --duration exclude each other: give one".into())),
        (Some(total), None) => Ok(Until::Total(total)),
        (None, Some(Duration::ZERO)) => Err(given.bad("--duration", "0s", "measures nothing", "10s or so")),
        // These end by themselves; every command asks for its own number.
        (None, None) if matches!(name, "delete" | "load" | "lease-expire" | "compact" | "defragment") => {
            Ok(Until::Total(u64::MAX >> 1))
        }
        (None, duration) => Ok(Until::Duration(duration.unwrap_or(Duration::from_secs(10)))),
    }
}

fn key_space(name: &str, given: &Given, key_size: usize, command: &Command) -> Result<u64, UsageError> {
    let usual = match name {
        "watch" | "watch-latency" => 1,
        "list" | "kube" => 10_000,
        _ => 100_000,
    };
    let asked = given.count("--key-space-size", 1, u64::MAX >> 1)?;
    // Short keys have a smaller space unless one was asked for.
    let space = asked.unwrap_or(if keys::fits(usual, key_size) { usual } else { 10u64.pow(key_size as u32) });
    if !keys::fits(space, key_size) {
        let remedy = format!("fewer keys, or --key-size {} or more", keys::digits(space - 1));
        let problem = format!("does not fit into keys of {key_size} digits");
        return Err(given.bad("--key-space-size", &space.to_string(), &problem, &remedy));
    }
    match command {
        Command::Kube { watchers, .. } if *watchers > space => {
            let remedy = format!("at most {space}, or more keys (--key-space-size)");
            Err(given.bad("--watchers", &watchers.to_string(), "leaves watchers without a key", &remedy))
        }
        Command::TxnPut { ops } if *ops > space => {
            let remedy = format!("at most {space}, or more keys (--key-space-size)");
            Err(given.bad("--txn-ops", &ops.to_string(), "is more than there are keys", &remedy))
        }
        _ => Ok(space),
    }
}

fn serializable(given: &Given) -> Result<bool, UsageError> {
    match given.text("--consistency") {
        None | Some("l") => Ok(false),
        Some("s") => Ok(true),
        Some(other) => {
            Err(given.bad("--consistency", other, "is no consistency", "l (linearizable) or s (serializable)"))
        }
    }
}

fn endpoints(given: &Given) -> Result<Vec<Endpoint>, UsageError> {
    let list = given.text("--endpoints").unwrap_or_default();
    let secure = list.contains("https://");
    let tls = if secure { Some(tls(given)?) } else { None };
    if !secure {
        // A switch that does nothing would let one believe that it does.
        let idle = ["--cacert", "--cert", "--key", "--insecure-skip-tls-verify"];
        if let Some(flag) = idle.iter().find(|flag| given.text(flag).is_some()) {
            let value = given.text(flag).unwrap_or_default();
            return Err(given.bad(flag, value, "has no effect without TLS", "endpoints as https://HOST:PORT with it"));
        }
    }
    list.split(',').map(|text| endpoint(given, text.trim(), tls.as_ref())).collect()
}

fn tls(given: &Given) -> Result<Tls, UsageError> {
    let file = |name| given.text(name).unwrap_or_default().to_owned();
    let secure = Secure {
        cert: file("--cert"),
        key: file("--key"),
        cacert: file("--cacert"),
        insecure_skip_verify: given.switch("--insecure-skip-tls-verify")?,
        ..Secure::default()
    };
    SecureDialler::new(&secure).map(Tls).map_err(|error| UsageError(format!("TLS: {error}")))
}

fn endpoint(given: &Given, text: &str, tls: Option<&Tls>) -> Result<Endpoint, UsageError> {
    let (secure, authority) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://").unwrap_or(text)),
    };
    let port =
        authority.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
    let plain = authority.parse::<http::uri::Authority>().is_ok();
    if port.is_none() || !plain {
        return Err(given.bad("--endpoints", text, "is not a host with a port", "HOST:PORT, as 127.0.0.1:2379"));
    }
    Ok(Endpoint { authority: authority.to_owned(), tls: tls.filter(|_| secure).cloned() })
}

fn server_pids(given: &Given) -> Result<Vec<u32>, UsageError> {
    let Some(list) = given.text("--server-pid") else { return Ok(Vec::new()) };
    let one = |text: &str| match text.trim().parse::<u32>() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => {
            Err(given.bad("--server-pid", text, "is not a process number", "numbers as pgrep prints them, with commas"))
        }
    };
    list.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from).collect()) {
            Ok(Asked::Run(options)) => Ok(*options),
            Ok(Asked::Help(text)) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_defaults_are_the_house_measure() {
        let options = parse_line("put").unwrap();
        assert_eq!((options.shape.conns, options.shape.clients, options.shape.threads), (100, 1000, 1));
        assert_eq!((options.key_size, options.val_size, options.key_space), (8, 256, 100_000));
        assert_eq!(options.until, Until::Duration(Duration::from_secs(10)));
        assert_eq!(format!("{:?}", options.shape.endpoints), "[127.0.0.1:2379]");
        assert!(options.rate.is_none() && !options.serializable && !options.json && options.server_pids.is_empty());
    }

    #[test]
    fn given_flags_arrive() {
        let options = parse_line(
            "range --endpoints http://a:1,b:2 --clients 3 --total 7 --consistency s --seed 9 --sequential --json \
             --server-pid 12,13 --rate 2000 --warmup 1s --timeout 2s --key-size 16 --val-size 0 --loaded",
        )
        .unwrap();
        assert_eq!(options.shape.endpoints.len(), 2);
        assert_eq!((options.shape.conns, options.shape.clients), (3, 3), "no more connections than clients");
        assert_eq!(options.until, Until::Total(7));
        assert!(options.serializable && options.sequential && options.json && options.loaded);
        assert_eq!((options.seed, options.rate), (9, Some(2000.0)));
        assert_eq!(options.server_pids, [12, 13]);
        assert_eq!((options.warmup, options.patience), (Duration::from_secs(1), Duration::from_secs(2)));
        assert_eq!((options.key_size, options.val_size), (16, 0));
    }

    #[test]
    fn each_command_has_its_own() {
        assert_eq!(
            parse_line("list --limit 500 --count-only").unwrap().command,
            Command::List { limit: 500, count_only: true }
        );
        assert_eq!(parse_line("list").unwrap().shape.clients, 10);
        assert_eq!(parse_line("txn-put --txn-ops 8").unwrap().command, Command::TxnPut { ops: 8 });
        assert_eq!(parse_line("txn-mixed --read-keys 3").unwrap().command, Command::TxnMixed { read: 3 });
        assert_eq!(parse_line("lease-grant").unwrap().command, Command::LeaseGrant);
        assert_eq!(parse_line("lease-keepalive --leases 5").unwrap().command, Command::LeaseKeepAlive { leases: 5 });
        let watch = parse_line("watch --watchers 10 --streams 2").unwrap();
        assert_eq!(watch.command, Command::Watch { watchers: 10, streams: 2 });
        assert_eq!((watch.shape.conns, watch.shape.clients, watch.key_space), (2, 1, 1));
        let latency = parse_line("watch-latency").unwrap();
        assert_eq!((latency.command, latency.rate), (Command::Watch { watchers: 1, streams: 1 }, Some(100.0)));
        let kube = parse_line("kube --watchers 7").unwrap();
        assert_eq!(kube.command, Command::Kube { page: 500, watchers: 7, streams: 7 });
        assert_eq!(parse_line("load --revisions 3").unwrap().command, Command::Load { revisions: 3 });
        assert_eq!(parse_line("lock").unwrap().shape.clients, 100);
        assert_eq!(parse_line("compact --keep 9").unwrap().command, Command::Compact { keep: 9 });
        let expire = parse_line("lease-expire --leases 5 --ttl 3s").unwrap().command;
        assert_eq!(expire, Command::LeaseExpire { leases: 5, ttl: Duration::from_secs(3) });
        let secure = parse_line("put --endpoints https://a:1,b:2 --insecure-skip-tls-verify").unwrap();
        assert_eq!(format!("{:?}", secure.shape.endpoints), "[https://a:1, b:2]");
    }

    #[test]
    fn wrong_lines_are_refused_with_the_remedy() {
        let wrong = [
            ("", "no command: give one of put, range,"),
            ("get", "unknown command \"get\": give one of put, range,"),
            ("put --conns 0", "put --conns \"0\" is out of bounds: give a number from 1 to 20000"),
            (
                "put --conns 10 --clients 5",
                "--conns \"10\" leaves connections without work: give at most 5, or more clients",
            ),
            ("watch --conns 10 --streams 5", "give at most 5, or more streams (--streams)"),
            ("put --threads 4 --clients 2", "--threads \"4\" leaves threads without a connection: give at most 2"),
            ("put --total 1 --duration 1s", "exclude each other: give one"),
            ("put --duration 0s", "\"0s\" measures nothing: give 10s or so"),
            ("put --timeout 0s", "\"0s\" leaves no time to answer"),
            ("put --commits --endpoints a:1,b:2", "are several, each with commits of its own: give one with --commits"),
            ("range --commits", "--commits has no effect on range"),
            (
                "put --key-size 2 --key-space-size 101",
                "\"101\" does not fit into keys of 2 digits: give fewer keys, or --key-size 3",
            ),
            ("txn-put --key-space-size 3", "--txn-ops \"4\" is more than there are keys: give at most 3"),
            ("range --consistency x", "\"x\" is no consistency: give l (linearizable) or s (serializable)"),
            ("put --consistency l", "--consistency has no effect on put: leave it out (it belongs to range, list)"),
            ("put --cacert x", "--cacert \"x\" has no effect without TLS: give endpoints as https://HOST:PORT"),
            ("put --endpoints https://a:1 --cacert /none", "TLS: open /none: no such file or directory"),
            ("put --endpoints https://a:1 --cert x", "TLS: KeyFile and CertFile must both be present"),
            ("kube --watchers 6 --key-space-size 5", "--watchers \"6\" leaves watchers without a key: give at most 5"),
            ("load --duration 1s", "--duration has no effect on load: leave it out"),
            ("lease-expire --ttl 1500ms", "--ttl \"1500ms\" is not a number of whole seconds: give one from 1s up"),
            ("put --endpoints a", "\"a\" is not a host with a port: give HOST:PORT, as 127.0.0.1:2379"),
            ("put --endpoints :1", "\":1\" is not a host with a port"),
            ("put --endpoints a:1,", "\"\" is not a host with a port"),
            ("put --endpoints a:99999", "\"a:99999\" is not a host with a port"),
            ("put --server-pid x", "\"x\" is not a process number"),
            ("put --rate 0", "\"0\" is out of bounds: give a number from 1 to"),
            ("watch --val-size 7", "\"7\" is out of bounds: give a number from 8 to"),
        ];
        for (line, wanted) in wrong {
            let text = parse_line(line).expect_err(line);
            assert!(text.contains(wanted), "{line}: {text}");
            assert!(!text.contains('\n'), "{line}: {text}");
        }
    }

    #[test]
    fn short_keys_shrink_the_usual_space() {
        assert_eq!(parse_line("put --key-size 2").unwrap().key_space, 100);
        assert_eq!(parse_line("put --key-size 40").unwrap().key_space, 100_000);
    }

    #[test]
    fn help_lists_what_the_command_takes_and_nothing_else() {
        let text = parse_line("put --help").unwrap_err();
        assert!(text.contains("--val-size BYTES") && text.contains("(256)") && !text.contains("--consistency"));
        assert!(parse_line("--help").unwrap_err().contains("lease-keepalive"));
    }
}
