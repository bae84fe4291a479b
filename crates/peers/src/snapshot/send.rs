//! A snapshot to another member. Source: etcd `rafthttp/snapshot_sender.go`.
//!
//! ```text
//!  thread: write(…) ──► [chunks] ──► body of POST /raft/snapshot ──► socket
//! ```
//! The thread waits when the chunks are not taken: memory is bounded, and the store is read at the network's pace.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::CONTENT_TYPE;
use http_body::{Body, Frame};
use milepost_proto::raftpb;
use milepost_types::MemberId;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{CHUNKS, Place, WriteBody};
use crate::exchange::{Answer, chain};
use crate::framing::put_message;
use crate::peer::Peer;
use crate::pipeline;
use crate::transport::Shared;

/// Snapshots on their way at once, to all members together.
const AT_ONCE: usize = 4;
/// Bytes of one chunk.
const CHUNK_BYTES: usize = 64 << 10;
/// The other end must take something within this.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How long the other end may work on what it has received.
const ANSWER_MAX: Duration = Duration::from_secs(1800);
/// Longest answer: a sentence.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Tells how a snapshot ended, whatever becomes of its task.
struct Report {
    shared: Arc<Shared>,
    to: MemberId,
    is_told: bool,
}

impl Report {
    fn tell(&mut self, ok: bool) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.shared.inbox.snapshot_sent(self.to, ok);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.tell(false);
    }
}

pub(crate) fn start(shared: &Arc<Shared>, message: raftpb::Message, total_bytes: u64, write: WriteBody) {
    let to = MemberId(message.to());
    let report = Report { shared: Arc::clone(shared), to, is_told: false };
    let (Some(peer), Some(runtime)) = (shared.way_to(to), shared.runtime()) else { return };
    runtime.spawn(send(Arc::clone(shared), peer, message, total_bytes, write, report));
}

async fn send(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    message: raftpb::Message,
    total_bytes: u64,
    write: WriteBody,
    mut report: Report,
) {
    let Some(_place) = Place::take(&shared.sending, AT_ONCE) else {
        let fields = [("remote-peer-id", peer.id.to_string())];
        return shared.journal.warn("dropped a database snapshot: too many are on their way already", &fields);
    };
    let index =
        message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()).map_or(0, |meta| meta.index());
    let fields = [
        ("snapshot-index", index.to_string()),
        ("remote-peer-id", peer.id.to_string()),
        ("bytes", total_bytes.to_string()),
    ];
    shared.journal.info("sending database snapshot", &fields);
    let transfers = &peer.row.snapshots_sent;
    transfers.under_way.add(1);
    let start = shared.clock.monotonic();
    let url = peer.picker.pick();
    let result = post(&shared, &peer, &url, &message, write).await;
    transfers.under_way.take_one();
    match result {
        Ok(bytes) => {
            peer.status.activate();
            report.tell(true);
            peer.row.sent_bytes.add(usize::try_from(bytes).unwrap_or(usize::MAX));
            transfers.done.add(1);
            transfers.seconds.observe(shared.clock.monotonic().saturating_sub(start));
            shared.journal.info("sent database snapshot", &fields);
        }
        Err(why) => {
            let [index, to, bytes] = fields;
            shared.journal.warn("failed to send database snapshot", &[index, to, bytes, ("error", why.clone())]);
            peer.picker.unreachable(&url);
            peer.status.deactivate("sendMsgSnap", "post", &why);
            shared.inbox.unreachable(peer.id);
            report.tell(false);
            peer.row.sent_failures.add(1);
            transfers.failed.add(1);
        }
    }
}

async fn post(
    shared: &Shared,
    peer: &Peer,
    url: &crate::url::PeerUrl,
    message: &raftpb::Message,
    write: WriteBody,
) -> Result<u64, String> {
    let (mut sender, connection) = shared.dialler.http(url).await?;
    let mut head = BytesMut::new();
    put_message(message, &mut head);
    let (to_socket, chunks) = mpsc::channel(CHUNKS);
    let progress = Arc::<Progress>::default();
    let body = Sending { head: Some(head.freeze()), chunks, progress: Arc::clone(&progress), is_ended: false };
    let request = shared.identity.request(Method::POST, url, "/raft/snapshot");
    let request = request.header(CONTENT_TYPE, "application/octet-stream").body(body).map_err(|why| why.to_string())?;
    std::thread::Builder::new()
        .name("snapshot-out".into())
        .spawn(move || run(write, to_socket))
        .map_err(|why| format!("no thread for the snapshot: {why}"))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|why| chain(&why))?;
        let answer = timeout(STALL_MAX, Answer::read(response, ANSWER_BYTES_MAX)).await;
        pipeline::check(shared, &answer.map_err(|_| "i/o timeout".to_owned())??, url, peer.id.0)
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result?,
        why = watch(&progress) => return Err(why),
        // What it has received is still to be read.
        _ = connection => exchange.await?,
    }
    Ok(progress.bytes.load(Ordering::Relaxed))
}

/// The writing thread.
fn run(write: WriteBody, to_socket: mpsc::Sender<Piece>) {
    let mut writer = ChunkWriter { to_socket, chunk: BytesMut::with_capacity(CHUNK_BYTES) };
    let last = match write(&mut writer).and_then(|()| io::Write::flush(&mut writer)) {
        Ok(()) => Piece::End,
        Err(why) => Piece::Broken(why),
    };
    // Nobody listens if it was the socket that broke.
    let _ = writer.to_socket.blocking_send(last);
}

enum Piece {
    Chunk(Bytes),
    End,
    Broken(io::Error),
}

struct ChunkWriter {
    to_socket: mpsc::Sender<Piece>,
    chunk: BytesMut,
}

impl io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.chunk.len();
        let taken = bytes.len().min(room);
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK_BYTES)).freeze();
        let sent = self.to_socket.blocking_send(Piece::Chunk(chunk));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the other member is gone"))
    }
}

#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    /// 1 when the whole body has gone to the socket.
    ended: AtomicU64,
}

/// Ends with a reason when nothing moves.
async fn watch(progress: &Progress) -> String {
    let mut seen = 0;
    while progress.ended.load(Ordering::Relaxed) == 0 {
        sleep(STALL_MAX).await;
        let now = progress.bytes.load(Ordering::Relaxed);
        if now == seen && progress.ended.load(Ordering::Relaxed) == 0 {
            return format!("nothing was taken for {STALL_MAX:?}");
        }
        seen = now;
    }
    sleep(ANSWER_MAX).await;
    format!("no answer within {ANSWER_MAX:?}")
}

/// The body of the request.
struct Sending {
    head: Option<Bytes>,
    chunks: mpsc::Receiver<Piece>,
    progress: Arc<Progress>,
    is_ended: bool,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if self.is_ended {
            return Poll::Ready(None);
        }
        match std::task::ready!(self.chunks.poll_recv(cx)) {
            Some(Piece::Chunk(chunk)) => {
                self.progress.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Some(Piece::End) => {
                self.is_ended = true;
                self.progress.ended.store(1, Ordering::Relaxed);
                Poll::Ready(None)
            }
            Some(Piece::Broken(why)) => Poll::Ready(Some(Err(why))),
            // The thread died: the other end must not take what it has for everything.
            None => Poll::Ready(Some(Err(io::Error::other("the snapshot was not written to its end")))),
        }
    }
}
