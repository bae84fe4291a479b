//! Reading the engine's tables: lookups and walks by user key, at a revision.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use milepost_engine::{Cursor, Pair, ReadTxn, Table, hint};
use milepost_types::{KeyRange, Revision};

use crate::behind::{Behind, BehindWalk};
use crate::codec::{self, CurrentRef, HistoryRef};
use crate::error::StoreError;
use crate::keys::{self, EngineKey};
use crate::record::{Record, Spine};
use crate::view::BATCH_KEYS;

/// A read of the engine's tables as of some floor.
pub(crate) struct Tables<'t> {
    pub txn: &'t dyn ReadTxn,
    /// Rows that the engine's `current` does not have yet.
    pub behind: &'t Behind,
    /// Compact revision: what is missing at or below it was compacted, above it lost.
    pub floor: i64,
    /// Records of `history` that lookups visited.
    pub visited: &'t AtomicU64,
}

impl<'t> Tables<'t> {
    /// The newest record of `key` in the engine, tombstone or not.
    pub fn current(&self, engine_key: &'t EngineKey<'t>, key: &[u8]) -> Result<Option<CurrentRef<'t>>, StoreError> {
        let row = match self.behind.get(engine_key.bytes()) {
            Some(row) => Some(row),
            None => self.txn.get(Table::Current, engine_key.bytes())?,
        };
        let Some(bytes) = row else { return Ok(None) };
        let current = codec::decode_current(engine_key.bytes(), bytes)?;
        if current.key == key { Ok(Some(current)) } else { Ok(None) }
    }

    /// What `current`'s key was at `at`, if it was there; still in the engine's pages.
    pub fn live_at(
        &self,
        current: &CurrentRef<'t>,
        at: i64,
        value: bool,
    ) -> Result<Option<HistoryRef<'t>>, StoreError> {
        self.live_by(current, at, value, || self.must_have(current.revision))
    }

    /// Does [`Tables::live_at`] ask `history` for `current` itself?
    pub fn is_apart(current: &CurrentRef<'t>, at: i64, value: bool) -> bool {
        value && current.revision.main <= at && !current.tombstone && current.value.is_none()
    }

    /// As [`Tables::live_at`], where `apart` gives the record that [`Tables::is_apart`] is about.
    #[inline(always)]
    pub fn live_by(
        &self,
        current: &CurrentRef<'t>,
        at: i64,
        value: bool,
        apart: impl FnOnce() -> Result<HistoryRef<'t>, StoreError>,
    ) -> Result<Option<HistoryRef<'t>>, StoreError> {
        if current.revision.main > at {
            let older = self.older(current, at)?;
            return Ok(older.filter(|older| !older.tombstone));
        }
        if current.tombstone {
            return Ok(None);
        }
        let value = match current.value {
            _ if !value => &[],
            Some(inline) => inline,
            None => apart()?.value,
        };
        Ok(Some(current.with_value(value)))
    }

    /// Where the records at `revisions` are, in their order, unlooked at and on their way from memory.
    pub fn places(&self, revisions: &[Revision], places: &mut Vec<Option<&'t [u8]>>) -> Result<(), StoreError> {
        let before = places.len();
        self.far_places(revisions, places)?;
        places[before..].iter().flatten().for_each(|place| fetch(place));
        Ok(())
    }

    /// The same for who [`fetch`]es them one by one, between other work.
    pub fn far_places(&self, revisions: &[Revision], places: &mut Vec<Option<&'t [u8]>>) -> Result<(), StoreError> {
        self.visited.fetch_add(revisions.len() as u64, Ordering::Relaxed);
        for revisions in revisions.chunks(BATCH_KEYS) {
            let mut keys = [[0; Revision::ENCODED_LEN]; BATCH_KEYS];
            keys.iter_mut().zip(revisions).for_each(|(key, revision)| *key = revision.to_bytes());
            let keys = keys.each_ref().map(|key| &key[..]);
            self.txn.get_each(Table::History, &keys[..revisions.len()], places)?;
        }
        Ok(())
    }

    /// The newest record of `current`'s key at or below `at`, which lies below `current` itself.
    fn older(&self, current: &CurrentRef<'t>, at: i64) -> Result<Option<HistoryRef<'t>>, StoreError> {
        let above = |revision: Revision| revision.main > at;
        // The oldest jump that is still above spares the steps to it.
        let spine = current.spine()?;
        let mut next = current.previous;
        if let Some(jump) = spine.jumps.iter().find(|jump| above(**jump)) {
            next = *jump;
        }
        while above(next) {
            let record = self.must_have(next)?;
            next = if above(record.jump) { record.jump } else { record.previous };
        }
        if next == Revision::ZERO { Ok(None) } else { self.at_floor(next) }
    }

    /// The record at `revision`, which a compaction may have taken if it is a tombstone below the floor.
    pub fn at_floor(&self, revision: Revision) -> Result<Option<HistoryRef<'t>>, StoreError> {
        match self.history(revision)? {
            Some(record) => Ok(Some(record)),
            None if revision.main <= self.floor => Ok(None),
            None => Err(missing(revision)),
        }
    }

    /// The record at `revision`.
    pub fn history(&self, revision: Revision) -> Result<Option<HistoryRef<'t>>, StoreError> {
        self.visited.fetch_add(1, Ordering::Relaxed);
        let key = revision.to_bytes();
        let Some(bytes) = self.txn.get(Table::History, &key)? else { return Ok(None) };
        codec::decode_history(&key, bytes).map(Some)
    }

    fn must_have(&self, revision: Revision) -> Result<HistoryRef<'t>, StoreError> {
        self.history(revision)?.ok_or_else(|| missing(revision))
    }

    /// Was `current`'s key there at `at`?
    pub fn was_live(&self, current: &CurrentRef<'t>, at: i64) -> Result<bool, StoreError> {
        if current.revision.main <= at {
            return Ok(!current.tombstone);
        }
        // It has been there since it was created.
        if !current.tombstone && current.create_revision <= at {
            return Ok(true);
        }
        Ok(self.older(current, at)?.is_some_and(|older| !older.tombstone))
    }

    /// Walks `current` through `range` in the order of user keys.
    pub fn walk(&self, range: KeyRange<'t>, looks: Looks) -> Result<CurrentWalk<'t>, StoreError> {
        let (lower, upper) = (keys::lower_edge(range), keys::upper_edge(range));
        let engine = self.txn.scan(Table::Current, lower.lower(), upper.upper())?;
        let cursor = Rows { behind: self.behind.walk(&lower, &upper), engine, ahead: None };
        let decode = match looks {
            Looks::AtAll => codec::decode_current,
            Looks::AtKeys => codec::peek_current,
        };
        let mut walk = CurrentWalk { cursor, decode, range, group: VecDeque::new(), ahead: None, peeked: None };
        walk.peeked = walk.step()?;
        Ok(walk)
    }
}

