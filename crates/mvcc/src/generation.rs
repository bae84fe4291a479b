//! A generation: every change of every table from a run of whole log entries, in memory.
//!
//! One writer adds, many read, nobody waits. Readers are kept apart from changes that are not finished by revision alone:
//! they look at or below [`Generation::published`], and the entry in progress writes above it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering as Memory};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use crossbeam_skiplist::map::Entry;
use milepost_types::{KeyRange, LeaseId, Revision};
use parking_lot::{Mutex, RwLock};

use crate::record::Record;
use crate::tables::{Meta, SmallTable};

/// A key at a revision; ordered by key, then newest first.
#[derive(Debug)]
pub(crate) struct VersionKey {
    key: Bytes,
    revision: Revision,
}

/// What stands in for a [`VersionKey`] in lookups, so that they need not own the key.
trait Place {
    fn place(&self) -> (&[u8], Revision);
}

impl Place for VersionKey {
    fn place(&self) -> (&[u8], Revision) {
        (&self.key, self.revision)
    }
}

impl Place for (&[u8], Revision) {
    fn place(&self) -> (&[u8], Revision) {
        *self
    }
}

fn compare(a: (&[u8], Revision), b: (&[u8], Revision)) -> Ordering {
    a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1))
}

macro_rules! ordered_by_place {
    ($type:ty) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other) == Ordering::Equal
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                compare(self.place(), other.place())
            }
        }
    };
}

