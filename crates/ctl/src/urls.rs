//! Peer URLs, checked before they are sent: a member added with a bad one could not be reached by the others.

use crate::go::quote;

/// Checks each of `urls`.
///
/// # Errors
/// etcd's words for the first that is wrong.
pub fn check(urls: &[String]) -> Result<(), String> {
    urls.iter().try_for_each(|url| check_one(url.trim()))
}

fn check_one(url: &str) -> Result<(), String> {
    let unreadable = |why: &str| Err(format!("parse {}: {why}", quote(url.as_bytes())));
    if url.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return unreadable("net/url: invalid control character in URL");
    }
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    let rest = match scheme {
        Some("") => return unreadable("missing protocol scheme"),
        Some(scheme) if is_scheme(scheme) => &url[scheme.len() + 1..],
        Some(first) if !first.contains('/') => return unreadable("first path segment in URL cannot contain colon"),
        _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    };
    match scheme.unwrap_or_default().to_ascii_lowercase().as_str() {
        "unix" | "unixs" => Ok(()),
        "http" | "https" => {
            let (host, path) = host_and_path(rest);
            if !has_port(host) {
                return Err(format!("URL address does not have the form \"host:port\": {url}"));
            }
            if !path.is_empty() {
                return Err(format!("URL must not contain a path: {url}"));
            }
            Ok(())
        }
        _ => Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn host_and_path(rest: &str) -> (&str, &str) {
    let Some(rest) = rest.strip_prefix("//") else { return ("", rest) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let path = &rest[end..];
    let path = path.split(['?', '#']).next().unwrap_or("");
    (rest[..end].rsplit_once('@').map_or(&rest[..end], |(_, host)| host), path)
}

fn has_port(host: &str) -> bool {
    match host.rsplit_once(':') {
        Some((name, port)) => {
            let bracketed = name.starts_with('[') && name.ends_with(']');
            (bracketed || !name.contains([':', '[', ']'])) && port.bytes().all(|byte| byte.is_ascii_digit())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_as_etcd_judges_them() {
        for good in ["http://a:1", "https://[::1]:2380", "unix://x", "http://10.0.0.1:", " http://a:1 "] {
            assert_eq!(check(&[good.to_owned()]), Ok(()), "{good}");
        }
        let golden = [
            ("127.0.0.1:1", "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon"),
            (":1", "parse \":1\": missing protocol scheme"),
            ("localhost:1", "URL scheme must be http, https, unix, or unixs: localhost:1"),
            ("x", "URL scheme must be http, https, unix, or unixs: x"),
            ("http:/10.240.0.19:2379", "URL address does not have the form \"host:port\": http:/10.240.0.19:2379"),
            ("http://a", "URL address does not have the form \"host:port\": http://a"),
            ("http://a:1/p", "URL must not contain a path: http://a:1/p"),
        ];
        for (url, error) in golden {
            assert_eq!(check(&["http://ok:1".to_owned(), url.to_owned()]), Err(error.to_owned()), "{url}");
        }
    }
}
