//! Many keys at once. What a lookup waits for is memory: the head of a leaf tells where its entries are, an entry where
//! its value is, and each of them is a wait of its own, longer than all the work between them. Here every lookup goes one
//! step, then every one the next, so that their waits pass together. The values themselves are not fetched: so many at once
//! would be waited for here, where there is nothing else to do.

use super::page::{Found, HEADER_LEN, Kind, Node, Page, Tree, Value, order};
use super::tree::{Leaf, Pages, depth};
use crate::hint;

/// Keys that go together.
const GROUP: usize = 16;
/// On a leaf with more entries a search meets few of them.
const ENTRIES: usize = 8;

/// Appends to `found` what `tree` has for `keys`.
pub(super) fn get_each<'m>(
    pages: Pages<'m>,
    tree: &Tree,
    keys: &[&[u8]],
    found: &mut Vec<Option<&'m [u8]>>,
) -> Found<()> {
    if tree.is_empty() {
        found.extend(keys.iter().map(|_| None));
        return Ok(());
    }
    let mut way = Way::default();
    keys.chunks(GROUP).try_for_each(|keys| get_group(pages, tree, keys, &mut way, found))
}

/// The same for [`GROUP`] keys at most.
fn get_group<'m>(
    pages: Pages<'m>,
    tree: &Tree,
    keys: &[&[u8]],
    way: &mut Way<'m>,
    found: &mut Vec<Option<&'m [u8]>>,
) -> Found<()> {
    let mut numbers = [0; GROUP];
    for (key, number) in keys.iter().zip(&mut numbers) {
        *number = way.to(pages, tree, key)?;
        hint::soon(start(pages.raw(*number, 1)?, HEADER_LEN));
    }
    let mut leaves: [Option<Leaf<'m>>; GROUP] = [None; GROUP];
    for (at, key) in keys.iter().enumerate() {
        if let Some(last) = at.checked_sub(1).filter(|last| numbers[*last] == numbers[at]) {
            leaves[at] = leaves[last];
            continue;
        }
        let leaf = pages.leaf_at(tree, key, numbers[at])?;
        if leaf.page.len() <= ENTRIES {
            leaf.page.entries().for_each(|entry| hint::soon(start(entry, 1)));
        }
        leaves[at] = Some(leaf);
    }
    let mut nodes: [Option<Node<'m>>; GROUP] = [None; GROUP];
    let mut likely = 0;
    for (at, (key, leaf)) in keys.iter().zip(leaves.iter().flatten()).enumerate() {
        if at.checked_sub(1).is_none_or(|last| numbers[last] != numbers[at]) {
            likely = 0;
        }
        let node = if leaf.page.key(likely).is_some_and(|met| order(met, key).is_eq()) {
            Some(leaf.page.node(likely, Kind::Leaf)?)
        } else {
            pages.node_on(leaf, key)?
        };
        likely += 1;
        // Where a value begins that lies here is told by the entry; the rest is fetched by who reads it.
        if let Some(Value::Apart(number, _)) = node.as_ref().map(Node::value) {
            hint::soon(start(pages.raw(number, 1)?, HEADER_LEN));
        }
        nodes[at] = node;
    }
    for node in &nodes[..keys.len()] {
        found.push(node.as_ref().map(|node| pages.value(node)).transpose()?);
    }
    Ok(())
}

/// The start of `bytes`, `len` at most.
fn start(bytes: &[u8], len: usize) -> &[u8] {
    &bytes[..len.min(bytes.len())]
}

/// The last way down: keys that are asked for together are often neighbours.
#[derive(Default)]
struct Way<'m> {
    last: Option<Step<'m>>,
}

/// A slot of the branch above the leaves, and the keys between which it leads, as far as that branch alone can tell. At
/// its ends it cannot.
struct Step<'m> {
    branch: Page<'m>,
    slot: usize,
    low: &'m [u8],
    high: &'m [u8],
}

impl<'m> Step<'m> {
    fn of(branch: Page<'m>, slot: usize) -> Option<Self> {
        if slot == 0 {
            return None;
        }
        Some(Self { branch, slot, low: branch.key(slot)?, high: branch.key(slot + 1)? })
    }

    fn leads_to(&self, key: &[u8]) -> bool {
        order(self.low, key).is_le() && order(key, self.high).is_lt()
    }
}

impl<'m> Way<'m> {
    /// The number of the leaf that holds `key` if any does.
    fn to(&mut self, pages: Pages<'m>, tree: &Tree, key: &[u8]) -> Found<u64> {
        if let Some(step) = &self.last {
            if step.leads_to(key) {
                return step.branch.child(step.slot);
            }
            if order(step.high, key).is_le()
                && let Some(step) = Step::of(step.branch, step.slot + 1)
                && step.leads_to(key)
            {
                let number = step.branch.child(step.slot);
                self.last = Some(step);
                return number;
            }
        }
        let mut number = tree.root;
        for _ in 1..depth(tree)? {
            let branch = pages.page(number, Kind::Branch)?;
            let slot = branch.way_to(key)?;
            number = branch.child(slot)?;
            self.last = Step::of(branch, slot);
        }
        Ok(number)
    }
}
