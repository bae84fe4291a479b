//! What `--logger` and `--log-*` ask for, checked. First of all checks, because everything later is told through the log.
//! Source: etcd `embed` `setupLogging`.

use std::path::PathBuf;

use serde::Deserialize;

use super::settings::{Refusal, Settings};

/// Log levels by name, most talkative first.
pub const LEVELS: [&str; 7] = ["debug", "info", "warn", "error", "dpanic", "panic", "fatal"];

/// One place where lines go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// The error stream, also by the name `default`.
    Stderr,
    /// The output stream.
    Stdout,
    /// systemd's journal.
    Journal,
    /// A file that is appended to.
    File(PathBuf),
}

/// When a file is put aside, and how long it is kept then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A line that would make the file larger than this begins a new one.
    pub max_bytes: u64,
    /// Days that files put aside are kept; 0: for ever.
    pub max_age_days: u32,
    /// Files put aside that are kept; 0: all.
    pub max_backups: usize,
    /// Local time in the names of files put aside, not UTC.
    pub is_local_time: bool,
    /// Files put aside are compressed with gzip.
    pub is_compressed: bool,
}

/// Everything about the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlan {
    /// Where lines go; empty: nowhere (`/dev/null`).
    pub outputs: Vec<Output>,
    /// One of [`LEVELS`].
    pub level: &'static str,
    /// Lines for people instead of JSON.
    pub is_console: bool,
    /// Of the one file among the outputs.
    pub rotation: Option<Rotation>,
}

/// Why there is no log.
#[derive(Debug, PartialEq, Eq)]
pub enum LogRefusal {
    /// The level does not exist: plain text, exit code 2.
    Level(Refusal),
    /// Anything else.
    Other(Refusal),
}

impl From<Refusal> for LogRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Other(refusal)
    }
}

impl LogPlan {
    /// Checks what `settings` say about the log.
    ///
    /// # Errors
    /// The first complaint in etcd's order and words.
    pub fn new(settings: &Settings) -> Result<Self, LogRefusal> {
        match settings.text("logger") {
            // The second is etcd 3.4's default, which scripts may still give.
            "zap" | "capnslog" => {}
            other => {
                return Err(
                    Refusal::new(format!("unknown logger option {other:?}"), "leave --logger out, or say zap").into()
                );
            }
        }
        let mut names: Vec<&str> = settings.text("log-outputs").split(',').collect();
        if !settings.is_from_file {
            names.sort_unstable();
            names.dedup();
        }
        if names == [""] && settings.is_from_file {
            names = vec!["default"];
        }
        if names.len() > 1 && names.contains(&"default") {
            let remedy = "say stderr instead of default, which stands for it";
            return Err(Refusal::new("multi logoutput for \"default\" is not supported yet", remedy).into());
        }
        let rotation = rotation(settings, &names)?;
        let outputs = outputs(&names)?;
        let level = settings.text("log-level");
        let level = LEVELS.into_iter().find(|known| *known == level).ok_or_else(|| {
            LogRefusal::Level(Refusal::new(
                format!("unrecognized level: {level:?}"),
                format!("--log-level is one of {}", LEVELS.join(", ")),
            ))
        })?;
        let is_console = match settings.text("log-format") {
            "console" => true,
            "json" | "" => false,
            other => {
                return Err(format!("unknown log format: {other}, supported values json, console"))
                    .map_err(|why| Refusal::from(why).into());
            }
        };
        Ok(Self { outputs, level, is_console, rotation })
    }
}

fn outputs(names: &[&str]) -> Result<Vec<Output>, Refusal> {
    if names.contains(&"/dev/null") {
        return Ok(Vec::new());
    }
    if names.contains(&"systemd/journal") && names.len() > 1 {
        let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        return Err(Refusal::new(
            format!(
                "running with systemd/journal but other '--log-outputs' values ([{}]) are configured with 'default'; override 'default' value with something else",
                quoted.join(" ")
            ),
            "give systemd/journal alone, or leave it out",
        ));
    }
    let mut outputs: Vec<Output> = names
        .iter()
        .map(|name| match *name {
            "default" | "stderr" => Ok(Output::Stderr),
            "stdout" => Ok(Output::Stdout),
            "systemd/journal" => Ok(Output::Journal),
            "" => Err(Refusal::new("--log-outputs names an empty output", "leave out the comma too many")),
            path => Ok(Output::File(PathBuf::from(path.strip_prefix("file://").unwrap_or(path)))),
        })
        .collect::<Result<_, _>>()?;
    outputs.sort();
    outputs.dedup();
    Ok(outputs)
}

