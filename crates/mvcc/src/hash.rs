//! Hashes by which members compare their histories, equal to etcd's for equal histories.
//!
//! A hash is the CRC-32C of the name of etcd's bucket, `key`, followed by keys and values as etcd stores them:
//!
//! ```text
//!   key     8 bytes main │ '_' │ 8 bytes sub │ 't' for a tombstone
//!   value   mvccpb.KeyValue; of a tombstone only its key
//! ```
//!
//! of every record up to the revision asked for, save that what a compaction to C would not keep is left out, whether it
//! has been deleted yet or not: of the records at or below C only those count that are still the newest of their key at
//! that revision and no tombstones. One oddity of etcd's is law here: if *no* key is alive at that revision, all that
//! a finished compaction left counts. Tombstones at exactly C never do.
//!
//! Source: etcd `mvcc.kvHasher`, `mvcc.hashStorage`; compared with a real etcd in the compatibility suite.

use std::collections::HashSet;

use milepost_types::{KeyRange, Revision};

use crate::codec::{HistoryRef, put_varint};
use crate::error::StoreError;
use crate::store::Store;
use crate::view::{RangeOptions, Reader};

/// Records read in one go: bounds how long a page of the engine stays in use by a hash.
const CHUNK: usize = 4000;
/// Compaction hashes that are remembered, as in etcd.
pub(crate) const KEPT_HASHES: usize = 10;

/// A hash of the keyspace's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C.
    pub hash: u32,
    /// The floor that the hash was taken with; -1: history was whole. Hashes with different floors cannot be compared.
    pub compact_revision: i64,
    /// Newest main revision in it.
    pub hash_revision: i64,
}

/// What etcd calls its table of records; its hash begins with the name.
const BUCKET: &[u8] = b"key";

impl Store {
    /// The hash of everything up to main revision `revision`; 0: up to the newest.
    ///
    /// For the bound of a recent compaction it is the hash taken then, if [`crate::StoreOptions::compaction_hash`] is on.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::FutureRevision`], or if the store cannot be read.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, StoreError> {
        let kept = self.inner().core.lock().hashes.iter().find(|kept| kept.hash_revision == revision).copied();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let finished = self.inner().core.lock().meta.finished;
        let view = self.view();
        let (floor, current) = (view.compact_revision(), view.revision());
        if revision > 0 && revision < floor {
            return Err(StoreError::Compacted { asked: revision, floor });
        }
        if revision > current {
            return Err(StoreError::FutureRevision { asked: revision, current });
        }
        if revision < 0 {
            // Below everything: etcd answers with the hash of nothing.
            let hash = crc32c::crc32c(BUCKET);
            return Ok(HashKv { hash, compact_revision: floor, hash_revision: revision });
        }
        let revision = if revision == 0 { current } else { revision };
        let mut hasher = Hasher::new(floor, revision, finished);
        while !self.inner().note(hasher.step(&view.reader()))? {}
        Ok(hasher.done())
    }

    /// The hashes that the last compactions left, newest first. Members that compacted alike have the same ones.
    #[must_use]
    pub fn compaction_hashes(&self) -> Vec<HashKv> {
        let mut hashes: Vec<HashKv> = self.inner().core.lock().hashes.iter().copied().collect();
        hashes.sort_by_key(|hash| std::cmp::Reverse(hash.hash_revision));
        hashes
    }

    /// A hash of the whole keyspace for tests; not comparable with etcd's, whose versions do not agree on it either.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn hash(&self) -> Result<u32, StoreError> {
        self.hash_kv(0).map(|hash| hash.hash)
    }
}

/// What part of the work is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Walk the records above the finished compaction: what have they replaced, is anything kept?
    Links,
    /// Is any key alive?
    Alive,
    /// Walk all records and hash those that count.
    Bytes,
    Done,
}

/// A hash being taken, a chunk at a time.
pub(crate) struct Hasher {
    /// Compact revision, -1 for none.
    floor: i64,
    revision: i64,
    /// Bound of the compaction that has finished: nothing superseded at or below it is left.
    finished: i64,
    stage: Stage,
    next: Revision,
    /// Records at or below the floor that are not the newest of their key at the floor.
    dead_at_floor: HashSet<Revision>,
    /// Records at or below the floor that a record above it replaced.
    replaced: HashSet<Revision>,
    /// A compaction to `revision` would keep something.
    keeps_any: bool,
    /// Tombstones at exactly `revision` are kept: true for the hash of a compaction.
    keeps_tombstones: bool,
    crc: u32,
    bytes: Vec<u8>,
}

impl Hasher {
    /// Begins the hash up to main revision `revision` over a history compacted to `floor`, of which the deletions up to
    /// `finished` are done.
    pub fn new(floor: i64, revision: i64, finished: i64) -> Self {
        let next = Revision::new(finished.max(0), 0);
        Self {
            floor,
            revision,
            finished,
            stage: Stage::Links,
            next,
            dead_at_floor: HashSet::new(),
            replaced: HashSet::new(),
            keeps_any: false,
            keeps_tombstones: false,
            crc: crc32c::crc32c(BUCKET),
            bytes: Vec::with_capacity(1024),
        }
    }

    /// Begins the hash that etcd takes while it compacts from `floor` to `bound`.
    pub fn of_compaction(floor: i64, bound: i64) -> Self {
        Self { keeps_tombstones: true, ..Self::new(floor, bound, floor) }
    }

    /// The hash, when [`Hasher::step`] has said that it is whole.
    pub fn done(&self) -> HashKv {
        HashKv { hash: self.crc, compact_revision: self.floor, hash_revision: self.revision }
    }

