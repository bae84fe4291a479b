//! Reading LMDB's trees ourselves, and believing no page before it has been looked at.
//!
//! LMDB trusts its file: a flipped bit in a page sends it to memory that is not there, or past the record it looks for,
//! which is then served as absent. So reads do not go through it. Branches are covered by the note that each commit
//! leaves (see [`super::note`]), so that every way down is the one that was written; a leaf is checked when it is first
//! met: its entries fill it without a gap, are in order, lie between the keys that led there, and every record on it
//! stands its own check. A leaf on which one does not still serves the others by their exact keys, but no absence and no
//! walk: the record that is missed may be the one whose key has changed.

use std::ops::Bound;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::map::Map;
use super::note::Looked;
use super::page::{Fault, Found, HEADER_LEN, Kind, MAX_DEPTH, Node, Page, Tree, Value, check_overflow, fault};
use crate::Pair;

/// Says whether a record is as it was written.
pub type RecordCheck = fn(key: &[u8], value: &[u8]) -> bool;

/// Leaves that have been looked at and are sound: a bit per page, in pieces that come when they are needed.
pub(super) struct Seen {
    pieces: Box<[OnceLock<Box<[AtomicU64]>>]>,
    /// A bad record was met. A write beside it carries it on to a page that may have been sound before.
    given_up: AtomicBool,
}

const PIECE_PAGES: u64 = 1 << 18;

impl Seen {
    pub fn new(pages: u64) -> Self {
        let pieces = (0..pages.div_ceil(PIECE_PAGES)).map(|_| OnceLock::new()).collect();
        Self { pieces, given_up: AtomicBool::new(false) }
    }

    fn place(&self, page: u64) -> Option<(&AtomicU64, u64)> {
        let piece = self.pieces.get((page / PIECE_PAGES) as usize)?;
        let words = piece.get_or_init(|| (0..PIECE_PAGES / 64).map(|_| AtomicU64::new(0)).collect());
        Some((&words[(page % PIECE_PAGES / 64) as usize], 1 << (page % 64)))
    }

    pub fn has(&self, page: u64) -> bool {
        !self.given_up.load(Ordering::Acquire)
            && self.place(page).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// Forgets `page`: something else will be there.
    pub fn forget(&self, page: u64) {
        let piece = self.pieces.get((page / PIECE_PAGES) as usize).and_then(OnceLock::get);
        if let Some(words) = piece {
            words[(page % PIECE_PAGES / 64) as usize].fetch_and(!(1 << (page % 64)), Ordering::Relaxed);
        }
    }

    fn add(&self, page: u64) {
        if let Some((word, bit)) = self.place(page) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }
}

/// The pages of one committed state.
#[derive(Clone, Copy)]
pub(super) struct Pages<'m> {
    pub map: &'m Map,
    pub page_size: usize,
    pub last_page: u64,
    pub seen: &'m Seen,
    pub check: Option<RecordCheck>,
}

/// Keys between which a page's keys lie: from the first on, below the second.
#[derive(Clone, Copy, Default)]
pub(super) struct Fence<'m> {
    pub low: Option<&'m [u8]>,
    pub high: Option<&'m [u8]>,
}

impl Fence<'_> {
    pub fn holds(&self, key: &[u8]) -> bool {
        self.low.is_none_or(|low| key >= low) && self.high.is_none_or(|high| key < high)
    }
}

