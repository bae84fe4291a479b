//! Whether a certificate is for the address that it comes from. Source: etcd `checkCertSAN`; `facts/http.md` §9.

use std::net::IpAddr;

use super::certificate::Subject;

/// Why the holder of `subject` must not call from `remote`; `None` if it may. A certificate without names may come from
/// everywhere. Host names are looked up, first the address's, then theirs.
pub(super) async fn mismatch(subject: &Subject, remote: IpAddr) -> Option<String> {
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
    let reverse = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&remote)).await;
    let is_known = reverse.is_ok_and(|name| name.is_ok_and(|name| names(&subject.hosts, &name)))
        || leads_to(&subject.hosts, remote).await;
    (!is_known).then(|| format!("tls: {:?} does not match any of DNSNames {:?}", remote.to_string(), subject.hosts))
}

/// Whether one of `hosts` is `name`, or a wildcard above it.
fn names(hosts: &[String], name: &str) -> bool {
    let name = name.trim_end_matches('.');
    hosts.iter().any(|host| match host.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => name.ends_with(suffix),
        _ => host == name,
    })
}

async fn leads_to(hosts: &[String], remote: IpAddr) -> bool {
    for host in hosts.iter().filter(|host| !host.starts_with("*.")) {
        if let Ok(mut addresses) = tokio::net::lookup_host((host.as_str(), 0)).await
            && addresses.any(|address| address.ip().to_canonical() == remote)
        {
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
        assert!(names(&hosts(&["a.example"]), "a.example."));
        assert!(names(&hosts(&["*.example"]), "b.a.example"));
        assert!(!names(&hosts(&["*.example", "x"]), "example"));
    }

    #[test]
    fn addresses_decide_where_there_are_no_hosts() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        let subject = |address: &str| Subject { addresses: vec![address.parse().unwrap()], ..Subject::default() };
        runtime.block_on(async {
            assert_eq!(mismatch(&Subject::default(), here).await, None);
            assert_eq!(mismatch(&subject("127.0.0.1"), here).await, None);
            assert_eq!(mismatch(&subject("127.0.0.1"), "::ffff:127.0.0.1".parse().unwrap()).await, None);
            let why = mismatch(&subject("10.0.0.1"), here).await.unwrap();
            assert_eq!(why, "x509: certificate is valid for 10.0.0.1, not 127.0.0.1");
        });
    }
}
