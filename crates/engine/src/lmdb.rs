//! LMDB behind the [`Engine`] trait: one environment directory, one named database per table.
//!
//! - `NOMETASYNC`: see the crate's essay for what that means after a power loss.
//! - Read transactions are bound to their thread (LMDB's default): beginning one takes no lock once the thread has its
//!   reader slot. In return a thread never holds two at once; every caller of this room reads and lets go in one call.
//! - The map is 1 TiB of address space, not of memory or disk, so that it never has to be moved under readers.

use std::fs::{self, File};
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, DatabaseStat, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithTls};

use crate::{Cursor, Engine, EngineError, EngineSizes, Pair, ReadTxn, Room, StoreDirectory, Table, WriteTxn};

/// How to open an environment.
#[derive(Clone, Copy, Debug)]
pub struct LmdbOptions {
    /// Address space for the map, in bytes; the file cannot grow beyond it.
    pub map_size: usize,
    /// Threads that may ever read at the same time.
    pub max_readers: u32,
    /// Disk space set aside for the commits that free space when the disk is full, in bytes. 0: none.
    pub ballast_bytes: u64,
    /// Never wait for the disk: a power cut can then take the whole environment.
    pub no_sync: bool,
}

impl Default for LmdbOptions {
    fn default() -> Self {
        // 1 TiB where addresses have 64 bits; 1 GiB where they have 32.
        let map_size = if usize::BITS >= 64 { 1 << 40 } else { 1 << 30 };
        // Room for a generation of ordinary size: 10 k changes touch at most two pages of 4 KiB each.
        Self { map_size, max_readers: 1024, ballast_bytes: 64 << 20, no_sync: false }
    }
}

type Db = Database<'static, Bytes, Bytes>;

/// An LMDB environment.
pub struct LmdbEngine {
    env: Env<WithTls>,
    tables: [Db; Table::ALL.len()],
    path: PathBuf,
    place: Option<Place>,
    /// The environment's file, opened a second time. See [`LmdbEngine::is_sound`].
    witness: File,
    /// The file system has promised the room that was last asked for.
    room_promised: AtomicBool,
}

/// Where an engine stands among others.
struct Place {
    directory: Arc<StoreDirectory>,
    options: LmdbOptions,
    /// Remove the files with the engine: another counts.
    retired: AtomicBool,
}

impl LmdbEngine {
    /// Opens the engine that counts in `directory`.
    ///
    /// # Errors
    /// [`EngineError::Suspect`] if a sync failed there before, else as [`LmdbEngine::open`].
    pub fn open_current(directory: Arc<StoreDirectory>, options: LmdbOptions) -> Result<Self, EngineError> {
        match directory.suspect() {
            Some(why) => Err(EngineError::Suspect { path: directory.current(), why }),
            None => Self::open_suspect(directory, options),
        }
    }

    /// As [`LmdbEngine::open_current`], whatever has happened there: to copy what can be believed.
    ///
    /// # Errors
    /// As [`LmdbEngine::open`].
    pub fn open_suspect(directory: Arc<StoreDirectory>, options: LmdbOptions) -> Result<Self, EngineError> {
        directory.take_ballast(options.ballast_bytes);
        let place = Place { directory: directory.clone(), options, retired: AtomicBool::new(false) };
        Self::open_at(&directory.current(), options, Some(place))
    }

    /// Opens the environment in directory `path`, making both if they are not there; without a reserve of disk space.
    ///
    /// The caller guards the directory against other processes.
    ///
    /// # Errors
    /// [`EngineError::Io`] if the directory cannot be made, [`EngineError::Lmdb`] if its contents are not an environment.
    pub fn open(path: &Path, options: LmdbOptions) -> Result<Self, EngineError> {
        Self::open_at(path, options, None)
    }

