//! LMDB's pages, as they lie in the file.
//!
//! ```text
//!   every page   0 number u64 │ 8 pad u16 │ 10 kind u16 │ 12 lower u16 │ 14 upper u16 │ 16 slots u16… → free → nodes
//!   overflow     0 number u64 │ 8 pad u16 │ 10 kind u16 │ 12 pages u32              │ 16 the value, over `pages` pages
//!   meta         0 header     │ 16 magic u32, version u32 │ 24 address u64 │ 32 map size u64
//!                │ 40 free tree │ 88 main tree │ 136 last page u64 │ 144 transaction u64
//!   node         0 low u16, high u16: length of the value, or child's number │ 4 flags u16, in a branch 32 bits higher
//!                of the number │ 6 length of the key u16 │ 8 key │ value
//!   tree         0 pad u32 │ 4 flags u16 │ 6 depth u16 │ 8 branches u64 │ 16 leaves u64 │ 24 overflow pages u64
//!                │ 32 entries u64 │ 40 root u64
//! ```
//!
//! Everything here is read with bounds: what a page says about itself is believed only as far as it stays inside.
//!
//! Source: LMDB 0.9.70 `mdb.c`, `MDB_page`, `MDB_node`, `MDB_db`, `MDB_meta`.

use std::cmp::Ordering;

/// A file of LMDB's is read as the machine that wrote it lays numbers out.
const _: () =
    assert!(usize::BITS == 64 && cfg!(target_endian = "little"), "Milepost runs on 64-bit little-endian machines");

pub(super) const HEADER_LEN: usize = 16;
const NODE_LEN: usize = 8;
const TREE_LEN: usize = 48;
const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
const META: u16 = 0x08;

/// The value is on overflow pages.
const BIG: u16 = 0x01;
/// The value is a tree.
const SUBTREE: u16 = 0x02;

/// No page: an empty tree's root.
pub(super) const NO_PAGE: u64 = u64::MAX;
/// Deepest tree that LMDB makes.
pub(super) const MAX_DEPTH: usize = 32;

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub page: u64,
    pub what: String,
}

pub(super) type Found<T> = Result<T, Fault>;

pub(super) fn fault<T>(page: u64, what: impl Into<String>) -> Found<T> {
    Err(Fault { page, what: what.into() })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// A tree, as its owner describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    pub depth: u16,
    pub branches: u64,
    pub leaves: u64,
    pub overflows: u64,
    pub entries: u64,
    pub root: u64,
}

impl Tree {
    fn parse(bytes: &[u8]) -> Self {
        Self {
            depth: u16_at(bytes, 6),
            branches: u64_at(bytes, 8),
            leaves: u64_at(bytes, 16),
            overflows: u64_at(bytes, 24),
            entries: u64_at(bytes, 32),
            root: u64_at(bytes, 40),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.root == NO_PAGE
    }
}

/// One of the two pages at the start of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub page_size: usize,
    pub free: Tree,
    pub main: Tree,
    pub last_page: u64,
    pub transaction: u64,
}

/// Bytes of a meta page that LMDB uses.
pub(super) const META_LEN: usize = 152;
/// Of those, the ones that a commit writes.
pub(super) const META_WRITTEN: std::ops::Range<usize> = 32..META_LEN;

impl Meta {
    /// Reads meta page `number`, 0 or 1.
    pub fn parse(number: u64, bytes: &[u8]) -> Found<Self> {
        if bytes.len() < META_LEN || u16_at(bytes, 10) & META == 0 || u32_at(bytes, 16) != MAGIC {
            return fault(number, "is no page that a store begins with");
        }
        if u32_at(bytes, 20) != VERSION {
            return fault(number, format!("names version {} of the file's format, not {VERSION}", u32_at(bytes, 20)));
        }
        let page_size = u32_at(bytes, 40) as usize;
        if !page_size.is_power_of_two() || !(512..=65536).contains(&page_size) {
            return fault(number, format!("names pages of {page_size} bytes"));
        }
        let transaction = u64_at(bytes, 144);
        if transaction != 0 && transaction % 2 != number {
            return fault(number, format!("names transaction {transaction}, which is told on the other page"));
        }
        let (free, main) = (Tree::parse(&bytes[40..]), Tree::parse(&bytes[88..]));
        Ok(Self { page_size, free, main, last_page: u64_at(bytes, 136), transaction })
    }
}