ordered_by_place!(VersionKey);
ordered_by_place!(dyn Place + '_);

impl<'a> Borrow<dyn Place + 'a> for VersionKey {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

/// One change of a lease's attachments; ordered by lease, key, newest first.
type Attachment = (LeaseId, Bytes, std::cmp::Reverse<Revision>);

/// Changes of small tables: the newest value of each key, `None` for deleted.
pub(crate) type TableChanges = BTreeMap<(SmallTable, Vec<u8>), Option<Vec<u8>>>;

/// What a generation holds besides keys.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub meta: Meta,
    pub conf_state: Option<Vec<u8>>,
    pub tables: TableChanges,
}

/// See the module's essay.
pub(crate) struct Generation {
    /// Main revision of the first change that can be in here.
    pub first_main: i64,
    /// Newest main revision that readers may see; set by apply when an entry is finished, never goes back.
    published: AtomicI64,
    versions: SkipMap<VersionKey, Arc<Record>>,
    filter: Filter,
    /// The same records by revision.
    log: RwLock<Vec<Arc<Record>>>,
    /// true: attached by this change; false: taken off.
    attached: SkipMap<Attachment, bool>,
    /// Written when an entry is finished, read when the generation is committed.
    pub rest: Mutex<Rest>,
}

impl Generation {
    /// An empty generation, meant for about `changes` changes, over a store as `meta` says it is.
    pub fn new(meta: Meta, changes: usize) -> Self {
        let revision = meta.revision;
        Self {
            first_main: revision + 1,
            published: AtomicI64::new(revision),
            versions: SkipMap::new(),
            filter: Filter::new(changes),
            log: RwLock::default(),
            attached: SkipMap::new(),
            rest: Mutex::new(Rest { meta, ..Rest::default() }),
        }
    }

    pub fn published(&self) -> i64 {
        self.published.load(Memory::Acquire)
    }

    pub fn publish(&self, main: i64) {
        self.published.store(main, Memory::Release);
    }

    pub fn insert(&self, record: Arc<Record>) {
        self.filter.add(&record.key);
        let place = VersionKey { key: record.key.clone(), revision: record.revision };
        self.versions.insert(place, record.clone());
        self.log.write().push(record);
    }

    pub fn attach(&self, lease: LeaseId, key: Bytes, revision: Revision, attached: bool) {
        self.attached.insert((lease, key, std::cmp::Reverse(revision)), attached);
    }

    /// Takes back every change above the published revision.
    pub fn undo(&self) {
        let mut log = self.log.write();
        let kept = log.partition_point(|record| record.revision.main <= self.published());
        for record in log.drain(kept..) {
            self.versions.remove::<dyn Place>(&(&*record.key, record.revision));
        }
        for entry in &self.attached {
            if entry.key().2.0.main > self.published() {
                entry.remove();
            }
        }
    }

    /// The newest change of `key` at or below `at`, tombstones included.
    pub fn newest(&self, key: &[u8], at: Revision) -> Option<Arc<Record>> {
        if !self.filter.may_hold(key) {
            return None;
        }
        let entry = self.versions.lower_bound::<dyn Place>(Bound::Included(&(key, at)))?;
        (entry.key().key == key).then(|| entry.value().clone())
    }

    /// Walks the keys of `range` as they were at `at`, tombstones included.
    pub fn walk<'g>(&'g self, range: KeyRange<'g>, at: Revision) -> Walk<'g> {
        let first = self.versions.lower_bound::<dyn Place>(Bound::Included(&(range.start, Revision::end_of(i64::MAX))));
        let mut walk = Walk { generation: self, range, at, entry: None };
        walk.settle(first);
        walk
    }

    /// The newest change of every key, in key order.
    pub fn newest_of_each(
        &self,
        mut each: impl FnMut(&Arc<Record>) -> Result<(), milepost_engine::EngineError>,
    ) -> Result<(), milepost_engine::EngineError> {
        let mut last: Option<Bytes> = None;
        for entry in &self.versions {
            if last.as_ref() != Some(&entry.key().key) {
                last = Some(entry.key().key.clone());
                each(entry.value())?;
            }
        }
        Ok(())
    }

    /// Appends records from `from` on, up to main revision `to`, to `out` while `fits` agrees.
    pub fn history(&self, from: Revision, to: i64, out: &mut Vec<Arc<Record>>, mut fits: impl FnMut(&Record) -> bool) {
        let log = self.log.read();
        let start = log.partition_point(|record| record.revision < from);
        for record in &log[start..] {
            if record.revision.main > to || !fits(record) {
                return;
            }
            out.push(record.clone());
        }
    }

    /// Disk space that committing this may need at most, in bytes: what it appends to `history`, a leaf and a share of a
    /// branch per change of another table, and a little for the rest.
    pub fn room_needed(&self) -> u64 {
        /// Checksum, numbers and links of a record, and its share of a page.
        const RECORD_OVERHEAD: usize = 256;
        const BYTES_PER_CHANGE: usize = 4096 + 1024;
        let per_record = |record: &Arc<Record>| 2 * (record.key.len() + record.value.len()) + RECORD_OVERHEAD;
        let records: usize = self.log.read().iter().map(per_record).sum();
        let attached = self.attached.len() * BYTES_PER_CHANGE;
        let rest: usize = self
            .rest
            .lock()
            .tables
            .iter()
            .map(|((_, key), value)| key.len() + value.as_ref().map_or(0, Vec::len) + BYTES_PER_CHANGE)
            .sum();
        (records + attached + rest + (1 << 20)) as u64
    }

    /// Calls `each` for the records from `from` on up to main revision `to`, letting apply in between now and then.
    pub fn each(&self, from: Revision, to: i64, each: &mut dyn FnMut(&Record)) {
        const AT_A_TIME: usize = 512;
        let mut next = self.log.read().partition_point(|record| record.revision < from);
        loop {
            let log = self.log.read();
            let some = &log[next.min(log.len())..];
            let some = &some[..some.len().min(AT_A_TIME)];
            let visible = some.iter().take_while(|record| record.revision.main <= to);
            visible.for_each(|record| each(record));
            if some.len() < AT_A_TIME || some.last().is_some_and(|last| last.revision.main > to) {
                return;
            }
            next += some.len();
        }
    }

    /// Every record, by revision.
    pub fn log(&self) -> parking_lot::RwLockReadGuard<'_, Vec<Arc<Record>>> {
        self.log.read()
    }

    /// What the changes up to `at` say about the keys of `lease`: attached or taken off.
    pub fn attachments(&self, lease: LeaseId, at: i64, known: &mut BTreeMap<Bytes, bool>) {
        let first = (lease, Bytes::new(), std::cmp::Reverse(Revision::end_of(i64::MAX)));
        let mut last: Option<Bytes> = None;
        for entry in self.attached.range(first..) {
            let (of, key, revision) = entry.key();
            if *of != lease {
                break;
            }
            if revision.0.main > at || last.as_ref() == Some(key) {
                continue;
            }
            last = Some(key.clone());
            known.insert(key.clone(), *entry.value());
        }
    }

    /// The newest state of every attachment that changed, by lease and key.
    pub fn attachment_changes(&self) -> BTreeMap<(LeaseId, Bytes), bool> {
        let mut changes = BTreeMap::new();
        for entry in &self.attached {
            let (lease, key, _) = entry.key();
            changes.entry((*lease, key.clone())).or_insert(*entry.value());
        }
        changes
    }
}

