//! Counts for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// What goes on in a hub, at one moment. Read without locks: the numbers may be of slightly different moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Open streams (`etcd_debugging_mvcc_watch_stream_total`).
    pub streams: u64,
    /// Watchers (`etcd_debugging_mvcc_watcher_total`).
    pub watchers: u64,
    /// Those of them that are behind (`etcd_debugging_mvcc_slow_watcher_total`).
    pub slow_watchers: u64,
    /// Events that wait in outboxes (`etcd_debugging_mvcc_pending_events_total`).
    pub pending_events: u64,
    /// Events ever put into outboxes (`etcd_debugging_mvcc_events_total`).
    pub events_sent: u64,
    /// Times that the past could not be read and watchers were cancelled for it.
    pub history_failures: u64,
    /// Times that the hub was so far behind the writer that it dropped its queue and went to read the past instead.
    pub overruns: u64,
}

/// The counters behind [`HubStats`], shared by hub and outboxes.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) streams: AtomicU64,
    pub(super) watchers: AtomicU64,
    pub(super) slow_watchers: AtomicU64,
    pub(super) history_failures: AtomicU64,
    pub(super) overruns: AtomicU64,
    events_sent: AtomicU64,
    events_taken: AtomicU64,
}

impl Counters {
    pub(super) fn events_sent(&self, events: u64) {
        self.events_sent.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn events_taken(&self, events: u64) {
        self.events_taken.fetch_add(events, Ordering::Relaxed);
    }

    /// The numbers now.
    #[must_use]
    pub fn read(&self) -> HubStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let taken = load(&self.events_taken);
        let sent = load(&self.events_sent);
        HubStats {
            streams: load(&self.streams),
            watchers: load(&self.watchers),
            slow_watchers: load(&self.slow_watchers),
            pending_events: sent.saturating_sub(taken),
            events_sent: sent,
            history_failures: load(&self.history_failures),
            overruns: load(&self.overruns),
        }
    }
}
