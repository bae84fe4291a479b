//! Where a server listens, as users write it.

/// One endpoint, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    /// What the server's certificate must carry: the host without its port, or the file name of a socket.
    pub(crate) server_name: String,
    pub(crate) tls: TlsWish,
    /// What stands in `:authority`.
    pub(crate) authority: String,
}

/// What a connection is opened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// `host:port`
    Tcp(String),
    /// Path of a socket.
    Unix(String),
}

impl Address {
    /// As it is dialled.
    pub(crate) fn text(&self) -> &str {
        match self {
            Address::Tcp(text) | Address::Unix(text) => text,
        }
    }
}

/// What the scheme says about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsWish {
    /// `https`, `unixs`: always.
    Require,
    /// `http`: never, whatever certificates are given.
    Refuse,
    /// No scheme, or `unix`: if TLS was configured.
    IfConfigured,
}

impl Endpoint {
    /// Takes `text` apart. Nothing is refused: what cannot be dialled fails when dialled, as with etcd's client.
    ///
    /// Source: etcd `client/v3/internal/endpoint`.
    pub(crate) fn of(text: &str) -> Endpoint {
        for (scheme, tls) in [("unixs:", TlsWish::Require), ("unix:", TlsWish::IfConfigured)] {
            if let Some(path) = text.strip_prefix(scheme) {
                return Endpoint::unix(path.strip_prefix("//").unwrap_or(path), tls);
            }
        }
        for (scheme, tls) in [("https://", TlsWish::Require), ("http://", TlsWish::Refuse)] {
            if let Some(rest) = text.strip_prefix(scheme) {
                let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
                return Endpoint::tcp(host.rsplit_once('@').map_or(host, |(_, host)| host), tls);
            }
        }
        Endpoint::tcp(text, TlsWish::IfConfigured)
    }

    fn tcp(host: &str, tls: TlsWish) -> Endpoint {
        let name = match host.rsplit_once(':') {
            // The colons of a bare IPv6 address are no port.
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
                if port.bytes().all(|digit| digit.is_ascii_digit()) { name } else { host }
            }
            _ => host,
        };
        Endpoint {
            address: Address::Tcp(host.to_owned()),
            server_name: name.trim_matches(['[', ']']).to_owned(),
            tls,
            authority: host.to_owned(),
        }
    }

    fn unix(path: &str, tls: TlsWish) -> Endpoint {
        let name = path.rsplit('/').next().unwrap_or(path);
        Endpoint {
            address: Address::Unix(path.to_owned()),
            server_name: name.split(':').next().unwrap_or(name).to_owned(),
            tls,
            // A path is no authority; servers look at it no further.
            authority: "localhost".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> (String, String, TlsWish) {
        let endpoint = Endpoint::of(text);
        let Address::Tcp(address) = endpoint.address else { panic!("{text} is no socket") };
        (address, endpoint.server_name, endpoint.tls)
    }

    #[test]
    fn hosts_with_and_without_a_scheme() {
        let of = |host: &str, name: &str, tls| (host.to_owned(), name.to_owned(), tls);
        assert_eq!(tcp("127.0.0.1:2379"), of("127.0.0.1:2379", "127.0.0.1", TlsWish::IfConfigured));
        assert_eq!(tcp("http://a.example:1/"), of("a.example:1", "a.example", TlsWish::Refuse));
        assert_eq!(tcp("https://[::1]:2379"), of("[::1]:2379", "::1", TlsWish::Require));
        assert_eq!(tcp("::1"), of("::1", "::1", TlsWish::IfConfigured));
        assert_eq!(tcp("https://u:p@h:2/x"), of("h:2", "h", TlsWish::Require));
        assert_eq!(tcp("nonsense"), of("nonsense", "nonsense", TlsWish::IfConfigured));
    }

    #[test]
    fn sockets_by_path_relative_and_absolute() {
        let unix = |text: &str| match Endpoint::of(text) {
            Endpoint { address: Address::Unix(path), server_name, tls, .. } => (path, server_name, tls),
            other => panic!("{other:?}"),
        };
        let of = |path: &str, name: &str, tls| (path.to_owned(), name.to_owned(), tls);
        assert_eq!(unix("unix:///tmp/a.sock"), of("/tmp/a.sock", "a.sock", TlsWish::IfConfigured));
        assert_eq!(unix("unix://a.sock:0"), of("a.sock:0", "a.sock", TlsWish::IfConfigured));
        assert_eq!(unix("unixs:dir/a.sock"), of("dir/a.sock", "a.sock", TlsWish::Require));
    }
}
