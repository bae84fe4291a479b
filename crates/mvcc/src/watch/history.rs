//! What the hub needs to know of the store.

use std::sync::Arc;

use milepost_types::Revision;

use crate::{Record, Store, StoreError};

/// The past of the keyspace, as far as it is published.
///
/// The store is one; a trait so that tests can put faults in between.
pub trait History: Send + Sync {
    /// The newest published main revision. Never goes back.
    fn revision(&self) -> i64;

    /// Everything below this main revision is gone; −1: nothing was ever compacted.
    fn compact_revision(&self) -> i64;

    /// Records at or after `from`, in revision order, none above the published revision.
    ///
    /// Stops after `max_records` or about `max_bytes`, whichever comes first, but returns at least one record if there is one:
    /// only an empty answer means that nothing follows.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if `from` lies below the compacted revision, or the records could not be read.
    fn history(&self, from: Revision, max_records: usize, max_bytes: usize) -> Result<Vec<Arc<Record>>, StoreError>;

    /// What `record`'s key held before the request that wrote `record`, that is at `record.revision.main - 1`.
    ///
    /// `None`: the key did not exist, or that state is compacted away.
    ///
    /// # Errors
    /// The record could not be read.
    fn previous(&self, record: &Record) -> Result<Option<Arc<Record>>, StoreError>;
}

impl History for Store {
    fn revision(&self) -> i64 {
        self.revision()
    }

    fn compact_revision(&self) -> i64 {
        self.compact_revision()
    }

    fn history(&self, from: Revision, max_records: usize, max_bytes: usize) -> Result<Vec<Arc<Record>>, StoreError> {
        self.history(from, max_records, max_bytes)
    }

    fn previous(&self, record: &Record) -> Result<Option<Arc<Record>>, StoreError> {
        self.previous(record)
    }
}
