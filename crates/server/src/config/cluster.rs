//! The members of a new cluster, and whether this member is one of them. Source: etcd `types.NewURLsMap`,
//! `ServerConfig.VerifyBootstrap`.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};

use super::settings::Refusal;
use super::url::{self, Url};

/// Members by name, URLs sorted.
pub type Members = BTreeMap<String, Vec<Url>>;

/// Reads `name=url,name=url`; a name may come again with another URL.
///
/// # Errors
/// The URL that is none, in etcd's words.
pub fn members(text: &str) -> Result<Members, Refusal> {
    let mut members = Members::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        let url = url::url(url).map_err(|why| {
            let remedy = format!("write {part:?} of --initial-cluster as name=http://host:port");
            Refusal::new(format!("error setting up initial cluster: {why}"), remedy)
        })?;
        members.entry(name.to_owned()).or_default().push(url);
    }
    for urls in members.values_mut() {
        urls.sort();
    }
    Ok(members)
}

/// `name=url` of everything, sorted.
#[must_use]
pub fn text(members: &Members) -> String {
    let pairs = members.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={}", url.as_str())));
    pairs.collect::<Vec<_>>().join(",")
}

/// Is `name` with `advertised` what `members` say about it?
///
/// # Errors
/// The name or URLs that do not fit, in etcd's words.
pub fn check_member(name: &str, advertised: &[Url], members: &Members) -> Result<(), Refusal> {
    check_advertised(name, advertised, check_name(name, members)?)?;
    check_duplicates(members)
}

/// Is `name` one of `members`? Its URLs.
///
/// # Errors
/// It is not, in etcd's words.
pub fn check_name<'a>(name: &str, members: &'a Members) -> Result<&'a [Url], Refusal> {
    members.get(name).map(Vec::as_slice).ok_or_else(|| {
        Refusal::new(
            format!("couldn't find local name {name:?} in the initial cluster configuration"),
            format!(
                "add {name}=<peer URL> to --initial-cluster, or give --name one of the names in it: {:?}",
                text(members)
            ),
        )
    })
}

/// Has each URL one member?
///
/// # Errors
/// One that has two, in etcd's words.
pub fn check_duplicates(members: &Members) -> Result<(), Refusal> {
    let mut all: Vec<&str> = members.values().flatten().map(Url::as_str).collect();
    all.sort_unstable();
    if let Some(twice) = all.windows(2).find(|pair| pair[0] == pair[1]) {
        let remedy = format!("give each member of --initial-cluster a URL of its own: {} comes twice", twice[0]);
        return Err(Refusal::new(format!("initial cluster {} has duplicate url", text(members)), remedy));
    }
    Ok(())
}

fn check_advertised(name: &str, advertised: &[Url], listed: &[Url]) -> Result<(), Refusal> {
    let texts = |urls: &[Url]| urls.iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>();
    let (own, listed_texts) = (texts(advertised), texts(listed));
    let Err(why) = same_addresses(advertised, listed) else { return Ok(()) };
    let remedy = "make --initial-advertise-peer-urls and this member's part of --initial-cluster equal";
    let not_in = |one: &[String], other: &[String]| {
        let missing: Vec<String> = one.iter().filter(|url| !other.contains(url)).cloned().collect();
        missing
    };
    let missing = not_in(&listed_texts, &own);
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(|url| format!("{name}={url}")).collect();
        let complaint = format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} ({why})",
            missing.join(","),
            own.join(",")
        );
        return Err(Refusal::new(complaint, remedy));
    }
    let missing = not_in(&own, &listed_texts);
    let cluster: Vec<String> = own.iter().map(|url| format!("{name}={url}")).collect();
    let complaint = format!(
        "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
        missing.join(","),
        cluster.join(",")
    );
    Err(Refusal::new(complaint, remedy))
}

/// Do both, sorted, name the same places, hosts resolved?
///
/// # Errors
/// The difference, in etcd's words.
pub fn same_addresses(one: &[Url], other: &[Url]) -> Result<(), String> {
    if one.len() != other.len() {
        let quoted = |urls: &[Url]| {
            let texts: Vec<String> = urls.iter().map(|url| format!("{:?}", url.as_str())).collect();
            format!("[{}]", texts.join(" "))
        };
        return Err(format!("len({}) != len({})", quoted(one), quoted(other)));
    }
    if one == other {
        return Ok(());
    }
    let mut pairs = [one, other].map(|urls| urls.iter().map(resolved).collect::<Vec<_>>());
    pairs.iter_mut().for_each(|urls| urls.sort());
    match pairs[0].iter().zip(&pairs[1]).find(|(one, other)| one != other) {
        Some((one, other)) => Err(format!("resolved urls: {one:?} != {other:?}")),
        None => Ok(()),
    }
}

/// The URL with its host as an address, if it has one; `localhost` stays.
fn resolved(url: &Url) -> String {
    if url.is_unix() || url.host == "localhost" {
        return url.as_str().to_owned();
    }
    let address = url
        .port()
        .ok()
        .and_then(|port| (url.host.as_str(), port).to_socket_addrs().ok()?.min_by_key(SocketAddr::is_ipv6));
    address.map_or_else(|| url.as_str().to_owned(), |address| format!("{}://{address}", url.scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, advertised: &str, cluster: &str) -> Result<(), String> {
        let members = members(cluster).map_err(|refusal| refusal.complaint)?;
        check_member(name, &url::urls(advertised).unwrap(), &members).map_err(|refusal| refusal.complaint)
    }

    #[test]
    fn a_member_is_what_its_cluster_says() {
        assert_eq!(check("a", "http://h:1", "b=http://h:2,,a=http://h:1"), Ok(()));
        assert_eq!(check("a", "http://h:2,http://h:1", "a=http://h:1,a=http://h:2"), Ok(()));
        assert_eq!(check("a", "http://127.0.0.1:1", "a=http://127.0.0.1:1"), Ok(()));
    }

    /// The complaints of etcd 3.7.1 for the same flags.
    #[test]
    fn complaints_are_etcds() {
        for (name, advertised, cluster, complaint) in [
            ("x", "http://h:1", "y=http://h:1", "couldn't find local name \"x\" in the initial cluster configuration"),
            (
                "x",
                "http://localhost:2380",
                "x=http://127.0.0.1:1",
                "--initial-cluster has x=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" != \"http://127.0.0.1:1\")",
            ),
            (
                "x",
                "http://127.0.0.1:1",
                "x=http://127.0.0.1:1,x=http://127.0.0.1:2",
                "--initial-cluster has x=http://127.0.0.1:2 but missing from --initial-advertise-peer-urls=http://127.0.0.1:1 (len([\"http://127.0.0.1:1\"]) != len([\"http://127.0.0.1:1\" \"http://127.0.0.1:2\"]))",
            ),
            (
                "x",
                "http://127.0.0.1:1",
                "x=http://127.0.0.1:1,y=http://127.0.0.1:1",
                "initial cluster x=http://127.0.0.1:1,y=http://127.0.0.1:1 has duplicate url",
            ),
            (
                "x",
                "http://h:1",
                "x",
                "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
            ),
            (
                "x",
                "http://h:1",
                "x=http://h:1/",
                "error setting up initial cluster: URL must not contain a path: http://h:1/",
            ),
        ] {
            assert_eq!(check(name, advertised, cluster).unwrap_err(), complaint);
        }
    }
}
