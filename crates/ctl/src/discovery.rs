//! Endpoints from DNS: the SRV records of a domain.

use crate::out;

/// The endpoints that `_etcd-client-ssl._tcp` and `_etcd-client._tcp` of `domain` name, those with TLS first; `service`
/// is a suffix of these names. Without `insecure`, endpoints without TLS are told of and left out.
///
/// # Errors
/// Neither name has records, or no DNS server answers.
pub async fn endpoints(domain: &str, service: &str, insecure: bool) -> Result<Vec<String>, String> {
    let suffix = if service.is_empty() { String::new() } else { format!("-{service}") };
    let mut endpoints = Vec::new();
    let mut failures = Vec::new();
    for (name, scheme) in [("etcd-client-ssl", "https"), ("etcd-client", "http")] {
        match lookup(&format!("_{name}{suffix}._tcp.{domain}")).await {
            Ok(hosts) => endpoints.extend(hosts.into_iter().map(|host| format!("{scheme}://{host}"))),
            Err(why) => failures.push(why),
        }
    }
    if let [with_tls, without] = failures.as_slice() {
        return Err(format!("dns lookup errors: {with_tls} and {without}"));
    }
    if !insecure {
        endpoints.retain(|endpoint| {
            let secure = endpoint.starts_with("https://");
            if !secure {
                out::complain(format_args!("ignoring discovered insecure endpoint \"{endpoint}\""));
            }
            secure
        });
    }
    Ok(endpoints)
}

async fn lookup(name: &str) -> Result<Vec<String>, String> {
    Err(format!("SRV records are not looked up by this version ({name}); name the servers with --endpoints"))
}
