//! Do all members hold the same? Hashes of the keyspace are compared: at a restart with everybody's, on the leader what
//! each compaction leaves, and everything every so often if asked for.
//!
//! Source: etcd `server/etcdserver/corrupt.go`. One thing is stricter: a CORRUPT alarm stops the whole cluster from
//! writing, so it is raised only after a second comparison at another revision has found the same.

mod field;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use milepost_mvcc::HashKv;
use milepost_node::log::{Log, Value};
use milepost_types::MemberId;

pub use field::{Field, Times, Watch};

/// Why another member's hash is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It has compacted the revision.
    Compacted,
    /// It has not come so far.
    Future,
    /// It belongs to another cluster.
    OtherCluster,
    /// No answer, or none that helps.
    Silent(String),
}

/// What another member says of its keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Theirs {
    /// Who.
    pub member: MemberId,
    /// Where it was asked.
    pub urls: Vec<String>,
    /// Its hash, and its newest revision then.
    pub hash: Result<(HashKv, i64), Unknown>,
}

/// The members, as far as the checks see them.
pub trait Members {
    /// This member.
    fn own_id(&self) -> MemberId;

    /// This member's hash up to `revision` (0: all), and its newest revision.
    ///
    /// # Errors
    /// Why there is none.
    fn own(&self, revision: i64) -> Result<(HashKv, i64), String>;

    /// What the last compactions left here, newest first.
    fn compactions(&self) -> Vec<HashKv>;

    /// The hashes of all others, asked at once.
    fn others(&self, revision: i64) -> Vec<Theirs>;

    /// Waits until everything committed before now is applied here.
    ///
    /// # Errors
    /// Nobody confirmed it in time.
    fn read_barrier(&self) -> Result<(), String>;

    /// Has the CORRUPT alarm raised for `member`; 0: nobody knows whose data are wrong.
    fn raise(&self, member: MemberId);

    /// How long one question may take.
    fn timeout(&self) -> Duration;

    /// Waits a moment: a compaction under way may end meanwhile, whose deletions some hashes see half done.
    fn settle(&self);
}

/// Compares.
pub struct Checker<'a, M: Members> {
    members: M,
    log: &'a dyn Log,
    /// Compactions up to here are the same everywhere.
    checked: i64,
    /// The last compaction that was not, and who is suspected since.
    suspected: Option<(i64, BTreeSet<MemberId>)>,
}

impl<'a, M: Members> Checker<'a, M> {
    /// Nothing is compared yet.
    #[must_use]
    pub fn new(members: M, log: &'a dyn Log) -> Self {
        Self { members, log, checked: 0, suspected: None }
    }

    fn own(&self) -> (&'static str, Value) {
        ("local-member-id", self.members.own_id().to_string().into())
    }

    /// Compares this member with those that answer, before it talks to them. Members that are not there, are behind, or
    /// have compacted other revisions say nothing.
    ///
    /// # Errors
    /// Somebody has other data at the same revision: which of the two is wrong is not known, and this one must not join.
    pub fn initial(&self) -> Result<(), String> {
        let own = self.own();
        let fields = [own.clone(), ("timeout", self.members.timeout().into())];
        self.log.info("starting initial corruption check", &fields);
        let hash = || match self.members.own(0) {
            Ok((hash, _)) => Ok(hash),
            Err(why) => Err(format!("{} failed to fetch hash ({why})", self.members.own_id())),
        };
        if self.differ_initially(&hash()?) {
            self.members.settle();
            if self.differ_initially(&hash()?) {
                return Err(format!("{} found data inconsistency with peers", self.members.own_id()));
            }
        }
        self.log.info("initial corruption checking passed; no corruption", &[own]);
        Ok(())
    }

    /// Does anybody hold something else?
    fn differ_initially(&self, hash: &HashKv) -> bool {
        let others = self.members.others(hash.hash_revision);
        // All are told of, not only the first.
        others.iter().filter(|theirs| self.compare_initially(hash, theirs)).count() > 0
    }

