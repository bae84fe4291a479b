//! Snapshots on their way out: Raft says that a follower needs one, and of which index at least; here one is made.
//!
//! What goes out is the state as it is when the thread comes to it, which is at or above what Raft asked for: the message
//! is given that state's index, term and configuration. Raft goes by what the follower acknowledges, so more is as good.
//!
//! From the moment Raft asks until a while after the end the log keeps what follows the index that Raft asked for: the
//! follower goes on from there. Compaction deletes nothing while the database is read; who reads too slowly is cut off.

use super::raft_loop::Command;
use super::shared::Shared;
use crate::core::{Input, Role};
use crate::letters::{Letters, SnapshotBody, SnapshotLetter};
use crate::log::Value;
use milepost_machine::{Database, DatabaseError, Fatal};
use milepost_proto::raftpb;
use parking_lot::Mutex;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Snapshots on their way at once: each is a pass through all of history, and keeps compaction from deleting.
const AT_ONCE: usize = 2;
/// How long the log is kept after a transfer, for the follower to ask for what follows. Source: etcd
/// `releaseDelayAfterSnapshot`.
const KEEP_AFTER: Duration = Duration::from_secs(30);
/// A follower that takes less than this is cut off.
const PACE_BYTES_PER_SECOND: u64 = 1 << 20;
/// What every follower is given beside that.
const PATIENCE: Duration = Duration::from_secs(600);

/// Which entries followers are about to ask for.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<Vec<Hold>>);

#[derive(Debug)]
struct Hold {
    number: u64,
    /// Entries after this one are kept.
    index: u64,
    /// `None`: the transfer goes on.
    until: Option<Duration>,
}

impl Holds {
    /// Begins a hold; `None` if there are as many transfers as there may be.
    fn begin(&self, index: u64) -> Option<u64> {
        let mut holds = self.0.lock();
        if holds.iter().filter(|hold| hold.until.is_none()).count() >= AT_ONCE {
            return None;
        }
        let number = holds.iter().map(|hold| hold.number + 1).max().unwrap_or(0);
        holds.push(Hold { number, index, until: None });
        Some(number)
    }

    fn end(&self, number: u64, until: Duration) {
        let mut holds = self.0.lock();
        holds.iter_mut().filter(|hold| hold.number == number).for_each(|hold| hold.until = Some(until));
    }

    /// Entries after this one must be kept.
    pub fn lowest(&self, now: Duration) -> Option<u64> {
        let mut holds = self.0.lock();
        holds.retain(|hold| hold.until.is_none_or(|until| until > now));
        holds.iter().map(|hold| hold.index).min()
    }
}

/// A transfer: ends when it is dropped, by whoever has it then.
struct Transfer {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.shared.holds.end(self.number, self.shared.now() + KEEP_AFTER);
    }
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Record(#[from] Fatal),
    #[error("the store stands at index {at}, and {asked} was asked for")]
    Behind { at: u64, asked: u64 },
    #[error("this member no longer leads")]
    LeadsNoMore,
}

/// The making of one snapshot; may take minutes.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Does a job somewhere else.
pub(crate) type Spawn = Box<dyn Fn(Job) -> io::Result<()> + Send>;

/// Each job on a thread of its own.
pub(crate) fn on_threads() -> Spawn {
    Box::new(|job| std::thread::Builder::new().name("send-snapshot".into()).spawn(job).map(drop))
}

