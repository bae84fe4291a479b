//! How many keys lie in a range, without walking through it. etcd's answers tell how many keys a range holds whatever the
//! limit, so that each page of a list of a million keys makes its server count the rest of them.
//!
//! The keyspace is cut into blocks of some hundred keys, and of each it is known how many keys are alive:
//!
//! ```text
//!                start of a range                             its end
//!   ├────────┼───────▼┼────────┼────────┼────────┼────────┼──▼─────┤ blocks, by their first possible key
//!      391      402      388      391      512      77       390     keys alive now
//!                 walk      ╰── added up, at any revision ──╯ walk
//! ```
//!
//! Apply keeps them right: a first version adds one, a tombstone takes one off, and nothing else matters. A block
//! remembers its last changes by revision, so that it can tell of older revisions too; where it cannot, it is walked.
//! Blocks that grow are cut, those that shrink are joined. Each generation takes the blocks that changed along as rows of
//! `meta`, so that the next start has them without looking at a key:
//!
//! ```text
//!   "block/" ++ first possible key → keys alive, i64
//!   "counted"                      → the main revision that the rows are of, i64
//! ```
//!
//! Rows of another revision than the store's newest, or none, as a store of before them or a program that did not know of
//! them leaves it, count for nothing: then the store is walked once when it is opened.

use milepost_types::{KeyRange, RangeEnd};
use parking_lot::RwLock;

use crate::generation::TableChanges;
use crate::record::Record;
use crate::tables::SmallTable;

/// What rows of blocks begin with; the block's first key follows.
pub(crate) const BLOCK_PREFIX: &[u8] = b"block/";
/// The row that tells of which revision the others are.
pub(crate) const COUNTED_KEY: &[u8] = b"counted";

/// Longest first key of a block. Well below where long keys are cut, so that no block begins between such keys, which
/// the engine has in another order.
pub(crate) const START_MAX: usize = 400;

/// Changes that a block remembers, 16 bytes each: a good megabyte for a million keys, if keys come and go in every block.
const CHANGES_MAX: usize = 32;

/// The blocks, shared by apply and all readers.
pub(crate) struct Counts {
    /// Locked by readers for an addition per block, by apply for an entry's creations and deletions.
    blocks: RwLock<Blocks>,
    /// Keys after which a block is cut.
    block_keys: i64,
}

#[derive(Default)]
struct Blocks {
    /// In order; the first begins at the empty key. Empty: nothing is known.
    list: Vec<Block>,
    /// First keys of rows whose blocks are gone.
    gone: Vec<Box<[u8]>>,
    /// The revision that the rows written last are of.
    written: i64,
}

struct Block {
    start: Box<[u8]>,
    /// Keys alive at the newest revision.
    count: i64,
    /// As many as that have been alive since this main revision.
    since: i64,
    /// The count is known from this main revision on.
    known_from: i64,
    /// Main revisions above that at which it changed, and what it was before.
    changes: Vec<(i64, i64)>,
    /// Differs from its row.
    changed: bool,
    /// To be cut above so many keys.
    limit: i64,
}

/// A piece of the keyspace: its first possible key, and keys alive in it.
pub(crate) type Piece = (Box<[u8]>, i64);

/// A part of a range that has to be walked; without an end: to the end of the keyspace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    start: Box<[u8]>,
    end: Option<Box<[u8]>>,
}

impl Gap {
    pub fn range(&self) -> KeyRange<'_> {
        let end = self.end.as_deref().map_or(RangeEnd::Open, RangeEnd::Before);
        KeyRange { start: &self.start, end }
    }
}

/// How to count a range.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Keys in the blocks that are known.
    pub known: i64,
    /// The rest of the range.
    pub gaps: Vec<Gap>,
}

impl Block {
    fn new((start, count): Piece, revision: i64, block_keys: i64) -> Self {
        let limit = block_keys.max(2 * count.min(i64::MAX / 2));
        let limit = if count <= block_keys { block_keys } else { limit };
        Self { start, count, since: revision, known_from: revision, changes: Vec::new(), changed: true, limit }
    }

    fn count_at(&self, at: i64) -> Option<i64> {
        if at >= self.since {
            return Some(self.count);
        }
        if at < self.known_from {
            return None;
        }
        let later = self.changes.partition_point(|(main, _)| *main <= at);
        Some(self.changes.get(later).map_or(self.count, |(_, before)| *before))
    }

