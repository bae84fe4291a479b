//! A disk in memory that loses power.
//!
//! Same seed, same calls: the same bytes, errors and crashes. Nothing here waits; slow disks are the simulator's own
//! business, which decides when a call is made.

mod content;
mod fault;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::disk::{Disk, File, Lock, Open, SECTOR_BYTES};
use crate::rng::SeededRng;
use fault::Plan;
pub use fault::{Counts, CrashReport, Fault};
use tree::{Inode, Tree};

/// A disk in memory. Clones are handles to the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Clone, Debug)]
struct State {
    tree: Tree,
    rng: SeededRng,
    plan: Plan,
    counts: Counts,
    /// Bytes that fit; `None`: no end.
    capacity: Option<u64>,
    /// How many handles each open file has.
    open: BTreeMap<Inode, u64>,
    /// Files whose lock is held.
    locked: BTreeSet<Inode>,
    /// Counts power cuts; handles of an earlier life are dead.
    life: u64,
    /// Between the cut and [`SimDisk::crash`] every call fails.
    power_is_off: bool,
    /// Syncs of files succeed and do nothing.
    ignores_syncs: bool,
}

impl SimDisk {
    /// An empty disk. The seed decides what failing calls leave behind; each crash brings a seed of its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            tree: Tree::new(),
            rng: SeededRng(seed),
            plan: Plan::default(),
            counts: Counts::default(),
            capacity: None,
            open: BTreeMap::new(),
            locked: BTreeSet::new(),
            life: 0,
            power_is_off: false,
            ignores_syncs: false,
        })))
    }

    /// A second disk that holds what this one holds, unsynced parts included: to try several crashes from one point.
    /// Locks are not carried over.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.0.lock().clone();
        state.locked.clear();
        state.open.clear();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The power goes and comes back: keeps or drops everything that was not synced, as `seed` says. Open files and
    /// locks die; planned faults are forgotten.
    pub fn crash(&self, seed: u64) -> CrashReport {
        let mut state = self.0.lock();
        let mut report = CrashReport::default();
        state.tree.crash(&mut SeededRng(seed), &mut report);
        state.plan = Plan::default();
        state.locked.clear();
        state.open.clear();
        state.life += 1;
        state.power_is_off = false;
        state.counts.crashes += 1;
        report
    }

    /// The power goes during the change after `changes` more ([`Counts::changes`]): that change may or may not be
    /// there after [`SimDisk::crash`], a sync has not happened, and every call from then on fails.
    pub fn cut_power_after(&self, changes: u64) {
        self.0.lock().plan.changes_left = Some(changes);
    }

    /// Has [`SimDisk::cut_power_after`] struck?
    #[must_use]
    pub fn power_is_off(&self) -> bool {
        self.0.lock().power_is_off
    }

    /// From now on syncs of files succeed and do nothing, or are done again: a disk that lies. For tests that must find that
    /// out.
    pub fn ignore_syncs(&self, ignore: bool) {
        self.0.lock().ignores_syncs = ignore;
    }

    /// Makes the `nth` call of that kind from now fail; 1 is the next one.
    pub fn fail(&self, fault: Fault, nth: u64, error: io::ErrorKind) {
        self.0.lock().plan.add(fault, nth, error);
    }

    /// Bytes that fit on the disk from now on. Less than is already taken is allowed: nothing more fits then.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    /// Turns one bit of a file over, on the platter: what a bad disk does. `bit` counts from the file's first byte.
    ///
    /// # Errors
    /// If there is no such file or it is shorter.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let inode = state.tree.find(path)?;
        let content = state.tree.content_mut(inode)?;
        let mut byte = [0];
        if content.read(&mut byte, bit / 8) == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        byte[0] ^= 1 << (bit % 8);
        content.write(&byte, bit / 8);
        content.sync();
        Ok(())
    }

    /// The state, if the power is on.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.0.lock();
        if state.power_is_off { Err(no_power()) } else { Ok(state) }
    }
}

/// What becomes of a call.
enum Fate {
    Happens,
    /// It happens, but the power is gone before anybody hears of it.
    LastOfThisLife,
    Fails(io::Error),
}

impl State {
    /// Counts one change of kind `fault` and tells its fate.
    fn fate(&mut self, fault: Fault) -> Fate {
        match fault {
            Fault::Write => self.counts.writes += 1,
            Fault::Sync => self.counts.syncs += 1,
            Fault::Allocate => self.counts.allocations += 1,
            Fault::Name => self.counts.names += 1,
            Fault::SyncDir => self.counts.dir_syncs += 1,
            Fault::Read => self.counts.reads += 1,
        }
        if let Some(left) = &mut self.plan.changes_left
            && fault != Fault::Read
        {
            if *left == 0 {
                self.power_is_off = true;
                return Fate::LastOfThisLife;
            }
            *left -= 1;
        }
        match self.plan.take(fault) {
            Some(kind) => {
                self.counts.faults += 1;
                Fate::Fails(kind.into())
            }
            None => Fate::Happens,
        }
    }

