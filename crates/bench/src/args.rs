//! Flags as words: a table of what exists, and the values given. What they mean is `options`' business.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

/// One flag of the table.
pub struct Flag {
    /// With its two dashes.
    pub name: &'static str,
    /// What stands after it in the help; empty for a flag that is either there or not.
    pub value: &'static str,
    /// Value when not given; empty for "none".
    pub default: &'static str,
    /// One line for the help.
    pub help: &'static str,
    /// Commands that know it; empty for all of them.
    pub commands: &'static [&'static str],
}

impl Flag {
    /// Whether `command` takes this flag.
    pub fn belongs_to(&self, command: &str) -> bool {
        self.commands.is_empty() || self.commands.contains(&command)
    }
}

/// What is wrong with the command line, in one line with the remedy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Flags given, checked against the table; not yet read as numbers.
#[derive(Debug)]
pub struct Given {
    command: &'static str,
    values: BTreeMap<&'static str, String>,
    defaults: BTreeMap<&'static str, &'static str>,
}

impl Given {
    /// Sorts the words after the command into flags and values.
    ///
    /// # Errors
    /// A word that is no flag, a flag the command does not know, a flag twice, a missing or superfluous value.
    pub fn read(command: &'static str, table: &'static [Flag], words: Vec<OsString>) -> Result<Given, UsageError> {
        let mut given = Given { command, values: BTreeMap::new(), defaults: BTreeMap::new() };
        for flag in table.iter().filter(|flag| flag.belongs_to(command)) {
            given.defaults.insert(flag.name, flag.default);
        }
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let word = text(word)?;
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let flag = find(command, table, name)?;
            let value = match attached {
                Some(value) => value,
                None if flag.value.is_empty() => "true".to_owned(),
                None => match words.next() {
                    Some(value) => text(value)?,
                    None => return Err(UsageError(format!("{name} lacks its value: write {name} {}", flag.value))),
                },
            };
            if given.values.insert(flag.name, value).is_some() {
                return Err(UsageError(format!("{name} stands twice: give it once")));
            }
        }
        Ok(given)
    }

    /// The flag's value or its default; `None` when neither exists or the command has no such flag.
    pub fn text(&self, name: &str) -> Option<&str> {
        let default = self.defaults.get(name).copied().filter(|default| !default.is_empty());
        self.values.get(name).map(String::as_str).or(default)
    }

    /// A flag that is either there or not; `--flag=false` is accepted.
    ///
    /// # Errors
    /// Any other value.
    pub fn switch(&self, name: &str) -> Result<bool, UsageError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(self.bad(name, other, "is a switch", "true or false")),
        }
    }

    /// A whole number between `low` and `high`; `None` when not given and without default.
    ///
    /// # Errors
    /// Not a number, or outside the bounds.
    pub fn count(&self, name: &str, low: u64, high: u64) -> Result<Option<u64>, UsageError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.parse::<u64>() {
            Ok(number) if (low..=high).contains(&number) => Ok(Some(number)),
            Ok(_) => Err(self.bad(name, value, "is out of bounds", &format!("a number from {low} to {high}"))),
            Err(_) => Err(self.bad(name, value, "is not a whole number", &format!("a number from {low} to {high}"))),
        }
    }

    /// A length of time such as `500ms`, `10s`, `2m`.
    ///
    /// # Errors
    /// Not such a text.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, UsageError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match parse_duration(value) {
            Some(duration) => Ok(Some(duration)),
            None => {
                Err(self.bad(name, value, "is not a length of time", "a number with its unit, as 500ms, 10s or 2m"))
            }
        }
    }

    /// The error for a value that does not fit, always in the same shape.
    pub fn bad(&self, name: &str, value: &str, problem: &str, remedy: &str) -> UsageError {
        UsageError(format!("{} {name} {value:?} {problem}: give {remedy}", self.command))
    }
}