    fn add(&mut self, main: i64, difference: i64) {
        if self.changes.last().is_none_or(|(last, _)| *last < main) {
            if self.changes.len() == CHANGES_MAX {
                let forgotten = self.changes.drain(..CHANGES_MAX / 2).next_back();
                self.known_from = forgotten.map_or(self.known_from, |(main, _)| main);
            }
            self.changes.push((main, self.count));
        }
        self.count += difference;
        self.since = main;
        self.changed = true;
    }
}

impl Blocks {
    /// The block that `key` belongs to.
    fn place(&self, key: &[u8]) -> usize {
        self.list.partition_point(|block| &*block.start <= key).saturating_sub(1)
    }

    fn end_of(&self, index: usize) -> Option<Box<[u8]>> {
        self.list.get(index + 1).map(|next| next.start.clone())
    }

    fn plan(&self, range: KeyRange<'_>, at: i64) -> Option<Plan> {
        let first = self.list.partition_point(|block| &*block.start < range.start);
        let (last, tail) = match range.end {
            RangeEnd::Single => return None,
            RangeEnd::Open => (self.list.len(), None),
            RangeEnd::Before(end) => (self.place(end), Some(end)),
        };
        if first >= last {
            return None;
        }
        let mut plan = Plan::default();
        if *self.list[first].start != *range.start {
            plan.walk(range.start.into(), Some(self.list[first].start.clone()));
        }
        for (index, block) in self.list[first..last].iter().enumerate() {
            match block.count_at(at) {
                Some(count) => plan.known += count,
                None => plan.walk(block.start.clone(), self.end_of(first + index)),
            }
        }
        if let Some(end) = tail
            && *self.list[last].start != *end
        {
            plan.walk(self.list[last].start.clone(), Some(end.into()));
        }
        Some(plan)
    }

    /// Joins block `index` with a neighbour if both are small.
    fn join(&mut self, index: usize, block_keys: i64) {
        let small = block_keys * 3 / 4;
        let fits = |one: usize, other: usize| {
            self.list.get(one).zip(self.list.get(other)).is_some_and(|(one, other)| one.count + other.count <= small)
        };
        let left = match index {
            _ if fits(index, index + 1) => index,
            0 => return,
            _ if fits(index - 1, index) => index - 1,
            _ => return,
        };
        let right = self.list.remove(left + 1);
        self.gone.push(right.start);
        let block = &mut self.list[left];
        block.count += right.count;
        block.since = block.since.max(right.since);
        block.known_from = block.since.max(block.known_from).max(right.known_from);
        block.since = block.known_from;
        block.changes = Vec::new();
        block.changed = true;
        block.limit = block_keys;
    }
}

impl Plan {
    fn walk(&mut self, start: Box<[u8]>, end: Option<Box<[u8]>>) {
        match self.gaps.last_mut() {
            Some(last) if last.end.as_ref() == Some(&start) => last.end = end,
            _ => self.gaps.push(Gap { start, end }),
        }
    }
}

impl Counts {
    pub fn new(block_keys: usize) -> Self {
        // Half a block must be more than none.
        let block_keys = i64::try_from(block_keys).unwrap_or(i64::MAX).clamp(4, 1 << 30);
        Self { blocks: RwLock::default(), block_keys }
    }

    /// Keys of a block that is cut anew: room for some more.
    pub fn piece_keys(&self) -> i64 {
        self.block_keys * 3 / 4
    }

    /// Takes `pieces` for the whole keyspace at main revision `revision`. `rows`: what is written in the store; with
    /// `same` those are the pieces.
    pub fn set(&self, pieces: Vec<Piece>, revision: i64, rows: Vec<Box<[u8]>>, same: bool) {
        let mut list: Vec<_> = pieces.into_iter().map(|piece| Block::new(piece, revision, self.block_keys)).collect();
        list.iter_mut().for_each(|block| block.changed = !same);
        let gone = if same { Vec::new() } else { rows };
        let written = if same { revision } else { -1 };
        *self.blocks.write() = Blocks { list, gone, written };
    }

    /// How to count `range` at main revision `at`; `None`: walk all of it.
    pub fn plan(&self, range: KeyRange<'_>, at: i64) -> Option<Plan> {
        self.blocks.read().plan(range, at)
    }

