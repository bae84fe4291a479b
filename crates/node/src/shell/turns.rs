//! Small turns of a lone member: with little to do, the Raft thread writes, syncs and applies by itself.
//!
//! A put passes three threads here, and each hand-over wakes one up: with a single client that costs more than the put.
//! Who takes a turn is all that changes: the same jobs come from the same queues in the same order, under a lock that the
//! log thread and the apply thread take for their own turns.
//!
//! Only a member that is alone does so, since waiting for the disk it could tell nobody that it still leads. What is much,
//! or may wait for room on the disk, stays with the thread that it is for. If a turn takes long all the same, as on a disk
//! that is stuck, the apply thread stands in for the Raft thread: requests end in time whatever the disk does.

use super::apply_loop::{ApplyJob, ApplyLoop};
use super::log_loop::{LogJob, LogLoop};
use super::raft_loop::RaftLoop;
use super::shared::Shared;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Entries that are little. Where many clients wait, the threads work side by side and share each sync among more.
const ENTRIES_MAX: usize = 4;
/// Bytes of them.
const BYTES_MAX: usize = 64 << 10;

/// After so long in a turn somebody stands in for the Raft thread. Requests time out after seconds.
pub(crate) const LONG_TURN: Duration = Duration::from_millis(500);

/// What the Raft thread has laid into queues without a word to their threads.
#[derive(Default)]
pub(crate) struct Laid {
    pub for_log: bool,
    pub for_apply: bool,
}

/// See the module.
pub(crate) struct Turns {
    pub shared: Arc<Shared>,
    pub log: Arc<Mutex<LogLoop>>,
    pub apply: Arc<Mutex<ApplyLoop>>,
    log_jobs: Vec<LogJob>,
    apply_jobs: Vec<ApplyJob>,
}

impl Turns {
    pub fn new(shared: Arc<Shared>, log: Arc<Mutex<LogLoop>>, apply: Arc<Mutex<ApplyLoop>>) -> Self {
        Self { shared, log, apply, log_jobs: Vec::new(), apply_jobs: Vec::new() }
    }

    /// Sees to it that what was laid into queues is done. Answers come before what makes the next ones wait.
    pub fn take(&mut self, laid: &Laid) {
        if !(laid.for_apply || laid.for_log) {
            return;
        }
        let begin = self.shared.now().max(Duration::from_nanos(1));
        self.shared.turn_since.store(begin.as_nanos() as u64, Ordering::Relaxed);
        if laid.for_apply {
            self.apply();
        }
        if laid.for_log {
            self.log();
        }
        self.shared.turn_since.store(0, Ordering::Relaxed);
    }

    /// Does what waits for the log, or wakes the thread that will.
    fn log(&mut self) {
        let shared = &*self.shared;
        let is_small = |jobs: &[LogJob]| {
            let mut entries = Vec::new();
            for job in jobs {
                match job {
                    LogJob::Persist(persist) if persist.snapshot.is_none() => entries.extend(&persist.entries),
                    _ => return false,
                }
            }
            entries.len() <= ENTRIES_MAX && entries.iter().map(|entry| entry.data().len()).sum::<usize>() <= BYTES_MAX
        };
        // A full disk is waited for by the log thread.
        if !shared.log_full.load(Ordering::Relaxed)
            && let Some(mut log) = self.log.try_lock()
            && shared.to_log.look(is_small)
        {
            shared.to_log.take_now(&mut self.log_jobs);
            // If it fails the member stops: the queue to this thread is closed.
            log.turn(&mut self.log_jobs);
            return;
        }
        shared.to_log.wake();
    }

    /// Applies what waits, or wakes the thread that will.
    fn apply(&mut self) {
        let shared = &*self.shared;
        let is_small = |jobs: &[ApplyJob]| {
            let count = |job: &ApplyJob| match job {
                ApplyJob::Entries(entries) => entries.len(),
                ApplyJob::Snapshot(_) => usize::MAX,
            };
            jobs.iter().map(count).fold(0, usize::saturating_add) <= ENTRIES_MAX
        };
        // A commit of the store is waited for by the apply thread.
        if let Some(mut apply) = self.apply.try_lock()
            && shared.to_apply.look(is_small)
            && shared.store().has_room()
        {
            shared.to_apply.take_now(&mut self.apply_jobs);
            // As above.
            let _ = self.apply_jobs.drain(..).all(|job| apply.turn(job));
            return;
        }
        shared.to_apply.wake();
    }
}

/// Does the Raft thread's rounds while a turn keeps it, until there is something to apply. Called by the apply thread, which
/// is free then: what it would do is the turn that takes long, or behind the log's.
pub(crate) fn stand_in(shared: &Shared, raft: &Mutex<RaftLoop>) {
    let is_wanted = || {
        let since = Duration::from_nanos(shared.turn_since.load(Ordering::Relaxed));
        !since.is_zero() && shared.now().saturating_sub(since) >= LONG_TURN && shared.to_apply.is_empty()
    };
    if !is_wanted() {
        return;
    }
    while is_wanted() {
        let wait = raft.lock().until_tick();
        if !shared.to_raft.wait(Some(wait)) {
            break;
        }
        raft.lock().next_round();
    }
    // It may have been told in the place of the Raft thread.
    shared.to_raft.wake();
}
