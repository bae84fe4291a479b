//! Go's spellings of values: integers, bools, durations, URLs. Pure text in, value or complaint out.

use std::time::Duration;

/// Why a piece of text is not a value; reads well after "invalid value X for flag -Y: ".
pub type Complaint = String;

/// `1 0 t f T F true false TRUE FALSE True False`, as Go's `strconv.ParseBool`.
///
/// # Errors
/// Any other text.
pub fn boolean(text: &str) -> Result<bool, Complaint> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("parse error".into()),
    }
}

/// Digits with an optional base prefix; underscores may stand between digits.
fn magnitude(text: &str) -> Result<u64, Complaint> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    let bare: String = digits.chars().filter(|c| *c != '_').collect();
    let malformed = bare.is_empty()
        || digits.ends_with('_')
        || digits.contains("__")
        || (radix == 10 && digits.starts_with('_'))
        || !bare.chars().all(|c| c.is_digit(radix));
    if malformed {
        return Err("parse error".into());
    }
    u64::from_str_radix(&bare, radix).map_err(|_| "value out of range".into())
}

/// An unsigned integer in base 10, or by prefix.
///
/// # Errors
/// `parse error` or `value out of range`, Go's words.
pub fn unsigned(text: &str) -> Result<u64, Complaint> {
    magnitude(text)
}

/// A signed integer in base 10, or by prefix.
///
/// # Errors
/// `parse error` or `value out of range`, Go's words.
pub fn signed(text: &str) -> Result<i64, Complaint> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let value = i128::from(magnitude(digits)?);
    i64::try_from(if negative { -value } else { value }).map_err(|_| "value out of range".into())
}

/// `1h2m3s`, `100ms`, `1.5h`; a plain `0` needs no unit.
///
/// # Errors
/// A sentence with the text in it, as Go's `time.ParseDuration` gives. Negative durations are refused: no flag takes one.
pub fn duration(text: &str) -> Result<Duration, Complaint> {
    let invalid = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += number * seconds;
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| invalid())
}

/// A URL of a listener or of a member: scheme, host and port, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    /// `http`, `https`, `unix` or `unixs`.
    pub scheme: String,
    /// Host without brackets; for unix schemes the path of the socket.
    pub host: String,
    /// Zero: let the kernel choose; for unix schemes always zero.
    pub port: u16,
    text: String,
}

impl Url {
    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `host:port` as it was given.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.text.split_once("://").map_or("", |(_, rest)| rest)
    }
}

/// One URL by the rules of etcd's URL flags.
///
/// # Errors
/// The rule that `text` breaks, with `text`.
pub fn url(text: &str) -> Result<Url, Complaint> {
    let text = text.trim();
    let form = || format!("URL address does not have the form \"host:port\": {text}");
    let (scheme, rest) =
        text.split_once(':').ok_or_else(|| format!("URL scheme must be http, https, unix, or unixs: {text}"))?;
    if !matches!(scheme, "http" | "https" | "unix" | "unixs") {
        return Err(format!("URL scheme must be http, https, unix, or unixs: {text}"));
    }
    let Some(rest) = rest.strip_prefix("//") else { return Err(form()) };
    if scheme.starts_with("unix") {
        return Ok(Url { scheme: scheme.into(), host: rest.into(), port: 0, text: text.into() });
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once("]:").ok_or_else(form)?,
        None => authority.rsplit_once(':').filter(|(host, _)| !host.contains(':')).ok_or_else(form)?,
    };
    let port = port.parse().map_err(|_| form())?;
    if !path.is_empty() {
        return Err(format!("URL must not contain a path: {text}"));
    }
    Ok(Url { scheme: scheme.into(), host: host.into(), port, text: text.into() })
}

/// A comma list of URLs: trimmed, sorted, each once.
///
/// # Errors
/// The first URL that is not one.
pub fn urls(text: &str) -> Result<Vec<Url>, Complaint> {
    let mut list = text.split(',').map(url).collect::<Result<Vec<_>, _>>()?;
    list.sort();
    list.dedup();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_as_go_reads_them() {
        for (text, value) in
            [("0", 0), ("10", 10), ("0x1F", 31), ("1_000", 1000), ("0b11", 3), ("0o17", 15), ("017", 15)]
        {
            assert_eq!(unsigned(text), Ok(value), "{text}");
        }
        for text in ["", "-1", "1GB", "1__0", "_1", "1_", "0x", "1.0"] {
            assert!(unsigned(text).is_err(), "{text}");
        }
        assert_eq!(signed("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(signed("9223372036854775808"), Err("value out of range".into()));
    }

    #[test]
    fn durations_as_go_reads_them() {
        assert_eq!(duration("1h2m3s"), Ok(Duration::from_secs(3723)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(duration("5x").unwrap_err(), "time: unknown unit \"x\" in duration \"5x\"");
        assert!(duration("").is_err() && duration("-1s").is_err() && duration("1..5s").is_err());
    }

    #[test]
    fn urls_are_scheme_host_port() {
        let got = urls("http://127.0.0.1:2379, http://[::1]:0,http://127.0.0.1:2379").unwrap();
        assert_eq!(
            got.iter().map(|u| (u.host.as_str(), u.port)).collect::<Vec<_>>(),
            [("127.0.0.1", 2379), ("::1", 0)]
        );
        for (text, complaint) in [
            ("http:/10.0.0.1:2379", "URL address does not have the form \"host:port\": http:/10.0.0.1:2379"),
            ("http://10.0.0.1", "URL address does not have the form \"host:port\": http://10.0.0.1"),
            ("http://h:1/", "URL must not contain a path: http://h:1/"),
            ("ftp://h:1", "URL scheme must be http, https, unix, or unixs: ftp://h:1"),
        ] {
            assert_eq!(url(text).unwrap_err(), complaint);
        }
    }
}