    /// Does it hold something else?
    fn compare_initially(&self, hash: &HashKv, theirs: &Theirs) -> bool {
        let mut fields = vec![
            self.own(),
            ("local-member-revision", Value::Int(hash.hash_revision)),
            ("local-member-compact-revision", Value::Int(hash.compact_revision)),
            ("local-member-hash", Value::Int(hash.hash.into())),
            ("remote-peer-id", theirs.member.to_string().into()),
            ("remote-peer-endpoints", theirs.urls.clone().into()),
        ];
        let (message, differs) = match &theirs.hash {
            Ok((other, _)) if other.hash == hash.hash => return false,
            Ok((other, revision)) => {
                fields.extend([
                    ("remote-peer-revision", Value::Int(*revision)),
                    ("remote-peer-compact-revision", Value::Int(other.compact_revision)),
                    ("remote-peer-hash", Value::Int(other.hash.into())),
                ]);
                if other.compact_revision == hash.compact_revision {
                    ("found different hash values from remote peer", true)
                } else {
                    ("found different compact revision values from remote peer", false)
                }
            }
            Err(Unknown::Future) => ("cannot fetch hash from slow remote peer", false),
            Err(Unknown::Compacted) => ("cannot fetch hash from remote peer; local member is behind", false),
            Err(Unknown::OtherCluster) => ("cluster ID mismatch", false),
            // Told where it was asked.
            Err(Unknown::Silent(_)) => return false,
        };
        self.log.warn(message, &fields);
        differs
    }

    /// The leader compares everything it has.
    ///
    /// # Errors
    /// The comparison could not be made.
    pub fn periodic(&self) -> Result<(), String> {
        let newest = self.members.own(0)?.0;
        let (suspects, checked) = self.compare_all(&newest)?;
        if !suspects.is_empty() {
            self.log.warn(AGAIN, &[("peer-ids", shown(&suspects))]);
            self.members.settle();
            let again = match self.another(newest.hash_revision)? {
                Some(hash) => self.compare_all(&hash)?.0,
                None => BTreeSet::new(),
            };
            // One alarm stops the cluster: more would say no more.
            if let Some(member) = suspects.intersection(&again).next() {
                self.members.raise(*member);
            }
        }
        self.log.info("finished peer corruption check", &[("number-of-peers-checked", Value::from(checked))]);
        Ok(())
    }

    /// This member's hash at another revision than `revision`: the newest, or the one before; `None` if all the rest is
    /// compacted.
    fn another(&self, revision: i64) -> Result<Option<HashKv>, String> {
        let newest = self.members.own(0)?.0;
        if newest.hash_revision != revision {
            return Ok(Some(newest));
        }
        let before = revision - 1;
        if before <= newest.compact_revision.max(0) { Ok(None) } else { Ok(Some(self.members.own(before)?.0)) }
    }

    /// Who differs from this leader, whose hash is `hash`, and how many have answered.
    fn compare_all(&self, hash: &HashKv) -> Result<(BTreeSet<MemberId>, usize), String> {
        let others = self.members.others(hash.hash_revision);
        self.members.read_barrier()?;
        let (again, current) = self.members.own(hash.hash_revision)?;
        let mut suspects = BTreeSet::new();
        if again.hash != hash.hash && again.compact_revision == hash.compact_revision {
            let fields = [
                ("revision-1", Value::Int(hash.hash_revision)),
                ("compact-revision-1", Value::Int(hash.compact_revision)),
                ("hash-1", Value::Int(hash.hash.into())),
                ("revision-2", Value::Int(again.hash_revision)),
                ("compact-revision-2", Value::Int(again.compact_revision)),
                ("hash-2", Value::Int(again.hash.into())),
            ];
            self.log.warn("found hash mismatch", &fields);
            suspects.insert(self.members.own_id());
        }
        let mut checked = 0_usize;
        for theirs in &others {
            let Ok((other, revision)) = &theirs.hash else { continue };
            checked += 1;
            if self.differs(theirs.member, hash, again.compact_revision, current, (other, *revision)) {
                suspects.insert(theirs.member);
            }
        }
        Ok((suspects, checked))
    }

