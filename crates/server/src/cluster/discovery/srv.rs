//! Members from SRV records. Source: etcd `srv.GetCluster`, `embed.Config.GetDNSClusterNames`.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};

use milepost_client::{LookupError, Srv};
use milepost_node::log::{Log, Value};

use crate::config::Config;
use crate::config::cluster;
use crate::config::settings::Refusal;
use crate::config::url::Url;
use crate::start;

/// What DNS says about one service.
pub(super) struct Asked {
    pub(super) service: String,
    pub(super) has_tls: bool,
    pub(super) places: Result<Vec<Srv>, LookupError>,
}

impl Asked {
    fn scheme(&self) -> &'static str {
        if self.has_tls { "https" } else { "http" }
    }
}

/// The address of a host and port.
pub(super) type Resolve = dyn Fn(&str, u16) -> Result<SocketAddr, String>;

/// As the system resolves it; IPv4 first, as Go.
pub(super) fn system(host: &str, port: u16) -> Result<SocketAddr, String> {
    let host = host.trim_matches(['[', ']']);
    let found = (host, port).to_socket_addrs().ok().and_then(|all| all.min_by_key(SocketAddr::is_ipv6));
    found.ok_or_else(|| format!("lookup {host}: no such host"))
}

/// `name=url` of everybody that was found; this member is known by its address.
///
/// # Errors
/// Nobody was found, or this member is not among them.
pub(super) fn cluster(config: &Config, asked: Vec<Asked>, resolve: &Resolve, log: &dyn Log) -> Result<String, Refusal> {
    let (name, own) = (&config.name, &config.addresses.advertise_peer);
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for asked in asked {
        let members = members(&asked, name, own, resolve);
        tell(config, &asked, &members, log);
        match members {
            Ok(members) => found.extend(members),
            Err(why) => failures.push(why),
        }
    }
    let failures = failures.join("\n");
    if !failures.is_empty() {
        log.warn("failed to resolve during SRV discovery", &[("error", failures.as_str().into())]);
    }
    let refuse = |complaint: String, remedy: String| {
        Refusal::new(format!("error setting up initial cluster: {complaint}"), remedy)
    };
    if found.is_empty() {
        let domain = &config.discovery.srv;
        let remedy =
            format!("ask DNS yourself: dig +short SRV _etcd-server-ssl._tcp.{domain} _etcd-server._tcp.{domain}");
        return Err(refuse(failures, remedy));
    }
    for node in &found {
        log.info("got bootstrap from DNS for etcd-server", &[("node", node.as_str().into())]);
    }
    let found = found.join(",");
    if !cluster::members(&found)?.contains_key(name) {
        let own: Vec<&str> = own.iter().map(Url::as_str).collect();
        return Err(refuse(
            format!("cannot find local etcd member {name:?} in SRV records"),
            format!(
                "one record must lead to the address and port of --initial-advertise-peer-urls ({}); found: {found}",
                own.join(",")
            ),
        ));
    }
    Ok(found)
}

/// The members of one service; those that are not this one are numbered.
fn members(asked: &Asked, name: &str, own: &[Url], resolve: &Resolve) -> Result<Vec<String>, String> {
    let mut by_address = HashMap::new();
    for url in own {
        by_address.insert(
            resolve(&url.host, url.port().map_err(|_| format!("address {}: missing port in address", url.host))?)?,
            url,
        );
    }
    let failed = |why: String| format!("error querying DNS SRV records for _{} {why}", asked.service);
    let places = asked.places.as_ref().map_err(|why| failed(why.to_string()))?;
    let (mut members, mut last, mut number) = (Vec::new(), None, 0);
    for Srv { target, port, .. } in places {
        let address = match resolve(target, *port) {
            Ok(address) => address,
            Err(why) => {
                last = Some(why);
                continue;
            }
        };
        let itself = by_address.get(&address);
        let member = match itself {
            Some(_) if !name.is_empty() => name.to_owned(),
            _ => {
                number += 1;
                (number - 1).to_string()
            }
        };
        let url = format!("{}://{target}:{port}", asked.scheme());
        match itself {
            Some(own) if own.scheme != asked.scheme() => {
                last = Some(format!(
                    "bootstrap at {url} from DNS for {} has scheme mismatch with expected peer {}",
                    asked.service,
                    own.as_str()
                ));
            }
            _ => members.push(format!("{member}={url}")),
        }
    }
    match last {
        Some(why) if members.is_empty() => Err(failed(why)),
        _ => Ok(members),
    }
}

fn tell(config: &Config, asked: &Asked, members: &Result<Vec<String>, String>, log: &dyn Log) {
    let message = if asked.has_tls { "get cluster for etcd-server-ssl SRV" } else { "get cluster for etcd-server SRV" };
    let mut fields: Vec<(&str, Value)> = vec![
        ("service-scheme", asked.scheme().into()),
        ("service-name", asked.service.as_str().into()),
        ("server-name", config.name.as_str().into()),
        ("discovery-srv", config.discovery.srv.as_str().into()),
        ("advertise-peer-urls", start::texts(&config.addresses.advertise_peer)),
        ("found-cluster", members.clone().unwrap_or_default().into()),
    ];
    fields.extend(members.as_ref().err().map(|why| ("error", why.as_str().into())));
    log.info(message, &fields);
}

#[cfg(test)]
#[path = "srv_test.rs"]
mod tests;
