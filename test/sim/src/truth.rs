//! What is true for the whole cluster, seen from above: the rules that must hold after every step.

use crate::member::Member;
use crate::model::Model;
use milepost_node::Role;
use milepost_node::Stepped;
use milepost_proto::Message as _;
use milepost_proto::etcdserverpb::InternalRaftRequest;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::raftpb;
use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

/// States are compared at every index that this divides, and apply pauses there.
pub const COMPARE_EVERY: u64 = 8;

/// A lease reads its clock in milliseconds.
const CLOCK_STEP: u64 = 2_000;

/// A lease as its owner may believe in it.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// In microseconds.
    pub ttl: u64,
    /// When it was last promised.
    pub at: u64,
}

/// See the module.
#[derive(Default)]
pub struct Truth {
    /// By term.
    leaders: BTreeMap<u64, u64>,
    /// What an entry holds, by (index, term), and the term before it if that was seen.
    entries: BTreeMap<(u64, u64), (raftpb::Entry, Option<u64>)>,
    /// What was applied, by index.
    applied: BTreeMap<u64, raftpb::Entry>,
    /// What the state was, by index, and who was there first.
    states: BTreeMap<u64, (String, u64)>,
    /// The keyspace as it should be.
    pub model: Model,
    /// Leases and when they were promised.
    pub promises: BTreeMap<i64, Promise>,
    /// Request ids of clients that revoke a lease.
    pub revokes: BTreeSet<u64>,
    /// Requests that were in a log.
    seen: BTreeSet<u64>,
    /// Revokes by time that are in a log, by request id: too early?
    expiries: BTreeMap<u64, Option<String>>,
    /// Leases that ended by time.
    pub ended: u64,
    /// Checkpoints of leases that were proposed.
    pub checkpoints: u64,
    /// Members by id, as of the newest entry applied anywhere: is it a learner?
    pub members: BTreeMap<u64, bool>,
    /// Ids that were removed.
    pub removed: BTreeSet<u64>,
}

impl Truth {
    /// One leader per term; store durable ≤ applied ≤ min(committed, persisted); S ≤ durable; first − 1 ≤ S.
    pub fn check(&mut self, member: &Member, live: &Stepped) -> Result<bool, String> {
        let name = &member.name;
        let now = live.core().standing();
        let mut elected = false;
        if now.role == Role::Leader {
            match self.leaders.entry(now.term) {
                Slot::Vacant(slot) => {
                    slot.insert(member.id);
                    elected = true;
                }
                Slot::Occupied(slot) if *slot.get() != member.id => {
                    return Err(format!("term {} has two leaders: {:x} and {:x}", now.term, slot.get(), member.id));
                }
                Slot::Occupied(_) => {}
            }
        }
        let durable = crate::member::durable(&live.machine().reader()).0;
        let applied = live.machine().applied().0.0;
        let allowed = now.committed.min(now.persisted);
        if durable > applied || applied > allowed {
            return Err(format!(
                "{name}: store durable {durable} ≤ applied {applied} ≤ min(committed {}, persisted {}) does not hold",
                now.committed, now.persisted
            ));
        }
        let point = live.snapshot_point();
        if point > durable {
            return Err(format!("{name}: snapshot point {point} above the store's durable index {durable}"));
        }
        if now.first - 1 > point.max(member.received) {
            return Err(format!("{name}: the log begins at {}, the snapshot point is {point}", now.first));
        }
        Ok(elected)
    }

    /// Entries that somebody may rely on: they are on a member's disk, or were sent. `before`: the term before the first, if it is known.
    ///
    /// What was only in memory when the power went is nobody's: a lone voter may lose it together with its term, and use both
    /// again.
    pub fn note_entries(&mut self, mut before: Option<u64>, entries: &[raftpb::Entry]) -> Result<(), String> {
        for entry in entries.iter().map(plain) {
            let entry = &entry;
            let key = (entry.index(), entry.term());
            match self.entries.entry(key) {
                Slot::Vacant(slot) => {
                    slot.insert((entry.clone(), before));
                }
                Slot::Occupied(mut slot) => {
                    let (known, known_before) = slot.get_mut();
                    if known != entry {
                        return Err(format!(
                            "two entries at index {} of term {}: {known:?} and {entry:?}",
                            key.0, key.1
                        ));
                    }
                    if let (Some(known), Some(before)) = (*known_before, before)
                        && known != before
                    {
                        return Err(format!("entry {} of term {} follows terms {known} and {before}", key.0, key.1));
                    }
                    *known_before = known_before.or(before);
                }
            }
            before = Some(entry.term());
        }
        Ok(())
    }

