//! How members find each other without `--initial-cluster`.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::settings::{Refusal, Settings};
use super::spelling;

/// DNS, another etcd, or neither.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// `--discovery-srv`; empty: not by DNS.
    pub srv: String,
    /// `--discovery-srv-name`.
    pub srv_name: String,
    /// Another etcd to meet at; without endpoints: not so.
    pub service: Service,
}

/// The etcd at which members meet, and how it is reached.
#[derive(Clone, Default)]
pub struct Service {
    /// `--discovery-endpoints`.
    pub endpoints: Vec<String>,
    /// `--discovery-token`.
    pub token: String,
    /// `--discovery-dial-timeout`.
    pub dial_timeout: Duration,
    /// `--discovery-request-timeout`.
    pub request_timeout: Duration,
    /// `--discovery-keepalive-time`.
    pub keepalive_time: Duration,
    /// `--discovery-keepalive-timeout`.
    pub keepalive_timeout: Duration,
    /// `--discovery-insecure-transport`.
    pub insecure_transport: bool,
    /// `--discovery-insecure-skip-tls-verify`.
    pub insecure_skip_verify: bool,
    /// `--discovery-cert`; empty: none. The same goes for the other files.
    pub cert: String,
    /// `--discovery-key`.
    pub key: String,
    /// `--discovery-cacert`.
    pub cacert: String,
    /// Name and password.
    pub user: Option<(String, String)>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("Service").field("endpoints", &self.endpoints).field("user", &user).finish_non_exhaustive()
    }
}

impl Discovery {
    /// # Errors
    /// A user without a password: nobody is there to be asked for one.
    pub fn new(settings: &Settings) -> Result<Self, Refusal> {
        let text = |name: &str| settings.text(name).to_owned();
        let span = |name: &str| spelling::duration(settings.text(name)).unwrap_or(Duration::ZERO);
        let yes = |name: &str| spelling::boolean(settings.text(name)) == Ok(true);
        let endpoints = settings.text("discovery-endpoints").split(',').map(str::trim);
        let endpoints: BTreeSet<&str> = endpoints.filter(|endpoint| !endpoint.is_empty()).collect();
        Ok(Self {
            srv: text("discovery-srv"),
            srv_name: text("discovery-srv-name"),
            service: Service {
                endpoints: endpoints.into_iter().map(str::to_owned).collect(),
                token: text("discovery-token"),
                dial_timeout: span("discovery-dial-timeout"),
                request_timeout: span("discovery-request-timeout"),
                keepalive_time: span("discovery-keepalive-time"),
                keepalive_timeout: span("discovery-keepalive-timeout"),
                insecure_transport: yes("discovery-insecure-transport"),
                insecure_skip_verify: yes("discovery-insecure-skip-tls-verify"),
                cert: text("discovery-cert"),
                key: text("discovery-key"),
                cacert: text("discovery-cacert"),
                user: user(settings.text("discovery-user"), settings.text("discovery-password"))?,
            },
        })
    }
}

/// As etcdctl's `--user` and `--password`: with a password given, all of `user` is the name.
fn user(user: &str, password: &str) -> Result<Option<(String, String)>, Refusal> {
    match (user, password, user.split_once(':')) {
        ("", "", _) => Ok(None),
        ("", ..) => Err(Refusal::new("--discovery-password without --discovery-user", "name the user, too")),
        (_, "", Some((user, password))) if !password.is_empty() => Ok(Some((user.to_owned(), password.to_owned()))),
        (_, "", _) => Err(Refusal::new(
            format!("--discovery-user={user}: there is no password"),
            "write --discovery-user=name:password, or give --discovery-password (ETCD_DISCOVERY_PASSWORD shows it to fewer)",
        )),
        (user, password, _) => Ok(Some((user.to_owned(), password.to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_passwords() {
        let pair = |user: &str, password: &str| Ok(Some((user.to_owned(), password.to_owned())));
        assert_eq!(user("", ""), Ok(None));
        assert_eq!(user("a:b:c", ""), pair("a", "b:c"));
        assert_eq!(user("a:b", "c"), pair("a:b", "c"));
        for (name, password) in [("a", ""), ("a:", ""), ("", "p")] {
            assert!(user(name, password).is_err(), "{name} {password}");
        }
    }
}
