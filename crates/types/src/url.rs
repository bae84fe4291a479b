//! URLs as etcd's flags take them: parsed by the rules of Go's `net/url`, complaints in its words, because operators and
//! scripts know them.

/// Why a text is not what it should be, in the words that operators know from etcd.
pub type Complaint = String;

/// A URL of a listener or of a member: scheme, host and port, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    /// `http`, `https`, `unix` or `unixs`.
    pub scheme: String,
    /// Host without brackets; for unix schemes the path of the socket.
    pub host: String,
    /// Zero: let the kernel choose; for unix schemes always zero. Whether it is a port is found out by [`Url::port`].
    digits: String,
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

    /// The port; 0 if none is given.
    ///
    /// # Errors
    /// Above 65535, in the words that Go's `net` has when it should listen there.
    pub fn port(&self) -> Result<u16, Complaint> {
        match self.digits.as_str() {
            "" => Ok(0),
            digits => digits.parse().map_err(|_| format!("listen tcp: address {digits}: invalid port")),
        }
    }

    /// `https` or `unixs`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme.ends_with('s')
    }

    /// `unix` or `unixs`.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.scheme.starts_with("unix")
    }
}

/// One URL by the rules of etcd's URL flags.
///
/// # Errors
/// The rule that `text` breaks, with `text`.
pub fn url(text: &str) -> Result<Url, Complaint> {
    let text = text.trim();
    let (before_fragment, _) = text.split_once('#').unwrap_or((text, ""));
    let parts = split(before_fragment).map_err(|why| format!("parse {text:?}: {why}"))?;
    let unix_path = || [parts.host, parts.path].concat();
    let (host, digits) = match parts.scheme.as_str() {
        "http" | "https" => {
            let (host, digits) = host_and_port(parts.host)
                .ok_or_else(|| format!("URL address does not have the form \"host:port\": {text}"))?;
            if !parts.path.is_empty() {
                return Err(format!("URL must not contain a path: {text}"));
            }
            (host.to_owned(), digits.to_owned())
        }
        "unix" | "unixs" => (unix_path(), String::new()),
        _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
    };
    let text = format!("{}{}", parts.scheme, &text[parts.scheme.len()..]);
    Ok(Url { text, scheme: parts.scheme, host, digits })
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

/// The parts that matter; `host` with its port, without a user.
struct Parts<'a> {
    scheme: String,
    host: &'a str,
    path: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, String> {
    if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    let (scheme, rest) = scheme(text)?;
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    if !rest.starts_with('/') {
        let first_segment = rest.split('/').next().unwrap_or(rest);
        if scheme.is_empty() && first_segment.contains(':') {
            return Err("first path segment in URL cannot contain colon".into());
        }
        // With a scheme it is opaque: no host, no path.
        let path = if scheme.is_empty() { rest } else { "" };
        return Ok(Parts { scheme, host: "", path });
    }
    let Some(authority) = rest.strip_prefix("//").filter(|_| !(scheme.is_empty() && rest.starts_with("///"))) else {
        return Ok(Parts { scheme, host: "", path: rest });
    };
    let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    check_host(host)?;
    Ok(Parts { scheme, host, path })
}

/// The scheme in lower case and what follows its colon; no scheme: empty, and everything.
fn scheme(text: &str) -> Result<(String, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

fn check_host(host: &str) -> Result<(), String> {
    let port = match host.strip_prefix('[') {
        Some(inner) => match inner.rfind(']') {
            Some(end) => &inner[end + 1..],
            None => return Err("missing ']' in host".into()),
        },
        None => host.find(':').map_or("", |colon| &host[colon..]),
    };
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    if !is_port {
        return Err(format!("invalid port {port:?} after host"));
    }
    check_host_characters(host)
}

fn check_host_characters(host: &str) -> Result<(), String> {
    for (at, c) in host.char_indices() {
        match c {
            '%' => {
                let escape: String = host[at..].chars().take(3).collect();
                // Only what is not ASCII may be escaped in a host, and a zone's own percent sign.
                let is_escape = escape.len() == 3 && escape[1..].bytes().all(|byte| byte.is_ascii_hexdigit());
                let is_allowed = is_escape && (escape == "%25" || escape.as_bytes()[1] >= b'8');
                if !is_allowed {
                    return Err(format!("invalid URL escape {escape:?}"));
                }
            }
            c if c.is_ascii_alphanumeric() || !c.is_ascii() || "-_.~!$&'()*+,;=:[]<>\"".contains(c) => {}
            c => return Err(format!("invalid character {:?} in host name", c.to_string())),
        }
    }
    Ok(())
}

/// Both sides of the last colon; a host with colons stands in brackets.
fn host_and_port(host: &str) -> Option<(&str, &str)> {
    match host.strip_prefix('[') {
        Some(inner) => inner.split_once("]:"),
        None => host.rsplit_once(':').filter(|(host, _)| !host.contains(':')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_scheme_host_port() {
        let got = urls("http://127.0.0.1:2379, http://[::1]:0,http://127.0.0.1:2379,HTTPS://h:").unwrap();
        let parts: Vec<_> = got.iter().map(|u| (u.scheme.as_str(), u.host.as_str(), u.port().unwrap())).collect();
        assert_eq!(parts, [("http", "127.0.0.1", 2379), ("http", "::1", 0), ("https", "h", 0)]);
        assert_eq!(got[2].as_str(), "https://h:");
    }

    #[test]
    fn unix_sockets_have_a_path() {
        for (text, path) in [("unix:///tmp/s", "/tmp/s"), ("unixs://localhost:1", "localhost:1"), ("unix://a/b", "a/b")]
        {
            assert_eq!(url(text).unwrap().host, path, "{text}");
        }
    }

    #[test]
    fn complaints_are_gos() {
        for (text, complaint) in [
            ("http:/10.0.0.1:2379", "URL address does not have the form \"host:port\": http:/10.0.0.1:2379"),
            ("http://10.0.0.1", "URL address does not have the form \"host:port\": http://10.0.0.1"),
            ("http:foo", "URL address does not have the form \"host:port\": http:foo"),
            ("http://h:1/", "URL must not contain a path: http://h:1/"),
            ("ftp://h:1", "URL scheme must be http, https, unix, or unixs: ftp://h:1"),
            ("localhost:1", "URL scheme must be http, https, unix, or unixs: localhost:1"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("127.0.0.1:1", "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon"),
            (":foo", "parse \":foo\": missing protocol scheme"),
            ("http://h:port", "parse \"http://h:port\": invalid port \":port\" after host"),
            ("http://::1:2379", "parse \"http://::1:2379\": invalid port \"::1:2379\" after host"),
            ("http://[::1:2", "parse \"http://[::1:2\": missing ']' in host"),
            ("http://%zz:1", "parse \"http://%zz:1\": invalid URL escape \"%zz\""),
            ("http://a b:1", "parse \"http://a b:1\": invalid character \" \" in host name"),
        ] {
            assert_eq!(url(text).unwrap_err(), complaint);
        }
        assert_eq!(url("http://h:99999").unwrap().port().unwrap_err(), "listen tcp: address 99999: invalid port");
    }
}
