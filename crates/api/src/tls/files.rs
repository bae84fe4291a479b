//! Files that are read again when they change.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which file stood under a name, and since when. Whoever replaces or writes a file changes one of these.
type Stamp = [i64; 7];

fn stamp(meta: &fs::Metadata) -> Stamp {
    [
        meta.dev().cast_signed(),
        meta.ino().cast_signed(),
        meta.size().cast_signed(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ]
}

/// What a part is made from: its files' bytes, in the order of its paths.
type Make<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send>;

/// Something made from files. A file that became unreadable or makes no sense leaves the last good value in force.
pub(super) struct Part<T> {
    paths: Vec<PathBuf>,
    make: Make<T>,
    /// Of the files as they were last read; `None` for one that is not there.
    stamps: Vec<Option<Stamp>>,
    bytes: Vec<Vec<u8>>,
    value: Option<T>,
}

impl<T> Part<T> {
    /// Nothing has been read yet.
    pub(super) fn new(paths: Vec<PathBuf>, make: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + 'static) -> Self {
        Self { stamps: Vec::new(), bytes: Vec::new(), value: None, paths, make: Box::new(make) }
    }

    /// The last good value.
    pub(super) fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Reads the files if one of them is not what it was, or if `is_forced`; true if there is a new value.
    ///
    /// # Errors
    /// What is wrong with which file. Told once, until the file changes again.
    pub(super) fn refresh(&mut self, is_forced: bool) -> Result<bool, String> {
        let stamps: Vec<_> = self.paths.iter().map(|path| fs::metadata(path).ok().as_ref().map(stamp)).collect();
        if stamps == self.stamps && !is_forced {
            return Ok(false);
        }
        // Taken before reading: what is written meanwhile is seen the next time.
        self.stamps = stamps;
        let read = self.paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>();
        let bytes = read.map_err(|(kind, why)| {
            // For want of descriptors, say: the reason may be gone at the next handshake, and a revocation must not be
            // missed. A name or a right that is missing shows in the stamp when it comes.
            if !matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) {
                self.stamps.clear();
            }
            why
        })?;
        if self.value.is_some() && bytes == self.bytes {
            return Ok(false);
        }
        self.value = Some((self.make)(&bytes)?);
        self.bytes = bytes;
        Ok(true)
    }
}

/// Nobody's certificates or revocations are longer; a name that leads to a device must not fill the memory.
const FILE_BYTES_MAX: u64 = 64 << 20;

fn read(path: &Path) -> Result<Vec<u8>, (io::ErrorKind, String)> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|why| (why.kind(), format!("open {}: {}", path.display(), reason(&why))))?;
    Ok(bytes)
}

fn reason(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::PermissionDenied => "permission denied: this user must be able to read it".into(),
        _ => why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_value_outlives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let number =
            |bytes: &[Vec<u8>]| String::from_utf8_lossy(&bytes[0]).parse::<u8>().map_err(|_| "no number".to_owned());
        let mut part = Part::new(vec![path.clone()], number);
        assert!(part.refresh(false).unwrap_err().contains("no such file"));
        assert_eq!(part.refresh(false), Ok(false), "told once");
        fs::write(&path, "7").unwrap();
        assert_eq!((part.refresh(false), part.value()), (Ok(true), Some(&7)));
        assert_eq!(part.refresh(true), Ok(false), "the same bytes");
        fs::write(&path, "seven").unwrap();
        assert_eq!((part.refresh(false), part.value()), (Err("no number".into()), Some(&7)));
        fs::remove_file(&path).unwrap();
        assert!(part.refresh(false).is_err());
        fs::write(&path, "8").unwrap();
        assert_eq!((part.refresh(false), part.value()), (Ok(true), Some(&8)));
    }
}
