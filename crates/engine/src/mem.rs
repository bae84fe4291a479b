//! The engine of simulations: tables in memory, and a power switch.
//!
//! It forgets what LMDB might forget: after [`MemEngine::crash`] the newest commit is gone unless a later commit or a
//! [`Engine::sync`] followed it. See the crate's essay.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::{Cursor, Engine, EngineError, EngineSizes, MAX_KEY_LEN, Pair, ReadTxn, Room, Table, WriteTxn};

type Map = BTreeMap<Vec<u8>, Arc<[u8]>>;

#[derive(Clone, Default)]
struct State {
    tables: [Map; Table::ALL.len()],
}

/// What undoes one commit: for each key touched, the value before.
type Undo = Vec<(Table, Vec<u8>, Option<Arc<[u8]>>)>;

/// What a transaction will leave of each key it touched.
type Staged = BTreeMap<(Table, Vec<u8>), Option<Arc<[u8]>>>;

/// Tables in memory.
#[derive(Default)]
pub struct MemEngine {
    state: RwLock<Arc<State>>,
    /// Undoes the newest commit while no later sync has followed it. Locked for the life of a write transaction: the
    /// one-writer rule.
    newest: Mutex<Option<Undo>>,
    failing_commits: AtomicU64,
    failing_syncs: AtomicU64,
    unwritten_commits: AtomicU64,
    hindered_commits: AtomicU64,
    broken_reserves: AtomicU64,
    condemned: Mutex<Option<String>>,
    successor: Mutex<Option<Arc<MemEngine>>>,
    /// The successor counts.
    retired: AtomicBool,
}

impl MemEngine {
    /// Empty tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The engine that counts: this one, or the last of those that took its place.
    #[must_use]
    pub fn that_counts(self: &Arc<Self>) -> Arc<Self> {
        match &*self.successor.lock() {
            Some(successor) if self.retired.load(Ordering::Relaxed) => successor.that_counts(),
            _ => Arc::clone(self),
        }
    }

    /// What a power loss leaves: everything but the newest commit, which stays only if it was made durable or if
    /// `keep_newest` says that its last page happened to reach the disk.
    #[must_use]
    pub fn crash(&self, keep_newest: bool) -> Self {
        if let (true, Some(successor)) = (self.retired.load(Ordering::Relaxed), &*self.successor.lock()) {
            return successor.crash(keep_newest);
        }
        let newest = self.newest.lock();
        let mut state = State::clone(&self.state.read());
        if let (Some(undo), false) = (&*newest, keep_newest) {
            for (table, key, before) in undo.iter().rev() {
                match before {
                    Some(value) => state.tables[table.slot()].insert(key.clone(), value.clone()),
                    None => state.tables[table.slot()].remove(key),
                };
            }
        }
        Self { state: RwLock::new(Arc::new(state)), ..Self::default() }
    }

    /// The next `count` commits fail as if their sync had.
    pub fn fail_commits(&self, count: u64) {
        self.failing_commits.store(count, Ordering::Relaxed);
    }

    /// The next `count` calls of [`Engine::sync`] fail.
    pub fn fail_syncs(&self, count: u64) {
        self.failing_syncs.store(count, Ordering::Relaxed);
    }

    /// The next `count` commits fail for want of room; nothing is lost.
    pub fn fill_disk(&self, count: u64) {
        self.unwritten_commits.store(count, Ordering::Relaxed);
    }

    /// The next `count` commits fail before their sync although there is room; nothing is lost.
    pub fn hinder_commits(&self, count: u64) {
        self.hindered_commits.store(count, Ordering::Relaxed);
    }

    /// The next `count` calls of [`Engine::reserve`] find no room.
    pub fn break_reserve(&self, count: u64) {
        self.broken_reserves.store(count, Ordering::Relaxed);
    }

    /// What [`Engine::condemn`] was told.
    #[must_use]
    pub fn condemned(&self) -> Option<String> {
        self.condemned.lock().clone()
    }

