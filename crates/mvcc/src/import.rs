//! A store made of another member's records: what becomes of a received snapshot.
//!
//! ```text
//!   records, oldest first ─┐                       ┌─ history   with links, found anew
//!   rows of small tables ──┴─► chunks, committed ──┼─ current   the newest of each key
//!                              as they come        ├─ attached  by the leases of the newest
//!                                                  └─ small tables; last of all meta, then a sync
//!   take_over: CURRENT names it; the old store ends with its last reader
//! ```
//! The other member has no links between the records of a key, and what it has compacted is not there. So a record's
//! `previous` is the newest record of its key that came before it: just what a store of our own finds there, since links to
//! deleted records are as good as none.
//!
//! Until it takes over nothing of it counts: if this process ends, the next start removes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::{Engine, EngineError, ReadTxn, Room, Table};
use milepost_types::{LeaseId, LogIndex, Revision, Term};

use crate::codec::{self, HistoryRef, INLINE_MAX};
use crate::counting::count_all;
use crate::error::StoreError;
use crate::hash;
use crate::keys::{self, EngineKey};
use crate::record::{Record, Spine};
use crate::shared::Inner;
use crate::store::{Opened, Store, read_opened};
use crate::tables::{Meta, SmallTable, put_row, write_finished};
use crate::turn::TurnTaken;
use crate::writer::{Writer, links};

/// Records and bytes of one commit: bounds memory, and how long the disk is kept from the log's syncs.
const CHUNK_RECORDS: usize = 5000;
const CHUNK_BYTES: usize = 4 << 20;
/// What a record takes beside key and value in one of the tables, about, in bytes.
const RECORD_OVERHEAD: usize = 64;

/// A record as it comes: the links are found here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Where in history it stands; above those before it.
    pub revision: Revision,
    /// The key was deleted here: everything below is empty or zero.
    pub tombstone: bool,
    /// The key. None: a *raw* record, which etcd's tools leave when they raise the revision; it stands for no key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Bytes,
    /// Main revision of the put that created the key.
    pub create_revision: i64,
    /// Puts since then.
    pub version: i64,
    /// Its lease; zero: none.
    pub lease: LeaseId,
}

/// Where in the log the records end, and what was compacted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportEnd {
    /// The last entry in it.
    pub applied: LogIndex,
    /// Its term.
    pub term: Term,
    /// Raft's configuration after it, in the owner's encoding.
    pub conf_state: Vec<u8>,
    /// Bound of the newest compaction asked for.
    pub scheduled: Option<i64>,
    /// Bound of the newest compaction that is done.
    pub finished: Option<i64>,
}

/// A store being filled beside the one that counts. Dropped, it is as if it had never been.
pub struct Import {
    new: Fresh,
    old: Store,
    chunk: Chunk,
    /// The newest record.
    last: Revision,
    /// The newest raw record and its links: they follow each other as if they were of one key.
    raw: Option<(Revision, Spine)>,
    turn: TurnTaken,
}

/// An engine that is removed unless it is kept.
struct Fresh(Option<Arc<dyn Engine>>);

impl Fresh {
    fn engine(&self) -> &Arc<dyn Engine> {
        self.0.as_ref().expect("kept only by value")
    }

    fn keep(mut self) -> Arc<dyn Engine> {
        self.0.take().expect("kept only once")
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(engine) = &self.0 {
            engine.retire();
        }
    }
}

/// What the next commit takes.
#[derive(Default)]
struct Chunk {
    records: Vec<NewRecord>,
    rows: Vec<(SmallTable, Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.records.len() + self.rows.len() >= CHUNK_RECORDS || self.bytes >= CHUNK_BYTES
    }

    /// Disk space that it may need at most: history and current, half-full pages, and the pages above them.
    fn room_needed(&self) -> u64 {
        4 * self.bytes as u64 + (1 << 20)
    }
}

impl Store {
    /// Begins a store beside this one, for about `bytes` of keys, values and rows. Waits for a defragmentation.
    ///
    /// # Errors
    /// [`StoreError::Engine`] if the disk has no room for it; [`StoreError::Closed`].
    pub fn import(&self, bytes: u64) -> Result<Import, StoreError> {
        let turn = self.inner().filling.take();
        self.inner().check_open()?;
        let new = Fresh(Some(self.inner().engine().successor(bytes)?));
        Ok(Import { new, old: self.clone(), chunk: Chunk::default(), last: Revision::ZERO, raw: None, turn })
    }
}

