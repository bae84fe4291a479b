//! The commands and the flags as they are typed, and the help that is made of them.

use crate::args::Flag;

/// Every command and what it does.
pub const COMMANDS: &[(&str, &str)] = &[
    ("put", "writes of one key each"),
    ("range", "reads of one key each, of keys that are loaded first"),
    ("list", "lists of the whole key space, or pages of it"),
    ("txn-put", "transactions of several puts"),
    ("txn-mixed", "transactions of a read of some keys and a put"),
    ("delete", "deletes of one key each, every key once, of keys that are loaded first"),
    ("load", "the key space written as often as wanted, many keys per transaction; ops are transactions"),
    ("kube", "updates (read, then compare and write) under watched slices of the keys, pages and counts between them"),
    ("lease-grant", "grants; the leases are revoked afterwards"),
    ("lease-keepalive", "renewals, one stream per client"),
    ("lease-expire", "leases that end together, each with a key; latency is how late the key's end is heard"),
    ("lock", "locks that many want: an op is to get one and to give it back"),
    ("watch", "puts that many watchers hear of; ops are events received"),
    ("watch-latency", "puts at a fixed rate; latency is a put's way to its watchers"),
    ("snapshot", "downloads of the whole store"),
    ("compact", "one compaction up to some revisions below the newest, waited for until it is done"),
    ("defragment", "one defragmentation of each endpoint, one after the other"),
];

const READS: &[&str] = &["range", "list"];

/// Commands whose acknowledged writes are read back.
pub const WRITES: &[&str] = &["put", "txn-put", "txn-mixed", "delete"];

const KEYED_OR_WATCH: &[&str] =
    &["put", "range", "list", "txn-put", "txn-mixed", "delete", "load", "kube", "watch", "watch-latency"];
const DRAWN: &[&str] = &["put", "range", "list", "txn-put", "txn-mixed", "kube"];
const COMPARED: &[&str] = &["put", "range", "list", "txn-put", "txn-mixed", "delete"];

/// Commands that do as many operations as one likes.
const COUNTED: &[&str] = &[
    "put",
    "range",
    "list",
    "txn-put",
    "txn-mixed",
    "kube",
    "lease-grant",
    "lease-keepalive",
    "lock",
    "watch",
    "watch-latency",
    "snapshot",
    "delete",
];
/// Commands that go on for as long as one likes: all of these but the deletes, which run out of keys.
const ENDLESS: &[&str] = match COUNTED.split_last() {
    Some((_deletes, endless)) => endless,
    None => COUNTED,
};
const WARMED: &[&str] =
    &["put", "range", "list", "txn-put", "txn-mixed", "lease-grant", "lease-keepalive", "lock", "snapshot"];
const CROWDED: &[&str] = &[
    "put",
    "range",
    "list",
    "txn-put",
    "txn-mixed",
    "delete",
    "load",
    "kube",
    "lease-grant",
    "lease-keepalive",
    "lease-expire",
    "lock",
    "watch",
    "watch-latency",
    "snapshot",
];
const WATCHING: &[&str] = &["watch", "watch-latency", "kube"];

/// Most connections: bounds keep a typing error from eating the machine.
pub const CONNS_MAX: u64 = 20_000;
/// Most clients.
pub const CLIENTS_MAX: u64 = 1_000_000;
/// Most bytes of a key or a value.
pub const VALUE_MAX: u64 = 64 << 20;
/// Most watchers.
pub const WATCHERS_MAX: u64 = 10_000_000;

