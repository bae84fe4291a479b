//! The second pass: the pages themselves, in order, to anything that takes bytes.

use std::io::Write;

use crate::error::EmitError;
use crate::layout::{PageId, branch, bucket, fnv, leaf, meta, page};
use crate::pack::Packer;
use crate::plan::{Bucket, Level, Plan, groups};

/// Writes what a [`Plan`] foresees. The calls must be those that the plan was made from, now with the values.
#[derive(Debug)]
pub struct Emitter<W> {
    plan: Plan,
    out: W,
    /// The page that the next byte belongs to.
    at: PageId,
    /// Number of the bucket that is being written, counted from 1; 0: none yet.
    begun: usize,
    /// Leaves of that bucket written so far.
    leaves: usize,
    packer: Packer,
    page: Body,
}

/// The page under construction: elements first, then data.
#[derive(Debug, Default)]
struct Body {
    elements: Vec<(u32, u32, u32)>,
    data: Vec<u8>,
}

impl<W: Write> Emitter<W> {
    /// Writes both meta pages. `txid` (at least 1) goes into the first, its predecessor into the second.
    ///
    /// # Errors
    /// The receiver failed.
    pub fn new(plan: Plan, txid: u64, mut out: W) -> Result<Self, EmitError> {
        for (number, txid) in [(0, txid), (1, txid.saturating_sub(1))] {
            out.write_all(&meta_page(&plan, number, txid))?;
        }
        let packer = Packer::new(plan.page_bytes, leaf::END);
        Ok(Self { plan, out, at: PageId(2), begun: 0, leaves: 0, packer, page: Body::default() })
    }

    /// Begins the next bucket, which must be `name`.
    ///
    /// # Errors
    /// The plan has another bucket here, or another number of pages before; the receiver failed.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), EmitError> {
        self.end_bucket()?;
        match self.plan.buckets.get(self.begun) {
            Some(bucket) if bucket.name == name => self.begun += 1,
            _ => return Err(EmitError::Diverged("buckets")),
        }
        Ok(())
    }

    /// Writes the next item.
    ///
    /// # Errors
    /// The plan has other items; the receiver failed.
    pub fn item(&mut self, key: &[u8], value: &[u8]) -> Result<(), EmitError> {
        let data = key.len() + value.len();
        if !self.packer.has_room(data) {
            self.close_leaf()?;
        }
        if self.packer.is_empty() {
            let level = &self.current()?.levels[0];
            if self.leaves >= level.pages.len() || level.keys.get(self.leaves) != key {
                return Err(EmitError::Diverged("first keys of pages"));
            }
        }
        self.packer.add(data);
        self.page.push(0, key, value)
    }

    /// Writes what is left and returns the receiver.
    ///
    /// # Errors
    /// The plan has more; the receiver failed.
    pub fn finish(mut self) -> Result<W, EmitError> {
        self.end_bucket()?;
        if self.begun != self.plan.buckets.len() || self.at != self.plan.root {
            return Err(EmitError::Diverged("pages in all"));
        }
        for bucket in &self.plan.buckets {
            let mut value = [0; bucket::END];
            value[bucket::ROOT..bucket::SEQUENCE].copy_from_slice(&bucket.top().0.to_le_bytes());
            self.page.push(leaf::BUCKET, &bucket.name, &value)?;
        }
        self.write_leaf()?;
        if self.at != self.plan.freelist {
            return Err(EmitError::Diverged("pages of the root"));
        }
        // Nothing is free. A stored empty list spares the reader a walk through all pages.
        let mut last = vec![0; self.plan.page_bytes];
        header(&mut last, self.at, page::FREELIST, 0, 0);
        self.out.write_all(&last)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn current(&self) -> Result<&Bucket, EmitError> {
        let number = self.begun.checked_sub(1).ok_or(EmitError::Diverged("an item before the first bucket"))?;
        self.plan.buckets.get(number).ok_or(EmitError::Diverged("buckets"))
    }

    fn close_leaf(&mut self) -> Result<(), EmitError> {
        let planned = self.current()?.levels[0].pages.get(self.leaves).copied();
        if planned != Some(self.at) {
            return Err(EmitError::Diverged("places of leaves"));
        }
        self.packer.close();
        self.leaves += 1;
        self.write_leaf()
    }

    fn end_bucket(&mut self) -> Result<(), EmitError> {
        if self.begun == 0 {
            return Ok(());
        }
        let is_empty_bucket = self.leaves == 0 && self.packer.is_empty();
        if is_empty_bucket || !self.packer.is_empty() {
            self.close_leaf()?;
        }
        let number = self.begun - 1;
        if self.plan.buckets[number].levels[0].pages.len() != self.leaves {
            return Err(EmitError::Diverged("number of leaves"));
        }
        self.leaves = 0;
        for depth in 1..self.plan.buckets[number].levels.len() {
            self.write_branches(number, depth)?;
        }
        Ok(())
    }

    fn write_leaf(&mut self) -> Result<(), EmitError> {
        let body = std::mem::take(&mut self.page);
        let bytes = body.leaf(self.at, self.plan.page_bytes);
        self.write_page(&bytes)
    }

    fn write_branches(&mut self, number: usize, depth: usize) -> Result<(), EmitError> {
        let pages: Vec<Vec<u8>> = {
            let [below, level] =
                [&self.plan.buckets[number].levels[depth - 1], &self.plan.buckets[number].levels[depth]];
            let groups = groups(self.plan.page_bytes, below);
            let ids = level.pages.iter();
            groups
                .into_iter()
                .zip(ids)
                .map(|(group, id)| branch_page(self.plan.page_bytes, *id, below, group))
                .collect()
        };
        pages.iter().try_for_each(|bytes| self.write_page(bytes))
    }

    fn write_page(&mut self, bytes: &[u8]) -> Result<(), EmitError> {
        self.out.write_all(bytes)?;
        self.at.0 += (bytes.len() / self.plan.page_bytes) as u64;
        Ok(())
    }
}