impl<'m> Pages<'m> {
    pub fn raw(&self, number: u64, pages: u64) -> Found<&'m [u8]> {
        let end = number.saturating_add(pages);
        if number < 2 || end > self.last_page.saturating_add(1) {
            return fault(number, "is not one of the store's pages, but something leads there");
        }
        let size = self.page_size as u64;
        let place = number.checked_mul(size).zip(pages.checked_mul(size).and_then(|len| usize::try_from(len).ok()));
        let bytes = place.and_then(|(at, len)| self.map.bytes(at, len));
        bytes.map_or_else(|| fault(number, "lies behind the end of the file"), Ok)
    }

    pub fn page(&self, number: u64, kind: Kind) -> Found<Page<'m>> {
        Page::of(number, kind, self.raw(number, 1)?)
    }

    /// The keys between which what `slot` of `branch` leads to must lie.
    pub fn fence(&self, branch: Page<'m>, slot: usize, around: Fence<'m>) -> Found<Fence<'m>> {
        let low = if slot == 0 { around.low } else { Some(branch.node(slot, Kind::Branch)?.key) };
        let last = slot + 1 == branch.len();
        let high = if last { around.high } else { Some(branch.node(slot + 1, Kind::Branch)?.key) };
        Ok(Fence { low, high })
    }

    /// The leaf `number`; its entries are in their places.
    fn leaf(&self, number: u64, fence: Fence<'m>) -> Found<Leaf<'m>> {
        let page = self.page(number, Kind::Leaf)?;
        if self.seen.has(number) {
            return Ok(Leaf { page, bad: None });
        }
        check_leaf(page, fence)?;
        let bad = self.bad_record(page)?;
        match bad {
            None => self.seen.add(number),
            Some(_) => self.seen.given_up.store(true, Ordering::Release),
        }
        Ok(Leaf { page, bad })
    }

    /// The first record of a leaf that does not stand its check.
    fn bad_record(&self, page: Page<'m>) -> Found<Option<usize>> {
        let Some(check) = self.check else { return Ok(None) };
        for slot in 0..page.len() {
            let node = page.node(slot, Kind::Leaf)?;
            let sound = match node.value() {
                Value::Here(value) => check(node.key, value),
                // Large: looked at when it is read, unless its key is in doubt because another is missed.
                Value::Apart(..) => true,
            };
            if !sound {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Looks at the large values of a leaf as well: something is missed there.
    fn check_large(&self, page: Page<'m>) -> Found<()> {
        let Some(check) = self.check else { return Ok(()) };
        for slot in 0..page.len() {
            let node = page.node(slot, Kind::Leaf)?;
            if matches!(node.value(), Value::Apart(..)) && !check(node.key, self.value(&node)?) {
                return fault(page.number, describe(node.key));
            }
        }
        Ok(())
    }

    /// The leaf that holds `key` if any does.
    fn find(&self, tree: &Tree, key: &[u8]) -> Found<Option<Leaf<'m>>> {
        if tree.is_empty() {
            return Ok(None);
        }
        let levels = depth(tree)?;
        let mut number = tree.root;
        for _ in 1..levels {
            let branch = self.page(number, Kind::Branch)?;
            number = branch.child(branch.way_to(key)?)?;
        }
        self.leaf_at(tree, key, number).map(Some)
    }

    /// The leaf `number`, to which `key` has led.
    pub fn leaf_at(&self, tree: &Tree, key: &[u8], number: u64) -> Found<Leaf<'m>> {
        let mut fence = Fence::default();
        if !self.seen.has(number) {
            // Down again, this time with an eye on the keys beside the way: once per leaf.
            let mut next = tree.root;
            for _ in 1..depth(tree)? {
                let branch = self.page(next, Kind::Branch)?;
                let slot = branch.way_to(key)?;
                fence = self.fence(branch, slot, fence)?;
                next = branch.child(slot)?;
            }
        }
        self.leaf(number, fence)
    }

    pub fn get(&self, tree: &Tree, key: &[u8]) -> Found<Option<&'m [u8]>> {
        let Some(node) = self.node(tree, key)? else { return Ok(None) };
        self.value(&node).map(Some)
    }

    pub fn node(&self, tree: &Tree, key: &[u8]) -> Found<Option<Node<'m>>> {
        let Some(leaf) = self.find(tree, key)? else { return Ok(None) };
        self.node_on(&leaf, key)
    }

    /// The entry of `key` on the leaf that holds it if any does.
    pub fn node_on(&self, leaf: &Leaf<'m>, key: &[u8]) -> Found<Option<Node<'m>>> {
        let (slot, exact) = leaf.page.seek(key)?;
        if exact {
            return leaf.page.node(slot, Kind::Leaf).map(Some);
        }
        leaf.must_be_whole()?;
        self.check_large(leaf.page)?;
        Ok(None)
    }

    /// Looks at the pages that a change of `key` may touch: the leaf and the branches above it, and with `beside` those
    /// next to each. Branches are compared with what is known of them. The answer is between which keys all others would
    /// have led to the same pages.
    pub fn look_at(&self, tree: &Tree, key: &[u8], beside: bool, known: &mut Looked) -> Found<Fence<'m>> {
        if tree.is_empty() {
            return Ok(Fence::default());
        }
        let (mut number, mut fence) = (tree.root, Fence::default());
        let levels = depth(tree)?;
        for level in 1..levels {
            let branch = self.page(number, Kind::Branch)?;
            known.compare(branch)?;
            let slot = branch.way_to(key)?;
            let near = [slot.checked_sub(1), Some(slot + 1)].into_iter().flatten().filter(|near| *near < branch.len());
            for near in near.filter(|_| beside) {
                if level + 1 == levels {
                    self.leaf(branch.child(near)?, self.fence(branch, near, fence)?)?;
                } else {
                    known.compare(self.page(branch.child(near)?, Kind::Branch)?)?;
                }
            }
            fence = self.fence(branch, slot, fence)?;
            number = branch.child(slot)?;
        }
        self.leaf(number, fence)?;
        Ok(fence)
    }

    pub fn value(&self, node: &Node<'m>) -> Found<&'m [u8]> {
        match node.value() {
            Value::Here(value) => Ok(value),
            Value::Apart(number, len) => {
                let pages = super::page::overflow_pages(len, self.page_size);
                let bytes = self.raw(number, pages)?;
                check_overflow(number, bytes, len, self.page_size)?;
                Ok(&bytes[HEADER_LEN..HEADER_LEN + len])
            }
        }
    }

    pub fn last(&self, tree: &Tree) -> Found<Option<Pair<'m>>> {
        if tree.is_empty() {
            return Ok(None);
        }
        let (mut number, mut fence) = (tree.root, Fence::default());
        for _ in 1..depth(tree)? {
            let branch = self.page(number, Kind::Branch)?;
            let slot = branch.len().saturating_sub(1);
            fence = self.fence(branch, slot, fence)?;
            number = branch.child(slot)?;
        }
        let leaf = self.leaf(number, fence)?;
        leaf.must_be_whole()?;
        let Some(slot) = leaf.page.len().checked_sub(1) else { return Ok(None) };
        let node = leaf.page.node(slot, Kind::Leaf)?;
        Ok(Some((node.key, self.value(&node)?)))
    }
}