    /// A change of names: it happens, or fails without a trace.
    fn change_names<T>(&mut self, change: impl FnOnce(&mut Tree) -> io::Result<T>) -> io::Result<T> {
        match self.fate(Fault::Name) {
            Fate::Happens => change(&mut self.tree),
            Fate::LastOfThisLife => change(&mut self.tree).and(Err(no_power())),
            Fate::Fails(error) => Err(error),
        }
    }

    /// Is there room for `inode` to reach `end`?
    fn check_room(&mut self, inode: Inode, end: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let more = end.saturating_sub(self.tree.content(inode)?.allocated());
        if more > 0 && self.tree.allocated() + more > capacity {
            self.counts.faults += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

/// About half of `len` bytes at `offset`, so that they end at a sector's end; 0 if there is none in between.
fn half(len: u64, offset: u64) -> u64 {
    let middle = offset + len / 2;
    (middle - middle % SECTOR_BYTES).saturating_sub(offset)
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state()?.change_names(|tree| tree.create_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.state()?.tree.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().is_ok_and(|state| state.tree.find(path).is_ok())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let mut state = self.state()?;
        let found = state.tree.find(path);
        let inode = match (how, found) {
            (Open::Create, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::Create | Open::CreateOrTruncate, Err(_)) => state.change_names(|tree| tree.create_file(path))?,
            (Open::CreateOrTruncate, Ok(inode)) => {
                state.tree.content_mut(inode)?.set_len(0);
                inode
            }
            (Open::Read | Open::ReadWrite, found) => found?,
        };
        state.tree.content(inode)?;
        *state.open.entry(inode).or_default() += 1;
        Ok(Box::new(SimFile { disk: self.clone(), inode, life: state.life, writable: how != Open::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state()?.change_names(|tree| tree.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.state()?.change_names(|tree| tree.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state()?.change_names(|tree| tree.remove_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        match state.fate(Fault::SyncDir) {
            Fate::Happens => {
                let State { tree, open, .. } = &mut *state;
                tree.sync_dir(path)?;
                tree.forget_nameless(open);
                Ok(())
            }
            Fate::LastOfThisLife => Err(no_power()),
            Fate::Fails(error) => Err(error),
        }
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state()?;
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.tree.allocated())))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let mut state = self.state()?;
        let inode = match state.tree.find(path) {
            Ok(inode) => inode,
            Err(_) => state.change_names(|tree| tree.create_file(path))?,
        };
        let life = state.life;
        let taken = state.locked.insert(inode);
        Ok(taken.then(|| Box::new(SimLock { disk: self.clone(), inode, life }) as Box<dyn Lock>))
    }
}

struct SimLock {
    disk: SimDisk,
    inode: Inode,
    life: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        if state.life == self.life {
            state.locked.remove(&self.inode);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    inode: Inode,
    life: u64,
    writable: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        if state.life == self.life
            && let Some(handles) = state.open.get_mut(&self.inode)
        {
            *handles -= 1;
            if *handles == 0 {
                state.open.remove(&self.inode);
            }
        }
    }
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state()?;
        if state.life == self.life {
            Ok(state)
        } else {
            Err(io::Error::other("the file was open before the power cut"))
        }
    }

    fn writable_state(&self) -> io::Result<MutexGuard<'_, State>> {
        if self.writable { self.state() } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut guard = self.state()?;
        let state = &mut *guard;
        match state.fate(Fault::Sync) {
            Fate::Happens if state.ignores_syncs => {}
            Fate::Happens => state.tree.content_mut(self.inode)?.sync(),
            Fate::LastOfThisLife => return Err(no_power()),
            Fate::Fails(error) => {
                state.tree.content_mut(self.inode)?.fail_sync(&mut state.rng);
                return Err(error);
            }
        }
        Ok(())
    }

    fn resize(&self, end: Option<u64>, change: impl FnOnce(&mut content::Content)) -> io::Result<()> {
        let mut state = self.writable_state()?;
        match state.fate(Fault::Allocate) {
            Fate::Fails(error) => Err(error),
            fate => {
                if let Some(end) = end {
                    state.check_room(self.inode, end)?;
                }
                change(state.tree.content_mut(self.inode)?);
                if matches!(fate, Fate::Happens) { Ok(()) } else { Err(no_power()) }
            }
        }
    }
}

impl File for SimFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        match state.fate(Fault::Read) {
            Fate::Fails(error) => Err(error),
            _ => Ok(state.tree.content(self.inode)?.read(into, offset)),
        }
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.writable_state()?;
        state.counts.bytes_written += bytes.len() as u64;
        let fate = state.fate(Fault::Write);
        state.check_room(self.inode, offset + bytes.len() as u64)?;
        let content = state.tree.content_mut(self.inode)?;
        match fate {
            Fate::Happens => content.write(bytes, offset),
            Fate::LastOfThisLife => {
                content.write(bytes, offset);
                return Err(no_power());
            }
            Fate::Fails(error) => {
                content.write(&bytes[..half(bytes.len() as u64, offset) as usize], offset);
                return Err(error);
            }
        }
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.resize(None, |content| content.set_len(len))
    }

    fn allocate(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.resize(Some(offset + len), |content| content.allocate(offset + len))
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        self.state()?.tree.content_mut(self.inode)?.forget_cached();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.tree.content(self.inode)?.len())
    }
}
