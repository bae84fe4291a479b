//! The file, mapped a second time and read only: what LMDB writes appears here, since the system keeps one copy.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// See the module.
pub(super) struct Map {
    base: *mut core::ffi::c_void,
    len: usize,
    file: File,
    /// The file is at least that long. It never shrinks.
    file_len: AtomicU64,
}

#[expect(unsafe_code, reason = "the mapping is shared memory that nobody here writes")]
// SAFETY: the mapping lives as long as the value and is only read.
unsafe impl Send for Map {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the file at `path` with address space for it to grow to `len` bytes.
    #[expect(unsafe_code, reason = "mapping a file")]
    pub fn open(path: &Path, len: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        let file_len = file.metadata()?.len();
        let len = len.max(usize::try_from(file_len).map_err(io::Error::other)?).max(1);
        // SAFETY: a new mapping at an address of the system's choice touches nobody's memory.
        let base = unsafe {
            mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED | MapFlags::NORESERVE, &file, 0)
        }?;
        Ok(Self { base, len, file, file_len: AtomicU64::new(file_len) })
    }

    pub fn file_len(&self) -> u64 {
        self.file_len.load(Ordering::Relaxed)
    }

    /// `len` bytes from `offset` on; `None`: the file is not that long.
    #[expect(unsafe_code, reason = "reading a mapped file")]
    pub fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let end = offset.checked_add(len as u64)?;
        if end > self.len as u64 || (end > self.file_len() && end > self.measure()) {
            return None;
        }
        // SAFETY: the range lies inside the mapping and inside the file, which never shrinks while its owner's lock is
        // held. Nobody writes there while it is read: LMDB leaves pages alone that an open read transaction can reach, and
        // whoever reads others copies them and asks afterwards whether they stood still.
        Some(unsafe { std::slice::from_raw_parts(self.base.cast::<u8>().add(offset as usize), len) })
    }

    /// A copy of `len` bytes from `offset` on, both multiples of eight, which may be written meanwhile: words of before and
    /// after may be mixed in it, as they were read, and the compiler takes no two reads for one. `None`: the file is not
    /// that long.
    #[expect(unsafe_code, reason = "reading what another thread may write")]
    pub fn moving(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        assert!(offset.is_multiple_of(8) && len.is_multiple_of(8), "words");
        let end = offset.checked_add(len as u64)?;
        if end > self.len as u64 || (end > self.file_len() && end > self.measure()) {
            return None;
        }
        let mut copy = Vec::with_capacity(len);
        for at in (offset as usize..end as usize).step_by(8) {
            // SAFETY: the word lies inside the mapping and inside the file, as in `bytes`; a mapping begins at a page, so it
            // is aligned. No reference to it is made.
            let word = unsafe { self.base.cast::<u8>().add(at).cast::<u64>().read_volatile() };
            copy.extend_from_slice(&word.to_ne_bytes());
        }
        Some(copy)
    }

    fn measure(&self) -> u64 {
        let len = self.file.metadata().map_or(0, |metadata| metadata.len());
        self.file_len.fetch_max(len, Ordering::Relaxed).max(len)
    }
}

impl Drop for Map {
    #[expect(unsafe_code, reason = "unmapping what was mapped")]
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and what was read from it has borrowed the value.
        let _ = unsafe { munmap(self.base, self.len) };
    }
}
