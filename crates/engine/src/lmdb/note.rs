//! What a commit leaves behind so that the next start can tell damage from data without reading the data.
//!
//! Records carry checksums of their own, so leaves can be judged when they are met (see [`super::tree`]). What leads to
//! them cannot: a changed key in a branch sends a search past what it looks for. So after each commit a checksum of
//! everything else is taken, the meta page, all branches, the free list, the list of tables, and written into the unused
//! half of the commit's own meta page:
//!
//! ```text
//!   page/2 + 0  "MPNOTE01" │ 8 transaction u64 │ 16 checksum u32 │ 20 CRC-32C of the 20 bytes before
//! ```
//!
//! It reaches the disk as that page does, with the sync of the next commit, and costs no sync of its own. A process that
//! dies between the commit and its note leaves a state without one: then the next start reads every page. A power cut can
//! keep the sector of a note and not that of its meta: that commit is then as if it had not been, and its note is taken
//! away before another commit of the same number is made, which could die before its own.
//!
//! Branches are about one page in a hundred. Those directly above leaves are hashed once: LMDB never changes a page that a
//! committed state can reach, so one that is reached again under the same number is the same.
//!
//! What was hashed is remembered from commit to commit ([`Known`]). So damage that comes while the member runs is not
//! vouched for by a later note: a page that is reached again must be what it was, and what a transaction is about to copy
//! is compared first ([`Looked`]).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::page::{
    Found, HEADER_LEN, Kind, MAX_DEPTH, META_LEN, META_WRITTEN, Meta, Page, Tree, Value, fault, overflow_pages, u64_at,
};
use super::tree::Pages;

const MARK: &[u8; 8] = b"MPNOTE01";
const NOTE_LEN: usize = 24;

/// A note as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub transaction: u64,
    pub checksum: u32,
}

impl Note {
    /// What the meta page with these bytes says; `None`: nothing that can be believed.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let half = page.len() / 2;
        let note = page.get(half..half + NOTE_LEN)?;
        let crc = u32::from_le_bytes(note[20..24].try_into().ok()?);
        if &note[..8] != MARK || crc32c::crc32c(&note[..20]) != crc {
            return None;
        }
        Some(Self { transaction: u64_at(note, 8), checksum: u32::from_le_bytes(note[16..20].try_into().ok()?) })
    }

    /// Takes the note on meta page `number` away.
    pub fn erase(number: u64, file: &File, page_size: usize) -> io::Result<()> {
        file.write_all_at(&[0; NOTE_LEN], number * page_size as u64 + page_size as u64 / 2)
    }

    /// Writes it into the meta page of its transaction.
    pub fn write(self, file: &File, page_size: usize) -> io::Result<()> {
        let mut bytes = [0; NOTE_LEN];
        bytes[..8].copy_from_slice(MARK);
        bytes[8..16].copy_from_slice(&self.transaction.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.checksum.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..20]);
        bytes[20..].copy_from_slice(&crc.to_le_bytes());
        let page = (self.transaction % 2) * page_size as u64;
        file.write_all_at(&bytes, page + page_size as u64 / 2)
    }
}

/// Checksums of the pages that lead to leaves, in one committed state.
#[derive(Default)]
pub(super) struct Known {
    transaction: u64,
    /// Of all branches of tables, by their number.
    branches: HashMap<u64, u32>,
    /// Of the free list and the list of tables: by the number of the first page, the bytes that were hashed.
    lists: HashMap<u64, (usize, u32)>,
    /// Pages that the state does not use.
    free: Vec<u64>,
}

impl Known {
    /// Says whether the free list and the list of tables are as they were. LMDB is about to trust them.
    pub fn compare_lists(&self, pages: Pages<'_>) -> Found<()> {
        for (number, (len, crc)) in &self.lists {
            let bytes = pages.raw(*number, len.div_ceil(pages.page_size) as u64)?;
            if crc32c::crc32c(&bytes[..*len]) != *crc {
                return changed(*number);
            }
        }
        Ok(())
    }

    /// Pages that the state does not use.
    pub fn free(&self) -> &[u64] {
        &self.free
    }
}

fn changed<T>(number: u64) -> Found<T> {
    fault(number, "has changed since it was written")
}

/// Branches that one transaction has compared with what is known of them: each once.
pub(super) struct Looked {
    known: Arc<Known>,
    same: HashSet<u64>,
}

impl Looked {
    pub fn new(known: Arc<Known>) -> Self {
        Self { known, same: HashSet::new() }
    }

    /// Says whether `branch` is as it was written.
    pub fn compare(&mut self, branch: Page<'_>) -> Found<()> {
        if self.same.contains(&branch.number) {
            return Ok(());
        }
        match self.known.branches.get(&branch.number) {
            Some(known) if crc32c::crc32c(branch.bytes()) != *known => return changed(branch.number),
            _ => {}
        }
        self.same.insert(branch.number);
        Ok(())
    }
}

