//! Watching keys: events as they happen, across broken connections.
//!
//! ```text
//!  Watcher a ◄─┐                                  ┌─ created a, events a, progress …
//!  Watcher b ◄─┼─ hub task ◄── one gRPC stream ◄──┤
//!  Watches ────┘    │                             └─ broken: opened again, every watcher from where it was
//!   add, progress   └─ knows for each watcher the next revision it has not seen
//! ```
//! - Events reach a watcher once, in order, none missing, as long as history is kept; what the server has compacted ends
//!   the watcher with `compact_revision` set.
//! - A watcher that is not read holds up the others of its [`Watches`], and in the end the server, which then falls back
//!   to reading history: memory stays bounded.
//! - Dropping a watcher cancels it at the server.

mod hub;
mod resume;

use milepost_proto::etcdserverpb as pb;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::error::{Code, Error};
use hub::{Command, Hub};

/// Updates that wait for a watcher's reader before the stream is left alone.
const UPDATES_MAX: usize = 16;

/// Watchers that share one stream to the server, and so one progress.
pub struct Watches {
    commands: mpsc::UnboundedSender<Command>,
    next_key: u64,
}

/// One watcher's updates.
pub struct Watcher {
    key: u64,
    updates: mpsc::Receiver<Update>,
    commands: mpsc::UnboundedSender<Command>,
}

/// What a watcher hears.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// As the server sent it, fragments joined. The acknowledgement of the creation is not among the updates.
    pub response: pb::WatchResponse,
    /// Set with the last update of a watcher that the server or a hopeless connection ended, if a reason is known.
    pub end: Option<Error>,
}

impl Update {
    /// Why this update is the last one; `None` while the watcher lives.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        if let Some(end) = &self.end {
            return Some(end.clone());
        }
        if self.response.compact_revision != 0 {
            let text = "etcdserver: mvcc: required revision has been compacted";
            return Some(Error::status(Code::OutOfRange, text));
        }
        if self.response.canceled {
            return Some(match self.response.cancel_reason.as_str() {
                "" => Error::status(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
                reason => Error::status(Code::FailedPrecondition, reason),
            });
        }
        None
    }

    /// Whether it only says how far the watcher has come.
    #[must_use]
    pub fn is_progress(&self) -> bool {
        resume::is_progress(&self.response)
    }
}

impl Client {
    /// A group of watchers. With `require_leader`, they end with `etcdserver: no leader` while their member has none.
    /// Nothing is sent before the first watcher is added. Must be called inside of a runtime.
    #[must_use]
    pub fn watches(&self, require_leader: bool) -> Watches {
        let (commands, inbox) = mpsc::unbounded_channel();
        tokio::spawn(Hub::new(self.clone(), require_leader, inbox).run());
        Watches { commands, next_key: 0 }
    }

    /// One watcher with a stream of its own.
    #[must_use]
    pub fn watch(&self, request: pb::WatchCreateRequest) -> Watcher {
        self.watches(false).add(request)
    }
}

impl Watches {
    /// Asks for one more watcher, and does not wait for it. `request.watch_id` must be 0: the server numbers watchers.
    pub fn add(&mut self, request: pb::WatchCreateRequest) -> Watcher {
        let (sender, updates) = mpsc::channel(UPDATES_MAX);
        let key = self.next_key;
        self.next_key += 1;
        // The hub lives as long as anybody can send to it.
        let _ = self.commands.send(Command::Add { key, request, updates: sender });
        Watcher { key, updates, commands: self.commands.clone() }
    }

    /// Asks the server how far it is; the answer is an update of every watcher of the group.
    pub fn request_progress(&self) {
        let _ = self.commands.send(Command::Progress);
    }
}

impl Watcher {
    /// The next update; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Drop(self.key));
    }
}
