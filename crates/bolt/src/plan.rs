//! The first pass: every page's number and the length of the whole, from keys and sizes alone.

use crate::error::PlanError;
use crate::layout::{KEY_BYTES_MAX, PAGE_BYTES, PageId, VALUE_BYTES_MAX, branch, leaf, page};
use crate::pack::Packer;

/// Keys one behind the other in one allocation: millions of them are kept.
#[derive(Debug, Default)]
pub struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    pub fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, number: usize) -> &[u8] {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.bytes[start..self.ends[number]]
    }
}

/// The pages of one level of a tree: first key and number of each.
#[derive(Debug, Default)]
pub struct Level {
    pub keys: Keys,
    pub pages: Vec<PageId>,
}

/// What is known about one bucket.
#[derive(Debug)]
pub struct Bucket {
    pub name: Vec<u8>,
    /// Leaves first; the last level has one page, the top.
    pub levels: Vec<Level>,
}

impl Bucket {
    pub fn top(&self) -> PageId {
        self.levels.last().and_then(|level| level.pages.last()).copied().unwrap_or_default()
    }
}

/// Collects buckets and sizes. Buckets come in ascending order of their names, keys ascending within each.
#[derive(Debug)]
pub struct Planner {
    page_bytes: usize,
    next: PageId,
    buckets: Vec<Bucket>,
    packer: Packer,
    last_key: Vec<u8>,
}

impl Default for Planner {
    fn default() -> Self {
        Self::new()
    }
}

impl Planner {
    /// A plan without buckets, with pages of 4 KiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            page_bytes: PAGE_BYTES,
            next: PageId(2),
            buckets: Vec::new(),
            packer: Packer::new(PAGE_BYTES, leaf::END),
            last_key: Vec::new(),
        }
    }

    /// Begins the bucket `name`.
    ///
    /// # Errors
    /// The name does not come after the last bucket's, is empty, or too long.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), PlanError> {
        fits(name, 0)?;
        if self.buckets.last().is_some_and(|last| *last.name >= *name) {
            return Err(PlanError::Order { what: "bucket", name: name.to_vec() });
        }
        self.end_bucket();
        self.buckets.push(Bucket { name: name.to_vec(), levels: vec![Level::default()] });
        self.last_key.clear();
        Ok(())
    }

    /// Adds an item to the bucket begun last.
    ///
    /// # Errors
    /// The key does not come after the last one, or the format has no room for such sizes.
    pub fn item(&mut self, key: &[u8], value_bytes: usize) -> Result<(), PlanError> {
        fits(key, value_bytes)?;
        if self.last_key.as_slice() >= key {
            return Err(PlanError::Order { what: "key", name: key.to_vec() });
        }
        let level =
            self.buckets.last_mut().ok_or(PlanError::NoBucket)?.levels.first_mut().ok_or(PlanError::NoBucket)?;
        let data = key.len() + value_bytes;
        if !self.packer.has_room(data) {
            self.next.0 += self.packer.close();
        }
        if self.packer.is_empty() {
            level.keys.push(key);
            level.pages.push(self.next);
        }
        self.packer.add(data);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    /// The finished plan.
    #[must_use]
    pub fn finish(mut self) -> Plan {
        self.end_bucket();
        let root = self.next;
        let mut packer = Packer::new(self.page_bytes, leaf::END);
        for bucket in &self.buckets {
            packer.add(bucket.name.len() + crate::layout::bucket::END);
        }
        // More buckets than one page holds make it a page with overflow: legal, and etcd has ten.
        let freelist = PageId(root.0 + packer.close());
        Plan { page_bytes: self.page_bytes, buckets: self.buckets, root, freelist, high_water: PageId(freelist.0 + 1) }
    }

    fn end_bucket(&mut self) {
        let Some(bucket) = self.buckets.last_mut() else { return };
        let leaves = &mut bucket.levels[0];
        if self.packer.is_empty() && leaves.pages.is_empty() {
            // An empty bucket is one leaf without elements; its first key is nobody's.
            leaves.keys.push(&[]);
            leaves.pages.push(self.next);
        }
        self.next.0 += self.packer.close();
        while bucket.levels.last().is_some_and(|level| level.pages.len() > 1) {
            let below = bucket.levels.last().expect("looked at just now");
            let above = branches(self.page_bytes, below, &mut self.next);
            bucket.levels.push(above);
        }
    }
}

/// The level of branch pages above `below`; takes page numbers from `next`.
fn branches(page_bytes: usize, below: &Level, next: &mut PageId) -> Level {
    let mut level = Level::default();
    for group in groups(page_bytes, below) {
        level.keys.push(below.keys.get(group.start));
        level.pages.push(*next);
        let data: usize = group.map(|child| branch::END + below.keys.get(child).len()).sum();
        next.0 += (page::BODY + data).div_ceil(page_bytes) as u64;
    }
    level
}

/// How the children of `below` are dealt to branch pages: at least two to each.
pub fn groups(page_bytes: usize, below: &Level) -> Vec<std::ops::Range<usize>> {
    let mut packer = Packer::new(page_bytes, branch::END);
    let (mut groups, mut start) = (Vec::new(), 0);
    for child in 0..below.keys.len() {
        let key_bytes = below.keys.get(child).len();
        // Long keys: a page takes two children even if it must grow for it, else the tree would never get narrower.
        if child - start >= 2 && !packer.has_room(key_bytes) {
            packer.close();
            groups.push(start..child);
            start = child;
        }
        packer.add(key_bytes);
    }
    groups.push(start..below.keys.len());
    // A last page with one child takes another from its neighbour, unless that had only two itself.
    if let [.., before, last] = groups.as_mut_slice()
        && last.len() == 1
    {
        if before.len() > 2 {
            before.end -= 1;
            last.start -= 1;
        } else {
            before.end = last.end;
            groups.pop();
        }
    }
    groups
}

fn fits(key: &[u8], value: usize) -> Result<(), PlanError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || value > VALUE_BYTES_MAX {
        return Err(PlanError::Size { key: key.len(), value });
    }
    Ok(())
}

/// Where every page will be.
#[derive(Debug)]
pub struct Plan {
    pub(crate) page_bytes: usize,
    pub(crate) buckets: Vec<Bucket>,
    pub(crate) root: PageId,
    pub(crate) freelist: PageId,
    pub(crate) high_water: PageId,
}

impl Plan {
    /// Length of the whole file in bytes, a multiple of 512.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.high_water.0 * self.page_bytes as u64
    }
}
