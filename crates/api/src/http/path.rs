//! Paths as they are meant: unescaped, and in their shortest form.

use std::borrow::Cow;

use super::query::hex;

/// `path` without escapes; `None` if one is malformed, or what they say is no text.
pub(crate) fn decode(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(path.into());
    }
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' { hex(bytes.next()?)? << 4 | hex(bytes.next()?)? } else { byte });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// `path` without doubled slashes and dots, and with a slash behind if it is one of `trees`, which are nothing without
/// what is below them; `None` if it is so already. Source: Go's `ServeMux`, which sends clients there.
pub(crate) fn shortest(path: &str, trees: &[&str]) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut short = String::from("/") + &parts.join("/");
    if path.ends_with('/') && short != "/" || trees.contains(&&*short) {
        short.push('/');
    }
    (short != path).then_some(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(decode("/v3/kv/r%61nge").unwrap(), "/v3/kv/range");
        assert_eq!(decode("/a+b").unwrap(), "/a+b");
        for bad in ["/%", "/%4", "/%zz", "/%ff"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn detours() {
        for short in ["/", "/version", "/v3/kv/put", "/v3/kv/put/", "/livez"] {
            assert_eq!(shortest(short, &["/v3"]), None, "{short}");
        }
        for (long, short) in [
            ("/v3//kv/put", "/v3/kv/put"),
            ("/v3", "/v3/"),
            ("/a/../version", "/version"),
            ("//", "/"),
            ("/./x/", "/x/"),
        ] {
            assert_eq!(shortest(long, &["/v3"]).as_deref(), Some(short));
        }
    }
}
