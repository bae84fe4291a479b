//! The one table of server flags: name, kind, default, effect, help. Variables, the help page, the document and the keys
//! of the configuration file come from it.
//!
//! Names, kinds and defaults are etcd 3.7.1's. What etcd knew in 3.4 to 3.6 and has dropped stands in [`super::old`].

mod clustering;
mod member;
mod running;
mod security;

/// How a value is spelled on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Go's spellings of a bool; takes its value only after `=`.
    Bool,
    /// Unsigned 64-bit integer; decimal, `0x`, `0o`, `0b`, underscores.
    Unsigned,
    /// Unsigned 32-bit integer, same spellings.
    Unsigned32,
    /// Signed 64-bit integer, same spellings.
    Signed,
    /// Go's durations, like `1h30m` or `100ms`.
    Span,
    /// Comma list of URLs; empty text leaves the default.
    Urls,
    /// Comma list of URLs, or `*`.
    Origins,
    /// Comma list of texts, in the given order.
    List,
    /// Comma list of texts, sorted, each once.
    Set,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Comma list out of these.
    Choices(&'static [&'static str]),
    /// `Name=bool` pairs in a comma list.
    Gates,
    /// Anything; like a bool it takes a value only after `=`.
    Ignored,
}

/// What comes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Does what its help says.
    Works,
    /// Is read and checked, and said to do nothing when set away from its default; why.
    Nothing(&'static str),
}

/// Where a flag stands on the help page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// This member: directories, listeners, limits.
    Member,
    /// How the cluster forms.
    Clustering,
    /// TLS, origins, host names.
    Security,
    /// Tokens and passwords.
    Auth,
    /// Logs.
    Logging,
    /// What can be measured.
    Monitoring,
    /// Spans for a collector.
    Tracing,
    /// Background work and warnings.
    Upkeep,
    /// Dangerous.
    Unsafe,
    /// Known, and without meaning for a long time.
    Ignored,
}

impl Group {
    /// In the order of the help page.
    pub const ALL: [Self; 10] = [
        Self::Member,
        Self::Clustering,
        Self::Security,
        Self::Auth,
        Self::Logging,
        Self::Monitoring,
        Self::Tracing,
        Self::Upkeep,
        Self::Unsafe,
        Self::Ignored,
    ];

    /// The heading on the help page.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Logging => "Logging",
            Self::Monitoring => "Monitoring",
            Self::Tracing => "Tracing",
            Self::Upkeep => "Upkeep",
            Self::Unsafe => "Unsafe",
            Self::Ignored => "Ignored",
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
    /// What comes of it.
    pub effect: Effect,
    /// Heading.
    pub group: Group,
    /// One line for a person.
    pub help: &'static str,
}

impl Flag {
    /// `ETCD_` and the name in capitals with underscores.
    #[must_use]
    pub fn env_name(&self) -> String {
        env_name(self.name)
    }

    /// Takes its value only after `=`.
    #[must_use]
    pub const fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Bool | Kind::Ignored)
    }
}

/// The variable of the flag `name`.
#[must_use]
pub fn env_name(name: &str) -> String {
    format!("ETCD_{}", name.replace('-', "_").to_ascii_uppercase())
}

/// Rows of one group, one line each: name, kind, default, effect, help.
macro_rules! rows {
    ($group:ident: $($name:literal $kind:expr, $default:literal, $effect:expr, $help:literal;)*) => {
        &[$($crate::config::table::Flag {
            name: $name,
            kind: $kind,
            default: $default,
            effect: $effect,
            group: $crate::config::table::Group::$group,
            help: $help,
        }),*]
    };
}
use rows;

/// Every group of rows, in the order of the help page.
const ALL: [&[Flag]; 10] = [
    member::MEMBER,
    clustering::CLUSTERING,
    security::SECURITY,
    security::AUTH,
    running::LOGGING,
    running::MONITORING,
    running::TRACING,
    running::UPKEEP,
    running::UNSAFE,
    running::IGNORED,
];

/// Every server flag that exists.
pub fn flags() -> impl Iterator<Item = &'static Flag> {
    ALL.iter().copied().flatten()
}

/// The row of `name`, without dashes.
#[must_use]
pub fn find(name: &str) -> Option<&'static Flag> {
    flags().find(|flag| flag.name == name)
}
