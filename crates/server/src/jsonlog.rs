//! The member's log: JSON lines on stderr.

use std::io::Write;
use std::panic::Location;
use std::sync::Arc;

use milepost_env::Clock;
use milepost_node::log::{Level, Log, Value};
use parking_lot::Mutex;

use crate::logline;

/// Writes lines at or above a level.
///
/// Each line is one write under a short lock, so that lines of different threads never mix. A log that cannot be written
/// (a closed pipe) is given up silently: a member does not stop because nobody reads its log.
pub struct JsonLog {
    least: Level,
    clock: Arc<dyn Clock>,
    out: Mutex<Box<dyn Write + Send>>,
}

impl JsonLog {
    /// Lines at or above `least` go to `out`.
    #[must_use]
    pub fn new(least: Level, clock: Arc<dyn Clock>, out: Box<dyn Write + Send>) -> Self {
        Self { least, clock, out: Mutex::new(out) }
    }

    /// The level named by a `--log-level`; etcd's `dpanic`, `panic` and `fatal` show fatal lines only.
    #[must_use]
    pub fn level(name: &str) -> Level {
        match name {
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" => Level::Warn,
            "error" => Level::Error,
            _ => Level::Fatal,
        }
    }
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
        Level::Fatal => "fatal",
    }
}

fn push_value(line: &mut String, value: &Value) {
    match value {
        Value::Str(text) => logline::push_json_string(line, text),
        Value::Int(number) => line.push_str(&number.to_string()),
        Value::Bool(yes) => line.push_str(if *yes { "true" } else { "false" }),
        Value::List(texts) => {
            line.push('[');
            for (i, text) in texts.iter().enumerate() {
                if i > 0 {
                    line.push(',');
                }
                logline::push_json_string(line, text);
            }
            line.push(']');
        }
    }
}

impl Log for JsonLog {
    fn log_at(
        &self,
        level: Level,
        logger: Option<&str>,
        caller: &'static Location<'static>,
        msg: &str,
        fields: &[(&str, Value)],
    ) {
        if level < self.least {
            return;
        }
        let mut line =
            format!("{{\"level\":\"{}\",\"ts\":\"{}\"", level_name(level), logline::timestamp(self.clock.unix()));
        if let Some(logger) = logger {
            line.push_str(",\"logger\":");
            logline::push_json_string(&mut line, logger);
        }
        let file = caller.file().rsplit_once("crates/").map_or(caller.file(), |(_, rest)| rest).replace("/src/", "/");
        line.push_str(",\"caller\":");
        logline::push_json_string(&mut line, &format!("{file}:{}", caller.line()));
        line.push_str(",\"msg\":");
        logline::push_json_string(&mut line, msg);
        for (name, value) in fields {
            line.push(',');
            logline::push_json_string(&mut line, name);
            line.push(':');
            push_value(&mut line, value);
        }
        line.push_str("}\n");
        let mut out = self.out.lock();
        let _ = out.write_all(line.as_bytes());
    }
}