impl Body {
    fn push(&mut self, flags: u32, key: &[u8], value: &[u8]) -> Result<(), EmitError> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| EmitError::Diverged("sizes"));
        self.elements.push((flags, length(key)?, length(value)?));
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        Ok(())
    }

    /// The page with its overflow, filled up with zeros.
    fn leaf(self, id: PageId, page_bytes: usize) -> Vec<u8> {
        let elements = self.elements.len() * leaf::END;
        let mut bytes = sized(id, page::LEAF, self.elements.len(), elements + self.data.len(), page_bytes);
        let mut from = 0;
        for (number, (flags, key, value)) in self.elements.iter().enumerate() {
            let at = page::BODY + number * leaf::END;
            let pos = (elements - number * leaf::END + from) as u32;
            put(&mut bytes, at + leaf::FLAGS, &flags.to_le_bytes());
            put(&mut bytes, at + leaf::POS, &pos.to_le_bytes());
            put(&mut bytes, at + leaf::KEY, &key.to_le_bytes());
            put(&mut bytes, at + leaf::VALUE, &value.to_le_bytes());
            from += (key + value) as usize;
        }
        put(&mut bytes, page::BODY + elements, &self.data);
        bytes
    }
}

fn branch_page(page_bytes: usize, id: PageId, below: &Level, group: std::ops::Range<usize>) -> Vec<u8> {
    let elements = group.len() * branch::END;
    let keys: usize = group.clone().map(|child| below.keys.get(child).len()).sum();
    let mut bytes = sized(id, page::BRANCH, group.len(), elements + keys, page_bytes);
    let mut from = 0;
    for (number, child) in group.enumerate() {
        let (at, key) = (page::BODY + number * branch::END, below.keys.get(child));
        let pos = (elements - number * branch::END + from) as u32;
        put(&mut bytes, at + branch::POS, &pos.to_le_bytes());
        put(&mut bytes, at + branch::KEY, &(key.len() as u32).to_le_bytes());
        put(&mut bytes, at + branch::CHILD, &below.pages[child].0.to_le_bytes());
        put(&mut bytes, page::BODY + elements + from, key);
        from += key.len();
    }
    bytes
}

fn sized(id: PageId, flags: u16, count: usize, body: usize, page_bytes: usize) -> Vec<u8> {
    let pages = (page::BODY + body).div_ceil(page_bytes);
    let mut bytes = vec![0; pages * page_bytes];
    header(&mut bytes, id, flags, count as u16, (pages - 1) as u32);
    bytes
}

fn header(bytes: &mut [u8], id: PageId, flags: u16, count: u16, overflow: u32) {
    put(bytes, page::ID, &id.0.to_le_bytes());
    put(bytes, page::FLAGS, &flags.to_le_bytes());
    put(bytes, page::COUNT, &count.to_le_bytes());
    put(bytes, page::OVERFLOW, &overflow.to_le_bytes());
}

fn meta_page(plan: &Plan, number: u64, txid: u64) -> Vec<u8> {
    let mut bytes = vec![0; plan.page_bytes];
    header(&mut bytes, PageId(number), page::META, 0, 0);
    put(&mut bytes, meta::MAGIC, &meta::MAGIC_VALUE.to_le_bytes());
    put(&mut bytes, meta::VERSION, &meta::VERSION_VALUE.to_le_bytes());
    put(&mut bytes, meta::PAGE_SIZE, &(plan.page_bytes as u32).to_le_bytes());
    put(&mut bytes, meta::ROOT, &plan.root.0.to_le_bytes());
    put(&mut bytes, meta::FREELIST, &plan.freelist.0.to_le_bytes());
    put(&mut bytes, meta::HIGH_WATER, &plan.high_water.0.to_le_bytes());
    put(&mut bytes, meta::TXID, &txid.to_le_bytes());
    let sum = fnv(&bytes[meta::MAGIC..meta::CHECKSUM]);
    put(&mut bytes, meta::CHECKSUM, &sum.to_le_bytes());
    bytes
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}
