//! Where engines live: numbered directories, and a file that names the one that counts.
//!
//! ```text
//!   store/CURRENT     "7\n": store/7/ is the store. Replaced by rename, so it names one or the other, never half
//!   store/7/          an engine's files
//!   store/8/          being filled: by defragmentation, by a received snapshot. Not the store until CURRENT says so
//!   store/BALLAST     space set aside, given up when the disk is full
//!   store/SUSPECT     a sync failed: what store/7/ holds on disk is unknown
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use milepost_env::{Disk, Open};
use parking_lot::Mutex;

use crate::EngineError;

const CURRENT: &str = "CURRENT";
const CURRENT_TMP: &str = "CURRENT.tmp";
const SUSPECT: &str = "SUSPECT";
const BALLAST: &str = "BALLAST";

/// The directory `store/`, opened. The caller guards it against other processes.
pub struct StoreDirectory {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    current: AtomicU64,
    /// The ballast is there.
    ballast: Mutex<bool>,
}

impl StoreDirectory {
    /// Opens `root`, or makes it with an empty first engine directory. What `CURRENT` does not name is removed.
    ///
    /// # Errors
    /// If the disk fails, or if there are engine directories but nothing says which of them counts.
    pub fn open(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, EngineError> {
        let io = |action| move |source| EngineError::Io { path: root.to_owned(), action, source };
        if !disk.exists(root) {
            make_durably(&*disk, root).map_err(io("create directory"))?;
        }
        let numbers = numbers(&*disk, root).map_err(io("list"))?;
        let named = read_current(&*disk, root).map_err(io("read CURRENT"))?;
        let current = AtomicU64::new(named.unwrap_or(1));
        let directory = Self { disk, root: root.to_owned(), current, ballast: Mutex::new(false) };
        match named {
            Some(current) if numbers.contains(&current) => directory.remove_others().map_err(io("remove old store"))?,
            Some(current) => {
                return Err(EngineError::Layout {
                    path: root.to_owned(),
                    what: format!("CURRENT names {current}, which is not there"),
                });
            }
            None => {
                if let Some(number) = numbers.iter().find(|number| directory.is_filled(**number)) {
                    let what =
                        format!("there is a store in {number} but no CURRENT; write its number there if it is the one");
                    return Err(EngineError::Layout { path: root.to_owned(), what });
                }
                directory.make(1).and_then(|()| directory.point_at(1)).map_err(io("create first store"))?;
            }
        }
        Ok(directory)
    }

    fn is_filled(&self, number: u64) -> bool {
        self.disk.list(&self.path_of(number)).is_ok_and(|names| !names.is_empty())
    }

    /// The directory `store/` itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The engine directory that counts.
    #[must_use]
    pub fn current(&self) -> PathBuf {
        self.path_of(self.number())
    }

    fn number(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.root.join(number.to_string())
    }

    /// Makes an empty engine directory to be filled and then made to count by [`StoreDirectory::flip`]. What an
    /// earlier attempt left there is removed.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn make_next(&self) -> Result<PathBuf, EngineError> {
        let path = self.path_of(self.number() + 1);
        let made = if self.disk.exists(&path) { self.disk.remove_dir_all(&path) } else { Ok(()) };
        made.and_then(|()| self.make(self.number() + 1)).map_err(|source| self.error("create next store", source))?;
        Ok(path)
    }

    /// Makes the directory of [`StoreDirectory::make_next`], whose contents the caller has synced, the one that counts.
    /// The one before is removed at the next open: readers may still be in it.
    ///
    /// # Errors
    /// If the disk fails: then either may count after a crash.
    pub fn flip(&self) -> Result<(), EngineError> {
        let next = self.number() + 1;
        self.point_at(next).map_err(|source| self.error("flip CURRENT", source))?;
        self.current.store(next, Ordering::Relaxed);
        let suspect = self.root.join(SUSPECT);
        let cleared = if self.disk.exists(&suspect) { self.disk.remove_file(&suspect) } else { Ok(()) };
        cleared.and_then(|()| self.disk.sync_dir(&self.root)).map_err(|source| self.error("remove SUSPECT", source))
    }