/// What a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Branch,
    Leaf,
}

/// A branch or a leaf. Its header has been checked.
#[derive(Clone, Copy)]
pub(super) struct Page<'m> {
    pub number: u64,
    bytes: &'m [u8],
}

/// A key and what belongs to it.
#[derive(Clone, Copy)]
pub(super) struct Node<'m> {
    pub key: &'m [u8],
    flags: u16,
    size: u32,
    /// Inside the page.
    rest: &'m [u8],
    /// Bytes that it takes there.
    pub taken: usize,
}

/// Where a value is.
pub(super) enum Value<'m> {
    Here(&'m [u8]),
    /// On overflow pages from this one on, so many bytes.
    Apart(u64, usize),
}

impl<'m> Page<'m> {
    /// The page `number`, all of whose bytes are `bytes`.
    pub fn of(number: u64, kind: Kind, bytes: &'m [u8]) -> Found<Self> {
        if u64_at(bytes, 0) != number {
            return fault(number, format!("says that it is page {}", u64_at(bytes, 0)));
        }
        let expected = if kind == Kind::Branch { BRANCH } else { LEAF };
        if u16_at(bytes, 10) != expected {
            return fault(number, format!("is of kind {:#x}, not {expected:#x}", u16_at(bytes, 10)));
        }
        let (lower, upper) = (u16_at(bytes, 12) as usize, u16_at(bytes, 14) as usize);
        if lower < HEADER_LEN || lower % 2 != 0 || upper < lower || upper > bytes.len() {
            return fault(number, format!("says that it is used up to {lower} and from {upper}"));
        }
        Ok(Self { number, bytes })
    }

    pub fn bytes(&self) -> &'m [u8] {
        self.bytes
    }

    /// Nodes on it.
    pub fn len(&self) -> usize {
        (u16_at(self.bytes, 12) as usize).saturating_sub(HEADER_LEN) / 2
    }

    pub fn node(&self, slot: usize, kind: Kind) -> Found<Node<'m>> {
        let at = u16_at(self.bytes, HEADER_LEN + 2 * slot) as usize;
        let node = self.bytes.get(at..).filter(|node| at >= u16_at(self.bytes, 14) as usize && node.len() >= NODE_LEN);
        let Some(node) = node else { return fault(self.number, format!("has no entry {slot} at {at}")) };
        let (head, body) = node.split_at(NODE_LEN);
        let (flags, size) = (u16_at(head, 4), u32_at(head, 0));
        let inside = match kind {
            Kind::Branch => 0,
            Kind::Leaf if flags & BIG != 0 => 8,
            Kind::Leaf => size as usize,
        };
        let key_len = u16_at(head, 6) as usize;
        let Some((key, rest)) = body.split_at_checked(key_len).filter(|(_, rest)| rest.len() >= inside) else {
            return fault(self.number, format!("has an entry {slot} that does not end on it"));
        };
        let taken = (NODE_LEN + key_len + inside).next_multiple_of(2);
        Ok(Node { key, flags, size, rest: &rest[..inside], taken })
    }

    /// The key of `slot`, if it has one where it should be. A search asks for many and for nothing else of theirs.
    pub fn key(&self, slot: usize) -> Option<&'m [u8]> {
        let at = u16_at(self.bytes, HEADER_LEN + 2 * slot) as usize;
        if slot >= self.len() || at < u16_at(self.bytes, 14) as usize {
            return None;
        }
        let (head, body) = self.bytes.get(at..)?.split_at_checked(NODE_LEN)?;
        body.get(..u16_at(head, 6) as usize)
    }

    /// Where its nodes are, unlooked at: each from its first byte to the end of the page.
    pub fn entries(&self) -> impl Iterator<Item = &'m [u8]> + use<'m> {
        let bytes = self.bytes;
        (0..self.len()).filter_map(move |slot| bytes.get(u16_at(bytes, HEADER_LEN + 2 * slot) as usize..))
    }

    /// The page that `slot` of a branch leads to.
    pub fn child(&self, slot: usize) -> Found<u64> {
        let node = self.node(slot, Kind::Branch)?;
        Ok(u64::from(node.size) | u64::from(node.flags) << 32)
    }

    /// The first slot of a leaf whose key is not below `key`, and whether it is `key`.
    pub fn seek(&self, key: &[u8]) -> Found<(usize, bool)> {
        self.search(key, 0, Kind::Leaf)
    }

    /// The slot of a branch that leads to `key`. The first key of a branch stands for everything below the second.
    pub fn way_to(&self, key: &[u8]) -> Found<usize> {
        let (slot, exact) = self.search(key, 1, Kind::Branch)?;
        Ok(if exact { slot } else { slot - 1 })
    }

    fn search(&self, key: &[u8], from: usize, kind: Kind) -> Found<(usize, bool)> {
        let (mut low, mut high) = (from, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let met = match self.key(middle) {
                Some(met) => met,
                None => self.node(middle, kind)?.key,
            };
            match order(met, key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok((middle, true)),
                Ordering::Greater => high = middle,
            }
        }
        Ok((low, false))
    }

    /// Its nodes fill it without a gap: none is hidden by a wrong count, none is told of twice.
    pub fn check_dense(&self, kind: Kind) -> Found<()> {
        let mut taken = 0;
        for slot in 0..self.len() {
            taken += self.node(slot, kind)?.taken;
        }
        let used = self.bytes.len() - u16_at(self.bytes, 14) as usize;
        if taken == used {
            Ok(())
        } else {
            fault(self.number, format!("has {taken} bytes of entries where {used} are used"))
        }
    }
}

