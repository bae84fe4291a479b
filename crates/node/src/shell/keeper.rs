//! The keeper thread: snapshot points, and what they allow to be thrown away.
//!
//! Order: everything up to the store's durable index S needs no log (if that lags, the store is synced first); the `.snap` file of S is
//! written; the log records S; only then old segments and entries go. A crash between any two of these leaves a log that
//! reaches back further than needed, never one that reaches back less.

use super::log_loop::LogJob;
use super::raft_loop::Command;
use super::shared::{MembershipAt, Shared};
use crate::core::Input;
use crate::log::Value;
use milepost_env::Disk;
use milepost_mvcc::{Store, Writer};
use milepost_proto::raftpb;
use milepost_types::{LogIndex, Term};
use milepost_wal::{SnapshotMark, WalError, snap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, RecvError, sync_channel};
use std::time::Duration;

/// Work for the keeper.
pub(crate) enum KeeperJob {
    /// Enough was applied since the last one.
    SnapshotPoint,
    /// Another member's snapshot counts from now on.
    Installed(Replaced),
}

/// What a received snapshot leaves behind; letting go of it removes files.
pub(crate) struct Replaced {
    /// Where the snapshot was made.
    pub index: u64,
    /// The store of before, and its writer.
    pub old: (Store, Writer),
    /// The file that it came in.
    pub spool: PathBuf,
}

/// The thread's state.
pub(crate) struct Keeper {
    pub shared: Arc<Shared>,
    pub disk: Arc<dyn Disk>,
    pub snap_dir: PathBuf,
    /// Entries behind a point that followers may still ask for.
    pub catch_up_entries: u64,
    /// `.snap` files to keep.
    pub max_snapshots: usize,
    /// Index of the newest point.
    pub last_point: u64,
    /// Entries between points.
    pub snapshot_count: u64,
}

/// A point whose mark is on its way into the log.
pub(crate) struct BegunPoint {
    index: u64,
    keep_from: u64,
    start: Duration,
    answer: Receiver<Result<(), WalError>>,
}

impl BegunPoint {
    /// The log thread's answer; waits for it.
    pub fn wait(&self) -> Result<Result<(), WalError>, RecvError> {
        self.answer.recv()
    }
}