pub(super) fn depth(tree: &Tree) -> Found<usize> {
    match tree.depth as usize {
        0 => fault(tree.root, "is the root of a tree without depth"),
        depth if depth > MAX_DEPTH => fault(tree.root, format!("is the root of a tree of depth {depth}")),
        depth => Ok(depth),
    }
}

fn describe(key: &[u8]) -> String {
    format!("holds a record that fails its check: {}", key.escape_ascii())
}

/// Are the entries of a leaf in their places?
pub(super) fn check_leaf(page: Page<'_>, fence: Fence<'_>) -> Found<()> {
    page.check_dense(Kind::Leaf)?;
    let mut last: Option<&[u8]> = None;
    for slot in 0..page.len() {
        let key = page.node(slot, Kind::Leaf)?.key;
        if last.is_some_and(|last| last >= key) {
            return fault(page.number, format!("has entry {slot} out of order"));
        }
        last = Some(key);
    }
    let Some(last) = last else { return fault(page.number, "is empty") };
    let first = page.node(0, Kind::Leaf)?.key;
    if fence.low.is_some_and(|low| first < low) || fence.high.is_some_and(|high| last >= high) {
        return fault(page.number, "holds keys that do not belong there");
    }
    Ok(())
}

/// A leaf whose entries are in their places.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'m> {
    pub page: Page<'m>,
    /// The first record that does not stand its check.
    bad: Option<usize>,
}

