//! Who may ask: names of this server that browsers may have been given, and pages whose scripts may call us.
//!
//! Source: `facts/http.md` §4.

use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, Request, StatusCode};

use crate::config::ApiConfig;
use crate::grpc::reply::Reply;

/// Refuses a request that names this server as nobody allowed.
pub(crate) fn refusal<B>(config: &ApiConfig, request: &Request<B>) -> Option<Reply> {
    let host = host(request);
    let is_allowed = is_any(&config.host_whitelist) || config.host_whitelist.contains(&host);
    (!is_allowed).then(|| super::error(StatusCode::MISDIRECTED_REQUEST, explain(&host)))
}

/// An open list: empty, or with a star in it.
fn is_any(list: &[String]) -> bool {
    list.is_empty() || list.iter().any(|entry| entry == "*")
}

/// The host that the client asked for, without its port. Source: etcd `httputil.GetHostname`.
fn host<B>(request: &Request<B>) -> String {
    let header = || request.headers().get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let whole = request.uri().authority().map(Authority::to_string).or_else(header).unwrap_or_default();
    match whole.rsplit_once(':') {
        // An IPv6 address loses its brackets only together with a port.
        Some((host, _)) if host.starts_with('[') && host.ends_with(']') => host[1..host.len() - 1].to_owned(),
        Some((host, _)) if !host.contains([':', '[', ']']) => host.to_owned(),
        _ => whole,
    }
}

/// The reason as etcd gives it, which users search for.
fn explain(host: &str) -> String {
    format!(
        "
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist {host:?}

This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).

"
    )
}

/// Tells the browser that the page's script may have the answer, if it may.
pub(crate) fn allow_origin(config: &ApiConfig, origin: Option<&HeaderValue>, reply: &mut HeaderMap) {
    let origin = if is_any(&config.cors) {
        HeaderValue::from_static("*")
    } else {
        match origin {
            Some(origin) if config.cors.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) => origin.clone(),
            _ => return,
        }
    };
    reply.insert("access-control-allow-origin", origin);
    reply.insert("access-control-allow-methods", HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"));
    reply.insert("access-control-allow-headers", HeaderValue::from_static("accept, content-type, authorization"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str) -> Request<()> {
        Request::get("/version").header(HOST, host).body(()).unwrap()
    }

    #[test]
    fn hosts() {
        for (given, name) in [
            ("example.com:2379", "example.com"),
            ("example.com", "example.com"),
            ("[::1]:2379", "::1"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("", ""),
        ] {
            assert_eq!(host(&asked(given)), name, "{given}");
        }
        let absolute = Request::get("http://a.b:1/version").header(HOST, "c").body(()).unwrap();
        assert_eq!(host(&absolute), "a.b");
    }

    #[test]
    fn unknown_hosts_are_refused() {
        let config = |list: &[&str]| ApiConfig {
            host_whitelist: list.iter().map(|name| (*name).to_owned()).collect(),
            ..ApiConfig::default()
        };
        for open in [&[][..], &["*"], &["x", "*"], &["evil.example"]] {
            assert!(refusal(&config(open), &asked("evil.example:80")).is_none(), "{open:?}");
        }
        let refused = refusal(&config(&["localhost"]), &asked("evil.example:80")).unwrap();
        assert_eq!(refused.status(), 421);
        assert!(explain("evil.example").contains("e.g. etcd --host-whitelist \"evil.example\"\n"));
    }

    #[test]
    fn origins() {
        let allowed = |list: &[&str], origin: Option<&str>| {
            let config =
                ApiConfig { cors: list.iter().map(|name| (*name).to_owned()).collect(), ..ApiConfig::default() };
            let mut reply = HeaderMap::new();
            let origin = origin.map(|origin| origin.parse().unwrap());
            allow_origin(&config, origin.as_ref(), &mut reply);
            assert!(reply.is_empty() || reply.len() == 3);
            reply.get("access-control-allow-origin").map(|origin| origin.to_str().unwrap().to_owned())
        };
        assert_eq!(allowed(&["*"], None).as_deref(), Some("*"));
        assert_eq!(allowed(&[], Some("http://a")).as_deref(), Some("*"));
        assert_eq!(allowed(&["http://b", "*"], Some("http://a")).as_deref(), Some("*"));
        assert_eq!(allowed(&["http://a"], Some("http://a")).as_deref(), Some("http://a"));
        assert_eq!(allowed(&["http://a"], Some("http://a:80")), None);
        assert_eq!(allowed(&["http://a"], None), None);
    }
}
