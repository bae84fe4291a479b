//! Raft messages on a stream: what stands between them, and what is left out.
//!
//! Two streams go each way between two members: `msgapp`, which carries entries and leaves out what both ends know, and
//! `message` for everything else. Source: etcd `rafthttp/msg_codec.go`, `msgappv2_codec.go`.

mod message;
mod msgapp;

use bytes::{Buf, Bytes, BytesMut};
use milepost_proto::raftpb;

pub(crate) use message::put as put_message;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Entries.
    MsgApp,
    /// Everything else.
    Message,
}

impl Kind {
    pub(crate) const BOTH: [Self; 2] = [Self::MsgApp, Self::Message];

    /// As it stands in paths.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::MsgApp => "msgapp",
            Self::Message => "message",
        }
    }

    /// As it stands in etcd's log lines.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MsgApp => "stream MsgApp v2",
            Self::Message => "stream Message",
        }
    }
}

/// Longest message that is taken. Source: etcd `readBytesLimit`.
pub(crate) const MESSAGE_BYTES_MAX: u64 = 512 << 20;

/// `MsgApp`, the one type that goes over the stream of entries.
pub(crate) const MSG_APP: i32 = 3;
pub(crate) const MSG_APP_RESP: i32 = 4;
pub(crate) const MSG_SNAP: i32 = 7;
const MSG_HEARTBEAT: i32 = 8;

/// etcd's name of a message's type, for its log lines.
pub(crate) fn type_name(kind: i32) -> &'static str {
    const NAMES: [&str; 19] = [
        "MsgHup",
        "MsgBeat",
        "MsgProp",
        "MsgApp",
        "MsgAppResp",
        "MsgVote",
        "MsgVoteResp",
        "MsgSnap",
        "MsgHeartbeat",
        "MsgHeartbeatResp",
        "MsgUnreachable",
        "MsgSnapStatus",
        "MsgCheckQuorum",
        "MsgTransferLeader",
        "MsgTimeoutNow",
        "MsgReadIndex",
        "MsgReadIndexResp",
        "MsgPreVote",
        "MsgPreVoteResp",
    ];
    usize::try_from(kind).ok().and_then(|kind| NAMES.get(kind)).copied().unwrap_or("unknown")
}

/// Nobody to nobody: says that the line is alive.
pub(crate) fn is_link_heartbeat(message: &raftpb::Message) -> bool {
    message.r#type() == MSG_HEARTBEAT && message.from() == 0 && message.to() == 0
}

/// Writes one stream.
pub(crate) enum Encoder {
    MsgApp(msgapp::Position),
    Message,
}

impl Encoder {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::MsgApp => Self::MsgApp(msgapp::Position::default()),
            Kind::Message => Self::Message,
        }
    }

    /// Appends `message` to `out`.
    pub(crate) fn put(&mut self, message: &raftpb::Message, out: &mut BytesMut) {
        match self {
            Self::MsgApp(position) => position.put(message, out),
            Self::Message => message::put(message, out),
        }
    }

    /// Appends a sign of life.
    pub(crate) fn put_heartbeat(&mut self, out: &mut BytesMut) {
        match self {
            Self::MsgApp(_) => msgapp::put_heartbeat(out),
            Self::Message => {
                message::put(&raftpb::Message { r#type: Some(MSG_HEARTBEAT), ..Default::default() }, out);
            }
        }
    }
}

/// Reads one stream.
pub(crate) struct Decoder {
    buffer: BytesMut,
    format: Format,
}

enum Format {
    MsgApp(msgapp::Reader),
    Message,
}

impl Decoder {
    /// A stream of messages from `remote` to `local`.
    pub(crate) fn new(kind: Kind, local: u64, remote: u64) -> Self {
        let format = match kind {
            Kind::MsgApp => Format::MsgApp(msgapp::Reader::new(local, remote)),
            Kind::Message => Format::Message,
        };
        Self { buffer: BytesMut::new(), format }
    }

    /// Takes what has come.
    pub(crate) fn push(&mut self, chunk: &Bytes) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole message, signs of life left out; `None`: more must come first.
    ///
    /// # Errors
    /// The stream makes no sense; nothing after it can be read.
    pub(crate) fn next(&mut self) -> Result<Option<raftpb::Message>, String> {
        loop {
            let message = match &mut self.format {
                Format::MsgApp(reader) => reader.next(&mut self.buffer)?,
                Format::Message => message::take(&mut self.buffer)?,
            };
            match message {
                Some(message) if is_link_heartbeat(&message) => {}
                other => return Ok(other),
            }
        }
    }
}

/// The eight bytes at `at`, if they have come.
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// The length that stands at `at`, if it has come.
///
/// # Errors
/// It is longer than any message.
fn length(bytes: &[u8], at: usize) -> Result<Option<usize>, String> {
    match number(bytes, at) {
        None => Ok(None),
        Some(length) if length > MESSAGE_BYTES_MAX => {
            Err(format!("a message of {length} bytes is announced; {MESSAGE_BYTES_MAX} are the most"))
        }
        Some(length) => Ok(usize::try_from(length).ok()),
    }
}

/// Takes `length` bytes off the front after `skip` others.
fn split(buffer: &mut BytesMut, skip: usize, length: usize) -> Bytes {
    buffer.advance(skip);
    buffer.split_to(length).freeze()
}

#[cfg(test)]
#[path = "framing_test.rs"]
mod tests;
