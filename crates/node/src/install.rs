//! Another member's snapshot, from its first byte to the moment Raft has heard of it.
//!
//! ```text
//!   body ──► snap/tmp<index>.snap.db ──► snap/<index>.snap.db ──► store/<n+1>/ ──► MsgSnap into Raft
//!            written, synced            renamed: whole or not     machine::import     │
//!                                       there                                         ▼ if Raft takes it:
//!   apply: CURRENT → <n+1>  ◄──  .snap, WAL mark, hard state: one sync  ◄──  Persist of its Ready
//! ```
//! Up to the log's sync a crash leaves a member as it was, and files that the next start removes. From there on the log
//! begins after the snapshot: a start that finds the store behind that reads the spool file again ([`finish_pending`]).
//! The spool file goes when the flip is durable.

use crate::config::NodeConfig;
use crate::core::validate::{self, Refused};
use crate::log::Value;
use crate::recovery::StartError;
use crate::shell::raft_loop::Command;
use crate::shell::shared::Shared;
use milepost_env::{Disk, File, Open};
use milepost_machine::{Config, ImportError, Taken, import};
use milepost_mvcc::{Opened, Store, Writer};
use milepost_proto::raftpb::{self, SnapshotMetadata};
use milepost_wal::SnapshotMark;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

/// Bytes read from the sender in one go.
const CHUNK_BYTES: usize = 256 << 10;
/// The file is synced each time so much has come: the log's own syncs must not queue behind gigabytes. Free space is
/// looked at as often.
const SYNC_BYTES: u64 = 16 << 20;
/// What a snapshot leaves free: the next segment of the log.
const RESERVE_BYTES: u64 = 64 << 20;

/// Why a snapshot was not installed. One line each; the sender tries again by itself where that helps.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// No correct member sends such a message.
    #[error("the snapshot's message is refused: {0}")]
    Refused(Refused),
    /// One at a time.
    #[error("another snapshot is being received; this one may come again when that is done")]
    Busy,
    /// The sender went away.
    #[error("the snapshot broke off after {received} bytes: {source}")]
    Body {
        /// What had come.
        received: u64,
        /// Why no more came.
        source: io::Error,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk has no room.
    #[error(
        "no room for the snapshot in {}: {free} bytes are free after {received} were received, and {RESERVE_BYTES} have to \
         stay free for the log; make room",
        path.display()
    )]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// What is left.
        free: u64,
        /// What had come.
        received: u64,
    },
    /// The database cannot be taken.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The member stops.
    #[error("the member is stopping")]
    Stopped,
}

/// A snapshot that Raft has been told of.
pub(crate) struct Offered {
    index: u64,
    /// Whether Raft takes it; an end without an answer: the node stops.
    answer: Receiver<bool>,
}

/// Where snapshots are spooled.
pub(crate) fn spool_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:016x}.snap.db"))
}

/// See [`crate::Node::install_snapshot`].
pub(crate) fn install(shared: &Shared, message: raftpb::Message, body: &mut dyn Read) -> Result<(), InstallError> {
    match offer(shared, message, body)? {
        Some(offered) => {
            let taken = offered.answer.recv();
            settle(shared, &offered, taken.unwrap_or(false))
        }
        None => Ok(()),
    }
}

/// All up to telling Raft. `None`: this member has all of it already, and Raft will say so to the sender.
pub(crate) fn offer(
    shared: &Shared,
    message: raftpb::Message,
    body: &mut dyn Read,
) -> Result<Option<Offered>, InstallError> {
    let metadata = validate::snapshot_of(&message, shared.member.0).map_err(InstallError::Refused)?.clone();
    let index = metadata.index();
    let installer = &shared.installer;
    let begun = installer.begin()?;
    let (mut ready, mut importing) = (None, None);
    if index > shared.applied() {
        let started = shared.now();
        let spool = spool(shared, index, body)?;
        shared.metrics.snap_db_save_total_duration_seconds.observe(shared.now().saturating_sub(started));
        importing = Some(installer.importing()?);
        let imported = take(shared, &spool, &metadata).inspect_err(|_| remove(&*shared.disk, &spool))?;
        ready = Some(imported);
        let fields = [("path", Value::from(spool.display().to_string())), ("snapshot-index", index.into())];
        shared.log.info("saved database snapshot to disk", &fields);
    }
    let awaited = ready.is_some();
    begun.ready(index, ready);
    drop(importing);
    let (taken, answer) = sync_channel(1);
    let offered = Offered { index, answer };
    // A closed queue drops the sender: the answer is that there is none.
    let _ = shared.to_raft.push(Command::Install { message: Box::new(message), taken });
    if awaited {
        return Ok(Some(offered));
    }
    installer.finish();
    Ok(None)
}

/// What is left to do when Raft has decided; the offer comes back while it has not.
pub(crate) fn try_settle(shared: &Shared, offered: Offered) -> Result<(), Offered> {
    match offered.answer.try_recv() {
        Err(TryRecvError::Empty) => Err(offered),
        taken => {
            // That the node stops is no news.
            let _ = settle(shared, &offered, taken.unwrap_or(false));
            Ok(())
        }
    }
}

