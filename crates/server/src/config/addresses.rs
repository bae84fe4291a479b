//! Where a member listens, and what it tells others about that.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use super::settings::{Note, Refusal, Settings};
use super::url::{self, Url};

/// Every URL that a member is told.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Where other members reach us.
    pub listen_peer: Vec<Url>,
    /// Where clients reach us, by gRPC and, unless `listen_http` has something, HTTP.
    pub listen_client: Vec<Url>,
    /// Where clients reach us by HTTP alone.
    pub listen_http: Vec<Url>,
    /// Where metrics and health checks are served.
    pub listen_metrics: Vec<Url>,
    /// What we tell other members.
    pub advertise_peer: Vec<Url>,
    /// What we tell clients.
    pub advertise_client: Vec<Url>,
}

impl Addresses {
    /// Checks hosts.
    ///
    /// # Errors
    /// A host that cannot be bound, or an empty one that is advertised; in etcd's order and words.
    pub fn new(settings: &Settings) -> Result<Self, Refusal> {
        let list = |name| match settings.text(name) {
            "" => Ok(Vec::new()),
            text => url::urls(text).map_err(|why| Refusal::new(format!("--{name}: {why}"), "")),
        };
        let addresses = Self {
            listen_peer: list("listen-peer-urls")?,
            listen_client: list("listen-client-urls")?,
            listen_http: list("listen-client-http-urls")?,
            listen_metrics: list("listen-metrics-urls")?,
            advertise_peer: list("initial-advertise-peer-urls")?,
            advertise_client: list("advertise-client-urls")?,
        };
        let listen =
            [&addresses.listen_peer, &addresses.listen_client, &addresses.listen_http, &addresses.listen_metrics];
        listen.into_iter().flatten().try_for_each(check_bind)?;
        check_hosts(&addresses.advertise_peer).map_err(|(all, why)| {
            Refusal::new(
                format!("--initial-advertise-peer-urls {all:?} must be \"host:port\" ({why})"),
                "name the host by which other members reach this one",
            )
        })?;
        check_hosts(&addresses.advertise_client).map_err(|(all, why)| {
            Refusal::new(
                format!(
                    "--advertise-client-urls {all:?} must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({why})"
                ),
                "name the host by which clients reach this member",
            )
        })?;
        Ok(addresses)
    }

    /// A member that listens everywhere and advertises `localhost` by default would be out of reach of others: it
    /// advertises `host()` then. Source: etcd `UpdateDefaultClusterFromName`.
    pub fn use_default_host(&mut self, host: impl Fn() -> Option<IpAddr>) -> Option<Note> {
        let wanted = |listen: &[Url], advertise: &[Url], default: &str| {
            let is_default = matches!(advertise, [only] if only.as_str() == default);
            listen.first().filter(|first| is_default && first.host == "0.0.0.0").cloned()
        };
        let peer = wanted(&self.listen_peer, &self.advertise_peer, "http://localhost:2380");
        let client = wanted(&self.listen_client, &self.advertise_client, "http://localhost:2379");
        if peer.is_none() && client.is_none() {
            return None;
        }
        let Some(host) = host() else {
            return Some(
                Note::info("failed to detect default host").with("error", "no route leads out of this machine"),
            );
        };
        let at_host = |listen: &Url| url::url(&format!("http://{host}:{}", listen.port().unwrap_or(0))).ok();
        if let Some(url) = peer.as_ref().and_then(at_host) {
            self.advertise_peer = vec![url];
        }
        if let Some(url) = client.as_ref().and_then(at_host) {
            self.advertise_client = vec![url];
        }
        Some(Note::info("detected default host for advertise").with("host", host.to_string()))
    }

    /// What can only be found out when listening: asked for at start.
    ///
    /// # Errors
    /// A port that is none, or a place that should serve two kinds of clients; in etcd's words.
    pub fn check_listeners(&self) -> Result<(), Refusal> {
        let all = [&self.listen_peer, &self.listen_client, &self.listen_http, &self.listen_metrics];
        for url in all.into_iter().flatten() {
            url.port().map_err(|why| Refusal::new(why, format!("{}: ports are 0 to 65535", url.as_str())))?;
        }
        for url in &self.listen_http {
            let is_taken = |other: &&Url| other.host == url.host && other.port() == url.port() && url.port() != Ok(0);
            if self.listen_client.iter().any(|other| is_taken(&other)) {
                return Err(Refusal::new(
                    format!(
                        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {}",
                        url.as_str()
                    ),
                    "give one of them another port, or leave --listen-client-http-urls out",
                ));
            }
        }
        Ok(())
    }
}