/// Every flag.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "--endpoints",
        value: "HOST:PORT,...",
        default: "127.0.0.1:2379",
        help: "servers; connections go round them; https://HOST:PORT for TLS",
        commands: &[],
    },
    Flag {
        name: "--cacert",
        value: "FILE",
        default: "",
        help: "authorities that a server's certificate may come from (the system's)",
        commands: &[],
    },
    Flag { name: "--cert", value: "FILE", default: "", help: "own certificate for TLS", commands: &[] },
    Flag { name: "--key", value: "FILE", default: "", help: "its key", commands: &[] },
    Flag {
        name: "--insecure-skip-tls-verify",
        value: "",
        default: "",
        help: "take any certificate of the server's",
        commands: &[],
    },
    Flag {
        name: "--conns",
        value: "N",
        default: "",
        help: "HTTP/2 connections (100, or fewer with fewer clients)",
        commands: CROWDED,
    },
    Flag {
        name: "--clients",
        value: "N",
        default: "",
        help: "requests under way at once (1000; load, lock, kube, watch-latency: 100; list: 10; watch, snapshot: 1)",
        commands: CROWDED,
    },
    Flag { name: "--threads", value: "N", default: "1", help: "threads of the load generator", commands: CROWDED },
    Flag { name: "--total", value: "N", default: "", help: "end after N requests", commands: COUNTED },
    Flag { name: "--duration", value: "TIME", default: "", help: "end after this time (10s)", commands: ENDLESS },
    Flag {
        name: "--warmup",
        value: "TIME",
        default: "0s",
        help: "do the same this long before, unmeasured",
        commands: WARMED,
    },
    Flag {
        name: "--rate",
        value: "N",
        default: "",
        help: "open loop: N requests a second, late ones counted from when they were due (watch-latency: 100)",
        commands: COUNTED,
    },
    Flag { name: "--key-size", value: "BYTES", default: "8", help: "size of a key", commands: KEYED_OR_WATCH },
    Flag { name: "--val-size", value: "BYTES", default: "256", help: "size of a value", commands: KEYED_OR_WATCH },
    Flag {
        name: "--key-space-size",
        value: "N",
        default: "",
        help: "number of different keys (100000; list, kube: 10000; watch, watch-latency: 1)",
        commands: KEYED_OR_WATCH,
    },
    Flag {
        name: "--loaded",
        value: "",
        default: "",
        help: "the keys are there: neither count nor load them first",
        commands: READS,
    },
    Flag { name: "--sequential", value: "", default: "", help: "keys in order instead of drawn", commands: DRAWN },
    Flag { name: "--seed", value: "N", default: "1", help: "same seed, same keys in the same order", commands: DRAWN },
    Flag {
        name: "--consistency",
        value: "l|s",
        default: "l",
        help: "linearizable or serializable reads",
        commands: READS,
    },
    Flag { name: "--limit", value: "N", default: "0", help: "keys per page, 0 for all", commands: &["list"] },
    Flag { name: "--page", value: "N", default: "500", help: "keys per page", commands: &["kube"] },
    Flag { name: "--revisions", value: "N", default: "1", help: "how often each key is written", commands: &["load"] },
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
    Flag {
        name: "--leases",
        value: "N",
        default: "1000",
        help: "leases kept alive, or ending",
        commands: &["lease-keepalive", "lease-expire"],
    },
    Flag {
        name: "--ttl",
        value: "TIME",
        default: "20s",
        help: "time to live; granting all must take less",
        commands: &["lease-expire"],
    },
    Flag { name: "--locks", value: "N", default: "10", help: "how many different locks", commands: &["lock"] },
    Flag {
        name: "--watchers",
        value: "N",
        default: "",
        help: "watchers over all streams (watch: 1000; kube: 100; watch-latency: 1)",
        commands: WATCHING,
    },
    Flag {
        name: "--streams",
        value: "N",
        default: "",
        help: "watch streams (100, or fewer with fewer watchers)",
        commands: WATCHING,
    },
    Flag {
        name: "--keep",
        value: "N",
        default: "0",
        help: "revisions below the newest that stay",
        commands: &["compact"],
    },
    Flag {
        name: "--sample",
        value: "N",
        default: "1000",
        help: "acknowledged writes read back and compared; 0 compares no content",
        commands: COMPARED,
    },
    Flag {
        name: "--commits",
        value: "",
        default: "",
        help: "tell the puts that ran beside a commit of the server's store from the others",
        commands: &["put"],
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

/// All names, for an error.
pub fn names() -> String {
    COMMANDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// What exists.
pub fn overview() -> String {
    let mut text = "Loads a server that speaks etcd's client API and says what it costs.\n\n".to_owned();
    text.push_str("Usage: milepost bench COMMAND [flags]\n\nCommands:\n");
    for (name, about) in COMMANDS {
        text.push_str(&format!("  {name:<16} {about}\n"));
    }
    text.push_str("\nFlags: milepost bench COMMAND --help");
    text
}

/// The flags of one command.
pub fn help(name: &str, about: &str) -> String {
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
