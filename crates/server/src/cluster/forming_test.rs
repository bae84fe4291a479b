//! Places that are found, and those that are refused with what to change.

use super::*;
use crate::config::settings::Settings;
use crate::config::words::{self, Request};
use milepost_node::log::NoLog;
use milepost_peers::VersionRecord;
use milepost_types::ClusterId;

/// Answers by URL; everybody else does not answer.
#[derive(Default)]
struct Told {
    members: BTreeMap<&'static str, (u64, Vec<MemberRecord>)>,
    versions: BTreeMap<&'static str, &'static str>,
    is_downgrading: bool,
}

impl Ask for Told {
    fn members(&self, urls: &[String], _within: Duration) -> Vec<Result<(ClusterId, Vec<MemberRecord>), String>> {
        let answer = |url: &String| self.members.get(url.as_str()).cloned().ok_or_else(|| "refused".to_owned());
        urls.iter().map(|url| answer(url).map(|(id, members)| (ClusterId(id), members))).collect()
    }

    fn versions(&self, members: &[Vec<String>], _within: Duration) -> Vec<Result<VersionRecord, String>> {
        let version = |urls: &Vec<String>| {
            let told = urls.iter().find_map(|url| self.versions.get(url.as_str()));
            let record = |cluster: &&str| VersionRecord { cluster: (*cluster).to_owned(), ..VersionRecord::default() };
            told.map(record).ok_or_else(|| "refused".to_owned())
        };
        members.iter().map(version).collect()
    }

    fn is_downgrading(&self, _urls: &[String], _within: Duration) -> bool {
        self.is_downgrading
    }
}

fn config(words: &[&str]) -> Config {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let Ok(Request::Serve(settings)) = words::parse(&words, std::iter::empty()) else { panic!("{words:?}") };
    let settings: Settings = settings;
    Config::new(&settings).map_err(|refusal| refusal.complaint).expect("a configuration").0
}

const THREE: &str = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3";

/// Member c of three.
fn third(state: &str, cluster: &str) -> Config {
    config(&[
        "--name=c",
        "--initial-advertise-peer-urls=http://127.0.0.1:3",
        &format!("--initial-cluster={cluster}"),
        &format!("--initial-cluster-state={state}"),
    ])
}

fn find(config: &Config, told: &Told) -> Result<Place, Refusal> {
    let named = cluster::members(&config.initial_cluster)?;
    place(config, named, false, told, &NoLog)
}

fn record(id: u64, url: &str, name: &str) -> MemberRecord {
    let client_urls = if name.is_empty() { Vec::new() } else { vec!["http://client".to_owned()] };
    MemberRecord { id, peer_urls: vec![url.to_owned()], name: name.to_owned(), client_urls, ..Default::default() }
}

/// The cluster that the members of `THREE` make with the default token.
fn founded() -> Bootstrap {
    let names = cluster::members(THREE).unwrap();
    let names = names.iter().map(|(name, urls)| (name.clone(), texts(urls))).collect();
    Bootstrap::new(&names, "etcd-cluster").unwrap()
}

fn founded_records(started: bool) -> Vec<MemberRecord> {
    let record = |member: &Member| record(member.id.0, &member.peer_urls[0], if started { &member.name } else { "" });
    founded().members.iter().map(record).collect()
}

#[test]
fn founders_need_nobody() {
    let found = find(&third("new", THREE), &Told::default()).unwrap();
    assert_eq!((found.founders.len(), found.join), (3, None));
    let told = Told {
        members: BTreeMap::from([("http://127.0.0.1:1", (founded().cluster_id.0, founded_records(false)))]),
        ..Told::default()
    };
    assert_eq!(find(&third("new", THREE), &told).unwrap().founders.len(), 3);
}

#[test]
fn a_founder_that_has_lived_does_not_found_again() {
    let told = Told {
        members: BTreeMap::from([("http://127.0.0.1:2", (founded().cluster_id.0, founded_records(true)))]),
        ..Told::default()
    };
    let refusal = find(&third("new", THREE), &told).unwrap_err();
    let own = founded().members.iter().find(|member| member.name == "c").unwrap().id;
    assert_eq!(refusal.complaint, format!("member {own} has already been bootstrapped"));
    assert!(refusal.remedy.contains("etcdctl member remove"), "{refusal:?}");
}

/// One stranger may be the one whose flags are wrong; if most are strangers, it is this member.
#[test]
fn a_founder_of_another_cluster_is_told_whom_it_differs_from() {
    let mut told = Told::default();
    told.members.insert("http://127.0.0.1:1", (7, vec![record(1, "http://127.0.0.1:1", "a")]));
    assert!(find(&third("new", THREE), &told).is_ok());
    told.members.insert("http://127.0.0.1:2", (7, vec![record(1, "http://127.0.0.1:1", "a")]));
    let refusal = find(&third("new", THREE), &told).unwrap_err();
    let own = founded().cluster_id;
    let complaint = format!(
        "cluster ID mismatch: member a (http://127.0.0.1:1) is in cluster {}, these flags describe cluster {own}",
        ClusterId(7)
    );
    assert_eq!(refusal.complaint, complaint);
    assert!(refusal.remedy.contains("--initial-cluster-token"), "{refusal:?}");
}

