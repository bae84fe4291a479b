//! Finding again what was behind when the store was last committed.
//!
//! ```text
//!   the stretch of `history` above what `current` has                    one thread
//!     records in the order of revisions, some at a time, what is needed of each side by side
//!            │
//!            ▼                                                           another
//!     in the order of keys; `current`, and what was found before, are walked beside them
//!            │
//!            ▼
//!     rows
//! ```
//!
//! Nearly all of the time goes into waiting for memory. So what is read of a record is kept together and apart from the
//! engine's pages, and everything else is met in the order in which it lies.

use std::ops::Bound;
use std::sync::mpsc;

use milepost_engine::{Cursor, Engine, EngineError, Pair, ReadTxn, Table, hint};
use milepost_types::Revision;

use super::{Before, Behind, BehindWalk, Encode, Row, Values, index};
use crate::codec::{self, HistoryRef};
use crate::error::StoreError;
use crate::keys::{Edge, EngineKey};
use crate::record::Spine;
use crate::tables::Meta;

/// Records that are looked at together, and bytes of them: this bounds the memory that it takes, about 110 bytes for a record with
/// a short key, twice. More: `current` is walked less often.
const RECORDS_AT_ONCE: u64 = 500_000;
const BYTES_AT_ONCE: usize = 64 << 20;

impl Behind {
    /// What the store that `engine` holds had in here when it was last committed, and how many records told: the stretch of
    /// `history` above [`Meta::through`]. If their values come to more than `values_max` bytes, they are left out.
    pub fn rebuild(engine: &dyn Engine, meta: &Meta, values_max: usize) -> Result<(Self, u64), StoreError> {
        let txn = engine.read()?;
        let from = Revision::new(meta.through.saturating_add(1), 0).to_bytes();
        let mut cursor = txn.scan(Table::History, Bound::Included(&from), Bound::Unbounded)?;
        let values = |bytes| if bytes > values_max { Values::LeftOut } else { Values::Kept };
        let mut stretch = Stretch::read(&mut *cursor)?;
        if stretch.is_last {
            // Little: not worth a thread.
            let behind = Self::default().with_changes(&*txn, &stretch, meta, values(stretch.value_bytes))?;
            return Ok((behind, stretch.records));
        }
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel::<Stretch<'_>>(0);
            let rows = std::thread::Builder::new().name("rebuild".into()).spawn_scoped(scope, move || {
                let txn = engine.read()?;
                let (mut behind, mut value_bytes) = (Self::default(), 0);
                for stretch in receiver {
                    value_bytes += stretch.value_bytes;
                    behind = behind.with_changes(&*txn, &stretch, meta, values(value_bytes))?;
                }
                Ok(behind)
            });
            let rows =
                rows.map_err(|source| EngineError::Io { path: "rebuild".into(), action: "start thread", source })?;
            let mut records = 0;
            loop {
                records += stretch.records;
                let is_last = stretch.is_last;
                // If it takes no more it has failed, and tells why below.
                if sender.send(stretch).is_err() || is_last {
                    break;
                }
                stretch = Stretch::read(&mut *cursor)?;
            }
            drop(sender);
            let behind = rows.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            behind.map(|behind| (behind, records))
        })
    }

    /// The same with what `stretch` tells, which comes right above what it was made of.
    fn with_changes(
        self,
        txn: &dyn ReadTxn,
        stretch: &Stretch<'_>,
        meta: &Meta,
        values: Values,
    ) -> Result<Self, StoreError> {
        let order = stretch.by_key();
        let mut current = Current { txn, walk: None };
        let mut earlier = self.walk(&Edge::Open, &Edge::Open);
        let mut encode = Encode::new(values);
        let mut ahead = Ahead { stretch, order: &order, met: 0 };
        for same_key in order.chunk_by(|one, other| one.cmp(other, stretch).is_eq()) {
            ahead.go_on(same_key.len());
            let newest = stretch.change(same_key[same_key.len() - 1]);
            let engine_key = newest.key(stretch);
            let earlier = row_of(&mut earlier, engine_key);
            let row = match earlier {
                Some(row) => Some(row.record()),
                None => current.get(engine_key)?,
            };
            let before = match row {
                Some(row) => {
                    let row = codec::decode_current(engine_key, row)?;
                    Some((row.revision, row.spine()?))
                }
                None => None,
            };
            let is_new = earlier.map_or(before.is_none(), Row::is_new);
            let links = same_key.iter().filter_map(|place| stretch.change(*place).record(stretch));
            let links = links.map(|record| (record.revision, record.previous));
            let spine = spine(links, before, meta).map_err(|what| codec::corrupt(Table::Current, engine_key, what))?;
            let Some(spine) = spine else { continue };
            let record = newest
                .record(stretch)
                .ok_or_else(|| codec::corrupt(Table::History, &newest.revision.to_bytes(), "malformed"))?;
            // Any merge that begins from here on is through what was committed before.
            let before = Before { is_new, since: earlier.map_or(record.revision.main, Row::since) };
            encode.push(&before, engine_key, &record, &spine);
        }
        Ok(if encode.rows.is_empty() { self } else { self.with_rows(&encode.rows, values) })
    }
}

