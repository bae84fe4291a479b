//! A snapshot from another member. Source: etcd `snapshotHandler`.
//!
//! ```text
//!  socket ──► body of the request ──► [chunks] ──► thread: Inbox::snapshot(message, reader)
//! ```
//! The request is answered when the inbox has made the snapshot its own; a body that breaks off breaks off for the inbox.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use milepost_proto::{Message, raftpb};
use milepost_types::MemberId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{CHUNKS, Place};
use crate::exchange::chain;
use crate::framing::{MSG_SNAP, type_name};
use crate::service::{ServiceBody, admit, check, error, meet, no_content};
use crate::transport::Shared;

/// Snapshots that are taken at once.
const AT_ONCE: usize = 2;
/// Longest message before the database. Source: etcd `snapshotLimitByte`.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// The sender must send something within this.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub(crate) async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<ServiceBody> {
    if let Some(refused) = admit(shared, &request, &Method::POST) {
        shared.metrics.unknown_snapshots.add(1);
        return refused;
    }
    meet(shared, &request);
    let Some(_place) = Place::take(&shared.receiving, AT_ONCE) else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "other snapshots are being received");
    };
    let mut body = request.into_body();
    let local = ("local-member-id", shared.identity.member.to_string());
    let (message, rest) = match head(&mut body).await {
        Ok(read) => read,
        Err(why) => {
            shared.metrics.unknown_snapshots.add(1);
            shared.journal.warn("failed to decode Raft message", &[local, ("error", why.clone())]);
            return error(StatusCode::BAD_REQUEST, &format!("failed to decode raft message ({why})"));
        }
    };
    let from = MemberId(message.from());
    let row = shared.metrics.of(from);
    let sender = ("remote-snapshot-sender-id", from.to_string());
    if message.r#type() != MSG_SNAP {
        row.snapshots_received.failed.add(1);
        let kind = ("message-type", type_name(message.r#type()).to_owned());
        shared.journal.warn("unexpected Raft message type", &[local, sender, kind]);
        return error(StatusCode::BAD_REQUEST, "wrong raft message type");
    }
    if let Some(refused) = check(shared, &message) {
        return refused;
    }
    let index =
        message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()).map_or(0, |meta| meta.index());
    let fields = [local, sender, ("incoming-snapshot-index", index.to_string())];
    shared.journal.info("receiving database snapshot", &fields);
    row.received_bytes.add(message.encoded_len());
    row.snapshots_received.under_way.add(1);
    let start = shared.clock.monotonic();
    let result = hand_on(shared, message, rest, body).await;
    row.snapshots_received.under_way.take_one();
    let took = shared.clock.monotonic().saturating_sub(start);
    let [local, sender, index] = fields;
    match result {
        Ok(bytes) => {
            row.received_bytes.add(bytes);
            row.snapshots_received.done.add(1);
            row.snapshots_received.seconds.observe(took);
            let size = ("incoming-snapshot-size-bytes", bytes.to_string());
            let took = ("download-took", format!("{took:?}"));
            shared.journal.info("received and saved database snapshot", &[local, sender, index, size, took]);
            no_content()
        }
        Err(why) => {
            row.snapshots_received.failed.add(1);
            let fields = [local, sender, index, ("error", why.clone())];
            shared.journal.warn("failed to save incoming database snapshot", &fields);
            error(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed to save KV snapshot ({why})"))
        }
    }
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, String> {
    loop {
        let frame = timeout(SILENCE_MAX, std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))).await;
        match frame {
            Err(_) => return Err(format!("nothing came for {SILENCE_MAX:?}")),
            Ok(None) => return Ok(None),
            Ok(Some(Err(why))) => return Err(chain(&why)),
            Ok(Some(Ok(frame))) => {
                if let Ok(chunk) = frame.into_data() {
                    return Ok(Some(chunk));
                }
            }
        }
    }
}

/// The message, and what of the database came with it.
async fn head(body: &mut Incoming) -> Result<(raftpb::Message, Bytes), String> {
    let mut bytes = BytesMut::new();
    loop {
        if let Some(mut length) = bytes.get(..8) {
            let length = length.get_u64();
            if length > MESSAGE_BYTES_MAX {
                return Err(format!("a message of {length} bytes is announced; {MESSAGE_BYTES_MAX} are the most"));
            }
            let end = 8 + usize::try_from(length).map_err(|why| why.to_string())?;
            if bytes.len() >= end {
                let rest = bytes.split_off(end).freeze();
                bytes.advance(8);
                let message = raftpb::Message::decode(bytes.freeze()).map_err(|why| why.to_string())?;
                return Ok((message, rest));
            }
        }
        let chunk = next(body).await?.ok_or("unexpected EOF")?;
        bytes.extend_from_slice(&chunk);
    }
}

/// Gives message and database to the inbox; how many bytes the database had.
async fn hand_on(
    shared: &Arc<Shared>,
    message: raftpb::Message,
    rest: Bytes,
    mut body: Incoming,
) -> Result<usize, String> {
    let (to_thread, chunks) = mpsc::channel(CHUNKS);
    let (tell, mut told) = oneshot::channel();
    let inbox = Arc::clone(&shared.inbox);
    std::thread::Builder::new()
        .name("snapshot-in".into())
        .spawn(move || {
            let mut reader = ChunkReader { chunks, chunk: Bytes::new(), is_ended: false };
            let result = inbox.snapshot(message, &mut reader);
            // Whoever asked may be gone.
            let _ = tell.send(result);
        })
        .map_err(|why| format!("no thread for the snapshot: {why}"))?;
    let mut bytes = rest.len();
    let pump = async {
        // A reader that has enough stops listening, and says how it went.
        if to_thread.send(Piece::Chunk(rest)).await.is_err() {
            return;
        }
        loop {
            let (piece, is_last) = match next(&mut body).await {
                Ok(Some(chunk)) => {
                    bytes += chunk.len();
                    (Piece::Chunk(chunk), false)
                }
                Ok(None) => (Piece::End, true),
                Err(why) => (Piece::Broken(why), true),
            };
            if to_thread.send(piece).await.is_err() || is_last {
                return;
            }
        }
    };
    let dead = || Err("the thread that installs snapshots died".to_owned());
    let result = tokio::select! {
        biased;
        result = &mut told => result.unwrap_or_else(|_| dead()),
        () = pump => told.await.unwrap_or_else(|_| dead()),
    };
    result.map(|()| bytes)
}

enum Piece {
    Chunk(Bytes),
    End,
    Broken(String),
}

/// The database for a thread that waits.
struct ChunkReader {
    chunks: mpsc::Receiver<Piece>,
    chunk: Bytes,
    is_ended: bool,
}

impl io::Read for ChunkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.is_ended {
            match self.chunks.blocking_recv() {
                Some(Piece::Chunk(chunk)) => self.chunk = chunk,
                Some(Piece::End) => self.is_ended = true,
                Some(Piece::Broken(why)) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why)),
                // The connection's task is gone: the member stops.
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer was broken off")),
            }
        }
        let taken = out.len().min(self.chunk.len());
        out[..taken].copy_from_slice(&self.chunk.split_to(taken));
        Ok(taken)
    }
}
