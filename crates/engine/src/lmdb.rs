//! LMDB behind the [`Engine`] trait: one environment directory, one named database per table.
//!
//! - `NOMETASYNC`: see the crate's essay for what that means after a power loss.
//! - Read transactions are bound to their thread (LMDB's default): beginning one takes no lock once the thread has its
//!   reader slot. In return a thread never holds two at once; every caller of this room reads and lets go in one call.
//! - The map is 1 TiB of address space, not of memory or disk, so that it never has to be moved under readers.
//! - LMDB has no checksums and trusts what its pages say. So reads go through [`tree`], which does not, and a start asks
//!   [`note`] first whether the file is what the last commit left. LMDB itself begins and ends transactions, and writes.

mod give_back;
mod many;
mod map;
mod note;
mod page;
mod tree;
mod whole;

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, DatabaseStat, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithTls};
use parking_lot::{Mutex, RwLock};

use give_back::give_back;
use map::Map;
use note::{Looked, Note, Summer};
use page::{Fault, Found, Meta, Tree, fault};
pub use tree::RecordCheck;
use tree::{Fence, Pages, Seen, Walk};

use milepost_env::tell_of_bus_errors;

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
    /// Tells whether a record is as it was written; asked of each when its page is first met.
    pub check: Option<RecordCheck>,
}

impl Default for LmdbOptions {
    fn default() -> Self {
        // 1 TiB where addresses have 64 bits; 1 GiB where they have 32.
        let map_size = if usize::BITS >= 64 { 1 << 40 } else { 1 << 30 };
        // Room for a generation of ordinary size: 10 k changes touch at most two pages of 4 KiB each.
        Self { map_size, max_readers: 1024, ballast_bytes: 64 << 20, no_sync: false, check: None }
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
    map: Map,
    page_size: usize,
    seen: Seen,
    check: Option<RecordCheck>,
    /// Where notes are written; locked by the writer.
    notes: Mutex<Notes>,
    /// The newest committed state that has its note.
    newest: RwLock<State>,
    no_sync: bool,
    /// Reads that have begun and not ended.
    open_reads: AtomicU64,
    /// An earlier run did not wait for the disk and never came to an end.
    in_doubt: AtomicBool,
}

struct Notes {
    summer: Summer,
    /// The transaction of the newest note; 0: none.
    noted: u64,
    file: File,
}

/// What [`examine`] knows afterwards.
#[derive(Default)]
struct Examined {
    summer: Summer,
    /// The transaction whose note was found right; 0: there was none.
    noted: u64,
    /// A meta page with the note of a commit that is as if it had not been, and the size of pages.
    orphan: Option<(u64, usize)>,
}

/// A committed state: where its tables begin.
#[derive(Clone, Copy)]
struct State {
    transaction: u64,
    last_page: u64,
    tables: [Tree; Table::ALL.len()],
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
        let io = |path: &Path, action| {
            let path = path.to_owned();
            move |source| EngineError::Io { path, action, source }
        };
        let data = path.join(DATA_FILE);
        if was_never_synced(&data).map_err(io(&data, "look at"))? {
            fs::remove_file(&data).map_err(io(&data, "remove"))?;
        }
        let is_new = !data.exists();
        let unsynced = path.join(UNSYNCED);
        let was_unsynced = unsynced.exists();
        let examined = if is_new { Examined::default() } else { examine(&data, was_unsynced)? };
        if let Some((number, page_size)) = examined.orphan {
            // Durable with the next commit's pages, and so before its meta page.
            let erased =
                OpenOptions::new().write(true).open(&data).and_then(|file| Note::erase(number, &file, page_size));
            erased.map_err(io(&data, "take a note away from"))?;
        }
        if options.no_sync && !was_unsynced {
            // Durable before anything that will not be.
            let made = File::create(&unsynced).and_then(|mark| mark.sync_all());
            made.and_then(|()| File::open(path)?.sync_all()).map_err(io(&unsynced, "create"))?;
        }
        tell_of_bus_errors(&format!("{} cannot be read: {REMEDY}", data.display())).map_err(io(&data, "guard"))?;
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
        let witness = File::open(&data).map_err(io(&data, "open"))?;
        if is_new && !options.no_sync {
            // LMDB syncs the file but not its name: without that a power cut could leave an empty directory, which
            // would be taken for a new store.
            File::open(path).and_then(|directory| directory.sync_all()).map_err(io(path, "sync"))?;
        }
        let tables = open_tables(&env).map_err(lmdb_error(path, "open tables"))?;
        let map = Map::open(&data, options.map_size).map_err(io(&data, "map"))?;
        let file = OpenOptions::new().write(true).open(&data).map_err(io(&data, "open"))?;
        let notes = Mutex::new(Notes { summer: examined.summer, noted: examined.noted, file });
        let page_size = env.unnamed_database_stat().page_size as usize;
        let nothing = State { transaction: 0, last_page: 0, tables: [EMPTY; Table::ALL.len()] };
        let engine = Self {
            env,
            tables,
            path: path.to_owned(),
            place,
            witness,
            room_promised: AtomicBool::new(false),
            page_size,
            seen: Seen::new((options.map_size / page_size) as u64),
            map,
            check: options.check,
            notes,
            newest: RwLock::new(nothing),
            no_sync: options.no_sync,
            open_reads: AtomicU64::new(0),
            in_doubt: AtomicBool::new(was_unsynced),
        };
        engine.leave_note()?;
        Ok(engine)
    }

