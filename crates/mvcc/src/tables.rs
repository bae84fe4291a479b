//! The small tables, and what the store itself remembers in `meta`.

use milepost_engine::{EngineError, ReadTxn, Table, WriteTxn};
use milepost_types::{LogIndex, Term};

use crate::codec;
use crate::error::StoreError;

/// A table that is read whole at open, kept in memory by its owner, and written behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SmallTable {
    /// Leases.
    Lease,
    /// Authentication switch and revision.
    Auth,
    /// Users.
    Users,
    /// Roles.
    Roles,
    /// Members of the cluster.
    Members,
    /// Ids of members that were removed.
    Removed,
    /// Alarms.
    Alarm,
    /// Cluster version and downgrade.
    Cluster,
    /// Odds and ends; keys begin with [`APP_PREFIX`], the others are the store's own.
    Meta,
}

/// What keys of [`SmallTable::Meta`] begin with.
pub const APP_PREFIX: &[u8] = b"app/";

impl SmallTable {
    /// Every small table.
    pub const ALL: [Self; 9] = [
        Self::Lease,
        Self::Auth,
        Self::Users,
        Self::Roles,
        Self::Members,
        Self::Removed,
        Self::Alarm,
        Self::Cluster,
        Self::Meta,
    ];

    pub(crate) const fn table(self) -> Table {
        match self {
            Self::Lease => Table::Lease,
            Self::Auth => Table::Auth,
            Self::Users => Table::Users,
            Self::Roles => Table::Roles,
            Self::Members => Table::Members,
            Self::Removed => Table::Removed,
            Self::Alarm => Table::Alarm,
            Self::Cluster => Table::Cluster,
            Self::Meta => Table::Meta,
        }
    }
}

/// Newest format of the tables that this program writes and reads.
pub(crate) const FORMAT: u32 = 2;
/// In formats before this one `current` was written with each commit.
const BEHIND_SINCE: u32 = 2;

const FORMAT_KEY: &[u8] = b"format";
const APPLIED_KEY: &[u8] = b"applied";
const REVISION_KEY: &[u8] = b"revision";
const CONF_STATE_KEY: &[u8] = b"conf_state";
const SCHEDULED_KEY: &[u8] = b"compact/scheduled";
const THROUGH_KEY: &[u8] = b"current_through";
const FINISHED_KEY: &[u8] = b"compact/finished";

/// What the store remembers about itself, committed with every generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub applied: LogIndex,
    pub term: Term,
    /// Newest main revision; 0 in an empty store.
    pub revision: i64,
    /// Bound of the newest compaction asked for; -1: none ever. 0 is a bound like any other.
    pub scheduled: i64,
    /// Bound of the newest compaction whose deletions are done; -1: none ever.
    pub finished: i64,
    /// Main revision up to which `current` holds the newest records; some of its rows may be newer.
    pub through: i64,
}

impl Default for Meta {
    fn default() -> Self {
        Self { applied: LogIndex(0), term: Term(0), revision: 0, scheduled: -1, finished: -1, through: 0 }
    }
}

impl Meta {
    /// Reads what an engine holds; the number of records read comes with it.
    pub fn read(txn: &dyn ReadTxn) -> Result<(Self, Vec<u8>, u64), StoreError> {
        let found = read_number(txn, FORMAT_KEY)?.unwrap_or(0) as u32;
        if found > FORMAT {
            return Err(StoreError::Format { found, known: FORMAT });
        }
        let (applied, term) = read_applied(txn)?;
        let conf_state = read_own(txn, CONF_STATE_KEY)?.map(<[u8]>::to_vec).unwrap_or_default();
        let revision = read_number(txn, REVISION_KEY)?.unwrap_or(0);
        let through = match read_number(txn, THROUGH_KEY)? {
            Some(through) => through,
            None if found < BEHIND_SINCE => revision,
            None => return Err(codec::corrupt(Table::Meta, THROUGH_KEY, codec::MISSING)),
        };
        let meta = Self {
            applied,
            term,
            revision,
            scheduled: read_number(txn, SCHEDULED_KEY)?.unwrap_or(-1),
            finished: read_number(txn, FINISHED_KEY)?.unwrap_or(-1),
            through,
        };
        Ok((meta, conf_state, 7))
    }

