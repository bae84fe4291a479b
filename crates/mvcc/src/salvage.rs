//! Walking everything an engine holds: to check it, or to copy what can be believed into another.
//!
//! After a failed sync nobody knows what of the last writes the disk has. Either every record still stands its check and
//! the parts agree, then a copy of them is as good as the store was; or the store is rebuilt from a peer or a snapshot.

use std::ops::Bound;
use std::sync::Arc;

use milepost_engine::{Engine, ReadTxn, Table};

use crate::codec::{self, HistoryRef};
use crate::counting::Recount;
use crate::counts::COUNTED_KEY;
use crate::error::StoreError;
use crate::keys::EngineKey;
use crate::tables::Meta;

/// Records read, and written, in one go: bounds what a transaction holds in memory and keeps from being used again.
const CHUNK_RECORDS: usize = 5000;
const CHUNK_BYTES: usize = 4 << 20;

/// What a walk has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Records of every table.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// Checks every record of `engine`, to which nobody may be writing, and that they fit together: a page that was lost may have left an older one, sound in
/// itself, in its place.
///
/// - The newest record of each key is the one that history has at its revision.
/// - No record of history is newer than the newest of its key, nor newer than the store says it is. Those that are not in
///   `current` yet go on from what is there.
/// - What a record has replaced is there, unless a compaction may have taken it.
/// - There are as many keys as the store says.
///
/// # Errors
/// [`StoreError::Corrupt`] with the first record that fails, or the engine's.
pub fn verify(engine: &dyn Engine) -> Result<Walked, StoreError> {
    let mut recount = Recount::of(engine)?;
    let walked = walk(engine, &mut |table, chunk| recount.look(table, chunk))?;
    recount.finish()?;
    Ok(walked)
}

/// Copies the store in `suspect`, which a failed sync has left in doubt, into its successor, which takes its place.
///
/// # Errors
/// As [`verify`]: then the store has to be rebuilt from a peer or a snapshot. Or the engine's.
pub fn rescue(suspect: &dyn Engine) -> Result<Arc<dyn Engine>, StoreError> {
    let sound = suspect.successor(suspect.sizes()?.in_use)?;
    salvage(suspect, &*sound).inspect_err(|_| sound.retire())?;
    // From here on the copy may be what the next start opens: its files stay, whatever fails.
    suspect.give_way()?;
    Ok(sound)
}

/// Copies every record of `from` into `to`, which is empty, with the checks of [`verify`], and syncs it. If only the
/// number of keys is not what the store says, the copy does not say it.
///
/// # Errors
/// As [`verify`]; `to` is then of no use.
pub fn salvage(from: &dyn Engine, to: &dyn Engine) -> Result<Walked, StoreError> {
    let mut recount = Recount::of(from)?;
    let walked = walk(from, &mut |table, chunk| {
        recount.look(table, chunk)?;
        append(to, table, chunk)
    })?;
    if recount.finish().is_err() {
        // They follow from the keys: whoever opens the copy counts anew.
        let mut txn = to.write()?;
        txn.delete(Table::Meta, COUNTED_KEY)?;
        txn.commit()?;
    }
    to.sync()?;
    Ok(walked)
}

/// Some pairs of a table, in order.
pub(crate) type Chunk = Vec<(Vec<u8>, Vec<u8>)>;

/// Adds `chunk`, which lies above everything in `table`.
fn append(to: &dyn Engine, table: Table, chunk: &Chunk) -> Result<(), StoreError> {
    to.reserve(room_needed(chunk));
    let mut txn = to.write()?;
    for (key, value) in chunk {
        txn.append(table, key, value)?;
    }
    Ok(txn.commit()?)
}

/// Disk space that adding `chunk` may need at most, in bytes: half-full pages, and the pages above them.
fn room_needed(chunk: &Chunk) -> u64 {
    let bytes: usize = chunk.iter().map(|(key, value)| key.len() + value.len()).sum();
    2 * bytes as u64 + (1 << 20)
}

