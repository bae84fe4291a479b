//! The machine: entries in, replies and effects out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use milepost_mvcc::{Opened, SmallTable, Store, Writer};
use milepost_proto::Message;
use milepost_proto::etcdserverpb::InternalRaftRequest;
use milepost_proto::raftpb::{ConfChange, ConfState};
use milepost_types::{LeaseId, LogIndex, Term};

use crate::alarm::Alarms;
use crate::cluster::{ClusterInfo, Version};
use crate::config::Config;
use crate::entry::{self, Applied, Effect, Entry, EntryKind, Reply};
use crate::error::{Error, Fatal};
use crate::lease::{self, Lessor};
use crate::member::{Membership, conf_state_from_bytes};
use crate::reader::Reader;
use crate::step::{Done, LeaseChange, Step};

/// What apply publishes and everyone else reads.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// Replaced as a whole when a snapshot of another member is installed.
    pub(crate) store: ArcSwap<Store>,
    pub(crate) lessor: Arc<Lessor>,
    pub(crate) membership: ArcSwap<Membership>,
    pub(crate) alarms: ArcSwap<Alarms>,
    pub(crate) cluster: ArcSwap<ClusterInfo>,
}

/// The replicated state machine of this member; owned by the thread that applies.
///
/// Invariants: the state is that after entry `applied`; what readers see never lies ahead of it; `conf_state` is what
/// the store holds.
pub struct Machine {
    shared: Arc<Shared>,
    writer: Writer,
    /// Moves by one with each entry.
    applied: LogIndex,
    term: Term,
    conf_state: ConfState,
}

/// Everything that the small tables say.
struct Loaded {
    membership: Membership,
    alarms: Alarms,
    cluster: ClusterInfo,
    leases: Vec<(LeaseId, i64, i64)>,
    conf_state: ConfState,
}

impl Loaded {
    fn read(opened: &Opened, config: &Config) -> Result<Self, Fatal> {
        let none = BTreeMap::new();
        let table = |table: SmallTable| opened.tables.get(&table).unwrap_or(&none);
        let conf_state = conf_state_from_bytes(&opened.conf_state).map_err(|e| Fatal::BrokenRecord {
            table: "meta",
            key: "conf state".into(),
            why: e.to_string(),
        })?;
        let cluster = ClusterInfo::load(table(SmallTable::Cluster))?;
        let mut leases = lease::load(table(SmallTable::Lease))?;
        // As after a grant; the record keeps what was granted. Source: etcd `initAndRecover`.
        leases.iter_mut().for_each(|(_, ttl, _)| *ttl = (*ttl).max(config.min_lease_ttl));
        Ok(Self {
            membership: Membership::load(table(SmallTable::Members), table(SmallTable::Removed))?,
            alarms: Alarms::load(table(SmallTable::Alarm))?,
            cluster,
            leases,
            conf_state,
        })
    }
}

/// Could a machine be opened over this?
///
/// # Errors
/// As [`Machine::open`].
pub(crate) fn check_opened(opened: &Opened, config: &Config) -> Result<(), Fatal> {
    let loaded = Loaded::read(opened, config)?;
    loaded.cluster.version.map_or(Ok(()), |version| check_version(config, version, opened.applied))
}

impl Machine {
    /// The machine over a store that was just opened; the next entry to apply is the one after `opened.applied`.
    ///
    /// # Errors
    /// [`Fatal::BrokenRecord`] if a record of a small table cannot be read; [`Fatal::VersionTooNew`] if the cluster has
    /// moved to a version above ours.
    pub fn open(store: Store, writer: Writer, opened: &Opened, config: Config) -> Result<Self, Fatal> {
        let loaded = Loaded::read(opened, &config)?;
        if let Some(version) = loaded.cluster.version {
            check_version(&config, version, opened.applied)?;
        }
        let lessor = Lessor::new(config.lease_checkpoint_interval);
        lessor.load(loaded.leases);
        let shared = Arc::new(Shared {
            config,
            store: ArcSwap::from_pointee(store),
            lessor: Arc::new(lessor),
            membership: ArcSwap::from_pointee(loaded.membership),
            alarms: ArcSwap::from_pointee(loaded.alarms),
            cluster: ArcSwap::from_pointee(loaded.cluster),
        });
        Ok(Self { shared, writer, applied: opened.applied, term: opened.term, conf_state: loaded.conf_state })
    }

    /// Goes on with another store: the snapshot of another member has been installed. Readers follow; leases do not run
    /// until promoted again. Returns the writer of the old store.
    ///
    /// # Errors
    /// As [`Machine::open`]; nothing is replaced then.
    pub fn replace(&mut self, store: Store, writer: Writer, opened: &Opened) -> Result<Writer, Fatal> {
        let loaded = Loaded::read(opened, &self.shared.config)?;
        if let Some(version) = loaded.cluster.version {
            check_version(&self.shared.config, version, opened.applied)?;
        }
        self.shared.lessor.load(loaded.leases);
        self.shared.store.store(Arc::new(store));
        self.shared.membership.store(Arc::new(loaded.membership));
        self.shared.alarms.store(Arc::new(loaded.alarms));
        self.shared.cluster.store(Arc::new(loaded.cluster));
        (self.applied, self.term, self.conf_state) = (opened.applied, opened.term, loaded.conf_state);
        Ok(std::mem::replace(&mut self.writer, writer))
    }