impl Import {
    /// Adds the next record.
    ///
    /// # Errors
    /// [`StoreError::Order`] if it does not come after those before it; [`StoreError::Engine`]; [`StoreError::Closed`] if
    /// the old store was closed.
    pub fn record(&mut self, record: NewRecord) -> Result<(), StoreError> {
        if self.last >= record.revision {
            return Err(StoreError::Order { revision: record.revision });
        }
        self.last = record.revision;
        self.chunk.bytes += record.key.as_ref().map_or(0, Bytes::len) + record.value.len() + RECORD_OVERHEAD;
        self.chunk.records.push(record);
        if self.chunk.is_full() { self.commit(None) } else { Ok(()) }
    }

    /// Adds a row of a small table.
    ///
    /// # Errors
    /// As [`Import::record`].
    pub fn row(&mut self, table: SmallTable, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.chunk.bytes += key.len() + value.len() + RECORD_OVERHEAD;
        self.chunk.rows.push((table, key, value));
        if self.chunk.is_full() { self.commit(None) } else { Ok(()) }
    }

    /// That was all: makes everything durable.
    ///
    /// # Errors
    /// As [`Import::record`].
    pub fn finish(mut self, end: &ImportEnd) -> Result<Imported, StoreError> {
        let meta = Meta {
            applied: end.applied,
            term: end.term,
            revision: self.last.main,
            scheduled: end.scheduled.unwrap_or(-1),
            finished: end.finished.unwrap_or(-1),
            through: self.last.main,
        };
        self.commit(Some((&meta, &end.conf_state)))?;
        let Self { new, old, turn, .. } = self;
        count_all(new.engine(), &old.inner().options)?;
        new.engine().sync()?;
        let (meta, opened) = read_opened(&**new.engine())?;
        Ok(Imported { new, old, revision: meta.revision, opened, turn })
    }

    fn commit(&mut self, end: Option<(&Meta, &[u8])>) -> Result<(), StoreError> {
        self.old.inner().check_open()?;
        let engine = Arc::clone(self.new.engine());
        let chunk = std::mem::take(&mut self.chunk);
        let bytes = chunk.room_needed();
        if engine.reserve(bytes) == Room::Low {
            return Err(EngineError::NoRoom { path: "store".into(), bytes }.into());
        }
        let linked = self.link(&*engine, chunk.records)?;
        let mut txn = engine.write()?;
        let mut buffer = Vec::with_capacity(4096);
        for record in &linked.records {
            codec::encode_history(record, &mut buffer);
            txn.append(Table::History, &record.revision.to_bytes(), &buffer)?;
        }
        // In the order of keys: neighbours lie on one page.
        let mut newest: Vec<&Record> = linked.newest.values().map(|at| &linked.records[*at]).collect();
        newest.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        for record in newest {
            let engine_key = EngineKey::of(&record.key);
            codec::encode_current(&record.borrow(), &record.spine, engine_key.bytes(), INLINE_MAX, &mut buffer);
            txn.put(Table::Current, engine_key.bytes(), &buffer)?;
        }
        for ((lease, key), attached) in &linked.attached {
            let engine_key = keys::attached_key(*lease, key);
            if *attached {
                codec::encode_attached(&engine_key, key, &mut buffer);
                txn.put(Table::Attached, &engine_key, &buffer)?;
            } else {
                txn.delete(Table::Attached, &engine_key)?;
            }
        }
        for (table, key, value) in &chunk.rows {
            put_row(table.table(), key, value, &mut *txn)?;
        }
        if let Some((meta, conf_state)) = end {
            meta.write(Some(conf_state), &mut *txn)?;
            if meta.finished >= 0 {
                write_finished(meta.finished, &mut *txn)?;
            }
        }
        Ok(txn.commit()?)
    }

    /// Finds what each record follows: in the chunk, else in what was committed before.
    fn link(&mut self, engine: &dyn Engine, records: Vec<NewRecord>) -> Result<Linked, StoreError> {
        let mut linked = Linked::default();
        if records.is_empty() {
            return Ok(linked);
        }
        let txn = engine.read()?;
        for record in records {
            let Some(key) = record.key.clone() else {
                self.add_raw(&record, &mut linked);
                continue;
            };
            let before = match linked.newest.get(&key) {
                Some(at) => Some(linked.records[*at].clone()),
                None => newest(&*txn, &key)?,
            };
            let (previous, spine) = links(before.as_ref());
            let lease_before = before.map_or(LeaseId(0), |before| before.lease);
            linked.attach(lease_before, record.lease, &key);
            linked.newest.insert(key.clone(), linked.records.len());
            linked.records.push(record.with_links(key, previous, spine));
        }
        Ok(linked)
    }

