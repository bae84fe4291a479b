//! How a member without a log gets its place: it founds a cluster with others, or joins one that added it. And how one
//! with a log leaves the others behind.
//!
//! ```text
//!   no log, state new       ids from names, URLs and token; others that are up are asked whether they know better
//!   no log, state existing  GET /members of the others ─► ids by URLs ─► versions ─► an empty log with these ids
//!   a log                   it knows; the flags count only for a founder that a power cut left half formed
//! ```
//! Source: etcd `bootstrapCluster`, `cluster_util.go`, `membership.ValidateClusterAndAssignIDs`; `facts/peer-protocol.md`
//! §8. Texts are etcd's, what to change is ours. Two refusals go beyond etcd: a founder whose flags give another cluster id
//! than that of most of the others, and a joiner whose id has lived already (its log is lost, and with it what it promised).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use milepost_machine::Version;
use milepost_machine::member::{Bootstrap, Member};
use milepost_node::log::{Log, Value};
use milepost_node::{Join, MayDrop};
use milepost_peers::MemberRecord;
use milepost_types::MemberId;

use super::ask::Ask;
use crate::config::Config;
use crate::config::cluster::{self, Members};
use crate::config::settings::Refusal;
use crate::config::url::{self, Url};
use crate::version;

/// For each of the others to say who is in the cluster. Source: etcd `GetClusterFromRemotePeers`.
const MEMBERS_PATIENCE: Duration = Duration::from_secs(10);
/// The same while a new cluster forms: most are not up yet. Source: etcd `BootstrapTimeoutEffective`.
const FOUNDERS_PATIENCE: Duration = Duration::from_secs(1);
/// The lowest cluster version that can be joined. Source: etcd `version.MinClusterVersion`.
const OLDEST: Version = Version { major: 3, minor: 0, patch: 0 };

/// What the node is told of the cluster.
#[derive(Debug, Default)]
pub struct Place {
    /// The founders, if this is one of them. A member with a log reads them only if it holds nothing yet.
    pub founders: Members,
    /// The cluster to join.
    pub join: Option<Join>,
}

/// Is there a log in `dir`? Then the member knows its place.
#[must_use]
pub fn has_log(dir: &Path) -> bool {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    names.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".wal"))
}

/// The place of this member in the cluster of `named`.
///
/// # Errors
/// It has none: why, in etcd's words, and what to change at which member.
pub fn place(config: &Config, named: Members, has_log: bool, ask: &dyn Ask, log: &dyn Log) -> Result<Place, Refusal> {
    if has_log {
        let is_founder = config.is_new_cluster && named.contains_key(&config.name);
        return Ok(Place { founders: if is_founder { named } else { Members::new() }, join: None });
    }
    if config.is_new_cluster {
        cluster::check_member(&config.name, &config.addresses.advertise_peer, &named)?;
        check_founders(config, &named, ask, log)?;
        return Ok(Place { founders: named, join: None });
    }
    cluster::check_name(&config.name, &named)?;
    cluster::check_duplicates(&named)?;
    Ok(Place { founders: Members::new(), join: Some(join(config, &named, ask, log)?) })
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}

/// Peer URLs of everybody but this member, sorted.
fn others(name: &str, named: &Members) -> Vec<String> {
    let others = named.iter().filter(|(other, _)| *other != name);
    let mut urls: Vec<String> = others.flat_map(|(_, urls)| texts(urls)).collect();
    urls.sort();
    urls
}

/// Asks the founders that are up already whether this is a new cluster for them, too.
fn check_founders(config: &Config, named: &Members, ask: &dyn Ask, log: &dyn Log) -> Result<(), Refusal> {
    let names: BTreeMap<String, Vec<String>> = named.iter().map(|(name, urls)| (name.clone(), texts(urls))).collect();
    // What is no cluster at all is refused by the node, with the same words for all.
    let Ok(bootstrap) = Bootstrap::new(&names, &config.token) else { return Ok(()) };
    let own = bootstrap.members.iter().find(|member| member.name == config.name).map(|member| member.id);
    let others: Vec<(&String, String)> = named
        .iter()
        .filter(|(name, _)| **name != config.name)
        .filter_map(|(name, urls)| Some((name, urls.first()?.as_str().to_owned())))
        .collect();
    let urls: Vec<String> = others.iter().map(|(_, url)| url.clone()).collect();
    let answers = ask.members(&urls, FOUNDERS_PATIENCE);
    let mut strangers = Vec::new();
    for ((name, url), answer) in others.iter().zip(answers) {
        let Ok((id, members)) = answer else { continue };
        if members.is_empty() {
            continue;
        }
        if id != bootstrap.cluster_id {
            strangers.push((*name, url, id));
            continue;
        }
        let started = members.iter().find(|member| Some(MemberId(member.id)) == own && !member.client_urls.is_empty());
        if let Some(member) = started {
            return Err(Refusal::new(
                format!("member {} has already been bootstrapped", MemberId(member.id)),
                format!(
                    "the cluster (asked at {url}) has known this member with the log that {} no longer holds: bring that \
                     directory back, or remove the member (etcdctl member remove {}), wipe its directory, add it again \
                     and start it with --initial-cluster-state=existing",
                    config.data_dir.display(),
                    MemberId(member.id)
                ),
            ));
        }
    }
    let is_most = strangers.len() * 2 > others.len();
    for (name, url, id) in strangers {
        let own = bootstrap.cluster_id;
        let why = format!("member {name} ({url}) is in cluster {id}, these flags describe cluster {own}");
        let remedy = format!(
            "compare --initial-cluster-token ({:?} here) and --initial-cluster ({:?} here) with those of {name}; to join \
             its cluster, add this member there (etcdctl member add) and use --initial-cluster-state=existing",
            config.token,
            cluster::text(named)
        );
        if is_most {
            return Err(Refusal::new(format!("cluster ID mismatch: {why}"), remedy));
        }
        log.warn(
            "another founder is in another cluster; it will not hear this member",
            &[("error", why.into()), ("remedy", remedy.into())],
        );
    }
    Ok(())
}