/// Takes checksums, and remembers those of the last time.
#[derive(Default)]
pub(super) struct Summer {
    known: Arc<Known>,
}

/// A checksum being taken.
struct Sum<'m, 's> {
    pages: Pages<'m>,
    before: &'s Known,
    after: Known,
    crc: u32,
}

impl Summer {
    /// The checksum of everything in the state of `meta`, whose page is `bytes`, that leads to leaves.
    pub fn sum(&mut self, pages: Pages<'_>, meta: &Meta, bytes: &[u8]) -> Found<u32> {
        let crc = crc32c::crc32c(&bytes[META_WRITTEN.start..META_LEN]);
        // A page that a commit frees can be another's from the second commit on: only what the last one knew is still so.
        let none = Known::default();
        let is_next = meta.transaction.checked_sub(self.known.transaction).is_some_and(|later| later <= 1);
        let before = if is_next { &*self.known } else { &none };
        let after = Known {
            transaction: meta.transaction,
            branches: HashMap::with_capacity(before.branches.len()),
            ..Known::default()
        };
        let mut sum = Sum { pages, before, after, crc };
        sum.whole_tree(&meta.free, false)?;
        sum.whole_tree(&meta.main, true)?;
        let Sum { after, crc, .. } = sum;
        self.known = Arc::new(after);
        Ok(crc)
    }

    /// What the last state was.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }
}

impl Sum<'_, '_> {
    fn add(&mut self, number: u64, crc: u32) {
        self.crc = crc32c::crc32c_append(self.crc, &number.to_le_bytes());
        self.crc = crc32c::crc32c_append(self.crc, &crc.to_le_bytes());
    }

    /// Every page of a small tree; with `tables` also the branches of the trees that it names.
    fn whole_tree(&mut self, tree: &Tree, tables: bool) -> Found<()> {
        if tree.is_empty() { Ok(()) } else { self.whole_page(tree.root, tree.depth as usize, tables) }
    }

    fn whole_page(&mut self, number: u64, level: usize, tables: bool) -> Found<()> {
        if level == 0 || level > MAX_DEPTH {
            return fault(number, "lies at an impossible depth");
        }
        let kind = if level == 1 { Kind::Leaf } else { Kind::Branch };
        let page = self.pages.page(number, kind)?;
        self.list(number, page.bytes())?;
        for slot in 0..page.len() {
            if kind == Kind::Branch {
                self.whole_page(page.child(slot)?, level - 1, tables)?;
                continue;
            }
            let node = page.node(slot, Kind::Leaf)?;
            match (node.tree().filter(|_| tables), node.value()) {
                (Some(table), _) if !table.is_empty() => self.branches(table.root, table.depth as usize)?,
                (None, Value::Apart(number, len)) => {
                    let bytes = self.pages.raw(number, overflow_pages(len, self.pages.page_size))?;
                    self.list(number, &bytes[..HEADER_LEN + len])?;
                    self.free_pages(&bytes[HEADER_LEN..HEADER_LEN + len], tables);
                }
                (None, Value::Here(value)) => self.free_pages(value, tables),
                _ => {}
            }
        }
        Ok(())
    }

    /// The branches from the page `number` down.
    fn branches(&mut self, number: u64, level: usize) -> Found<()> {
        if level > MAX_DEPTH {
            return fault(number, "lies at an impossible depth");
        }
        if level <= 1 {
            return Ok(());
        }
        if level == 2 {
            let crc = match self.before.branches.get(&number) {
                Some(known) => *known,
                None => crc32c::crc32c(self.pages.page(number, Kind::Branch)?.bytes()),
            };
            self.branch(number, crc);
            return Ok(());
        }
        let page = self.pages.page(number, Kind::Branch)?;
        let crc = crc32c::crc32c(page.bytes());
        if self.before.branches.get(&number).is_some_and(|known| *known != crc) {
            return changed(number);
        }
        self.branch(number, crc);
        for slot in 0..page.len() {
            self.branches(page.child(slot)?, level - 1)?;
        }
        Ok(())
    }

    fn branch(&mut self, number: u64, crc: u32) {
        self.after.branches.insert(number, crc);
        self.add(number, crc);
    }

    /// Takes in a page of the lists, or what lies on several.
    fn list(&mut self, number: u64, bytes: &[u8]) -> Found<()> {
        let crc = crc32c::crc32c(bytes);
        if self.before.lists.get(&number).is_some_and(|known| *known != (bytes.len(), crc)) {
            return changed(number);
        }
        self.after.lists.insert(number, (bytes.len(), crc));
        self.add(number, crc);
        Ok(())
    }

    /// Remembers the pages of a list: how many, then their numbers.
    fn free_pages(&mut self, list: &[u8], tables: bool) {
        if !tables {
            let count = usize::try_from(u64_at(list, 0)).unwrap_or(usize::MAX);
            let numbers = list.chunks_exact(8).skip(1).take(count);
            self.after.free.extend(numbers.map(|number| u64_at(number, 0)));
        }
    }
}
