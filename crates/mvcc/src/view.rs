//! Reading: a consistent view of the keyspace, merged from the overlay and the engine.
//!
//! ```text
//!              active generation      entries being applied
//!   a read ──► sealed generation      being committed in the background      newer hides older
//!              behind                 newest records that the engine's `current` lacks
//!              engine                 everything before
//! ```
//!
//! A view takes the overlay first and begins to read the engine afterwards, anew in each call. The engine may therefore
//! already hold what the view's overlay holds, and more: what is above the view's revision is skipped by the pointers
//! of `history`. What a view may still ask for is not deleted under it: see [`Floor`].

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::{Engine, ReadTxn, Table};
use milepost_types::{KeyRange, LeaseId, RangeEnd, Revision};

use crate::behind::Behind;
use crate::codec::{self, CurrentRef, HistoryRef};
use crate::error::StoreError;
use crate::generation::{Generation, OverlayWalk};
use crate::keys::{self, EngineKey};
use crate::record::Record;
use crate::scan::{Copier, CurrentWalk, Looks, Tables, fetch, placed};
use crate::shared::Inner;

/// The logical floor as of some time. While a view holds one, no compaction above it deletes anything.
#[derive(Debug)]
pub(crate) struct Floor {
    /// -1: never compacted.
    pub compact_revision: i64,
}

/// What readers read from, replaced as a whole when a generation is sealed or committed, or the floor rises.
pub(crate) struct ViewState {
    pub active: Arc<Generation>,
    pub sealed: Option<Arc<Generation>>,
    pub floor: Arc<Floor>,
    /// Newest records of what is committed that the engine's `current` does not have yet.
    pub behind: Arc<Behind>,
    /// Everything committed. Another one after a defragmentation.
    pub engine: Arc<dyn Engine>,
}

impl ViewState {
    /// The same parts, to build the next state from.
    pub fn parts(&self) -> Self {
        let (active, sealed) = (self.active.clone(), self.sealed.clone());
        let (floor, behind) = (self.floor.clone(), self.behind.clone());
        Self { active, sealed, floor, behind, engine: self.engine.clone() }
    }

    /// Main revision of the first change that may be in memory only.
    pub fn first_main(&self) -> i64 {
        self.sealed.as_ref().unwrap_or(&self.active).first_main
    }
}

/// The keyspace at one revision. Cheap; holds memory and pins compaction while it lives, but nothing of the engine.
#[derive(Clone)]
pub struct View {
    pub(crate) inner: Arc<Inner>,
    pub(crate) state: Arc<ViewState>,
    pub(crate) revision: i64,
}

/// What a range is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeOptions {
    /// At most so many records; 0: all.
    pub limit: usize,
    /// Count all keys of the range, whatever the limit.
    pub count: bool,
    /// Fetch values; without them `value` is empty.
    pub values: bool,
}

impl Default for RangeOptions {
    /// Everything with values, without a count.
    fn default() -> Self {
        Self { limit: 0, count: false, values: true }
    }
}

/// What a range found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// Live records in key order, at most the limit.
    pub records: Vec<Arc<Record>>,
    /// Live keys in the whole range if a count was asked for, else the number of records.
    pub count: i64,
}

/// A live key while it is looked at; the fields are those of the wire's `KeyValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveRecord<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value; empty if no values were asked for.
    pub value: &'a [u8],
    /// Main revision of the put that created the key.
    pub create_revision: i64,
    /// Main revision of the newest put.
    pub mod_revision: i64,
    /// Puts since the key was created, that one included.
    pub version: i64,
    /// The lease the key is attached to; zero: none.
    pub lease: LeaseId,
}