    fn add_raw(&mut self, record: &NewRecord, linked: &mut Linked) {
        let (previous, spine) = match &self.raw {
            Some((before, spine)) => (*before, spine.child(*before)),
            None => (Revision::ZERO, Spine::default()),
        };
        self.raw = Some((record.revision, spine.clone()));
        // Neither a tombstone nor anybody's newest: it only stands in history.
        let alive = NewRecord { create_revision: record.revision.main, version: 1, ..record.clone() };
        linked.records.push(alive.with_links(Bytes::new(), previous, spine));
    }
}

impl NewRecord {
    /// A raw record.
    #[must_use]
    pub const fn raw(revision: Revision) -> Self {
        Self {
            revision,
            tombstone: false,
            key: None,
            value: Bytes::new(),
            create_revision: 0,
            version: 0,
            lease: LeaseId(0),
        }
    }

    /// Key and value as etcd stores them, one behind the other, into `out`, replacing what was there: what an export
    /// will give back.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let record = HistoryRef {
            revision: self.revision,
            tombstone: self.tombstone,
            create_revision: self.create_revision,
            version: self.version,
            lease: self.lease,
            previous: Revision::ZERO,
            jump: Revision::ZERO,
            key: self.key.as_deref().unwrap_or_default(),
            value: &self.value,
        };
        hash::encode(&record, out);
    }

    fn with_links(self, key: Bytes, previous: Revision, spine: Spine) -> Record {
        Record {
            key,
            value: self.value,
            create_revision: self.create_revision,
            revision: self.revision,
            version: if self.tombstone { 0 } else { self.version },
            lease: self.lease,
            previous,
            jump: spine.jump(),
            spine,
        }
    }
}

/// A chunk with its links.
#[derive(Default)]
struct Linked {
    records: Vec<Record>,
    /// The newest record of each key, by its place.
    newest: HashMap<Bytes, usize>,
    attached: BTreeMap<(LeaseId, Bytes), bool>,
}

impl Linked {
    fn attach(&mut self, from: LeaseId, to: LeaseId, key: &Bytes) {
        if from == to {
            return;
        }
        if from != LeaseId(0) {
            self.attached.insert((from, key.clone()), false);
        }
        if to != LeaseId(0) {
            self.attached.insert((to, key.clone()), true);
        }
    }
}

/// The newest committed record of `key`, without its value.
fn newest(txn: &dyn ReadTxn, key: &Bytes) -> Result<Option<Record>, StoreError> {
    let engine_key = EngineKey::of(key);
    let Some(bytes) = txn.get(Table::Current, engine_key.bytes())? else { return Ok(None) };
    let current = codec::decode_current(engine_key.bytes(), bytes)?;
    let spine = current.spine()?;
    Ok(Some(Record { spine, ..current.with_value(&[]).own(false) }))
}

/// A whole store beside the one that counts, durable. Dropped, it is removed.
pub struct Imported {
    new: Fresh,
    old: Store,
    revision: i64,
    opened: Opened,
    turn: TurnTaken,
}

impl Imported {
    /// Newest main revision in it.
    #[must_use]
    pub const fn revision(&self) -> i64 {
        self.revision
    }

    /// What opening it will find.
    #[must_use]
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Makes it the store that counts: now, and at the next start. Nothing more is committed to the old one; what others
    /// still read there stays until they are done. Who waits for a compaction's end waits for the new store's.
    ///
    /// # Errors
    /// [`StoreError::Engine`] if the disk fails: either may count at the next start, and the member must stop.
    pub fn take_over(self) -> Result<(Store, Writer, Opened), StoreError> {
        let Self { new, old, turn, .. } = self;
        old.clone().close();
        let before = old.inner();
        // Neither is removed now, whatever fails: the next start opens the one that is named.
        let new = new.keep();
        let options = before.options.clone();
        before.engine().give_way()?;
        let (store, writer, opened) = Store::open(new, options)?;
        hand_over(before, store.inner());
        drop(turn);
        Ok((store, writer, opened))
    }
}

/// What the process knows beside the store goes on with the new one.
fn hand_over(old: &Inner, new: &Inner) {
    if let Some(observer) = old.observer.get() {
        // Nobody has set another: nobody else knows of the new store.
        let _ = new.observer.set(Arc::clone(observer));
    }
    new.stats.carry_on(&old.stats);
    let (waiting, hashes) = {
        let mut core = old.core.lock();
        (std::mem::take(&mut core.when_compacted), std::mem::take(&mut core.hashes))
    };
    let mut core = new.core.lock();
    core.hashes = hashes;
    let finished = core.meta.finished;
    let (done, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(revision, _)| *revision <= finished);
    core.when_compacted.extend(waiting);
    drop(core);
    done.into_iter().for_each(|(_, call)| call());
}
