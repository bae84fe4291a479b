//! The one table of server flags: name, kind, default, help. Environment names and the help page come from it.
//!
//! Names, kinds and defaults are etcd 3.7.1's. A flag that is not in the table is refused by name.

/// How a value is spelled on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Go's spellings of a bool; takes its value only after `=`.
    Bool,
    /// Unsigned 64-bit integer; decimal, `0x`, `0o`, `0b`, underscores.
    Unsigned,
    /// Signed 64-bit integer, same spellings.
    Signed,
    /// Comma list of URLs.
    Urls,
    /// `new` or `existing`.
    ClusterState,
}

/// Where a flag stands on the help page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// This member: directories, listeners, limits.
    Member,
    /// How the cluster forms.
    Clustering,
    /// Logs.
    Logging,
    /// Dangerous.
    Unsafe,
}

impl Group {
    /// In the order of the help page.
    pub const ALL: [Self; 4] = [Self::Member, Self::Clustering, Self::Logging, Self::Unsafe];

    /// The heading on the help page.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Logging => "Logging",
            Self::Unsafe => "Unsafe",
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// How its value is spelled.
    pub kind: Kind,
    /// As it would be typed; empty: none.
    pub default: &'static str,
    /// Heading.
    pub group: Group,
    /// One line for a person.
    pub help: &'static str,
}

impl Flag {
    /// `ETCD_` and the name in capitals with underscores.
    #[must_use]
    pub fn env_name(&self) -> String {
        format!("ETCD_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

const fn row(name: &'static str, kind: Kind, default: &'static str, group: Group, help: &'static str) -> Flag {
    Flag { name, kind, default, group, help }
}

/// Every server flag that exists.
pub const FLAGS: &[Flag] = &[
    row("name", Kind::Text, "default", Group::Member, "Human-readable name of this member."),
    row("data-dir", Kind::Text, "", Group::Member, "Directory of everything this member keeps; default: NAME.etcd."),
    row("wal-dir", Kind::Text, "", Group::Member, "Directory for the log alone, for a disk of its own."),
    row(
        "snapshot-count",
        Kind::Unsigned,
        "10000",
        Group::Member,
        "Applied entries between two Raft snapshots; 0: the default.",
    ),
    row("heartbeat-interval", Kind::Unsigned, "100", Group::Member, "Milliseconds between heartbeats of the leader."),
    row(
        "election-timeout",
        Kind::Unsigned,
        "1000",
        Group::Member,
        "Milliseconds without a heartbeat before an election; at least 5 heartbeats.",
    ),
    row("listen-peer-urls", Kind::Urls, "http://localhost:2380", Group::Member, "Where to listen for other members."),
    row("listen-client-urls", Kind::Urls, "http://localhost:2379", Group::Member, "Where to listen for clients."),
    row(
        "quota-backend-bytes",
        Kind::Signed,
        "0",
        Group::Member,
        "Size of the store that raises the NOSPACE alarm; 0: 2 GiB; negative: no limit.",
    ),
    row("max-txn-ops", Kind::Unsigned, "128", Group::Member, "Operations allowed in one branch of a transaction."),
    row("max-request-bytes", Kind::Unsigned, "1572864", Group::Member, "Largest request accepted, in bytes."),
    row(
        "initial-advertise-peer-urls",
        Kind::Urls,
        "http://localhost:2380",
        Group::Clustering,
        "Peer URLs of this member as the others reach them.",
    ),
    row(
        "initial-cluster",
        Kind::Text,
        "default=http://localhost:2380",
        Group::Clustering,
        "Members of the new cluster: name=url, comma-separated.",
    ),
    row(
        "initial-cluster-state",
        Kind::ClusterState,
        "new",
        Group::Clustering,
        "\"new\" to form a cluster, \"existing\" to join one.",
    ),
    row(
        "initial-cluster-token",
        Kind::Text,
        "etcd-cluster",
        Group::Clustering,
        "Keeps clusters that are formed alike apart.",
    ),
    row(
        "advertise-client-urls",
        Kind::Urls,
        "http://localhost:2379",
        Group::Clustering,
        "Client URLs of this member as clients reach them.",
    ),
    row("auto-compaction-mode", Kind::Text, "periodic", Group::Clustering, "\"periodic\" or \"revision\"."),
    row(
        "auto-compaction-retention",
        Kind::Text,
        "0",
        Group::Clustering,
        "What automatic compaction keeps: hours or a duration (periodic), revisions (revision); 0: off.",
    ),
    row("log-level", Kind::Text, "info", Group::Logging, "debug, info, warn, error, dpanic, panic or fatal."),
    row(
        "unsafe-no-fsync",
        Kind::Bool,
        "false",
        Group::Unsafe,
        "Do not wait for the disk: acknowledged writes may be lost with the machine's power.",
    ),
];

/// The row of `name`, without dashes.
#[must_use]
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}
