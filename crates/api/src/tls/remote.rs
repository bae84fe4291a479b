//! Whether a certificate is for the address that it comes from. Source: etcd `checkCertSAN`; `facts/http.md` §9.

use std::net::IpAddr;

use milepost_trust::Subject;

use crate::workers;

/// Who knows the names of addresses.
pub(super) trait Names {
    /// The name of `address`; `None` if it has none.
    async fn of(&self, address: IpAddr) -> Option<String>;

    /// The addresses of `host`; none if it is not known.
    async fn addresses(&self, host: &str) -> Vec<IpAddr>;
}

/// What the system's resolver says. Each look-up is bounded by its own limits alone.
pub(super) struct System;

impl Names for System {
    async fn of(&self, address: IpAddr) -> Option<String> {
        workers::apart(move || dns_lookup::lookup_addr(&address)).await.ok()?.ok()
    }

    async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let host = host.to_owned();
        let found = workers::apart(move || dns_lookup::lookup_host(&host).map(Iterator::collect)).await;
        // Unknown, or no thread to ask: nobody is let in for it.
        found.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// Why the holder of `subject` must not call from `remote`; `None` if it may. A certificate without names may come from
/// everywhere. Host names are looked up, first the address's, then theirs.
pub(super) async fn mismatch(names: &impl Names, subject: &Subject, remote: IpAddr) -> Option<String> {
    let remote = remote.to_canonical();
    if subject.addresses.is_empty() && subject.hosts.is_empty() {
        return None;
    }
    if subject.addresses.iter().any(|address| address.to_canonical() == remote) {
        return None;
    }
    if subject.hosts.is_empty() {
        let known = subject.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Some(format!("x509: certificate is valid for {known}, not {remote}"));
    }
    let is_known = names.of(remote).await.is_some_and(|name| is_one_of(&subject.hosts, &name))
        || leads_to(names, &subject.hosts, remote).await;
    (!is_known).then(|| format!("tls: {:?} does not match any of DNSNames {:?}", remote.to_string(), subject.hosts))
}

/// Whether one of `hosts` is `name`, or a wildcard above it.
fn is_one_of(hosts: &[String], name: &str) -> bool {
    let name = name.trim_end_matches('.');
    hosts.iter().any(|host| match host.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => name.ends_with(suffix),
        _ => host == name,
    })
}

async fn leads_to(names: &impl Names, hosts: &[String], remote: IpAddr) -> bool {
    for host in hosts.iter().filter(|host| !host.starts_with("*.")) {
        if names.addresses(host).await.iter().any(|address| address.to_canonical() == remote) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wildcards() {
        let hosts = |list: &[&str]| list.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
        assert!(is_one_of(&hosts(&["a.example"]), "a.example."));
        assert!(is_one_of(&hosts(&["*.example"]), "b.a.example"));
        assert!(!is_one_of(&hosts(&["*.example", "x"]), "example"));
    }

    #[test]
    fn addresses_decide_where_there_are_no_hosts() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        let subject = |address: &str| Subject { addresses: vec![address.parse().unwrap()], ..Subject::default() };
        runtime.block_on(async {
            assert_eq!(mismatch(&System, &Subject::default(), here).await, None);
            assert_eq!(mismatch(&System, &subject("127.0.0.1"), here).await, None);
            assert_eq!(mismatch(&System, &subject("127.0.0.1"), "::ffff:127.0.0.1".parse().unwrap()).await, None);
            let why = mismatch(&System, &subject("10.0.0.1"), here).await.unwrap();
            assert_eq!(why, "x509: certificate is valid for 10.0.0.1, not 127.0.0.1");
        });
    }
}
