//! From a directory to a place to go on from: a new cluster's first entries, or what log and store agree on.
//!
//! ```text
//!   S ─────────── A ──────────── commit ──────── last          S: snapshot point, recorded in the log
//!   │  in store   │   to be applied again (none ≤ A)           A: applied index that the store has durably
//! ```
//! S ≤ A ≤ last, and log and store agree on A's term; anything else means that one of them is not what it was, and is
//! refused with both numbers. Only a crash in the middle of a received snapshot leaves A < S: then its file is there, and
//! is read again (see `install`). The commit index is raised to A: a commit that moves alone is not synced, so the log may
//! know less than the store has applied.

pub mod force;
pub mod guard;

use crate::config::NodeConfig;
use crate::core::Restart;
use crate::log::Value;
use guard::GuardError;
use milepost_env::Disk;
use milepost_machine::member::{Bootstrap, BootstrapError};
use milepost_mvcc::StoreError;
use milepost_proto::raftpb;
use milepost_types::{ClusterId, LogIndex, MemberId, Term};
use milepost_wal::{Metadata, Options, Recovered, SnapshotMark, Wal, WalError, snap};
use std::path::PathBuf;
use std::sync::Arc;

/// Why a member does not start. One line each, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory is not to be used.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The log cannot be opened or trusted.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The initial cluster is none.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The initial cluster does not name this member.
    #[error("--initial-cluster does not name this member ({name}); add it, or correct --name")]
    NotInCluster {
        /// `--name`.
        name: String,
    },
    /// The store was there before the log.
    #[error(
        "the store in {store} holds everything up to index {applied}, but there is no log in {wal}; restore the log \
         directory (check --wal-dir), or remove this member, wipe its data directory and add it again"
    )]
    NoLog {
        /// The store.
        store: PathBuf,
        /// Where the log should be.
        wal: PathBuf,
        /// Its applied index.
        applied: LogIndex,
    },
    /// The store lacks what the log no longer has.
    #[error(
        "the store ends at index {applied}, the log begins after {point}: the store is an old copy; remove this member, \
         wipe its data directory and add it again"
    )]
    StoreBehindLog {
        /// The store's applied index.
        applied: LogIndex,
        /// The log's snapshot point.
        point: LogIndex,
    },
    /// The log begins after a received snapshot that is not in the store, and its file is of no use.
    #[error(
        "the log begins after the received snapshot at index {point}, the store ends at {applied}, and the snapshot's \
         file {path} cannot take its place: {why}; make room if that is what is missing, else remove this member, wipe \
         its data directory and add it again"
    )]
    Install {
        /// The file.
        path: PathBuf,
        /// The store's applied index.
        applied: LogIndex,
        /// The snapshot's.
        point: LogIndex,
        /// What is wrong.
        why: String,
    },
    /// Log and store tell different histories.
    #[error(
        "log and store disagree on index {index}: term {in_log} in the log, term {in_store} in the store; they are not \
         of one member. Restore both from one copy, or remove this member, wipe its data directory and add it again"
    )]
    TermsDiffer {
        /// The store's applied index.
        index: LogIndex,
        /// Its term in the log.
        in_log: Term,
        /// Its term in the store.
        in_store: Term,
    },
    /// The log was begun for another cluster than the one that the flags describe, and never got its first entries.
    #[error(
        "the log in {wal} was begun for member {found} of another cluster and is empty; move the data directory away, or \
         give the flags that it was begun with"
    )]
    EmptyLogOfOther {
        /// The log.
        wal: PathBuf,
        /// Its member.
        found: MemberId,
    },
    /// The cluster cannot be cut down to this member.
    #[error("--force-new-cluster: {0}")]
    Force(String),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}; raise the limit on threads")]
    Thread(std::io::Error),
    /// The state machine or Raft cannot take up what was found.
    #[error("{0}")]
    Broken(String),
}

/// Where the node goes on from.
pub(crate) struct Recovery {
    pub wal: Wal,
    pub member: MemberId,
    pub cluster: ClusterId,
    /// Without the conf state, which the state machine knows.
    pub restart: Restart,
    /// Index of the newest snapshot point.
    pub snapshot_point: u64,
    /// The log begins after this snapshot, which the store does not have yet.
    pub pending: Option<SnapshotMark>,
    /// Is this a member that never ran before?
    pub fresh: bool,
}

/// Opens the log, or begins one. `applied`: what the store has durably.
pub(crate) fn recover(
    config: &NodeConfig,
    disk: &Arc<dyn Disk>,
    applied: (LogIndex, Term),
) -> Result<Recovery, StartError> {
    let dir = config.wal_path();
    if !has_log(&**disk, config)? {
        if applied.0 != LogIndex(0) {
            return Err(StartError::NoLog { store: config.store_path(), wal: dir, applied: applied.0 });
        }
        return begin(config, disk);
    }
    let options = Options { segment_bytes: config.segment_bytes, max_wals: config.max_wals, must_hold: applied.0 };
    let (wal, found) = Wal::open(Arc::clone(disk), &dir, options)?;
    if let Some(torn) = &found.repaired {
        let fields = [
            ("path", Value::from(torn.path.display().to_string())),
            ("copy", Value::from(torn.broken.display().to_string())),
            ("offset", Value::from(torn.offset)),
            ("problem", Value::from(torn.problem.as_str())),
        ];
        config.log.warn("cut a torn tail off the log: it was never synced, so nobody relies on it", &fields);
    }
    set_broken_snap_files_aside(config, &**disk, &found)?;
    resume(config, wal, found, applied)
}