/// Of a record in `history`, bytes that are fetched ahead: the processor sees by itself where more of them leads.
const AHEAD_BYTES: usize = 2048;

/// Has a record come from memory.
pub(crate) fn fetch(record: &[u8]) {
    hint::soon(&record[..record.len().min(AHEAD_BYTES)]);
}

/// What a walk looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    /// Whole records, with their checksums.
    AtAll,
    /// Whether keys are there.
    AtKeys,
}

/// The record of `revision`, which must be at `place`.
#[inline(always)]
pub(crate) fn placed(revision: Revision, place: Option<&[u8]>) -> Result<HistoryRef<'_>, StoreError> {
    codec::decode_history(&revision.to_bytes(), place.ok_or_else(|| missing(revision))?)
}

fn missing(revision: Revision) -> StoreError {
    codec::corrupt(Table::History, &revision.to_bytes(), codec::MISSING)
}

impl HistoryRef<'_> {
    /// A copy of its own, for readers: without a spine.
    pub fn own(&self, value: bool) -> Record {
        let key = Bytes::copy_from_slice(self.key);
        let value = if value { Bytes::copy_from_slice(self.value) } else { Bytes::new() };
        self.with_bytes(key, value)
    }

    fn with_bytes(&self, key: Bytes, value: Bytes) -> Record {
        Record {
            key,
            value,
            create_revision: self.create_revision,
            revision: self.revision,
            version: self.version,
            lease: self.lease,
            previous: self.previous,
            jump: self.jump,
            spine: Spine::default(),
        }
    }
}

/// Bytes after which a [`Copier`] begins another buffer: one record kept by somebody keeps a whole buffer.
const BUFFER_BYTES: usize = 64 << 10;

/// Copies records for a range: their keys and values share a few large buffers instead of two small ones each.
#[derive(Default)]
pub(crate) struct Copier {
    done: Vec<Arc<Record>>,
    waiting: Vec<Waiting>,
    buffer: Vec<u8>,
}

/// A record whose bytes are in the buffer that is still growing.
enum Waiting {
    Ready(Arc<Record>),
    Copied { record: Record, start: usize, key_len: usize, value_len: usize },
}

impl Copier {
    pub fn share(&mut self, record: Arc<Record>) {
        self.waiting.push(Waiting::Ready(record));
    }