/// Takes a message of Raft's that wants a snapshot: elsewhere one is made and handed to `letters`. Whatever comes in
/// between, Raft hears of a failure and asks again.
pub(crate) fn send(shared: &Arc<Shared>, letters: &Arc<dyn Letters>, spawn: &Spawn, message: raftpb::Message) {
    let to = message.to();
    let asked = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()).map_or(0, |it| it.index());
    let Some(number) = shared.holds.begin(asked) else {
        return failed(shared, to);
    };
    let transfer = Transfer { shared: Arc::clone(shared), number };
    let letters = Arc::clone(letters);
    let job = move || {
        let shared = Arc::clone(&transfer.shared);
        match letter(transfer, message, asked) {
            Ok(letter) => letters.send_snapshot(letter),
            Err(error) => {
                let fields = [("to", Value::from(format!("{to:x}"))), ("error", Value::from(error.to_string()))];
                shared.log.warn("a snapshot for a follower could not be made", &fields);
                failed(&shared, to);
            }
        }
    };
    if spawn(Box::new(job)).is_err() {
        shared.log.warn("no thread for a snapshot; raise the limit of processes (ulimit -u)", &[]);
        failed(shared, to);
    }
}

fn failed(shared: &Shared, to: u64) {
    // A closed queue: the node stops.
    let _ = shared.to_raft.push(Command::Input(Input::SnapshotSent { to, ok: false }));
}

fn letter(transfer: Transfer, mut message: raftpb::Message, asked: u64) -> Result<SnapshotLetter, SendError> {
    let shared = Arc::clone(&transfer.shared);
    let database = Database::prepare(&shared.store())?;
    let at = database.applied().0;
    if at < asked {
        // The store of before: a received snapshot is about to take its place.
        return Err(SendError::Behind { at, asked });
    }
    let positions = &shared.positions;
    let leads = Role::from_number(positions.role.load(Ordering::Relaxed)) == Role::Leader;
    if !leads || positions.term.load(Ordering::Relaxed) != message.term() {
        // The state may be of a later term than the message.
        return Err(SendError::LeadsNoMore);
    }
    let metadata = raftpb::SnapshotMetadata {
        conf_state: Some(database.conf_state()?),
        index: Some(at),
        term: Some(database.term().0),
    };
    let data = database.membership_v2_json()?;
    message.snapshot = Some(raftpb::Snapshot { data: Some(data.into()), metadata: Some(metadata) });
    let total_bytes = database.total_bytes();
    let fields = [
        ("snapshot-index", Value::from(at)),
        ("to", Value::from(format!("{:x}", message.to()))),
        ("bytes", Value::from(total_bytes)),
    ];
    shared.log.info("sending merged snapshot", &fields);
    let until = shared.now() + PATIENCE + Duration::from_secs(total_bytes / PACE_BYTES_PER_SECOND);
    Ok(SnapshotLetter { message, total_bytes, body: Box::new(Body { database, until, transfer }) })
}

struct Body {
    database: Database,
    until: Duration,
    transfer: Transfer,
}

impl SnapshotBody for Body {
    fn write(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        let Self { database, until, transfer } = *self;
        database.write(Paced { out, until, shared: &transfer.shared })?.flush()
    }
}

/// Ends the stream when its time is over: compactions wait for it.
struct Paced<'o> {
    out: &'o mut dyn Write,
    until: Duration,
    shared: &'o Shared,
}

impl Write for Paced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.shared.now() > self.until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the follower takes the snapshot too slowly"));
        }
        if self.shared.stopped().is_some() {
            return Err(io::Error::other("the member is stopping"));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{AT_ONCE, Holds};
    use std::time::Duration;

    #[test]
    fn holds_end_a_while_after_their_transfers() {
        let holds = Holds::default();
        let at = Duration::from_secs;
        let (one, two) = (holds.begin(70).expect("a place"), holds.begin(50).expect("a place"));
        assert_eq!((AT_ONCE, holds.begin(40)), (2, None));
        assert_eq!(holds.lowest(at(1)), Some(50));
        holds.end(two, at(31));
        assert_eq!(holds.lowest(at(30)), Some(50), "the follower may still ask");
        let three = holds.begin(60).expect("a place is free");
        assert_eq!(holds.lowest(at(31)), Some(60));
        holds.end(one, at(40));
        holds.end(three, at(40));
        assert_eq!(holds.lowest(at(40)), None);
    }
}