impl View {
    /// The revision this view shows.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Reads below this revision fail; -1: history is whole.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.state.floor.compact_revision
    }

    /// The live keys of `range` as they were at main revision `at`; at or below zero means the view's own revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] for an `at` out of bounds, [`StoreError::Corrupt`] if a
    /// record fails its check.
    pub fn range(&self, range: KeyRange<'_>, at: i64, options: RangeOptions) -> Result<RangeResult, StoreError> {
        let at = self.check(at)?;
        self.inner.note(self.reader().range(range, at, options))
    }

    /// As [`View::range`], but shows each record instead of copying it. The answer is the count.
    ///
    /// The engine keeps what it may show for as long as this takes: `each` must not wait for anybody.
    ///
    /// # Errors
    /// As [`View::range`]; some records may have been shown by then.
    pub fn each(
        &self,
        range: KeyRange<'_>,
        at: i64,
        options: RangeOptions,
        each: &mut dyn FnMut(&LiveRecord<'_>),
    ) -> Result<i64, StoreError> {
        let at = self.check(at)?;
        self.inner.note(self.reader().visit(range, at, options, &mut |met| each(&met.show(options.values))))
    }

    /// Does `range` hold more than `keys` keys? Costs less than to ask for them.
    ///
    /// # Errors
    /// As [`View::range`].
    pub fn is_longer(&self, range: KeyRange<'_>, at: i64, keys: usize) -> Result<bool, StoreError> {
        let at = self.check(at)?;
        self.inner.note(self.reader().is_longer(range, at, keys))
    }

    /// One key as it was at main revision `at`; at or below zero means the view's own revision.
    ///
    /// # Errors
    /// As [`View::range`].
    pub fn get(&self, key: &[u8], at: i64) -> Result<Option<Arc<Record>>, StoreError> {
        let at = self.check(at)?;
        self.inner.note(self.reader().get(key, at, true))
    }

    /// The keys attached to `lease`, sorted.
    ///
    /// # Errors
    /// As [`View::range`], `at` aside.
    pub fn attached(&self, lease: LeaseId) -> Result<Vec<Bytes>, StoreError> {
        self.inner.note(self.reader().attached(lease, self.revision))
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { inner: &self.inner, state: &self.state }
    }

    /// Turns what a caller asked for into a revision that this view can show.
    fn check(&self, at: i64) -> Result<i64, StoreError> {
        if at <= 0 {
            return Ok(self.revision);
        }
        if at > self.revision {
            return Err(StoreError::FutureRevision { asked: at, current: self.revision });
        }
        let floor = self.compact_revision();
        if at < floor {
            return Err(StoreError::Compacted { asked: at, floor });
        }
        Ok(at)
    }
}

/// The merge itself, for views and for changes in progress.
pub(crate) struct Reader<'a> {
    pub inner: &'a Inner,
    pub state: &'a ViewState,
}

impl<'a> Reader<'a> {
    pub fn tables<'t>(&'t self, txn: &'t dyn ReadTxn) -> Tables<'t> {
        Tables {
            txn,
            behind: &self.state.behind,
            floor: self.state.floor.compact_revision,
            visited: &self.inner.stats.history_visited,
        }
    }

    /// The newest change of `key` at or below `at` that memory holds.
    fn in_memory(&self, key: &[u8], at: i64) -> Option<Arc<Record>> {
        let at = Revision::end_of(at);
        let newest = self.state.active.newest(key, at);
        newest.or_else(|| self.state.sealed.as_ref().and_then(|sealed| sealed.newest(key, at)))
    }

    pub fn get(&self, key: &[u8], at: i64, values: bool) -> Result<Option<Arc<Record>>, StoreError> {
        if let Some(record) = self.in_memory(key, at) {
            return Ok((!record.is_tombstone()).then_some(record));
        }
        // Nothing is stored there, and engines refuse to look.
        if key.is_empty() {
            return Ok(None);
        }
        let txn = self.state.engine.read()?;
        let tables = self.tables(&*txn);
        let engine_key = EngineKey::of(key);
        let Some(current) = tables.current(&engine_key, key)? else { return Ok(None) };
        Ok(tables.live_at(&current, at, values)?.map(|record| Arc::new(record.own(values))))
    }

    /// The newest record of `key`, tombstone or not, with its spine; without the value if it comes from the engine.
    pub fn newest_with_spine(&self, key: &[u8]) -> Result<Option<Arc<Record>>, StoreError> {
        if let Some(record) = self.in_memory(key, i64::MAX) {
            return Ok(Some(record));
        }
        if key.is_empty() {
            return Ok(None);
        }
        let txn = self.state.engine.read()?;
        let tables = self.tables(&*txn);
        let engine_key = EngineKey::of(key);
        let Some(current) = tables.current(&engine_key, key)? else { return Ok(None) };
        with_spine(&current).map(Some)
    }

