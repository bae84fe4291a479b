//! The record of one change and the batch of one log entry, as the store publishes them.

use std::sync::Arc;

use bytes::Bytes;
use milepost_proto::mvccpb;
use milepost_types::{LeaseId, Revision};

/// One change of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The changed key.
    pub key: Bytes,
    /// Its value; empty for a tombstone.
    pub value: Bytes,
    /// Main revision that created the key; zero for a tombstone.
    pub create_revision: i64,
    /// This change.
    pub revision: Revision,
    /// Changes since the key was created, from 1; zero: a tombstone.
    pub version: i64,
    /// The lease it hangs on; zero: none.
    pub lease: LeaseId,
    /// The key's record before this one.
    pub previous: Revision,
    /// An older record of the key.
    pub jump: Revision,
}

impl Record {
    /// Does this record delete its key?
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// As clients see it.
    #[must_use]
    pub fn to_kv(&self) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: self.key.clone(),
            create_revision: self.create_revision,
            mod_revision: self.revision.main,
            version: self.version,
            value: self.value.clone(),
            lease: self.lease.0,
        }
    }
}

/// Every change of one log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBatch {
    /// The main revision they share.
    pub revision: i64,
    /// In order of sub revision; never empty.
    pub records: Vec<Arc<Record>>,
}
