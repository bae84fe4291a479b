//! What to run: the flags of the command line as values that cannot be wrong.

use std::ffi::OsString;
use std::time::Duration;

use crate::args::{Flag, Given, UsageError};
use crate::keys;
use crate::load::Shape;
use crate::tickets::Until;

/// A server's client address, as `127.0.0.1:2379`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port.
    pub authority: String,
}

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
    /// Grants of leases.
    LeaseGrant,
    /// Renewals of leases.
    LeaseKeepAlive {
        /// How many leases.
        leases: u64,
    },
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
    /// Keys in order instead of drawn.
    pub sequential: bool,
    /// What the draw depends on.
    pub seed: u64,
    /// Reads ask the member alone.
    pub serializable: bool,
    /// How many acknowledged writes are read back; 0 turns all comparing of content off.
    pub sample: usize,
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

const COMMANDS: &[(&str, &str)] = &[
    ("put", "writes of one key each"),
    ("range", "reads of one key each, of keys that are loaded first"),
    ("list", "lists of the whole key space, or pages of it"),
    ("txn-put", "transactions of several puts"),
    ("txn-mixed", "transactions of a read of some keys and a put"),
    ("lease-grant", "grants; the leases are revoked afterwards"),
    ("lease-keepalive", "renewals, one stream per client"),
    ("watch", "puts that many watchers hear of; ops are events received"),
];

const READS: &[&str] = &["range", "list"];
const WRITES: &[&str] = &["put", "txn-put", "txn-mixed"];
const KEYED: &[&str] = &["put", "range", "list", "txn-put", "txn-mixed"];
const KEYED_OR_WATCH: &[&str] = &["put", "range", "list", "txn-put", "txn-mixed", "watch"];

/// Bounds that keep a typing error from eating the machine.
const CONNS_MAX: u64 = 20_000;
const CLIENTS_MAX: u64 = 1_000_000;
const VALUE_MAX: u64 = 64 << 20;
const WATCHERS_MAX: u64 = 10_000_000;

const FLAGS: &[Flag] = &[
    Flag {
        name: "--endpoints",
        value: "HOST:PORT,...",
        default: "127.0.0.1:2379",
        help: "servers; connections go round them",
        commands: &[],
    },
    Flag {
        name: "--conns",
        value: "N",
        default: "",
        help: "HTTP/2 connections (100, or fewer with fewer clients)",
        commands: &[],
    },
    Flag {
        name: "--clients",
        value: "N",
        default: "",
        help: "requests under way at once (1000; list: 10; watch: 1)",
        commands: &[],
    },
    Flag { name: "--threads", value: "N", default: "1", help: "threads of the load generator", commands: &[] },
    Flag { name: "--total", value: "N", default: "", help: "end after N requests", commands: &[] },
    Flag { name: "--duration", value: "TIME", default: "", help: "end after this time (10s)", commands: &[] },
    Flag {
        name: "--warmup",
        value: "TIME",
        default: "0s",
        help: "do the same this long before, unmeasured",
        commands: &[],
    },
    Flag {
        name: "--rate",
        value: "N",
        default: "",
        help: "open loop: N requests a second, late ones counted from when they were due",
        commands: &[],
    },
    Flag { name: "--key-size", value: "BYTES", default: "8", help: "size of a key", commands: KEYED_OR_WATCH },
    Flag { name: "--val-size", value: "BYTES", default: "256", help: "size of a value", commands: KEYED_OR_WATCH },
    Flag {
        name: "--key-space-size",
        value: "N",
        default: "",
        help: "number of different keys (100000; list: 10000; watch: 1)",
        commands: KEYED_OR_WATCH,
    },
    Flag { name: "--sequential", value: "", default: "", help: "keys in order instead of drawn", commands: KEYED },
    Flag { name: "--seed", value: "N", default: "1", help: "same seed, same keys in the same order", commands: KEYED },
    Flag {
        name: "--consistency",
        value: "l|s",
        default: "l",
        help: "linearizable or serializable reads",
        commands: READS,
    },
    Flag { name: "--limit", value: "N", default: "0", help: "keys per page, 0 for all", commands: &["list"] },
    Flag {
        name: "--read-keys",
        value: "N",
        default: "10",
        help: "keys read by each transaction",
        commands: &["txn-mixed"],
    },
    Flag {
        name: "--count-only",
        value: "",
        default: "",
        help: "ask for the number of keys alone",
        commands: &["list"],
    },
    Flag { name: "--txn-ops", value: "N", default: "4", help: "puts per transaction", commands: &["txn-put"] },
    Flag { name: "--leases", value: "N", default: "1000", help: "leases kept alive", commands: &["lease-keepalive"] },
    Flag { name: "--watchers", value: "N", default: "1000", help: "watchers over all streams", commands: &["watch"] },
    Flag { name: "--streams", value: "N", default: "100", help: "watch streams", commands: &["watch"] },
    Flag {
        name: "--sample",
        value: "N",
        default: "1000",
        help: "acknowledged writes read back and compared; 0 compares no content",
        commands: KEYED,
    },
    Flag {
        name: "--server-pid",
        value: "PID,...",
        default: "",
        help: "report CPU, memory and bytes written of these processes",
        commands: &[],
    },
    Flag {
        name: "--timeout",
        value: "TIME",
        default: "30s",
        help: "give up when nothing is answered for so long",
        commands: &[],
    },
    Flag { name: "--json", value: "", default: "", help: "one JSON object instead of text", commands: &[] },
];

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
    let watching = name == "watch";
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
        _ => Command::Watch {
            watchers: number("--watchers", 1, WATCHERS_MAX)?,
            streams: number("--streams", 1, CLIENTS_MAX)?,
        },
    };
    let key_size = number("--key-size", 1, VALUE_MAX)? as usize;
    // A watch event is told from others by its value's first eight bytes.
    let val_size = number("--val-size", if watching { 8 } else { 0 }, VALUE_MAX)? as usize;
    let options = Options {
        name,
        shape: shape(name, given, &command)?,
        until: until(given)?,
        warmup: given.duration("--warmup")?.unwrap_or_default(),
        rate: given.count("--rate", 1, 10_000_000)?.map(|rate| rate as f64),
        key_size,
        val_size,
        key_space: key_space(name, given, key_size, &command)?,
        sequential: given.switch("--sequential")?,
        seed: given.count("--seed", 0, u64::MAX)?.unwrap_or(1),
        serializable: serializable(given)?,
        sample: number("--sample", 0, 1_000_000)? as usize,
        server_pids: server_pids(given)?,
        patience: given.duration("--timeout")?.unwrap_or(Duration::from_secs(30)),
        json: given.switch("--json")?,
        command,
    };
    if options.patience.is_zero() {
        return Err(given.bad("--timeout", "0s", "leaves no time to answer", "30s or so"));
    }
    Ok(options)
}

