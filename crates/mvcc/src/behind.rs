//! Newest records that the engine's table `current` does not have yet: `current` is written behind `history`.
//!
//! A commit appends to `history` and puts the newest records of its keys in here, as the rows that `current` will hold.
//! When they are many they are merged into `current` in the order of keys, so that a leaf is rewritten for many changes
//! at once; see `merge.rs`. Until then a row in here hides the engine's of the same key.
//!
//! Immutable: each commit makes the next one, which shares what has not changed. So what a reader takes with its view never
//! has rows newer than an engine transaction begun afterwards, whose `history` their links lead into.
//!
//! Every row is of a main revision above [`Meta::through`]. What is lost with the process is found again in `history` from
//! there on: [`Behind::rebuild`].

mod index;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::{Engine, EngineError, Pair, Table};
use milepost_types::Revision;

use crate::codec;
use crate::error::StoreError;
use crate::generation::{Filter, Generation};
use crate::keys::{Edge, EngineKey};
use crate::record::{Record, Spine};
use crate::tables::Meta;

use index::Index;

/// Most rows of a block: a change copies the references of one.
const BLOCK_ROWS: usize = 128;
/// What a row costs in memory beside its bytes: its reference, the counts behind it, what the allocator rounds up to.
const ROW_OVERHEAD: usize = 56;

/// A row of `current`: whether the engine has none of the key, length of the engine's key, the key, the record.
#[derive(Clone)]
pub(crate) struct Row(Arc<[u8]>);

const HEAD: usize = 3;

impl Row {
    fn new(is_new: bool, engine_key: &[u8], record: &[u8]) -> Self {
        let len = (engine_key.len() as u16).to_le_bytes();
        Self([&[u8::from(is_new)][..], &len, engine_key, record].concat().into())
    }

    fn pair(&self) -> Pair<'_> {
        let len = usize::from(u16::from_le_bytes([self.0[1], self.0[2]]));
        self.0[HEAD..].split_at(len)
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
        let (mut changes, mut buffer) = (Vec::new(), Vec::with_capacity(4096));
        let collected = generation.newest_of_each(|record| {
            self.encode(record, &mut buffer, &mut changes);
            Ok::<(), EngineError>(())
        });
        debug_assert!(collected.is_ok(), "nothing in it fails");
        // Long keys stand here by their digests.
        if !changes.is_sorted_by(|one, other| one.key() < other.key()) {
            changes.sort_unstable_by(|one, other| one.key().cmp(other.key()));
        }
        self.with_rows(changes)
    }

    fn encode(&self, record: &Record, buffer: &mut Vec<u8>, rows: &mut Vec<Row>) {
        let engine_key = EngineKey::of(&record.key);
        let engine_key = engine_key.bytes();
        codec::encode_current(record, engine_key, buffer);
        let is_new = record.previous == Revision::ZERO || self.row(engine_key).is_some_and(Row::is_new);
        rows.push(Row::new(is_new, engine_key, buffer));
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

    /// The first rows above `after`, at most so many, at most one more than so many bytes.
    pub fn some(&self, after: Option<&[u8]>, max_rows: usize, max_bytes: usize) -> Vec<Row> {
        let mut at = after.map_or((0, 0), |after| self.place(&[after, &[0]].concat()));
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(block) = self.blocks.get(at.0) {
            for row in &block.rows[at.1..] {
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
        for block in &self.blocks {
            if block.last() < first.key() || block.first() > last.key() {
                blocks.keep(block);
                continue;
            }
            let stays = |row: &&Row| row.key() < first.key() || row.key() > last.key();
            block.rows.iter().filter(stays).for_each(|row| blocks.push(row.clone()));
            blocks.cut();
        }
        // An empty one needs no filter; the next that is filled begins another.
        let filter = self.filter.clone().filter(|_| !blocks.done.is_empty());
        blocks.finish(filter)
    }

    /// What the store that `engine` holds had in here when it was last committed, and how many records told. Read from the
    /// stretch of `history` above [`Meta::through`]; then the rows that it goes on from, in the order of keys: so each leaf
    /// is read once, and leaves that lie side by side one after the other.
    pub fn rebuild(engine: &dyn Engine, meta: &Meta) -> Result<(Self, u64), StoreError> {
        let txn = engine.read()?;
        let from = Revision::new(meta.through.saturating_add(1), 0).to_bytes();
        let mut cursor = txn.scan(Table::History, Bound::Included(&from), Bound::Unbounded)?;
        let mut stretches: BTreeMap<Bytes, Stretch> = BTreeMap::new();
        let mut records_read = 0;
        while let Some((key, bytes)) = cursor.next()? {
            let record = codec::decode_history(key, bytes)?;
            records_read += 1;
            if record.key.is_empty() {
                // Raw: it stands for no key.
                continue;
            }
            let engine_key = EngineKey::of(record.key);
            let link = (record.revision, record.previous);
            match stretches.get_mut(engine_key.bytes()) {
                Some(stretch) => {
                    stretch.links.push(link);
                    stretch.newest = record.own(true);
                }
                None => {
                    let stretch = Stretch { links: vec![link], newest: record.own(true) };
                    stretches.insert(Bytes::copy_from_slice(engine_key.bytes()), stretch);
                }
            }
        }
        let (mut rows, mut buffer) = (Vec::with_capacity(stretches.len()), Vec::with_capacity(4096));
        for (engine_key, stretch) in stretches {
            let before = match txn.get(Table::Current, &engine_key)? {
                Some(row) => {
                    let row = codec::decode_current(&engine_key, row)?;
                    Some((row.revision, row.spine()?))
                }
                None => None,
            };
            let is_new = before.is_none();
            let Some(spine) =
                stretch.spine(before, meta).map_err(|what| codec::corrupt(Table::Current, &engine_key, what))?
            else {
                continue;
            };
            codec::encode_current(&Record { spine, ..stretch.newest }, &engine_key, &mut buffer);
            rows.push(Row::new(is_new, &engine_key, &buffer));
        }
        Ok((if rows.is_empty() { Self::default() } else { Self::default().with_rows(rows) }, records_read))
    }
}

/// A key's records in the stretch of `history` that a start reads again.
struct Stretch {
    /// Their revisions, and the one that each goes on from; oldest first.
    links: Vec<(Revision, Revision)>,
    /// Without its spine.
    newest: Record,
}

impl Stretch {
    /// The spine of the newest, which `history` does not hold: counted up from that of the row of `current`. `None`: that
    /// row is as new.
    fn spine(&self, mut before: Option<(Revision, Spine)>, meta: &Meta) -> Result<Option<Spine>, &'static str> {
        let mut is_behind = false;
        for &(revision, previous) in &self.links {
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
