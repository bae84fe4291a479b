//! What can go wrong in the store.

use std::sync::Arc;

use milepost_engine::EngineError;

/// Why a call of the store failed. The first two are the caller's mistake and the same on every member.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for lies below the compaction floor.
    #[error("revision {asked} has been compacted; history starts at {floor}")]
    Compacted {
        /// What was asked.
        asked: i64,
        /// The compact revision.
        floor: i64,
    },
    /// The revision asked for lies above the newest.
    #[error("revision {asked} is in the future; the newest is {current}")]
    FutureRevision {
        /// What was asked.
        asked: i64,
        /// The newest revision.
        current: i64,
    },
    /// A key of no bytes cannot be stored.
    #[error("empty key")]
    EmptyKey,
    /// Records to import come in order, each revision once.
    #[error("record {revision} does not come after the one before it")]
    Order {
        /// Of the record.
        revision: milepost_types::Revision,
    },
    /// A stored record failed its check, or one is missing that must be there.
    #[error("store is corrupt: table {table}, record {record}: {what}; rebuild this member from a peer or a snapshot")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The record's key, readable.
        record: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The directory was written by a later version of this program.
    #[error("store format {found} is newer than this program's {known}; start the version that wrote it")]
    Format {
        /// Found on disk.
        found: u32,
        /// Newest this program reads.
        known: u32,
    },
    /// The engine failed.
    #[error("store engine: {0}")]
    Engine(Arc<EngineError>),
    /// The store was closed meanwhile.
    #[error("the store is being closed")]
    Closed,
    /// The store failed before and what is on disk is unknown: the member must stop.
    #[error("store has failed: {0}")]
    Failed(Arc<str>),
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Arc::new(error))
    }
}