    /// An earlier run with [`LmdbOptions::no_sync`] never came to its end: a power cut may have taken any of its pages and
    /// left older ones, sound in themselves. Every page has been found in its place; records are to be compared too,
    /// and then [`LmdbEngine::settle`] says so.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Relaxed)
    }

    /// Everything has been compared: syncs, and takes back the mark of a life without syncs, unless this is one too.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn settle(&self) -> Result<(), EngineError> {
        self.env.force_sync().map_err(self.error("sync"))?;
        self.in_doubt.store(false, Ordering::Relaxed);
        if self.no_sync { Ok(()) } else { self.remove_mark() }
    }

    fn remove_mark(&self) -> Result<(), EngineError> {
        let mark = self.path.join(UNSYNCED);
        let removed = fs::remove_file(&mark).and_then(|()| File::open(&self.path)?.sync_all());
        removed.map_err(|source| EngineError::Io { path: mark, action: "remove", source })
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

/// A tree without a page.
const EMPTY: Tree = Tree { depth: 0, branches: 0, leaves: 0, overflows: 0, entries: 0, root: page::NO_PAGE };

/// Is the file what its last commit left? Asked before LMDB opens it. Costs its branches, or, if the last commit died
/// before its note or it is `in_doubt`, all of its pages.
fn examine(data: &Path, in_doubt: bool) -> Result<Examined, EngineError> {
    let io = |source| EngineError::Io { path: data.to_owned(), action: "read", source };
    let map = Map::open(data, 0).map_err(io)?;
    // Made, and not yet begun: LMDB begins it.
    if map.file_len() == 0 {
        return Ok(Examined::default());
    }
    examine_map(&map, in_doubt).map_err(|fault| damaged(data, &fault))
}

fn examine_map(map: &Map, in_doubt: bool) -> Found<Examined> {
    let (meta, page, noted) = newest_meta(map, in_doubt)?;
    let orphan = |number: &u64| {
        let page = map.bytes(number * meta.page_size as u64, meta.page_size);
        page.and_then(Note::parse).is_some_and(|note| note.transaction > meta.transaction)
    };
    let orphan = (0..2).find(orphan).map(|number| (number, meta.page_size));
    let mut examined = Examined { orphan, ..Examined::default() };
    if meta.main.is_empty() {
        return Ok(examined);
    }
    let seen = Seen::new(0);
    let pages = Pages { map, page_size: meta.page_size, last_page: meta.last_page, seen: &seen, check: None };
    if in_doubt {
        whole::check(pages, &meta)?;
    }
    let Some(note) = noted else { return whole::check(pages, &meta).map(|()| examined) };
    if examined.summer.sum(pages, &meta, page)? == note.checksum {
        examined.noted = note.transaction;
        return Ok(examined);
    }
    // A walk through everything may name the page; if not, all that is known is that something differs.
    whole::check(pages, &meta)?;
    fault(meta.transaction % 2, "holds a checksum of the pages that lead to the records, and they are others")
}

/// The meta page that counts, and its note if it has its own.
fn newest_meta(map: &Map, in_doubt: bool) -> Found<(Meta, &[u8], Option<Note>)> {
    let first = map.bytes(0, page::META_LEN).map_or_else(|| fault(0, "is cut"), |bytes| Meta::parse(0, bytes))?;
    let size = first.page_size;
    let mut newest = None;
    for number in 0..2 {
        let Some(bytes) = map.bytes(number * size as u64, size) else { return fault(number, "is cut") };
        let meta = Meta::parse(number, bytes)?;
        if meta.page_size != size {
            return fault(number, format!("names pages of {} bytes, the other of {size}", meta.page_size));
        }
        let note = Note::parse(bytes);
        // A commit that died before its note leaves an older one, as does a version that leaves none: it says nothing. A
        // power cut may have kept the note of a commit and not its meta, which is as if it had not been. But the note of one
        // later than that tells of a page that was synced and is gone, unless nothing was ever synced.
        let is_ahead = |note: &Note| note.transaction > meta.transaction + 2;
        if let Some(note) = note.filter(|note| is_ahead(note) && !in_doubt) {
            return fault(number, format!("is of transaction {}, its note of {}", meta.transaction, note.transaction));
        }
        if newest.as_ref().is_none_or(|(newest, ..): &(Meta, _, _)| newest.transaction < meta.transaction) {
            newest = Some((meta, bytes, note.filter(|note| note.transaction == meta.transaction)));
        }
    }
    newest.map_or_else(|| fault(0, "is missing"), Ok)
}

fn damaged(data: &Path, fault: &Fault) -> EngineError {
    EngineError::Damaged { path: data.to_owned(), page: fault.page, what: fault.what.clone() }
}

fn lmdb_error(path: &Path, action: &'static str) -> impl FnOnce(heed::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Lmdb { path, action, source }
}

/// LMDB's name for the file.
const DATA_FILE: &str = "data.mdb";

/// Is this what a power cut has left of a store while it was made? The two pages that every store begins with are durable
/// before anything is in it, so one of them is empty only in a file that nobody has ever relied on: what it was to hold is
/// still in the log, and if it is not, the start finds the gap and refuses.
fn was_never_synced(data: &Path) -> std::io::Result<bool> {
    /// A store that has just been made is smaller.
    const LARGEST: u64 = 1 << 20;
    const SECTOR: usize = 512;
    const PAGE: u64 = 4096;
    let file = match File::open(data) {
        Ok(file) if file.metadata()?.len() <= LARGEST => file,
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for start in [0, PAGE] {
        let mut sector = [0; SECTOR];
        let read = std::os::unix::fs::FileExt::read_at(&file, &mut sector, start)?;
        if sector[..read].iter().all(|byte| *byte == 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Stands beside the file while it is written without waiting for the disk, until an orderly end.
const UNSYNCED: &str = "UNSYNCED";

const REMEDY: &str = "the disk failed, or the file was cut or is damaged; restore the data directory from a backup, or (in \
                      a cluster) remove this member, wipe its data directory and add it again";

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
        loop {
            let txn = self.env.read_txn().map_err(|e| self.error("begin read")(e))?;
            // The transaction keeps the pages of its state; where they begin is known of the newest, or still in its meta
            // page. Two commits later that is overwritten: then a newer state is as good.
            if let Some(state) = self.state_of(txn.id() as u64)? {
                self.open_reads.fetch_add(1, Ordering::Relaxed);
                return Ok(Box::new(LmdbRead { engine: self, state, _txn: txn }));
            }
        }
    }

    fn write(&self) -> Result<Box<dyn WriteTxn + '_>, EngineError> {
        let txn = self.env.write_txn().map_err(|e| self.error("begin write")(e))?;
        let committed = *self.newest.read();
        let known = self.notes.lock().summer.known();
        self.found(known.compare_lists(self.pages(committed.last_page)))?;
        let looked = RefCell::new(Looked::new(known));
        Ok(Box::new(LmdbWrite { engine: self, txn, committed, looked, lasts: RefCell::default(), appended: 0 }))
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

    fn leaves(&self, table: Table) -> Result<u64, EngineError> {
        let txn = self.env.read_txn().map_err(self.error("begin read"))?;
        let stat = self.tables[table.slot()].stat(&txn).map_err(self.error("stat table"))?;
        Ok(stat.leaf_pages as u64)
    }

    fn open_reads(&self) -> u64 {
        self.open_reads.load(Ordering::Relaxed)
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
        // The note is about the store that counts: what becomes of one that no longer does is of no interest.
        let place = self.place.as_ref().filter(|place| !place.retired.load(Ordering::Relaxed));
        // The disk has just failed; if it does not even take this note, the log on it will not be trusted either.
        let _ = place.map(|place| place.directory.condemn(why));
    }

    fn successor(&self, bytes: u64) -> Result<Arc<dyn Engine>, EngineError> {
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

    fn ends_in_order(&self) {
        if self.no_sync && !self.is_in_doubt() {
            // If it fails the mark stays, and the next start reads everything.
            let _ = self.settle().and_then(|()| self.remove_mark());
        }
    }

    fn retire(&self) {
        if let Some(place) = &self.place {
            place.retired.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for LmdbEngine {
    fn drop(&mut self) {
        self.ends_in_order();
        if let Some(place) = self.place.as_ref().filter(|place| place.retired.load(Ordering::Relaxed)) {
            give_back(&self.notes.lock().file);
            place.directory.remove(&self.path);
        }
    }
}

impl LmdbEngine {
    fn data(&self) -> PathBuf {
        self.path.join(DATA_FILE)
    }

    fn found<T>(&self, found: Found<T>) -> Result<T, EngineError> {
        found.map_err(|fault| damaged(&self.data(), &fault))
    }

    fn pages(&self, last_page: u64) -> Pages<'_> {
        Pages { map: &self.map, page_size: self.page_size, last_page, seen: &self.seen, check: self.check }
    }

    /// The state after `transaction`, which a read transaction keeps; `None`: its meta page tells of a later one, or may
    /// be about to.
    fn state_of(&self, transaction: u64) -> Result<Option<State>, EngineError> {
        let newest = *self.newest.read();
        if newest.transaction == transaction {
            return Ok(Some(newest));
        }
        let page = self.found(self.meta_page(transaction % 2))?;
        // The next commit but one writes that page, and nobody does before the next one is through.
        if self.env.info().last_txn_id as u64 != transaction {
            return Ok(None);
        }
        let meta = self.found(Meta::parse(transaction % 2, &page))?;
        if meta.transaction != transaction {
            return Ok(None);
        }
        self.found(self.state(&meta)).map(Some)
    }

    /// A copy of meta page `number`, which a commit may be writing.
    fn meta_page(&self, number: u64) -> Found<Vec<u8>> {
        let page = self.map.moving(number * self.page_size as u64, self.page_size);
        page.map_or_else(|| fault(number, "is cut"), Ok)
    }

    /// Meta page `number`, by the only one who writes it.
    fn meta(&self, number: u64) -> Found<(Meta, Vec<u8>)> {
        let page = self.meta_page(number)?;
        Ok((Meta::parse(number, &page)?, page))
    }

    /// Where the tables of the state of `meta` begin.
    fn state(&self, meta: &Meta) -> Found<State> {
        let mut tables = [EMPTY; Table::ALL.len()];
        // The list of tables has no checksums of records.
        let pages = Pages { check: None, ..self.pages(meta.last_page) };
        for table in Table::ALL {
            let node = pages.node(&meta.main, table.name().as_bytes())?;
            let Some(tree) = node.and_then(|node| node.tree()) else {
                return fault(meta.main.root, format!("does not name the table {}", table.name()));
            };
            tables[table.slot()] = tree;
        }
        Ok(State { transaction: meta.transaction, last_page: meta.last_page, tables })
    }

    /// Notes what the newest commit has left, for the next start, and where its tables begin, for readers.
    fn leave_note(&self) -> Result<(), EngineError> {
        let mut notes = self.notes.lock();
        let metas = [self.found(self.meta(0))?, self.found(self.meta(1))?];
        let (meta, page) = metas.iter().max_by_key(|(meta, _)| meta.transaction).unwrap_or(&metas[0]);
        if meta.transaction == self.newest.read().transaction {
            return Ok(());
        }
        let state = self.found(self.state(meta))?;
        if notes.noted != meta.transaction {
            let before = notes.summer.known();
            let checksum = self.found(notes.summer.sum(self.pages(meta.last_page), meta, page))?;
            // Some of these hold something else now. No reader can still reach what was there.
            before.free().iter().for_each(|page| self.seen.forget(*page));
            let note = Note { transaction: meta.transaction, checksum };
            let io = |source| EngineError::Io { path: self.data(), action: "note a commit", source };
            note.write(&notes.file, self.page_size).map_err(io)?;
            notes.noted = meta.transaction;
        }
        *self.newest.write() = state;
        Ok(())
    }

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
    state: State,
    /// Keeps LMDB from using the pages of the state again.
    _txn: RoTxn<'e, WithTls>,
}

impl Drop for LmdbRead<'_> {
    fn drop(&mut self) {
        self.engine.open_reads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ReadTxn for LmdbRead<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, EngineError> {
        let pages = self.engine.pages(self.state.last_page);
        self.engine.found(pages.get(&self.state.tables[table.slot()], key))
    }

    fn get_each<'t>(
        &'t self,
        table: Table,
        keys: &[&[u8]],
        found: &mut Vec<Option<&'t [u8]>>,
    ) -> Result<(), EngineError> {
        let pages = self.engine.pages(self.state.last_page);
        self.engine.found(many::get_each(pages, &self.state.tables[table.slot()], keys, found))
    }

    fn scan<'t>(
        &'t self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Box<dyn Cursor<'t> + 't>, EngineError> {
        let pages = self.engine.pages(self.state.last_page);
        let walk = self.engine.found(Walk::new(pages, &self.state.tables[table.slot()], from, to))?;
        Ok(Box::new(LmdbCursor { engine: self.engine, walk }))
    }

    fn last(&self, table: Table) -> Result<Option<Pair<'_>>, EngineError> {
        let pages = self.engine.pages(self.state.last_page);
        self.engine.found(pages.last(&self.state.tables[table.slot()]))
    }
}

struct LmdbCursor<'t> {
    engine: &'t LmdbEngine,
    walk: Walk<'t>,
}

impl<'t> Cursor<'t> for LmdbCursor<'t> {
    fn next(&mut self) -> Result<Option<Pair<'t>>, EngineError> {
        self.engine.found(self.walk.next())
    }
}

