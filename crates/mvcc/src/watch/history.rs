//! What the hub needs to know of the store.

use std::fmt;
use std::sync::Arc;

use milepost_types::Revision;

use super::Record;

/// The past of the keyspace, as far as it is published.
///
/// Implemented by the store; tests and the simulation have one in memory.
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
    /// The record could not be read. `from` below the compacted revision may also fail; the hub asks
    /// [`History::compact_revision`] to tell the two apart.
    fn history(&self, from: Revision, max_records: usize, max_bytes: usize) -> Result<Vec<Arc<Record>>, HistoryError>;

    /// What `record`'s key held before the request that wrote `record`, that is at `record.revision.main - 1`.
    ///
    /// `None`: the key did not exist, or that state is compacted away.
    ///
    /// # Errors
    /// The record could not be read.
    fn previous(&self, record: &Record) -> Result<Option<Arc<Record>>, HistoryError>;
}

/// Why a part of the past could not be read, in words for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryError(pub String);

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HistoryError {}
