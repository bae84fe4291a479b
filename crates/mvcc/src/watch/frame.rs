//! One reply of a watch stream, nearly encoded.

use bytes::{BufMut, Bytes};
use milepost_proto::etcdserverpb::ResponseHeader;
use milepost_proto::prost::encoding;

/// The watch id of replies that belong to no watcher: refused creates, and progress of the whole stream.
pub const NO_WATCHER: i64 = -1;

/// One `WatchResponse`.
///
/// The events are already in their wire form and shared with every other frame that carries the same ones; what is particular
/// to this frame is written by [`Frame::encode_head`]. Protobuf fields may come in pieces, so head and events are concatenated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Whom it concerns; [`NO_WATCHER`] if nobody in particular.
    pub watch_id: i64,
    /// The header's revision. Zero for a cancel by compaction, as etcd sends it.
    pub revision: i64,
    /// Non-zero: cancelled because the wanted revision is below this one.
    pub compact_revision: i64,
    /// The watcher exists from here on (or was refused, if `canceled` too).
    pub created: bool,
    /// The watcher is gone.
    pub canceled: bool,
    /// More frames of the same reply follow.
    pub fragment: bool,
    /// Why it was refused; mostly empty.
    pub cancel_reason: &'static str,
    /// The concatenated `events` fields (number 11) of the response; empty if there are none.
    pub events: Bytes,
    /// How many events that is.
    pub event_count: u32,
}

/// Field numbers of etcd's `WatchResponse`.
mod field {
    pub const HEADER: u32 = 1;
    pub const WATCH_ID: u32 = 2;
    pub const CREATED: u32 = 3;
    pub const CANCELED: u32 = 4;
    pub const COMPACT_REVISION: u32 = 5;
    pub const CANCEL_REASON: u32 = 6;
    pub const FRAGMENT: u32 = 7;
    pub const EVENTS: u32 = 11;
}

/// The tag before each event in [`Frame::events`].
pub(super) const EVENT_FIELD: u32 = field::EVENTS;

/// The heads of several frames that go to one client. Frames of one revision, of which there are mostly many in a row, begin
/// alike: that beginning is encoded once.
#[derive(Debug)]
pub struct Heads<'a> {
    header: &'a ResponseHeader,
    /// Whose beginning `beginning` is.
    revision: i64,
    /// Empty: nobody's yet.
    beginning: Vec<u8>,
}

impl<'a> Heads<'a> {
    /// With `header`, but for its revision, in each of them.
    #[must_use]
    pub const fn new(header: &'a ResponseHeader) -> Self {
        Self { header, revision: 0, beginning: Vec::new() }
    }

    /// Appends what [`Frame::encode_head`] would.
    pub fn encode(&mut self, frame: &Frame, out: &mut impl BufMut) {
        if self.revision != frame.revision || self.beginning.is_empty() {
            self.revision = frame.revision;
            self.beginning.clear();
            frame.encode_header(self.header, &mut self.beginning);
        }
        out.put_slice(&self.beginning);
        frame.encode_fields(out);
    }
}

impl Frame {
    /// Appends everything but the events: `header` with this frame's revision in place of its own, then the scalar fields.
    ///
    /// The whole message is this followed by [`Frame::events`].
    pub fn encode_head(&self, header: &ResponseHeader, out: &mut impl BufMut) {
        self.encode_header(header, out);
        self.encode_fields(out);
    }

    fn encode_header(&self, header: &ResponseHeader, out: &mut impl BufMut) {
        let header = ResponseHeader { revision: self.revision, ..*header };
        encoding::message::encode(field::HEADER, &header, out);
    }

    fn encode_fields(&self, out: &mut impl BufMut) {
        if self.watch_id != 0 {
            encoding::int64::encode(field::WATCH_ID, &self.watch_id, out);
        }
        for (number, value) in
            [(field::CREATED, self.created), (field::CANCELED, self.canceled), (field::FRAGMENT, self.fragment)]
        {
            if value {
                encoding::bool::encode(number, &value, out);
            }
        }
        if self.compact_revision != 0 {
            encoding::int64::encode(field::COMPACT_REVISION, &self.compact_revision, out);
        }
        if !self.cancel_reason.is_empty() {
            encoding::encode_key(field::CANCEL_REASON, encoding::WireType::LengthDelimited, out);
            encoding::encode_varint(self.cancel_reason.len() as u64, out);
            out.put_slice(self.cancel_reason.as_bytes());
        }
    }

    /// Bytes that [`Frame::encode_head`] adds at most: room to reserve.
    #[must_use]
    pub const fn head_bytes_max(&self) -> usize {
        // Header 2 + 4 fields of a tag and a 10-byte varint; two integers likewise; three flags; the reason.
        2 + 4 * 11 + 2 * 11 + 3 * 2 + 11 + self.cancel_reason.len()
    }

    /// What the frame counts against a stream's bound: its events and a fixed part for itself, in bytes.
    #[must_use]
    pub const fn cost(&self) -> usize {
        size_of::<Self>() + self.events.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use milepost_proto::Message;
    use milepost_proto::etcdserverpb::{ResponseHeader, WatchResponse};
    use milepost_proto::mvccpb::Event;

    use super::{EVENT_FIELD, Frame, Heads};

    #[test]
    fn heads_in_a_row_are_those_of_each_frame() {
        let header = ResponseHeader { cluster_id: 1, member_id: u64::MAX, revision: 5, raft_term: 3 };
        let mut heads = Heads::new(&header);
        for (revision, watch_id) in [(0, 1), (0, 2), (7, 1), (7, -1), (8, 0), (0, 3)] {
            let frame = Frame { revision, watch_id, ..Frame::default() };
            let (mut one, mut alone) = (Vec::new(), Vec::new());
            heads.encode(&frame, &mut one);
            frame.encode_head(&header, &mut alone);
            assert_eq!(one, alone, "revision {revision}, watcher {watch_id}");
        }
    }

    #[test]
    fn head_and_events_together_are_the_message() {
        let mut events = Vec::new();
        milepost_proto::prost::encoding::message::encode(EVENT_FIELD, &Event::default(), &mut events);
        let full = Frame {
            watch_id: -7,
            revision: 9,
            compact_revision: 4,
            created: true,
            canceled: true,
            fragment: true,
            cancel_reason: "why",
            events: Bytes::from(events),
            event_count: 1,
        };
        for frame in [full, Frame::default()] {
            let header = ResponseHeader { cluster_id: u64::MAX, member_id: 2, revision: 0, raft_term: 3 };
            let mut bytes = Vec::new();
            frame.encode_head(&header, &mut bytes);
            assert!(bytes.len() <= frame.head_bytes_max());
            bytes.extend_from_slice(&frame.events);
            let expected = WatchResponse {
                header: Some(ResponseHeader { revision: frame.revision, ..header }),
                watch_id: frame.watch_id,
                created: frame.created,
                canceled: frame.canceled,
                compact_revision: frame.compact_revision,
                cancel_reason: frame.cancel_reason.to_owned(),
                fragment: frame.fragment,
                events: vec![Event::default(); frame.event_count as usize],
            };
            assert_eq!(WatchResponse::decode(bytes.as_slice()).expect("decodes"), expected);
        }
    }
}