    /// The newest record of every key of `range`, tombstones included, as [`Reader::newest_with_spine`] gives it.
    pub fn range_with_spines(&self, range: KeyRange<'_>) -> Result<Vec<Arc<Record>>, StoreError> {
        let mut records = Vec::new();
        if range.is_empty() {
            return Ok(records);
        }
        let txn = self.state.engine.read()?;
        let tables = self.tables(&*txn);
        let mut merge = self.merge(&tables, range, i64::MAX, Looks::AtAll)?;
        while let Some(found) = merge.next()? {
            records.push(match found {
                Found::Memory(record) => record,
                Found::Engine(current) => with_spine(&current)?,
            });
        }
        Ok(records)
    }

    pub fn range(&self, range: KeyRange<'_>, at: i64, options: RangeOptions) -> Result<RangeResult, StoreError> {
        let mut copier = Copier::default();
        let count = self.visit(range, at, options, &mut |met| match met {
            Met::Memory(record) => copier.share(record.clone()),
            Met::Engine(record) => copier.copy(record, options.values),
        })?;
        Ok(RangeResult { records: copier.finish(), count })
    }

    /// Shows `visit` what a range finds, in key order, while the engine's page lasts. The answer is the count.
    pub fn visit(
        &self,
        range: KeyRange<'_>,
        at: i64,
        options: RangeOptions,
        visit: &mut dyn FnMut(Met<'_>),
    ) -> Result<i64, StoreError> {
        if range.is_empty() {
            return Ok(0);
        }
        if range.end == RangeEnd::Single {
            let found = self.get(range.start, at, options.values)?;
            found.iter().for_each(|record| visit(Met::Memory(record)));
            return Ok(i64::from(found.is_some()));
        }
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let txn = self.state.engine.read()?;
        let tables = self.tables(&*txn);
        let mut merge = self.merge(&tables, range, at, Looks::AtAll)?;
        let (mut now, mut next) = (Batch::new(at, options.values), Batch::new(at, options.values));
        let (mut met, mut last) = (0, Vec::new());
        while met < limit {
            if now.found.is_empty() {
                if !now.fill(&mut merge, &tables, limit - met)? {
                    break;
                }
                now.places.iter().flatten().for_each(|place| fetch(place));
            }
            next.fill(&mut merge, &tables, (limit - met).saturating_sub(now.found.len()))?;
            now.look(&tables, next.places.iter().flatten(), &mut |record| {
                met += 1;
                if met == limit {
                    last = record.key().to_vec();
                }
                visit(record);
                met < limit
            })?;
            std::mem::swap(&mut now, &mut next);
        }
        if !options.count || last.is_empty() {
            return Ok(met as i64);
        }
        // The smallest key behind it.
        last.push(0);
        Ok(met as i64 + self.count(&tables, KeyRange { start: &last, end: range.end }, at)?)
    }

    pub(crate) fn merge<'t>(
        &'t self,
        tables: &Tables<'t>,
        range: KeyRange<'t>,
        at: i64,
        looks: Looks,
    ) -> Result<Merge<'t>, StoreError> {
        let end = Revision::end_of(at);
        Ok(Merge {
            overlay: OverlayWalk::new(
                self.state.active.walk(range, end),
                self.state.sealed.as_ref().map(|sealed| sealed.walk(range, end)),
            ),
            engine: tables.walk(range, looks)?,
        })
    }

    pub fn attached(&self, lease: LeaseId, at: i64) -> Result<Vec<Bytes>, StoreError> {
        let mut known: BTreeMap<Bytes, bool> = BTreeMap::new();
        let txn = self.state.engine.read()?;
        let (first, end) = keys::attached_bounds(lease);
        let end = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
        let mut cursor = txn.scan(Table::Attached, Bound::Included(&first), end)?;
        while let Some((engine_key, bytes)) = cursor.next()? {
            known.insert(Bytes::copy_from_slice(codec::decode_attached(engine_key, bytes)?), true);
        }
        if let Some(sealed) = &self.state.sealed {
            sealed.attachments(lease, at, &mut known);
        }
        self.state.active.attachments(lease, at, &mut known);
        Ok(known.into_iter().filter_map(|(key, attached)| attached.then_some(key)).collect())
    }
}

