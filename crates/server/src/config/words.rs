//! From the command line and the environment to settings: Go's flag syntax, etcd's rules about variables.

use std::collections::BTreeMap;

use super::old::{self, Meaning, Old};
use super::settings::{Note, Refusal, Settings, check, spelled};
use super::spelling;
use super::table::{self, Flag, Kind, find, flags};

/// Why the command line cannot be used. Each variant has its exit code and its place to be told.
#[derive(Debug, PartialEq, Eq)]
pub enum UsageError {
    /// Wrong words on the command line: plain text and a short usage on stderr, exit code 2.
    CommandLine(Refusal),
    /// Wrong environment, file or stray words: told through the log, exit code 1.
    Refused(Refusal),
    /// This variable and its flag are both set: a fatal line, exit code 1.
    Conflict(String),
    /// Plain text on stderr, exit code 1.
    Plain(String),
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Run a server with these settings.
    Serve(Settings),
    /// Run a server with the settings of this file.
    ServeFile(String),
    /// Print the version and leave.
    Version,
    /// Print the help page and leave.
    Help,
}

/// Reads `args` (without the program's name) and the environment.
///
/// A flag given on the command line and in the environment is refused even when both agree: there is no rule which one
/// would win. An empty variable counts as unset. With a configuration file nothing else counts, but the words must still
/// be words. Source: etcd `etcdmain`, `pkg/flags`.
///
/// # Errors
/// [`UsageError`], with the flag or variable and the value named.
pub fn parse(args: &[String], env: impl IntoIterator<Item = (String, String)>) -> Result<Request, UsageError> {
    let mut settings = Settings::default();
    let mut words = args.iter();
    let mut stray = None;
    while let Some(word) = words.next() {
        match flag_word(word, &mut words, &mut settings)? {
            Word::Set => {}
            Word::Help => return Ok(Request::Help),
            Word::End => {
                stray = words.next();
                break;
            }
            Word::Stray => {
                stray = Some(word);
                break;
            }
        }
    }
    if let Some(stray) = stray {
        return Err(UsageError::Refused(Refusal::new(format!("{stray:?} is not a valid flag"), about_stray(stray))));
    }
    if spelling::boolean(settings.text("version")) == Ok(true) {
        return Ok(Request::Version);
    }
    let env: BTreeMap<String, String> =
        env.into_iter().filter(|(name, value)| name.starts_with("ETCD_") && !value.is_empty()).collect();
    let from_variable = || env.get("ETCD_CONFIG_FILE").map_or("", String::as_str);
    let file = Some(settings.text("config-file")).filter(|path| !path.is_empty()).unwrap_or_else(from_variable);
    if !file.is_empty() {
        return Ok(Request::ServeFile(file.to_owned()));
    }
    read_environment(&mut settings, env)?;
    Ok(Request::Serve(settings))
}

/// What a word was.
enum Word {
    Set,
    Help,
    /// `--`: no flags after it.
    End,
    /// No flag.
    Stray,
}

fn flag_word<'a>(
    word: &str,
    words: &mut impl Iterator<Item = &'a String>,
    settings: &mut Settings,
) -> Result<Word, UsageError> {
    let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|_| word != "-") else {
        return Ok(Word::Stray);
    };
    if body.is_empty() {
        return Ok(Word::End);
    }
    let wrong = |complaint: String, remedy: String| UsageError::CommandLine(Refusal::new(complaint, remedy));
    if body.starts_with('-') || body.starts_with('=') {
        return Err(wrong(format!("bad flag syntax: {word}"), "write --name=value or --name value".into()));
    }
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (body, None),
    };
    let Some(known) = Known::find(name) else {
        return match name {
            "h" | "help" => Ok(Word::Help),
            _ => Err(wrong(format!("flag provided but not defined: -{name}"), about_unknown(name))),
        };
    };
    let value = match value {
        Some(value) => value,
        None if known.is_switch() => "true".into(),
        None => match words.next() {
            Some(value) => value.clone(),
            None => {
                return Err(wrong(
                    format!("flag needs an argument: -{name}"),
                    format!("--{name} {}", spelled(known.kind())),
                ));
            }
        },
    };
    check(known.kind(), &value).map_err(|why| {
        let complaint = match known.kind() {
            Kind::Bool => format!("invalid boolean value {value:?} for -{name}: {why}"),
            _ => format!("invalid value {value:?} for flag -{name}: {why}"),
        };
        wrong(complaint, format!("--{name} {}", spelled(known.kind())))
    })?;
    known.apply(name, value, settings).map_err(UsageError::CommandLine)?;
    Ok(Word::Set)
}

