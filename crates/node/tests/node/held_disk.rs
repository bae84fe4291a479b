//! A disk whose syncs can be held, as one that is stuck.

use milepost_env::{Disk, File, Lock, Open, SimDisk};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// The disk below, and what holds the syncs of its files.
pub struct HeldDisk {
    disk: SimDisk,
    hold: Arc<Hold>,
}

#[derive(Default)]
struct Hold(Mutex<Option<(Sender<()>, Receiver<()>)>>);

impl HeldDisk {
    pub fn new(disk: SimDisk) -> Self {
        Self { disk, hold: Arc::default() }
    }

    /// Holds the next sync: the first channel tells that it has begun, and it ends when the second is dropped.
    pub fn hold_next_sync(&self) -> (Receiver<()>, Sender<()>) {
        let ((begun, has_begun), (end, may_end)) = (channel(), channel());
        *self.hold.0.lock().expect("hold") = Some((begun, may_end));
        (has_begun, end)
    }
}

impl Hold {
    fn pass(&self) {
        let held = self.0.lock().expect("hold").take();
        if let Some((begun, may_end)) = held {
            // A test that has failed lets it through.
            let _ = begun.send(());
            let _ = may_end.recv();
        }
    }
}

struct HeldFile {
    file: Box<dyn File>,
    hold: Arc<Hold>,
}

impl Disk for HeldDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        Ok(Box::new(HeldFile { file: self.disk.open(path, how)?, hold: Arc::clone(&self.hold) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.disk.try_lock(path)
    }
}

impl File for HeldFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.hold.pass();
        self.file.sync_data()
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.hold.pass();
        self.file.sync_all()
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        self.file.forget_cached()
    }

    fn data_end(&self) -> io::Result<u64> {
        self.file.data_end()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
