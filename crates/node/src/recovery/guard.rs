//! Whose directory is this? Asked before anything in it is read.
//!
//! ```text
//!   <data-dir>/member/
//!     LOCK             held by the running process
//!     MILEPOST         "milepost data directory, format 1": written once, read first
//!     wal/  snap/      etcd's formats
//!     snap/db          not a database: a sentence. etcd opens this file first and gives up on it
//!     store/           ours
//! ```
//! etcd finding its log without `snap/db` makes a new, empty one and comes up with old data or none: that is why the
//! sentence stands there. The other way round, a `snap/db` that is a bbolt file means that the directory is etcd's, and
//! nothing in it is touched.

use milepost_env::{Disk, Lock, Open};
use std::io;
use std::path::{Path, PathBuf};

const LOCK_NAME: &str = "LOCK";
const MARKER_NAME: &str = "MILEPOST";
/// What stands in the marker before the number.
const MARKER_PREFIX: &str = "milepost data directory, format ";
/// The layout that this program writes. A higher one is refused: a newer program has changed what it means.
const FORMAT: u64 = 1;
/// Keeps etcd out, and tells whoever looks why.
const SENTENCE: &str = "This directory belongs to Milepost, which keeps its data in ../store. This file is here so that \
                        etcd refuses to start on it instead of coming up without the data.\n";
/// bbolt's mark, at offset 16 of its first page (after the page header), little endian.
const BOLT_MAGIC: u32 = 0xED0C_DAED;
const BOLT_MAGIC_OFFSET: usize = 16;

/// A directory that must not be used.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Another process works on it.
    #[error("data directory {dir} is in use by another process; stop that process first")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// It cannot be made, read or written.
    #[error("cannot {action} {path}: {source}; check the path, the disk and the permissions")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A newer program wrote it.
    #[error(
        "data directory {dir} has format {found}, this program knows formats up to {FORMAT}; start the newer program \
         that wrote it"
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The marker is there and says something else.
    #[error(
        "{path} should name the format of the data directory but reads {text:?}; restore the file, or the directory"
    )]
    BadMarker {
        /// The marker.
        path: PathBuf,
        /// Its content, cut.
        text: String,
    },
    /// etcd's directory.
    #[error(
        "data directory {dir} belongs to etcd ({found} is an etcd database); nothing in it was read or changed. Start \
         etcd on it, or start Milepost with an empty --data-dir and bring the data over with `etcdctl snapshot save` \
         from the running etcd and `etcdutl snapshot restore`"
    )]
    Etcd {
        /// The directory.
        dir: PathBuf,
        /// The file that shows it.
        found: PathBuf,
    },
    /// Log files, but neither our marker nor etcd's database.
    #[error(
        "data directory {dir} holds a log ({found}) but nothing says who wrote it: an etcd directory without its \
         database, or one of Milepost without its marker; restore the missing files, or move the directory away"
    )]
    Unknown {
        /// The directory.
        dir: PathBuf,
        /// What was found.
        found: PathBuf,
    },
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> GuardError + 'a {
    move |source| GuardError::Disk { action, path: path.to_owned(), source }
}

/// Takes possession of `<data_dir>/member`: refuses what is not ours, marks what is new, keeps others out while the
/// returned lock lives.
///
/// `wal_dir`: where the log is, if not in `member/wal`.
///
/// # Errors
/// See [`GuardError`]. Nothing of somebody else's was changed then.
pub fn occupy(disk: &dyn Disk, data_dir: &Path, wal_dir: Option<&Path>) -> Result<Box<dyn Lock>, GuardError> {
    let member = data_dir.join("member");
    let snap = member.join("snap");
    let marker = member.join(MARKER_NAME);
    refuse_etcd(disk, data_dir, &snap.join("db"))?;
    if !disk.exists(&marker) {
        refuse_strange_log(disk, data_dir, wal_dir.unwrap_or(&member.join("wal")))?;
    }
    disk.create_dir_all(&snap).map_err(failed("create", &snap))?;
    let lock_path = member.join(LOCK_NAME);
    let lock = disk.try_lock(&lock_path).map_err(failed("lock", &lock_path))?;
    let lock = lock.ok_or(GuardError::InUse { dir: data_dir.to_owned() })?;
    if disk.exists(&marker) {
        check_marker(disk, data_dir, &marker)?;
    }
    let sentence = write(disk, &snap, "db", SENTENCE)?;
    let marker = write(disk, &member, MARKER_NAME, &format!("{MARKER_PREFIX}{FORMAT}\n"))?;
    if sentence || marker {
        // Both are durable before a log is made: etcd never finds a log without the sentence.
        sync_up(disk, data_dir)?;
    }
    Ok(lock)
}

fn refuse_etcd(disk: &dyn Disk, data_dir: &Path, db: &Path) -> Result<(), GuardError> {
    let mut head = [0; BOLT_MAGIC_OFFSET + 4];
    if !disk.exists(db) {
        return Ok(());
    }
    let file = disk.open(db, Open::Read).map_err(failed("open", db))?;
    let read = file.read_at(&mut head, 0).map_err(failed("read", db))?;
    let magic = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
    if read == head.len() && magic == BOLT_MAGIC {
        return Err(GuardError::Etcd { dir: data_dir.to_owned(), found: db.to_owned() });
    }
    Ok(())
}