    /// Entries that a member has just put into its log. Leases end only by their owner's wish, or after their time: whether
    /// it is too early is seen now, and counts once the entry is applied. A leader that does not know yet that it is one
    /// no longer puts revokes into its log that never take effect.
    pub fn note_leases(&mut self, entries: &[raftpb::Entry], now: u64) {
        for entry in entries.iter().filter(|entry| entry.r#type() != 1 && !entry.data().is_empty()) {
            let Ok(request) = InternalRaftRequest::decode(entry.data.clone().unwrap_or_default()) else { continue };
            let id = request.header.map_or(request.id, |header| header.id);
            if self.revokes.contains(&id) || !self.seen.insert(id) {
                continue;
            }
            match request.request {
                Some(Request::LeaseRevoke(revoke)) => {
                    let Some(promise) = self.promises.get(&revoke.id) else { continue };
                    let early = (promise.at + promise.ttl).saturating_sub(now);
                    let problem = (early > CLOCK_STEP).then(|| {
                        format!(
                            "lease {:x} ends {early} µs before its time: promised at {} µs for {} µs",
                            revoke.id, promise.at, promise.ttl
                        )
                    });
                    self.expiries.insert(id, problem);
                }
                Some(Request::LeaseCheckpoint(_)) => self.checkpoints += 1,
                _ => {}
            }
        }
    }

    fn note_expiry(&mut self, entry: &raftpb::Entry) -> Result<(), String> {
        if entry.r#type() == 1 || entry.data().is_empty() {
            return Ok(());
        }
        let Ok(request) = InternalRaftRequest::decode(entry.data.clone().unwrap_or_default()) else { return Ok(()) };
        let id = request.header.map_or(request.id, |header| header.id);
        match self.expiries.remove(&id) {
            None => Ok(()),
            Some(problem) => {
                self.ended += 1;
                problem.map_or(Ok(()), Err)
            }
        }
    }

    /// A member is about to apply `entry`. True if it is the first to do so.
    pub fn note_applied(&mut self, name: &str, entry: &raftpb::Entry) -> Result<bool, String> {
        let entry = &plain(entry);
        match self.applied.entry(entry.index()) {
            Slot::Occupied(slot) if slot.get() != entry => {
                Err(format!("{name} applies {entry:?}, others applied {:?}", slot.get()))
            }
            Slot::Occupied(_) => Ok(false),
            Slot::Vacant(slot) => {
                slot.insert(entry.clone());
                if entry.index() != self.model.applied + 1 {
                    return Err(format!("{name} applies {}, nobody applied {}", entry.index(), self.model.applied + 1));
                }
                self.note_expiry(entry)?;
                self.model.feed(entry)?;
                Ok(true)
            }
        }
    }

    /// The state of a member after an entry: equal to everybody's.
    pub fn note_state(&mut self, member: &Member, live: &Stepped) -> Result<(), String> {
        let index = live.machine().applied().0.0;
        let state = describe(live)?;
        match self.states.entry(index) {
            Slot::Vacant(slot) => {
                slot.insert((state, member.id));
                Ok(())
            }
            Slot::Occupied(slot) if slot.get().0 == state => Ok(()),
            Slot::Occupied(slot) => {
                let (other, id) = slot.get();
                Err(format!("after entry {index} two members differ:\n{:x}: {state}\n{id:x}: {other}", member.id))
            }
        }
    }

    /// Has every lease ended?
    pub fn promises_are_over(&self, now: u64) -> bool {
        self.model.leases().is_empty() && self.promises.values().all(|promise| promise.at <= now)
    }

    /// The last entry that anybody applied.
    pub fn last_applied(&self) -> u64 {
        self.model.applied
    }
}

/// One spelling of what is absent.
fn plain(entry: &raftpb::Entry) -> raftpb::Entry {
    raftpb::Entry {
        term: Some(entry.term()),
        index: Some(entry.index()),
        r#type: Some(entry.r#type()),
        data: Some(entry.data.clone().unwrap_or_default()),
    }
}

/// Everything replicated that a member holds, as text.
pub fn describe(live: &Stepped) -> Result<String, String> {
    let machine = live.machine();
    let reader = machine.reader();
    let hash = reader.hash_kv(0).map_err(|error| format!("the store cannot be hashed: {error}"))?;
    let lessor = machine.lessor();
    let mut leases: Vec<_> = lessor.ids().into_iter().map(|id| (id, lessor.replicated(id))).collect();
    leases.sort_unstable();
    let membership = reader.membership();
    Ok(format!(
        "hash {:08x} at {} compacted {} version {:?} alarms {:?} conf {:?} leases {leases:?} members {:?} removed {:?}",
        hash.hash,
        reader.revision(),
        reader.store().compact_revision(),
        reader.cluster_version(),
        reader.alarms().list(0),
        machine.conf_state(),
        membership.members.values().collect::<Vec<_>>(),
        membership.removed,
    ))
}
