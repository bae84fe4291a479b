//! The task that owns a stream of watchers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;

use super::Update;
use super::resume::{self, Resume};
use crate::client::Client;
use crate::error::{Code, Error};
use crate::line::{Heard, Line};
use crate::method;

/// The wait before a broken stream is opened again; grows by a quarter up to the bound. etcd: `client/v3/watch.go`.
const REOPEN_FIRST: Duration = Duration::from_millis(1);
const REOPEN_MAX: Duration = Duration::from_millis(100);

/// Watch id of answers that are for nobody in particular.
const NOBODY: i64 = -1;

/// What the hub is asked.
pub(super) enum Command {
    Add { key: u64, request: pb::WatchCreateRequest, updates: mpsc::Sender<Update> },
    Drop(u64),
    Progress,
}

/// Invariants:
/// - every watcher is either in `waiting` (once) or in `established` (once), by its key;
/// - the request of `waiting`'s head is under way unless the line is idle, and then nobody waits.
pub(super) struct Hub {
    client: Client,
    require_leader: bool,
    inbox: mpsc::UnboundedReceiver<Command>,
    watchers: BTreeMap<u64, Watched>,
    /// To be created, in order. The server answers creations in order and without our key, so one at a time. A dropped
    /// watcher stays here until its answer has come.
    waiting: VecDeque<u64>,
    /// Server's watch id to our key.
    established: HashMap<i64, u64>,
    line: Line<pb::WatchResponse>,
    /// Asked for while the line was opening with another request.
    unsent: Vec<pb::WatchRequest>,
    reopen: Duration,
}

struct Watched {
    resume: Resume,
    updates: mpsc::Sender<Update>,
}

impl Hub {
    pub(super) fn new(client: Client, require_leader: bool, inbox: mpsc::UnboundedReceiver<Command>) -> Hub {
        Hub {
            client,
            require_leader,
            inbox,
            watchers: BTreeMap::new(),
            waiting: VecDeque::new(),
            established: HashMap::new(),
            line: Line::Idle,
            unsent: Vec::new(),
            reopen: REOPEN_FIRST,
        }
    }

    /// Works until nobody can ask any more.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                command = self.inbox.recv() => match command {
                    Some(command) => self.asked(command),
                    None => return,
                },
                heard = self.line.hear() => match heard {
                    Heard::Opened => self.opened(),
                    Heard::Answer(response) => self.answered(response).await,
                    Heard::Ended(error) => self.broken(error).await,
                },
            }
        }
    }

    fn asked(&mut self, command: Command) {
        match command {
            Command::Add { key, request, updates } => {
                self.watchers.insert(key, Watched { resume: Resume::new(request), updates });
                self.waiting.push_back(key);
                if self.waiting.len() == 1 {
                    self.create_next(Duration::ZERO);
                }
            }
            Command::Drop(key) => {
                self.watchers.remove(&key);
                let id = self.established.iter().find(|(_, watcher)| **watcher == key).map(|(id, _)| *id);
                if let Some(id) = id {
                    self.established.remove(&id);
                    self.cancel(id);
                }
            }
            Command::Progress => self.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}), Duration::ZERO),
        }
    }

    fn opened(&mut self) {
        for request in std::mem::take(&mut self.unsent) {
            self.line.send(&request);
        }
    }

    async fn answered(&mut self, response: pb::WatchResponse) {
        self.reopen = REOPEN_FIRST;
        if response.created {
            return self.created(response).await;
        }
        if response.watch_id == NOBODY && resume::is_progress(&response) {
            let keys: Vec<u64> = self.established.values().copied().collect();
            for key in keys {
                self.deliver(key, response.clone()).await;
            }
            return;
        }
        let id = response.watch_id;
        let Some(&key) = self.established.get(&id) else {
            // Its watcher was dropped, and the server has been told or is told now.
            if !response.canceled {
                self.cancel(id);
            }
            return;
        };
        if !response.canceled {
            return self.deliver(key, response).await;
        }
        self.established.remove(&id);
        let watched = self.watchers.remove(&key);
        if let Some(watched) = watched
            && (response.compact_revision != 0 || !response.cancel_reason.is_empty())
        {
            // A reader that has gone needs no farewell.
            let _ = watched.updates.send(Update { response, end: None }).await;
        }
    }

    /// The answer to the creation under way.
    async fn created(&mut self, response: pb::WatchResponse) {
        let Some(key) = self.waiting.pop_front() else { return };
        let refused = response.watch_id == NOBODY || response.canceled && !response.cancel_reason.is_empty();
        if refused {
            if let Some(watched) = self.watchers.remove(&key) {
                finish(&watched, Error::client(response.cancel_reason)).await;
            }
        } else if let Some(watched) = self.watchers.get_mut(&key) {
            watched.resume.created(&response);
            self.established.insert(response.watch_id, key);
        } else {
            self.cancel(response.watch_id);
        }
        self.create_next(Duration::ZERO);
    }

    async fn deliver(&mut self, key: u64, response: pb::WatchResponse) {
        let Some(watched) = self.watchers.get_mut(&key) else { return };
        let Some(response) = watched.resume.take(response) else { return };
        // A reader that has gone says so by a command.
        let _ = watched.updates.send(Update { response, end: None }).await;
    }

    /// The stream has ended: opens another one, or gives up if that cannot help.
    async fn broken(&mut self, error: Error) {
        self.established.clear();
        self.unsent.clear();
        // All watchers are to be created again, in the order of their making.
        self.waiting = self.watchers.keys().copied().collect();
        if is_hopeless(&error) {
            return self.give_up(error).await;
        }
        self.create_next(self.reopen);
        self.reopen = (self.reopen * 5 / 4).min(REOPEN_MAX);
    }

    async fn give_up(&mut self, error: Error) {
        self.waiting.clear();
        for watched in std::mem::take(&mut self.watchers).into_values() {
            finish(&watched, error.clone()).await;
        }
    }

    /// Asks for the watcher that waits longest, if there is one: on the open stream, or on a new one after `wait`.
    fn create_next(&mut self, wait: Duration) {
        // Watchers that were dropped before their creation was asked for are not created.
        while self.waiting.front().is_some_and(|key| !self.watchers.contains_key(key)) {
            self.waiting.pop_front();
        }
        let Some(watched) = self.waiting.front().and_then(|key| self.watchers.get(key)) else { return };
        self.ask(RequestUnion::CreateRequest(watched.resume.request().clone()), wait);
    }

    fn cancel(&mut self, watch_id: i64) {
        self.line.send(&pb::WatchRequest {
            request_union: Some(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })),
        });
    }

    fn ask(&mut self, request: RequestUnion, wait: Duration) {
        let request = pb::WatchRequest { request_union: Some(request) };
        match self.line {
            Line::Idle => self.line.open(&self.client, &method::WATCH, request, self.require_leader, wait),
            Line::Open(_) => self.line.send(&request),
            Line::Opening(_) => self.unsent.push(request),
        }
    }
}

async fn finish(watched: &Watched, error: Error) {
    let response =
        pb::WatchResponse { header: Some(pb::ResponseHeader::default()), canceled: true, ..Default::default() };
    let _ = watched.updates.send(Update { response, end: Some(error) }).await;
}

/// Whether another stream would end the same way. A member without a leader says so to those who asked to be told.
fn is_hopeless(error: &Error) -> bool {
    error.is("no leader") || !matches!(error.code(), Code::Unavailable | Code::Internal)
}
