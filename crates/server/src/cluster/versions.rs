//! The version that the cluster speaks: the lowest of its members', decided by the leader.
//!
//! Every four seconds, and when this member has become leader, it asks the others for their versions: the cluster's rises
//! when all members' are higher, falls to the target of a downgrade, and stays as long as somebody does not answer. A
//! downgrade ends when all members run its target. What is decided goes through the log; each member's log says so when
//! it is applied.
//!
//! Source: etcd `server/etcdserver/version/monitor.go`, `monitorClusterVersions`, `monitorDowngrade`. A lone member sets
//! its first version itself, without waiting for this (`node`).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use milepost_machine::{ClusterInfo, Membership, Version};
use milepost_node::log::{Log, Value};
use milepost_node::{Completion, CompletionSink, Node, Role, Waiter};
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::etcdserverpb::{InternalRaftRequest, RequestHeader};
use milepost_proto::membershippb::{ClusterVersionSetRequest, DowngradeInfoSetRequest};
use parking_lot::Mutex;

use super::ask::Ask;
use crate::version::ETCD_VERSION;

/// Source: etcd `monitorVersionInterval`.
const INTERVAL: Duration = Duration::from_secs(4);
/// Of a cluster whose members cannot all be asked when it forms. Source: etcd `version.MinClusterVersion`.
const LOWEST: Version = Version { major: 3, minor: 0, patch: 0 };

/// Watches over the versions from a thread of its own, until `node` stops.
///
/// # Errors
/// The system gives no thread.
pub fn watch(
    node: Node,
    ask: impl Ask + Send + 'static,
    downgrade_interval: Duration,
    patience: Duration,
    log: Arc<dyn Log>,
) -> std::io::Result<()> {
    let monitor = Monitor { node, ask, downgrade_interval, patience, log };
    std::thread::Builder::new().name("versions".to_owned()).spawn(move || monitor.run()).map(drop)
}

struct Monitor<A> {
    node: Node,
    ask: A,
    /// How often the end of a downgrade is looked for; 0: never.
    downgrade_interval: Duration,
    /// For each answer: of a member, and of the log.
    patience: Duration,
    log: Arc<dyn Log>,
}

/// Answers to what this room proposes, or reads.
struct Answers(Mutex<Sender<Completion>>);

impl CompletionSink for Answers {
    fn complete(&self, batch: &mut Vec<(u64, Completion)>) {
        for (_, completion) in batch.drain(..) {
            // Who asked may have given up.
            let _ = self.0.lock().send(completion);
        }
    }
}

fn waiter() -> (Waiter, Receiver<Completion>) {
    let (sender, receiver) = channel();
    (Waiter { sink: Arc::new(Answers(Mutex::new(sender))), ticket: 0 }, receiver)
}