    #[expect(unsafe_code, reason = "a memory map of a file is only as sound as the promise that nobody else writes it")]
    fn open_at(path: &Path, options: LmdbOptions, place: Option<Place>) -> Result<Self, EngineError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| EngineError::Io {
            path: path.to_owned(),
            action: "create directory",
            source,
        })?;
        let data = path.join(DATA_FILE);
        let is_new = !data.exists();
        let mut builder = EnvOpenOptions::new();
        builder.map_size(options.map_size).max_readers(options.max_readers).max_dbs(Table::ALL.len() as u32);
        // SAFETY: NO_META_SYNC only weakens durability, as the essay tells. The map is shared with nobody: the member's
        // lock file keeps other processes away, and heed refuses to open one directory twice inside this process.
        let env = unsafe {
            builder.flags(if options.no_sync {
                EnvFlags::NO_META_SYNC | EnvFlags::NO_SYNC
            } else {
                EnvFlags::NO_META_SYNC
            });
            builder.open(path)
        }
        .map_err(lmdb_error(path, "open"))?;
        let io = |path: &Path, action| {
            let path = path.to_owned();
            move |source| EngineError::Io { path, action, source }
        };
        let witness = File::open(&data).map_err(io(&data, "open"))?;
        if is_new && !options.no_sync {
            // LMDB syncs the file but not its name: without that a power cut could leave an empty directory, which
            // would be taken for a new store.
            File::open(path).and_then(|directory| directory.sync_all()).map_err(io(path, "sync"))?;
        }
        let tables = open_tables(&env).map_err(lmdb_error(path, "open tables"))?;
        Ok(Self { env, tables, path: path.to_owned(), place, witness, room_promised: AtomicBool::new(false) })
    }

    /// Directory of the environment.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, action: &'static str) -> impl FnOnce(heed::Error) -> EngineError {
        lmdb_error(&self.path, action)
    }
}

fn lmdb_error(path: &Path, action: &'static str) -> impl FnOnce(heed::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Lmdb { path, action, source }
}

/// LMDB's name for the file.
const DATA_FILE: &str = "data.mdb";

/// Pages at the start of the file that say which of the others count.
const META_PAGES: u64 = 2;

fn pages_of(stat: &DatabaseStat) -> u64 {
    (stat.branch_pages + stat.leaf_pages + stat.overflow_pages) as u64
}

fn open_tables(env: &Env<WithTls>) -> Result<[Db; Table::ALL.len()], heed::Error> {
    let wtxn = env.write_txn()?;
    let opened = env.create_databases_and_commit(wtxn, |opener, wtxn| -> Result<_, heed::Error> {
        let mut tables = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            tables.push(opener.create_database::<Bytes, Bytes>(wtxn, Some(table.name()))?);
        }
        let tables: [_; Table::ALL.len()] = tables.try_into().unwrap_or_else(|_| unreachable!("one per table"));
        Ok(CommitOrAbort::<_, ()>::Commit(tables))
    })?;
    Ok(opened.unwrap_commit())
}

impl Engine for LmdbEngine {
    fn read(&self) -> Result<Box<dyn ReadTxn + '_>, EngineError> {
        let txn = self.env.read_txn().map_err(|e| self.error("begin read")(e))?;
        Ok(Box::new(LmdbRead { engine: self, txn }))
    }

    fn write(&self) -> Result<Box<dyn WriteTxn + '_>, EngineError> {
        let txn = self.env.write_txn().map_err(|e| self.error("begin write")(e))?;
        Ok(Box::new(LmdbWrite { engine: self, txn }))
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.env.force_sync().map_err(self.error("sync"))
    }

    fn sizes(&self) -> Result<EngineSizes, EngineError> {
        let file = self.env.real_disk_size().map_err(self.error("stat"))?;
        let txn = self.env.read_txn().map_err(self.error("begin read"))?;
        let names = self.env.unnamed_database_stat();
        let mut pages = META_PAGES + pages_of(&names);
        for table in &self.tables {
            pages += pages_of(&table.stat(&txn).map_err(self.error("stat table"))?);
        }
        Ok(EngineSizes { file, in_use: pages * u64::from(names.page_size) })
    }

    fn reserve(&self, bytes: u64) -> Room {
        let inside = self.free_inside();
        let allotted = self.allocate(bytes.saturating_sub(inside));
        let Some(place) = &self.place else { return if allotted { Room::Whole } else { Room::Low } };
        let whole = if allotted {
            place.directory.take_ballast(place.options.ballast_bytes)
        } else {
            place.directory.drop_ballast();
            false
        };
        if whole || inside >= bytes + place.options.ballast_bytes { Room::Whole } else { Room::Low }
    }

    fn condemn(&self, why: &str) {
        // The disk has just failed; if it does not even take this note, the log on it will not be trusted either.
        let _ = self.place.as_ref().map(|place| place.directory.condemn(why));
    }

    fn successor(&self) -> Result<Arc<dyn Engine>, EngineError> {
        let Some(place) = &self.place else {
            return Err(EngineError::Layout {
                path: self.path.clone(),
                what: "stands alone and has no successor".into(),
            });
        };
        let path = place.directory.make_next()?;
        let next =
            Place { directory: place.directory.clone(), options: place.options, retired: AtomicBool::new(false) };
        let next = Self::open_at(&path, place.options, Some(next))?;
        let bytes = self.sizes()?.in_use;
        if !next.allocate(bytes) {
            next.retire();
            return Err(EngineError::NoRoom { path, bytes });
        }
        Ok(Arc::new(next))
    }

    fn give_way(&self) -> Result<(), EngineError> {
        if let Some(place) = &self.place {
            place.directory.flip()?;
        }
        self.retire();
        Ok(())
    }

    fn retire(&self) {
        if let Some(place) = &self.place {
            place.retired.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for LmdbEngine {
    fn drop(&mut self) {
        if let Some(place) = self.place.as_ref().filter(|place| place.retired.load(Ordering::Relaxed)) {
            place.directory.remove(&self.path);
        }
    }
}

impl LmdbEngine {
    /// Bytes in the file that hold no live data: LMDB uses them again before the file grows.
    fn free_inside(&self) -> u64 {
        self.sizes().map_or(0, |sizes| self.end().saturating_sub(sizes.in_use))
    }

    /// Where the file grows next.
    fn end(&self) -> u64 {
        let page = u64::from(self.env.unnamed_database_stat().page_size);
        (self.env.info().last_page_number as u64 + 1) * page
    }

    /// Allots blocks beyond the end of the file without changing its length, which LMDB trusts; false if there is no
    /// room.
    fn allocate(&self, bytes: u64) -> bool {
        self.room_promised.store(true, Ordering::Relaxed);
        if bytes == 0 {
            return true;
        }
        let Ok(file) = self.env.try_clone_inner_file() else { return false };
        // A file system without fallocate gives no promise; the commit itself will tell.
        let done = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, self.end(), bytes);
        self.room_promised.store(done.is_ok(), Ordering::Relaxed);
        matches!(done, Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS))
    }

    /// After a failed commit: did no sync fail? LMDB does not say which of its calls failed, and reports even a full
    /// disk as an I/O error. But the system tells a failed write-back once to *every* open file: if the witness's sync
    /// succeeds, there was none since its last one, and the commit failed while it wrote pages that nothing names yet.
    fn is_sound(&self) -> bool {
        self.witness.sync_data().is_ok()
    }
}