    pub fn copy(&mut self, record: &HistoryRef<'_>, value: bool) {
        let value = if value { record.value } else { &[] };
        let start = self.buffer.len();
        self.buffer.extend_from_slice(record.key);
        self.buffer.extend_from_slice(value);
        let (key_len, value_len) = (record.key.len(), value.len());
        let record = record.with_bytes(Bytes::new(), Bytes::new());
        self.waiting.push(Waiting::Copied { record, start, key_len, value_len });
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let buffer = Bytes::from(std::mem::take(&mut self.buffer));
        self.done.extend(self.waiting.drain(..).map(|waiting| match waiting {
            Waiting::Ready(record) => record,
            Waiting::Copied { mut record, start, key_len, value_len } => {
                record.key = buffer.slice(start..start + key_len);
                record.value = buffer.slice(start + key_len..start + key_len + value_len);
                Arc::new(record)
            }
        }));
    }

    pub fn finish(mut self) -> Vec<Arc<Record>> {
        self.flush();
        self.done
    }
}

/// The rows of `current`, by the engine's keys: those that are behind hide the engine's.
struct Rows<'t> {
    behind: BehindWalk<'t>,
    engine: Box<dyn Cursor<'t> + 't>,
    /// Read from the engine while looking which comes first; `Some(None)`: the engine has no more.
    ahead: Option<Option<Pair<'t>>>,
}

impl<'t> Rows<'t> {
    #[inline(always)]
    fn next(&mut self) -> Result<Option<Pair<'t>>, StoreError> {
        let Some(row) = self.behind.peek() else {
            return match self.ahead.take() {
                Some(None) => {
                    self.ahead = Some(None);
                    Ok(None)
                }
                Some(ahead) => Ok(ahead),
                None => Ok(self.engine.next()?),
            };
        };
        let ahead = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.engine.next()?,
        };
        match ahead {
            Some(pair) if pair.0 < row.0 => return Ok(Some(pair)),
            Some(pair) if pair.0 == row.0 => {}
            ahead => self.ahead = Some(ahead),
        }
        self.behind.advance();
        Ok(Some(row))
    }
}

/// A walk through `current`. Groups of long keys are collected and put in the order of their whole keys.
///
/// What is called for each key is put in place, here and in what reads a range: an answer of a hundred bytes that is handed
/// on through memory five times costs more than the step itself.
pub(crate) struct CurrentWalk<'t> {
    cursor: Rows<'t>,
    decode: fn(&'t [u8], &'t [u8]) -> Result<CurrentRef<'t>, StoreError>,
    range: KeyRange<'t>,
    /// Members of the group being walked, in order.
    group: VecDeque<CurrentRef<'t>>,
    /// Read from the cursor while looking for the end of a group.
    ahead: Option<Pair<'t>>,
    peeked: Option<CurrentRef<'t>>,
}

impl<'t> CurrentWalk<'t> {
    /// The record the walk stands at, tombstones included.
    pub fn peek(&self) -> Option<&CurrentRef<'t>> {
        self.peeked.as_ref()
    }

    /// The record the walk stands at; then goes on to the next key.
    #[inline(always)]
    pub fn take(&mut self) -> Result<Option<CurrentRef<'t>>, StoreError> {
        let next = self.step()?;
        Ok(std::mem::replace(&mut self.peeked, next))
    }

    #[inline(always)]
    fn step(&mut self) -> Result<Option<CurrentRef<'t>>, StoreError> {
        loop {
            if let Some(member) = self.group.pop_front() {
                return Ok(Some(member));
            }
            let pair = match self.ahead.take() {
                Some(pair) => pair,
                None => match self.cursor.next()? {
                    Some(pair) => pair,
                    None => return Ok(None),
                },
            };
            if !keys::is_long(pair.0) {
                return (self.decode)(pair.0, pair.1).map(Some);
            }
            self.collect(pair)?;
        }
    }

    /// Fills `group` with the members in range of the group that `first` begins.
    fn collect(&mut self, first: Pair<'t>) -> Result<(), StoreError> {
        let mut members = Vec::new();
        let mut pair = first;
        loop {
            let member = codec::decode_current(pair.0, pair.1)?;
            if self.range.contains(member.key) {
                members.push(member);
            }
            match self.cursor.next()? {
                Some(next) if keys::is_long(next.0) && keys::group(next.0) == keys::group(first.0) => pair = next,
                other => {
                    self.ahead = other;
                    break;
                }
            }
        }
        members.sort_unstable_by_key(|member| member.key);
        self.group = members.into();
        Ok(())
    }
}
