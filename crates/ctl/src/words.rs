//! Splitting a line into words, as `txn` and `watch -i` do with what they read.
//!
//! A word is `"…"` with Go's escapes, `'…'` as it stands, or anything without spaces that does not begin with a quote.

use crate::go::unquote;
use crate::outcome::{Failure, Outcome, exit};

/// The words of `line`.
///
/// # Errors
/// A word in double quotes holds an escape that Go does not know.
pub fn argify(line: &[u8]) -> Outcome<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(&first) = rest.first() {
        let length = match first {
            b'"' => double_quoted(rest),
            b'\'' => rest[1..].iter().position(|&byte| byte == b'\'').map(|end| end + 2),
            first if is_space(first) => None,
            _ => Some(bare(rest)),
        };
        // A quote that never closes is passed over, like a space.
        let Some(length) = length else {
            rest = &rest[1..];
            continue;
        };
        let (word, next) = rest.split_at(length);
        rest = next;
        words.push(match first {
            b'\'' => word[1..length - 1].to_vec(),
            b'"' => unquote(word)
                .map(|(word, _)| word)
                .ok_or_else(|| Failure::new(exit::INVALID_INPUT, "invalid syntax"))?,
            _ => word.to_vec(),
        });
    }
    Ok(words)
}

/// Bytes up to and with the closing quote.
fn double_quoted(text: &[u8]) -> Option<usize> {
    let mut place = 1;
    loop {
        match text.get(place)? {
            b'"' => return Some(place + 1),
            b'\\' => place += 2,
            _ => place += 1,
        }
    }
}

/// All up to a space.
///
/// Quotes inside and at the end belong to the word.
fn bare(text: &[u8]) -> usize {
    text.iter().position(|&byte| is_space(byte)).unwrap_or(text.len())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        argify(line.as_bytes()).unwrap().into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(split("put key \"a \\\"b\\n\" --lease=1"), ["put", "key", "a \"b\n", "--lease=1"]);
        assert_eq!(split("put 'a \"b\\n' c"), ["put", "a \"b\\n", "c"]);
        assert_eq!(split("  put\tk\"x y"), ["put", "k\"x", "y"]);
        assert_eq!(split("put k \"open"), ["put", "k", "open"]);
        assert_eq!(split("put k \"\" ''"), ["put", "k", "", ""]);
        assert_eq!(argify(b"put \"\\q\"").unwrap_err().code, 3);
    }
}