/// As it is written in the flag; megabytes and days.
#[derive(Deserialize)]
#[serde(default)]
struct RotationJson {
    maxsize: u64,
    maxage: u32,
    maxbackups: usize,
    localtime: bool,
    compress: bool,
}

impl Default for RotationJson {
    fn default() -> Self {
        Self { maxsize: 100, maxage: 0, maxbackups: 0, localtime: false, compress: false }
    }
}

fn rotation(settings: &Settings, names: &[&str]) -> Result<Option<Rotation>, Refusal> {
    if super::spelling::boolean(settings.text("enable-log-rotation")) != Ok(true) {
        return Ok(None);
    }
    let files = names.iter().filter(|name| !["default", "stderr", "stdout"].contains(name)).count();
    if files > 1 || (files == 0 && names.len() == 1) {
        return Err(Refusal::new(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
            "name one file in --log-outputs, or leave out --enable-log-rotation",
        ));
    }
    let json = settings.text("log-rotation-config-json");
    let read: RotationJson = serde_json::from_str(json).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Data => "invalid log rotation config",
            _ => "improperly formatted log rotation config",
        };
        let remedy = "write JSON like {\"maxsize\": 100, \"maxage\": 7, \"maxbackups\": 3, \"localtime\": false, \"compress\": true}";
        let why = match error.classify() {
            serde_json::error::Category::Eof => "unexpected end of JSON input".to_owned(),
            _ => error.to_string(),
        };
        Refusal::new(format!("{kind}: {why}"), remedy)
    })?;
    let megabytes = if read.maxsize == 0 { 100 } else { read.maxsize };
    Ok(Some(Rotation {
        max_bytes: megabytes.saturating_mul(1024 * 1024),
        max_age_days: read.maxage,
        max_backups: read.maxbackups,
        is_local_time: read.localtime,
        is_compressed: read.compress,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::find;

    fn plan(pairs: &[(&str, &str)]) -> Result<LogPlan, String> {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            settings.set(find(name).unwrap(), (*value).to_owned());
        }
        LogPlan::new(&settings).map_err(|refusal| match refusal {
            LogRefusal::Level(refusal) | LogRefusal::Other(refusal) => refusal.complaint,
        })
    }

    #[test]
    fn outputs_are_a_set() {
        assert_eq!(plan(&[]).unwrap().outputs, [Output::Stderr]);
        let several = plan(&[("log-outputs", "stdout,/var/log/e,stderr,stdout")]).unwrap();
        assert_eq!(several.outputs, [Output::Stderr, Output::Stdout, Output::File("/var/log/e".into())]);
        assert_eq!(plan(&[("log-outputs", "stderr,/dev/null")]).unwrap().outputs, []);
        assert_eq!(plan(&[("log-outputs", "systemd/journal")]).unwrap().outputs, [Output::Journal]);
    }

    #[test]
    fn rotation_wants_one_file() {
        let on = ("enable-log-rotation", "true");
        let rotation = plan(&[
            on,
            ("log-outputs", "/x,stderr"),
            ("log-rotation-config-json", "{\"maxsize\": 1, \"compress\": true}"),
        ]);
        let expected =
            Rotation { max_bytes: 1 << 20, max_age_days: 0, max_backups: 0, is_local_time: false, is_compressed: true };
        assert_eq!(rotation.unwrap().rotation, Some(expected));
        for outputs in ["default", "/x,/y"] {
            let why = plan(&[on, ("log-outputs", outputs)]).unwrap_err();
            assert_eq!(why, "--log-outputs requires a single file path when --log-rotate-config-json is defined");
        }
        for (json, part) in [("{", "improperly formatted"), ("{\"maxsize\": \"1\"}", "invalid log rotation config")] {
            let why = plan(&[on, ("log-outputs", "/x"), ("log-rotation-config-json", json)]).unwrap_err();
            assert!(why.starts_with(part), "{why}");
        }
    }

    #[test]
    fn complaints_are_etcds() {
        for (pair, complaint) in [
            (("logger", "x"), "unknown logger option \"x\""),
            (("log-outputs", "default,stderr"), "multi logoutput for \"default\" is not supported yet"),
            (("log-level", "loud"), "unrecognized level: \"loud\""),
            (("log-format", "xml"), "unknown log format: xml, supported values json, console"),
        ] {
            assert_eq!(plan(&[pair]).unwrap_err(), complaint);
        }
    }
}