fn refuse_strange_log(disk: &dyn Disk, data_dir: &Path, wal: &Path) -> Result<(), GuardError> {
    if !disk.exists(wal) {
        return Ok(());
    }
    let names = disk.list(wal).map_err(failed("list", wal))?;
    match names.iter().find(|name| name.ends_with(".wal")) {
        Some(name) => Err(GuardError::Unknown { dir: data_dir.to_owned(), found: wal.join(name) }),
        None => Ok(()),
    }
}

fn check_marker(disk: &dyn Disk, data_dir: &Path, marker: &Path) -> Result<(), GuardError> {
    let file = disk.open(marker, Open::Read).map_err(failed("open", marker))?;
    let mut bytes = [0; 128];
    let read = file.read_at(&mut bytes, 0).map_err(failed("read", marker))?;
    let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
    let number = text.strip_prefix(MARKER_PREFIX).and_then(|rest| rest.trim_end().parse().ok());
    match number {
        Some(found) if found > FORMAT => Err(GuardError::Newer { dir: data_dir.to_owned(), found }),
        Some(_) => Ok(()),
        None => Err(GuardError::BadMarker { path: marker.to_owned(), text }),
    }
}

/// Writes a small file by way of another name, so that it is whole or not there; leaves one that is there alone. Its
/// name is not durable yet. False if it was there.
fn write(disk: &dyn Disk, dir: &Path, name: &str, text: &str) -> Result<bool, GuardError> {
    let path = dir.join(name);
    if disk.exists(&path) {
        return Ok(false);
    }
    let unfinished = dir.join(format!("{name}.new"));
    let mut file = disk.open(&unfinished, Open::CreateOrTruncate).map_err(failed("create", &unfinished))?;
    file.write_at(text.as_bytes(), 0).map_err(failed("write", &unfinished))?;
    file.sync_all().map_err(failed("sync", &unfinished))?;
    disk.rename(&unfinished, &path).map_err(failed("rename", &unfinished))?;
    Ok(true)
}

fn sync_up(disk: &dyn Disk, data_dir: &Path) -> Result<(), GuardError> {
    let member = data_dir.join("member");
    disk.sync_dir(&member.join("snap")).map_err(failed("sync", data_dir))?;
    disk.sync_dir(&member).map_err(failed("sync", data_dir))?;
    disk.sync_dir(data_dir).map_err(failed("sync", data_dir))?;
    match data_dir.parent() {
        // The parent may be unreadable to us; then its owner made the directory, and it is durable already.
        Some(parent) if !parent.as_os_str().is_empty() => {
            let _ = disk.sync_dir(parent);
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{BOLT_MAGIC, GuardError, occupy};
    use milepost_env::{Disk, Open, SimDisk};
    use std::path::Path;

    const DIR: &str = "/data";

    fn put(disk: &SimDisk, path: &str, bytes: &[u8]) {
        let path = Path::new(path);
        disk.create_dir_all(path.parent().expect("a directory")).expect("directory");
        disk.open(path, Open::CreateOrTruncate).and_then(|mut file| file.write_at(bytes, 0)).expect("file");
    }

    #[test]
    fn ours_stays_ours_and_has_one_user() {
        let disk = SimDisk::new(1);
        let lock = occupy(&disk, Path::new(DIR), None).expect("empty");
        assert!(matches!(occupy(&disk, Path::new(DIR), None), Err(GuardError::InUse { .. })));
        drop(lock);
        put(&disk, "/data/member/wal/0000000000000000-0000000000000000.wal", b"x");
        drop(occupy(&disk, Path::new(DIR), None).expect("again"));
        disk.crash(7);
        occupy(&disk, Path::new(DIR), None).expect("marked durably");
    }

    #[test]
    fn etcds_is_left_alone() {
        let disk = SimDisk::new(1);
        let mut page = vec![0; 4096];
        page[16..20].copy_from_slice(&BOLT_MAGIC.to_le_bytes());
        put(&disk, "/data/member/snap/db", &page);
        let refused = occupy(&disk, Path::new(DIR), None);
        assert!(matches!(refused, Err(GuardError::Etcd { .. })));
        assert_eq!(disk.list(Path::new("/data/member")).expect("list"), ["snap"], "nothing was added");
    }

    #[test]
    fn a_log_without_an_owner_is_refused() {
        let disk = SimDisk::new(1);
        put(&disk, "/elsewhere/0000000000000000-0000000000000000.wal", b"x");
        let refused = occupy(&disk, Path::new(DIR), Some(Path::new("/elsewhere")));
        assert!(matches!(refused, Err(GuardError::Unknown { .. })));
    }

    #[test]
    fn newer_and_broken_markers_are_refused() {
        let disk = SimDisk::new(1);
        put(&disk, "/data/member/MILEPOST", b"milepost data directory, format 2\n");
        assert!(matches!(occupy(&disk, Path::new(DIR), None), Err(GuardError::Newer { found: 2, .. })));
        put(&disk, "/data/member/MILEPOST", b"ms data directory, format 1\n");
        let refused = occupy(&disk, Path::new(DIR), None).err().expect("refused");
        assert!(refused.to_string().contains("restore the file"), "{refused}");
    }
}
