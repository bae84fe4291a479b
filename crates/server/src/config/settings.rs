//! From the command line and the environment to one text value per flag. Go's flag syntax.

use std::collections::BTreeMap;

use super::spelling::{self, Complaint};
use super::table::{FLAGS, Flag, Kind, find};

/// Why the command line cannot be used. Each variant has its exit code and its place to be told.
#[derive(Debug, PartialEq, Eq)]
pub enum UsageError {
    /// Wrong words on the command line: plain text and a short usage on stderr, exit code 2.
    CommandLine(String),
    /// Wrong environment or stray words: told through the log, exit code 1.
    Refused(String),
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Run a server with these settings.
    Serve(Settings),
    /// Print the version and leave.
    Version,
    /// Print the help page and leave.
    Help,
}

/// One value per flag, with the knowledge of who set it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settings {
    given: BTreeMap<&'static str, String>,
    /// Told once logging works.
    pub warnings: Vec<String>,
}

impl Settings {
    /// The value of `name`: given, or the table's default.
    ///
    /// # Panics
    /// If `name` is not in the table: a slip of ours.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        let flag = find(name).expect("every setting that is read stands in the table");
        self.given.get(name).map_or(flag.default, String::as_str)
    }

    /// Was `name` set on the command line or in the environment?
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }
}

/// Does `value` spell a value of this flag?
fn check(flag: &Flag, value: &str) -> Result<(), Complaint> {
    match flag.kind {
        Kind::Text => Ok(()),
        Kind::Bool => spelling::boolean(value).map(drop),
        Kind::Unsigned => spelling::unsigned(value).map(drop),
        Kind::Signed => spelling::signed(value).map(drop),
        Kind::Urls => spelling::urls(value).map(drop),
        Kind::ClusterState => match value {
            "new" | "existing" => Ok(()),
            _ => Err(format!("invalid value {value:?}, want \"new\" or \"existing\"")),
        },
    }
}

/// Reads `args` (without the program's name) and the environment.
///
/// A flag given on the command line and in the environment is refused even when both agree: there is no rule which one
/// would win. An empty variable counts as unset. Source: etcd `pkg/flags`.
///
/// # Errors
/// [`UsageError`], with the flag or variable and the value named.
pub fn parse(args: &[String], env: impl IntoIterator<Item = (String, String)>) -> Result<Request, UsageError> {
    let mut settings = Settings::default();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|_| word != "-") else {
            return Err(UsageError::Refused(format!("{word:?} is not a valid flag")));
        };
        if body.is_empty() {
            if let Some(stray) = words.next() {
                return Err(UsageError::Refused(format!("{stray:?} is not a valid flag")));
            }
            break;
        }
        if body.starts_with('-') || body.starts_with('=') {
            return Err(UsageError::CommandLine(format!("bad flag syntax: {word}")));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        match name {
            "h" | "help" => return Ok(Request::Help),
            "version" if value.as_deref().is_none_or(|v| spelling::boolean(v) == Ok(true)) => {
                return Ok(Request::Version);
            }
            _ => {}
        }
        let Some(flag) = find(name) else {
            return Err(UsageError::CommandLine(format!("flag provided but not defined: -{name}")));
        };
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".into(),
            (None, _) => match words.next() {
                Some(value) => value.clone(),
                None => return Err(UsageError::CommandLine(format!("flag needs an argument: -{name}"))),
            },
        };
        check(flag, &value).map_err(|why| {
            UsageError::CommandLine(match flag.kind {
                Kind::Bool => format!("invalid boolean value {value:?} for -{name}: {why}"),
                _ => format!("invalid value {value:?} for flag -{name}: {why}"),
            })
        })?;
        settings.given.insert(flag.name, value);
    }
    read_environment(&mut settings, env)?;
    Ok(Request::Serve(settings))
}

fn read_environment(
    settings: &mut Settings,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<(), UsageError> {
    let names: BTreeMap<String, &'static Flag> = FLAGS.iter().map(|flag| (flag.env_name(), flag)).collect();
    let from_line: Vec<&str> = settings.given.keys().copied().collect();
    let mut variables: Vec<(String, String)> =
        env.into_iter().filter(|(k, v)| k.starts_with("ETCD_") && !v.is_empty()).collect();
    variables.sort();
    for (variable, value) in variables {
        let Some(flag) = names.get(&variable) else {
            settings.warnings.push(format!("{variable}={value}"));
            continue;
        };
        if from_line.contains(&flag.name) {
            return Err(UsageError::Refused(format!(
                "conflicting environment variable {variable:?} is shadowed by corresponding command-line flag {:?} (either unset environment variable or disable flag)",
                flag.name
            )));
        }
        check(flag, &value)
            .map_err(|why| UsageError::Refused(format!("invalid value {value:?} for {variable}: {why}")))?;
        settings.given.insert(flag.name, value);
    }
    Ok(())
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

    #[test]
    fn one_dash_two_dashes_and_both_value_forms_are_the_same() {
        for args in
            [&["-name", "x"][..], &["--name", "x"], &["--name=x"], &["-name=x", "--"], &["--name", "y", "--name", "x"]]
        {
            assert_eq!(settings(args, &[]).text("name"), "x", "{args:?}");
        }
        assert_eq!(settings(&[], &[]).text("name"), "default");
    }

    #[test]
    fn a_bool_takes_its_value_only_after_an_equals_sign() {
        assert_eq!(settings(&["--unsafe-no-fsync"], &[]).text("unsafe-no-fsync"), "true");
        assert_eq!(settings(&["--unsafe-no-fsync=F"], &[]).text("unsafe-no-fsync"), "F");
        assert_eq!(
            parsed(&["--unsafe-no-fsync", "false"], &[]),
            Err(UsageError::Refused("\"false\" is not a valid flag".into()))
        );
    }

    #[test]
    fn wrong_words_are_named() {
        for (args, complaint) in [
            (&["--nme=x"][..], "flag provided but not defined: -nme"),
            (&["--name"], "flag needs an argument: -name"),
            (&["---name=x"], "bad flag syntax: ---name=x"),
            (&["--snapshot-count=1GB"], "invalid value \"1GB\" for flag -snapshot-count: parse error"),
            (&["--unsafe-no-fsync=maybe"], "invalid boolean value \"maybe\" for -unsafe-no-fsync: parse error"),
            (
                &["--listen-client-urls", "http:/10.240.0.19:2379"],
                "invalid value \"http:/10.240.0.19:2379\" for flag -listen-client-urls: URL address does not have the form \"host:port\": http:/10.240.0.19:2379",
            ),
        ] {
            assert_eq!(parsed(args, &[]), Err(UsageError::CommandLine(complaint.into())));
        }
    }

    #[test]
    fn the_environment_sets_what_the_line_does_not() {
        let got =
            settings(&["--name=x"], &[("ETCD_DATA_DIR", "/d"), ("ETCD_NAME", ""), ("ETCD_NOPE", "1"), ("HOME", "/")]);
        assert_eq!((got.text("name"), got.text("data-dir")), ("x", "/d"));
        assert_eq!(got.warnings, ["ETCD_NOPE=1"]);
        assert!(
            matches!(parsed(&["--name=x"], &[("ETCD_NAME", "x")]), Err(UsageError::Refused(why)) if why.contains("ETCD_NAME"))
        );
        assert_eq!(
            parsed(&[], &[("ETCD_SNAPSHOT_COUNT", "many")]),
            Err(UsageError::Refused("invalid value \"many\" for ETCD_SNAPSHOT_COUNT: parse error".into()))
        );
    }
}
