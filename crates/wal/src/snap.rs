//! `.snap` files: the Raft snapshot's metadata and whatever bytes the caller puts in it, with a checksum.
//!
//! ```text
//!   TTTTTTTTTTTTTTTT-IIIIIIIIIIIIIIII.snap        term and index, sixteen hex digits each
//!   ┌──────────────┬──────────────┬─────────────────────────┐
//!   │ 08 crc varint│ 12 len varint│ raftpb.Snapshot          │   crc: CRC-32C of the snapshot's bytes alone
//!   └──────────────┴──────────────┴─────────────────────────┘
//! ```
//! A file appears whole or not at all: it is written as `tmp…` and renamed. One that does not read back is renamed
//! `….broken` and never looked at again.
//!
//! Source: etcd `server/etcdserver/api/snap/snapshotter.go`, `snappb/snap.proto`.

use std::path::{Path, PathBuf};

use milepost_env::{Disk, Open};
use milepost_proto::{Message, raftpb, walpb};
use milepost_types::{LogIndex, Term};

use crate::error::WalError;
use crate::name::hex16;

/// Files kept by [`purge`] unless told otherwise. etcd's `--max-snapshots`.
pub const MAX_SNAPSHOTS: usize = 5;

/// A `.snap` file, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapFile {
    /// Term of the last entry that it covers.
    pub term: Term,
    /// Index of that entry.
    pub index: LogIndex,
    /// Where it is.
    pub path: PathBuf,
}

fn file_name(term: u64, index: u64) -> String {
    format!("{term:016x}-{index:016x}.snap")
}

/// Writes `snapshot` into `dir`, durably, under the name of its term and index. Returns where.
///
/// # Errors
/// [`WalError::BadSnapFile`] if it lacks an index or a term; [`WalError::Disk`].
pub fn write(disk: &dyn Disk, dir: &Path, snapshot: &raftpb::Snapshot) -> Result<PathBuf, WalError> {
    Marshalled::new(snapshot)?.write(disk, dir)
}

/// A `.snap` file that is not written yet.
#[derive(Debug)]
pub struct Marshalled {
    name: String,
    bytes: Vec<u8>,
}

impl Marshalled {
    /// The bytes of the file for `snapshot`.
    ///
    /// # Errors
    /// [`WalError::BadSnapFile`] if it lacks an index or a term.
    pub fn new(snapshot: &raftpb::Snapshot) -> Result<Self, WalError> {
        let (index, term) = snapshot.metadata.as_ref().map_or((0, 0), |metadata| (metadata.index(), metadata.term()));
        let name = file_name(term, index);
        if index == 0 || term == 0 {
            let problem = "a snapshot without index or term".to_owned();
            return Err(WalError::BadSnapFile { path: name.into(), problem });
        }
        let data = snapshot.encode_to_vec();
        let crc = crc32c::crc32c(&data);
        Ok(Self { name, bytes: walpb::SnapFile { crc: Some(crc), data: Some(data.into()) }.encode_to_vec() })
    }

    /// Writes the file into `dir`, durably. Returns where.
    ///
    /// # Errors
    /// [`WalError::Disk`].
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<PathBuf, WalError> {
        write_whole(disk, dir, &self.name, &self.bytes)
    }
}