/// Which of two keys comes first. Most are told apart by their first sixteen bytes, revisions always.
#[inline]
pub(super) fn order(one: &[u8], other: &[u8]) -> Ordering {
    let (Some((a, one)), Some((b, other))) = (one.split_first_chunk(), other.split_first_chunk()) else {
        return one.cmp(other);
    };
    match u128::from_be_bytes(*a).cmp(&u128::from_be_bytes(*b)) {
        // Comparing nothing would be a call as well.
        Ordering::Equal if !one.is_empty() || !other.is_empty() => one.cmp(other),
        told => told,
    }
}

impl<'m> Node<'m> {
    pub fn value(&self) -> Value<'m> {
        if self.flags & BIG != 0 {
            Value::Apart(u64_at(self.rest, 0), self.size as usize)
        } else {
            Value::Here(self.rest)
        }
    }

    /// The tree that the value describes, if it does.
    pub fn tree(&self) -> Option<Tree> {
        (self.flags == SUBTREE && self.rest.len() == TREE_LEN).then(|| Tree::parse(self.rest))
    }
}

/// Pages that a value of `len` bytes takes.
pub(super) fn overflow_pages(len: usize, page_size: usize) -> u64 {
    ((HEADER_LEN + len).div_ceil(page_size)).max(1) as u64
}

/// Pages that the overflow page with this head says it has.
pub(super) fn said_pages(head: &[u8]) -> u64 {
    u64::from(u32_at(head, 12))
}

/// Is this the head of an overflow page for a value of `len` bytes? LMDB leaves a page its length when a shorter value is
/// written over one of the same transaction, so it may have more than it takes.
pub(super) fn check_overflow(number: u64, head: &[u8], len: usize, page_size: usize) -> Found<()> {
    if u64_at(head, 0) != number {
        return fault(number, format!("says that it is page {}", u64_at(head, 0)));
    }
    if u16_at(head, 10) != OVERFLOW {
        return fault(number, format!("is of kind {:#x}, not {OVERFLOW:#x}", u16_at(head, 10)));
    }
    let (said, needed) = (said_pages(head), overflow_pages(len, page_size));
    if said >= needed { Ok(()) } else { fault(number, format!("has {said} pages for a value that takes {needed}")) }
}
