//! A committed state of the whole store, readable at leisure while everything goes on: what snapshots are made from.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use milepost_engine::{Engine, ReadTxn, Table};
use milepost_types::{LogIndex, Revision, Term};

use crate::codec;
use crate::defragment::HistoryStays;
use crate::error::StoreError;
use crate::hash::encode;
use crate::store::Store;
use crate::tables::{APP_PREFIX, Meta, SmallTable};

/// Records and bytes read in one go: bounds how long a page of the engine stays in use.
const CHUNK_RECORDS: usize = 2000;
const CHUNK_BYTES: usize = 1 << 20;

/// The rows of a small table.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The store as one commit has left it. Small tables are copied, history is read again and again from the engine, in
/// which nothing up to this commit's revision changes: no compaction deletes anything while the export lives. Its
/// owner sets a limit to that; here is no clock.
pub struct Export {
    engine: Arc<dyn Engine>,
    rest: Rest,
    _history_stays: HistoryStays,
}

impl Store {
    /// Commits everything applied so far and fixes that state.
    ///
    /// # Errors
    /// If the engine fails, or a record fails its check.
    pub fn export(&self) -> Result<Export, StoreError> {
        self.force_sync()?;
        let inner = self.inner();
        let history_stays = HistoryStays::new(inner.clone());
        let engine = inner.engine();
        let rest = inner.note(Rest::read(&*engine))?;
        Ok(Export { engine, rest, _history_stays: history_stays })
    }
}

/// Everything but history, as one commit has left it.
struct Rest {
    meta: Meta,
    conf_state: Vec<u8>,
    tables: BTreeMap<SmallTable, Rows>,
}

impl Rest {
    fn read(engine: &dyn Engine) -> Result<Self, StoreError> {
        let txn = engine.read()?;
        let (meta, conf_state, _) = Meta::read(&*txn)?;
        let mut tables = BTreeMap::new();
        for table in SmallTable::ALL {
            tables.insert(table, read_rows(&*txn, table)?);
        }
        Ok(Self { meta, conf_state, tables })
    }
}

fn read_rows(txn: &dyn ReadTxn, table: SmallTable) -> Result<Rows, StoreError> {
    let from = if table == SmallTable::Meta { Bound::Included(APP_PREFIX) } else { Bound::Unbounded };
    let mut cursor = txn.scan(table.table(), from, Bound::Unbounded)?;
    let mut rows = Rows::new();
    while let Some((key, bytes)) = cursor.next()? {
        if table == SmallTable::Meta && !key.starts_with(APP_PREFIX) {
            break;
        }
        rows.insert(key.to_vec(), codec::decode_row(table.table(), key, bytes)?.to_vec());
    }
    Ok(rows)
}

impl Export {
    /// Position of the last entry in it.
    #[must_use]
    pub const fn applied(&self) -> LogIndex {
        self.rest.meta.applied
    }

    /// Term of that entry.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.rest.meta.term
    }

    /// Newest main revision.
    #[must_use]
    pub const fn revision(&self) -> i64 {
        self.rest.meta.revision
    }

    /// Bounds of the newest compaction that was asked for and of the newest that is done; `None`: none ever.
    #[must_use]
    pub fn compactions(&self) -> (Option<i64>, Option<i64>) {
        let bound = |bound: i64| (bound >= 0).then_some(bound);
        (bound(self.rest.meta.scheduled), bound(self.rest.meta.finished))
    }

    /// Raft's configuration, in the owner's encoding.
    #[must_use]
    pub fn conf_state(&self) -> &[u8] {
        &self.rest.conf_state
    }

    /// The rows of `table`; of `meta` those that are not the store's own.
    #[must_use]
    pub fn rows(&self, table: SmallTable) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.rest.tables[&table]
    }

    /// All records of history, oldest first, a chunk at a time.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records { export: self, from: Some(Revision::ZERO) }
    }
}

/// Key and value of a record as etcd stores them: revision (17 bytes; 18 with the `t` of a tombstone) and
/// `mvccpb.KeyValue`.
pub type StoredRecord = (Vec<u8>, Vec<u8>);

/// Iterator over chunks of records. Between two chunks no transaction of the engine is open, however long that takes.
pub struct Records<'e> {
    export: &'e Export,
    from: Option<Revision>,
}

impl Records<'_> {
    fn chunk(&self, from: Revision) -> Result<(Vec<StoredRecord>, Option<Revision>), StoreError> {
        const KEY_BYTES: usize = 17;
        let (first, last) = (from.to_bytes(), Revision::end_of(self.export.rest.meta.revision).to_bytes());
        let txn = self.export.engine.read()?;
        let mut cursor = txn.scan(Table::History, Bound::Included(&first), Bound::Included(&last))?;
        let (mut chunk, mut bytes, mut scratch) = (Vec::new(), 0, Vec::new());
        while let Some((key, value)) = cursor.next()? {
            let record = codec::decode_history(key, value)?;
            if chunk.len() >= CHUNK_RECORDS || bytes >= CHUNK_BYTES {
                return Ok((chunk, Some(record.revision)));
            }
            encode(&record, &mut scratch);
            let (key, value) = scratch.split_at(KEY_BYTES + usize::from(record.tombstone));
            bytes += scratch.len();
            chunk.push((key.to_vec(), value.to_vec()));
        }
        Ok((chunk, None))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Vec<StoredRecord>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let from = self.from.take()?;
        let chunk = self.chunk(from);
        Some(chunk.map(|(records, next)| {
            self.from = next;
            records
        }))
    }
}