/// Says of most keys that a generation does not hold that it does not: a lookup there costs half a microsecond, and most
/// keys are not in memory. Two bits for each key out of sixteen per change: about one key in seventy passes by mistake.
pub(crate) struct Filter {
    words: Box<[AtomicU64]>,
}

const FILTER_BITS_PER_CHANGE: usize = 16;

impl Filter {
    pub fn new(changes: usize) -> Self {
        let bits = (changes.min(1 << 20) * FILTER_BITS_PER_CHANGE).next_power_of_two().max(64);
        Self { words: (0..bits / 64).map(|_| AtomicU64::new(0)).collect() }
    }

    fn bits(&self, key: &[u8]) -> [(usize, u64); 2] {
        let hash = crc32c::crc32c(key);
        let place = |hash: u32| (hash as usize / 64 % self.words.len(), 1 << (hash % 64));
        [place(hash), place(hash.wrapping_mul(0x9e37_79b1).rotate_left(15))]
    }

    /// Whoever sees the record published sees this too.
    pub fn add(&self, key: &[u8]) {
        for (word, bit) in self.bits(key) {
            self.words[word].fetch_or(bit, Memory::Relaxed);
        }
    }

    pub fn may_hold(&self, key: &[u8]) -> bool {
        self.bits(key).into_iter().all(|(word, bit)| self.words[word].load(Memory::Relaxed) & bit != 0)
    }
}

/// Entries of one key that a walk steps over before it seeks: a seek costs about as much as this many steps.
const STEPS_BEFORE_SEEK: usize = 4;

/// A walk through a generation: one record per key, the newest at or below a revision.
pub(crate) struct Walk<'g> {
    generation: &'g Generation,
    range: KeyRange<'g>,
    at: Revision,
    entry: Option<Entry<'g, VersionKey, Arc<Record>>>,
}

impl<'g> Walk<'g> {
    /// The record the walk stands at.
    pub fn peek(&self) -> Option<&Arc<Record>> {
        self.entry.as_ref().map(Entry::value)
    }

    /// Goes on to the next key.
    pub fn advance(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        let next = self.after(entry);
        self.settle(next);
    }

    /// The first entry of the key after the one `entry` belongs to.
    fn after(&self, entry: Entry<'g, VersionKey, Arc<Record>>) -> Option<Entry<'g, VersionKey, Arc<Record>>> {
        let key = entry.key().key.clone();
        let mut next = entry.next()?;
        for _ in 0..STEPS_BEFORE_SEEK {
            if next.key().key != key {
                return Some(next);
            }
            next = next.next()?;
        }
        self.generation.versions.lower_bound::<dyn Place>(Bound::Excluded(&(&*key, Revision::ZERO)))
    }

    /// Stands at the first record at or after `entry` that is in range and not above the walk's revision.
    fn settle(&mut self, mut entry: Option<Entry<'g, VersionKey, Arc<Record>>>) {
        while let Some(found) = entry {
            if !self.range.contains(&found.key().key) {
                break;
            }
            if found.key().revision <= self.at {
                self.entry = Some(found);
                return;
            }
            let place = (&*found.key().key, self.at);
            entry = self.generation.versions.lower_bound::<dyn Place>(Bound::Included(&place));
        }
        self.entry = None;
    }
}

/// A walk through both generations, where the younger hides the older.
pub(crate) struct OverlayWalk<'g> {
    active: Walk<'g>,
    sealed: Option<Walk<'g>>,
}

