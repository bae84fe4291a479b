//! Which intervals hold this key: a treap ordered by start, where each node knows the greatest end below it.

use std::cmp::Ordering;
use std::sync::Arc;

/// The end of an interval: keys below it; `None`: no end.
pub(super) type End = Option<Arc<[u8]>>;

const NIL: u32 = u32::MAX;

/// Half-open intervals of keys, each with a number of the caller's.
///
/// An insert, a removal or a look-up costs O(log n); finding the k intervals around a key O(log n + k). Balance rests on
/// pseudo-random priorities that no client can see, not on the order in which intervals arrive. Same calls, same tree.
///
/// Invariants ([`IntervalTree::check`]): nodes are ordered by (start, end) without doubles; a parent's priority is not below
/// its children's; `furthest` names the node with the greatest end of its subtree.
#[derive(Debug)]
pub(super) struct IntervalTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    /// State of the priority generator (xorshift; never zero).
    random: u32,
}

#[derive(Debug)]
struct Node {
    start: Arc<[u8]>,
    end: End,
    value: u32,
    priority: u32,
    left: u32,
    right: u32,
    furthest: u32,
}

impl Default for IntervalTree {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NIL, random: 0x9e37_79b9 }
    }
}

impl IntervalTree {
    /// The number stored with exactly this interval.
    pub fn find(&self, start: &[u8], end: Option<&[u8]>) -> Option<u32> {
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            at = match compare((start, end), node.bounds()) {
                Ordering::Less => node.left,
                Ordering::Greater => node.right,
                Ordering::Equal => return Some(node.value),
            };
        }
        None
    }

    /// Adds an interval that is not there yet.
    pub fn insert(&mut self, start: Arc<[u8]>, end: End, value: u32) {
        debug_assert!(self.find(&start, end.as_deref()).is_none(), "one node per interval");
        let (left, right) = self.split(self.root, (&start, end.as_deref()));
        let priority = self.next_random();
        let node = Node { start, end, value, priority, left: NIL, right: NIL, furthest: NIL };
        let new = match self.free.pop() {
            Some(slot) => {
                self.nodes[slot as usize] = node;
                slot
            }
            None => {
                self.nodes.push(node);
                u32::try_from(self.nodes.len() - 1).expect("fewer than four thousand million intervals")
            }
        };
        self.nodes[new as usize].furthest = new;
        let left = self.merge(left, new);
        self.root = self.merge(left, right);
    }

    /// Removes exactly this interval and returns its number.
    pub fn remove(&mut self, start: &[u8], end: Option<&[u8]>) -> Option<u32> {
        let (root, removed) = self.remove_below(self.root, (start, end));
        self.root = root;
        let slot = removed?;
        let node = &mut self.nodes[slot as usize];
        node.start = Arc::from([]);
        node.end = None;
        self.free.push(slot);
        Some(self.nodes[slot as usize].value)
    }

    /// Calls `visit` with the number of every interval that holds `key`, in order of start.
    pub fn stab(&self, key: &[u8], visit: &mut impl FnMut(u32)) {
        self.stab_below(self.root, key, visit);
    }

    /// Bytes held, the keys apart.
    pub fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.free.capacity() * size_of::<u32>()
    }

    /// Panics if an invariant does not hold. Walks everything.
    pub fn check(&self) {
        let mut order = Vec::new();
        self.check_below(self.root, &mut order);
        assert!(
            order
                .windows(2)
                .all(|pair| { compare(self.node(pair[0]).bounds(), self.node(pair[1]).bounds()) == Ordering::Less })
        );
        assert_eq!(order.len() + self.free.len(), self.nodes.len(), "every node is in the tree or free");
    }

    fn check_below(&self, at: u32, order: &mut Vec<u32>) {
        if at == NIL {
            return;
        }
        let node = self.node(at);
        self.check_below(node.left, order);
        order.push(at);
        self.check_below(node.right, order);
        let mut furthest = at;
        for child in [node.left, node.right] {
            if child != NIL {
                assert!(self.node(child).priority <= node.priority, "heap order at {at}");
                furthest = self.further(furthest, self.node(child).furthest);
            }
        }
        assert_eq!(self.node(furthest).end, self.node(node.furthest).end, "greatest end at {at}");
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn stab_below(&self, at: u32, key: &[u8], visit: &mut impl FnMut(u32)) {
        if at == NIL || !below(key, &self.node(self.node(at).furthest).end) {
            return;
        }
        let node = self.node(at);
        self.stab_below(node.left, key, visit);
        if *node.start <= *key {
            if below(key, &node.end) {
                visit(node.value);
            }
            self.stab_below(node.right, key, visit);
        }
    }

    /// Cuts a subtree in two: nodes before `bounds`, and the others.
    fn split(&mut self, at: u32, bounds: Bounds<'_>) -> (u32, u32) {
        if at == NIL {
            return (NIL, NIL);
        }
        if compare(self.node(at).bounds(), bounds) == Ordering::Less {
            let (inner, right) = self.split(self.node(at).right, bounds);
            self.nodes[at as usize].right = inner;
            self.refresh(at);
            (at, right)
        } else {
            let (left, inner) = self.split(self.node(at).left, bounds);
            self.nodes[at as usize].left = inner;
            self.refresh(at);
            (left, at)
        }
    }

    /// Joins two subtrees of which the first lies wholly before the second.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NIL || right == NIL {
            return if left == NIL { right } else { left };
        }
        if self.node(left).priority >= self.node(right).priority {
            let inner = self.merge(self.node(left).right, right);
            self.nodes[left as usize].right = inner;
            self.refresh(left);
            left
        } else {
            let inner = self.merge(left, self.node(right).left);
            self.nodes[right as usize].left = inner;
            self.refresh(right);
            right
        }
    }

    fn remove_below(&mut self, at: u32, bounds: Bounds<'_>) -> (u32, Option<u32>) {
        if at == NIL {
            return (NIL, None);
        }
        let (left, right) = (self.node(at).left, self.node(at).right);
        let removed = match compare(bounds, self.node(at).bounds()) {
            Ordering::Equal => return (self.merge(left, right), Some(at)),
            Ordering::Less => {
                let (child, removed) = self.remove_below(left, bounds);
                self.nodes[at as usize].left = child;
                removed
            }
            Ordering::Greater => {
                let (child, removed) = self.remove_below(right, bounds);
                self.nodes[at as usize].right = child;
                removed
            }
        };
        self.refresh(at);
        (at, removed)
    }

    /// Sets `furthest` from the children's.
    fn refresh(&mut self, at: u32) {
        let mut furthest = at;
        for child in [self.node(at).left, self.node(at).right] {
            if child != NIL {
                furthest = self.further(furthest, self.node(child).furthest);
            }
        }
        self.nodes[at as usize].furthest = furthest;
    }

    fn further(&self, a: u32, b: u32) -> u32 {
        match compare_ends(self.node(a).end.as_deref(), self.node(b).end.as_deref()) {
            Ordering::Less => b,
            Ordering::Equal | Ordering::Greater => a,
        }
    }

    fn next_random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random
    }
}

