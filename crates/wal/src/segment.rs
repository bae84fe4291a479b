//! A segment's file while it is written: locked, with its space reserved ahead.

use std::io;
use std::path::{Path, PathBuf};

use milepost_env::{Disk, File, Lock, Open};

use crate::error::{WalError, is_full};
use crate::name::SegmentName;

/// By how much a segment that is already full is extended when an append needs more, to spare a call per append.
const EXTEND_BYTES: u64 = 1 << 20;

/// A segment's file, locked.
pub(crate) struct Segment {
    pub name: SegmentName,
    pub path: PathBuf,
    pub file: Box<dyn File>,
    /// Bytes that the file system has reserved, from the start.
    pub allocated: u64,
    pub lock: Box<dyn Lock>,
}

impl Segment {
    /// Makes a file of `bytes` zeros at `path`, locked.
    pub(crate) fn allocate(disk: &dyn Disk, name: SegmentName, path: PathBuf, bytes: u64) -> Result<Self, WalError> {
        let created = disk.open(&path, Open::CreateOrTruncate);
        let file = created.map_err(|error| no_space_or_disk("create", &path, bytes, error))?;
        let lock = lock(disk, &path)?;
        let mut segment = Self { name, path, file, allocated: 0, lock };
        match segment.file.allocate(0, bytes) {
            Ok(()) => {
                segment.allocated = bytes;
                Ok(segment)
            }
            Err(error) => {
                // A half-reserved file would only make the shortage worse; that it cannot be removed changes nothing.
                let _ = disk.remove_file(&segment.path);
                Err(no_space_or_disk("reserve space for", &segment.path, bytes, error))
            }
        }
    }

    /// Reserves space up to `end` if there is some to be had; true if the file may have changed.
    pub(crate) fn reserve(&mut self, end: u64) -> Result<bool, WalError> {
        if end <= self.allocated {
            return Ok(false);
        }
        match self.file.allocate(self.allocated, end - self.allocated) {
            Ok(()) => self.allocated = end,
            Err(error) if is_full(&error) => {}
            Err(error) => return Err(WalError::disk("reserve space for", &self.path, error)),
        }
        Ok(true)
    }

    /// Reserves space up to `end`, or fails with the log unchanged.
    pub(crate) fn reserve_for(&mut self, end: u64) -> Result<(), WalError> {
        if end <= self.allocated {
            return Ok(());
        }
        for more in [EXTEND_BYTES, 0] {
            match self.file.allocate(self.allocated, end + more - self.allocated) {
                Ok(()) => {
                    self.allocated = end + more;
                    return Ok(());
                }
                Err(error) if more == 0 => {
                    return Err(no_space_or_disk("reserve space for", &self.path, end - self.allocated, error));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }
}

fn no_space_or_disk(action: &'static str, path: &Path, bytes: u64, error: io::Error) -> WalError {
    if is_full(&error) {
        WalError::NoSpace { path: path.to_owned(), bytes, source: error }
    } else {
        WalError::disk(action, path, error)
    }
}

/// Takes a segment's lock.
pub(crate) fn lock(disk: &dyn Disk, path: &Path) -> Result<Box<dyn Lock>, WalError> {
    let lock = disk.try_lock(path).map_err(|error| WalError::disk("lock", path, error))?;
    lock.ok_or_else(|| WalError::Locked { path: path.to_owned() })
}
