//! Newest records that the engine's table `current` does not have yet: `current` is written behind `history`.
//!
//! A commit appends to `history` and puts the newest records of its keys in here, as the rows that `current` will hold.
//! When they are many they are merged into `current` in the order of keys, so that a leaf is rewritten for many changes
//! at once; see `merge.rs`. Until then a row in here hides the engine's of the same key. Where memory is to be saved a row
//! leaves its value out, which `history` has; the merge puts it in again.
//!
//! Immutable: each commit makes the next one, which shares what has not changed. So what a reader takes with its view never
//! has rows newer than an engine transaction begun afterwards, whose `history` their links lead into.
//!
//! Every row is of a main revision above `Meta::through`. What is lost with the process is found again in `history` from
//! there on: [`Behind::rebuild`].

mod index;
mod rebuild;
mod rows;

use std::cmp::Ordering;
use std::sync::Arc;

use milepost_engine::{EngineError, Pair};
use milepost_types::Revision;

use crate::codec::{self, HistoryRef, INLINE_MAX, KEPT_MAX};
use crate::generation::{Filter, Generation};
use crate::keys::{Edge, EngineKey};
use crate::record::Spine;

use index::Index;
use rows::{Block, RowHead};
pub(crate) use rows::{Row, Rows};

/// Most rows of a block, and bytes after which it ends: a change copies one.
const BLOCK_ROWS: usize = 128;
const BLOCK_BYTES: usize = 4096;

/// What rows have of their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// As in the engine: all but long ones.
    Kept,
    /// Only short ones.
    LeftOut,
}

/// What the engine has of a row's key: see [`RowHead`].
struct Before {
    is_new: bool,
    since: i64,
}

/// Makes rows.
struct Encode {
    values: Values,
    rows: Rows,
    record: Vec<u8>,
}

impl Encode {
    fn new(values: Values) -> Self {
        Self { values, rows: Rows::default(), record: Vec::new() }
    }

    fn push(&mut self, before: &Before, engine_key: &[u8], record: &HistoryRef<'_>, spine: &Spine) {
        let inline_max = match self.values {
            Values::Kept => INLINE_MAX,
            Values::LeftOut => KEPT_MAX,
        };
        codec::encode_current(record, spine, engine_key, inline_max, &mut self.record);
        let len = record.value.len();
        let left_out = if len > inline_max && len <= INLINE_MAX { len } else { 0 };
        let head = RowHead { is_new: before.is_new, since: before.since, left_out };
        self.rows.push_parts(head, engine_key, &self.record);
    }
}

/// See the module's essay.
#[derive(Clone, Default)]
pub(crate) struct Behind {
    blocks: Vec<Arc<Block>>,
    /// Of their first keys.
    index: Index,
    rows: usize,
    bytes: usize,
    /// Of that, rows of keys of which the engine has none.
    new_bytes: usize,
    filter: Option<Arc<KeyFilter>>,
}

/// Most keys asked for are not in here. Shared by successive versions, so that it may know more than one of them holds.
struct KeyFilter {
    filter: Filter,
    /// Keys beyond which it says little.
    room: usize,
}

impl Behind {
    /// Memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What merging it will add to the engine's live data, about, in bytes.
    pub fn new_bytes(&self) -> usize {
        self.new_bytes
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// The row of `engine_key`.
    pub fn get(&self, engine_key: &[u8]) -> Option<&[u8]> {
        self.row(engine_key).map(Row::record)
    }

    fn row(&self, engine_key: &[u8]) -> Option<Row<'_>> {
        if !self.filter.as_ref()?.filter.may_hold(engine_key) {
            return None;
        }
        let (block, row) = self.place(engine_key);
        let block = self.blocks.get(block)?;
        // Only the rows of another block may all lie below it.
        Some(block.row(row)).filter(|row| row.key() == engine_key)
    }