fn text(word: OsString) -> Result<String, UsageError> {
    word.into_string().map_err(|word| UsageError(format!("{word:?} is not UTF-8: give flags in plain text")))
}

fn find(command: &str, table: &'static [Flag], name: &str) -> Result<&'static Flag, UsageError> {
    if let Some(flag) = table.iter().find(|flag| flag.name == name) {
        if flag.belongs_to(command) {
            return Ok(flag);
        }
        let owners = flag.commands.join(", ");
        return Err(UsageError(format!("{name} has no effect on {command}: leave it out (it belongs to {owners})")));
    }
    let kind = if name.starts_with('-') { "unknown flag" } else { "unexpected word" };
    Err(UsageError(format!("{kind} {name:?}: see milepost bench {command} --help")))
}

/// Reads `250us`, `500ms`, `10s`, `2m`, `1h`; whole numbers only.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Flag] = &[
        Flag { name: "--conns", value: "N", default: "100", help: "", commands: &[] },
        Flag { name: "--json", value: "", default: "", help: "", commands: &[] },
        Flag { name: "--duration", value: "TIME", default: "", help: "", commands: &[] },
        Flag { name: "--limit", value: "N", default: "", help: "", commands: &["list"] },
    ];

    fn read(words: &[&str]) -> Result<Given, UsageError> {
        Given::read("put", TABLE, words.iter().map(OsString::from).collect())
    }

    fn complaint<T: std::fmt::Debug>(result: Result<T, UsageError>) -> String {
        result.expect_err("must be refused").to_string()
    }

    #[test]
    fn values_come_after_a_blank_or_an_equal_sign() {
        let given = read(&["--conns", "7", "--duration=2m", "--json"]).unwrap();
        assert_eq!(given.count("--conns", 1, 10).unwrap(), Some(7));
        assert_eq!(given.duration("--duration").unwrap(), Some(Duration::from_secs(120)));
        assert!(given.switch("--json").unwrap());
    }

    #[test]
    fn absent_flags_have_their_default() {
        let given = read(&[]).unwrap();
        assert_eq!(given.count("--conns", 1, 1000).unwrap(), Some(100));
        assert_eq!(given.duration("--duration").unwrap(), None);
        assert!(!given.switch("--json").unwrap());
    }

    #[test]
    fn each_complaint_names_flag_value_and_remedy() {
        assert_eq!(complaint(read(&["--cons", "1"])), "unknown flag \"--cons\": see milepost bench put --help");
        assert_eq!(complaint(read(&["7"])), "unexpected word \"7\": see milepost bench put --help");
        assert_eq!(complaint(read(&["--conns"])), "--conns lacks its value: write --conns N");
        assert_eq!(complaint(read(&["--conns=1", "--conns=2"])), "--conns stands twice: give it once");
        assert_eq!(
            complaint(read(&["--limit", "2"])),
            "--limit has no effect on put: leave it out (it belongs to list)"
        );
        assert_eq!(
            complaint(read(&["--conns", "0"]).unwrap().count("--conns", 1, 9)),
            "put --conns \"0\" is out of bounds: give a number from 1 to 9"
        );
        assert_eq!(
            complaint(read(&["--conns", "many"]).unwrap().count("--conns", 1, 9)),
            "put --conns \"many\" is not a whole number: give a number from 1 to 9"
        );
        assert_eq!(
            complaint(read(&["--duration", "10"]).unwrap().duration("--duration")),
            "put --duration \"10\" is not a length of time: give a number with its unit, as 500ms, 10s or 2m"
        );
        assert_eq!(
            complaint(read(&["--json=maybe"]).unwrap().switch("--json")),
            "put --json \"maybe\" is a switch: give true or false"
        );
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("250us"), Some(Duration::from_micros(250)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_secs(3600)));
        for wrong in ["", "5", "s", "-1s", "1.5s", "5 s", "99999999999999999999s", "9999999999999999999h"] {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
    }
}