impl<'g> OverlayWalk<'g> {
    pub fn new(active: Walk<'g>, sealed: Option<Walk<'g>>) -> Self {
        let mut walk = Self { active, sealed };
        walk.skip_hidden();
        walk
    }

    fn skip_hidden(&mut self) {
        if let (Some(young), Some(sealed)) = (self.active.peek(), &mut self.sealed)
            && sealed.peek().is_some_and(|old| old.key == young.key)
        {
            sealed.advance();
        }
    }

    fn sealed_is_next(&self) -> bool {
        let sealed = self.sealed.as_ref().and_then(Walk::peek);
        match (self.active.peek(), sealed) {
            (Some(young), Some(old)) => old.key < young.key,
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }

    /// The record the walk stands at.
    pub fn peek(&self) -> Option<&Arc<Record>> {
        if self.sealed_is_next() { self.sealed.as_ref().and_then(Walk::peek) } else { self.active.peek() }
    }

    /// The record the walk stands at; then goes on to the next key.
    pub fn take(&mut self) -> Option<Arc<Record>> {
        let record = self.peek().cloned();
        match &mut self.sealed {
            Some(sealed)
                if self.active.peek().is_none_or(|young| record.as_ref().is_some_and(|old| old.key < young.key)) =>
            {
                sealed.advance()
            }
            _ => self.active.advance(),
        }
        self.skip_hidden();
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Spine;

    fn record(key: &'static str, main: i64) -> Arc<Record> {
        Arc::new(Record {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::new(),
            create_revision: 2,
            revision: Revision::new(main, 0),
            version: 1,
            lease: LeaseId(0),
            previous: Revision::ZERO,
            jump: Revision::ZERO,
            spine: Spine::default(),
        })
    }

    fn walked(generation: &Generation, range: KeyRange<'_>, at: i64) -> Vec<(Bytes, i64)> {
        let mut walk = generation.walk(range, Revision::end_of(at));
        let mut out = Vec::new();
        while let Some(record) = walk.peek() {
            out.push((record.key.clone(), record.revision.main));
            walk.advance();
        }
        out
    }

    #[test]
    fn a_walk_sees_one_past() {
        let generation = Generation::new(Meta { revision: 1, ..Meta::default() }, 10);
        let mut main = 2;
        for round in 0..20 {
            for key in ["a", "b", "c"] {
                if key != "b" || round == 0 {
                    generation.insert(record(key, main));
                }
                main += 1;
            }
        }
        let all = KeyRange::all();
        assert_eq!(walked(&generation, all, 1), []);
        assert_eq!(walked(&generation, all, 2), [("a".into(), 2)]);
        assert_eq!(walked(&generation, all, 9), [("a".into(), 8), ("b".into(), 3), ("c".into(), 7)]);
        assert_eq!(walked(&generation, all, 1000), [("a".into(), 59), ("b".into(), 3), ("c".into(), 61)]);
        assert_eq!(walked(&generation, KeyRange::single(b"b"), 1000), [("b".into(), 3)]);
        assert_eq!(generation.newest(b"a", Revision::end_of(12)).map(|r| r.revision.main), Some(11));
        generation.publish(10);
        generation.undo();
        assert_eq!(walked(&generation, all, 1000), [("a".into(), 8), ("b".into(), 3), ("c".into(), 10)]);
    }
}
