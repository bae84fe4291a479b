//! One log line as etcd shapes it: a JSON object with `level`, `ts`, `logger`, `caller`, `msg`, then the event's fields; or
//! the same between tabs, for people.

use std::fmt::Write as _;
use std::time::Duration;

use milepost_node::log::{Level, Value};

/// What every line begins with.
pub struct Head<'a> {
    /// How loud.
    pub level: Level,
    /// Since 1970.
    pub at: Duration,
    /// etcd's sub-logger.
    pub logger: Option<&'a str>,
    /// `file:line`.
    pub caller: &'a str,
    /// The message.
    pub msg: &'a str,
}

/// The line as a JSON object.
pub fn json(head: &Head<'_>, fields: &[(&str, Value)]) -> String {
    let mut line = format!("{{\"level\":\"{}\",\"ts\":\"{}\"", level_name(head.level), timestamp(head.at));
    if let Some(logger) = head.logger {
        line.push_str(",\"logger\":");
        push_json_string(&mut line, logger);
    }
    line.push_str(",\"caller\":");
    push_json_string(&mut line, head.caller);
    line.push_str(",\"msg\":");
    push_json_string(&mut line, head.msg);
    for (name, value) in fields {
        line.push(',');
        push_json_string(&mut line, name);
        line.push(':');
        push_value(&mut line, value, ",");
    }
    line.push_str("}\n");
    line
}

/// The line for people: between tabs, the fields as a JSON object at the end.
pub fn console(head: &Head<'_>, fields: &[(&str, Value)]) -> String {
    let mut line = format!("{}\t{}\t", timestamp(head.at), level_name(head.level));
    for part in head.logger.into_iter().chain([head.caller]) {
        line.push_str(part);
        line.push('\t');
    }
    line.push_str(head.msg);
    for (i, (name, value)) in fields.iter().enumerate() {
        line.push_str(if i == 0 { "\t{" } else { ", " });
        push_json_string(&mut line, name);
        line.push_str(": ");
        push_value(&mut line, value, ", ");
    }
    line.push_str(if fields.is_empty() { "\n" } else { "}\n" });
    line
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

fn push_value(line: &mut String, value: &Value, comma: &str) {
    match value {
        Value::Str(text) => push_json_string(line, text),
        Value::Int(number) => line.push_str(&number.to_string()),
        Value::Bool(yes) => line.push_str(if *yes { "true" } else { "false" }),
        Value::List(texts) => {
            line.push('[');
            for (i, text) in texts.iter().enumerate() {
                if i > 0 {
                    line.push_str(comma);
                }
                push_json_string(line, text);
            }
            line.push(']');
        }
    }
}

/// RFC 3339 in UTC with microseconds, from the time since 1970.
///
/// The date is counted in years that begin in March, so that the leap day comes last.
fn timestamp(since_1970: Duration) -> String {
    const DAYS_PER_ERA: i64 = 146_097;
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(DAYS_PER_ERA), shifted.rem_euclid(DAYS_PER_ERA));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        since_1970.subsec_micros()
    )
}

/// Appends `text` as a JSON string.
fn push_json_string(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if (c as u32) < 0x20 => {
                let _ = write!(line, "\\u{:04x}", c as u32);
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_across_leap_days() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), text);
        }
        assert_eq!(timestamp(Duration::new(1, 1_234_567)), "1970-01-01T00:00:01.001234Z");
    }

    #[test]
    fn strings_survive_json() {
        let text = "a\"b\\c\nd\u{1}é";
        let mut line = String::new();
        push_json_string(&mut line, text);
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn both_shapes_are_etcds() {
        let head =
            Head { level: Level::Info, at: Duration::ZERO, logger: Some("raft"), caller: "a/b.rs:7", msg: "m\"" };
        let fields = [("args", Value::from(vec!["x".to_owned(), "y".to_owned()])), ("ok", true.into())];
        assert_eq!(
            json(&head, &fields),
            "{\"level\":\"info\",\"ts\":\"1970-01-01T00:00:00.000000Z\",\"logger\":\"raft\",\"caller\":\"a/b.rs:7\",\"msg\":\"m\\\"\",\"args\":[\"x\",\"y\"],\"ok\":true}\n"
        );
        assert_eq!(
            console(&head, &fields),
            "1970-01-01T00:00:00.000000Z\tinfo\traft\ta/b.rs:7\tm\"\t{\"args\": [\"x\", \"y\"], \"ok\": true}\n"
        );
        assert!(console(&Head { logger: None, ..head }, &[]).ends_with("\tinfo\ta/b.rs:7\tm\"\n"));
    }
}