fn live(third: MemberRecord) -> Told {
    let members = vec![record(10, "http://127.0.0.1:1", "a"), record(20, "http://127.0.0.1:2", "b"), third];
    Told {
        members: BTreeMap::from([("http://127.0.0.1:2", (99, members))]),
        versions: BTreeMap::from([("http://127.0.0.1:2", "3.6.0")]),
        is_downgrading: false,
    }
}

#[test]
fn a_joiner_learns_its_id_from_its_urls() {
    let found = find(&third("existing", THREE), &live(record(30, "http://127.0.0.1:3", ""))).unwrap();
    let join = found.join.unwrap();
    assert_eq!((join.member, join.cluster, join.members.len()), (MemberId(30), ClusterId(99), 3));
    assert!(found.founders.is_empty());
}

#[test]
fn a_joiner_that_does_not_fit_is_told_what_to_change() {
    let fresh = || live(record(30, "http://127.0.0.1:3", ""));
    let mut silent = fresh();
    silent.members.clear();
    let mut undecided = fresh();
    undecided.versions.insert("http://127.0.0.1:2", "not_decided");
    let mut newer = fresh();
    newer.versions.insert("http://127.0.0.1:2", "3.9.0");
    let mut falling = fresh();
    falling.is_downgrading = true;
    let mut learners = fresh();
    for member in &mut learners.members.get_mut("http://127.0.0.1:2").unwrap().1 {
        member.is_learner = member.id != 10;
    }
    let two = "a=http://127.0.0.1:1,c=http://127.0.0.1:3";
    let four = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3,d=http://127.0.0.1:4";
    for (cluster, told, complaint, remedy) in [
        (
            THREE,
            silent,
            "cannot fetch cluster info from peer urls: could not retrieve",
            "http://127.0.0.1:1, http://127.0.0.1:2",
        ),
        (
            two,
            live_at_a(),
            "error validating peerURLs: member count is unequal",
            "add to --initial-cluster: b=http://127.0.0.1:2",
        ),
        (four, fresh(), "error validating peerURLs: member count is unequal", "it does not know d=http://127.0.0.1:4"),
        (
            THREE,
            live(record(30, "http://127.0.0.1:9", "")),
            "error validating peerURLs: PeerURLs: no match found for existing member (1e, [http://127.0.0.1:9])",
            "<name>=http://127.0.0.1:9",
        ),
        (
            THREE,
            live(record(30, "http://127.0.0.1:3", "c")),
            "member 1e has already been bootstrapped",
            "member remove 1e",
        ),
        (THREE, undecided, "incompatible with current running cluster", "wait until the cluster has a leader"),
        (
            THREE,
            newer,
            "incompatible with current running cluster",
            "b=http://127.0.0.1:2 is in a cluster of version 3.9.0",
        ),
        (THREE, falling, "incompatible with current running cluster", "at least 3.8.0: end the downgrade"),
        (THREE, learners, "membership: too many learner members in cluster", "--max-learners=2"),
        ("a=http://127.0.0.1:1,b=http://127.0.0.1:3", fresh(), "couldn't find local name \"c\"", "add c=<peer URL>"),
        ("a=http://127.0.0.1:3,c=http://127.0.0.1:3", fresh(), "has duplicate url", "http://127.0.0.1:3 comes twice"),
    ] {
        let refusal = find(&third("existing", cluster), &told).expect_err(complaint);
        assert!(refusal.complaint.contains(complaint), "{refusal:?} for {complaint}");
        assert!(refusal.remedy.contains(remedy), "{refusal:?} for {remedy}");
    }
}

fn live_at_a() -> Told {
    let mut told = live(record(30, "http://127.0.0.1:3", ""));
    let answer = told.members["http://127.0.0.1:2"].clone();
    told.members.insert("http://127.0.0.1:1", answer);
    told
}

#[test]
fn a_log_knows_better_than_flags() {
    let named = cluster::members(THREE).unwrap();
    let found = place(&third("existing", THREE), named.clone(), true, &Told::default(), &NoLog).unwrap();
    assert!(found.founders.is_empty() && found.join.is_none());
    let found = place(&third("new", THREE), named, true, &Told::default(), &NoLog).unwrap();
    assert_eq!(found.founders.len(), 3, "if a power cut left the log empty");
}

#[test]
fn nobody_who_is_to_be_dropped_may_be_alive() {
    let other = |url: &str| Member { id: MemberId(5), peer_urls: vec![url.to_owned()], ..Member::default() };
    let guard = may_drop(live(record(30, "http://127.0.0.1:3", "")), Arc::new(NoLog));
    assert_eq!(guard(&[other("http://127.0.0.1:1")]), Ok(()));
    let why = guard(&[other("http://127.0.0.1:1"), other("http://127.0.0.1:2")]).unwrap_err();
    assert!(why.contains("another member answers at http://127.0.0.1:2"), "{why}");
}