fn shape(name: &str, given: &Given, command: &Command) -> Result<Shape, UsageError> {
    let watching = name == "watch";
    let usual = match name {
        "watch" => 1,
        // A thousand whole lists at once would be gigabytes on both sides.
        "list" => 10,
        _ => 1000,
    };
    let clients = given.count("--clients", 1, CLIENTS_MAX)?.unwrap_or(usual);
    // Watch streams need the connections there, the few clients that put share them out of sight.
    let users = if let Command::Watch { streams, .. } = command { *streams } else { clients };
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

fn until(given: &Given) -> Result<Until, UsageError> {
    let total = given.count("--total", 1, u64::MAX >> 1)?;
    let duration = given.duration("--duration")?;
    match (total, duration) {
        (Some(_), Some(_)) => Err(UsageError("--total and --duration exclude each other: give one".into())),
        (Some(total), None) => Ok(Until::Total(total)),
        (None, Some(Duration::ZERO)) => Err(given.bad("--duration", "0s", "measures nothing", "10s or so")),
        (None, duration) => Ok(Until::Duration(duration.unwrap_or(Duration::from_secs(10)))),
    }
}

fn key_space(name: &str, given: &Given, key_size: usize, command: &Command) -> Result<u64, UsageError> {
    let usual = match name {
        "watch" => 1,
        "list" => 10_000,
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
    list.split(',').map(|text| endpoint(given, text.trim())).collect()
}

fn endpoint(given: &Given, text: &str) -> Result<Endpoint, UsageError> {
    if text.starts_with("https://") {
        return Err(given.bad("--endpoints", text, "asks for TLS, which this tool does not speak", "http://HOST:PORT"));
    }
    let authority = text.strip_prefix("http://").unwrap_or(text);
    let port =
        authority.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
    let plain = authority.parse::<http::uri::Authority>().is_ok();
    if port.is_none() || !plain {
        return Err(given.bad("--endpoints", text, "is not a host with a port", "HOST:PORT, as 127.0.0.1:2379"));
    }
    Ok(Endpoint { authority: authority.to_owned() })
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

fn names() -> String {
    COMMANDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn overview() -> String {
    let mut text = "Loads a server that speaks etcd's client API and says what it costs.\n\n".to_owned();
    text.push_str("Usage: milepost bench COMMAND [flags]\n\nCommands:\n");
    for (name, about) in COMMANDS {
        text.push_str(&format!("  {name:<16} {about}\n"));
    }
    text.push_str("\nFlags: milepost bench COMMAND --help");
    text
}

fn help(name: &str, about: &str) -> String {
    let mut text = format!("milepost bench {name}: {about}\n\nFlags:");
    for flag in FLAGS.iter().filter(|flag| flag.belongs_to(name)) {
        let usage = format!("{} {}", flag.name, flag.value);
        let default = match flag.default {
            "" => String::new(),
            default => format!(" ({default})"),
        };
        text.push_str(&format!("\n  {usage:<28} {}{default}", flag.help));
    }
    if WRITES.contains(&name) {
        text.push_str("\n\nA sample of the acknowledged writes is read back at the revision of its acknowledgement.");
    }
    text.push_str("\n\nExit status: 0 all went well, 1 any request failed or any answer was wrong, 2 wrong flags.");
    text
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
        assert_eq!(options.shape.endpoints, [Endpoint { authority: "127.0.0.1:2379".into() }]);
        assert!(options.rate.is_none() && !options.serializable && !options.json && options.server_pids.is_empty());
    }

    #[test]
    fn given_flags_arrive() {
        let options = parse_line(
            "range --endpoints http://a:1,b:2 --clients 3 --total 7 --consistency s --seed 9 --sequential --json \
             --server-pid 12,13 --rate 2000 --warmup 1s --timeout 2s --key-size 16 --val-size 0",
        )
        .unwrap();
        assert_eq!(options.shape.endpoints.len(), 2);
        assert_eq!((options.shape.conns, options.shape.clients), (3, 3), "no more connections than clients");
        assert_eq!(options.until, Until::Total(7));
        assert!(options.serializable && options.sequential && options.json);
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
            (
                "put --key-size 2 --key-space-size 101",
                "\"101\" does not fit into keys of 2 digits: give fewer keys, or --key-size 3",
            ),
            ("txn-put --key-space-size 3", "--txn-ops \"4\" is more than there are keys: give at most 3"),
            ("range --consistency x", "\"x\" is no consistency: give l (linearizable) or s (serializable)"),
            ("put --consistency l", "--consistency has no effect on put: leave it out (it belongs to range, list)"),
            ("put --endpoints https://a:1", "\"https://a:1\" asks for TLS"),
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
