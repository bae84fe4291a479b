//! Reads on their way: first they wait for a confirmation by the leader, then for the confirmed index to be applied.

use crate::waiter::{Answers, Completion, Waiter};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Batches that wait for a confirmation; the Raft thread's own.
#[derive(Debug, Default)]
pub(crate) struct UnconfirmedReads {
    /// (batch, when it asked, who).
    batches: VecDeque<(u64, Duration, Vec<Waiter>)>,
    last_batch: u64,
}

impl UnconfirmedReads {
    /// A new batch; returns its number.
    pub fn push(&mut self, now: Duration, waiters: Vec<Waiter>) -> u64 {
        self.last_batch += 1;
        self.batches.push_back((self.last_batch, now, waiters));
        self.last_batch
    }

    /// Everybody in batches up to `batch`.
    pub fn take_confirmed(&mut self, batch: u64) -> Vec<Waiter> {
        let mut confirmed = Vec::new();
        while self.batches.front().is_some_and(|&(number, ..)| number <= batch) {
            let (_, _, mut waiters) = self.batches.pop_front().expect("it has a front");
            if confirmed.is_empty() { confirmed = waiters } else { confirmed.append(&mut waiters) }
        }
        confirmed
    }

    /// Everybody who asked before `oldest`.
    pub fn take_older(&mut self, oldest: Duration) -> Vec<Waiter> {
        let mut old = Vec::new();
        while self.batches.front().is_some_and(|&(_, since, _)| since < oldest) {
            old.extend(self.batches.pop_front().expect("it has a front").2);
        }
        old
    }
}

/// Confirmed reads that wait for an index to be applied.
#[derive(Debug, Default)]
pub(crate) struct AppliedReads {
    // Short: a push, or a look at the front.
    waiting: Mutex<VecDeque<(u64, Vec<Waiter>)>>,
}

impl AppliedReads {
    /// Answers now if `index` is applied, else when it is. `applied` is read under the lock, so that the apply thread
    /// either sees these or has moved it before.
    pub fn push(&self, index: u64, waiters: Vec<Waiter>, applied: &AtomicU64, answers: &mut Answers) {
        let mut waiting = self.waiting.lock();
        if applied.load(Ordering::Acquire) < index {
            // Confirmations come in order of their indexes, but for a leader change in between.
            let at = waiting.partition_point(|&(other, _)| other <= index);
            waiting.insert(at, (index, waiters));
            return;
        }
        drop(waiting);
        for waiter in waiters {
            answers.push(waiter, Completion::ReadReady);
        }
    }

    /// Called by the apply thread after it moved `applied`.
    pub fn applied_to(&self, applied: u64, answers: &mut Answers) {
        let mut waiting = self.waiting.lock();
        while waiting.front().is_some_and(|&(index, _)| index <= applied) {
            for waiter in waiting.pop_front().expect("it has a front").1 {
                answers.push(waiter, Completion::ReadReady);
            }
        }
    }

    /// Everybody.
    pub fn take_everybody(&self) -> Vec<Waiter> {
        self.waiting.lock().drain(..).flat_map(|(_, waiters)| waiters).collect()
    }
}