    /// Walks the rows from `from` up to, and without, `to`.
    pub fn walk<'b>(&'b self, from: &Edge, to: &Edge) -> BehindWalk<'b> {
        let upper = match to {
            Edge::Open => (self.blocks.len(), 0),
            Edge::At(key) => self.place(key),
        };
        let next = match from {
            Edge::Open => (0, 0),
            Edge::At(key) => self.place(key),
        };
        BehindWalk { behind: self, next, upper }
    }

    /// Where the first row at or above `key` stands.
    fn place(&self, key: &[u8]) -> (usize, usize) {
        let above = self.index.below(key, |at| self.blocks[at].first());
        // The block before the first that begins at or above it may reach up to it.
        let Some(block) = above.checked_sub(1) else { return (0, 0) };
        match self.blocks[block].below(key) {
            row if row == self.blocks[block].len() => (above, 0),
            row => (block, row),
        }
    }

    /// The same with the newest records of `generation`. Rows that are looked at anyway leave their values out if those of
    /// the new ones are.
    pub fn with(&self, generation: &Generation, values: Values) -> Self {
        let mut encode = Encode::new(values);
        let collected = generation.newest_of_each(|record| {
            let engine_key = EngineKey::of(&record.key);
            let engine_key = engine_key.bytes();
            let row = self.row(engine_key);
            let is_new = record.previous == Revision::ZERO || row.is_some_and(Row::is_new);
            let before = Before { is_new, since: row.map_or(record.revision.main, Row::since) };
            encode.push(&before, engine_key, &record.borrow(), &record.spine);
            Ok::<(), EngineError>(())
        });
        debug_assert!(collected.is_ok(), "nothing in it fails");
        // Long keys stand here by their digests.
        encode.rows.sort();
        self.with_rows(&encode.rows, values)
    }

    /// `changes`: in the order of keys.
    fn with_rows(&self, changes: &Rows, values: Values) -> Self {
        let filter = self.filter_with(changes);
        let mut blocks = Blocks::new(values);
        let mut changes = changes.iter().peekable();
        for (at, block) in self.blocks.iter().enumerate() {
            let next = self.blocks.get(at + 1).map(|next| next.first());
            let is_here = |change: &Row<'_>| next.is_none_or(|next| change.key() < next);
            if !changes.peek().is_some_and(is_here) {
                blocks.keep(block);
                continue;
            }
            for row in block.rows() {
                let mut order = Ordering::Greater;
                while let Some(change) = changes.next_if(|change| {
                    order = row.key().cmp(change.key());
                    order.is_ge()
                }) {
                    blocks.open.push(change);
                    if order.is_eq() {
                        break;
                    }
                }
                if order.is_ne() {
                    blocks.push(row);
                }
            }
            while let Some(change) = changes.next_if(is_here) {
                blocks.open.push(change);
            }
            blocks.cut_large();
        }
        changes.for_each(|change| blocks.open.push(change));
        blocks.finish(Some(filter))
    }

    fn filter_with(&self, changes: &Rows) -> Arc<KeyFilter> {
        const LEAST: usize = 4096;
        let rows = self.rows + changes.len();
        let kept = self.filter.as_ref().filter(|filter| filter.room >= rows);
        let filter = kept.cloned().unwrap_or_else(|| {
            let room = (2 * rows).max(LEAST);
            let filter = Filter::new(room);
            self.blocks.iter().flat_map(|block| block.rows()).for_each(|row| filter.add(row.key()));
            Arc::new(KeyFilter { filter, room })
        });
        changes.iter().for_each(|row| filter.filter.add(row.key()));
        filter
    }

    /// The first rows above `after` of which the engine lacks what was committed up to `through`, at most so many, at most
    /// one more than so many bytes in the engine. A newer row right behind such a one comes along: often it belongs on the
    /// same leaf. Not a whole run of them: see `merge.rs`.
    pub fn some(&self, after: Option<&[u8]>, through: i64, max_rows: usize, max_bytes: usize) -> Rows {
        let mut at = after.map_or((0, 0), |after| self.place(&[after, &[0]].concat()));
        let (mut rows, mut bytes, mut follows) = (Rows::default(), 0, false);
        while let Some(block) = self.blocks.get(at.0) {
            for row in block.rows().skip(at.1) {
                let is_due = row.since() <= through;
                let comes_along = std::mem::replace(&mut follows, is_due);
                if !is_due && !comes_along {
                    continue;
                }
                if rows.len() >= max_rows || bytes >= max_bytes {
                    return rows;
                }
                bytes += row.whole_len();
                rows.push(row);
            }
            at = (at.0 + 1, 0);
        }
        rows
    }

    /// Rows here and there, each with the next one and with one that lies some ten to a hundred rows from it; about `count` of them,
    /// if there are so many blocks.
    pub fn neighbours(&self, count: usize) -> impl Iterator<Item = [Row<'_>; 3]> {
        let blocks = self.blocks.iter().step_by((self.blocks.len() / count).max(1));
        let blocks = blocks.filter(|block| block.len() > 1);
        blocks.map(|block| [block.row(0), block.row(1), block.row(block.len() - 1)])
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.blocks.iter().flat_map(|block| block.rows())
    }

    /// The same without `rows`, which [`Behind::some`] of this one has given.
    pub fn without(&self, rows: &Rows) -> Self {
        let (Some(first), Some(last)) = (rows.iter().next(), rows.iter().next_back()) else { return self.clone() };
        let mut blocks = Blocks::new(Values::Kept);
        let mut gone = rows.iter().peekable();
        for block in &self.blocks {
            if block.last() < first.key() || block.first() > last.key() {
                blocks.keep(block);
                continue;
            }
            for row in block.rows() {
                if gone.next_if(|gone| gone.key() == row.key()).is_none() {
                    blocks.push(row);
                }
            }
            blocks.cut_large();
        }
        // An empty one needs no filter; the next that is filled begins another.
        let filter = self.filter.clone().filter(|_| !(blocks.done.is_empty() && blocks.open.is_empty()));
        blocks.finish(filter)
    }
}

