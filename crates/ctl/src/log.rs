//! Log lines on stderr: JSON objects like those of etcd's client, which scripts find among the errors.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use milepost_client::FailedAttempt;

use crate::go::Json;
use crate::out;

/// A warning with its fields.
pub fn warn(message: &str, fields: Vec<(&'static str, Json)>) {
    write("warn", None, "ctl/env.rs", message, fields);
}

/// As [`warn`], by another logger.
pub fn warn_of(logger: &str, message: &str, fields: Vec<(&'static str, Json)>) {
    write("warn", Some(logger), "ctl/snapshot.rs", message, fields);
}

/// How far something has come.
pub fn info(message: &str, fields: Vec<(&'static str, Json)>) {
    write("info", None, "ctl/snapshot.rs", message, fields);
}

/// As [`info`], by another logger.
pub fn info_of(logger: &str, message: &str, fields: Vec<(&'static str, Json)>) {
    write("info", Some(logger), "ctl/snapshot.rs", message, fields);
}

/// Something that should not have failed.
pub fn error(message: &str, fields: Vec<(&'static str, Json)>) {
    write("error", None, "ctl/snapshot.rs", message, fields);
}

/// As [`error`], by another logger.
pub fn error_of(logger: &str, message: &str, fields: Vec<(&'static str, Json)>) {
    write("error", Some(logger), "ctl/snapshot.rs", message, fields);
}

/// The last words before the process ends with an error.
pub fn fatal(message: &str, fields: Vec<(&'static str, Json)>) {
    write("fatal", None, "ctl/env.rs", message, fields);
}

/// An attempt of a request that failed: etcd's client tells of each one, the last included.
pub fn failed_attempt(failed: &FailedAttempt<'_>) {
    failed_attempt_of("etcd-client", failed);
}

/// As [`failed_attempt`], from a client of another name.
pub fn failed_attempt_of(logger: &str, failed: &FailedAttempt<'_>) {
    let peer = match failed.peer {
        Some(peer) => format!("Peer{{Addr: '{peer}'}}"),
        None => "Peer{Addr: <nil>, LocalAddr: <nil>, AuthInfo: <nil>}".to_owned(),
    };
    let fields = vec![
        ("target", format!("etcd-endpoints://0x0/{}", failed.target).into()),
        ("peer", peer.into()),
        ("method", failed.method.into()),
        ("attempt", failed.attempt.into()),
        ("error", failed.error.rpc_text().into()),
    ];
    write("warn", Some(logger), "client/retry.rs", "retrying of unary invoker failed", fields);
}

fn write(level: &str, logger: Option<&str>, caller: &str, message: &str, fields: Vec<(&'static str, Json)>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut members = vec![("level", level.into()), ("ts", timestamp(now).into())];
    members.extend(logger.map(|logger| ("logger", logger.into())));
    members.push(("caller", caller.into()));
    members.push(("msg", message.into()));
    members.extend(fields);
    out::complain(format_args!("{}", Json::Object(members)));
}

/// Universal time with microseconds.
fn timestamp(unix: Duration) -> String {
    let seconds = unix.as_secs();
    let (day, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Days since the first of March of year 0, so that leap days come last. Source: H. Hinnant, "chrono-compatible
    // low-level date algorithms".
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", unix.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_across_leap_days() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), text);
        }
        assert_eq!(timestamp(Duration::new(1, 1_234_567)), "1970-01-01T00:00:01.001234Z");
    }
}