impl Leaf<'_> {
    fn must_be_whole(&self) -> Found<()> {
        let Some(bad) = self.bad else { return Ok(()) };
        fault(self.page.number, describe(self.page.node(bad, Kind::Leaf)?.key))
    }
}

/// A walk through a tree.
pub(super) struct Walk<'m> {
    pages: Pages<'m>,
    /// Branches on the way down, and where they were left.
    way: Vec<(Page<'m>, usize)>,
    leaf: Option<Page<'m>>,
    slot: usize,
    to: Bound<Vec<u8>>,
    /// The leaf ends before the walk does.
    inside: bool,
}

impl<'m> Walk<'m> {
    pub fn new(pages: Pages<'m>, tree: &Tree, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Found<Self> {
        let to = to.map(<[u8]>::to_vec);
        let mut walk =
            Self { pages, way: Vec::with_capacity(tree.depth as usize), leaf: None, slot: 0, to, inside: false };
        if tree.is_empty() {
            return Ok(walk);
        }
        let start = match from {
            Bound::Unbounded => &[],
            Bound::Included(key) | Bound::Excluded(key) => key,
        };
        let mut number = tree.root;
        for _ in 1..depth(tree)? {
            let branch = pages.page(number, Kind::Branch)?;
            let slot = branch.way_to(start)?;
            number = branch.child(slot)?;
            walk.way.push((branch, slot));
        }
        walk.enter(number)?;
        if let Some(leaf) = walk.leaf {
            let (slot, exact) = leaf.seek(start)?;
            walk.slot = slot + usize::from(exact && matches!(from, Bound::Excluded(_)));
        }
        Ok(walk)
    }

    /// Stands at the start of the leaf `number`, to which the way leads.
    fn enter(&mut self, number: u64) -> Found<()> {
        let mut fence = Fence::default();
        if !self.pages.seen.has(number) {
            for (branch, slot) in &self.way {
                fence = self.pages.fence(*branch, *slot, fence)?;
            }
        }
        let leaf = self.pages.leaf(number, fence)?;
        leaf.must_be_whole()?;
        (self.leaf, self.slot) = (Some(leaf.page), 0);
        self.inside =
            leaf.page.len().checked_sub(1).and_then(|last| leaf.page.key(last)).is_some_and(|last| self.holds(last));
        Ok(())
    }

    /// Does `key` come before the end?
    fn holds(&self, key: &[u8]) -> bool {
        match &self.to {
            Bound::Unbounded => true,
            Bound::Included(to) => key <= &to[..],
            Bound::Excluded(to) => key < &to[..],
        }
    }

    /// Goes on to the next leaf; false: there is none.
    fn next_leaf(&mut self) -> Found<bool> {
        let levels = self.way.len();
        while let Some((branch, slot)) = self.way.pop() {
            if slot + 1 < branch.len() {
                self.way.push((branch, slot + 1));
                let mut number = branch.child(slot + 1)?;
                while self.way.len() < levels {
                    let branch = self.pages.page(number, Kind::Branch)?;
                    number = branch.child(0)?;
                    self.way.push((branch, 0));
                }
                self.enter(number)?;
                return Ok(true);
            }
        }
        self.leaf = None;
        Ok(false)
    }

    pub fn next(&mut self) -> Result<Option<Pair<'m>>, Fault> {
        loop {
            let Some(leaf) = self.leaf else { return Ok(None) };
            if self.slot < leaf.len() {
                let node = leaf.node(self.slot, Kind::Leaf)?;
                if !self.inside && !self.holds(node.key) {
                    self.leaf = None;
                    return Ok(None);
                }
                self.slot += 1;
                return Ok(Some((node.key, self.pages.value(&node)?)));
            }
            if !self.next_leaf()? {
                return Ok(None);
            }
        }
    }
}
