//! Files and directories.

use std::io;
use std::path::Path;

/// What a disk writes whole or not at all, in bytes. Disks promise at least this; etcd's torn-write rule counts on it.
pub const SECTOR_BYTES: u64 = 512;

/// How [`Disk::open`] treats the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Must exist; writing fails.
    Read,
    /// Must exist.
    ReadWrite,
    /// Must not exist; created with mode 0600.
    Create,
    /// Created with mode 0600, or emptied.
    CreateOrTruncate,
}

/// A tree of files. Paths are absolute or relative to the working directory.
///
/// Calls block. Errors are the kernel's, unchanged: `NotFound`, `AlreadyExists`, `StorageFull` and so on.
pub trait Disk: Send + Sync + 'static {
    /// Makes `path` and its missing parents, mode 0700. Nothing is synced.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Names in the directory `path`, sorted by their bytes. Names that are not UTF-8 are left out: none is ours.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Is there a file or directory at `path`? An unreadable parent counts as no.
    fn exists(&self, path: &Path) -> bool;

    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>>;

    /// Moves a file or directory, replacing a file or an empty directory at `to`. Atomic; durable after
    /// [`Disk::sync_dir`] of the directories concerned.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and everything in it. Not atomic.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in the directory `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that an unprivileged process may still allocate on the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Takes the exclusive lock of the file `path`, creating the file if need be; `None` if somebody, this process
    /// included, holds it. Held until the value is dropped or the process ends. Follows the file when it is renamed.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;
}

/// An open file. Positions and lengths are bytes from its start.
pub trait File: Send {
    /// Reads at `offset` into `into`; returns how many bytes came, fewer than asked only at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file if need be. On an error any part may have been written.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros without reserving space.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Reserves space for `offset..offset + len`: the file is at least that long, reads as zeros where nothing was
    /// written, and writing there cannot fail for want of space. Where the file system cannot reserve, extends only.
    fn allocate(&mut self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes the bytes durable, and the length if it changed.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Makes bytes and attributes durable.
    fn sync_all(&mut self) -> io::Result<()>;

    /// Drops cached pages that the kernel believes clean, so that the next read shows what the disk holds. Sync first:
    /// bytes not synced yet stay cached. A hint on file systems without such a call.
    fn forget_cached(&mut self) -> io::Result<()>;

    /// From here on everything reads as zeros: spares reading what was reserved and never written. A file system that
    /// keeps no account of that says the length. Cached pages may count as written, so ask before reading.
    fn data_end(&self) -> io::Result<u64> {
        self.len()
    }

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Is the file empty?
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// An exclusive lock, held until dropped.
pub trait Lock: Send + Sync {}
