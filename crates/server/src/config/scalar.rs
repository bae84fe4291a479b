//! What an unquoted word of YAML 1.1 is, as Go's YAML reads it.

use saphyr::YamlOwned;

/// One value without parts.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `yes`, `on`, `y` and their opposites, in three spellings of case.
    Bool(bool),
    /// Decimal, `0x`, `0b`, `0o`, octal with a leading 0; underscores do not count.
    Integer(i128),
    /// With a point or an exponent, or too large for 64 bits.
    Float(f64),
    /// All else, and everything in quotes.
    Text(String),
}

impl Scalar {
    /// The scalar that `node` is, if it is one.
    #[must_use]
    pub fn of(node: &YamlOwned) -> Option<Self> {
        match node {
            YamlOwned::Representation(text, style, tag) => {
                let is_text = !super::file::is_plain(style) || tag.as_ref().is_some_and(|tag| tag.suffix == "str");
                Some(if is_text { Self::Text(text.clone()) } else { Self::plain(text) })
            }
            YamlOwned::Tagged(_, inner) => Self::of(inner),
            _ => None,
        }
    }

    fn plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
                return Self::Bool(true);
            }
            "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
                return Self::Bool(false);
            }
            _ => {}
        }
        if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
            return Self::Text(text.to_owned());
        }
        let bare = text.replace('_', "");
        integer(&bare).or_else(|| float(&bare)).unwrap_or_else(|| Self::Text(text.to_owned()))
    }

    /// The integer that a float is, if it is one.
    #[must_use]
    pub fn whole(number: f64) -> Option<i128> {
        // Above 2^53 a float is an integer by chance.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        #[expect(clippy::cast_possible_truncation, reason = "within the range in which floats are exact")]
        (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i128)
    }
}

fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value).then_some(Scalar::Integer(value))
}

fn float(text: &str) -> Option<Scalar> {
    let is_number =
        text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c)) && text.contains(|c: char| c.is_ascii_digit());
    is_number.then(|| text.parse().ok().map(Scalar::Float)).flatten()
}

#[cfg(test)]
mod tests {
    use super::Scalar;

    #[test]
    fn words_without_quotes() {
        for (text, scalar) in [
            ("yes", Scalar::Bool(true)),
            ("Off", Scalar::Bool(false)),
            ("oN", Scalar::Text("oN".into())),
            ("~", Scalar::Null),
            ("8_000", Scalar::Integer(8000)),
            ("0x10", Scalar::Integer(16)),
            ("010", Scalar::Integer(8)),
            ("-1", Scalar::Integer(-1)),
            ("1e2", Scalar::Float(100.0)),
            ("99999999999999999999", Scalar::Float(1e20)),
            ("10m", Scalar::Text("10m".into())),
            ("127.0.0.1", Scalar::Text("127.0.0.1".into())),
            ("http://h:1", Scalar::Text("http://h:1".into())),
        ] {
            assert_eq!(Scalar::plain(text), scalar, "{text}");
        }
        assert_eq!((Scalar::whole(1e2), Scalar::whole(1.5), Scalar::whole(1e300)), (Some(100), None, None));
    }
}
