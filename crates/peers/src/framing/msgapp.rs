//! The stream of entries: what both ends know is left out.
//!
//! ```text
//! 0x00                                                       the line is alive
//! 0x01  count:8  { length:8  entry } × count  commit:8       entries after those that were sent last, in the same term
//! 0x02  length:8  message                                    a whole message
//! ```
//! Numbers are big-endian. Both ends keep the term and the last index of what has gone over the stream.

use bytes::{Buf, BufMut, BytesMut};
use milepost_proto::{Message, raftpb};

use super::{MSG_APP, is_link_heartbeat, length, number, split};

const HEARTBEAT: u8 = 0;
const ENTRIES: u8 = 1;
const WHOLE: u8 = 2;
/// Kind and one number.
const HEAD: usize = 1 + 8;

pub(super) fn put_heartbeat(out: &mut BytesMut) {
    out.put_u8(HEARTBEAT);
}

/// How far the stream has come; the same at both ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    term: u64,
    index: u64,
}

impl Position {
    pub(super) fn put(&mut self, message: &raftpb::Message, out: &mut BytesMut) {
        if is_link_heartbeat(message) {
            return put_heartbeat(out);
        }
        let goes_on = message.index() == self.index && message.log_term() == self.term && self.term == message.term();
        if !goes_on {
            let size = message.encoded_len();
            out.reserve(HEAD + size);
            out.put_u8(WHOLE);
            out.put_u64(size as u64);
            message.encode(out).expect("a BytesMut takes everything");
            return self.jump(message);
        }
        let sizes: usize = message.entries.iter().map(|entry| 8 + entry.encoded_len()).sum();
        out.reserve(HEAD + sizes + 8);
        out.put_u8(ENTRIES);
        out.put_u64(message.entries.len() as u64);
        for entry in &message.entries {
            out.put_u64(entry.encoded_len() as u64);
            entry.encode(out).expect("a BytesMut takes everything");
        }
        out.put_u64(message.commit());
        self.index += message.entries.len() as u64;
    }

    /// A whole message says where the stream is.
    fn jump(&mut self, message: &raftpb::Message) {
        self.term = message.term();
        self.index = message.entries.last().map_or(message.index(), raftpb::Entry::index);
    }
}

/// Makes messages whole again.
pub(crate) struct Reader {
    position: Position,
    local: u64,
    remote: u64,
}

impl Reader {
    pub(super) fn new(local: u64, remote: u64) -> Self {
        Self { position: Position::default(), local, remote }
    }

    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<raftpb::Message>, String> {
        let Some(kind) = buffer.first() else { return Ok(None) };
        match *kind {
            HEARTBEAT => {
                buffer.advance(1);
                let message = raftpb::Message { r#type: Some(super::MSG_HEARTBEAT), ..Default::default() };
                Ok(Some(message))
            }
            ENTRIES => self.entries(buffer),
            WHOLE => self.whole(buffer),
            other => Err(format!("unknown kind of message {other:#04x} on the stream of entries")),
        }
    }

    fn whole(&mut self, buffer: &mut BytesMut) -> Result<Option<raftpb::Message>, String> {
        let Some(size) = length(buffer, 1)? else { return Ok(None) };
        if buffer.len() < HEAD + size {
            return Ok(None);
        }
        let body = split(buffer, HEAD, size);
        let message = raftpb::Message::decode(body).map_err(|why| format!("unreadable Raft message: {why}"))?;
        self.position.jump(&message);
        Ok(Some(message))
    }

    fn entries(&mut self, buffer: &mut BytesMut) -> Result<Option<raftpb::Message>, String> {
        let Some(count) = number(buffer, 1) else { return Ok(None) };
        // Looked through before anything is taken: nothing is made of half a message, and no number is trusted.
        let mut end = HEAD;
        for _ in 0..count {
            let Some(size) = length(buffer, end)? else { return Ok(None) };
            end += 8 + size;
            if end as u64 > super::MESSAGE_BYTES_MAX {
                return Err(format!("{count} entries of more than {} bytes are announced", super::MESSAGE_BYTES_MAX));
            }
        }
        let Some(commit) = number(buffer, end) else { return Ok(None) };
        let mut body = split(buffer, HEAD, end - HEAD);
        buffer.advance(8);
        let mut entries = Vec::new();
        while body.has_remaining() {
            let size = usize::try_from(body.get_u64()).expect("looked at before");
            let entry = raftpb::Entry::decode(body.split_to(size)).map_err(|why| format!("unreadable entry: {why}"))?;
            entries.push(entry);
        }
        let Position { term, index } = self.position;
        self.position.index += count;
        Ok(Some(raftpb::Message {
            r#type: Some(MSG_APP),
            from: Some(self.remote),
            to: Some(self.local),
            term: Some(term),
            log_term: Some(term),
            index: Some(index),
            entries,
            commit: Some(commit),
            ..Default::default()
        }))
    }
}