/// Calls `each` with every record of every table, a chunk at a time, after checking it.
fn walk(
    engine: &dyn Engine,
    each: &mut dyn FnMut(Table, &Chunk) -> Result<(), StoreError>,
) -> Result<Walked, StoreError> {
    let meta = Meta::read(&*engine.read()?)?.0;
    let mut check = |txn: &dyn ReadTxn, table, key: &[u8], value: &[u8]| check(txn, &meta, table, key, value);
    let mut walked = Walked::default();
    for table in Table::ALL {
        copy(engine, table, Bound::Unbounded, &mut check, &mut |chunk| {
            walked.records += chunk.len() as u64;
            walked.bytes += chunk.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
            each(table, chunk)
        })?;
    }
    Ok(walked)
}

/// Looks at a record while its transaction lasts.
type Check<'c> = &'c mut dyn FnMut(&dyn ReadTxn, Table, &[u8], &[u8]) -> Result<(), StoreError>;

/// Calls `each` with the records of `table` from its start up to `to`, a chunk at a time, after `check` has seen them.
fn copy(
    engine: &dyn Engine,
    table: Table,
    to: Bound<&[u8]>,
    check: Check<'_>,
    each: &mut dyn FnMut(&Chunk) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let chunk = read_chunk(engine, table, from, to, check)?;
        let Some((last, _)) = chunk.last() else { return Ok(()) };
        after = Some(last.clone());
        each(&chunk)?;
    }
}

/// The first records of `table` between `from` and `to`.
fn read_chunk(
    engine: &dyn Engine,
    table: Table,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    check: Check<'_>,
) -> Result<Chunk, StoreError> {
    let txn = engine.read()?;
    let mut cursor = txn.scan(table, from, to)?;
    let (mut chunk, mut bytes) = (Chunk::new(), 0);
    while chunk.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
        let Some((key, value)) = cursor.next()? else { break };
        check(&*txn, table, key, value)?;
        bytes += key.len() + value.len();
        chunk.push((key.to_vec(), value.to_vec()));
    }
    Ok(chunk)
}

fn check(txn: &dyn ReadTxn, meta: &Meta, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    match table {
        Table::History => check_history(txn, meta, key, value),
        Table::Current => check_current(txn, key, value),
        Table::Attached => codec::decode_attached(key, value).map(drop),
        _ => codec::decode_row(table, key, value).map(drop),
    }
}

fn check_history(txn: &dyn ReadTxn, meta: &Meta, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let record = codec::decode_history(key, value)?;
    if record.revision.main > meta.revision {
        return Err(codec::corrupt(Table::History, key, "is newer than the store"));
    }
    let previous = record.previous.to_bytes();
    if record.previous.main > meta.compact_revision().max(0) && txn.get(Table::History, &previous)?.is_none() {
        return Err(codec::corrupt(Table::History, &previous, codec::MISSING));
    }
    if record.key.is_empty() {
        // Raw: it stands for no key.
        return Ok(());
    }
    let engine_key = EngineKey::of(record.key);
    let engine_key = engine_key.bytes();
    let newest =
        txn.get(Table::Current, engine_key)?.map(|bytes| codec::decode_current(engine_key, bytes)).transpose()?;
    match newest {
        Some(newest) if newest.revision >= record.revision => Ok(()),
        // Not merged yet. That it goes on from what `current` has is looked at by the recount.
        _ if record.revision.main > meta.through => Ok(()),
        Some(_) => Err(codec::corrupt(Table::Current, engine_key, "is older than history")),
        None => Err(codec::corrupt(Table::Current, engine_key, codec::MISSING)),
    }
}

fn check_current(txn: &dyn ReadTxn, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let current = codec::decode_current(key, value)?;
    let at = current.revision.to_bytes();
    let bytes = txn.get(Table::History, &at)?.ok_or_else(|| codec::corrupt(Table::History, &at, codec::MISSING))?;
    let history = codec::decode_history(&at, bytes)?;
    let alike = current.with_value(current.value.unwrap_or(history.value));
    // The jump is known to history alone.
    if alike == (HistoryRef { jump: alike.jump, ..history }) {
        return Ok(());
    }
    Err(codec::corrupt(Table::Current, key, "differs from history"))
}
