//! The whole state as etcd's own database file, written as a stream: what snapshots for other members, and of
//! `etcdctl snapshot save`, consist of.
//!
//! The small tables already have the rows of etcd's buckets, so that only history and `meta` are translated. What the
//! buckets hold: `facts/bbolt-format.md` §2.

use std::collections::BTreeMap;
use std::io::{self, Write};

use milepost_bolt::{EmitError, Emitter, Plan, PlanError, Planner};
use milepost_mvcc::{Export, SmallTable, Store, StoreError};
use milepost_proto::raftpb::ConfState;
use milepost_types::{LogIndex, Term};

use crate::cluster::{ClusterInfo, VERSION_KEY, Version};
use crate::error::Fatal;
use crate::member::{Membership, conf_state_from_bytes};

/// etcd's buckets in their order in the file, with the table each comes from.
pub(crate) const BUCKETS: [(&str, Source); 10] = [
    ("alarm", Source::Rows(SmallTable::Alarm)),
    ("auth", Source::Rows(SmallTable::Auth)),
    ("authRoles", Source::Rows(SmallTable::Roles)),
    ("authUsers", Source::Rows(SmallTable::Users)),
    ("cluster", Source::Rows(SmallTable::Cluster)),
    ("key", Source::History),
    ("lease", Source::Rows(SmallTable::Lease)),
    ("members", Source::Rows(SmallTable::Members)),
    ("members_removed", Source::Rows(SmallTable::Removed)),
    ("meta", Source::Meta),
];

/// First version whose files name the version of their schema.
const FIRST_STORAGE_VERSION: Version = Version { major: 3, minor: 6, patch: 0 };

#[derive(Clone, Copy)]
pub(crate) enum Source {
    Rows(SmallTable),
    History,
    Meta,
}

/// Why no database came out.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store holds what etcd's format cannot.
    #[error("etcd's file format cannot hold the store: {0}")]
    Plan(#[from] PlanError),
    /// The receiver went away, or the two passes over the store differ.
    #[error(transparent)]
    Emit(#[from] EmitError),
}

/// A committed state, ready to be written. While it lives, compactions delete nothing: the owner limits that time.
pub struct Database {
    export: Export,
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    storage_version: Option<Version>,
    plan: Plan,
}

impl Database {
    /// Commits everything applied so far, fixes that state and learns its size: one pass over history.
    ///
    /// # Errors
    /// [`DatabaseError::Store`], or a key longer than etcd's format allows (32 KiB): [`DatabaseError::Plan`].
    pub fn prepare(store: &Store) -> Result<Self, DatabaseError> {
        let export = store.export()?;
        let storage_version = storage_version(&export);
        let meta = meta(&export, storage_version);
        let mut planner = Planner::new();
        for (bucket, source) in BUCKETS {
            planner.bucket(bucket.as_bytes())?;
            each(&export, &meta, source, &mut |key, value| Ok(planner.item(key, value.len())?))?;
        }
        let plan = planner.finish();
        Ok(Self { export, meta, storage_version, plan })
    }

    /// Bytes that [`Database::write`] writes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.plan.total_bytes()
    }

    /// Position of the last entry in it: the index of a Raft snapshot made of it.
    #[must_use]
    pub const fn applied(&self) -> LogIndex {
        self.export.applied()
    }

    /// Term of that entry.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.export.term()
    }

    /// Raft's configuration after that entry.
    ///
    /// # Errors
    /// [`Fatal::BrokenRecord`] if the store holds none that can be read.
    pub fn conf_state(&self) -> Result<ConfState, Fatal> {
        conf_state_from_bytes(self.export.conf_state()).map_err(|why| Fatal::BrokenRecord {
            table: "meta",
            key: "conf state".into(),
            why: why.to_string(),
        })
    }

    /// The membership after that entry as a v2 store: the data of a Raft snapshot.
    ///
    /// # Errors
    /// [`Fatal::BrokenRecord`] if a record of a member cannot be read.
    pub fn membership_v2_json(&self) -> Result<Vec<u8>, Fatal> {
        let rows = |table| self.export.rows(table);
        let membership = Membership::load(rows(SmallTable::Members), rows(SmallTable::Removed))?;
        Ok(membership.v2_json(ClusterInfo::load(rows(SmallTable::Cluster))?.version))
    }

    /// Newest revision in it.
    #[must_use]
    pub const fn revision(&self) -> i64 {
        self.export.revision()
    }

    /// Schema of its buckets; `None` before the cluster has agreed on a version of at least 3.6.
    #[must_use]
    pub const fn storage_version(&self) -> Option<Version> {
        self.storage_version
    }

    /// Writes the file from its first byte to its last; `out` may block as long as it likes.
    ///
    /// # Errors
    /// As the store's and `out`'s; what was written is to be thrown away then.
    pub fn write<W: Write>(self, out: W) -> Result<W, DatabaseError> {
        // bbolt counts transactions from 0; nobody compares them between files.
        let mut emitter = Emitter::new(self.plan, 2, out)?;
        for (bucket, source) in BUCKETS {
            emitter.bucket(bucket.as_bytes())?;
            each(&self.export, &self.meta, source, &mut |key, value| Ok(emitter.item(key, value)?))?;
        }
        Ok(emitter.finish()?)
    }
}

impl From<DatabaseError> for io::Error {
    fn from(error: DatabaseError) -> Self {
        Self::other(error)
    }
}

/// Takes a key and its value.
type Item<'i> = &'i mut dyn FnMut(&[u8], &[u8]) -> Result<(), DatabaseError>;

/// Calls `item` with the rows of one bucket.
fn each(
    export: &Export,
    meta: &BTreeMap<Vec<u8>, Vec<u8>>,
    source: Source,
    item: Item<'_>,
) -> Result<(), DatabaseError> {
    let rows = match source {
        Source::Rows(table) => export.rows(table),
        Source::Meta => meta,
        Source::History => {
            for chunk in export.records() {
                chunk?.iter().try_for_each(|(key, value)| item(key, value))?;
            }
            return Ok(());
        }
    };
    rows.iter().try_for_each(|(key, value)| item(key, value))
}

fn storage_version(export: &Export) -> Option<Version> {
    let text = export.rows(SmallTable::Cluster).get(VERSION_KEY)?;
    let version = Version::parse(std::str::from_utf8(text).ok()?)?.minor_only();
    (version >= FIRST_STORAGE_VERSION).then_some(version)
}

/// The rows of etcd's bucket `meta`.
fn meta(export: &Export, storage_version: Option<Version>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    let mut put = |key: &str, value: Vec<u8>| drop(rows.insert(key.as_bytes().to_vec(), value));
    put("consistent_index", export.applied().0.to_be_bytes().to_vec());
    put("term", export.term().0.to_be_bytes().to_vec());
    if !export.conf_state().is_empty() {
        put("confState", export.conf_state().to_vec());
    }
    let (scheduled, finished) = export.compactions();
    for (key, bound) in [("scheduledCompactRev", scheduled), ("finishedCompactRev", finished)] {
        if let Some(bound) = bound {
            put(key, [&bound.to_be_bytes()[..], b"_", &[0; 8]].concat());
        }
    }
    if let Some(version) = storage_version {
        put("storageVersion", version.to_string().into_bytes());
    }
    rows
}