    /// Turns over one bit of a stored value; false if there is no such key. For tests of checksums.
    pub fn flip_bit(&self, table: Table, key: &[u8], bit: usize) -> bool {
        let mut state = self.state.write();
        let Some(value) = Arc::make_mut(&mut state).tables[table.slot()].get_mut(key) else { return false };
        let mut bytes = value.to_vec();
        let at = bit / 8 % bytes.len();
        bytes[at] ^= 1 << (bit % 8);
        *value = bytes.into();
        true
    }

    /// Every pair of a table, for tests.
    #[must_use]
    pub fn dump(&self, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.state.read().tables[table.slot()].iter().map(|(k, v)| (k.clone(), v.to_vec())).collect()
    }
}

fn take_one(counter: &AtomicU64) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl Engine for MemEngine {
    fn read(&self) -> Result<Box<dyn ReadTxn + '_>, EngineError> {
        Ok(Box::new(MemRead { state: self.state.read().clone() }))
    }

    fn write(&self) -> Result<Box<dyn WriteTxn + '_>, EngineError> {
        let newest = self.newest.lock();
        let state = self.state.read().clone();
        Ok(Box::new(MemWrite { engine: self, newest, state, staged: Staged::new() }))
    }

    fn sync(&self) -> Result<(), EngineError> {
        if take_one(&self.failing_syncs) {
            return Err(EngineError::Injected("sync"));
        }
        *self.newest.lock() = None;
        Ok(())
    }

    fn sizes(&self) -> Result<EngineSizes, EngineError> {
        let state = self.state.read().clone();
        let bytes = state.tables.iter().flatten().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        Ok(EngineSizes { file: bytes, in_use: bytes })
    }

    fn leaves(&self, table: Table) -> Result<u64, EngineError> {
        const PAGE_BYTES: usize = 4096;
        let state = self.state.read().clone();
        let table = &state.tables[table.slot()];
        let bytes: usize = table.iter().map(|(key, value)| key.len() + value.len()).sum();
        Ok(bytes.div_ceil(PAGE_BYTES) as u64)
    }

    fn open_reads(&self) -> u64 {
        // One is the engine's own; a writer's copy counts as a read.
        Arc::strong_count(&self.state.read()) as u64 - 1
    }

    fn reserve(&self, _bytes: u64) -> Room {
        if take_one(&self.broken_reserves) { Room::Low } else { Room::Whole }
    }

    fn condemn(&self, why: &str) {
        *self.condemned.lock() = Some(why.to_owned());
    }

    fn successor(&self, _bytes: u64) -> Result<Arc<dyn Engine>, EngineError> {
        let successor = Arc::new(Self::new());
        *self.successor.lock() = Some(successor.clone());
        Ok(successor)
    }

    fn give_way(&self) -> Result<(), EngineError> {
        self.retire();
        Ok(())
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }
}

struct MemRead {
    state: Arc<State>,
}

impl ReadTxn for MemRead {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, EngineError> {
        Ok(self.state.tables[table.slot()].get(key).map(|value| &**value))
    }

    fn scan<'t>(
        &'t self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Box<dyn Cursor<'t> + 't>, EngineError> {
        if is_empty(from, to) {
            return Ok(Box::new(MemCursor { range: None }));
        }
        let range = self.state.tables[table.slot()].range::<[u8], _>((from, to));
        Ok(Box::new(MemCursor { range: Some(range) }))
    }

    fn last(&self, table: Table) -> Result<Option<Pair<'_>>, EngineError> {
        Ok(self.state.tables[table.slot()].last_key_value().map(|(key, value)| (&**key, &**value)))
    }
}

/// No key lies between the bounds. (`BTreeMap::range` panics on some of these.)
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        _ => false,
    }
}

struct MemCursor<'t> {
    range: Option<std::collections::btree_map::Range<'t, Vec<u8>, Arc<[u8]>>>,
}

impl<'t> Cursor<'t> for MemCursor<'t> {
    fn next(&mut self) -> Result<Option<Pair<'t>>, EngineError> {
        Ok(self.range.as_mut().and_then(Iterator::next).map(|(key, value)| (&**key, &**value)))
    }
}

