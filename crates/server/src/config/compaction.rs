//! What automatic compaction keeps. Source: etcd `embed` `parseCompactionRetention`.

use std::time::Duration;

use super::settings::Refusal;
use super::spelling;

/// What automatic compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionMode {
    /// Nothing is compacted by itself.
    Off,
    /// The history of this long.
    Periodic(Duration),
    /// This many revisions.
    Revision(i64),
}

impl CompactionMode {
    /// From `--auto-compaction-mode`, which was checked, and `--auto-compaction-retention`.
    ///
    /// A plain number counts hours or revisions; a duration counts its nanoseconds as revisions, as etcd has it.
    ///
    /// # Errors
    /// Neither a number nor a duration.
    pub fn new(mode: &str, retention: &str) -> Result<Self, Refusal> {
        let retention = if retention.is_empty() { "0" } else { retention };
        let number = retention.parse::<i64>().ok().filter(|number| *number >= 0);
        let nanos = match number {
            Some(_) => 0,
            None => spelling::span(retention).map_err(|why| {
                let remedy = "--auto-compaction-retention takes 0, hours or a duration like 30m (periodic), or revisions (revision)";
                Refusal::new(format!("error parsing CompactionRetention: {why}"), remedy)
            })?,
        };
        Ok(match (mode, number) {
            ("revision", _) => match number.unwrap_or(nanos) {
                revisions if revisions > 0 => Self::Revision(revisions),
                _ => Self::Off,
            },
            (_, Some(hours)) if hours > 0 => {
                Self::Periodic(Duration::from_secs(hours.unsigned_abs().saturating_mul(3600)))
            }
            _ if nanos > 0 => Self::Periodic(Duration::from_nanos(nanos.unsigned_abs())),
            _ => Self::Off,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_forms() {
        for (mode, retention, expected) in [
            ("periodic", "2", CompactionMode::Periodic(Duration::from_secs(7200))),
            ("periodic", "10m", CompactionMode::Periodic(Duration::from_secs(600))),
            ("periodic", "0", CompactionMode::Off),
            ("periodic", "", CompactionMode::Off),
            ("revision", "1000", CompactionMode::Revision(1000)),
            ("revision", "1us", CompactionMode::Revision(1000)),
            ("revision", "0", CompactionMode::Off),
        ] {
            assert_eq!(CompactionMode::new(mode, retention), Ok(expected), "{mode} {retention}");
        }
        for (retention, why) in
            [("soon", "time: invalid duration \"soon\""), ("-1", "time: missing unit in duration \"-1\"")]
        {
            let refusal = CompactionMode::new("periodic", retention).unwrap_err();
            assert_eq!(refusal.complaint, format!("error parsing CompactionRetention: {why}"));
        }
    }
}
