//! Many keys at once. What a lookup waits for is memory: the head of a leaf tells where its entries are, an entry where
//! its value is, and each of them is a wait of its own, longer than all the work between them. Here every lookup goes one
//! step, then every one the next, so that their waits pass together.

use super::page::{Found, HEADER_LEN, Kind, Node, Page, Tree, Value};
use super::tree::{Leaf, Pages, depth};
use crate::hint;

/// Of a value on pages of its own, bytes that are asked for before they are read: the processor sees by itself where that
/// leads.
const AHEAD_BYTES: usize = 2048;
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
    let mut numbers = Vec::with_capacity(keys.len());
    let mut way = Way::default();
    for key in keys {
        let number = way.to(pages, tree, key)?;
        hint::soon(start(pages.raw(number, 1)?, HEADER_LEN));
        numbers.push(number);
    }
    let mut leaves: Vec<Leaf<'m>> = Vec::with_capacity(keys.len());
    for (at, (key, number)) in keys.iter().zip(&numbers).enumerate() {
        let leaf = match at.checked_sub(1) {
            Some(last) if numbers[last] == *number => leaves[last],
            _ => pages.leaf_at(tree, key, *number)?,
        };
        if leaf.page.len() <= ENTRIES {
            leaf.page.entries().for_each(|entry| hint::soon(start(entry, 1)));
        }
        leaves.push(leaf);
    }
    let mut nodes: Vec<Option<Node<'m>>> = Vec::with_capacity(keys.len());
    for (key, leaf) in keys.iter().zip(&leaves) {
        let node = pages.node_on(leaf, key)?;
        match node.as_ref().map(Node::value) {
            None => {}
            Some(Value::Here(value)) => hint::soon(value),
            Some(Value::Apart(number, len)) => hint::soon(start(pages.raw(number, 1)?, len.min(AHEAD_BYTES))),
        }
        nodes.push(node);
    }
    for node in nodes {
        found.push(node.map(|node| pages.value(&node)).transpose()?);
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
    /// The branch above the leaves, and the slot that was taken there.
    last: Option<(Page<'m>, usize)>,
}

impl<'m> Way<'m> {
    /// The number of the leaf that holds `key` if any does.
    fn to(&mut self, pages: Pages<'m>, tree: &Tree, key: &[u8]) -> Found<u64> {
        if let Some((branch, slot)) = self.last {
            for slot in [slot, slot + 1] {
                if leads_to(branch, slot, key)? {
                    self.last = Some((branch, slot));
                    return branch.child(slot);
                }
            }
        }
        let mut number = tree.root;
        for _ in 1..depth(tree)? {
            let branch = pages.page(number, Kind::Branch)?;
            let slot = branch.way_to(key)?;
            number = branch.child(slot)?;
            self.last = Some((branch, slot));
        }
        Ok(number)
    }
}

/// Is `key` on the way through `slot` of `branch`, as far as that branch alone can tell? At its ends it cannot.
fn leads_to(branch: Page<'_>, slot: usize, key: &[u8]) -> Found<bool> {
    if slot == 0 || slot + 1 >= branch.len() {
        return Ok(false);
    }
    Ok(branch.node(slot, Kind::Branch)?.key <= key && key < branch.node(slot + 1, Kind::Branch)?.key)
}
