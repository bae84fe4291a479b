//! One call: what its headers say, who is asking, when it ends, and what is counted about it.

use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::status::{Code, Status};

/// What a handler knows about its call besides the message. The same for gRPC and for the gateway.
#[derive(Debug)]
pub(crate) struct Call {
    /// When its headers were read.
    pub(crate) started: Instant,
    /// When the client stops to wait.
    pub(crate) deadline: Option<Instant>,
    /// `hasleader`: refuse rather than wait for a leader.
    pub(crate) require_leader: bool,
    /// `client-api-version` is readable text, or absent.
    pub(crate) is_version_text: bool,
}

/// Longest timeout that is believed; more is no deadline. A client may send 99999999 hours.
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

impl Call {
    /// One that the server makes itself, by the server's own time limit.
    pub(crate) fn internal(now: Instant) -> Self {
        Self { started: now, deadline: None, require_leader: false, is_version_text: true }
    }

    /// From a request's headers, which are gRPC's metadata.
    ///
    /// # Errors
    /// A malformed timeout.
    pub(crate) fn from_headers(headers: &HeaderMap, now: Instant) -> Result<Self, Status> {
        let deadline = match headers.get("grpc-timeout") {
            None => None,
            Some(value) => {
                let text = value.to_str().unwrap_or_default();
                let timeout = parse_timeout(text).ok_or_else(|| {
                    Status::with(
                        Code::Internal,
                        format!("malformed grpc-timeout: transport: timeout is malformed: {text:?}"),
                    )
                })?;
                (timeout < LONGEST_TIMEOUT).then(|| now + timeout)
            }
        };
        let is_version_text = api_version(headers).is_some();
        let require_leader = headers.get("hasleader").is_some_and(|value| value == "true");
        Ok(Self { started: now, deadline, require_leader, is_version_text })
    }
}

/// The API version that the client names; `unknown` if it names none, `None` if it is no text.
pub(crate) fn api_version(headers: &HeaderMap) -> Option<&str> {
    headers.get("client-api-version").map_or(Some("unknown"), |value| std::str::from_utf8(value.as_bytes()).ok())
}

/// `grpc-timeout`: up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let split = text.len().checked_sub(1)?;
    let (digits, unit) = (text.get(..split)?, text.get(split..)?);
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("4999123u"), Some(Duration::from_micros(4_999_123)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "5", "-1S", "123456789S", "1x", "1 S", "é"] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn headers() {
        let now = Instant::now();
        let mut headers = HeaderMap::new();
        let call = Call::from_headers(&headers, now).unwrap();
        assert!(call.deadline.is_none() && !call.require_leader);
        headers.insert("grpc-timeout", "2S".parse().unwrap());
        headers.insert("hasleader", "true".parse().unwrap());
        let call = Call::from_headers(&headers, now).unwrap();
        assert_eq!(call.deadline, Some(now + Duration::from_secs(2)));
        assert!(call.require_leader);
        headers.insert("client-api-version", http::HeaderValue::from_bytes(&[0xff]).unwrap());
        assert!(!Call::from_headers(&headers, now).unwrap().is_version_text);
        headers.insert("grpc-timeout", "soon".parse().unwrap());
        assert_eq!(Call::from_headers(&headers, now).unwrap_err().code, Code::Internal);
    }
}
