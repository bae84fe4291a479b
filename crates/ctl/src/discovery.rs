//! Endpoints from DNS: the SRV records of a domain. Source: etcd `srv.GetClient`, etcdctl `endpointsFromFlagValue`.

use milepost_client::{LookupError, Resolver, Srv, service};

use crate::out;

/// The endpoints that `_etcd-client-ssl._tcp` and `_etcd-client._tcp` of `domain` name, those with TLS first; `suffix`
/// belongs to these names. Unless `insecure`, endpoints without TLS are told of and left out.
///
/// # Errors
/// Neither name has records, or no DNS server answers.
pub async fn endpoints(domain: &str, suffix: &str, insecure: bool) -> Result<Vec<String>, String> {
    let resolver = Resolver::system();
    let (with_tls, without) = (service("etcd-client", true, suffix), service("etcd-client", false, suffix));
    let (with_tls, without) = (resolver.srv(&with_tls, domain).await, resolver.srv(&without, domain).await);
    let (endpoints, ignored) = chosen(with_tls, without, insecure)?;
    for endpoint in ignored {
        out::complain(format_args!("ignoring discovered insecure endpoint \"{endpoint}\""));
    }
    Ok(endpoints)
}

/// What was found, and what of it is left out.
fn chosen(
    with_tls: Result<Vec<Srv>, LookupError>,
    without: Result<Vec<Srv>, LookupError>,
    insecure: bool,
) -> Result<(Vec<String>, Vec<String>), String> {
    if let (Err(with_tls), Err(without)) = (&with_tls, &without) {
        return Err(format!("dns lookup errors: {with_tls} and {without}"));
    }
    let urls = |scheme: &str, places: Result<Vec<Srv>, LookupError>| -> Vec<String> {
        let url = |place: Srv| {
            let Srv { target, port, .. } = place;
            // With the dot: what comes from DNS is below no other domain.
            format!("{scheme}://{target}.:{port}")
        };
        places.unwrap_or_default().into_iter().map(url).collect()
    };
    let (mut endpoints, plain) = (urls("https", with_tls), urls("http", without));
    if insecure {
        endpoints.extend(plain);
        return Ok((endpoints, Vec::new()));
    }
    Ok((endpoints, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(hosts: &[&str]) -> Result<Vec<Srv>, LookupError> {
        let place = |host: &&str| Srv { target: (*host).to_owned(), port: 2379, priority: 0, weight: 0 };
        Ok(hosts.iter().map(place).collect())
    }

    fn unknown(name: &str) -> Result<Vec<Srv>, LookupError> {
        let server = "192.0.2.1:53".parse().unwrap();
        Err(LookupError { name: name.to_owned(), server, why: "no such host".into() })
    }

    #[test]
    fn endpoints_with_tls_come_first() {
        let (all, ignored) = chosen(places(&["a.x"]), places(&["b.x", "c.x"]), true).unwrap();
        assert_eq!(all, ["https://a.x.:2379", "http://b.x.:2379", "http://c.x.:2379"]);
        assert!(ignored.is_empty());
        let (all, ignored) = chosen(places(&["a.x"]), places(&["b.x"]), false).unwrap();
        assert_eq!((all, ignored), (vec!["https://a.x.:2379".to_owned()], vec!["http://b.x.:2379".to_owned()]));
        assert_eq!(chosen(unknown("n"), places(&["b.x"]), true).unwrap().0, ["http://b.x.:2379"]);
    }

    /// As etcdctl 3.7.1 prints it.
    #[test]
    fn nothing_found_is_told_with_both_names() {
        let why = chosen(unknown("_etcd-client-ssl._tcp.x"), unknown("_etcd-client._tcp.x"), true).unwrap_err();
        let part = |name: &str| format!("lookup {name}._tcp.x on 192.0.2.1:53: no such host");
        assert_eq!(why, format!("dns lookup errors: {} and {}", part("_etcd-client-ssl"), part("_etcd-client")));
    }
}
