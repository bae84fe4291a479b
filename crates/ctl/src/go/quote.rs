//! Quoted strings, as `%q` and `strconv.Unquote` write and read them. Go's strings are bytes, and so are ours here.

use std::fmt::Write as _;

/// `bytes` between double quotes, with everything that does not print escaped.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|letter| escape(letter, &mut out));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn escape(letter: char, out: &mut String) {
    match letter {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        '\0'..=' ' | '\x7f' if letter != ' ' => {
            let _ = write!(out, "\\x{:02x}", letter as u32);
        }
        _ if prints(letter) => out.push(letter),
        _ if (letter as u32) < 0x1_0000 => {
            let _ = write!(out, "\\u{:04x}", letter as u32);
        }
        _ => {
            let _ = write!(out, "\\U{:08x}", letter as u32);
        }
    }
}

/// Letters, marks, numbers, punctuation, symbols and the ASCII space. The standard library knows these too, for its own
/// debug texts; behind another letter it leaves marks alone.
fn prints(letter: char) -> bool {
    let mut pair = String::from("a");
    pair.push(letter);
    pair.escape_debug().nth(1) == Some(letter)
}

/// Reads one quoted string from the start of `text`: `"…"` with escapes, or `` `…` `` as it stands. Returns its bytes
/// and what follows the closing quote; `None` when there is no such string.
pub fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    match text.split_first()? {
        (b'`', rest) => {
            let end = rest.iter().position(|&byte| byte == b'`')?;
            Some((rest[..end].iter().copied().filter(|&byte| byte != b'\r').collect(), &rest[end + 1..]))
        }
        (b'"', rest) => interpreted(rest),
        _ => None,
    }
}

fn interpreted(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    loop {
        let (&byte, next) = rest.split_first()?;
        rest = next;
        match byte {
            b'"' => return Some((out, rest)),
            b'\n' => return None,
            b'\\' => rest = escaped(rest, &mut out)?,
            byte => out.push(byte),
        }
    }
}

/// What follows a backslash.
fn escaped<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&kind, rest) = rest.split_first()?;
    let simple = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'"' => kind,
        b'x' => {
            let (value, rest) = digits(rest, 2, 16)?;
            out.push(u8::try_from(value).ok()?);
            return Some(rest);
        }
        b'0'..=b'7' => {
            let (value, rest) = digits(rest, 2, 8)?;
            out.push(u8::try_from(u32::from(kind - b'0') * 64 + value).ok()?);
            return Some(rest);
        }
        b'u' | b'U' => {
            let (value, rest) = digits(rest, if kind == b'u' { 4 } else { 8 }, 16)?;
            let mut buffer = [0; 4];
            out.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut buffer).as_bytes());
            return Some(rest);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}

fn digits(rest: &[u8], count: usize, base: u32) -> Option<(u32, &[u8])> {
    let (digits, rest) = rest.split_at_checked(count)?;
    let mut value = 0u32;
    for &digit in digits {
        value = value.checked_mul(base)?.checked_add((digit as char).to_digit(base)?)?;
    }
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go() {
        assert_eq!(quote(b"a\"b\\\n\0\x7f\x07"), r#""a\"b\\\n\x00\x7f\a""#);
        assert_eq!(quote("über 键".as_bytes()), "\"über 键\"");
        assert_eq!(quote(b"\xff\xfea"), r#""\xff\xfea""#);
        assert_eq!(quote("\u{a0}\u{2028}\u{e000}\u{10ffff}".as_bytes()), r#""\u00a0\u2028\ue000\U0010ffff""#);
        assert_eq!(quote("e\u{301}".as_bytes()), "\"e\u{301}\"");
    }

    #[test]
    fn unquotes_as_go() {
        assert_eq!(unquote(br#""a\"b") = "#), Some((b"a\"b".to_vec(), &b") = "[..])));
        assert_eq!(unquote(b"`a\\n`x"), Some((b"a\\n".to_vec(), &b"x"[..])));
        assert_eq!(unquote(br#""\x41\101\u00e4\U0001F600""#), Some(("AA\u{e4}\u{1f600}".into(), &b""[..])));
        for bad in [&b"a"[..], b"\"a", b"\"\\q\"", b"\"\\400\"", b"\"\\ud800\"", b"\"\\'\"", b"", b"\"\n\""] {
            assert_eq!(unquote(bad), None, "{bad:?}");
        }
    }
}
