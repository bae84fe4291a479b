//! Where a member listens for others, as it advertises it.

use std::path::PathBuf;

/// A peer URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PeerUrl {
    /// As it was written, without a slash at the end: paths are appended to it in messages.
    pub(crate) text: String,
    pub(crate) address: Address,
    pub(crate) is_tls: bool,
    /// What stands in `Host`.
    pub(crate) authority: String,
    /// What the server's certificate must be for.
    pub(crate) server_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// `host:port`; the host may be a name.
    Tcp(String),
    Unix(PathBuf),
}

impl PeerUrl {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// It is no URL of a member: which, and what one looks like.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no peer URL: one looks like http://10.0.0.1:2380");
        let text = text.trim_end_matches('/');
        let (scheme, rest) = text.split_once("://").ok_or_else(refused)?;
        let (is_tls, is_unix) = match scheme {
            "http" => (false, false),
            "https" => (true, false),
            "unix" => (false, true),
            "unixs" => (true, true),
            _ => return Err(refused()),
        };
        if rest.is_empty() {
            return Err(refused());
        }
        let text = text.to_owned();
        if is_unix {
            let name = rest.rsplit('/').next().unwrap_or(rest);
            let server_name = name.split(':').next().unwrap_or(name).to_owned();
            // A path is no authority; servers look at it no further.
            let (address, authority) = (Address::Unix(rest.into()), "localhost".to_owned());
            return Ok(Self { text, address, is_tls, authority, server_name });
        }
        let authority: http::uri::Authority = rest.parse().map_err(|_| refused())?;
        let host = authority.host();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(refused());
        }
        Ok(Self {
            address: Address::Tcp(format!("{host}:{port}")),
            is_tls,
            authority: authority.as_str().to_owned(),
            server_name: host.trim_matches(['[', ']']).to_owned(),
            text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_and_sockets() {
        let tcp = |text: &str| match PeerUrl::parse(text).unwrap() {
            PeerUrl { address: Address::Tcp(address), is_tls, server_name, .. } => (address, is_tls, server_name),
            other => panic!("{other:?}"),
        };
        let of = |address: &str, is_tls, name: &str| (address.to_owned(), is_tls, name.to_owned());
        assert_eq!(tcp("http://127.0.0.1:2380"), of("127.0.0.1:2380", false, "127.0.0.1"));
        assert_eq!(tcp("https://[::1]:2380/"), of("[::1]:2380", true, "::1"));
        assert_eq!(tcp("https://a.example"), of("a.example:443", true, "a.example"));
        let unix = PeerUrl::parse("unix://127.0.0.1:2380").unwrap();
        assert_eq!(unix.address, Address::Unix("127.0.0.1:2380".into()));
    }

    #[test]
    fn what_is_no_url_is_named() {
        for text in ["", "127.0.0.1:2380", "ftp://h:1", "http://", "http://a b", "http://u@h:1", "http://h:1/path"] {
            let why = PeerUrl::parse(text).unwrap_err();
            assert!(why.contains(text) && why.contains("http://10.0.0.1:2380"), "{why}");
        }
    }
}