struct MemWrite<'e> {
    engine: &'e MemEngine,
    newest: MutexGuard<'e, Option<Undo>>,
    state: Arc<State>,
    staged: Staged,
}

impl WriteTxn for MemWrite<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, EngineError> {
        Ok(match self.staged.get(&(table, key.to_vec())) {
            Some(staged) => staged.as_deref(),
            None => self.state.tables[table.slot()].get(key).map(|value| &**value),
        })
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        if key.is_empty() || key.len() > MAX_KEY_LEN {
            return Err(EngineError::Injected("key length out of bounds"));
        }
        self.staged.insert((table, key.to_vec()), Some(value.into()));
        Ok(())
    }

    fn append(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        let stored = self.state.tables[table.slot()].last_key_value().map(|(last, _)| &**last);
        let staged = self.staged.range((table, Vec::new())..=(table, vec![u8::MAX; MAX_KEY_LEN])).next_back();
        let last = stored.max(staged.map(|((_, last), _)| &**last));
        if last.is_some_and(|last| last >= key) {
            return Err(EngineError::Injected("append below the last key"));
        }
        self.put(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, EngineError> {
        let there = self.get(table, key)?.is_some();
        if there {
            self.staged.insert((table, key.to_vec()), None);
        }
        Ok(there)
    }

    fn pages_met(&self) -> usize {
        self.staged.len()
    }

    fn commit(self: Box<Self>) -> Result<(), EngineError> {
        let Self { engine, mut newest, state, staged } = *self;
        drop(state);
        if take_one(&engine.failing_commits) {
            return Err(EngineError::Injected("commit"));
        }
        if take_one(&engine.unwritten_commits) {
            let source = heed::Error::Io(std::io::ErrorKind::StorageFull.into());
            return Err(EngineError::NotWritten { path: "memory".into(), had_room: false, source });
        }
        if take_one(&engine.hindered_commits) {
            let source = heed::Error::Io(std::io::ErrorKind::Other.into());
            return Err(EngineError::NotWritten { path: "memory".into(), had_room: true, source });
        }
        // As LMDB: what changes nothing is not written, and syncs nothing.
        if staged.is_empty() {
            return Ok(());
        }
        let mut shared = engine.state.write();
        let state = Arc::make_mut(&mut shared);
        let mut undo = Undo::with_capacity(staged.len());
        for ((table, key), value) in staged {
            let map = &mut state.tables[table.slot()];
            let before = match value {
                Some(value) => map.insert(key.clone(), value),
                None => map.remove(&key),
            };
            undo.push((table, key, before));
        }
        // This commit's sync has made the one before durable.
        *newest = Some(undo);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::MemEngine;
    use crate::{Engine, Table};

    fn put(engine: &MemEngine, key: &[u8]) {
        let mut txn = engine.write().expect("write");
        txn.put(Table::Meta, key, b"v").expect("put");
        txn.commit().expect("commit");
    }

    fn keys(engine: &MemEngine) -> Vec<Vec<u8>> {
        engine.dump(Table::Meta).into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_crash_forgets_the_newest_commit_unless_it_was_synced() {
        let engine = MemEngine::new();
        put(&engine, b"a");
        put(&engine, b"b");
        assert_eq!(keys(&engine.crash(false)), [b"a"]);
        assert_eq!(keys(&engine.crash(true)), [b"a", b"b"]);
        engine.sync().expect("sync");
        assert_eq!(keys(&engine.crash(false)), [b"a", b"b"]);
    }

    #[test]
    fn a_failed_commit_leaves_nothing() {
        let engine = MemEngine::new();
        engine.fail_commits(1);
        let mut txn = engine.write().expect("write");
        txn.put(Table::Meta, b"a", b"v").expect("put");
        assert!(txn.commit().is_err());
        assert!(keys(&engine).is_empty());
        put(&engine, b"a");
        assert_eq!(keys(&engine), [b"a"]);
    }
}