/// The first good answer wins.
fn join(config: &Config, named: &Members, ask: &dyn Ask, log: &dyn Log) -> Result<Join, Refusal> {
    let urls = others(&config.name, named);
    let mut found = None;
    for (url, answer) in urls.iter().zip(ask.members(&urls, MEMBERS_PATIENCE)) {
        match answer {
            Ok((id, members)) if found.is_none() => found = Some((url, id, members)),
            Ok(_) => {}
            Err(why) => {
                let address = format!("{url}/members");
                log.warn("failed to get cluster response", &[("address", address.into()), ("error", why.into())]);
            }
        }
    }
    let Some((url, cluster, members)) = found else {
        return Err(Refusal::new(
            "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
            format!(
                "none of the other members in --initial-cluster answers ({}): correct their URLs, or start them; a first \
                 member starts with --initial-cluster-state=new",
                if urls.is_empty() { "it names no other".to_owned() } else { urls.join(", ") }
            ),
        ));
    };
    if members.is_empty() {
        return Err(Refusal::new(
            "cannot fetch cluster info from peer urls: failed to get raft cluster member(s) from the given URLs",
            format!("{url} knows no members: is it a member that has not formed its cluster yet?"),
        ));
    }
    let ids = ids(named, &members, url)?;
    let own = ids[&config.name];
    let record = members.iter().find(|member| member.id == own.0);
    if let Some(record) = record.filter(|record| !record.name.is_empty() || !record.client_urls.is_empty()) {
        return Err(Refusal::new(
            format!("member {own} has already been bootstrapped"),
            format!(
                "{url} knows it as {:?}, so it has lived with a log that {} no longer holds: bring that directory back, or \
                 remove the member (etcdctl member remove {own}), wipe its directory and add it again",
                record.name,
                config.data_dir.display()
            ),
        ));
    }
    check_versions(config, &members, own, ask, log)?;
    let learners = members.iter().filter(|member| member.is_learner).count();
    if learners > config.max_learners {
        return Err(Refusal::new(
            "membership: too many learner members in cluster",
            format!("the cluster has {learners} learners: give --max-learners={learners}, as at the other members"),
        ));
    }
    Ok(Join { member: own, cluster, members: members.into_iter().map(member).collect() })
}

fn member(record: MemberRecord) -> Member {
    Member {
        id: MemberId(record.id),
        peer_urls: record.peer_urls,
        is_learner: record.is_learner,
        name: record.name,
        client_urls: record.client_urls,
    }
}

/// The id of each named member: that of the member of the cluster with the same peer URLs.
fn ids(named: &Members, members: &[MemberRecord], asked: &str) -> Result<BTreeMap<String, MemberId>, Refusal> {
    let parsed = |member: &MemberRecord| {
        let mut urls: Vec<Url> = member.peer_urls.iter().filter_map(|text| url::url(text).ok()).collect();
        urls.sort();
        urls
    };
    let same = |urls: &[Url], member: &MemberRecord| cluster::same_addresses(&parsed(member), urls);
    if named.len() != members.len() {
        let lacking = |member: &&MemberRecord| !named.values().any(|urls| same(urls, member).is_ok());
        let unnamed: Vec<String> = members.iter().filter(lacking).map(called).collect();
        let unknown = named.iter().filter(|(_, urls)| !members.iter().any(|member| same(urls, member).is_ok()));
        let unknown: Vec<String> = unknown.map(|(name, urls)| format!("{name}={}", texts(urls).join(","))).collect();
        let mut remedy = format!("the cluster (asked at {asked}) has {} members", members.len());
        if !unnamed.is_empty() {
            remedy += &format!("; add to --initial-cluster: {}", unnamed.join(", "));
        }
        if !unknown.is_empty() {
            remedy +=
                &format!("; it does not know {}: add it (etcdctl member add), or take it out", unknown.join(", "));
        }
        return Err(validating(format!("member count is unequal: {} in --initial-cluster", named.len()), remedy));
    }
    let mut ids = BTreeMap::new();
    for member in members {
        let mut why = String::new();
        let found = named.iter().find(|(_, urls)| same(urls, member).map_err(|error| why = error).is_ok());
        let Some((name, _)) = found else {
            let id = MemberId(member.id);
            let urls = member.peer_urls.join(" ");
            let complaint =
                format!("PeerURLs: no match found for existing member ({id}, [{urls}]), last resolver error ({why})");
            let remedy = format!(
                "give {} in --initial-cluster exactly the URLs that the cluster has for it (etcdctl member list)",
                called(member)
            );
            return Err(validating(complaint, remedy));
        };
        ids.insert(name.clone(), MemberId(member.id));
    }
    match named.keys().find(|name| !ids.contains_key(*name)) {
        None => Ok(ids),
        Some(name) => Err(validating(
            format!(
                "PeerURLs: two members of the cluster match the same one of --initial-cluster, none matches {name}"
            ),
            "give each member of --initial-cluster its own URLs".to_owned(),
        )),
    }
}

