//! Go's spellings of values: integers, bools, durations. Pure text in, value or complaint out.

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

/// Nanoseconds in `1h2m3s`, `-100ms`, `1.5h`; a plain `0` needs no unit.
///
/// # Errors
/// A sentence with the text in it, as Go's `time.ParseDuration` gives.
pub fn span(text: &str) -> Result<i64, Complaint> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (is_negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let unit: i128 = match &tail[..letters] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unit => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        // Eighteen digits are more than an hour has nanoseconds, and fit.
        let fraction = &fraction[..fraction.len().min(18)];
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| invalid())? };
        let part = part * unit / 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
        total = whole.checked_mul(unit).and_then(|whole| total.checked_add(whole + part)).ok_or_else(invalid)?;
        rest = &tail[letters..];
    }
    i64::try_from(if is_negative { -total } else { total }).map_err(|_| invalid())
}

/// A span that lies ahead: less than nothing counts as nothing.
///
/// # Errors
/// As [`span`].
pub fn duration(text: &str) -> Result<Duration, Complaint> {
    span(text).map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
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
        for (text, nanos) in [
            ("1h2m3s", 3_723_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5ms", 500_000),
            ("1.us", 1_000),
            ("0", 0),
            ("-0", 0),
            ("-1m", -60_000_000_000),
            ("+10ns", 10),
        ] {
            assert_eq!(span(text), Ok(nanos), "{text}");
        }
        assert_eq!(duration("-1s"), Ok(Duration::ZERO));
        assert_eq!(span("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(span("5x").unwrap_err(), "time: unknown unit \"x\" in duration \"5x\"");
        for text in ["", "-", "1..5s", ".s", "s", "9223372037s1h", "99999999999h"] {
            assert_eq!(span(text).unwrap_err(), format!("time: invalid duration {text:?}"));
        }
    }
}