/// The row of `engine_key`, which lies above those that were asked for before.
fn row_of<'b>(walk: &mut BehindWalk<'b>, engine_key: &[u8]) -> Option<Row<'b>> {
    loop {
        let row = walk.peek_row()?;
        match row.key().cmp(engine_key) {
            std::cmp::Ordering::Less => walk.advance(),
            std::cmp::Ordering::Equal => return Some(row),
            std::cmp::Ordering::Greater => return None,
        }
    }
}

/// A record of the stretch.
struct Change<'t> {
    revision: Revision,
    /// In the engine's pages.
    value: &'t [u8],
    /// Where in [`Stretch::bytes`] its engine's key is, behind that what else is in the record, and its end.
    start: usize,
    key_len: u32,
    len: u32,
}

impl Change<'_> {
    fn key<'s>(&self, stretch: &'s Stretch<'_>) -> &'s [u8] {
        &stretch.bytes[self.start..self.start + self.key_len as usize]
    }

    fn record<'s>(&'s self, stretch: &'s Stretch<'_>) -> Option<HistoryRef<'s>> {
        let bytes = &stretch.bytes[self.start + self.key_len as usize..self.start + self.len as usize];
        Some(HistoryRef { value: self.value, ..codec::parse_unsealed(self.revision, bytes)? })
    }
}

/// Records one behind the other, in the order of revisions.
#[derive(Default)]
struct Stretch<'t> {
    changes: Vec<Change<'t>>,
    /// See [`Change`].
    bytes: Vec<u8>,
    /// How many records there were with those that stand for no key.
    records: u64,
    /// Of all values.
    value_bytes: usize,
    /// Length of what all keys begin with.
    common: usize,
    /// Nothing comes behind it.
    is_last: bool,
}

impl<'t> Stretch<'t> {
    /// The next records.
    fn read(cursor: &mut (dyn Cursor<'t> + 't)) -> Result<Self, StoreError> {
        let mut stretch = Self::default();
        while stretch.records < RECORDS_AT_ONCE && stretch.bytes.len() < BYTES_AT_ONCE {
            let Some((key, bytes)) = cursor.next()? else {
                stretch.is_last = true;
                break;
            };
            let record = codec::decode_history(key, bytes)?;
            stretch.records += 1;
            // Raw ones stand for no key.
            if !record.key.is_empty() {
                stretch.push(&record, bytes);
            }
        }
        Ok(stretch)
    }

    fn push(&mut self, record: &HistoryRef<'t>, sealed: &[u8]) {
        let key = EngineKey::of(record.key);
        let key = key.bytes();
        if let Some(first) = self.changes.first() {
            let begins = &first.key(self)[..self.common];
            if key.get(..self.common) != Some(begins) {
                self.common = begins.iter().zip(key).take_while(|(one, other)| one == other).count();
            }
        } else {
            self.common = key.len();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(codec::unsealed(sealed, record.value.len()));
        self.value_bytes += record.value.len();
        self.changes.push(Change {
            revision: record.revision,
            value: record.value,
            start,
            key_len: key.len() as u32,
            len: (self.bytes.len() - start) as u32,
        });
    }

    fn change(&self, place: Place) -> &Change<'t> {
        &self.changes[place.at as usize]
    }

    /// Changes by key, those of one key in the order of revisions.
    fn by_key(&self) -> Vec<Place> {
        let place = |(at, change): (usize, &Change<'_>)| {
            let key = change.key(self);
            Place { head: index::head(key, self.common), len: (key.len() - self.common) as u32, at: at as u32 }
        };
        let mut order: Vec<Place> = self.changes.iter().enumerate().map(place).collect();
        // They come in runs: who writes many keys often writes them in their order.
        order.sort_by(|one, other| one.cmp(other, self));
        order
    }
}