fn called(member: &MemberRecord) -> String {
    let name = if member.name.is_empty() { "<name>" } else { &member.name };
    member.peer_urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

fn validating(complaint: String, remedy: String) -> Refusal {
    Refusal::new(format!("error validating peerURLs: {complaint}"), remedy)
}

/// At least one of the others must tell a cluster version that this member can live with, and none another.
fn check_versions(
    config: &Config,
    members: &[MemberRecord],
    own: MemberId,
    ask: &dyn Ask,
    log: &dyn Log,
) -> Result<(), Refusal> {
    let patience = Duration::from_secs(5) + 2 * config.election;
    let others: Vec<&MemberRecord> = members.iter().filter(|member| member.id != own.0).collect();
    let urls: Vec<Vec<String>> = others.iter().map(|member| member.peer_urls.clone()).collect();
    let ours = Version::parse(version::ETCD_VERSION).unwrap_or(OLDEST).minor_only();
    let higher = Version { minor: ours.minor + 1, ..ours };
    let is_downgrading = ask.is_downgrading(&urls.concat(), patience);
    let (lowest, highest) = if is_downgrading { (higher, higher) } else { (OLDEST, ours) };
    let mut is_known = false;
    for (member, answer) in others.iter().zip(ask.versions(&urls, patience)) {
        let id = || ("remote-member-id", Value::from(MemberId(member.id).to_string()));
        let told = match answer {
            Ok(told) => told.cluster,
            Err(why) => {
                log.warn("failed to get version", &[id(), ("error", why.into())]);
                continue;
            }
        };
        let Some(found) = Version::parse(&told) else {
            let field = ("remote-member-cluster-version", Value::from(told));
            log.warn("failed to parse cluster version of remote member", &[id(), field]);
            continue;
        };
        let (problem, bound) = match found {
            found if found < lowest => ("too low", lowest),
            found if found > highest => ("too high", highest),
            _ => {
                is_known = true;
                continue;
            }
        };
        let fields = [id(), ("remote-member-cluster-version", found.to_string().into())];
        log.warn(&format!("cluster version of remote member is not compatible; {problem}"), &fields);
        let remedy = format!(
            "member {} is in a cluster of version {found}, this member takes {} {bound}: {}",
            called(member),
            if problem == "too low" { "at least" } else { "at most" },
            if is_downgrading {
                "end the downgrade first (etcdctl downgrade cancel)"
            } else {
                "upgrade the other members or downgrade the cluster first, one minor version at a time"
            }
        );
        return Err(Refusal::new("incompatible with current running cluster", remedy));
    }
    if is_known {
        return Ok(());
    }
    let remedy = "none of the other members tells the cluster's version: wait until the cluster has a leader, and look at \
                  the warnings above";
    Err(Refusal::new("incompatible with current running cluster", remedy))
}

/// The guard of `--force-new-cluster`: nobody who is to be dropped may be alive, or two clusters with one id would
/// answer clients.
pub fn may_drop(ask: impl Ask + Send + 'static, log: Arc<dyn Log>) -> MayDrop {
    let ask = parking_lot::Mutex::new(ask);
    Arc::new(move |others: &[Member]| {
        let urls: Vec<String> = others.iter().flat_map(|member| member.peer_urls.clone()).collect();
        let answers = ask.lock().members(&urls, FOUNDERS_PATIENCE);
        for (url, answer) in urls.iter().zip(answers) {
            if answer.is_ok() {
                return Err(format!(
                    "another member answers at {url}: stop all others for good before this one goes on alone, and wipe \
                     their data directories; if the cluster was cut down already and has grown again, leave the flag out"
                ));
            }
        }
        if !others.is_empty() {
            let ids: Vec<String> = others.iter().map(|member| member.id.to_string()).collect();
            log.warn(
                "--force-new-cluster: dropping all other members; their data directories must not be used again",
                &[("members", ids.into())],
            );
        }
        Ok(())
    })
}

#[cfg(test)]
#[path = "forming_test.rs"]
mod tests;