fn settle(shared: &Shared, offered: &Offered, taken: bool) -> Result<(), InstallError> {
    if taken {
        // The rest is the apply thread's.
        return Ok(());
    }
    // Dropped, the import removes its files.
    drop(shared.installer.take(offered.index));
    shared.installer.finish();
    if shared.stopped().is_some() {
        return Err(InstallError::Stopped);
    }
    remove(&*shared.disk, &spool_path(&shared.snap_dir, offered.index));
    shared.log.info("ignored a snapshot that is not needed any more", &[("snapshot-index", offered.index.into())]);
    Ok(())
}

fn take(shared: &Shared, spool: &Path, metadata: &SnapshotMetadata) -> Result<milepost_mvcc::Imported, InstallError> {
    let file = open(&*shared.disk, spool, Open::Read, "open")?;
    let Taken { imported, unknown } = import(&shared.store(), file, metadata, shared.reader.config())?;
    if !unknown.is_empty() {
        let fields = [("left-out", Value::from(unknown))];
        shared.log.warn("the snapshot holds what this version does not know", &fields);
    }
    Ok(imported)
}

fn open(disk: &dyn Disk, path: &Path, how: Open, action: &'static str) -> Result<Box<dyn File>, InstallError> {
    disk.open(path, how).map_err(failed(action, path))
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> InstallError + 'a {
    move |source| InstallError::Disk { action, path: path.to_owned(), source }
}

fn remove(disk: &dyn Disk, path: &Path) {
    // If it stays, the next start removes it.
    let _ = disk.remove_file(path);
}

/// Writes the body to a file that appears whole or not at all, durably.
fn spool(shared: &Shared, index: u64, body: &mut dyn Read) -> Result<PathBuf, InstallError> {
    let path = spool_path(&shared.snap_dir, index);
    let unfinished = shared.snap_dir.join(format!("tmp{index:016x}.snap.db"));
    let spooled = write_all(shared, &unfinished, body).and_then(|()| {
        shared.disk.rename(&unfinished, &path).map_err(failed("rename", &unfinished))?;
        shared.disk.sync_dir(&shared.snap_dir).map_err(failed("sync", &shared.snap_dir))
    });
    match spooled {
        Ok(()) => Ok(path),
        // Another node may be at work in the directory by now.
        Err(error @ InstallError::Stopped) => Err(error),
        Err(error) => {
            remove(&*shared.disk, &unfinished);
            Err(error)
        }
    }
}

fn write_all(shared: &Shared, path: &Path, body: &mut dyn Read) -> Result<(), InstallError> {
    let mut file = open(&*shared.disk, path, Open::CreateOrTruncate, "create")?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut received, mut synced) = (0, None);
    loop {
        if synced.is_none_or(|synced| received - synced >= SYNC_BYTES) {
            file.sync_data().map_err(failed("sync", path))?;
            let free = shared.disk.free_bytes(&shared.snap_dir).map_err(failed("look at", &shared.snap_dir))?;
            if free < RESERVE_BYTES + SYNC_BYTES {
                return Err(InstallError::NoRoom { path: shared.snap_dir.clone(), free, received });
            }
            synced = Some(received);
        }
        let read = match body.read(&mut chunk) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(InstallError::Body { received, source }),
        };
        if shared.stopped().is_some() {
            return Err(InstallError::Stopped);
        }
        if read == 0 {
            break;
        }
        file.write_at(&chunk[..read], received).map_err(failed("write", path))?;
        received += read as u64;
    }
    let started = shared.now();
    file.sync_all().map_err(failed("sync", path))?;
    shared.metrics.snap_db_fsync_duration_seconds.observe(shared.now().saturating_sub(started));
    Ok(())
}

/// At the start: the log begins after the snapshot at `mark`, the store ends before it. A crash came between the log's
/// sync and the flip, and the spool file is still there: reads it again, and goes on with what it holds.
///
/// # Errors
/// [`StartError::StoreBehindLog`] without such a file; [`StartError::Install`] if it is not what the mark says.
pub(crate) fn finish_pending(
    config: &NodeConfig,
    disk: &dyn Disk,
    machine: &Config,
    (store, writer, opened): (Store, Writer, Opened),
    mark: &SnapshotMark,
) -> Result<(Store, Writer, Opened), StartError> {
    let spool = spool_path(&config.snap_path(), mark.index.0);
    if !disk.exists(&spool) {
        return Err(StartError::StoreBehindLog { applied: opened.applied, point: mark.index });
    }
    let fields = [
        ("snapshot-index", Value::from(mark.index.0)),
        ("applied-index", Value::from(opened.applied.0)),
        ("path", Value::from(spool.display().to_string())),
    ];
    config.log.warn("finishing the installation of a received snapshot", &fields);
    let broken =
        |why: String| StartError::Install { path: spool.clone(), applied: opened.applied, point: mark.index, why };
    let metadata = SnapshotMetadata {
        conf_state: Some(mark.conf_state.clone()),
        index: Some(mark.index.0),
        term: Some(mark.term.0),
    };
    let file = disk.open(&spool, Open::Read).map_err(|error| broken(error.to_string()))?;
    let taken = import(&store, file, &metadata, machine).map_err(|error| broken(error.to_string()))?;
    drop(writer);
    drop(store);
    Ok(taken.imported.take_over()?)
}

/// Removes what received snapshots have left in the directory: no installation is pending.
pub(crate) fn clean(disk: &dyn Disk, dir: &Path) {
    let Ok(names) = disk.list(dir) else { return };
    for name in names.iter().filter(|name| name.ends_with(".snap.db")) {
        remove(disk, &dir.join(name));
    }
}