/// Rows being put into blocks.
struct Blocks {
    values: Values,
    done: Vec<Arc<Block>>,
    open: Rows,
}

impl Blocks {
    fn new(values: Values) -> Self {
        Self { values, done: Vec::new(), open: Rows::default() }
    }

    /// Takes a whole block on, which has not changed.
    fn keep(&mut self, block: &Arc<Block>) {
        // What is left of those before it may be little.
        if !self.open.is_empty() && self.open.bytes() + block.row_bytes() <= BLOCK_BYTES {
            block.rows().for_each(|row| self.push(row));
            return;
        }
        self.cut();
        self.done.push(block.clone());
    }

    fn push(&mut self, row: Row<'_>) {
        match self.values {
            Values::Kept => self.open.push(row),
            Values::LeftOut => self.open.push_thin(row),
        }
    }

    /// Ends a block if that has grown large enough.
    fn cut_large(&mut self) {
        if self.open.len() >= BLOCK_ROWS / 2 || self.open.bytes() >= BLOCK_BYTES / 2 {
            self.cut();
        }
    }

    /// Ends a block; one that has grown too large becomes several of about the same size.
    fn cut(&mut self) {
        let len = self.open.len();
        let parts = len.div_ceil(BLOCK_ROWS).max(self.open.bytes().div_ceil(BLOCK_BYTES)).clamp(1, len.max(1));
        for part in 0..parts {
            let range = len * part / parts..len * (part + 1) / parts;
            if !range.is_empty() {
                self.done.push(Arc::new(Block::of(&self.open, range)));
            }
        }
        self.open.clear();
    }

    fn finish(mut self, filter: Option<Arc<KeyFilter>>) -> Behind {
        self.cut();
        let sum = |part: fn(&Block) -> usize| self.done.iter().map(|block| part(block)).sum();
        Behind {
            index: Index::of(self.done.len(), |at| self.done[at].first()),
            rows: sum(Block::len),
            bytes: sum(Block::memory),
            new_bytes: sum(Block::new_bytes),
            filter,
            blocks: self.done,
        }
    }
}

/// A walk begun by [`Behind::walk`].
pub(crate) struct BehindWalk<'b> {
    behind: &'b Behind,
    next: (usize, usize),
    upper: (usize, usize),
}

impl<'b> BehindWalk<'b> {
    /// The row the walk stands at.
    pub fn peek(&self) -> Option<Pair<'b>> {
        self.peek_row().map(Row::pair)
    }

    fn peek_row(&self) -> Option<Row<'b>> {
        (self.next < self.upper).then(|| self.behind.blocks[self.next.0].row(self.next.1))
    }

    /// Goes on to the next.
    pub fn advance(&mut self) {
        let (block, row) = self.next;
        self.next = if row + 1 < self.behind.blocks[block].len() { (block, row + 1) } else { (block + 1, 0) };
    }
}
