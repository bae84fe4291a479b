//! Who the members of a new cluster are, if `--initial-cluster` does not say so: what DNS knows, or who registered at
//! another etcd. Either becomes the text of `--initial-cluster`, and all goes on as if it had been given.
//!
//! A member that has a log knows its cluster: nobody is asked then, and DNS or the other etcd may be gone.
//!
//! Sources: etcd `embed.PeerURLsMapAndToken`, `bootstrapNewClusterNoWAL`; `facts/flags.md`.

mod registry;
mod srv;

use std::collections::BTreeMap;
use std::time::Duration;

use milepost_client::Resolver;
use milepost_machine::member::Bootstrap;
use milepost_node::log::Log;

use crate::config::Config;
use crate::config::cluster::{self, Members};
use crate::config::settings::Refusal;

/// Why nobody was found.
#[derive(Debug)]
pub enum Failed {
    /// Members cannot be looked up.
    Look(Refusal),
    /// The other etcd does not take this member.
    Join(Refusal),
}

/// Completes `config` with the members that were found, and with the name that their certificates carry.
///
/// # Errors
/// [`Failed`], in etcd's words.
pub fn resolve(config: &mut Config, has_log: bool, log: &dyn Log) -> Result<(), Failed> {
    let by_service = !config.discovery.service.endpoints.is_empty();
    if has_log {
        if by_service {
            log.warn(
                "discovery token is ignored since cluster already initialized; valid logs are found",
                &[("wal-dir", config.wal_dir().display().to_string().into())],
            );
        }
        return Ok(());
    }
    if by_service {
        config.initial_cluster = meet(config, log)?;
    } else if !config.discovery.srv.is_empty() {
        let found = look_up(config, log).map_err(Failed::Look)?;
        if found.contains("https://") && config.security.peer.trusted_ca_file.is_empty() {
            config.peer_server_name = Some(config.discovery.srv.clone());
        }
        config.initial_cluster = found;
    }
    Ok(())
}

fn run<T>(work: impl Future<Output = T>) -> Result<T, Refusal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Refusal::from(format!("no runtime to find other members with: {error}")))?;
    Ok(runtime.block_on(work))
}

fn look_up(config: &Config, log: &dyn Log) -> Result<String, Refusal> {
    let resolver = Resolver::system();
    let (domain, suffix) = (&config.discovery.srv, &config.discovery.srv_name);
    let asked = run(async {
        let mut asked = Vec::new();
        for has_tls in [true, false] {
            let service = milepost_client::service("etcd-server", has_tls, suffix);
            let places = resolver.srv(&service, domain).await;
            asked.push(srv::Asked { service, has_tls, places });
        }
        asked
    })?;
    srv::cluster(config, asked, &srv::system, log)
}

/// Registers this member at the other etcd and waits for the rest.
fn meet(config: &Config, log: &dyn Log) -> Result<String, Failed> {
    if !config.is_new_cluster {
        return Err(Failed::Look(Refusal::new(
            "discovery URL should not be set when joining existing initial cluster",
            "give --initial-cluster with the members of the cluster instead of --discovery-endpoints",
        )));
    }
    let own = Members::from([(config.name.clone(), config.addresses.advertise_peer.clone())]);
    let names: BTreeMap<String, Vec<String>> = own
        .iter()
        .map(|(name, urls)| (name.clone(), urls.iter().map(|url| url.as_str().to_owned()).collect()))
        .collect();
    let founder = Bootstrap::new(&names, &config.token)
        .map_err(|error| Failed::Look(error.to_string().into()))?
        .members
        .remove(0);
    let (service, own) = (&config.discovery.service, cluster::text(&own));
    log.info("Bootstrapping cluster using v3 discovery.", &[]);
    let joined = run(async {
        let client = registry::client(service).await?;
        registry::Registry::new(client, service, founder.id, log, Duration::from_secs(1)).join(&own).await
    });
    let fields = [
        ("discovery-token", service.token.as_str().into()),
        ("discovery-endpoints", service.endpoints.join(",").into()),
    ];
    match joined.map_err(Failed::Look)? {
        Ok(found) => {
            let [token, endpoints] = fields;
            let message = "discovery joined cluster successfully";
            log.info(message, &[token, endpoints, ("cluster", found.as_str().into())]);
            registry::check(&found).map_err(Failed::Look)?;
            Ok(found)
        }
        Err(refusal) => {
            log.error("discovery failed to join cluster", &fields);
            let complaint = format!("failed to join discovery cluster ({})", refusal.complaint);
            Err(Failed::Join(Refusal { complaint, ..refusal }))
        }
    }
}