/// Host of a listener: an IP address or exactly `localhost`.
fn check_bind(url: &Url) -> Result<(), Refusal> {
    if url.is_unix() || url.host == "localhost" || url.host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let remedy =
        "listen on an IP address of this machine, on 0.0.0.0 or on localhost; names are for --advertise-* flags";
    Err(Refusal::new(format!("expected IP in URL for binding ({})", url.as_str()), remedy))
}

fn check_hosts(urls: &[Url]) -> Result<(), (String, String)> {
    let Some(nowhere) = urls.iter().find(|url| !url.is_unix() && url.host.is_empty()) else { return Ok(()) };
    let all: Vec<&str> = urls.iter().map(Url::as_str).collect();
    Err((all.join(","), format!("unexpected empty host ({})", nowhere.as_str())))
}

/// The address that packets to far away leave from; nothing is sent to find out.
pub fn default_host() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Any address beyond this network will do; this one is for examples and belongs to nobody.
    socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::find;

    fn addresses(pairs: &[(&str, &str)]) -> Result<Addresses, String> {
        let mut settings = Settings::default();
        for (name, value) in pairs {
            settings.set(find(name).unwrap(), (*value).to_owned());
        }
        Addresses::new(&settings).map_err(|refusal| refusal.complaint)
    }

    #[test]
    fn complaints_are_etcds() {
        for (pair, complaint) in [
            (("listen-client-urls", "http://example.com:1"), "expected IP in URL for binding (http://example.com:1)"),
            (("listen-metrics-urls", "http://:1"), "expected IP in URL for binding (http://:1)"),
            (
                ("initial-advertise-peer-urls", "http://:1"),
                "--initial-advertise-peer-urls \"http://:1\" must be \"host:port\" (unexpected empty host (http://:1))",
            ),
            (
                ("advertise-client-urls", "http://:1"),
                "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" (unexpected empty host (http://:1))",
            ),
        ] {
            assert_eq!(addresses(&[pair]).unwrap_err(), complaint);
        }
        assert!(addresses(&[("listen-client-urls", "unix://h/s,http://[::1]:1,https://localhost:2")]).is_ok());
    }

    #[test]
    fn listeners_are_checked_at_start() {
        let check =
            |pairs: &[(&str, &str)]| addresses(pairs).unwrap().check_listeners().map_err(|refusal| refusal.complaint);
        assert_eq!(
            check(&[("listen-peer-urls", "http://127.0.0.1:99999")]).unwrap_err(),
            "listen tcp: address 99999: invalid port"
        );
        let client = ("listen-client-urls", "http://127.0.0.1:1");
        assert_eq!(
            check(&[client, ("listen-client-http-urls", "http://127.0.0.1:1")]).unwrap_err(),
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://127.0.0.1:1"
        );
        assert_eq!(check(&[client, ("listen-client-http-urls", "http://127.0.0.1:2")]), Ok(()));
    }

    #[test]
    fn who_listens_everywhere_does_not_advertise_localhost() {
        let host = || Some(IpAddr::from([192, 0, 2, 7]));
        let mut everywhere =
            addresses(&[("listen-peer-urls", "http://0.0.0.0:7"), ("listen-client-urls", "http://0.0.0.0:8")]).unwrap();
        assert!(everywhere.use_default_host(host).is_some());
        assert_eq!(everywhere.advertise_peer[0].as_str(), "http://192.0.2.7:7");
        assert_eq!(everywhere.advertise_client[0].as_str(), "http://192.0.2.7:8");
        let mut told =
            addresses(&[("listen-peer-urls", "http://0.0.0.0:7"), ("initial-advertise-peer-urls", "http://h:1")])
                .unwrap();
        assert_eq!(told.use_default_host(host), None);
        assert_eq!(told.advertise_peer[0].as_str(), "http://h:1");
    }
}