    /// Position and term of the last entry applied.
    #[must_use]
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.applied, self.term)
    }

    /// Raft's configuration after that entry.
    #[must_use]
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// For local reads, on any thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The leases, for the leader's timing.
    #[must_use]
    pub fn lessor(&self) -> Arc<Lessor> {
        Arc::clone(&self.shared.lessor)
    }

    /// Says what does not hold; for tests and the simulator, after each entry.
    ///
    /// Members and Raft's configuration name the same voters and learners; no removed id is a member; the lessor's own
    /// rules.
    ///
    /// # Errors
    /// The first rule that is broken, with the values.
    pub fn check(&self) -> Result<(), String> {
        let membership = self.shared.membership.load();
        let ids = |learner: bool| {
            let members = membership.members.values().filter(move |member| member.is_learner == learner);
            members.map(|member| member.id.0).collect::<Vec<_>>()
        };
        let (voters, learners) = (ids(false), ids(true));
        if (&voters, &learners) != (&self.conf_state.voters, &self.conf_state.learners) {
            return Err(format!("voters {voters:?}, learners {learners:?}, but Raft has {:?}", self.conf_state));
        }
        if let Some(id) = membership.removed.iter().find(|id| membership.members.contains_key(id)) {
            return Err(format!("member {id} was removed"));
        }
        self.shared.lessor.check()
    }

    /// Ends writing; the store can then be closed.
    #[must_use]
    pub fn into_writer(self) -> Writer {
        self.writer
    }

    /// The membership as a v2 store, for the data of a Raft snapshot of this state.
    #[must_use]
    pub fn membership_v2_json(&self) -> Vec<u8> {
        self.shared.membership.load().v2_json(self.shared.cluster.load().version)
    }

    /// Applies the next entry. `want_reply`: somebody on this member waits for the answer; without, entries that only
    /// read are skipped and no reply is made, with the same state after it.
    ///
    /// # Errors
    /// [`Fatal`]: the member must stop; the entry is not applied and nothing of it is visible.
    pub fn apply(&mut self, entry: Entry<'_>, want_reply: bool) -> Result<Applied, Fatal> {
        if entry.index != self.applied.next() {
            return Err(Fatal::OutOfOrder { applied: self.applied, got: entry.index });
        }
        let applied = match entry.kind {
            _ if entry.data.is_empty() => self.apply_empty(entry),
            EntryKind::Normal => self.apply_request(entry, want_reply),
            EntryKind::ConfChange => self.apply_conf_change(entry, want_reply),
        }?;
        (self.applied, self.term) = (entry.index, entry.term);
        Ok(applied)
    }

    fn apply_empty(&mut self, entry: Entry<'_>) -> Result<Applied, Fatal> {
        let mut step = Step::new(&mut self.writer, &self.shared, &self.conf_state, entry);
        step.effect(Effect::EmptyEntry { term: entry.term });
        let done = step.finish(Ok(Reply::Empty))?;
        Ok(self.publish(done, 0, None, false))
    }

    fn apply_request(&mut self, entry: Entry<'_>, want_reply: bool) -> Result<Applied, Fatal> {
        let undecodable = |why: String| Fatal::Undecodable { index: entry.index, why };
        let InternalRaftRequest { id, header, request } =
            InternalRaftRequest::decode(entry.data.clone()).map_err(|e| undecodable(e.to_string()))?;
        let request = request.ok_or_else(|| undecodable("a request of a kind that this version lacks".into()))?;
        let request_id = if id == 0 { header.map_or(0, |header| header.id) } else { id };

        let operation = entry::operation(&request);
        let mut step = Step::new(&mut self.writer, &self.shared, &self.conf_state, entry);
        let result = step.request(&request, want_reply);
        let done = step.finish(result)?;
        Ok(self.publish(done, request_id, Some(operation), want_reply))
    }

    fn apply_conf_change(&mut self, entry: Entry<'_>, want_reply: bool) -> Result<Applied, Fatal> {
        let change = ConfChange::decode(entry.data.clone())
            .map_err(|e| Fatal::Undecodable { index: entry.index, why: e.to_string() })?;
        let request_id = change.id();
        let mut step = Step::new(&mut self.writer, &self.shared, &self.conf_state, entry);
        let result = step.conf_change(change);
        let done = step.finish(result)?;
        Ok(self.publish(done, request_id, None, want_reply))
    }

    /// Lets everyone see what an entry did beside keys, which `mvcc` has published already.
    fn publish(&mut self, done: Done, request_id: u64, operation: Option<usize>, want_reply: bool) -> Applied {
        let Done { result, events, effects, next } = done;
        if let Some(membership) = next.membership {
            self.shared.membership.store(Arc::new(membership));
        }
        if let Some(alarms) = next.alarms {
            self.shared.alarms.store(Arc::new(alarms));
        }
        if let Some(cluster) = next.cluster {
            self.shared.cluster.store(Arc::new(cluster));
        }
        if let Some(conf_state) = next.conf_state {
            self.conf_state = conf_state;
        }
        for change in next.leases {
            match change {
                LeaseChange::Granted(id, ttl) => self.shared.lessor.granted(id, ttl),
                LeaseChange::Revoked(id) => self.shared.lessor.revoked(id),
                LeaseChange::Checkpointed(id, remaining) => self.shared.lessor.checkpointed(id, remaining),
            }
        }
        let refused = !matches!(result, Ok(_) | Err(Error::Compacted));
        Applied { request_id, operation, refused, reply: want_reply.then_some(result), events, effects }
    }
}

/// A cluster version above ours asks for things that this program does not know.
pub(crate) fn check_version(config: &Config, version: Version, index: LogIndex) -> Result<(), Fatal> {
    let server = config.server_version;
    if server.minor_only() < version.minor_only() {
        return Err(Fatal::VersionTooNew { index, cluster: version.to_string(), server: server.to_string() });
    }
    Ok(())
}
