//! One text value per flag, with the knowledge of who set it.

use std::collections::BTreeMap;

use super::gates::Gates;
use super::spelling::{self, Complaint};
use super::table::{Effect, Flag, Kind, find, flags};
use super::url;

/// Something to be logged once logging works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A warning, or for information.
    pub is_warning: bool,
    /// The message.
    pub message: String,
    /// Its fields.
    pub fields: Vec<(&'static str, String)>,
}

impl Note {
    /// A warning without fields.
    #[must_use]
    pub fn warning(message: impl Into<String>) -> Self {
        Self { is_warning: true, message: message.into(), fields: Vec::new() }
    }

    /// For information, without fields.
    #[must_use]
    pub fn info(message: impl Into<String>) -> Self {
        Self { is_warning: false, message: message.into(), fields: Vec::new() }
    }

    /// With one field more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

/// A complaint that ends the start, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In etcd's words where it has some, so that who knows them finds them.
    pub complaint: String,
    /// What to change; empty if the complaint says it.
    pub remedy: String,
}

impl Refusal {
    /// With a remedy.
    #[must_use]
    pub fn new(complaint: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { complaint: complaint.into(), remedy: remedy.into() }
    }
}

impl From<String> for Refusal {
    fn from(complaint: String) -> Self {
        Self::new(complaint, "")
    }
}

impl From<&str> for Refusal {
    fn from(complaint: &str) -> Self {
        Self::new(complaint, "")
    }
}

/// One value per flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    given: BTreeMap<&'static str, String>,
    /// Common names allowed to clients; only the configuration file can say so.
    pub client_allowed_cn: Vec<String>,
    /// Read from a configuration file?
    pub is_from_file: bool,
    /// Told once logging works.
    pub notes: Vec<Note>,
}

impl Settings {
    /// Nothing set yet, to be filled from a file.
    #[must_use]
    pub fn of_file() -> Self {
        Self { is_from_file: true, ..Self::default() }
    }

    /// The value of `name`: given, or the table's default.
    ///
    /// # Panics
    /// If `name` is not in the table: a slip of ours.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        let flag = find(name).expect("every setting that is read stands in the table");
        match self.given.get(name).map(String::as_str) {
            // An empty list of URLs was accepted and changes nothing. Source: etcd `UniqueURLs.Set`.
            None | Some("") if flag.kind == Kind::Urls => flag.default,
            None => flag.default,
            Some(given) => given,
        }
    }

    /// Was `name` set on the command line, in the environment or in the file?
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Sets a flag whose value was checked; gates add up, all others are replaced.
    pub fn set(&mut self, flag: &'static Flag, value: String) {
        match (flag.kind, self.given.get_mut(flag.name)) {
            (Kind::Gates, Some(before)) => {
                before.push(',');
                before.push_str(&value);
            }
            // Nothing new: what was given before stays. Source: etcd `UniqueURLs.Set`.
            (Kind::Urls, Some(_)) if value.is_empty() => {}
            _ => drop(self.given.insert(flag.name, value)),
        }
    }

    /// Forgets that `name` was given.
    pub fn unset(&mut self, name: &str) {
        self.given.remove(name);
    }

    /// Flags set to something else than their default, with the flag's row.
    pub fn changed(&self) -> impl Iterator<Item = &'static Flag> {
        flags().filter(|flag| self.given.get(flag.name).is_some_and(|value| is_change(flag, value)))
    }

    /// One warning that names all flags which were set and do nothing.
    #[must_use]
    pub fn without_effect(&self) -> Option<Note> {
        let idle: Vec<String> = self
            .changed()
            .filter_map(|flag| match flag.effect {
                Effect::Nothing(why) => Some(format!("--{}: {why}", flag.name)),
                Effect::Works => None,
            })
            .collect();
        if idle.is_empty() {
            return None;
        }
        Some(Note::warning("some flags are accepted and have no effect").with("flags", idle.join("; ")))
    }
}

/// Does `value` ask for something else than the default?
fn is_change(flag: &Flag, value: &str) -> bool {
    match flag.kind {
        Kind::Bool => spelling::boolean(value) != spelling::boolean(flag.default),
        Kind::Unsigned | Kind::Unsigned32 => spelling::unsigned(value) != spelling::unsigned(flag.default),
        Kind::Signed => spelling::signed(value) != spelling::signed(flag.default),
        Kind::Span => spelling::span(value) != spelling::span(flag.default),
        Kind::Urls if value.is_empty() => false,
        Kind::Ignored => true,
        _ => value != flag.default,
    }
}