/// A flag of today or of old.
enum Known {
    Flag(&'static Flag),
    Old(Old),
}

impl Known {
    fn find(name: &str) -> Option<Self> {
        find(name).map(Self::Flag).or_else(|| old::find(name).map(Self::Old))
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Flag(flag) => flag.kind,
            Self::Old(old) => old.kind,
        }
    }

    fn is_switch(&self) -> bool {
        matches!(self.kind(), Kind::Bool | Kind::Ignored)
    }

    /// Sets what it means, which for an old flag may be another one; it never overrides the new name.
    fn apply(&self, name: &str, value: String, settings: &mut Settings) -> Result<(), Refusal> {
        let old = match self {
            Self::Flag(flag) => {
                settings.set(flag, value);
                return Ok(());
            }
            Self::Old(old) => old,
        };
        let is_on = spelling::boolean(&value) == Ok(true);
        let (target, value) = match old.meaning {
            Meaning::Flag(target) => (target, value),
            Meaning::Gate(gate) => ("feature-gates", format!("{gate}={is_on}")),
            Meaning::Debug if is_on => ("log-level", "debug".to_owned()),
            Meaning::Debug => return Ok(()),
            Meaning::Gone { harmless, .. } if harmless.contains(&value.as_str()) => {
                settings.notes.push(Note::warning(format!("--{name} is gone since etcd 3.6 and is ignored")));
                return Ok(());
            }
            Meaning::Gone { why, .. } => {
                return Err(Refusal::new(format!("flag provided but not defined: -{name}"), why));
            }
            Meaning::Dropped(why) => {
                settings.notes.push(Note::warning(format!("--{name} is ignored: {why}")));
                return Ok(());
            }
        };
        settings.notes.push(Note::warning(format!("--{name} is gone since etcd 3.7: write --{target}={value}")));
        if target == "feature-gates" || !settings.is_given(target) {
            settings.set(find(target).expect("old flags mean flags of the table"), value);
        }
        Ok(())
    }
}

fn about_stray(stray: &str) -> String {
    if stray.starts_with(['–', '—', '−']) {
        return "this begins with a long dash, as word processors write it: type - instead".into();
    }
    if spelling::boolean(stray).is_ok() {
        return "write the value of a bool with =, as in --pre-vote=false".into();
    }
    "flags begin with -; see --help".into()
}

fn about_unknown(name: &str) -> String {
    match nearest(name) {
        Some(known) => format!("did you mean --{known}?"),
        None => "see --help for every flag".into(),
    }
}

/// The flag whose name is nearest to `name`, if they are alike.
pub(super) fn nearest(name: &str) -> Option<String> {
    let names = flags().map(|flag| flag.name.to_owned()).chain(old::names());
    let (distance, known) = names.map(|known| (strsim::damerau_levenshtein(name, &known), known)).min()?;
    (distance <= 1 + name.len() / 5).then_some(known)
}

/// Variables whose values are not for the log.
const SECRET: [&str; 2] = ["ETCD_DISCOVERY_PASSWORD", "ETCD_DISCOVERY_USER"];