impl<A: Ask> Monitor<A> {
    fn run(self) {
        let own = self.node.status().member_id.0;
        let (tell, elected) = channel();
        let tell = Mutex::new(tell);
        self.node.watch_leader(Arc::new(move |leader, _| {
            if leader == own {
                // The watcher outlives this thread.
                let _ = tell.lock().send(());
            }
        }));
        let now = || self.node.clock().monotonic();
        let (mut next_look, mut next_end) = (now() + INTERVAL, now() + self.downgrade_interval);
        let ends = !self.downgrade_interval.is_zero();
        while self.node.stopped().is_none() {
            let next = if ends { next_look.min(next_end) } else { next_look };
            match elected.recv_timeout(next.saturating_sub(now())) {
                Ok(()) => next_look = now(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while elected.try_recv().is_ok() {}
            let (looks, ends) = (next_look <= now(), ends && next_end <= now());
            // A leader's word counts from its first commit on: that is when a read of its is confirmed.
            let leads = self.node.status().role == Role::Leader && self.is_confirmed();
            if looks {
                if leads {
                    self.look();
                }
                next_look = now() + INTERVAL;
            }
            if ends {
                if leads {
                    self.end_downgrade();
                }
                next_end = now() + self.downgrade_interval;
            }
        }
    }

    fn is_confirmed(&self) -> bool {
        let (waiter, answer) = waiter();
        self.node.read_index(waiter);
        matches!(answer.recv_timeout(self.patience), Ok(Completion::ReadReady))
    }

    fn look(&self) {
        let membership = self.node.reader().membership();
        if membership.members.len() == 1 && self.node.reader().cluster_version().is_none() {
            return;
        }
        let Some(versions) = self.versions(&membership) else {
            if self.node.reader().cluster_version().is_none() {
                self.set(LOWEST);
            }
            return;
        };
        let cluster = self.node.reader().cluster();
        match decide(&cluster, versions.into_iter()) {
            Verdict::Keep => {}
            Verdict::Set(version) => self.set(version),
            Verdict::Impossible(from) => {
                let fields = [
                    ("downgrade-target", Value::from(cluster.downgrade.target.as_str())),
                    ("lowest-version", from.to_string().into()),
                ];
                self.log.error("cannot downgrade: the target is not one minor version lower", &fields);
            }
        }
    }

    /// Of every member, if all of them tell it.
    fn versions(&self, membership: &Membership) -> Option<Vec<Version>> {
        let own = self.node.status().member_id;
        let ours = Version::parse(ETCD_VERSION)?;
        let others: Vec<_> = membership.members.values().filter(|member| member.id != own).collect();
        let urls: Vec<Vec<String>> = others.iter().map(|member| member.peer_urls.clone()).collect();
        let mut versions = Some(vec![ours]);
        let answers = if urls.is_empty() { Vec::new() } else { self.ask.versions(&urls, self.patience) };
        for (member, answer) in others.iter().zip(answers) {
            let id = ("remote-member-id", Value::from(member.id.to_string()));
            match answer.map(|told| (Version::parse(&told.server), told.server)) {
                Ok((Some(version), text)) => {
                    if version > ours {
                        let fields = [
                            ("local-member-version", Value::from(ETCD_VERSION)),
                            id,
                            ("remote-member-version", text.into()),
                        ];
                        self.log.warn("leader found higher-versioned member", &fields);
                    }
                    versions.iter_mut().for_each(|versions| versions.push(version));
                }
                Ok((None, text)) => {
                    let fields = [id, ("remote-member-version", text.into())];
                    self.log.warn("failed to parse server version of remote member", &fields);
                    versions = None;
                }
                Err(why) => {
                    self.log.warn("failed to get version", &[id, ("error", why.into())]);
                    versions = None;
                }
            }
        }
        versions
    }

    fn set(&self, version: Version) {
        let text = |version: Version| Value::from(format!("{}.{}", version.major, version.minor));
        match self.node.reader().cluster_version() {
            None => {
                let fields = [("cluster-version", text(version))];
                self.log.info("setting up initial cluster version using v3 API", &fields);
            }
            Some(before) => {
                let fields = [("from", text(before)), ("to", text(version))];
                self.log.info("updating cluster version using v3 API", &fields);
            }
        }
        let ver = version.minor_only().to_string();
        self.propose("failed to update cluster version", Request::ClusterVersionSet(ClusterVersionSetRequest { ver }));
    }

    /// All members run the target: the downgrade is done.
    fn end_downgrade(&self) {
        let cluster = self.node.reader().cluster();
        if !cluster.downgrade.enabled {
            return;
        }
        let versions = self.versions(&self.node.reader().membership());
        if !versions.is_some_and(|versions| all_run(&cluster.downgrade.target, versions.into_iter())) {
            return;
        }
        let target = cluster.downgrade.target.as_str();
        self.log.info("the cluster has been downgraded", &[("cluster-version", target.into())]);
        let request = DowngradeInfoSetRequest { enabled: false, ..DowngradeInfoSetRequest::default() };
        self.propose("failed to cancel downgrade", Request::DowngradeInfoSet(request));
    }

    fn propose(&self, failure: &str, request: Request) {
        let id = self.node.next_request_id();
        let header = Some(RequestHeader { id, ..RequestHeader::default() });
        let payload = milepost_machine::encode(&InternalRaftRequest { header, id: 0, request: Some(request) });
        let (waiter, answer) = waiter();
        self.node.propose(id, payload.into(), waiter);
        let why = match answer.recv_timeout(self.patience) {
            Ok(Completion::Reply(Ok(_))) => return,
            Ok(Completion::Reply(Err(why))) => why.to_string(),
            Ok(Completion::Failed(why)) => why.to_string(),
            Ok(Completion::ReadReady) | Err(_) => "no answer".to_owned(),
        };
        self.log.warn(failure, &[("error", why.into())]);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Set(Version),
    /// A downgrade that cannot be: from this version.
    Impossible(Version),
}

/// What becomes of the cluster's version. `versions`: of all members.
fn decide(cluster: &ClusterInfo, versions: impl Iterator<Item = Version>) -> Verdict {
    let Some(lowest) = versions.min().map(Version::minor_only) else { return Verdict::Keep };
    let Some(current) = cluster.version else { return Verdict::Set(lowest) };
    let target = if cluster.downgrade.enabled { Version::parse(&cluster.downgrade.target) } else { None };
    match target {
        Some(target) if target == current => Verdict::Keep,
        Some(target) => match [current, lowest].into_iter().find(|from| !is_one_below(*from, target)) {
            Some(from) => Verdict::Impossible(from),
            None => Verdict::Set(target),
        },
        None if current < lowest && current.major == lowest.major => Verdict::Set(lowest),
        None => Verdict::Keep,
    }
}

fn is_one_below(from: Version, target: Version) -> bool {
    (target.major, target.minor + 1) == (from.major, from.minor)
}

fn all_run(target: &str, mut versions: impl Iterator<Item = Version>) -> bool {
    Version::parse(target).is_some_and(|target| versions.all(|version| version.minor_only() == target.minor_only()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_machine::Downgrade;

    fn version(text: &str) -> Version {
        Version::parse(text).expect("a version")
    }

    fn decided(cluster: &str, target: &str, members: &[&str]) -> Verdict {
        let downgrade = Downgrade { target: target.to_owned(), enabled: !target.is_empty() };
        let cluster = ClusterInfo { version: Version::parse(cluster), downgrade };
        decide(&cluster, members.iter().map(|text| version(text)))
    }

    #[test]
    fn the_lowest_member_counts() {
        assert_eq!(decided("", "", &["3.7.1", "3.6.14"]), Verdict::Set(version("3.6.0")));
        assert_eq!(decided("3.6.0", "", &["3.7.1", "3.6.14"]), Verdict::Keep);
        assert_eq!(decided("3.6.0", "", &["3.7.1", "3.7.0"]), Verdict::Set(version("3.7.0")));
        assert_eq!(decided("3.0.0", "", &["3.7.1"]), Verdict::Set(version("3.7.0")));
        assert_eq!(decided("3.7.0", "", &["3.6.1", "3.7.1"]), Verdict::Keep, "a version never falls by itself");
    }

    #[test]
    fn a_downgrade_goes_one_minor_down_and_stays() {
        assert_eq!(decided("3.7.0", "3.6.0", &["3.7.1", "3.7.1"]), Verdict::Set(version("3.6.0")));
        assert_eq!(decided("3.6.0", "3.6.0", &["3.7.1", "3.6.1"]), Verdict::Keep);
        assert_eq!(decided("3.7.0", "3.5.0", &["3.7.1"]), Verdict::Impossible(version("3.7.0")));
        assert_eq!(decided("3.7.0", "3.6.0", &["3.8.0", "3.8.0"]), Verdict::Impossible(version("3.8.0")));
    }

    #[test]
    fn a_downgrade_ends_when_all_run_its_target() {
        let all = |versions: &[&str]| all_run("3.6.0", versions.iter().map(|text| version(text)));
        assert!(all(&["3.6.14", "3.6.0"]));
        assert!(!all(&["3.6.14", "3.7.1"]));
    }
}