type Bounds<'a> = (&'a [u8], Option<&'a [u8]>);

impl Node {
    fn bounds(&self) -> Bounds<'_> {
        (&self.start, self.end.as_deref())
    }
}

fn below(key: &[u8], end: &End) -> bool {
    end.as_ref().is_none_or(|end| *key < **end)
}

fn compare_ends(a: Option<&[u8]>, b: Option<&[u8]>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

fn compare(a: Bounds<'_>, b: Bounds<'_>) -> Ordering {
    a.0.cmp(b.0).then_with(|| compare_ends(a.1, b.1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::{End, IntervalTree};

    fn key(rng: &mut SmallRng) -> Vec<u8> {
        (0..rng.random_range(0..3)).map(|_| rng.random_range(0..5)).collect()
    }

    /// The same operations against a list of intervals.
    #[test]
    fn agrees_with_a_list() {
        for seed in 0..30 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut tree = IntervalTree::default();
            let mut list: BTreeMap<(Vec<u8>, Option<Vec<u8>>), u32> = BTreeMap::new();
            for step in 0..300_u32 {
                let (start, end) = (key(&mut rng), rng.random_bool(0.8).then(|| key(&mut rng)));
                let shared: (Arc<[u8]>, End) = (start.as_slice().into(), end.as_deref().map(Into::into));
                let known = list.get(&(start.clone(), end.clone())).copied();
                assert_eq!(tree.find(&start, end.as_deref()), known, "seed {seed} step {step}");
                if known.is_some() || rng.random_bool(0.2) {
                    assert_eq!(tree.remove(&start, end.as_deref()), known, "seed {seed} step {step}");
                    list.remove(&(start, end));
                } else {
                    tree.insert(shared.0, shared.1, step);
                    list.insert((start, end), step);
                }
                tree.check();
                let probe = key(&mut rng);
                let mut found = Vec::new();
                tree.stab(&probe, &mut |value| found.push(value));
                found.sort_unstable();
                let mut expected: Vec<u32> = list
                    .iter()
                    .filter(|((start, end), _)| *start <= probe && end.as_ref().is_none_or(|end| probe < *end))
                    .map(|(_, value)| *value)
                    .collect();
                expected.sort_unstable();
                assert_eq!(found, expected, "seed {seed} step {step} probe {probe:?}");
            }
        }
    }

    /// Intervals that arrive in order must not make a list of the tree.
    #[test]
    fn stays_shallow() {
        let mut tree = IntervalTree::default();
        for n in 0..10_000_u32 {
            tree.insert(n.to_be_bytes().as_slice().into(), Some((n + 1).to_be_bytes().as_slice().into()), n);
        }
        fn depth(tree: &IntervalTree, at: u32) -> u32 {
            if at == super::NIL { 0 } else { 1 + depth(tree, tree.node(at).left).max(depth(tree, tree.node(at).right)) }
        }
        let depth = depth(&tree, tree.root);
        assert!(depth < 50, "10,000 intervals, {depth} deep");
    }
}
