//! The frame of the command line: commands in a tree, flags on them, and Cobra's rules for reading the words.
//!
//! etcdctl is written with Cobra and pflag; people's scripts know their habits: `--flag=value`, `--flag value`,
//! `-wjson`, flags between arguments, `--`, unique prefixes of command names, help pages, the wording of errors.
//! [`tree`] finds the command, [`flags`] reads the flags, [`values`] holds them, [`page`] writes the pages. Nothing here
//! knows etcd.

pub mod flags;
pub mod page;
pub mod tree;
pub mod values;

pub use flags::{Flag, Kind, parse};
pub use tree::{Found, find};
pub use values::Flags;

use std::future::Future;
use std::pin::Pin;

use crate::call::Call;
use crate::outcome::Outcome;

/// What a command does with what was asked of it.
pub type Run = fn(Call) -> Pin<Box<dyn Future<Output = Outcome>>>;

/// A command: its place in the help, its flags, and what it does. The whole tree is constant.
#[derive(Clone, Copy)]
pub struct Spec {
    /// The word that calls it.
    pub name: &'static str,
    /// Its usage line, without the parent's path; begins with the name.
    pub usage: &'static str,
    /// One line for the parent's page.
    pub short: &'static str,
    /// The head of its own page; empty: the short line.
    pub long: &'static str,
    /// Examples, indented by two.
    pub example: &'static str,
    /// The heading under which the root lists it.
    pub group: Group,
    /// Flags of this command alone.
    pub flags: &'static [Flag],
    /// Flags of this command and all below it.
    pub inherited: &'static [Flag],
    /// Commands below.
    pub children: &'static [&'static Spec],
    /// Absent: the command is only a name above others, and asking for it shows its page.
    pub run: Option<Run>,
    /// If not empty, exactly one argument, one of these.
    pub choices: &'static [&'static str],
    /// Whether it is left out of pages and suggestions.
    pub hidden: bool,
}

impl Spec {
    /// A command without anything, to be filled by struct update.
    pub const NEW: Spec = Spec {
        name: "",
        usage: "",
        short: "",
        long: "",
        example: "",
        group: Group::None,
        flags: &[],
        inherited: &[],
        children: &[],
        run: None,
        choices: &[],
        hidden: false,
    };
}

/// The headings of the root's page, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the headings say it")]
pub enum Group {
    None,
    KeyValue,
    Maintenance,
    Concurrency,
    Authentication,
    Utility,
}

impl Group {
    /// All that have a heading.
    pub const ALL: [(Group, &'static str); 5] = [
        (Group::KeyValue, "Key-value commands"),
        (Group::Maintenance, "Cluster maintenance commands"),
        (Group::Concurrency, "Concurrency commands"),
        (Group::Authentication, "Authentication commands"),
        (Group::Utility, "Utility commands"),
    ];
}

/// `-h`, which every command has.
pub const HELP: Flag = Flag { short: Some('h'), ..Flag::bool("help", "show this page") };
