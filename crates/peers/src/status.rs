//! Whether another member is connected, as operators are told. Source: etcd `rafthttp/peer_status.go`.

use std::sync::Arc;
use std::time::Duration;

use milepost_env::Clock;
use milepost_types::MemberId;
use parking_lot::Mutex;

use crate::journal::Journal;
use crate::metrics::Row;

pub(crate) struct Status {
    peer: MemberId,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    journal: Arc<dyn Journal>,
    row: Arc<Row>,
}

#[derive(Clone, Copy)]
enum State {
    /// Since this moment of the monotonic clock.
    Active(Duration),
    Inactive,
    /// It is none of ours any more.
    Closed,
}

impl Status {
    pub(crate) fn new(peer: MemberId, clock: Arc<dyn Clock>, journal: Arc<dyn Journal>, row: Arc<Row>) -> Self {
        Self { peer, state: Mutex::new(State::Inactive), clock, journal, row }
    }

    /// Something went through.
    pub(crate) fn activate(&self) {
        let mut state = self.state.lock();
        if let State::Inactive = *state {
            *state = State::Active(self.clock.monotonic());
            self.row.active.set(1);
            self.journal.info("peer became active", &[("peer-id", self.peer.to_string())]);
        }
    }

    /// `action` on `source` failed.
    pub(crate) fn deactivate(&self, source: &str, action: &str, why: &str) {
        let fields = [
            ("peer-id", self.peer.to_string()),
            ("error", format!("failed to {action} {} on {source} ({why})", self.peer)),
        ];
        let mut state = self.state.lock();
        if !matches!(*state, State::Active(_)) {
            return self.journal.debug("peer deactivated again", &fields);
        }
        *state = State::Inactive;
        self.row.active.set(0);
        self.row.disconnected.add(1);
        self.journal.warn("peer became inactive (message send to peer failed)", &fields);
    }

    /// Since when it is connected, by the monotonic clock.
    pub(crate) fn active_since(&self) -> Option<Duration> {
        match *self.state.lock() {
            State::Active(since) => Some(since),
            State::Inactive | State::Closed => None,
        }
    }

    /// Nothing that happens from now on counts.
    pub(crate) fn close(&self) {
        *self.state.lock() = State::Closed;
        self.row.active.set(0);
    }
}