fn read_environment(settings: &mut Settings, mut env: BTreeMap<String, String>) -> Result<(), UsageError> {
    if let Some(value) = env.remove("ETCD_VERSION") {
        let note = Note::warning("cannot set special environment variable").with("key", "ETCD_VERSION");
        settings.notes.push(note.with("value", value));
    }
    let on_line: Vec<&str> = flags().map(|flag| flag.name).filter(|name| settings.is_given(name)).collect();
    let mut complaint = None;
    // By the flags' names and the last complaint counts: etcd walks them in that order and keeps the last.
    let mut names: Vec<String> = flags().map(|flag| flag.name.to_owned()).collect();
    names.sort();
    for name in names.into_iter().chain(old::names()) {
        let variable = table::env_name(&name);
        if on_line.contains(&name.as_str()) {
            continue;
        }
        let (Some(value), Some(known)) = (env.remove(&variable), Known::find(&name)) else { continue };
        if let Err(why) = check(known.kind(), &value) {
            let remedy = format!("{variable} {}", spelled(known.kind()));
            complaint = Some(Refusal::new(format!("invalid value {value:?} for {variable}: {why}"), remedy));
            continue;
        }
        let shown = if SECRET.contains(&variable.as_str()) { "***".to_owned() } else { value.clone() };
        let note = Note::info("recognized and used environment variable").with("variable-name", variable);
        settings.notes.push(note.with("variable-value", shown));
        if let Err(refusal) = known.apply(&name, value, settings) {
            complaint = Some(refusal);
        }
    }
    let conflict = |variable: &String| on_line.iter().any(|name| table::env_name(name) == *variable);
    if let Some(variable) = env.keys().find(|variable| conflict(variable)) {
        return Err(UsageError::Conflict(variable.clone()));
    }
    for (variable, value) in env {
        let note = Note::warning("unrecognized environment variable");
        settings.notes.push(note.with("environment-variable", format!("{variable}={value}")));
    }
    complaint.map_or(Ok(()), |refusal| Err(UsageError::Refused(refusal)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str], env: &[(&str, &str)]) -> Result<Request, UsageError> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        parse(&args, env.iter().map(|(k, v)| (k.to_string(), v.to_string())))
    }

    fn settings(args: &[&str], env: &[(&str, &str)]) -> Settings {
        match parsed(args, env).unwrap() {
            Request::Serve(settings) => settings,
            other => panic!("{other:?}"),
        }
    }

    /// The exit code and the first line that a person sees.
    fn told(args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
        match parsed(args, env) {
            Ok(Request::Help | Request::Version) => (0, String::new()),
            Ok(other) => panic!("{args:?}: {other:?}"),
            Err(UsageError::CommandLine(refusal)) => (2, refusal.complaint),
            Err(UsageError::Refused(refusal)) => (1, refusal.complaint),
            Err(UsageError::Conflict(variable)) => (1, format!("conflict: {variable}")),
            Err(UsageError::Plain(text)) => (1, text),
        }
    }

    #[test]
    fn one_dash_two_dashes_and_both_value_forms_are_the_same() {
        for args in
            [&["-name", "x"][..], &["--name", "x"], &["--name=x"], &["-name=x", "--"], &["--name", "y", "--name", "x"]]
        {
            assert_eq!(settings(args, &[]).text("name"), "x", "{args:?}");
        }
        assert_eq!(settings(&[], &[]).text("name"), "default");
        assert_eq!(settings(&["--config=x", "-v"], &[]).text("config"), "x");
    }

    /// Each line was given to etcd 3.7.1, too.
    #[test]
    fn wrong_words_are_named_as_etcd_names_them() {
        for (args, code, first) in [
            (&["--nme=x"][..], 2, "flag provided but not defined: -nme"),
            (&["--name"], 2, "flag needs an argument: -name"),
            (&["---name=x"], 2, "bad flag syntax: ---name=x"),
            (&["-=x"], 2, "bad flag syntax: -=x"),
            (&["--snapshot-count=1GB"], 2, "invalid value \"1GB\" for flag -snapshot-count: parse error"),
            (&["--max-txn-ops=-1"], 2, "invalid value \"-1\" for flag -max-txn-ops: parse error"),
            (&["--quota-backend-bytes=1e9"], 2, "invalid value \"1e9\" for flag -quota-backend-bytes: parse error"),
            (&["--unsafe-no-fsync=maybe"], 2, "invalid boolean value \"maybe\" for -unsafe-no-fsync: parse error"),
            (&["--version=maybe"], 2, "invalid boolean value \"maybe\" for -version: parse error"),
            (&["--corrupt-check-time=5"], 2, "invalid value \"5\" for flag -corrupt-check-time: parse error"),
            (
                &["--compaction-batch-limit=99999999999999999999"],
                2,
                "invalid value \"99999999999999999999\" for flag -compaction-batch-limit: value out of range",
            ),
            (
                &["--max-concurrent-streams=x"],
                2,
                "invalid value \"x\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"x\": invalid syntax",
            ),
            (
                &["--max-concurrent-streams=4294967296"],
                2,
                "invalid value \"4294967296\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"4294967296\": value out of range",
            ),
            (&["--initial-cluster-state=x"], 2, "invalid value \"x\" for flag -initial-cluster-state: invalid value"),
            (
                &["--v2-deprecation=not-yet"],
                2,
                "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\"",
            ),
            (
                &["--feature-gates=X=true"],
                2,
                "invalid value \"X=true\" for flag -feature-gates: unrecognized feature gate: X",
            ),
            (
                &["--cors=*,http://a:1"],
                2,
                "invalid value \"*,http://a:1\" for flag -cors: URL scheme must be http, https, unix, or unixs: *",
            ),
            (&["--cors="], 2, "invalid value \"\" for flag -cors: URL scheme must be http, https, unix, or unixs: "),
            (
                &["--listen-client-urls", "http:/10.240.0.19:2379"],
                2,
                "invalid value \"http:/10.240.0.19:2379\" for flag -listen-client-urls: URL address does not have the form \"host:port\": http:/10.240.0.19:2379",
            ),
            (&["--pre-vote", "false"], 1, "\"false\" is not a valid flag"),
            (&["--config", "x"], 1, "\"x\" is not a valid flag"),
            (&["--", "x"], 1, "\"x\" is not a valid flag"),
            (&["-", "x"], 1, "\"-\" is not a valid flag"),
            (&["--version", "x"], 1, "\"x\" is not a valid flag"),
            (&["--version", "--bogus"], 2, "flag provided but not defined: -bogus"),
            (&["--bogus", "-h"], 2, "flag provided but not defined: -bogus"),
            (&["-h", "--bogus"], 0, ""),
            (&["--version"], 0, ""),
        ] {
            assert_eq!(told(args, &[]), (code, first.to_owned()), "{args:?}");
        }
    }

    #[test]
    fn a_wrong_word_comes_with_what_to_write() {
        for (args, part) in [
            (&["--nme=x"][..], "did you mean --name?"),
            (&["--listen-client-url=http://h:1"], "did you mean --listen-client-urls?"),
            (&["--colour"], "see --help"),
            (&["--corrupt-check-time=5"], "30s"),
            (&["–name=x"], "long dash"),
            (&["--pre-vote", "false"], "--pre-vote=false"),
        ] {
            let refusal = match parsed(args, &[]) {
                Err(UsageError::CommandLine(refusal) | UsageError::Refused(refusal)) => refusal,
                other => panic!("{other:?}"),
            };
            assert!(refusal.remedy.contains(part), "{refusal:?}");
        }
    }

    #[test]
    fn the_environment_sets_what_the_line_does_not() {
        let got =
            settings(&["--name=x"], &[("ETCD_DATA_DIR", "/d"), ("ETCD_NAME", ""), ("ETCD_NOPE", "1"), ("HOME", "/")]);
        assert_eq!((got.text("name"), got.text("data-dir")), ("x", "/d"));
        let told: Vec<_> = got.notes.iter().map(|note| (note.message.as_str(), note.fields.last().unwrap())).collect();
        assert_eq!(
            told,
            [
                ("recognized and used environment variable", &("variable-value", "/d".to_owned())),
                ("unrecognized environment variable", &("environment-variable", "ETCD_NOPE=1".to_owned()))
            ]
        );
        for (args, env, first) in [
            (&["--name=x"][..], &[("ETCD_NAME", "x")][..], "conflict: ETCD_NAME"),
            (&[], &[("ETCD_SNAPSHOT_COUNT", "many")], "invalid value \"many\" for ETCD_SNAPSHOT_COUNT: parse error"),
            (&[], &[("ETCD_PRE_VOTE", "maybe")], "invalid value \"maybe\" for ETCD_PRE_VOTE: parse error"),
        ] {
            assert_eq!(told_env(args, env), (1, first.to_owned()));
        }
        assert_eq!(parsed(&[], &[("ETCD_VERSION", "3.5.0")]).map(drop), Ok(()));
    }

    fn told_env(args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
        told(args, env)
    }

    #[test]
    fn a_file_makes_the_rest_mute() {
        let file = |path: &str| Ok(Request::ServeFile(path.to_owned()));
        assert_eq!(parsed(&["--config-file=/f", "--name=x"], &[("ETCD_NAME", "y")]), file("/f"));
        assert_eq!(parsed(&["--name=x"], &[("ETCD_CONFIG_FILE", "/g")]), file("/g"));
        assert_eq!(parsed(&["--version"], &[("ETCD_CONFIG_FILE", "/g")]), Ok(Request::Version));
    }

    #[test]
    fn old_flags_lead_to_new_ones_and_never_override_them() {
        let got = settings(
            &[
                "--experimental-compaction-batch-limit=7",
                "--max-learners=3",
                "--experimental-max-learners=2",
                "--experimental-enable-lease-checkpoint",
                "--proxy=off",
                "--debug",
            ],
            &[("ETCD_EXPERIMENTAL_COMPACTION_SLEEP_INTERVAL", "1s")],
        );
        assert_eq!((got.text("compaction-batch-limit"), got.text("max-learners")), ("7", "3"));
        assert_eq!((got.text("feature-gates"), got.text("log-level")), ("LeaseCheckpoint=true", "debug"));
        assert_eq!(got.text("compaction-sleep-interval"), "1s");
        assert!(got.notes[0].message.contains("write --compaction-batch-limit=7"), "{:?}", got.notes);
        assert_eq!(told(&["--proxy=on"], &[]), (2, "flag provided but not defined: -proxy".into()));
        assert_eq!(told(&["--enable-v2=true"], &[]).0, 2);
    }
}