/// Does `value` spell a value of this kind?
///
/// # Errors
/// What reads well after "invalid value X for flag -Y: ", in the words of etcd and Go.
pub fn check(kind: Kind, value: &str) -> Result<(), Complaint> {
    match kind {
        Kind::Text | Kind::List | Kind::Set | Kind::Ignored => Ok(()),
        Kind::Bool => spelling::boolean(value).map(drop),
        Kind::Unsigned => spelling::unsigned(value).map(drop),
        Kind::Unsigned32 => match spelling::unsigned(value) {
            Ok(number) if u32::try_from(number).is_ok() => Ok(()),
            Err(why) if why == "parse error" => Err(format!("strconv.ParseUint: parsing {value:?}: invalid syntax")),
            _ => Err(format!("strconv.ParseUint: parsing {value:?}: value out of range")),
        },
        Kind::Signed => spelling::signed(value).map(drop),
        Kind::Span => spelling::span(value).map(drop).map_err(|_| "parse error".into()),
        Kind::Urls if value.is_empty() => Ok(()),
        Kind::Origins if value == "*" => Ok(()),
        Kind::Urls | Kind::Origins => url::urls(value).map(drop),
        Kind::Choice(known) => known.contains(&value).then_some(()).ok_or_else(|| "invalid value".into()),
        Kind::Choices(known) => match value.split(',').find(|part| !known.contains(part)) {
            Some(stranger) => Err(format!("invalid value {stranger:?}")),
            None => Ok(()),
        },
        Kind::Gates => Gates::parse(value).map(drop),
    }
}

/// What to write instead, as a sentence about the flag.
#[must_use]
pub fn spelled(kind: Kind) -> String {
    match kind {
        Kind::Text => "takes any text".into(),
        Kind::Bool => "takes =true or =false; the = is needed".into(),
        Kind::Unsigned | Kind::Unsigned32 => "takes a whole number, like 100, without a unit".into(),
        Kind::Signed => "takes a whole number, like 100 or -1, without a unit".into(),
        Kind::Span => "takes a number with a unit, like 100ms, 30s or 2h".into(),
        Kind::Urls => "takes URLs like http://127.0.0.1:2379, without a path; commas between several".into(),
        Kind::Origins => "takes * or origins like https://example.com:443, with a port and without a path".into(),
        Kind::List | Kind::Set => "takes texts with commas between them".into(),
        Kind::Choice(known) => format!("takes {}", known.join(" or ")),
        Kind::Choices(known) => format!("takes one of {}", known.join(", ")),
        Kind::Gates => {
            let names: Vec<&str> = super::gates::GATES.iter().map(|gate| gate.name).collect();
            format!("takes Name=true or Name=false; names are AllAlpha, AllBeta, {}", names.join(", "))
        }
        Kind::Ignored => "is ignored".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            settings.set(find(name).unwrap(), (*value).to_owned());
        }
        settings
    }

    #[test]
    fn every_default_is_a_value_of_its_kind() {
        for flag in flags() {
            if flag.default.is_empty() && !matches!(flag.kind, Kind::Choice(_)) {
                continue;
            }
            assert_eq!(check(flag.kind, flag.default), Ok(()), "{}", flag.name);
            assert!(!is_change(flag, flag.default), "{}", flag.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = flags().map(|flag| flag.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn what_does_nothing_is_named_once_when_it_asks_for_something() {
        assert_eq!(
            settings(&[("pre-vote", "false"), ("enable-distributed-tracing", "f"), ("v2-deprecation", "")])
                .without_effect(),
            None
        );
        let asked = settings(&[("enable-distributed-tracing", "t"), ("distributed-tracing-sampling-rate", "0x2")]);
        let note = asked.without_effect().unwrap();
        assert!(note.is_warning);
        let flags = &note.fields[0].1;
        for name in ["--enable-distributed-tracing: ", "; ", "--distributed-tracing-sampling-rate: "] {
            assert!(flags.contains(name), "{flags}");
        }
    }

    #[test]
    fn gates_add_up_and_urls_keep_their_default() {
        let settings = settings(&[("feature-gates", "A=1"), ("feature-gates", "B=0"), ("listen-client-urls", "")]);
        assert_eq!(settings.text("feature-gates"), "A=1,B=0");
        assert_eq!(settings.text("listen-client-urls"), "http://localhost:2379");
        assert!(settings.is_given("listen-client-urls"));
        let settings = super::tests::settings(&[("listen-peer-urls", "http://h:1"), ("listen-peer-urls", "")]);
        assert_eq!(settings.text("listen-peer-urls"), "http://h:1");
    }
}