    /// Goes on for one chunk; true: done. `reader` must still see the revision hashed.
    pub fn step(&mut self, reader: &Reader<'_>) -> Result<bool, StoreError> {
        match self.stage {
            Stage::Links => self.links(reader)?,
            Stage::Alive => self.alive(reader)?,
            Stage::Bytes => self.bytes(reader)?,
            Stage::Done => {}
        }
        Ok(self.stage == Stage::Done)
    }

    fn links(&mut self, reader: &Reader<'_>) -> Result<(), StoreError> {
        // Without a floor every record counts and nothing of this is asked.
        if self.floor < 0 {
            self.enter(Stage::Bytes);
            return Ok(());
        }
        let (floor, revision, keeps_tombstones) = (self.floor, self.revision, self.keeps_tombstones);
        let (dead, replaced, keeps_any) = (&mut self.dead_at_floor, &mut self.replaced, &mut self.keeps_any);
        let next = reader.each_record(self.next, revision, CHUNK, &mut |record| {
            let set = if record.revision.main <= floor { &mut *dead } else { &mut *replaced };
            if record.previous != Revision::ZERO && record.previous.main <= floor {
                set.insert(record.previous);
            }
            *keeps_any |= keeps_tombstones && record.tombstone && record.revision.main == revision;
        })?;
        match next {
            Some(next) => self.next = next,
            None => self.enter(Stage::Alive),
        }
        Ok(())
    }

    fn alive(&mut self, reader: &Reader<'_>) -> Result<(), StoreError> {
        let one = RangeOptions { limit: 1, count: false, values: false };
        self.keeps_any |= !reader.range(KeyRange::all(), self.revision, one)?.records.is_empty();
        self.enter(Stage::Bytes);
        Ok(())
    }

    fn bytes(&mut self, reader: &Reader<'_>) -> Result<(), StoreError> {
        let from = self.next;
        let next = reader.each_record(from, self.revision, CHUNK, &mut |record| self.hash(record))?;
        match next {
            Some(next) => self.next = next,
            None => self.enter(Stage::Done),
        }
        Ok(())
    }

    fn hash(&mut self, record: &HistoryRef<'_>) {
        if self.counts(record) {
            encode(record, &mut self.bytes);
            self.crc = crc32c::crc32c_append(self.crc, &self.bytes);
        }
    }

    /// May a walk from `from` up to main revision `bound` take the rest of the hash along, by [`Hasher::take`]?
    pub fn goes_along(&self, from: Revision, bound: i64) -> bool {
        self.stage == Stage::Bytes && self.next >= from && self.revision == bound
    }

    /// Takes the next record of such a walk. One that it has had is passed over.
    pub fn take(&mut self, record: &HistoryRef<'_>) {
        if record.revision >= self.next {
            self.hash(record);
            self.next = Revision::new(record.revision.main, record.revision.sub + 1);
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.next = Revision::ZERO;
    }

    fn counts(&self, record: &HistoryRef<'_>) -> bool {
        if record.revision.main > self.floor {
            return true;
        }
        debug_assert!(self.finished <= self.floor, "finished {} above the floor {}", self.finished, self.floor);
        // At the floor tombstones are skipped, below it they are deleted or will be.
        if record.tombstone || self.dead_at_floor.contains(&record.revision) {
            return false;
        }
        !self.keeps_any || !self.replaced.contains(&record.revision)
    }
}

/// Key and value as etcd stores them, into `out`, replacing what was there.
pub(crate) fn encode(record: &HistoryRef<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&record.revision.main.to_be_bytes());
    out.push(b'_');
    out.extend_from_slice(&record.revision.sub.to_be_bytes());
    if record.tombstone {
        out.push(b't');
    }
    // A raw record has no value at all.
    if record.key.is_empty() {
        return;
    }
    put_bytes(1, record.key, out);
    if record.tombstone {
        return;
    }
    put_number(2, record.create_revision, out);
    put_number(3, record.revision.main, out);
    put_number(4, record.version, out);
    put_bytes(5, record.value, out);
    put_number(6, record.lease.0, out);
}

fn put_bytes(field: u8, bytes: &[u8], out: &mut Vec<u8>) {
    const LENGTH_DELIMITED: u8 = 2;
    if !bytes.is_empty() {
        out.push(field << 3 | LENGTH_DELIMITED);
        put_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

fn put_number(field: u8, number: i64, out: &mut Vec<u8>) {
    if number != 0 {
        out.push(field << 3);
        put_varint(number as u64, out);
    }
}

#[cfg(test)]
mod tests {
    use milepost_types::LeaseId;
    use prost::Message;

    use super::*;

    #[test]
    fn records_are_encoded_as_etcd_stores_them() {
        let mut record = HistoryRef {
            revision: Revision::new(300, 2),
            tombstone: false,
            create_revision: 7,
            version: 200,
            lease: LeaseId(-1),
            previous: Revision::ZERO,
            jump: Revision::ZERO,
            key: b"key",
            value: b"value",
        };
        let kv = milepost_proto::mvccpb::KeyValue {
            key: "key".into(),
            create_revision: 7,
            mod_revision: 300,
            version: 200,
            value: "value".into(),
            lease: -1,
        };
        let mut out = Vec::new();
        encode(&record, &mut out);
        assert_eq!(out[..17], *b"\0\0\0\0\0\0\x01\x2c_\0\0\0\0\0\0\0\x02");
        assert_eq!(out[17..], kv.encode_to_vec());
        record.tombstone = true;
        encode(&record, &mut out);
        assert_eq!(out[17..], *b"t\x0a\x03key");
    }
}
