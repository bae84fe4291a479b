//! Newest records that the engine's table `current` does not have yet: `current` is written behind `history`.
//!
//! A commit appends to `history` and puts the newest records of its keys in here, as the rows that `current` will hold.
//! When they are many they are merged into `current` in the order of keys, so that a leaf is rewritten for many changes
//! at once; see `merge.rs`. Until then a row in here hides the engine's of the same key.
//!
//! Immutable: each commit makes the next one, which shares what has not changed. So what a reader takes with its view never
//! has rows newer than an engine transaction begun afterwards, whose `history` their links lead into.
//!
//! Every row is of a main revision above `Meta::through`. What is lost with the process is found again in `history` from
//! there on: [`Behind::rebuild`].

mod index;
mod rebuild;

use std::sync::Arc;

use milepost_engine::{EngineError, Pair};
use milepost_types::Revision;

use crate::codec::{self, HistoryRef};
use crate::generation::{Filter, Generation};
use crate::keys::{Edge, EngineKey};
use crate::record::Spine;

use index::Index;

/// Most rows of a block: a change copies the references of one.
const BLOCK_ROWS: usize = 128;
/// What a row costs in memory beside its bytes: its reference, the counts behind it, what the allocator rounds up to.
const ROW_OVERHEAD: usize = 56;

/// A row of `current`: whether the engine has none of the key, since when the engine lacks it, length of the engine's
/// key, the key, the record.
#[derive(Clone)]
pub(crate) struct Row(Arc<[u8]>);

const HEAD: usize = 1 + SINCE + 2;
const SINCE: usize = size_of::<i64>();

impl Row {
    fn new(is_new: bool, since: i64, engine_key: &[u8], record: &[u8], scratch: &mut Vec<u8>) -> Self {
        let len = (engine_key.len() as u16).to_le_bytes();
        scratch.clear();
        let parts = [&[u8::from(is_new)][..], &since.to_le_bytes(), &len, engine_key, record];
        parts.iter().for_each(|part| scratch.extend_from_slice(part));
        Self(scratch[..].into())
    }

