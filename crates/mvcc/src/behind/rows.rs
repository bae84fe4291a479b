//! Rows of `current` side by side in memory.

use std::ops::Range;

use milepost_engine::Pair;
use milepost_types::Revision;

use super::index::Index;
use crate::codec;
use crate::error::StoreError;

/// A row of `current`: whether the engine has none of the key, since when the engine lacks it, how long the value is that
/// is left out of it, length of the engine's key, the key, the record.
#[derive(Clone, Copy)]
pub(crate) struct Row<'r>(&'r [u8]);

const SINCE: usize = 1;
const LEFT_OUT: usize = SINCE + size_of::<i64>();
const KEY_LEN: usize = LEFT_OUT + size_of::<u16>();
const HEAD: usize = KEY_LEN + size_of::<u16>();

/// What a row says besides its key and its record.
#[derive(Clone, Copy)]
pub(super) struct RowHead {
    pub is_new: bool,
    pub since: i64,
    /// Length of the value that the row would have in the engine and has not in here; 0: it is here, or nowhere.
    pub left_out: usize,
}

impl<'r> Row<'r> {
    pub fn pair(self) -> Pair<'r> {
        self.0[HEAD..].split_at(self.short(KEY_LEN))
    }

    pub fn key(self) -> &'r [u8] {
        self.pair().0
    }

    pub fn record(self) -> &'r [u8] {
        self.pair().1
    }

    /// The engine has the key's row of every revision below this one; a commit's revisions all count as one of them.
    pub fn since(self) -> i64 {
        self.0[SINCE..].first_chunk().map_or(0, |since| i64::from_le_bytes(*since))
    }

    /// The engine has no row of this key.
    pub fn is_new(self) -> bool {
        self.0[0] != 0
    }

    /// See [`RowHead::left_out`].
    pub fn left_out(self) -> usize {
        self.short(LEFT_OUT)
    }

    /// Of its record.
    pub fn revision(self) -> Result<Revision, StoreError> {
        let (key, record) = self.pair();
        codec::decode_current(key, record).map(|row| row.revision)
    }

    /// Where `history` has the value that was left out, if one was.
    pub fn wanting(self) -> Option<Revision> {
        // A row that memory has spoilt stays as it is, for its reader to find.
        (self.left_out() > 0).then(|| self.revision().ok()).flatten()
    }

    /// Bytes that it will take in the engine, a few more.
    pub fn whole_len(self) -> usize {
        self.0.len() + self.left_out()
    }

    fn short(self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.0[at], self.0[at + 1]]))
    }

    fn head(self) -> RowHead {
        RowHead { is_new: self.is_new(), since: self.since(), left_out: self.left_out() }
    }
}

/// Rows, in the order in which they were pushed.
#[derive(Default)]
pub(crate) struct Rows {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Memory for a record that serves again.
    scratch: Vec<u8>,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn get(&self, at: usize) -> Row<'_> {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Row(&self.bytes[start..self.ends[at]])
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Row<'_>> + ExactSizeIterator {
        (0..self.len()).map(|at| self.get(at))
    }

    pub fn push(&mut self, row: Row<'_>) {
        self.bytes.extend_from_slice(row.0);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn push_parts(&mut self, head: RowHead, engine_key: &[u8], record: &[u8]) {
        self.bytes.push(u8::from(head.is_new));
        self.bytes.extend_from_slice(&head.since.to_le_bytes());
        self.bytes.extend_from_slice(&(head.left_out as u16).to_le_bytes());
        self.bytes.extend_from_slice(&(engine_key.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(engine_key);
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// Pushes `row` without its value, which `history` has too; as it is if that would gain little.
    pub fn push_thin(&mut self, row: Row<'_>) {
        let (key, record) = row.pair();
        match codec::without_value(key, record, &mut self.scratch) {
            Some(left_out) => {
                let scratch = std::mem::take(&mut self.scratch);
                self.push_parts(RowHead { left_out, ..row.head() }, key, &scratch);
                self.scratch = scratch;
            }
            None => self.push(row),
        }
    }

    /// Pushes `row`, with `value` if there is one: that which was left out.
    pub fn push_with(&mut self, row: Row<'_>, value: Option<&[u8]>) {
        let Some(value) = value else { return self.push(row) };
        let (key, record) = row.pair();
        let mut scratch = std::mem::take(&mut self.scratch);
        codec::with_value(key, record, value, &mut scratch);
        self.push_parts(RowHead { left_out: 0, ..row.head() }, key, &scratch);
        self.scratch = scratch;
    }

    /// Puts them in the order of their keys, in which they nearly always are.
    pub fn sort(&mut self) {
        if self.iter().is_sorted_by(|one, other| one.key() < other.key()) {
            return;
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_unstable_by(|one, other| self.get(*one).key().cmp(self.get(*other).key()));
        let mut sorted = Self::default();
        order.into_iter().for_each(|at| sorted.push(self.get(at)));
        *self = sorted;
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Some rows in the order of keys; never empty.
pub(super) struct Block {
    bytes: Box<[u8]>,
    ends: Box<[u32]>,
    index: Index,
    new_bytes: usize,
}

/// What a block costs in memory beside its rows, in bytes.
const BLOCK_OVERHEAD: usize = 144;
/// What a row costs in memory beside its bytes: where it ends, and its head in the index.
const ROW_OVERHEAD: usize = size_of::<u32>() + size_of::<u64>();

impl Block {
    pub fn of(rows: &Rows, range: Range<usize>) -> Self {
        let start = range.start.checked_sub(1).map_or(0, |before| rows.ends[before]);
        let end = rows.ends[range.end - 1];
        let new_bytes = range.clone().map(|at| rows.get(at)).filter(|row| row.is_new()).map(Row::whole_len).sum();
        Self {
            bytes: rows.bytes[start..end].into(),
            ends: rows.ends[range.clone()].iter().map(|end| (end - start) as u32).collect(),
            index: Index::of(range.len(), |at| rows.get(range.start + at).key()),
            new_bytes,
        }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of its rows.
    pub fn row_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Memory it takes, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.len() * ROW_OVERHEAD + BLOCK_OVERHEAD
    }

    /// Bytes of rows of which the engine has none, as they will be there.
    pub fn new_bytes(&self) -> usize {
        self.new_bytes
    }

    pub fn row(&self, at: usize) -> Row<'_> {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Row(&self.bytes[start..self.ends[at] as usize])
    }

    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        (0..self.len()).map(|at| self.row(at))
    }

    pub fn first(&self) -> &[u8] {
        self.row(0).key()
    }

    pub fn last(&self) -> &[u8] {
        self.row(self.len() - 1).key()
    }

    /// How many rows lie below `key`.
    pub fn below(&self, key: &[u8]) -> usize {
        self.index.below(key, |at| self.row(at).key())
    }
}
