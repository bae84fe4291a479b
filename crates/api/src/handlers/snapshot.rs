//! The store as a database file of etcd's, streamed to one client.

use std::io::{self, Write};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use milepost_machine::{Database, DatabaseError};
use milepost_mvcc::Store;
use milepost_proto::etcdserverpb as pb;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::door::{Door, confused};
use crate::grpc::Stage;
use crate::status::{self, Code, Status};

/// Bytes of the file in one message.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for the client, at most.
const CHUNKS_WAITING: usize = 8;
/// Snapshots on their way at once, over all clients: each has a thread, and keeps compactions from deleting.
pub(crate) const AT_ONCE: usize = 4;
/// No compaction deletes anything while the stream lasts: a client that takes less than this is cut off.
const PACE_BYTES_PER_SECOND: u64 = 1 << 20;
/// What every client is given beside that.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the thread that reads the store tells the stream.
enum Piece {
    /// Once, before anything else: length of the file, and the version of its schema.
    Begin { total_bytes: u64, version: String },
    /// The next bytes of the file.
    Bytes(Bytes),
    /// The end: the checksum of all bytes.
    Sum(Bytes),
    /// It could not be read.
    Failed(String),
}

/// Streams the file, then its SHA-256.
pub(crate) async fn snapshot(stage: Stage, request: Result<pb::SnapshotRequest, Status>) -> Status {
    let done = match request {
        Ok(pb::SnapshotRequest {}) => {
            let started = Instant::now();
            let done = stream(&stage).await;
            stage.door.metrics.snapshot.observe(started.elapsed());
            done
        }
        Err(status) => Err(status),
    };
    done.err().unwrap_or(Status::new(Code::Ok, ""))
}

async fn stream(stage: &Stage) -> Result<(), Status> {
    let door = &stage.door;
    let place = Arc::clone(&door.snapshots).try_acquire_owned().map_err(|_| {
        let text = format!("milepost: {AT_ONCE} snapshots are being taken already; try again when one is done");
        Status::with(Code::ResourceExhausted, text)
    })?;
    let (pieces, mut next) = mpsc::channel(CHUNKS_WAITING);
    let store = door.reader().store();
    // A thread of its own: it may wait for the client for minutes, and nobody waits for it.
    std::thread::Builder::new()
        .name("snapshot".into())
        .spawn(move || {
            read(&store, &pieces);
            drop(place);
        })
        .map_err(|why| Status::with(Code::Unknown, format!("no thread for a snapshot: {why}")))?;
    let Some(begin) = receive(door, &mut next).await? else { return Err(confused("a snapshot broke off")) };
    let Piece::Begin { total_bytes, version } = begin else { return Err(confused("a snapshot without its length")) };
    send(stage, &mut next, total_bytes, &version).await
}

async fn send(stage: &Stage, next: &mut mpsc::Receiver<Piece>, total_bytes: u64, version: &str) -> Result<(), Status> {
    let mut left = total_bytes;
    loop {
        let (blob, is_end) = match receive(&stage.door, next).await? {
            Some(Piece::Bytes(blob)) => (blob, false),
            Some(Piece::Sum(sum)) => (sum, true),
            Some(Piece::Begin { .. } | Piece::Failed(_)) => return Err(confused("a snapshot began twice")),
            // Without its checksum a file is not whole: the thread has run out of patience with this client.
            None => {
                let text = format!("the snapshot of {total_bytes} bytes was not taken in time");
                return Err(Status::with(Code::DeadlineExceeded, text));
            }
        };
        if !is_end {
            left = left.saturating_sub(blob.len() as u64);
        }
        let message = pb::SnapshotResponse { header: None, remaining_bytes: left, blob, version: version.to_owned() };
        stage.outlet.send(&message);
        stage.outlet.drained().await;
        if is_end {
            return Ok(());
        }
    }
}

/// The next piece; `None`: the thread has ended.
async fn receive(door: &Rc<Door>, next: &mut mpsc::Receiver<Piece>) -> Result<Option<Piece>, Status> {
    tokio::select! {
        piece = next.recv() => match piece {
            Some(Piece::Failed(why)) => Err(Status::with(Code::Unknown, why)),
            piece => Ok(piece),
        },
        () = door.stopping() => Err(status::STOPPED),
    }
}

/// Reads the store from beginning to end; ends early when the client is gone.
fn read(store: &Store, pieces: &mpsc::Sender<Piece>) {
    let mut until = Instant::now() + PATIENCE;
    let written = Database::prepare(store).and_then(|database| {
        until += Duration::from_secs(database.total_bytes() / PACE_BYTES_PER_SECOND);
        let version = database.storage_version().map(|version| version.to_string()).unwrap_or_default();
        let begin = Piece::Begin { total_bytes: database.total_bytes(), version };
        let out = Chunks { pieces, until, gathered: BytesMut::with_capacity(CHUNK_BYTES), sum: Sha256::new() };
        out.pass(begin).map_err(|gone| DatabaseError::Emit(gone.into()))?;
        let out = database.write(out)?;
        let sum = Bytes::copy_from_slice(&out.sum.finalize());
        pass(pieces, until, Piece::Sum(sum)).map_err(|gone| DatabaseError::Emit(gone.into()))
    });
    if let Err(why) = written {
        // Without a listener there is nobody to tell.
        let _ = pass(pieces, until, Piece::Failed(why.to_string()));
    }
}

/// Hands `piece` on. The limit is kept here: with its window closed, a client's stream is not looked at by anybody.
fn pass(pieces: &mpsc::Sender<Piece>, until: Instant, piece: Piece) -> io::Result<()> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut room = pin!(pieces.reserve());
    loop {
        match room.as_mut().poll(&mut context) {
            Poll::Ready(Ok(place)) => {
                place.send(piece);
                return Ok(());
            }
            Poll::Ready(Err(_)) => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone")),
            Poll::Pending => {}
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes the snapshot too slowly"));
        }
        std::thread::park_timeout(left);
    }
}

/// Goes on with the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Gathers pages into chunks and sums them up.
struct Chunks<'p> {
    pieces: &'p mpsc::Sender<Piece>,
    until: Instant,
    gathered: BytesMut,
    sum: Sha256,
}

impl Chunks<'_> {
    fn pass(&self, piece: Piece) -> io::Result<()> {
        pass(self.pieces, self.until, piece)
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..taken]);
        if self.gathered.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.sum.update(&self.gathered);
        let chunk = std::mem::replace(&mut self.gathered, BytesMut::with_capacity(CHUNK_BYTES));
        self.pass(Piece::Bytes(chunk.freeze()))
    }
}