struct LmdbWrite<'e> {
    engine: &'e LmdbEngine,
    txn: RwTxn<'e>,
    /// What the transaction began with: pages that it has not changed are still those.
    committed: State,
    looked: RefCell<Looked>,
    lasts: RefCell<Lasts<'e>>,
    /// Tables whose end has been looked at, a bit each.
    appended: u32,
}

/// What a transaction has looked at last: keys that are changed in their order lie on the same leaf many times over.
#[derive(Default)]
struct Lasts<'e> {
    /// Of each table between which keys its last leaf lies, and whether the pages beside it were looked at too.
    leaves: [Option<(Fence<'e>, bool)>; Table::ALL.len()],
    /// Leaves that were met, those of each visit.
    met: usize,
}

impl LmdbWrite<'_> {
    /// Looks at the pages that LMDB is about to change: it would carry what is wrong with them on into new ones.
    fn look_at(&self, table: Table, key: &[u8], beside: bool) -> Result<(), EngineError> {
        let lasts = &mut self.lasts.borrow_mut();
        let last = &lasts.leaves[table.slot()];
        if last.is_some_and(|(fence, both)| fence.holds(key) && (both || !beside)) {
            return Ok(());
        }
        let pages = self.engine.pages(self.committed.last_page);
        let looked = &mut self.looked.borrow_mut();
        let fence = self.engine.found(pages.look_at(&self.committed.tables[table.slot()], key, beside, looked))?;
        lasts.leaves[table.slot()] = Some((fence, beside));
        lasts.met += 1;
        Ok(())
    }
}

impl WriteTxn for LmdbWrite<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, EngineError> {
        self.look_at(table, key, false)?;
        self.engine.tables[table.slot()].get(&self.txn, key).map_err(|e| self.engine.error("get")(e))
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.look_at(table, key, false)?;
        self.engine.tables[table.slot()].put(&mut self.txn, key, value).map_err(|e| self.engine.error("put")(e))
    }

    fn append(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        if self.appended & 1 << table.slot() == 0 {
            self.look_at(table, key, false)?;
            self.appended |= 1 << table.slot();
        }
        let table = self.engine.tables[table.slot()];
        table.put_with_flags(&mut self.txn, PutFlags::APPEND, key, value).map_err(|e| self.engine.error("append")(e))
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, EngineError> {
        // Leaves that have become too empty are merged with the next.
        self.look_at(table, key, true)?;
        self.engine.tables[table.slot()].delete(&mut self.txn, key).map_err(|e| self.engine.error("delete")(e))
    }

    fn pages_met(&self) -> usize {
        self.lasts.borrow().met
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
        })?;
        engine.leave_note()
    }
}

#[cfg(test)]
#[path = "lmdb/damage_test.rs"]
mod damage_test;
