//! The member's log: JSON lines, or lines for people, on streams, in files or in systemd's journal.
//!
//! Each line is one write under a short lock, so that lines of different threads never mix. An output that cannot be
//! written any more (a closed pipe, a full disk) is passed over: a member does not stop because nobody reads its log.

mod journal;
mod line;
mod rotate;

use std::fs::File;
use std::io::{self, Write};
use std::panic::Location;
use std::path::Path;
use std::sync::Arc;

use milepost_env::Clock;
use milepost_node::log::{Level, Log, Value};
use parking_lot::Mutex;

use crate::config::logging::{LogPlan, Output};
use crate::config::settings::Refusal;
use crate::config::system_words;

/// Where lines go.
trait Sink: Send {
    /// Takes one line, which ends in a line feed.
    fn take(&mut self, level: Level, caller: &str, line: &str) -> io::Result<()>;
}

impl<W: Write + Send> Sink for W {
    fn take(&mut self, _level: Level, _caller: &str, line: &str) -> io::Result<()> {
        self.write_all(line.as_bytes())
    }
}

/// Writes lines at or above a level.
pub struct MemberLog {
    least: Level,
    is_console: bool,
    clock: Arc<dyn Clock>,
    sinks: Mutex<Vec<Box<dyn Sink>>>,
}

impl MemberLog {
    /// JSON on the error stream: for what must be told before a plan is known.
    #[must_use]
    pub fn plain(clock: Arc<dyn Clock>) -> Self {
        Self { least: Level::Info, is_console: false, clock, sinks: Mutex::new(vec![Box::new(io::stderr())]) }
    }

    /// Opens what `plan` names.
    ///
    /// # Errors
    /// A file that cannot be opened, or no journal; in etcd's words.
    pub fn open(plan: &LogPlan, clock: Arc<dyn Clock>) -> Result<Self, Refusal> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        for output in &plan.outputs {
            sinks.push(match output {
                Output::Stderr => Box::new(io::stderr()),
                Output::Stdout => Box::new(io::stdout()),
                Output::Journal => Box::new(journal::Journal::dial()?),
                Output::File(path) => match plan.rotation {
                    None => Box::new(append_to(path).map_err(|error| cannot_open(path, &error))?),
                    Some(rotation) => Box::new(
                        rotate::Rotating::open(path, rotation, Arc::clone(&clock))
                            .map_err(|error| cannot_open(path, &error))?,
                    ),
                },
            });
        }
        let is_console = plan.is_console;
        Ok(Self { least: level(plan.level), is_console, clock, sinks: Mutex::new(sinks) })
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

fn cannot_open(path: &Path, error: &io::Error) -> Refusal {
    let (path, why) = (path.display(), system_words(error));
    let remedy = "create the directory of the log file, and let this user write there";
    Refusal::new(format!("open sink \"{path}\": open {path}: {why}"), remedy)
}

/// The level of a name; etcd's `dpanic`, `panic` and `fatal` show fatal lines only.
fn level(name: &str) -> Level {
    match name {
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        _ => Level::Fatal,
    }
}

impl Log for MemberLog {
    fn is_on(&self, level: Level) -> bool {
        level >= self.least
    }

    fn log_at(
        &self,
        level: Level,
        logger: Option<&str>,
        caller: &'static Location<'static>,
        msg: &str,
        fields: &[(&str, Value)],
    ) {
        if !self.is_on(level) {
            return;
        }
        let file = caller.file().rsplit_once("crates/").map_or(caller.file(), |(_, rest)| rest).replace("/src/", "/");
        let head =
            line::Head { level, at: self.clock.unix(), logger, caller: &format!("{file}:{}", caller.line()), msg };
        let text = if self.is_console { line::console(&head, fields) } else { line::json(&head, fields) };
        for sink in self.sinks.lock().iter_mut() {
            let _ = sink.take(level, head.caller, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;
    use crate::config::table::find;
    use milepost_env::SimClock;

    fn plan(pairs: &[(&str, &str)]) -> LogPlan {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            settings.set(find(name).unwrap(), (*value).to_owned());
        }
        LogPlan::new(&settings).unwrap()
    }

    #[test]
    fn every_file_gets_every_line_from_its_level_on() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| dir.path().join(name).display().to_string());
        std::fs::write(&paths[0], "before\n").unwrap();
        let plan = plan(&[("log-outputs", &paths.join(",")), ("log-level", "warn")]);
        let log: &dyn Log = &MemberLog::open(&plan, Arc::new(SimClock::new(std::time::Duration::ZERO))).unwrap();
        log.info("quiet", &[]);
        log.debug_with("quiet", || -> [_; 0] { unreachable!("nobody reads it") });
        log.warn("loud", &[("n", 1_u64.into())]);
        for path in &paths {
            let text = std::fs::read_to_string(path).unwrap();
            let last = text.lines().last().unwrap();
            assert!(last.starts_with("{\"level\":\"warn\"") && last.ends_with("\"msg\":\"loud\",\"n\":1}"), "{text}");
            assert!(!text.contains("quiet"));
        }
        assert!(std::fs::read_to_string(&paths[0]).unwrap().starts_with("before\n"));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_as_etcd_names_it() {
        let refusal = MemberLog::open(
            &plan(&[("log-outputs", "/nonexistent/x")]),
            Arc::new(SimClock::new(std::time::Duration::ZERO)),
        )
        .err()
        .unwrap();
        assert_eq!(refusal.complaint, "open sink \"/nonexistent/x\": open /nonexistent/x: no such file or directory");
    }
}
