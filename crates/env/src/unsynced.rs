//! A disk that is never waited for: `--unsafe-no-fsync`.

use std::io;
use std::path::Path;

use crate::disk::{Disk, File, Lock, Open};

/// `D`, with every sync left out. What was written before a power cut may be lost, whatever was said about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsynced<D>(pub D);

struct UnsyncedFile(Box<dyn File>);

impl<D: Disk> Disk for Unsynced<D> {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        Ok(Box::new(UnsyncedFile(self.0.open(path, how)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir_all(path)
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.0.try_lock(path)
    }
}

impl File for UnsyncedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.0.allocate(offset, len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        self.0.forget_cached()
    }

    fn data_end(&self) -> io::Result<u64> {
        self.0.data_end()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SimDisk;

    #[test]
    fn no_sync_reaches_the_disk_below() {
        let below = SimDisk::new(1);
        let path = Path::new("/d/f");
        {
            let disk = Unsynced(below.clone());
            disk.create_dir_all(Path::new("/d")).unwrap();
            let mut file = disk.open(path, Open::Create).unwrap();
            file.write_at(b"x", 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
        }
        let counts = below.counts();
        assert_eq!((counts.writes, counts.syncs, counts.dir_syncs), (1, 0, 0));
    }
}
