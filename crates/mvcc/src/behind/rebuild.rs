//! Finding again what was behind when the store was last committed.
//!
//! Nothing is copied but the rows at the end: until then records stand for themselves in the engine's pages. They come in
//! the order of revisions and are sorted by key; then `current` is walked beside them, so that a leaf is met once and leaves
//! that lie side by side one after the other.

use std::ops::Bound;

use milepost_engine::{Cursor, Engine, EngineError, Pair, ReadTxn, Table};
use milepost_types::Revision;

use super::{Before, Behind, Encode, Row, index};
use crate::codec;
use crate::error::StoreError;
use crate::keys::EngineKey;
use crate::record::Spine;
use crate::tables::Meta;

impl Behind {
    /// What the store that `engine` holds had in here when it was last committed, and how many records told: the stretch of
    /// `history` above [`Meta::through`].
    pub fn rebuild(engine: &dyn Engine, meta: &Meta) -> Result<(Self, u64), StoreError> {
        let txn = engine.read()?;
        let (changes, records_read) = read_stretch(&*txn, meta)?;
        let order = by_key(&changes);
        let mut current = Rows { txn: &*txn, walk: None };
        let (mut rows, mut encode) = (Vec::new(), Encode::default());
        for same_key in
            order.chunk_by(|one, other| one.head == other.head && one.of(&changes).key() == other.of(&changes).key())
        {
            let newest = same_key[same_key.len() - 1].of(&changes);
            let engine_key = newest.key();
            let before = match current.get(engine_key)? {
                Some(row) => {
                    let row = codec::decode_current(engine_key, row)?;
                    Some((row.revision, row.spine()?))
                }
                None => None,
            };
            let is_new = before.is_none();
            let links =
                same_key.iter().map(|place| place.of(&changes)).map(|change| (change.revision, change.previous));
            let spine = spine(links, before, meta).map_err(|what| codec::corrupt(Table::Current, engine_key, what))?;
            let Some(spine) = spine else { continue };
            let record = codec::decode_history_again(newest.revision, newest.bytes)
                .ok_or_else(|| codec::corrupt(Table::History, &newest.revision.to_bytes(), "malformed"))?;
            // Any merge that begins from here on is through what was committed before.
            let before = Before { is_new, since: record.revision.main };
            rows.push(encode.row(before, engine_key, &record, &spine));
        }
        Ok((Self::of(rows), records_read))
    }

    fn of(rows: Vec<Row>) -> Self {
        if rows.is_empty() { Self::default() } else { Self::default().with_rows(rows) }
    }
}

/// A record of the stretch, in the engine's pages.
struct Change<'t> {
    key: EngineKey<'t>,
    revision: Revision,
    previous: Revision,
    bytes: &'t [u8],
}

impl Change<'_> {
    fn key(&self) -> &[u8] {
        self.key.bytes()
    }
}

/// Records above what `current` has, in the order of revisions, and how many there are with those that stand for no key.
fn read_stretch<'t>(txn: &'t dyn ReadTxn, meta: &Meta) -> Result<(Vec<Change<'t>>, u64), StoreError> {
    let from = Revision::new(meta.through.saturating_add(1), 0).to_bytes();
    let mut cursor = txn.scan(Table::History, Bound::Included(&from), Bound::Unbounded)?;
    let (mut changes, mut records_read) = (Vec::new(), 0);
    while let Some((key, bytes)) = cursor.next()? {
        let record = codec::decode_history(key, bytes)?;
        records_read += 1;
        if record.key.is_empty() {
            // Raw: it stands for no key.
            continue;
        }
        let (revision, previous) = (record.revision, record.previous);
        changes.push(Change { key: EngineKey::of(record.key), revision, previous, bytes });
    }
    Ok((changes, records_read))
}

/// Where a change stands among those read, and what of its key decides nearly all comparisons: the eight bytes behind what
/// all keys begin with.
#[derive(Clone, Copy)]
struct Place {
    head: u64,
    at: usize,
}

impl Place {
    fn of<'c, 't>(self, changes: &'c [Change<'t>]) -> &'c Change<'t> {
        &changes[self.at]
    }
}

/// Changes by key, those of one key in the order of revisions.
fn by_key(changes: &[Change<'_>]) -> Vec<Place> {
    let Some(first) = changes.first().map(Change::key) else { return Vec::new() };
    let alike = |key: &[u8]| first.iter().zip(key).take_while(|(one, other)| one == other).count();
    let common = changes.iter().fold(first.len(), |common, change| match change.key().get(..common) {
        Some(begins) if begins == &first[..common] => common,
        _ => alike(change.key()).min(common),
    });
    let place = |(at, change): (usize, &Change<'_>)| Place { head: index::head(change.key(), common), at };
    let mut order: Vec<Place> = changes.iter().enumerate().map(place).collect();
    // They come in runs: who writes many keys often writes them in their order.
    order.sort_by(|one, other| {
        one.head.cmp(&other.head).then_with(|| one.of(changes).key().cmp(other.of(changes).key()))
    });
    order
}

/// Rows of `current`, asked for in the order of their keys.
struct Rows<'t> {
    txn: &'t dyn ReadTxn,
    /// The row at or above the last key asked for, and the walk on from there.
    walk: Option<(Option<Pair<'t>>, Box<dyn Cursor<'t> + 't>)>,
}

impl<'t> Rows<'t> {
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
