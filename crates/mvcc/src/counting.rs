//! Counting with [`crate::counts`]: walking what the blocks cannot tell, cutting them, and finding them at open.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use milepost_engine::{Engine, ReadTxn, Table};
use milepost_types::{KeyRange, RangeEnd, Revision};

use crate::behind::Behind;
use crate::codec;
use crate::counts::{BLOCK_PREFIX, COUNTED_KEY, Cutter, Gap, Piece};
use crate::error::StoreError;
use crate::generation::TableChanges;
use crate::salvage::Chunk;
use crate::scan::{Looks, Tables};
use crate::shared::Inner;
use crate::store::{StoreOptions, read_opened};
use crate::tables::{Meta, put_row};
use crate::view::{Found, Reader, ViewState};

impl Reader<'_> {
    /// How many keys of `range` are alive at main revision `at`; [`i64::MAX`]: with the changes in progress.
    pub fn count(&self, tables: &Tables<'_>, range: KeyRange<'_>, at: i64) -> Result<i64, StoreError> {
        let newest = self.state.active.published();
        let Some(plan) = self.inner.counts.plan(range, at.min(newest)) else {
            return self.count_each(tables, range, at);
        };
        let mut count = plan.known;
        for gap in &plan.gaps {
            count += self.count_each(tables, gap.range(), at)?;
        }
        if at > newest {
            let is_in_blocks =
                |key: &[u8]| range.contains(key) && !plan.gaps.iter().any(|gap| gap.range().contains(key));
            self.state.active.each(Revision::new(newest + 1, 0), i64::MAX, &mut |record| {
                if is_in_blocks(&record.key) {
                    count += if record.is_tombstone() { -1 } else { i64::from(record.version == 1) };
                }
            });
        }
        self.inner.stats.counts_known.fetch_add(1, Ordering::Relaxed);
        Ok(count)
    }

    fn count_each(&self, tables: &Tables<'_>, range: KeyRange<'_>, at: i64) -> Result<i64, StoreError> {
        let mut count = 0;
        self.each_live_key(tables, range, at, &mut |_| {
            count += 1;
            true
        })?;
        Ok(count)
    }

    /// Does `range` hold more than `keys` keys at `at`?
    pub fn is_longer(&self, range: KeyRange<'_>, at: i64, keys: usize) -> Result<bool, StoreError> {
        if range.is_empty() || range.end == RangeEnd::Single {
            return Ok(false);
        }
        if self.inner.counts.plan(range, at).is_some_and(|plan| plan.known > keys as i64) {
            return Ok(true);
        }
        let txn = self.state.engine.read()?;
        let mut met = 0;
        self.each_live_key(&self.tables(&*txn), range, at, &mut |_| {
            met += 1;
            met <= keys
        })?;
        Ok(met > keys)
    }

    /// Calls `each` with the keys of `range` that are alive at `at`, in order, for as long as it wants more.
    fn each_live_key(
        &self,
        tables: &Tables<'_>,
        range: KeyRange<'_>,
        at: i64,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut merge = self.merge(tables, range, at, Looks::AtKeys)?;
        while let Some(found) = merge.next()? {
            let goes_on = match found {
                Found::Memory(record) if record.is_tombstone() => true,
                Found::Memory(record) => each(&record.key),
                Found::Engine(current) => !tables.was_live(&current, at)? || each(current.key),
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Cuts `range` into pieces by its keys at main revision `at`.
    fn pieces(&self, range: KeyRange<'_>, at: i64) -> Result<Vec<Piece>, StoreError> {
        let txn = self.state.engine.read()?;
        let mut cutter = Cutter::new(range.start, self.inner.counts.piece_keys());
        self.each_live_key(&self.tables(&*txn), range, at, &mut |key| {
            cutter.key(key);
            true
        })?;
        Ok(cutter.finish())
    }
}

impl Inner {
    /// Cuts blocks that the newest entry has made too large. `state` is what apply sees.
    pub fn cut_blocks(&self, state: &ViewState, large: Vec<Gap>) {
        let revision = state.active.published();
        for gap in large {
            match self.note(Reader { inner: self, state }.pieces(gap.range(), revision)) {
                Ok(pieces) => self.counts.cut(&gap, pieces, revision),
                // It stays as it is; its count is right all the same.
                Err(_) => self.counts.leave(&gap),
            }
        }
    }

    /// Finds the blocks of the store that is being opened, or makes them.
    pub fn load_counts(&self) {
        let state = self.state.load_full();
        let revision = state.active.published();
        let rows = self.note(state.engine.read().map_err(StoreError::from).and_then(|txn| Rows::read(&*txn)));
        let rows = rows.unwrap_or_default();
        if rows.revision == Some(revision) && rows.blocks.first_key_value().is_some_and(|(start, _)| start.is_empty()) {
            return self.counts.set(rows.blocks.into_iter().collect(), revision, Vec::new(), true);
        }
        // What cannot be walked is not counted; whoever reads it is told.
        if let Ok(pieces) = self.note(Reader { inner: self, state: &state }.pieces(KeyRange::all(), revision)) {
            self.counts.set(pieces, revision, rows.blocks.into_keys().collect(), false);
        }
    }
}

/// What rows of a store say, whichever revision they are of.
#[derive(Default)]
pub(crate) struct Rows {
    pub blocks: BTreeMap<Box<[u8]>, i64>,
    pub revision: Option<i64>,
}

impl Rows {
    pub fn read(txn: &dyn ReadTxn) -> Result<Self, StoreError> {
        let number = |key: &[u8], bytes: &[u8]| {
            let value = codec::decode_row(Table::Meta, key, bytes)?.try_into();
            let corrupt = |_| codec::corrupt(Table::Meta, key, "not eight bytes");
            value.map(i64::from_be_bytes).map_err(corrupt)
        };
        let mut rows = Self::default();
        if let Some(bytes) = txn.get(Table::Meta, COUNTED_KEY)? {
            rows.revision = Some(number(COUNTED_KEY, bytes)?);
        }
        let mut cursor = txn.scan(Table::Meta, Bound::Included(BLOCK_PREFIX), Bound::Unbounded)?;
        while let Some((key, bytes)) = cursor.next()? {
            let Some(start) = key.strip_prefix(BLOCK_PREFIX) else { break };
            rows.blocks.insert(start.into(), number(key, bytes)?);
        }
        Ok(rows)
    }
}

/// Counts the keys of a store that was filled without counting, and leaves the counts in it.
pub(crate) fn count_all(engine: &Arc<dyn Engine>, options: &StoreOptions) -> Result<(), StoreError> {
    let (meta, _) = read_opened(&**engine)?;
    let (behind, records) = Behind::rebuild(&**engine, &meta, options.behind_values_bytes)?;
    let inner = Inner::new(Arc::clone(engine), options.clone(), meta, behind, records);
    inner.load_counts();
    let mut rows = TableChanges::new();
    inner.counts.write(inner.state.load().active.published(), &mut rows);
    let mut txn = engine.write()?;
    for ((table, key), value) in &rows {
        match value {
            Some(value) => put_row(table.table(), key, value, &mut *txn)?,
            None => drop(txn.delete(table.table(), key)?),
        }
    }
    Ok(txn.commit()?)
}

/// Compares the counts in a store with its keys, which come in the engine's order. Blocks never begin between long keys
/// that the engine has in another order than they are in.
pub(crate) struct Recount {
    /// Hides rows of the engine.
    behind: Behind,
    expected: Option<BTreeMap<Box<[u8]>, i64>>,
    found: BTreeMap<Box<[u8]>, i64>,
}

impl Recount {
    /// For what `engine` holds. Errs if what `current` lacks does not go on from what is there.
    pub fn of(engine: &dyn Engine) -> Result<Self, StoreError> {
        let txn = engine.read()?;
        let meta = Meta::read(&*txn)?.0;
        let rows = Rows::read(&*txn)?;
        drop(txn);
        let expected = (rows.revision == Some(meta.revision)).then_some(rows.blocks);
        let found = expected.iter().flatten().map(|(start, _)| (start.clone(), 0)).collect();
        let behind = Behind::rebuild(engine, &meta, 0)?.0;
        let mut recount = Self { behind: Behind::default(), expected, found };
        for row in behind.rows() {
            recount.add(row.key(), row.record())?;
        }
        Ok(Self { behind, ..recount })
    }

    fn add(&mut self, engine_key: &[u8], row: &[u8]) -> Result<(), StoreError> {
        let up_to_key = (Bound::Unbounded, Bound::Included(engine_key));
        if !codec::peek_current(engine_key, row)?.tombstone
            && let Some((_, count)) = self.found.range_mut::<[u8], _>(up_to_key).next_back()
        {
            *count += 1;
        }
        Ok(())
    }

    /// Takes in what is in `table`, a chunk at a time.
    pub fn look(&mut self, table: Table, chunk: &Chunk) -> Result<(), StoreError> {
        if table != Table::Current {
            return Ok(());
        }
        for (engine_key, row) in chunk {
            if self.behind.get(engine_key).is_none() {
                self.add(engine_key, row)?;
            }
        }
        Ok(())
    }

    /// Errs with the first block that is wrong.
    pub fn finish(self) -> Result<(), StoreError> {
        let Some(expected) = self.expected else { return Ok(()) };
        match expected.iter().find(|(start, count)| self.found.get(*start) != Some(*count)) {
            Some((start, _)) => {
                Err(codec::corrupt(Table::Meta, &[BLOCK_PREFIX, start].concat(), "counts other keys than there are"))
            }
            None => Ok(()),
        }
    }
}