    /// Notes that what the current directory holds on disk is unknown.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn condemn(&self, why: &str) -> Result<(), EngineError> {
        self.write_whole(&self.root.join(SUSPECT), why.as_bytes()).map_err(|source| self.error("write SUSPECT", source))
    }

    /// Why the current directory must not be used as it is; `None`: it is sound.
    #[must_use]
    pub fn suspect(&self) -> Option<String> {
        let path = self.root.join(SUSPECT);
        if !self.disk.exists(&path) {
            return None;
        }
        let why = read_whole(&*self.disk, &path).ok().map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        Some(why.unwrap_or_else(|| "a sync failed".to_owned()))
    }

    /// Removes an engine directory that no longer counts.
    pub(crate) fn remove(&self, path: &Path) {
        // What stays behind is removed at the next open.
        let _ = self.disk.remove_dir_all(path);
    }

    /// Sets `bytes` of disk space aside, unless they are already; false if the disk has no room for them.
    pub(crate) fn take_ballast(&self, bytes: u64) -> bool {
        let mut whole = self.ballast.lock();
        if !*whole {
            let opened = self.disk.open(&self.root.join(BALLAST), Open::CreateOrTruncate);
            *whole = opened.and_then(|mut file| file.allocate(0, bytes)).is_ok();
            if !*whole {
                self.remove_ballast();
            }
        }
        *whole
    }

    /// Gives the space set aside back to the disk.
    pub(crate) fn drop_ballast(&self) {
        *self.ballast.lock() = false;
        self.remove_ballast();
    }

    fn remove_ballast(&self) {
        // Nothing depends on its being gone: if it is not, the commit that needs the room fails and says so.
        let _ = self.disk.remove_file(&self.root.join(BALLAST));
    }

    fn make(&self, number: u64) -> io::Result<()> {
        self.disk.create_dir_all(&self.path_of(number))?;
        self.disk.sync_dir(&self.root)
    }

    fn point_at(&self, number: u64) -> io::Result<()> {
        let tmp = self.root.join(CURRENT_TMP);
        self.write_whole(&tmp, format!("{number}\n").as_bytes())?;
        self.disk.rename(&tmp, &self.root.join(CURRENT))?;
        self.disk.sync_dir(&self.root)
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.disk.open(path, Open::CreateOrTruncate)?;
        file.write_at(bytes, 0)?;
        file.sync_all()?;
        self.disk.sync_dir(&self.root)
    }

    fn remove_others(&self) -> io::Result<()> {
        for number in numbers(&*self.disk, &self.root)? {
            if number != self.number() {
                self.disk.remove_dir_all(&self.path_of(number))?;
            }
        }
        self.disk.sync_dir(&self.root)
    }

    fn error(&self, action: &'static str, source: io::Error) -> EngineError {
        EngineError::Io { path: self.root.clone(), action, source }
    }
}

/// Makes `root` and its missing parents, so that a power loss cannot take back the way to what is written there.
fn make_durably(disk: &dyn Disk, root: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !disk.exists(path);
    let missing: Vec<_> = root.ancestors().take_while(is_missing).collect();
    disk.create_dir_all(root)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        disk.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    Ok(())
}

/// Engine directories in `root`.
fn numbers(disk: &dyn Disk, root: &Path) -> io::Result<Vec<u64>> {
    Ok(disk.list(root)?.iter().filter_map(|name| name.parse().ok()).collect())
}

fn read_current(disk: &dyn Disk, root: &Path) -> io::Result<Option<u64>> {
    let path = root.join(CURRENT);
    if !disk.exists(&path) {
        return Ok(None);
    }
    let bytes = read_whole(disk, &path)?;
    let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "CURRENT holds no number"))
}

/// A small file, whole.
fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?.min(4096)];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use milepost_env::SimDisk;

    use super::*;

    const ROOT: &str = "member/store";

    fn open(disk: &Arc<SimDisk>) -> Result<StoreDirectory, EngineError> {
        StoreDirectory::open(disk.clone(), Path::new(ROOT))
    }

    fn fill(disk: &SimDisk, path: &Path) {
        let mut file = disk.open(&path.join("data"), Open::CreateOrTruncate).expect("open");
        file.write_at(b"x", 0).and_then(|()| file.sync_all()).and_then(|()| disk.sync_dir(path)).expect("write");
    }

    #[test]
    fn the_flip_is_all_or_nothing() {
        for seed in 0..50 {
            let disk = Arc::new(SimDisk::new(seed));
            let directory = open(&disk).expect("open");
            fill(&disk, &directory.current());
            let next = directory.make_next().expect("make");
            fill(&disk, &next);
            if seed % 2 == 0 {
                directory.flip().expect("flip");
            }
            disk.crash(seed);
            let directory = open(&disk).expect("open again");
            let expected = if seed % 2 == 0 { "2" } else { "1" };
            assert_eq!(directory.current(), Path::new(ROOT).join(expected));
            assert!(directory.is_filled(expected.parse().expect("a number")));
            let left = disk.list(Path::new(ROOT)).expect("list");
            assert_eq!(left.iter().filter(|name| name.parse::<u64>().is_ok()).count(), 1, "{left:?}");
        }
    }

    #[test]
    fn a_store_that_nothing_names_is_not_overwritten() {
        let disk = Arc::new(SimDisk::new(1));
        let directory = open(&disk).expect("open");
        fill(&disk, &directory.current());
        disk.remove_file(&Path::new(ROOT).join(CURRENT)).expect("remove");
        let refused = open(&disk).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|text| text.contains("no CURRENT")));
    }

    #[test]
    fn suspicion_stays_until_another_store_counts() {
        let disk = Arc::new(SimDisk::new(1));
        open(&disk).expect("open").condemn("sync failed").expect("condemn");
        let directory = open(&disk).expect("open again");
        assert_eq!(directory.suspect().as_deref(), Some("sync failed"));
        directory.make_next().expect("make");
        directory.flip().expect("flip");
        assert_eq!(directory.suspect(), None);
    }
}
