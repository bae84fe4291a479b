//! Until when a call may take.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// A point in time, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The call waits as long as it takes, through any number of reconnects.
    pub const NEVER: Deadline = Deadline(None);

    /// `wait` from now.
    #[must_use]
    pub fn after(wait: Duration) -> Deadline {
        // Beyond what the clock can hold is never.
        Deadline(Instant::now().checked_add(wait))
    }

    /// What is left; `None` if there is no end.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Whether a server's own clock may have seen the end already.
    pub(crate) fn is_about_over(self) -> bool {
        /// A server measures from when it read the request: a hair earlier or later than we do.
        const CLOSE: Duration = Duration::from_millis(50);
        self.remaining().is_some_and(|rest| rest <= CLOSE)
    }

    /// What `work` yields, or the end of the deadline.
    pub(crate) async fn bound<T>(self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.0 {
            None => work.await,
            Some(end) => match tokio::time::timeout_at(end, work).await {
                Ok(result) => result,
                Err(_) => Err(Error::deadline(None)),
            },
        }
    }
}

/// The value of `grpc-timeout`: at most eight digits and a unit.
pub(crate) struct GrpcTimeout(pub(crate) Duration);

impl fmt::Display for GrpcTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: u128 = 99_999_999;
        let nanos = self.0.as_nanos();
        for (unit, name) in [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')] {
            let count = nanos.div_ceil(unit);
            if count <= MOST {
                return write!(f, "{count}{name}");
            }
        }
        write!(f, "{}H", nanos.div_ceil(3_600_000_000_000).min(MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_rounded_up_to_eight_digits() {
        let text = |duration| GrpcTimeout(duration).to_string();
        assert_eq!(text(Duration::from_nanos(99_999_999)), "99999999n");
        assert_eq!(text(Duration::from_secs(5)), "5000000u");
        assert_eq!(text(Duration::from_nanos(100_000_001)), "100001u");
        assert_eq!(text(Duration::from_secs(1_000_000)), "1000000S");
        assert_eq!(text(Duration::MAX), "99999999H");
    }
}