    /// Writes all but `finished`, which [`write_finished`] alone moves.
    pub fn write(&self, conf_state: Option<&[u8]>, txn: &mut dyn WriteTxn) -> Result<(), EngineError> {
        put_own(FORMAT_KEY, &i64::from(FORMAT).to_be_bytes(), txn)?;
        let applied = [self.applied.0.to_be_bytes(), self.term.0.to_be_bytes()].concat();
        put_own(APPLIED_KEY, &applied, txn)?;
        put_own(REVISION_KEY, &self.revision.to_be_bytes(), txn)?;
        write_through(self.through, txn)?;
        if self.scheduled >= 0 {
            put_own(SCHEDULED_KEY, &self.scheduled.to_be_bytes(), txn)?;
        }
        if let Some(conf_state) = conf_state {
            put_own(CONF_STATE_KEY, conf_state, txn)?;
        }
        Ok(())
    }

    /// The logical floor: -1 if nothing was ever compacted.
    pub fn compact_revision(&self) -> i64 {
        self.scheduled.max(self.finished)
    }
}

/// Remembers that the deletions of the compaction to `bound` are done.
pub(crate) fn write_finished(bound: i64, txn: &mut dyn WriteTxn) -> Result<(), EngineError> {
    put_own(FINISHED_KEY, &bound.to_be_bytes(), txn)
}

/// Remembers that `current` holds the newest records up to main revision `through`.
pub(crate) fn write_through(through: i64, txn: &mut dyn WriteTxn) -> Result<(), EngineError> {
    put_own(THROUGH_KEY, &through.to_be_bytes(), txn)
}

/// A row of `meta`.
fn read_own<'t>(txn: &'t dyn ReadTxn, key: &[u8]) -> Result<Option<&'t [u8]>, StoreError> {
    let Some(bytes) = txn.get(Table::Meta, key)? else { return Ok(None) };
    codec::decode_row(Table::Meta, key, bytes).map(Some)
}

fn put_own(key: &[u8], value: &[u8], txn: &mut dyn WriteTxn) -> Result<(), EngineError> {
    put_row(Table::Meta, key, value, txn)
}

/// Sets a row of a small table.
pub(crate) fn put_row(table: Table, key: &[u8], value: &[u8], txn: &mut dyn WriteTxn) -> Result<(), EngineError> {
    let mut row = Vec::with_capacity(value.len() + 4);
    codec::encode_row(key, value, &mut row);
    txn.put(table, key, &row)
}

fn read_number(txn: &dyn ReadTxn, key: &[u8]) -> Result<Option<i64>, StoreError> {
    let Some(bytes) = read_own(txn, key)? else { return Ok(None) };
    let bytes = bytes.try_into().map_err(|_| codec::corrupt(Table::Meta, key, "not eight bytes"))?;
    Ok(Some(i64::from_be_bytes(bytes)))
}

fn read_applied(txn: &dyn ReadTxn) -> Result<(LogIndex, Term), StoreError> {
    let Some(bytes) = read_own(txn, APPLIED_KEY)? else { return Ok((LogIndex(0), Term(0))) };
    let pair = bytes.split_first_chunk::<8>().and_then(|(index, term)| Some((*index, term.try_into().ok()?)));
    let (index, term) = pair.ok_or_else(|| codec::corrupt(Table::Meta, APPLIED_KEY, "not sixteen bytes"))?;
    Ok((LogIndex(u64::from_be_bytes(index)), Term(u64::from_be_bytes(term))))
}
