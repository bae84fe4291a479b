//! Numbers and booleans from text, with `strconv`'s error texts.

use super::quote;

/// An integer of 64 bits with a sign, in `base`; base 0 reads the base from a prefix (`0x`, `0o`, `0`, `0b`) and lets
/// underscores stand between digits.
///
/// # Errors
/// The text of `strconv.NumError`.
pub fn parse_int(text: &str, base: u32) -> Result<i64, String> {
    let fail = |why: &str| Err(format!("strconv.ParseInt: parsing {}: {why}", quote(text.as_bytes())));
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    match magnitude(digits, base) {
        Err(Fault::Syntax) => fail("invalid syntax"),
        Ok(value) if negative && value <= 1 << 63 => Ok((value as i64).wrapping_neg()),
        Ok(value) if !negative && value < 1 << 63 => Ok(value as i64),
        _ => fail("value out of range"),
    }
}

/// An integer of 64 bits without a sign, in `base`; base 0 as [`parse_int`].
///
/// # Errors
/// The text of `strconv.NumError`.
pub fn parse_uint(text: &str, base: u32) -> Result<u64, String> {
    magnitude(text, base).map_err(|fault| {
        let why = match fault {
            Fault::Syntax => "invalid syntax",
            Fault::Range => "value out of range",
        };
        format!("strconv.ParseUint: parsing {}: {why}", quote(text.as_bytes()))
    })
}

/// `1`, `t`, `T`, `TRUE`, `true`, `True` and their opposites.
///
/// # Errors
/// The text of `strconv.NumError`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text.as_bytes()))),
    }
}

enum Fault {
    Syntax,
    Range,
}

fn magnitude(text: &str, base: u32) -> Result<u64, Fault> {
    let separators = base == 0;
    let (base, digits, prefixed) = match base {
        0 => base_of(text),
        base => (base, text, false),
    };
    let mut value = Some(0u64);
    let mut seen = false;
    // An underscore may stand between two digits, or between the prefix and a digit.
    let mut may_separate = prefixed;
    for letter in digits.chars() {
        if letter == '_' && may_separate && separators {
            may_separate = false;
            continue;
        }
        let digit = letter.to_digit(base).ok_or(Fault::Syntax)?;
        value = value.and_then(|value| value.checked_mul(u64::from(base))?.checked_add(u64::from(digit)));
        seen = true;
        may_separate = true;
    }
    if !seen || digits.ends_with('_') {
        return Err(Fault::Syntax);
    }
    value.ok_or(Fault::Range)
}

/// The base that a prefix names, what follows, and whether there is one. A lone `0` is a decimal digit.
fn base_of(text: &str) -> (u32, &str, bool) {
    let lower = text.get(..2).map(str::to_ascii_lowercase);
    match lower.as_deref() {
        Some("0x") if text.len() > 2 => (16, &text[2..], true),
        Some("0b") if text.len() > 2 => (2, &text[2..], true),
        Some("0o") if text.len() > 2 => (8, &text[2..], true),
        _ if text.len() > 1 && text.starts_with('0') => (8, &text[1..], true),
        _ => (10, text, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_as_strconv_reads_them() {
        assert_eq!(parse_int("42", 10), Ok(42));
        assert_eq!(parse_int("-0x10", 0), Ok(-16));
        assert_eq!(parse_int("010", 0), Ok(8));
        assert_eq!(parse_int("0", 0), Ok(0));
        assert_eq!(parse_int("1_000", 0), Ok(1000));
        assert_eq!(parse_int("-9223372036854775808", 10), Ok(i64::MIN));
        assert_eq!(parse_int("7fffffffffffffff", 16), Ok(i64::MAX));
        let out = "strconv.ParseInt: parsing \"9223372036854775808\": value out of range";
        assert_eq!(parse_int("9223372036854775808", 10), Err(out.to_owned()));
        assert_eq!(parse_int("", 10), Err("strconv.ParseInt: parsing \"\": invalid syntax".to_owned()));
        assert_eq!(parse_int("x\n", 10), Err("strconv.ParseInt: parsing \"x\\n\": invalid syntax".to_owned()));
        assert!(parse_int("1_", 0).is_err() && parse_int("_1", 0).is_err() && parse_int("1_0", 10).is_err());
    }

    #[test]
    fn unsigned_and_bool() {
        assert_eq!(parse_uint("8e9e05c52164694d", 16), Ok(0x8e9e_05c5_2164_694d));
        assert_eq!(parse_uint("-1", 16), Err("strconv.ParseUint: parsing \"-1\": invalid syntax".to_owned()));
        assert_eq!(parse_bool("T"), Ok(true));
        assert_eq!(parse_bool("yes"), Err("strconv.ParseBool: parsing \"yes\": invalid syntax".to_owned()));
    }
}