struct LmdbRead<'e> {
    engine: &'e LmdbEngine,
    txn: RoTxn<'e, WithTls>,
}

impl ReadTxn for LmdbRead<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, EngineError> {
        self.engine.tables[table.slot()].get(&self.txn, key).map_err(|e| self.engine.error("get")(e))
    }

    fn scan<'t>(
        &'t self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Box<dyn Cursor<'t> + 't>, EngineError> {
        let range = self.engine.tables[table.slot()].range(&self.txn, &(from, to));
        let range = range.map_err(|e| self.engine.error("scan")(e))?;
        Ok(Box::new(LmdbCursor { engine: self.engine, range }))
    }

    fn last(&self, table: Table) -> Result<Option<Pair<'_>>, EngineError> {
        self.engine.tables[table.slot()].last(&self.txn).map_err(|e| self.engine.error("last")(e))
    }
}

struct LmdbCursor<'t> {
    engine: &'t LmdbEngine,
    range: heed::RoRange<'t, Bytes, Bytes>,
}

impl<'t> Cursor<'t> for LmdbCursor<'t> {
    fn next(&mut self) -> Result<Option<Pair<'t>>, EngineError> {
        self.range.next().transpose().map_err(|e| self.engine.error("next")(e))
    }
}

struct LmdbWrite<'e> {
    engine: &'e LmdbEngine,
    txn: RwTxn<'e>,
}

impl WriteTxn for LmdbWrite<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, EngineError> {
        self.engine.tables[table.slot()].get(&self.txn, key).map_err(|e| self.engine.error("get")(e))
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.engine.tables[table.slot()].put(&mut self.txn, key, value).map_err(|e| self.engine.error("put")(e))
    }

    fn append(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        let table = self.engine.tables[table.slot()];
        table.put_with_flags(&mut self.txn, PutFlags::APPEND, key, value).map_err(|e| self.engine.error("append")(e))
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, EngineError> {
        self.engine.tables[table.slot()].delete(&mut self.txn, key).map_err(|e| self.engine.error("delete")(e))
    }

    fn commit(self: Box<Self>) -> Result<(), EngineError> {
        let engine = self.engine;
        self.txn.commit().map_err(|source| match source {
            // Broken by an earlier failure to write the page that names the newest commit.
            heed::Error::Mdb(heed::MdbError::Panic) => engine.error("commit")(source),
            _ if engine.is_sound() => {
                let had_room = engine.room_promised.load(Ordering::Relaxed);
                EngineError::NotWritten { path: engine.path.clone(), had_room, source }
            }
            _ => engine.error("commit")(source),
        })
    }
}