    /// Takes in the records of one entry, before readers see them. The answer is the blocks that have grown too large.
    pub fn add<'r>(&self, records: impl Iterator<Item = &'r Record>) -> Vec<Gap> {
        let mut changes = records.filter(|record| record.version <= 1).peekable();
        if changes.peek().is_none() {
            return Vec::new();
        }
        let mut large = Vec::new();
        let mut blocks = self.blocks.write();
        let blocks = &mut *blocks;
        for record in changes {
            let index = blocks.place(&record.key);
            let Some(block) = blocks.list.get_mut(index) else { return Vec::new() };
            block.add(record.revision.main, if record.is_tombstone() { -1 } else { 1 });
            if block.count > block.limit {
                // Once, however much it grows yet.
                block.limit = i64::MAX;
                large.push(block.start.clone());
            } else if record.is_tombstone() && block.count < self.block_keys / 8 {
                blocks.join(index, self.block_keys);
            }
        }
        // What has grown may have shrunk again, and be gone.
        large.retain(|start| blocks.list.get(blocks.place(start)).is_some_and(|block| block.limit == i64::MAX));
        let gap = |start: Box<[u8]>| Gap { end: blocks.end_of(blocks.place(&start)), start };
        large.into_iter().map(gap).collect()
    }

    /// The block that `large` names could not be cut: tries again when it has grown as much again.
    pub fn leave(&self, large: &Gap) {
        let mut blocks = self.blocks.write();
        let index = blocks.place(&large.start);
        if let Some(block) = blocks.list.get_mut(index) {
            block.limit = 2 * block.count;
        }
    }

    /// Puts `pieces`, counted at the newest revision `revision`, in the place of the block that `large` names.
    pub fn cut(&self, large: &Gap, pieces: Vec<Piece>, revision: i64) {
        let mut blocks = self.blocks.write();
        let index = blocks.place(&large.start);
        let fits = |block: &Block| {
            block.start == large.start && block.count == pieces.iter().map(|(_, count)| count).sum::<i64>()
        };
        let found = blocks.list.get(index).is_some_and(fits) && blocks.end_of(index) == large.end;
        debug_assert!(found, "a block was counted wrong: {large:?}");
        if !found {
            // Better no answer at once than a wrong one.
            *blocks = Blocks::default();
            return;
        }
        if pieces.len() < 2 {
            blocks.list[index].limit = 2 * blocks.list[index].count;
            return;
        }
        let new = pieces.into_iter().map(|piece| Block::new(piece, revision, self.block_keys));
        blocks.list.splice(index..=index, new);
    }

    /// Adds to `rows` what has changed since the last call, as of main revision `revision`, the newest.
    pub fn write(&self, revision: i64, rows: &mut TableChanges) {
        let mut blocks = self.blocks.write();
        if blocks.list.is_empty() || blocks.written == revision {
            return;
        }
        let key = |start: &[u8]| (SmallTable::Meta, [BLOCK_PREFIX, start].concat());
        for start in blocks.gone.drain(..) {
            rows.insert(key(&start), None);
        }
        for block in blocks.list.iter_mut().filter(|block| block.changed) {
            block.changed = false;
            rows.insert(key(&block.start), Some(block.count.to_be_bytes().to_vec()));
        }
        blocks.written = revision;
        rows.insert((SmallTable::Meta, COUNTED_KEY.to_vec()), Some(revision.to_be_bytes().to_vec()));
    }
}

/// Cuts a walk through keys into pieces.
pub(crate) struct Cutter {
    done: Vec<Piece>,
    start: Box<[u8]>,
    count: i64,
    piece_keys: i64,
    /// The last key of a piece that is full.
    last: Vec<u8>,
}

impl Cutter {
    /// For pieces of `piece_keys` from `start` on.
    pub fn new(start: &[u8], piece_keys: i64) -> Self {
        Self { done: Vec::new(), start: start.into(), count: 0, piece_keys, last: Vec::new() }
    }

    /// The next key that is alive.
    pub fn key(&mut self, key: &[u8]) {
        if self.count >= self.piece_keys {
            let alike = self.last.iter().zip(key).take_while(|(one, other)| one == other).count();
            if alike < START_MAX {
                let start = std::mem::replace(&mut self.start, key[..=alike].into());
                self.done.push((start, std::mem::take(&mut self.count)));
            }
        }
        self.count += 1;
        if self.count >= self.piece_keys {
            self.last.clear();
            self.last.extend_from_slice(key);
        }
    }

    pub fn finish(mut self) -> Vec<Piece> {
        self.done.push((self.start, self.count));
        self.done
    }
}
