//! HTTP headers become what gRPC calls metadata. Source: `facts/http.md` §3, "Headers".

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::call::{Call, LONGEST_TIMEOUT};
use crate::status::{Code, Status};

/// Headers that reach the handlers with `grpcgateway-` before their name.
const STANDARD: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-language",
    "accept-ranges",
    "authorization",
    "cache-control",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-schedule-tag-match",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "warning",
];

/// The call that `headers` describe.
///
/// # Errors
/// A malformed timeout.
pub(crate) fn call(headers: &HeaderMap, now: Instant) -> Result<Call, Status> {
    let deadline = match headers.get("grpc-timeout").filter(|value| !value.is_empty()) {
        None => None,
        Some(value) => {
            let invalid = || {
                let text = String::from_utf8_lossy(value.as_bytes());
                Status::with(Code::InvalidArgument, format!("invalid grpc-timeout: {text}"))
            };
            let timeout = timeout(value.as_bytes()).ok_or_else(invalid)?;
            // As over gRPC, a time beyond all use is none; the timer could not count so far.
            timeout.filter(|timeout| *timeout < LONGEST_TIMEOUT).and_then(|timeout| now.checked_add(timeout))
        }
    };
    check_binary(headers)?;
    let call = Call::from_headers(&metadata(headers), now)?;
    Ok(Call { deadline, ..call })
}

/// `None`: malformed; `Some(None)`: no limit. A time that is over already is zero.
/// Source: grpc-gateway `timeoutDecode`: a signed number and a unit.
fn timeout(text: &[u8]) -> Option<Option<Duration>> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: i64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    let seconds = |each: u64| Duration::from_secs(number.max(0).unsigned_abs().saturating_mul(each));
    let nanoseconds = |each: u64| Duration::from_nanos(number.max(0).unsigned_abs().saturating_mul(each));
    let timeout = match unit {
        b"H" => seconds(3600),
        b"M" => seconds(60),
        b"S" => seconds(1),
        b"m" => nanoseconds(1_000_000),
        b"u" => nanoseconds(1_000),
        b"n" => nanoseconds(1),
        _ => return None,
    };
    Some((number != 0).then_some(timeout))
}

/// Metadata whose name ends with `-bin` is sent in base64. None of it means anything here.
fn check_binary(headers: &HeaderMap) -> Result<(), Status> {
    let is_binary = |name: &str| name.starts_with("grpc-metadata-") && name.ends_with("-bin");
    for (name, value) in headers.iter().filter(|(name, _)| is_binary(name.as_str())) {
        let text = value.as_bytes();
        let decoded =
            if text.len() % 4 == 0 { BASE64_STANDARD.decode(text) } else { BASE64_STANDARD_NO_PAD.decode(text) };
        if let Err(why) = decoded {
            return Err(Status::with(Code::InvalidArgument, format!("invalid binary header {name}: {why}")));
        }
    }
    Ok(())
}

fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::with_capacity(headers.len() + 1);
    for (name, value) in headers {
        let name = name.as_str();
        if !value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)) {
            continue;
        }
        if name == "authorization" {
            append(&mut out, name, value);
        }
        if STANDARD.contains(&name) {
            append(&mut out, &format!("grpcgateway-{name}"), value);
        } else if let Some(name) = name.strip_prefix("grpc-metadata-").filter(|name| !name.ends_with("-bin")) {
            append(&mut out, name, value);
        }
    }
    out
}

fn append(out: &mut HeaderMap, name: &str, value: &HeaderValue) {
    // What belongs to gRPC itself is no metadata; grpc-go's client holds it back too.
    let is_reserved = name.starts_with("grpc-") || matches!(name, "content-type" | "user-agent" | "te");
    if !is_reserved && let Ok(name) = HeaderName::try_from(name) {
        out.append(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &[u8])]) -> HeaderMap {
        let pair = |(name, value): &(&str, &[u8])| (name.parse().unwrap(), HeaderValue::from_bytes(value).unwrap());
        pairs.iter().map(pair).collect::<HeaderMap>()
    }

    #[test]
    fn a_timeout_beyond_all_use_is_none() {
        // The timer adds to a deadline: one near the end of all time must never reach it.
        let now = Instant::now();
        for number in [i64::MAX, i64::MAX - 1000, 400 * 24 * 3600] {
            let text = format!("{number}S");
            let call = call(&headers(&[("grpc-timeout", text.as_bytes())]), now).unwrap();
            assert_eq!(call.deadline, None, "{text}");
        }
        assert!(call(&headers(&[("grpc-timeout", b"5S")]), now).unwrap().deadline.is_some());
    }

    #[test]
    fn headers_become_metadata() {
        let got = metadata(&headers(&[
            ("authorization", b"Bearer t"),
            ("accept", b"*/*"),
            ("grpc-metadata-hasleader", b"true"),
            ("grpc-metadata-grpc-timeout", b"1S"),
            ("grpc-metadata-te", b"x"),
            ("grpc-metadata-client-api-version", b"\xff"),
            ("x-own", b"1"),
        ]));
        let mut names: Vec<_> = got.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "grpcgateway-accept", "grpcgateway-authorization", "hasleader"]);
        let call = call(&headers(&[("grpc-metadata-hasleader", b"true")]), Instant::now()).unwrap();
        assert!(call.require_leader && call.is_version_text && call.deadline.is_none());
    }

    #[test]
    fn binary_metadata() {
        for good in ["", "YQ==", "YQ"] {
            assert!(call(&headers(&[("grpc-metadata-x-bin", good.as_bytes())]), Instant::now()).is_ok(), "{good}");
        }
        let bad = call(&headers(&[("grpc-metadata-x-bin", b"!!!")]), Instant::now()).unwrap_err();
        assert!(bad.message.starts_with("invalid binary header grpc-metadata-x-bin: "), "{bad}");
    }

    #[test]
    fn timeouts() {
        let now = Instant::now();
        let deadline = |text: &[u8]| call(&headers(&[("grpc-timeout", text)]), now).map(|call| call.deadline);
        assert_eq!(deadline(b"5S"), Ok(Some(now + Duration::from_secs(5))));
        assert_eq!(deadline(b"300m"), Ok(Some(now + Duration::from_millis(300))));
        assert_eq!(deadline(b"-1S"), Ok(Some(now)));
        assert_eq!(deadline(b"0S"), Ok(None));
        assert_eq!(deadline(b""), Ok(None));
        assert_eq!(deadline(b"9223372036854775807H"), Ok(None));
        for bad in ["zz", "S", "5", "1.5S", "5 S", "99999999999999999999S"] {
            let text = format!("invalid grpc-timeout: {bad}");
            assert_eq!(deadline(bad.as_bytes()), Err(Status::with(Code::InvalidArgument, text)));
        }
    }
}