fn write_whole(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, WalError> {
    let path = dir.join(name);
    let temporary = dir.join(format!("tmp{name}"));
    let mut file =
        disk.open(&temporary, Open::CreateOrTruncate).map_err(|error| WalError::disk("create", &temporary, error))?;
    let written = file.write_at(bytes, 0).map_err(|error| WalError::disk("write", &temporary, error));
    let synced = written.and_then(|()| file.sync_all().map_err(|error| WalError::disk("sync", &temporary, error)));
    if let Err(error) = synced {
        // On a full disk it would only be in the way; if it stays, the next purge takes it.
        let _ = disk.remove_file(&temporary);
        return Err(error);
    }
    disk.rename(&temporary, &path).map_err(|error| WalError::disk("rename into place", &path, error))?;
    disk.sync_dir(dir).map_err(|error| WalError::disk("sync", dir, error))?;
    Ok(path)
}

/// Reads one file back.
///
/// # Errors
/// [`WalError::BadSnapFile`] if it is empty, cut, or fails its checksum; [`WalError::Disk`].
pub fn read(disk: &dyn Disk, path: &Path) -> Result<raftpb::Snapshot, WalError> {
    let file = disk.open(path, Open::Read).map_err(|error| WalError::disk("open", path, error))?;
    let len = file.len().map_err(|error| WalError::disk("measure", path, error))?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let read = file.read_at(&mut bytes, 0).map_err(|error| WalError::disk("read", path, error))?;
    bytes.truncate(read);
    decode(bytes).map_err(|problem| WalError::BadSnapFile { path: path.to_owned(), problem })
}

fn decode(bytes: Vec<u8>) -> Result<raftpb::Snapshot, String> {
    let outer =
        walpb::SnapFile::decode(bytes::Bytes::from(bytes)).map_err(|error| format!("no snapshot file: {error}"))?;
    let (Some(stored), Some(data)) = (outer.crc.filter(|&crc| crc != 0), outer.data.filter(|data| !data.is_empty()))
    else {
        return Err("it is empty".to_owned());
    };
    let crc = crc32c::crc32c(&data);
    if crc != stored {
        return Err(format!("checksum {stored:08x} where the data give {crc:08x}"));
    }
    raftpb::Snapshot::decode(data).map_err(|error| format!("no snapshot in it: {error}"))
}

/// The `.snap` files in `dir`, newest first: by term, then by index.
///
/// # Errors
/// [`WalError::Disk`].
pub fn list_newest_first(disk: &dyn Disk, dir: &Path) -> Result<Vec<SnapFile>, WalError> {
    let names = disk.list(dir).map_err(|error| WalError::disk("list", dir, error))?;
    let mut files: Vec<SnapFile> = names.iter().filter_map(|name| parse(dir, name)).collect();
    files.sort_by_key(|file| std::cmp::Reverse((file.term, file.index)));
    Ok(files)
}

fn parse(dir: &Path, name: &str) -> Option<SnapFile> {
    let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
    Some(SnapFile { term: Term(hex16(term)?), index: LogIndex(hex16(index)?), path: dir.join(name) })
}

/// The newest snapshot that `is_valid` admits by term and index, `None` if there is none. Files that do not read back
/// are renamed `.broken` on the way; what was wrong with them is added to `broken`.
///
/// # Errors
/// [`WalError::Disk`].
pub fn newest(
    disk: &dyn Disk,
    dir: &Path,
    is_valid: impl Fn(Term, LogIndex) -> bool,
    broken: &mut Vec<WalError>,
) -> Result<Option<raftpb::Snapshot>, WalError> {
    for file in list_newest_first(disk, dir)? {
        if !is_valid(file.term, file.index) {
            continue;
        }
        match read(disk, &file.path) {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(error @ WalError::BadSnapFile { .. }) => {
                set_aside(disk, dir, &file.path)?;
                broken.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn set_aside(disk: &dyn Disk, dir: &Path, path: &Path) -> Result<(), WalError> {
    let mut broken = path.as_os_str().to_owned();
    broken.push(".broken");
    disk.rename(path, Path::new(&broken)).map_err(|error| WalError::disk("set aside", path, error))?;
    disk.sync_dir(dir).map_err(|error| WalError::disk("sync", dir, error))
}

/// Deletes all but the newest `keep` files, and half-written ones; 0 keeps all. Returns how many it deleted.
///
/// # Errors
/// [`WalError::Disk`].
pub fn purge(disk: &dyn Disk, dir: &Path, keep: usize) -> Result<usize, WalError> {
    let names = disk.list(dir).map_err(|error| WalError::disk("list", dir, error))?;
    let half_written =
        names.iter().filter(|name| name.strip_prefix("tmp").is_some_and(|rest| parse(dir, rest).is_some()));
    let mut doomed: Vec<PathBuf> = half_written.map(|name| dir.join(name)).collect();
    if keep > 0 {
        doomed.extend(list_newest_first(disk, dir)?.into_iter().skip(keep).map(|file| file.path));
    }
    for path in &doomed {
        disk.remove_file(path).map_err(|error| WalError::disk("remove", path, error))?;
    }
    if !doomed.is_empty() {
        disk.sync_dir(dir).map_err(|error| WalError::disk("sync", dir, error))?;
    }
    Ok(doomed.len())
}
