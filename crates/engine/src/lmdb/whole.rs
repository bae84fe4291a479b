//! Reading every page: what is done when nothing vouches for the file.

use std::collections::BTreeSet;

use super::page::{Fault, Found, Kind, MAX_DEPTH, Meta, Tree, Value, fault, overflow_pages, said_pages, u64_at};
use super::tree::{Fence, Pages, check_leaf};

/// What was counted below a page.
#[derive(Default)]
struct Count {
    branches: u64,
    leaves: u64,
    overflows: u64,
    entries: u64,
}

struct Whole<'m> {
    pages: Pages<'m>,
    /// One bit per page that something has led to.
    met: Vec<u64>,
    /// The same, of free pages behind the end of the file.
    met_beyond: BTreeSet<u64>,
    count: Count,
}

/// Checks every page that the state of `meta` reaches: kinds, order, the keys between which it lies, counts, and that no
/// two ways lead to one page. What records say is not looked at here.
pub(super) fn check(pages: Pages<'_>, meta: &Meta) -> Found<()> {
    // The file may end before the last page, if that is free; what the number says otherwise is not believed.
    let in_file = pages.map.file_len() / pages.page_size as u64;
    let met = vec![0; (in_file.min(pages.last_page) / 64 + 1) as usize];
    let mut whole = Whole { pages, met, met_beyond: BTreeSet::new(), count: Count::default() };
    whole.tree(&meta.free, Of::FreePages)?;
    whole.tree(&meta.main, Of::Tables)
}

/// What a tree holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Lists of free pages, by a number in the machine's order.
    FreePages,
    /// Descriptions of trees.
    Tables,
    Records,
}

impl<'m> Whole<'m> {
    fn tree(&mut self, tree: &Tree, of: Of) -> Found<()> {
        if tree.is_empty() {
            return Ok(());
        }
        let outer = std::mem::take(&mut self.count);
        self.below(tree.root, tree.depth as usize, Fence::default(), of)?;
        let count = std::mem::replace(&mut self.count, outer);
        let found = (count.branches, count.leaves, count.overflows, count.entries);
        let said = (tree.branches, tree.leaves, tree.overflows, tree.entries);
        if found == said {
            return Ok(());
        }
        fault(
            tree.root,
            format!("is the root of {found:?} branches, leaves, overflow pages and entries, not of {said:?}"),
        )
    }

    fn meet(&mut self, number: u64, pages: u64) -> Found<()> {
        for page in number..number.saturating_add(pages) {
            if page > self.pages.last_page {
                return fault(page, "is not one of the store's pages, but something leads there");
            }
            let Some(word) = self.met.get_mut((page / 64) as usize) else {
                if self.met_beyond.insert(page) {
                    continue;
                }
                return fault(page, "is in use twice");
            };
            if *word & 1 << (page % 64) != 0 {
                return fault(page, "is in use twice");
            }
            *word |= 1 << (page % 64);
        }
        Ok(())
    }

    fn below(&mut self, number: u64, level: usize, fence: Fence<'m>, of: Of) -> Found<()> {
        if level == 0 || level > MAX_DEPTH {
            return fault(number, "lies at an impossible depth");
        }
        self.meet(number, 1)?;
        if level == 1 {
            return self.leaf(number, fence, of);
        }
        let page = self.pages.page(number, Kind::Branch)?;
        page.check_dense(Kind::Branch)?;
        self.count.branches += 1;
        let mut last: Option<&[u8]> = None;
        for slot in 0..page.len() {
            let inner = self.pages.fence(page, slot, fence)?;
            if slot > 0 && of != Of::FreePages {
                let key = page.node(slot, Kind::Branch)?.key;
                let outside = fence.low.is_some_and(|low| key < low) || fence.high.is_some_and(|high| key >= high);
                if outside || last.is_some_and(|last| last >= key) {
                    return fault(number, format!("has entry {slot} out of order"));
                }
                last = Some(key);
            }
            self.below(page.child(slot)?, level - 1, inner, of)?;
        }
        Ok(())
    }

    fn leaf(&mut self, number: u64, fence: Fence<'m>, of: Of) -> Found<()> {
        let page = self.pages.page(number, Kind::Leaf)?;
        self.count.leaves += 1;
        self.count.entries += page.len() as u64;
        match of {
            Of::FreePages => page.check_dense(Kind::Leaf)?,
            _ => check_leaf(page, fence)?,
        }
        for slot in 0..page.len() {
            let node = page.node(slot, Kind::Leaf)?;
            let value = self.pages.value(&node)?;
            if let Value::Apart(first, len) = node.value() {
                let pages = said_pages(self.pages.raw(first, overflow_pages(len, self.pages.page_size))?);
                self.meet(first, pages)?;
                self.count.overflows += pages;
            }
            match of {
                Of::FreePages => self.free_pages(number, value)?,
                Of::Tables => {
                    let Some(tree) = node.tree() else { return fault(number, "names a table without a tree") };
                    self.tree(&tree, Of::Records)?;
                }
                Of::Records => {}
            }
        }
        Ok(())
    }

    /// A list of free pages: how many, then their numbers.
    fn free_pages(&mut self, number: u64, list: &[u8]) -> Result<(), Fault> {
        let count = u64_at(list, 0);
        let len = count.checked_add(1).and_then(|words| words.checked_mul(8)).filter(|len| *len <= list.len() as u64);
        let Some(len) = len else {
            return fault(number, format!("lists {count} free pages in {} bytes", list.len()));
        };
        for at in (8..len as usize).step_by(8) {
            let page = u64_at(list, at);
            if page < 2 {
                return fault(number, format!("lists page {page} as free"));
            }
            self.meet(page, 1)?;
        }
        Ok(())
    }
}