    /// A follower may lag, but not be ahead, and at the same compaction it holds the same.
    fn differs(
        &self,
        member: MemberId,
        hash: &HashKv,
        compacted: i64,
        current: i64,
        (other, revision): (&HashKv, i64),
    ) -> bool {
        let id = ("follower-peer-id", Value::from(member.to_string()));
        let mut differs = false;
        if revision > current {
            let fields =
                [("leader-revision", Value::Int(current)), ("follower-revision", Value::Int(revision)), id.clone()];
            self.log.warn("revision from follower must be less than or equal to leader's", &fields);
            differs = true;
        }
        if other.compact_revision > compacted {
            let fields = [
                ("leader-compact-revision", Value::Int(compacted)),
                ("follower-compact-revision", Value::Int(other.compact_revision)),
                id.clone(),
            ];
            self.log.warn("compact revision from follower must be less than or equal to leader's", &fields);
            differs = true;
        }
        if other.compact_revision == hash.compact_revision && other.hash != hash.hash {
            let fields = [
                ("leader-compact-revision", Value::Int(compacted)),
                ("leader-hash", Value::Int(hash.hash.into())),
                ("follower-compact-revision", Value::Int(other.compact_revision)),
                ("follower-hash", Value::Int(other.hash.into())),
                id,
            ];
            self.log.warn("same compact revision then hashes must match", &fields);
            differs = true;
        }
        differs
    }

    /// The leader compares what compactions have left, the newest first, until one is the same everywhere.
    pub fn compactions(&mut self) {
        let fields = [self.own(), ("timeout", self.members.timeout().into())];
        self.log.info("starting compact hash check", &fields);
        let mut hashes = self.members.compactions();
        hashes.retain(|hash| hash.hash_revision > self.checked);
        let mut compared = 0_usize;
        for hash in &hashes {
            let others = self.members.others(hash.hash_revision);
            if others.is_empty() {
                continue;
            }
            compared += 1;
            if self.compaction(hash, &others) {
                break;
            }
        }
        self.log.info("finished compaction hash check", &[("number-of-hashes-checked", Value::from(compared))]);
    }

    /// Compares one compaction; true: nothing older needs to be looked at.
    fn compaction(&mut self, hash: &HashKv, others: &[Theirs]) -> bool {
        let groups = self.group(hash, others);
        let compared = groups.values().map(BTreeSet::len).sum::<usize>() - 1;
        if groups.len() == 1 {
            return self.is_same(hash, compared, others.len());
        }
        let suspects = wrong(&groups, others.len() + 1);
        let leader = [
            ("leader-id", Value::from(self.members.own_id().to_string())),
            ("leader-revision", Value::Int(hash.hash_revision)),
            ("leader-compact-revision", Value::Int(hash.compact_revision)),
            ("leader-hash", Value::Int(hash.hash.into())),
        ];
        let has_quorum = !suspects.contains(&NOBODY);
        for (other, members) in &groups {
            if has_quorum && members.is_disjoint(&suspects) {
                continue;
            }
            let mut fields = leader.to_vec();
            fields.extend([
                ("peer-hash", Value::Int((*other).into())),
                ("peer-ids", shown(members)),
                ("quorum-exist", Value::from(has_quorum)),
            ]);
            self.log.error("Detected compaction hash mismatch", &fields);
        }
        self.confirm(hash.hash_revision, &suspects, &leader);
        true
    }

