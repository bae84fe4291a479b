//! Where a member listens for others, as it advertises it.

use std::path::PathBuf;

use milepost_types::url::url;

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
    /// Takes `text` apart, by the rules of etcd's URL flags: whoever joined the cluster had to keep them.
    ///
    /// # Errors
    /// It is no URL of a member: which, and what one looks like.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refused = |why: &str| format!("{text:?} is no peer URL ({why}): one looks like http://10.0.0.1:2380");
        let text = text.trim_end_matches('/');
        let url = url(text).map_err(|why| refused(&why))?;
        let (text, is_tls) = (url.as_str().to_owned(), url.is_tls());
        if url.is_unix() {
            let name = url.host.rsplit('/').next().unwrap_or(&url.host);
            let server_name = name.split(':').next().unwrap_or(name).to_owned();
            // A path is no authority; servers look at it no further.
            let (address, authority) = (Address::Unix(url.host.into()), "localhost".to_owned());
            return Ok(Self { text, address, is_tls, authority, server_name });
        }
        let authority = url.authority().to_owned();
        if url.host.is_empty() || authority.contains(['@', '?', '#']) {
            return Err(refused("scheme, host and port are all that it may have"));
        }
        let port = url.port().map_err(|why| refused(&why))?;
        let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
        Ok(Self { address: Address::Tcp(format!("{host}:{port}")), is_tls, authority, server_name: url.host, text })
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
        assert_eq!(tcp("https://a.example:443"), of("a.example:443", true, "a.example"));
        let unix = PeerUrl::parse("unix://127.0.0.1:2380").unwrap();
        assert_eq!(unix.address, Address::Unix("127.0.0.1:2380".into()));
    }

    #[test]
    fn what_is_no_url_is_named() {
        for text in [
            "",
            "127.0.0.1:2380",
            "ftp://h:1",
            "http://",
            "http://a b",
            "http://u@h:1",
            "http://h:1/path",
            "https://h",
            "http://h:99999",
        ] {
            let why = PeerUrl::parse(text).unwrap_err();
            assert!(why.contains(text) && why.contains("http://10.0.0.1:2380"), "{why}");
        }
    }
}
