//! Connections to several endpoints, taken in turns.
//!
//! ```text
//!  endpoint task 1 ── dial ─► ready ──(broken, or going away)──► dial again
//!  endpoint task 2 ── dial ─► failed ── wait, longer each time ─► dial again
//!                       │
//!  calls ── pick ◄──────┘  the next ready one; none ready: wait for one until the deadline
//! ```
//! Every endpoint is dialled at once and kept connected, so that a call fails over without waiting: as gRPC's
//! `round_robin`, which etcd's client uses.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connection::{Connection, KeepAlive};
use crate::deadline::Deadline;
use crate::dial;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::tls::TlsDialler;

/// First wait after a failed attempt, how it grows, and its bound. gRPC starts at a second; a tool that a person waits
/// for, and a watch that is to resume, are better off sooner, and a member is not hurt by a few connects.
const WAIT_FIRST: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(3);

/// A connection that lived as long as this was a good one: its successor is dialled without a wait.
const GOOD_LIFE: Duration = Duration::from_secs(1);

/// A group of endpoints. Dropping it closes its connections.
pub(crate) struct Balancer {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Never held across an await.
    state: Mutex<State>,
    /// Somebody became ready.
    ready: Notify,
}

struct State {
    slots: Vec<Slot>,
    /// Which slot is asked first next time.
    turn: usize,
    last_error: Option<String>,
}

/// One endpoint's connection.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// Counts connections: a complaint about an old one must not end a new one.
    generation: u64,
    /// Wakes the endpoint's task when its connection takes no more calls.
    retired: Arc<Notify>,
}

/// A connection for one call, and where to complain about it.
pub(crate) struct Picked {
    pub(crate) connection: Connection,
    slot: usize,
    generation: u64,
}

impl Balancer {
    /// Begins to dial. Must be called inside of a runtime.
    pub(crate) fn new(endpoints: Vec<Endpoint>, tls: Option<TlsDialler>, keepalive: KeepAlive) -> Balancer {
        let slots = endpoints.iter().map(|_| Slot::default()).collect();
        let state = Mutex::new(State { slots, turn: 0, last_error: None });
        let shared = Arc::new(Shared { state, ready: Notify::new() });
        let tasks = endpoints.into_iter().enumerate().map(|(slot, endpoint)| {
            let line = Line { slot, endpoint, tls: tls.clone(), keepalive };
            tokio::spawn(line.hold(Arc::clone(&shared)))
        });
        let tasks = tasks.collect();
        Balancer { shared, tasks }
    }

    /// The next ready connection, waiting for one until the deadline.
    ///
    /// # Errors
    /// The deadline has passed; the error's detail is what went wrong last.
    pub(crate) async fn pick(&self, deadline: Deadline) -> Result<Picked, Error> {
        let wait = async {
            loop {
                let ready = self.shared.ready.notified();
                tokio::pin!(ready);
                // Registered before looking: what happens in between is not missed.
                ready.as_mut().enable();
                if let Some(picked) = self.shared.lock().pick() {
                    return Ok(picked);
                }
                ready.await;
            }
        };
        deadline.bound(wait).await.map_err(|error| {
            let last = self.shared.lock().last_error.clone();
            match last {
                Some(last) => Error::deadline(Some(&format!("latest balancer error: {last}"))),
                None => error,
            }
        })
    }

    /// Takes a connection out of the turns: it takes no more calls.
    pub(crate) fn retire(&self, picked: &Picked) {
        let mut state = self.shared.lock();
        let slot = &mut state.slots[picked.slot];
        if slot.generation == picked.generation {
            slot.connection = None;
            slot.retired.notify_one();
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn connected(&self, slot: usize, connection: Connection) -> Arc<Notify> {
        let mut state = self.lock();
        let slot = &mut state.slots[slot];
        slot.generation += 1;
        slot.connection = Some(connection);
        slot.retired = Arc::default();
        let retired = Arc::clone(&slot.retired);
        drop(state);
        self.ready.notify_waiters();
        retired
    }
}

impl State {
    fn pick(&mut self) -> Option<Picked> {
        let count = self.slots.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let slot = &self.slots[index];
            if let Some(connection) = &slot.connection {
                self.turn = (index + 1) % count;
                return Some(Picked { connection: connection.clone(), slot: index, generation: slot.generation });
            }
        }
        None
    }
}

/// What one endpoint's task knows.
struct Line {
    slot: usize,
    endpoint: Endpoint,
    tls: Option<TlsDialler>,
    keepalive: KeepAlive,
}

impl Line {
    /// Keeps the endpoint connected for ever.
    async fn hold(self, shared: Arc<Shared>) {
        // Connections that take no more calls, and still serve old ones. Ended with this task.
        let mut leaving = tokio::task::JoinSet::new();
        let mut wait = WAIT_FIRST;
        loop {
            let (connection, driver) = match self.connect().await {
                Ok(connected) => connected,
                Err(error) => {
                    shared.lock().last_error = Some(error);
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(WAIT_MAX);
                    continue;
                }
            };
            let born = Instant::now();
            let retired = shared.connected(self.slot, connection);
            let driver = leaving.spawn(driver);
            tokio::select! {
                () = ended(&mut leaving, &driver) => {}
                () = retired.notified() => {}
            }
            shared.lock().slots[self.slot].connection = None;
            if born.elapsed() >= GOOD_LIFE {
                wait = WAIT_FIRST;
            } else {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(WAIT_MAX);
            }
        }
    }

    async fn connect(&self) -> Result<(Connection, impl Future<Output = ()> + Send + use<>), String> {
        let pipe = dial::dial(&self.endpoint).await?;
        let pipe = match &self.tls {
            None => pipe,
            Some(tls) => tls.wrap(pipe, &self.endpoint.server_name).await?,
        };
        let peer = self.endpoint.address.text();
        Connection::over(pipe, self.tls.is_some(), &self.endpoint.authority, peer, self.keepalive).await
    }
}

/// Waits for one task of `tasks`, letting others end meanwhile.
async fn ended(tasks: &mut tokio::task::JoinSet<()>, which: &tokio::task::AbortHandle) {
    while let Some(end) = tasks.join_next_with_id().await {
        let id = end.map_or_else(|error| error.id(), |(id, ())| id);
        if id == which.id() {
            return;
        }
    }
}
