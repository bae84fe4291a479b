//! Rust source with everything that is not code blanked out, line for line and column for column.

/// Replaces comments and the insides of string and character literals by blanks. Line breaks stay, so that positions
/// in the result are positions in the source.
pub fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = opaque(rest, code.chars().next_back());
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (skipped, after) = rest.split_at(length);
        code.extend(skipped.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    code
}

/// Length of the comment or literal that `text` begins with; 0 if it begins with code.
fn opaque(text: &str, before: Option<char>) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    if text.starts_with('"') {
        return quoted(text, '"');
    }
    if text.starts_with('\'') {
        return character(text);
    }
    // r"…", br#"…"#; an identifier that ends in r or b is none.
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if in_word { 0 } else { raw(text) }
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        let tail = &text[at..];
        if tail.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length up to and with the closing `quote`, backslashes respected.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// A character literal, or 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => quoted(text, '\''),
        (Some(_), Some('\'')) => quoted(text, '\''),
        _ => 0,
    }
}

fn raw(text: &str) -> usize {
    let after_prefix = ["br", "cr", "r"].iter().find_map(|prefix| text.strip_prefix(prefix));
    let Some(after_prefix) = after_prefix else { return 0 };
    let hashes = after_prefix.bytes().take_while(|byte| *byte == b'#').count();
    let Some(inside) = after_prefix[hashes..].strip_prefix('"') else { return 0 };
    let close = format!("\"{}", "#".repeat(hashes));
    match inside.find(&close) {
        Some(at) => text.len() - inside.len() + at + close.len(),
        None => text.len(),
    }
}

/// Blanks out what is only compiled for tests: every item under `#[cfg(test)]`. Takes and returns code without
/// literals ([`code_only`]).
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let length = MARK.len() + item_length(&item[MARK.len()..]);
        kept.extend(item[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &item[length..];
    }
    kept.push_str(rest);
    kept
}

/// Length of the item at the start of `code`: up to its `;` or the brace that closes its body. Brackets and
/// parentheses of attributes and signatures are passed over.
fn item_length(code: &str) -> usize {
    let (mut nested, mut braces) = (0usize, 0usize);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => nested += 1,
            ')' | ']' => nested = nested.saturating_sub(1),
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 && nested == 0 {
                    return at + 1;
                }
            }
            ';' if braces == 0 && nested == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_become_blanks_of_the_same_shape() {
        let cases = [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                     e"),
            ("x(\"a\\\"b\")y", "x(      )y"),
            ("x(r#\"a\"b\"#)y", "x(         )y"),
            ("br\"x\" r\"\\\"", "           "),
            ("'a' '\\'' 'x: &'a T", "         'x: &'a T"),
            ("for r in b {}", "for r in b {}"),
            ("\"two\nlines\" z", "    \n       z"),
            ("\"never closed", "             "),
        ];
        for (source, wanted) in cases {
            let code = code_only(source);
            let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(squeeze(&code), squeeze(wanted), "{source}");
            assert_eq!(code.chars().count(), source.chars().count(), "{source}");
            assert_eq!(code.matches('\n').count(), source.matches('\n').count(), "{source}");
        }
    }

    #[test]
    fn items_for_tests_are_passed_over_and_nothing_else() {
        let code = "keep1\n#[cfg(test)]\nmod tests {\n fn f() { {} }\n}\nkeep2 #[cfg(test)] use a::b; keep3\n\
                    #[cfg(test)] #[path = x] mod t; keep4 #[cfg(test)] fn g(x: [u8; 3]) { gone } keep5";
        let kept = without_tests(code);
        let words: Vec<&str> = kept.split_whitespace().collect();
        assert_eq!(words, ["keep1", "keep2", "keep3", "keep4", "keep5"]);
        assert_eq!(kept.lines().count(), code.lines().count());
    }
}