/// Looks at the `.snap` files that the log names, newest first, up to the first that is whole.
///
/// As in etcd 3.7 the log's own records say where to begin and the store holds the data: nothing is taken from these
/// files, so a damaged one costs nothing. But tools, and older members that the directory is moved to, read them: it is
/// renamed as they would, and told of while somebody can still look into it.
fn set_broken_snap_files_aside(config: &NodeConfig, disk: &dyn Disk, found: &Recovered) -> Result<(), StartError> {
    let dir = config.snap_path();
    let mut broken = Vec::new();
    let named = |term, index| found.snapshots.iter().any(|mark| (mark.term, mark.index) == (term, index));
    snap::newest(disk, &dir, named, &mut broken)?;
    for error in &broken {
        let message = "set a damaged snapshot file aside as .broken: log and store hold all that it held, and the next \
                       snapshot point writes another; check the disk";
        config.log.warn(message, &[("problem", Value::from(error.to_string()))]);
    }
    Ok(())
}

/// Has this member run before?
pub(crate) fn has_log(disk: &dyn Disk, config: &NodeConfig) -> Result<bool, StartError> {
    let dir = config.wal_path();
    if !disk.exists(&dir) {
        return Ok(false);
    }
    let failed = |source| GuardError::Disk { action: "list", path: dir.clone(), source };
    Ok(disk.list(&dir).map_err(failed)?.iter().any(|name| name.ends_with(".wal")))
}

fn founders(config: &NodeConfig) -> Result<(Bootstrap, MemberId), StartError> {
    let bootstrap = Bootstrap::new(&config.initial_cluster, &config.cluster_token)?;
    let own = bootstrap.members.iter().find(|member| member.name == config.name).map(|member| member.id);
    let own = own.ok_or_else(|| StartError::NotInCluster { name: config.name.clone() })?;
    Ok((bootstrap, own))
}

/// A new cluster: its first entries add the founders, and are committed from the start. A member that joins has only its
/// ids: all entries come from the others.
fn begin(config: &NodeConfig, disk: &Arc<dyn Disk>) -> Result<Recovery, StartError> {
    let create = |member: MemberId, cluster: ClusterId| {
        let metadata = Metadata { node_id: member.0, cluster_id: cluster.0 };
        let options = Options { segment_bytes: config.segment_bytes, max_wals: config.max_wals, ..Options::default() };
        Wal::create(Arc::clone(disk), &config.wal_path(), metadata, options)
    };
    if let Some(join) = &config.join {
        let (member, cluster) = (join.member, join.cluster);
        let wal = create(member, cluster)?;
        let restart = Restart::default();
        return Ok(Recovery { wal, member, cluster, restart, snapshot_point: 0, pending: None, fresh: true });
    }
    let (bootstrap, member) = founders(config)?;
    let wal = create(member, bootstrap.cluster_id)?;
    write_first_entries(wal, member, bootstrap)
}

fn write_first_entries(mut wal: Wal, member: MemberId, bootstrap: Bootstrap) -> Result<Recovery, StartError> {
    let commit = bootstrap.entries.len() as u64;
    let term = bootstrap.entries.first().map_or(0, raftpb::Entry::term);
    let hard_state = raftpb::HardState { term: Some(term), vote: Some(0), commit: Some(commit) };
    wal.append(&bootstrap.entries, Some(&hard_state))?;
    wal.sync()?;
    let restart = Restart { hard_state, entries: bootstrap.entries, ..Restart::default() };
    Ok(Recovery { wal, member, cluster: bootstrap.cluster_id, restart, snapshot_point: 0, pending: None, fresh: true })
}

fn resume(config: &NodeConfig, wal: Wal, found: Recovered, applied: (LogIndex, Term)) -> Result<Recovery, StartError> {
    let member = MemberId(found.metadata.node_id);
    let cluster = ClusterId(found.metadata.cluster_id);
    if found.last_index() == LogIndex(0) && found.hard_state.term() == 0 && has_founders(config) {
        // The process ended between making the log and writing into it; nobody has heard of this member.
        let (bootstrap, own) = founders(config)?;
        if (own, bootstrap.cluster_id) != (member, cluster) {
            return Err(StartError::EmptyLogOfOther { wal: config.wal_path(), found: member });
        }
        return write_first_entries(wal, member, bootstrap);
    }
    let point = found.snapshot.index;
    let pending = (applied.0 < point).then(|| found.snapshot.clone());
    let applied = if pending.is_some() { (point, found.snapshot.term) } else { applied };
    check_store(&found, applied)?;
    let mut restart = Restart {
        hard_state: found.hard_state,
        conf_state: raftpb::ConfState::default(),
        terms: found.terms.iter().map(|(index, term)| (index.0, term.0)).collect(),
        entries: found.entries,
        applied: applied.0.0,
    };
    restart.raise();
    Ok(Recovery { wal, member, cluster, restart, snapshot_point: point.0, pending, fresh: false })
}

fn has_founders(config: &NodeConfig) -> bool {
    !config.initial_cluster.is_empty()
}

/// One term at A, which is at or above S. That A ≤ last was checked when the log was opened; its entries begin behind A.
fn check_store(found: &Recovered, (index, term): (LogIndex, Term)) -> Result<(), StartError> {
    let in_log = found.term_before();
    if index != LogIndex(0) && in_log != term {
        return Err(StartError::TermsDiffer { index, in_log, in_store: term });
    }
    Ok(())
}