impl Keeper {
    /// Runs until the queue is closed, or a point cannot be made.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut jobs = Vec::new();
        while shared.to_keeper.take(&mut jobs, None) {
            if jobs.is_empty() {
                continue;
            }
            if !self.settle(&mut jobs) {
                continue;
            }
            if let Err(error) = self.snapshot_point() {
                shared.broken(error);
                return;
            }
        }
    }

    /// Does what is not a point, and says whether one is asked for: however many times, one does for all.
    pub fn settle(&mut self, jobs: &mut Vec<KeeperJob>) -> bool {
        let mut point = false;
        for job in jobs.drain(..) {
            match job {
                KeeperJob::SnapshotPoint => point = true,
                KeeperJob::Installed(replaced) => self.installed(replaced),
            }
        }
        point
    }

    /// The log begins after the snapshot, and the store is durable there: what came before is needed by nobody.
    fn installed(&mut self, replaced: Replaced) {
        let Replaced { index, old, spool } = replaced;
        self.last_point = self.last_point.max(index);
        // Others may still read the old store; its files go with the last of them.
        drop(old);
        if let Err(error) = self.disk.remove_file(&spool) {
            let fields = [("path", spool.display().to_string().into()), ("error", error.to_string().into())];
            self.shared.log.warn("a received snapshot's file could not be deleted", &fields);
        }
        // A closed queue: the node stops.
        let _ = self.shared.to_log.push(LogJob::Release { keep_from: LogIndex(index) });
    }

    fn snapshot_point(&mut self) -> Result<(), String> {
        match self.begin_point()? {
            Some(begun) => self.end_point(&begun, begun.wait()),
            None => Ok(()),
        }
    }

    /// Makes the store durable, writes the `.snap` file and asks the log for the mark; `None` if no point is to be made.
    pub fn begin_point(&mut self) -> Result<Option<BegunPoint>, String> {
        // The store commits by itself; only a point that would be worth little is worth a commit of its own.
        let store = self.shared.store();
        let mut durable = store.durable();
        if durable.index.0 < self.last_point + self.snapshot_count / 2 {
            durable = match store.force_sync() {
                Ok(durable) => durable,
                // No room: the store keeps its work and tries again, and the log is kept as long.
                Err(error) if store.failed().is_none() => {
                    self.put_off(&error);
                    return Ok(None);
                }
                Err(error) => return Err(error.to_string()),
            };
        }
        let (index, term) = (durable.index.0, durable.term.0);
        if index <= self.last_point || !self.is_noted(index) {
            return Ok(None);
        }
        let membership = self.membership_at(index);
        let metadata = raftpb::SnapshotMetadata {
            conf_state: Some(membership.conf_state.clone()),
            index: Some(index),
            term: Some(term),
        };
        let snapshot = raftpb::Snapshot { data: Some(membership.v2_json.into()), metadata: Some(metadata) };
        let start = self.shared.now();
        let file = snap::Marshalled::new(&snapshot).map_err(|error| error.to_string())?;
        let marshalled = self.shared.now();
        self.shared.metrics.snap_save_marshalling_duration_seconds.observe(marshalled.saturating_sub(start));
        match file.write(&*self.disk, &self.snap_dir) {
            Ok(_) => {}
            Err(error) if error.is_for_want_of_room() => {
                self.put_off(&error);
                return Ok(None);
            }
            Err(error) => return Err(error.to_string()),
        }
        self.shared.metrics.snap_fsync_duration_seconds.observe(self.shared.now().saturating_sub(marshalled));
        let held = self.shared.holds.lowest(self.shared.now()).unwrap_or(u64::MAX);
        let keep_from = index.saturating_sub(self.catch_up_entries).min(held);
        let (done, answer) = sync_channel(1);
        let mark = SnapshotMark { index: LogIndex(index), term: Term(term), conf_state: membership.conf_state };
        let job = LogJob::SnapshotPoint { mark, keep_from: LogIndex(keep_from), done };
        // A closed queue: the node stops.
        Ok(self.shared.to_log.push(job).is_ok().then_some(BegunPoint { index, keep_from, start, answer }))
    }

    /// The log has answered: what the point allows to be thrown away goes.
    pub fn end_point(
        &mut self,
        begun: &BegunPoint,
        answer: Result<Result<(), WalError>, RecvError>,
    ) -> Result<(), String> {
        let &BegunPoint { index, keep_from, start, .. } = begun;
        match answer {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.is_retryable() => {
                self.put_off(&error);
                return Ok(());
            }
            Ok(Err(error)) => return Err(error.to_string()),
            // The log thread ended before it came to this.
            Err(RecvError) => return Ok(()),
        }
        self.shared.metrics.snap_save_total_duration_seconds.observe(self.shared.now().saturating_sub(start));
        self.last_point = index;
        self.shared.log.info("saved snapshot to disk", &[("snapshot-index", Value::from(index))]);
        // A closed queue: the node stops.
        let _ = self.shared.to_raft.push(Command::Input(Input::CutTo(keep_from)));
        if let Err(error) = snap::purge(&*self.disk, &self.snap_dir, self.max_snapshots) {
            self.shared.log.warn("old snapshot files could not be deleted", &[("error", error.to_string().into())]);
        }
        Ok(())
    }

    /// Does the apply thread's note of the membership reach up to `index`? The store has an entry an instant before that:
    /// with the membership of before, the point would say who *was* a member there. If not, the apply thread asks again.
    fn is_noted(&self, index: u64) -> bool {
        if self.shared.applied() >= index {
            return true;
        }
        self.shared.point_waits.store(true, Ordering::SeqCst);
        // It may have come there meanwhile and look at the flag only after the next entry: either it sees the flag, or
        // this sees where it is.
        fence(Ordering::SeqCst);
        let noted = self.shared.applied() >= index;
        if !noted {
            self.shared.log.debug("a snapshot point waits for apply", &[("index", Value::from(index))]);
        }
        noted
    }

    /// The disk is full. What was tried can wait: the log is kept as long, and the next point is as good.
    fn put_off(&self, error: &dyn std::fmt::Display) {
        self.shared.log.warn("no snapshot point could be made", &[("error", error.to_string().into())]);
    }

    /// The membership as of `index`; older ones are not needed again.
    fn membership_at(&self, index: u64) -> MembershipAt {
        let mut known = self.shared.membership.lock();
        let newer = known.partition_point(|membership| membership.index <= index);
        known.drain(..newer.saturating_sub(1));
        known.first().cloned().expect("the membership at start is known, and the store is not older")
    }
}
