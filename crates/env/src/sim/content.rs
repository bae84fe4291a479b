//! One file's bytes: what programs see, and what the disk holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::SECTOR_BYTES;
use crate::rng::Rng;
use crate::sim::fault::CrashReport;

const SECTOR: usize = SECTOR_BYTES as usize;
const ZEROS: [u8; SECTOR] = [0; SECTOR];

type Sector = Arc<[u8; SECTOR]>;

/// A file in memory and on the simulated platter. A sector that is in neither map reads as zeros.
///
/// Invariant: a sector whose `seen` and `durable` differ has its versions in `unsynced`, unless a sync of it failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// What reads show.
    seen: BTreeMap<u64, Sector>,
    /// Length that reads show.
    len: u64,
    /// What survives a power cut for certain.
    durable: BTreeMap<u64, Sector>,
    /// Length that survives for certain.
    durable_len: u64,
    /// Versions of each sector written since the last sync, oldest first; `None` is zeros.
    unsynced: BTreeMap<u64, Vec<Option<Sector>>>,
    /// Lengths since the last sync, oldest first.
    unsynced_lens: Vec<u64>,
    /// Space taken from the disk, in bytes; writes below it need no more.
    allocated: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated(&self) -> u64 {
        self.allocated
    }

    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> usize {
        let available = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        let into = &mut into[..available];
        // Files are mostly reserved space: only the sectors that were written are looked at.
        into.fill(0);
        let end = offset + available as u64;
        for (&sector, bytes) in self.seen.range(offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)) {
            let start = sector * SECTOR_BYTES;
            let (from, to) = (start.max(offset), (start + SECTOR_BYTES).min(end));
            let within = (from - start) as usize..(to - start) as usize;
            into[(from - offset) as usize..(to - offset) as usize].copy_from_slice(&bytes[within]);
        }
        available
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for (sector, within, piece) in pieces(offset, bytes.len()) {
            let mut now = self.seen.get(&sector).map_or(ZEROS, |bytes| **bytes);
            now[within..within + piece.len()].copy_from_slice(&bytes[piece]);
            self.put(sector, Some(Arc::new(now)));
        }
        let end = offset + bytes.len() as u64;
        self.allocated = self.allocated.max(end);
        if end > self.len {
            self.change_len(end);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len == self.len {
            return;
        }
        if len < self.len {
            self.zero_from(len);
            self.allocated = self.allocated.min(len);
        }
        self.change_len(len);
    }

    pub(super) fn allocate(&mut self, end: u64) {
        self.allocated = self.allocated.max(end);
        if end > self.len {
            self.change_len(end);
        }
    }

    pub(super) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.unsynced).into_keys() {
            self.make_durable(sector, self.seen.get(&sector).cloned());
        }
        self.unsynced_lens.clear();
        self.durable_len = self.len;
    }

    /// A sync that failed: some sectors reached the disk, and the kernel now believes that all are clean.
    pub(super) fn fail_sync(&mut self, rng: &mut dyn Rng) {
        for sector in std::mem::take(&mut self.unsynced).into_keys() {
            if rng.chance(1, 2) {
                self.make_durable(sector, self.seen.get(&sector).cloned());
            }
        }
        if rng.chance(1, 2) {
            self.durable_len = self.len;
        }
        self.unsynced_lens.clear();
    }

    /// Shows clean sectors as the disk holds them. The length lives in the inode, which stays in memory.
    pub(super) fn forget_cached(&mut self) {
        self.seen.retain(|sector, _| self.unsynced.contains_key(sector));
        for (&sector, bytes) in &self.durable {
            if !self.unsynced.contains_key(&sector) {
                self.seen.insert(sector, Arc::clone(bytes));
            }
        }
    }

    /// What a power cut leaves: every unsynced sector is kept or dropped on its own, and so is the length.
    pub(super) fn crash(&mut self, rng: &mut dyn Rng, report: &mut CrashReport) {
        // How much of the cache the disk had got to, in eighths: none and all are as likely as anything between.
        let luck = rng.below(9);
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            if !rng.chance(luck, 8) {
                report.sectors_dropped += 1;
                continue;
            }
            report.sectors_kept += 1;
            // Mostly the newest version; an older one if the disk had written it before it was written again.
            let newest = versions.len() - 1;
            let version = if rng.chance(3, 4) { newest } else { rng.below(versions.len() as u64) as usize };
            self.make_durable(sector, versions.into_iter().nth(version).flatten());
        }
        let lens = std::mem::take(&mut self.unsynced_lens);
        if !lens.is_empty() {
            match rng.below(lens.len() as u64 + 1) as usize {
                0 => report.lengths_dropped += 1,
                kept => {
                    report.lengths_kept += 1;
                    self.durable_len = lens[kept - 1];
                }
            }
        }
        self.len = self.durable_len;
        self.allocated = self.allocated.min(self.len);
        self.seen = self.durable.clone();
        self.zero_from(self.len);
        self.unsynced.clear();
        self.durable = self.seen.clone();
    }

    fn put(&mut self, sector: u64, bytes: Option<Sector>) {
        match &bytes {
            Some(bytes) => self.seen.insert(sector, Arc::clone(bytes)),
            None => self.seen.remove(&sector),
        };
        self.unsynced.entry(sector).or_default().push(bytes);
    }

    fn make_durable(&mut self, sector: u64, bytes: Option<Sector>) {
        match bytes {
            Some(bytes) => self.durable.insert(sector, bytes),
            None => self.durable.remove(&sector),
        };
    }

    fn change_len(&mut self, len: u64) {
        self.len = len;
        self.unsynced_lens.push(len);
    }

    fn zero_from(&mut self, len: u64) {
        let (first_gone, within) = (len.div_ceil(SECTOR_BYTES), (len % SECTOR_BYTES) as usize);
        let gone: Vec<u64> = self.seen.range(first_gone..).map(|(&sector, _)| sector).collect();
        for sector in gone {
            self.put(sector, None);
        }
        let last = len / SECTOR_BYTES;
        if within > 0
            && let Some(bytes) = self.seen.get(&last)
        {
            let mut now = **bytes;
            now[within..].fill(0);
            self.put(last, Some(Arc::new(now)));
        }
    }
}

/// Cuts `offset..offset + len` at sector borders: (sector, position in it, range of the caller's bytes).
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % SECTOR_BYTES) as usize;
        let piece = done..(done + SECTOR - within).min(len);
        done = piece.end;
        Some((at / SECTOR_BYTES, within, piece))
    })
}