/// Has what a walk by key will meet soon come from memory: it lies anywhere, and each step would wait for it.
struct Ahead<'s, 't> {
    stretch: &'s Stretch<'t>,
    order: &'s [Place],
    met: usize,
}

impl Ahead<'_, '_> {
    /// Steps before a change is met at which it is asked for, and at which the bytes that it leads to are.
    const CHANGE: usize = 32;
    const BYTES: usize = 16;

    fn go_on(&mut self, steps: usize) {
        for met in self.met..self.met + steps {
            if let Some(place) = self.order.get(met + Self::CHANGE) {
                hint::soon(std::slice::from_ref(self.stretch.change(*place)));
            }
            if let Some(place) = self.order.get(met + Self::BYTES) {
                let change = self.stretch.change(*place);
                hint::soon(&self.stretch.bytes[change.start..change.start + change.len as usize]);
            }
        }
        self.met += steps;
    }
}

/// Where a change stands among those read, and what of its key decides nearly all comparisons: the eight bytes behind what
/// all keys begin with, and how many there are.
#[derive(Clone, Copy)]
struct Place {
    head: u64,
    len: u32,
    at: u32,
}

impl Place {
    fn cmp(&self, other: &Self, stretch: &Stretch<'_>) -> std::cmp::Ordering {
        self.head.cmp(&other.head).then_with(|| {
            // The shorter one ends where the other has zeros.
            if self.len <= index::HEAD as u32 && other.len <= index::HEAD as u32 {
                return self.len.cmp(&other.len);
            }
            stretch.change(*self).key(stretch).cmp(stretch.change(*other).key(stretch))
        })
    }
}

/// Rows of `current`, asked for in the order of their keys.
struct Current<'t> {
    txn: &'t dyn ReadTxn,
    /// The row at or above the last key asked for, and the walk on from there.
    walk: Option<(Option<Pair<'t>>, Box<dyn Cursor<'t> + 't>)>,
}

impl<'t> Current<'t> {
    /// Rows passed over before the way down is taken anew: that costs about as much.
    const STEPS: usize = 16;

    fn get(&mut self, key: &[u8]) -> Result<Option<&'t [u8]>, EngineError> {
        match self.walk_to(key) {
            Ok(found) => Ok(found),
            // A walk believes no leaf of which one record is bad; the row in question may still be sound.
            Err(_) => {
                self.walk = None;
                self.txn.get(Table::Current, key)
            }
        }
    }

    fn walk_to(&mut self, key: &[u8]) -> Result<Option<&'t [u8]>, EngineError> {
        if let Some((stands, cursor)) = &mut self.walk {
            for _ in 0..Self::STEPS {
                match stands {
                    Some((at, row)) if *at >= key => return Ok((*at == key).then_some(*row)),
                    Some(_) => *stands = cursor.next()?,
                    None => return Ok(None),
                }
            }
        }
        let mut cursor = self.txn.scan(Table::Current, Bound::Included(key), Bound::Unbounded)?;
        let stands = cursor.next()?;
        self.walk = Some((stands, cursor));
        Ok(stands.filter(|(at, _)| *at == key).map(|(_, row)| row))
    }
}

/// The spine of a key's newest record, which `history` does not hold: counted up from that of its row of `current`. `links`:
/// the revisions of its records in the stretch, oldest first, and what each goes on from. `None`: the row is as new.
fn spine(
    links: impl Iterator<Item = (Revision, Revision)>,
    mut before: Option<(Revision, Spine)>,
    meta: &Meta,
) -> Result<Option<Spine>, &'static str> {
    let mut is_behind = false;
    for (revision, previous) in links {
        let spine = match before {
            // A merge that did not come to its end has written this one or a later one.
            Some((merged, _)) if merged >= revision => continue,
            Some((merged, spine)) if merged == previous => spine.child(merged),
            None if previous == Revision::ZERO => Spine::default(),
            // A tombstone that a compaction has taken, with its row: what lies before it is gone too.
            None if previous.main <= meta.compact_revision().min(meta.through) => Spine::default().child(previous),
            _ => return Err("is not what history goes on from"),
        };
        before = Some((revision, spine));
        is_behind = true;
    }
    Ok(before.filter(|_| is_behind).map(|(_, spine)| spine))
}