    /// Members by hash. Those with another compaction before, or without an answer, are left out.
    fn group(&self, hash: &HashKv, others: &[Theirs]) -> BTreeMap<u32, BTreeSet<MemberId>> {
        let mut groups = BTreeMap::from([(hash.hash, BTreeSet::from([self.members.own_id()]))]);
        for theirs in others {
            let reason = match &theirs.hash {
                Ok((other, _)) if other.compact_revision == hash.compact_revision => {
                    groups.entry(other.hash).or_default().insert(theirs.member);
                    continue;
                }
                Ok((other, _)) => format!(
                    "the peer's CompactRevision {} doesn't match leader's CompactRevision {}",
                    other.compact_revision, hash.compact_revision
                ),
                Err(_) => "no response".to_owned(),
            };
            let fields = [
                ("number-of-peers", Value::from(others.len())),
                ("leader-id", self.members.own_id().to_string().into()),
                ("peer-id", theirs.member.to_string().into()),
                ("reason", reason.into()),
            ];
            self.log.warn("Skipped peer's hash", &fields);
        }
        groups
    }

    /// All that were compared hold the same; true if that were all.
    fn is_same(&mut self, hash: &HashKv, compared: usize, others: usize) -> bool {
        let mut fields = vec![
            ("number-of-peers-checked", Value::from(compared)),
            ("revision", Value::Int(hash.hash_revision)),
            ("compactRevision", Value::Int(hash.compact_revision)),
        ];
        if compared == others {
            self.log.info("successfully checked hash on whole cluster", &fields);
            self.checked = self.checked.max(hash.hash_revision);
            self.suspected = None;
            return true;
        }
        fields.push(("number-of-peers", Value::from(others)));
        let message = "skipped revision in compaction hash check; was not able to check all peers";
        self.log.warn(message, &fields);
        false
    }

    /// Raises the alarm for those of `suspects` that differ at another revision than `revision`, too. Who cannot be compared there now
    /// is compared again at the next round. Where a compaction has left no other revision, what an earlier round has found at
    /// an earlier compaction counts.
    fn confirm(&mut self, revision: i64, suspects: &BTreeSet<MemberId>, leader: &[(&'static str, Value)]) {
        self.log.warn(AGAIN, &[("peer-ids", shown(suspects))]);
        let earlier = self.suspected.replace((revision, suspects.clone()));
        let again = match (self.another(revision), earlier) {
            (Ok(Some(hash)), _) => {
                let others = self.members.others(hash.hash_revision);
                let groups = self.group(&hash, &others);
                if groups.len() == 1 {
                    return;
                }
                wrong(&groups, others.len() + 1)
            }
            (Ok(None), Some((before, suspected))) if before != revision => suspected,
            (Ok(None), _) => return,
            (Err(why), _) => return self.log.warn("failed to check hash KV", &[("error", why.into())]),
        };
        let confirmed: Vec<MemberId> = suspects.intersection(&again).copied().collect();
        if confirmed.contains(&NOBODY) {
            let message = "Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set the memberID as 0";
            self.log.error(message, leader);
        }
        confirmed.into_iter().for_each(|member| self.members.raise(member));
    }
}

/// Not a member: it is not known whose data are wrong.
const NOBODY: MemberId = MemberId(0);
/// Our own word before an alarm.
const AGAIN: &str = "hashes of members differ; comparing again at another revision before the alarm is raised";

/// Those outside of the group that is a quorum of `members`; without one, [`NOBODY`].
fn wrong(groups: &BTreeMap<u32, BTreeSet<MemberId>>, members: usize) -> BTreeSet<MemberId> {
    let quorum = members / 2 + 1;
    match groups.iter().find(|(_, group)| group.len() >= quorum) {
        Some((right, _)) => {
            let others = groups.iter().filter(|(hash, _)| *hash != right);
            others.flat_map(|(_, group)| group.iter().copied()).collect()
        }
        None => BTreeSet::from([NOBODY]),
    }
}

fn shown(members: &BTreeSet<MemberId>) -> Value {
    members.iter().map(MemberId::to_string).collect::<Vec<_>>().join(",").into()
}
