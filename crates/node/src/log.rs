//! The log as the rooms see it: a message with fields, handed to whoever formats lines.
//!
//! Messages that operators match on are kept to the letter as etcd writes them; ids are lower-case hexadecimal. Format,
//! time stamps, levels shown and outputs are the server's business.

use std::panic::Location;
use std::time::Duration;

/// How loud a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who follow the protocol itself.
    Debug,
    /// The normal life of a member.
    Info,
    /// Something is slow, refused or lost, and the member goes on.
    Warn,
    /// Something failed that somebody must look at.
    Error,
    /// The member stops after this line.
    Fatal,
}

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text, also ids and durations, already in etcd's notation.
    Str(String),
    /// A number.
    Int(i64),
    /// Yes or no.
    Bool(bool),
    /// Several texts.
    List(Vec<String>),
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Str(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Str(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Value {
    /// Counters and positions; above `i64::MAX` they would not fit a log line's number and are cut to it.
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::from(value as u64)
    }
}

impl From<Vec<String>> for Value {
    fn from(value: Vec<String>) -> Self {
        Self::List(value)
    }
}

impl From<Duration> for Value {
    /// Go's notation for durations, as in `1.5s`, `20ms`, `310.2µs`.
    fn from(value: Duration) -> Self {
        Self::Str(go_duration(value))
    }
}

/// Takes messages. Called from every thread of the member, also the hot ones: it must not wait for slow outputs.
pub trait Log: Send + Sync {
    /// One message from `caller`. `logger` is etcd's sub-logger name (`raft`), absent for most.
    fn log_at(
        &self,
        level: Level,
        logger: Option<&str>,
        caller: &'static Location<'static>,
        msg: &str,
        fields: &[(&str, Value)],
    );

    /// Does anybody read messages of `level`? If not, nobody needs to make them.
    fn is_on(&self, _level: Level) -> bool {
        true
    }
}

impl dyn Log + '_ {
    /// One message from the line that calls this.
    #[track_caller]
    pub fn log(&self, level: Level, logger: Option<&str>, msg: &str, fields: &[(&str, Value)]) {
        self.log_at(level, logger, Location::caller(), msg, fields);
    }

    /// [`Level::Debug`] without a sub-logger.
    #[track_caller]
    pub fn debug(&self, msg: &str, fields: &[(&str, Value)]) {
        self.log_at(Level::Debug, None, Location::caller(), msg, fields);
    }

    /// As [`Self::debug`], with fields that are made only if somebody reads them: for what happens often.
    #[track_caller]
    pub fn debug_with<const N: usize>(&self, msg: &str, fields: impl FnOnce() -> [(&'static str, Value); N]) {
        if self.is_on(Level::Debug) {
            self.log_at(Level::Debug, None, Location::caller(), msg, &fields());
        }
    }

    /// [`Level::Info`] without a sub-logger.
    #[track_caller]
    pub fn info(&self, msg: &str, fields: &[(&str, Value)]) {
        self.log_at(Level::Info, None, Location::caller(), msg, fields);
    }

    /// [`Level::Warn`] without a sub-logger.
    #[track_caller]
    pub fn warn(&self, msg: &str, fields: &[(&str, Value)]) {
        self.log_at(Level::Warn, None, Location::caller(), msg, fields);
    }

    /// [`Level::Error`] without a sub-logger.
    #[track_caller]
    pub fn error(&self, msg: &str, fields: &[(&str, Value)]) {
        self.log_at(Level::Error, None, Location::caller(), msg, fields);
    }
}

/// Throws everything away; for tests and tools.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLog;

impl Log for NoLog {
    fn log_at(
        &self,
        _level: Level,
        _logger: Option<&str>,
        _caller: &'static Location<'static>,
        _msg: &str,
        _fields: &[(&str, Value)],
    ) {
    }

    fn is_on(&self, _level: Level) -> bool {
        false
    }
}

/// A duration as Go prints it: the largest unit that leaves a whole part, no trailing zeros, hours and minutes apart.
#[must_use]
pub fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |unit: u128, digits: usize| {
        let whole = nanos / unit;
        let rest = format!("{:0digits$}", nanos % unit);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { whole.to_string() } else { format!("{whole}.{rest}") }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(1_000_000, 6)),
        _ => {
            let minutes = duration.as_secs() / 60;
            let seconds = Duration::new(duration.as_secs() % 60, duration.subsec_nanos());
            let rest = format!("{:09}", seconds.subsec_nanos());
            let rest = rest.trim_end_matches('0');
            let seconds = seconds.as_secs();
            let seconds = if rest.is_empty() { seconds.to_string() } else { format!("{seconds}.{rest}") };
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::go_duration;
    use std::time::Duration;

    #[test]
    fn durations_read_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (310_200, "310.2µs"),
            (20_000_000, "20ms"),
            (1_500_000_000, "1.5s"),
            (61_000_000_001, "1m1.000000001s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }
}
