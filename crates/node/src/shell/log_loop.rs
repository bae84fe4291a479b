//! The log thread: everything that waits is written at once and synced once. Of a lone member's small writes the Raft
//! thread takes its turns, see [`super::turns`].

use super::raft_loop::Command;
use super::shared::Shared;
use crate::core::{Input, Persist};
use crate::log::Value;
use milepost_env::Disk;
use milepost_proto::raftpb::{self, HardState};
use milepost_types::{LogIndex, Term};
use milepost_wal::{SnapshotMark, Wal, WalError, snap};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// A sync slower than this is worth a line. Source: etcd `warnSyncDuration`.
const SLOW_SYNC: Duration = Duration::from_secs(1);
/// Between two tries to write into a full disk.
const RETRY_FULL: Duration = Duration::from_millis(100);
/// Between two lines about it.
const TELL_FULL: Duration = Duration::from_secs(10);

/// Work for the log thread; done in order.
pub(crate) enum LogJob {
    /// Write this, report its number.
    Persist(Persist),
    /// Read old entries for a follower.
    Fetch { ticket: u64, from: u64, end: u64, max_bytes: u64 },
    /// Let go of what lies before `keep_from`, which is at or below a recorded point.
    Release { keep_from: LogIndex },
    /// Record a snapshot point, then let go of what lies before `keep_from`.
    SnapshotPoint { mark: SnapshotMark, keep_from: LogIndex, done: SyncSender<Result<(), WalError>> },
}

/// The thread's state.
pub(crate) struct LogLoop {
    pub shared: Arc<Shared>,
    pub wal: Wal,
    pub disk: Arc<dyn Disk>,
    pub snap_dir: PathBuf,
    /// The newest one, as far as this thread has heard.
    pub hard_state: HardState,
    /// Commit index in the log's newest hard state; 0 if this thread wrote none.
    pub written_commit: u64,
    /// Nothing is written any more.
    pub failed: bool,
}

impl LogLoop {
    /// Runs until the queue is closed, or the log fails.
    pub fn run(shared: &Shared, log: &Mutex<Self>) {
        let mut jobs = Vec::new();
        while shared.to_log.wait(None) {
            let mut log = log.lock();
            // Not before it is this thread's turn: jobs are done in order.
            shared.to_log.take_now(&mut jobs);
            if !log.turn(&mut jobs) {
                return;
            }
        }
    }

    /// Does all of `jobs`; false if the log has failed and the member stops.
    pub fn turn(&mut self, jobs: &mut Vec<LogJob>) -> bool {
        if self.failed {
            return false;
        }
        let Err(error) = self.batch(jobs) else { return true };
        self.failed = true;
        self.shared.broken(error);
        // The keeper may wait for a job that came meanwhile.
        self.shared.to_log.abandon();
        false
    }

    fn batch(&mut self, jobs: &mut Vec<LogJob>) -> Result<(), WalError> {
        let mut highest = None;
        let mut must_sync = false;
        let mut later = Vec::new();
        let start = self.shared.now();
        for job in jobs.drain(..) {
            match job {
                LogJob::Persist(persist) => {
                    self.write(&persist)?;
                    highest = Some(persist.number);
                    must_sync |= persist.must_sync;
                }
                other => later.push(other),
            }
        }
        if let Some(number) = highest {
            self.finish(start, must_sync)?;
            self.tell(Input::Persisted(number));
        }
        for job in later {
            self.other(job)?;
        }
        if self.wal.wants_next() {
            self.reserve();
        }
        Ok(())
    }

    /// Reserves the next segment in good time: an alarm now is better than a log that cannot grow.
    fn reserve(&mut self) {
        let reserved = self.wal.preallocate_next();
        let was_full = self.shared.log_full.swap(reserved.is_err(), Ordering::Relaxed);
        if let Err(error) = reserved
            && !was_full
        {
            let fields = [("error", error.to_string().into())];
            self.shared.log.warn("no space could be reserved for the next log segment", &fields);
        }
    }

