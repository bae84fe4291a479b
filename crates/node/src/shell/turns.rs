//! Small turns of a lone member: with little to do, the Raft thread writes, syncs and applies by itself.
//!
//! A put passes three threads here, and each hand-over wakes one up: with a single client that costs more than the put.
//! Who takes a turn is all that changes: the same jobs come from the same queues in the same order, under a lock that the
//! log thread and the apply thread take for their own turns.
//!
//! Only a member that is alone does so, since waiting for the disk it could tell nobody that it still leads. What is much,
//! or may wait for room on the disk, stays with the thread that it is for.

use super::apply_loop::{ApplyJob, ApplyLoop};
use super::log_loop::{LogJob, LogLoop};
use super::shared::Shared;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Entries that are little. Where many clients wait, the threads work side by side and share each sync among more.
const ENTRIES_MAX: usize = 4;
/// Bytes of them.
const BYTES_MAX: usize = 64 << 10;

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

    /// Does what waits for the log, or wakes the thread that will.
    pub fn log(&mut self) {
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
    pub fn apply(&mut self) {
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