/// A record for the writer: without its value, with its spine.
fn with_spine(current: &CurrentRef<'_>) -> Result<Arc<Record>, StoreError> {
    let spine = current.spine()?;
    let record = current.with_value(&[]).own(false);
    Ok(Arc::new(Record { jump: spine.jump(), spine, ..record }))
}

/// A live record, found by a range.
pub(crate) enum Met<'m> {
    Memory(&'m Arc<Record>),
    Engine(&'m HistoryRef<'m>),
}

impl Met<'_> {
    fn key(&self) -> &[u8] {
        match self {
            Self::Memory(record) => &record.key,
            Self::Engine(record) => record.key,
        }
    }

    fn show(&self, value: bool) -> LiveRecord<'_> {
        let record = match self {
            Self::Memory(record) => record.borrow(),
            Self::Engine(record) => **record,
        };
        LiveRecord {
            key: record.key,
            value: if value { record.value } else { &[] },
            create_revision: record.create_revision,
            mod_revision: record.revision.main,
            version: record.version,
            lease: record.lease,
        }
    }
}

/// Keys whose records are looked up together, while those before them are looked at: memory is waited for together, and
/// meanwhile.
pub(crate) const BATCH_KEYS: usize = 16;

/// The next keys of a range.
struct Batch<'t> {
    at: i64,
    values: bool,
    found: Vec<Found<'t>>,
    /// Of those found, the records whose values are only in `history`, and where they are there.
    apart: Vec<Revision>,
    places: Vec<Option<&'t [u8]>>,
}

impl<'t> Batch<'t> {
    const fn new(at: i64, values: bool) -> Self {
        Self { at, values, found: Vec::new(), apart: Vec::new(), places: Vec::new() }
    }

    /// Reads the next keys from `merge`, `limit` at most, and finds out where their records are; false: there is no key.
    fn fill(&mut self, merge: &mut Merge<'t>, tables: &Tables<'t>, limit: usize) -> Result<bool, StoreError> {
        self.found.clear();
        self.apart.clear();
        self.places.clear();
        while self.found.len() < limit.min(BATCH_KEYS) {
            let Some(found) = merge.next()? else { break };
            if let Found::Engine(current) = &found
                && Tables::is_apart(current, self.at, self.values)
            {
                self.apart.push(current.revision);
            }
            self.found.push(found);
        }
        if !self.apart.is_empty() {
            tables.far_places(&self.apart, &mut self.places)?;
        }
        Ok(!self.found.is_empty())
    }

    /// Shows the live records to `visit` as long as it wants more, and has one of those `ahead` fetched with each.
    fn look<'a>(
        &self,
        tables: &Tables<'t>,
        mut ahead: impl Iterator<Item = &'a &'a [u8]>,
        visit: &mut dyn FnMut(Met<'_>) -> bool,
    ) -> Result<(), StoreError> {
        let mut places = self.places.iter();
        for found in &self.found {
            ahead.next().into_iter().for_each(|place| fetch(place));
            let goes_on = match found {
                Found::Memory(record) if record.is_tombstone() => true,
                Found::Memory(record) => visit(Met::Memory(record)),
                Found::Engine(current) => {
                    let apart = || placed(current.revision, places.next().copied().flatten());
                    let record = tables.live_by(current, self.at, self.values, apart)?;
                    record.is_none_or(|record| visit(Met::Engine(&record)))
                }
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}

/// A key found by a merge: the newest of it, tombstones included. What comes from the engine may be newer than the
/// revision asked for.
pub(crate) enum Found<'t> {
    Memory(Arc<Record>),
    Engine(CurrentRef<'t>),
}

/// The walk through all three layers, by key.
pub(crate) struct Merge<'t> {
    overlay: OverlayWalk<'t>,
    engine: CurrentWalk<'t>,
}

impl<'t> Merge<'t> {
    /// The next key, from the youngest layer that has it.
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<Found<'t>>, StoreError> {
        let order = match (self.overlay.peek(), self.engine.peek()) {
            (None, _) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(memory), Some(engine)) => memory.key[..].cmp(engine.key),
        };
        if order == Ordering::Greater {
            return Ok(self.engine.take()?.map(Found::Engine));
        }
        if order == Ordering::Equal {
            self.engine.take()?;
        }
        Ok(self.overlay.take().map(Found::Memory))
    }
}