    fn write(&mut self, persist: &Persist) -> Result<(), WalError> {
        if let Some(snapshot) = &persist.snapshot {
            self.once_there_is_room(
                |error| error.is_retryable() || error.is_for_want_of_room(),
                |log| log.write_snapshot(snapshot),
            )?;
        }
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
            self.written_commit = hard_state.commit();
        }
        let metrics = &self.shared.metrics;
        let bytes: u64 = persist.entries.iter().map(|entry| entry.data().len() as u64).sum();
        metrics.wal_write_bytes_total.fetch_add(bytes, Ordering::Relaxed);
        metrics.log_entries.fetch_add(persist.entries.len() as u64, Ordering::Relaxed);
        self.once_there_is_room(WalError::is_retryable, |log| {
            log.wal.append(&persist.entries, persist.hard_state.as_ref())
        })
    }

    /// Tries until there is room on the disk, or the node stops. Nothing was written, nothing was promised: waiting is
    /// safe, and leadership moves away meanwhile.
    fn once_there_is_room(
        &mut self,
        is_for_want_of_room: impl Fn(&WalError) -> bool,
        mut write: impl FnMut(&mut Self) -> Result<(), WalError>,
    ) -> Result<(), WalError> {
        let began = self.shared.now();
        let mut told = None;
        loop {
            match write(self) {
                Err(error) if is_for_want_of_room(&error) && self.shared.stopped().is_none() => {
                    let now = self.shared.now();
                    if told.is_none_or(|told| now.saturating_sub(told) >= TELL_FULL) {
                        told = Some(now);
                        let remedy = "free some: until then this member takes part in nothing that is written";
                        let fields = [("error", error.to_string().into()), ("remedy", remedy.into())];
                        self.shared.log.warn("the disk is full: the log waits for room", &fields);
                    }
                    std::thread::park_timeout(RETRY_FULL);
                }
                other => {
                    if told.is_some() && other.is_ok() {
                        let took = self.shared.now().saturating_sub(began);
                        self.shared.log.info("the log has room again", &[("took", Value::from(took))]);
                    }
                    return other;
                }
            }
        }
    }

    fn write_snapshot(&mut self, snapshot: &raftpb::Snapshot) -> Result<(), WalError> {
        snap::write(&*self.disk, &self.snap_dir, snapshot)?;
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        self.wal.save_snapshot_mark(&SnapshotMark {
            index: LogIndex(metadata.index()),
            term: Term(metadata.term()),
            conf_state: metadata.conf_state.unwrap_or_default(),
        })
    }

    fn finish(&mut self, start: Duration, must_sync: bool) -> Result<(), WalError> {
        let shared = Arc::clone(&self.shared);
        if !must_sync {
            return self.wal.flush();
        }
        self.wal.flush()?;
        let written = shared.now();
        self.wal.sync()?;
        let synced = shared.now();
        let metrics = &shared.metrics;
        metrics.log_batches.fetch_add(1, Ordering::Relaxed);
        metrics.wal_write_duration_seconds.observe(written.saturating_sub(start));
        let took = synced.saturating_sub(written);
        metrics.wal_fsync_duration_seconds.observe(took);
        if took > SLOW_SYNC {
            let fields = [("took", Value::from(took)), ("expected-duration", Value::from(SLOW_SYNC))];
            shared.log.warn("slow fdatasync", &fields);
        }
        Ok(())
    }

    fn other(&mut self, job: LogJob) -> Result<(), WalError> {
        match job {
            LogJob::Persist(_) => {}
            LogJob::Fetch { ticket, from, end, max_bytes } => {
                let entries = none_if_gone(self.wal.read_entries(LogIndex(from), LogIndex(end), max_bytes))?;
                self.tell(Input::Fetched { ticket, entries });
            }
            LogJob::Release { keep_from } => drop(self.wal.release_to(keep_from)?),
            LogJob::SnapshotPoint { mark, keep_from, done } => {
                let result = self.snapshot_point(&mark, keep_from);
                // The keeper may have ended; then nobody wants to know.
                let _ = done.send(result);
            }
        }
        Ok(())
    }

    /// Recovery starts from the newest mark at or below the log's commit index. That index is written late (a commit that
    /// moves alone travels with the next write), so it is brought up to the mark first: otherwise an older mark would
    /// count, whose entries are let go of here.
    fn snapshot_point(&mut self, mark: &SnapshotMark, keep_from: LogIndex) -> Result<(), WalError> {
        if self.written_commit < mark.index.0 {
            let commit = self.hard_state.commit().max(mark.index.0);
            self.hard_state.commit = Some(commit);
            self.wal.append(&[], Some(&self.hard_state))?;
            self.written_commit = commit;
        }
        self.wal.save_snapshot_mark(mark)?;
        self.wal.release_to(keep_from).map(drop)
    }

    fn tell(&self, input: Input) {
        // A closed queue: the node stops, nobody needs to be told.
        let _ = self.shared.to_raft.push(Command::Input(input));
    }
}

/// Entries that were let go of meanwhile are none: the follower gets a snapshot instead. Damaged ones are no such thing:
/// this member would lack them, too, after a restart, and says so now.
fn none_if_gone(entries: Result<Vec<raftpb::Entry>, WalError>) -> Result<Vec<raftpb::Entry>, WalError> {
    match entries {
        Err(WalError::NotHeld { .. }) => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_let_go_of_becomes_a_snapshot() {
        let [from, to, first, last] = [1, 2, 3, 4].map(LogIndex);
        let gone = WalError::NotHeld { dir: PathBuf::new(), from, to, first, last };
        assert!(none_if_gone(Err(gone)).is_ok_and(|entries| entries.is_empty()));
        let damaged = WalError::Corrupt { path: PathBuf::new(), offset: 0, record: 0, problem: String::new() };
        assert!(matches!(none_if_gone(Err(damaged)), Err(WalError::Corrupt { .. })));
        let there = vec![raftpb::Entry::default()];
        assert_eq!(none_if_gone(Ok(there.clone())).expect("entries"), there);
    }
}
