//! Who waits for an answer, and how it comes back: in batches, one call per receiver.

use milepost_machine::{Error, Reply};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Why a request was not carried out, or not known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// More is committed and not yet applied, or proposed and not yet answered, than this member takes on. Not proposed.
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// Larger than a request may be. Not proposed.
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// No leader was known until the time was over. Not proposed.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// Leadership was being handed over until the time was over. Not proposed.
    #[error("raft proposal dropped")]
    Dropped,
    /// It was proposed, and nothing was heard of it in time: it may still be carried out.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// The member stops. What was proposed may still be carried out.
    #[error("etcdserver: server stopped")]
    Stopped,
}

/// The end of a wait.
#[derive(Clone, Debug)]
pub enum Completion {
    /// Applied, or refused by the state machine.
    Reply(Result<Reply, Error>),
    /// Everything committed before the read was asked for is applied here.
    ReadReady,
    /// See [`NodeError`].
    Failed(NodeError),
}

/// Takes the answers of many requests at once. Called from the node's threads: must not block.
pub trait CompletionSink: Send + Sync {
    /// Takes everything out of `batch`: (ticket, how it ended). Called once per batch of applied entries.
    fn complete(&self, batch: &mut Vec<(u64, Completion)>);
}

/// One request's place to be answered.
#[derive(Clone)]
pub struct Waiter {
    /// Whom to tell.
    pub sink: Arc<dyn CompletionSink>,
    /// What the sink knows the request by.
    pub ticket: u64,
}

impl Waiter {
    /// Answers this one alone.
    pub fn complete(self, completion: Completion) {
        self.sink.complete(&mut vec![(self.ticket, completion)]);
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// Gathers completions by sink, so that each sink is called once.
///
/// There are as many sinks as doors have threads: a list is quicker than a map.
#[derive(Default)]
pub(crate) struct Answers {
    sinks: Vec<Outbox>,
}

/// A sink and what it is to be told.
type Outbox = (Arc<dyn CompletionSink>, Vec<(u64, Completion)>);

/// Sinks that are kept although they have nothing: their buffers are of use for the next batch.
const IDLE_SINKS_MAX: usize = 16;

impl Answers {
    pub(crate) fn push(&mut self, waiter: Waiter, completion: Completion) {
        let same = |sink: &Outbox| Arc::ptr_eq(&sink.0, &waiter.sink);
        match self.sinks.iter_mut().find(|sink| same(sink)) {
            Some((_, batch)) => batch.push((waiter.ticket, completion)),
            None => self.sinks.push((waiter.sink, vec![(waiter.ticket, completion)])),
        }
    }

    /// Calls every sink that has something to hear.
    pub(crate) fn deliver(&mut self) {
        for (sink, batch) in &mut self.sinks {
            if !batch.is_empty() {
                sink.complete(batch);
                batch.clear();
            }
        }
        if self.sinks.len() > IDLE_SINKS_MAX {
            self.sinks.clear();
        }
    }
}

/// Request ids differ in their low bits already; a multiplication spreads them.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // 2^64 divided by the golden ratio; the table takes its high bits for tags and its low bits for places.
        let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A request on its way through the log.
#[derive(Debug)]
pub(crate) struct Pending {
    pub waiter: Waiter,
    /// Bytes that it holds of the bound on proposals.
    pub bytes: u64,
    /// When it is given up.
    pub deadline: Duration,
}

/// Everybody who waits for an entry, by request id.
#[derive(Default)]
pub(crate) struct Waiters {
    // Held for map operations only. Taken once per batch, by the Raft thread (in) and the apply thread (out).
    map: Mutex<HashMap<u64, Pending, BuildHasherDefault<IdHasher>>>,
    /// Bytes of proposals without an answer, queued ones included.
    bytes: AtomicU64,
}

impl Waiters {
    /// Bytes proposed and not answered.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn drop_bytes(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn insert_all(&self, batch: impl Iterator<Item = (u64, Pending)>) {
        self.map.lock().extend(batch);
    }

    /// Takes out who waits for each of `ids`; `taken` has one place for each of them.
    pub(crate) fn take_all(&self, ids: &[u64], taken: &mut Vec<Option<Pending>>) {
        let mut map = self.map.lock();
        taken.extend(ids.iter().map(|id| map.remove(id)));
        drop(map);
        let bytes = taken.iter().flatten().map(|pending| pending.bytes).sum();
        self.drop_bytes(bytes);
    }

    /// Takes out who has waited too long.
    pub(crate) fn take_expired(&self, now: Duration) -> Vec<(u64, Waiter)> {
        let mut expired = Vec::new();
        let mut bytes = 0;
        for (id, pending) in self.map.lock().extract_if(|_, pending| pending.deadline <= now) {
            bytes += pending.bytes;
            expired.push((id, pending.waiter));
        }
        self.drop_bytes(bytes);
        expired.sort_unstable_by_key(|&(id, _)| id);
        expired
    }

    /// Takes out everybody.
    pub(crate) fn take_everybody(&self) -> Vec<(u64, Waiter)> {
        self.take_expired(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{Answers, Completion, CompletionSink, NodeError, Pending, Waiter, Waiters};
    use parking_lot::Mutex;
    use std::sync::Arc;
    use std::time::Duration;

    #[derive(Default)]
    struct Calls(Mutex<Vec<Vec<u64>>>);

    impl CompletionSink for Calls {
        fn complete(&self, batch: &mut Vec<(u64, Completion)>) {
            self.0.lock().push(batch.drain(..).map(|(ticket, _)| ticket).collect());
        }
    }

    fn waiter(sink: &Arc<Calls>, ticket: u64) -> Waiter {
        Waiter { sink: Arc::clone(sink) as Arc<dyn CompletionSink>, ticket }
    }

    #[test]
    fn one_call_per_sink_and_batch() {
        let (one, two) = (Arc::new(Calls::default()), Arc::new(Calls::default()));
        let mut answers = Answers::default();
        for ticket in 0..3 {
            answers.push(waiter(&one, ticket), Completion::ReadReady);
            answers.push(waiter(&two, ticket + 10), Completion::ReadReady);
        }
        answers.deliver();
        answers.deliver();
        assert_eq!(*one.0.lock(), [[0, 1, 2]]);
        assert_eq!(*two.0.lock(), [[10, 11, 12]]);
    }

    #[test]
    fn waiters_give_their_bytes_back() {
        let sink = Arc::new(Calls::default());
        let waiters = Waiters::default();
        waiters.add_bytes(30);
        let pending = |ticket, seconds| {
            let deadline = Duration::from_secs(seconds);
            (ticket, Pending { waiter: waiter(&sink, ticket), bytes: 10, deadline })
        };
        waiters.insert_all([pending(1, 5), pending(2, 6), pending(3, 7)].into_iter());
        let mut taken = Vec::new();
        waiters.take_all(&[9, 2], &mut taken);
        assert!(taken[0].is_none() && taken[1].is_some());
        assert_eq!(waiters.bytes(), 20);
        let expired: Vec<u64> = waiters.take_expired(Duration::from_secs(5)).iter().map(|(id, _)| *id).collect();
        assert_eq!(expired, [1]);
        assert_eq!(waiters.take_everybody().len(), 1);
        assert_eq!(waiters.bytes(), 0);
        waiter(&sink, 1).complete(Completion::Failed(NodeError::Stopped));
    }
}
