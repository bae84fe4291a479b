//! Length, 8 bytes big-endian, then the message.

use bytes::{BufMut, BytesMut};
use milepost_proto::{Message, raftpb};

use super::{length, split};

/// Bytes of the length.
const LENGTH: usize = 8;

pub(crate) fn put(message: &raftpb::Message, out: &mut BytesMut) {
    let size = message.encoded_len();
    out.reserve(LENGTH + size);
    out.put_u64(size as u64);
    message.encode(out).expect("a BytesMut takes everything");
}

pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<raftpb::Message>, String> {
    let Some(size) = length(buffer, 0)? else { return Ok(None) };
    if buffer.len() < LENGTH + size {
        return Ok(None);
    }
    let body = split(buffer, LENGTH, size);
    raftpb::Message::decode(body).map(Some).map_err(|why| format!("unreadable Raft message: {why}"))
}