    fn pair(&self) -> Pair<'_> {
        let len = usize::from(u16::from_le_bytes([self.0[1 + SINCE], self.0[2 + SINCE]]));
        self.0[HEAD..].split_at(len)
    }

    /// The engine has the key's row of every revision below this one; a commit's revisions all count as one of them.
    fn since(&self) -> i64 {
        self.0[1..].first_chunk().map_or(0, |since| i64::from_le_bytes(*since))
    }

    pub fn key(&self) -> &[u8] {
        self.pair().0
    }

    pub fn record(&self) -> &[u8] {
        self.pair().1
    }

    /// The engine has no row of this key.
    fn is_new(&self) -> bool {
        self.0[0] != 0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What the engine has of a row's key: see [`Row`].
struct Before {
    is_new: bool,
    since: i64,
}

/// Makes rows, in memory that serves again.
#[derive(Default)]
struct Encode {
    record: Vec<u8>,
    row: Vec<u8>,
}

impl Encode {
    fn row(&mut self, before: Before, engine_key: &[u8], record: &HistoryRef<'_>, spine: &Spine) -> Row {
        codec::encode_current(record, spine, engine_key, &mut self.record);
        Row::new(before.is_new, before.since, engine_key, &self.record, &mut self.row)
    }
}

/// Rows in the order of keys; never empty.
struct Block {
    rows: Vec<Row>,
    index: Index,
    bytes: usize,
    new_bytes: usize,
}

impl Block {
    fn first(&self) -> &[u8] {
        self.rows[0].key()
    }

    /// How many rows lie below `key`.
    fn below(&self, key: &[u8]) -> usize {
        self.index.below(key, |at| self.rows[at].key())
    }

    fn last(&self) -> &[u8] {
        self.rows[self.rows.len() - 1].key()
    }
}

impl FromIterator<Row> for Block {
    fn from_iter<I: IntoIterator<Item = Row>>(rows: I) -> Self {
        let (mut bytes, mut new_bytes) = (0, 0);
        let count = |row: &Row| {
            bytes += row.len() + ROW_OVERHEAD;
            new_bytes += if row.is_new() { row.len() } else { 0 };
        };
        let rows: Vec<Row> = rows.into_iter().inspect(count).collect();
        let index = Index::of(rows.len(), |at| rows[at].key());
        Self { rows, index, bytes, new_bytes }
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

    /// The row of `engine_key`.
    pub fn get(&self, engine_key: &[u8]) -> Option<&[u8]> {
        self.row(engine_key).map(Row::record)
    }

    fn row(&self, engine_key: &[u8]) -> Option<&Row> {
        if !self.filter.as_ref()?.filter.may_hold(engine_key) {
            return None;
        }
        let (block, row) = self.place(engine_key);
        self.blocks.get(block)?.rows.get(row).filter(|row| row.key() == engine_key)
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
            row if row == self.blocks[block].rows.len() => (above, 0),
            row => (block, row),
        }
    }

    /// The same with the newest records of `generation`.
    pub fn with(&self, generation: &Generation) -> Self {
        let (mut changes, mut encode) = (Vec::new(), Encode::default());
        let collected = generation.newest_of_each(|record| {
            let engine_key = EngineKey::of(&record.key);
            let engine_key = engine_key.bytes();
            let row = self.row(engine_key);
            let is_new = record.previous == Revision::ZERO || row.is_some_and(Row::is_new);
            let before = Before { is_new, since: row.map_or(record.revision.main, Row::since) };
            changes.push(encode.row(before, engine_key, &record.borrow(), &record.spine));
            Ok::<(), EngineError>(())
        });
        debug_assert!(collected.is_ok(), "nothing in it fails");
        // Long keys stand here by their digests.
        if !changes.is_sorted_by(|one, other| one.key() < other.key()) {
            changes.sort_unstable_by(|one, other| one.key().cmp(other.key()));
        }
        self.with_rows(changes)
    }

    /// `changes`: in the order of keys.
    fn with_rows(&self, changes: Vec<Row>) -> Self {
        let filter = self.filter_with(&changes);
        let mut blocks = Blocks::default();
        let mut changes = changes.into_iter().peekable();
        for (at, block) in self.blocks.iter().enumerate() {
            let next = self.blocks.get(at + 1).map(|next| next.first());
            let is_here = |change: &Row| next.is_none_or(|next| change.key() < next);
            if !changes.peek().is_some_and(is_here) {
                blocks.keep(block);
                continue;
            }
            for row in &block.rows {
                while let Some(change) = changes.next_if(|change| change.key() < row.key()) {
                    blocks.push(change);
                }
                let change = changes.next_if(|change| change.key() == row.key());
                blocks.push(change.unwrap_or_else(|| row.clone()));
            }
            while let Some(change) = changes.next_if(is_here) {
                blocks.push(change);
            }
            blocks.cut();
        }
        changes.for_each(|change| blocks.push(change));
        blocks.finish(Some(filter))
    }

    fn filter_with(&self, changes: &[Row]) -> Arc<KeyFilter> {
        const LEAST: usize = 4096;
        let rows = self.rows + changes.len();
        let kept = self.filter.as_ref().filter(|filter| filter.room >= rows);
        let filter = kept.cloned().unwrap_or_else(|| {
            let room = (2 * rows).max(LEAST);
            let filter = Filter::new(room);
            self.blocks.iter().flat_map(|block| &block.rows).for_each(|row| filter.add(row.key()));
            Arc::new(KeyFilter { filter, room })
        });
        changes.iter().for_each(|row| filter.filter.add(row.key()));
        filter
    }

    /// The first rows above `after` of which the engine lacks what was committed up to `through`, at most so many, at most
    /// one more than so many bytes. A newer row right behind such a one comes along: often it belongs on the same leaf. Not
    /// a whole run of them: see `merge.rs`.
    pub fn some(&self, after: Option<&[u8]>, through: i64, max_rows: usize, max_bytes: usize) -> Vec<Row> {
        let mut at = after.map_or((0, 0), |after| self.place(&[after, &[0]].concat()));
        let (mut rows, mut bytes, mut follows) = (Vec::new(), 0, false);
        while let Some(block) = self.blocks.get(at.0) {
            for row in &block.rows[at.1..] {
                let is_due = row.since() <= through;
                let comes_along = std::mem::replace(&mut follows, is_due);
                if !is_due && !comes_along {
                    continue;
                }
                if rows.len() >= max_rows || bytes >= max_bytes {
                    return rows;
                }
                bytes += row.len();
                rows.push(row.clone());
            }
            at = (at.0 + 1, 0);
        }
        rows
    }

    /// The same without `rows`, which [`Behind::some`] of this one has given.
    pub fn without(&self, rows: &[Row]) -> Self {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return self.clone() };
        let mut blocks = Blocks::default();
        let mut gone = rows.iter().peekable();
        for block in &self.blocks {
            if block.last() < first.key() || block.first() > last.key() {
                blocks.keep(block);
                continue;
            }
            for row in &block.rows {
                if gone.next_if(|gone| gone.key() == row.key()).is_none() {
                    blocks.push(row.clone());
                }
            }
            blocks.cut();
        }
        // An empty one needs no filter; the next that is filled begins another.
        let filter = self.filter.clone().filter(|_| !blocks.done.is_empty());
        blocks.finish(filter)
    }
}

/// Rows being put into blocks.
#[derive(Default)]
struct Blocks {
    done: Vec<Arc<Block>>,
    open: Vec<Row>,
}

impl Blocks {
    fn keep(&mut self, block: &Arc<Block>) {
        self.cut();
        self.done.push(block.clone());
    }

    fn push(&mut self, row: Row) {
        self.open.push(row);
    }

    /// Ends a block; one that has grown too large becomes several of the same size.
    fn cut(&mut self) {
        let parts = self.open.len().div_ceil(BLOCK_ROWS).max(1);
        let rows = self.open.len().div_ceil(parts);
        let mut open = std::mem::take(&mut self.open).into_iter().peekable();
        while open.peek().is_some() {
            self.done.push(Arc::new(open.by_ref().take(rows).collect()));
        }
    }

    fn finish(mut self, filter: Option<Arc<KeyFilter>>) -> Behind {
        self.cut();
        let sum = |part: fn(&Block) -> usize| self.done.iter().map(|block| part(block)).sum();
        Behind {
            index: Index::of(self.done.len(), |at| self.done[at].first()),
            rows: sum(|block| block.rows.len()),
            bytes: sum(|block| block.bytes),
            new_bytes: sum(|block| block.new_bytes),
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
        (self.next < self.upper).then(|| self.behind.blocks[self.next.0].rows[self.next.1].pair())
    }

    /// Goes on to the next.
    pub fn advance(&mut self) {
        let (block, row) = self.next;
        self.next = if row + 1 < self.behind.blocks[block].rows.len() { (block, row + 1) } else { (block + 1, 0) };
    }
}
