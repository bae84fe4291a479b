//! The flags of one call, with their values.

use super::Spec;
use super::flags::{Flag, Kind, known};

/// What a flag holds.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "as in Kind")]
pub enum Value {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Text(String),
    /// Nanoseconds.
    Duration(i64),
    List(Vec<String>),
}

/// All flags that a command knows; those that nobody set hold their defaults.
///
/// The getters panic when the command has no such flag or it is of another kind: both are mistakes in this room's tables.
#[derive(Clone, Debug)]
pub struct Flags {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    flag: Flag,
    value: Value,
    changed: bool,
}

impl Flags {
    /// The flags of the last command of `path`, unset.
    pub fn of(path: &[&'static Spec]) -> Flags {
        let entries = known(path).into_iter().map(|flag| {
            let value = flag.read(flag.default).expect("defaults are readable");
            Entry { flag, value, changed: false }
        });
        Flags { entries: entries.collect() }
    }

    /// The flag called `--name`.
    pub fn named(&self, name: &str) -> Option<Flag> {
        self.entries.iter().map(|entry| entry.flag).find(|flag| flag.name == name)
    }

    /// The flag called `-letter`.
    pub fn lettered(&self, letter: char) -> Option<Flag> {
        self.entries.iter().map(|entry| entry.flag).find(|flag| flag.short == Some(letter))
    }

    /// All flags, sorted by name, each with its value as Go shows it.
    pub fn shown(&self) -> impl Iterator<Item = (Flag, String)> {
        self.entries.iter().map(|entry| (entry.flag, entry.value.to_string()))
    }

    /// Sets a flag from its text.
    ///
    /// # Errors
    /// The text is no value of its kind.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let entry = self.entries.iter_mut().find(|entry| entry.flag.name == name).expect("only known flags are set");
        let value = entry.flag.read(text)?;
        match (&mut entry.value, value) {
            (Value::List(before), Value::List(more)) if entry.changed => before.extend(more),
            (before, value) => *before = value,
        }
        entry.changed = true;
        Ok(())
    }

    /// Whether somebody set it, be it to its default.
    pub fn changed(&self, name: &str) -> bool {
        self.entry(name).changed
    }

    /// A switch.
    pub fn bool(&self, name: &str) -> bool {
        match self.entry(name).value {
            Value::Bool(value) => value,
            _ => panic!("--{name} is no switch"),
        }
    }

    /// A signed integer.
    pub fn int(&self, name: &str) -> i64 {
        match self.entry(name).value {
            Value::Int(value) => value,
            _ => panic!("--{name} is no integer"),
        }
    }

    /// An unsigned integer.
    pub fn uint(&self, name: &str) -> u64 {
        match self.entry(name).value {
            Value::Uint(value) => value,
            _ => panic!("--{name} is no unsigned integer"),
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> &str {
        match &self.entry(name).value {
            Value::Text(value) => value,
            _ => panic!("--{name} is no text"),
        }
    }

    /// A duration; what is negative counts as nothing.
    pub fn duration(&self, name: &str) -> std::time::Duration {
        match self.entry(name).value {
            Value::Duration(nanos) => std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)),
            _ => panic!("--{name} is no duration"),
        }
    }

    /// A list.
    pub fn list(&self, name: &str) -> &[String] {
        match &self.entry(name).value {
            Value::List(value) => value,
            _ => panic!("--{name} is no list"),
        }
    }

    fn entry(&self, name: &str) -> &Entry {
        let found = self.entries.iter().find(|entry| entry.flag.name == name);
        found.unwrap_or_else(|| panic!("no flag --{name} here"))
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bool(value) => write!(formatter, "{value}"),
            Value::Int(value) => write!(formatter, "{value}"),
            Value::Uint(value) => write!(formatter, "{value}"),
            Value::Text(value) => formatter.write_str(value),
            Value::Duration(nanos) => {
                let sign = if *nanos < 0 { "-" } else { "" };
                let length = std::time::Duration::from_nanos(nanos.unsigned_abs());
                write!(formatter, "{sign}{}", crate::go::show_duration(length))
            }
            Value::List(items) => write!(formatter, "[{}]", items.join(",")),
        }
    }
}

impl Flag {
    /// Whether the default says nothing, and help pages leave it out.
    pub fn default_is_nothing(&self) -> bool {
        match self.kind {
            Kind::Bool => self.default == "false",
            Kind::Int | Kind::Uint => self.default == "0",
            Kind::Text | Kind::List => self.default.is_empty(),
            Kind::Duration => matches!(self.default, "0" | "0s"),
        }
    }
}
