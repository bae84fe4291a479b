//! What the records carry: protobuf messages, read strictly and written as every etcd since 3.0 reads them.
//!
//! The checksum covers a record's data but not its type, so a reader must not take one kind for another: data must be
//! exactly the message, without a byte that the message has no field for, and its numbers must make sense.

use bytes::Bytes;
use milepost_proto::{Message, etcdserverpb, raftpb, walpb};
use milepost_types::{LogIndex, Term};

use crate::frame::{self, Kind};

/// Whose log this is. Written at the head of every segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The member's id.
    pub node_id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
}

/// "A Raft snapshot at this place is durable": recovery may start from here once the place is committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotMark {
    /// Last entry that the snapshot covers; 0 at the birth of the log.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// Who voted there. Empty at the birth of the log.
    pub conf_state: raftpb::ConfState,
}

/// A record, decoded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Metadata(Metadata),
    Entry(raftpb::Entry),
    State(raftpb::HardState),
    Crc,
    Snapshot(SnapshotMark),
}

/// Entries of raft's three types: normal, conf change, conf change of the second form.
const ENTRY_TYPE_MAX: i32 = 2;
const ENTRY_NORMAL: i32 = 0;

impl Content {
    /// Decodes and checks. The error is a sentence without place.
    pub(crate) fn decode(kind: Kind, data: Bytes) -> Result<Self, String> {
        Ok(match kind {
            Kind::Metadata => {
                // The one proto3 message: its two zeros may be present on disk and are absent when we encode it.
                let message: etcdserverpb::Metadata = with_slack(data, 4)?;
                Self::Metadata(Metadata { node_id: message.node_id, cluster_id: message.cluster_id })
            }
            Kind::Entry => Self::Entry(decode_entry(data)?),
            Kind::State => Self::State(decode_state(data)?),
            Kind::Crc if data.is_empty() => Self::Crc,
            Kind::Crc => return Err("a checksum record with data".into()),
            Kind::Snapshot => Self::Snapshot(decode_mark(data)?),
        })
    }
}

fn decode_entry(data: Bytes) -> Result<raftpb::Entry, String> {
    let entry: raftpb::Entry = exactly(data)?;
    match entry_problem(&entry) {
        Some(problem) => Err(format!("entry {} of term {}: {problem}", entry.index(), entry.term())),
        None => Ok(entry),
    }
}

/// Why no log may hold `entry`; asked before writing and after reading.
pub(crate) fn entry_problem(entry: &raftpb::Entry) -> Option<&'static str> {
    if entry.index() == 0 || entry.term() == 0 {
        Some("it has no index or no term")
    } else if !(0..=ENTRY_TYPE_MAX).contains(&entry.r#type()) {
        Some("its type is unknown")
    } else if entry.r#type() != ENTRY_NORMAL && entry.data().is_empty() {
        // Else a HardState of term 1 or 2 with one bit of its record's type turned over would pass for an entry.
        Some("it is a conf change that changes nothing")
    } else {
        None
    }
}

fn decode_state(data: Bytes) -> Result<raftpb::HardState, String> {
    let state: raftpb::HardState = exactly(data)?;
    if state.term() == 0 && (state.vote() != 0 || state.commit() != 0) {
        return Err(format!("a vote ({}) or commit ({}) without a term", state.vote(), state.commit()));
    }
    Ok(state)
}

fn decode_mark(data: Bytes) -> Result<SnapshotMark, String> {
    let message: walpb::Snapshot = exactly(data)?;
    let (Some(index), Some(term)) = (message.index, message.term) else {
        return Err("a snapshot record without index or term".into());
    };
    let conf_state = message.conf_state.unwrap_or_default();
    Ok(SnapshotMark { index: LogIndex(index), term: Term(term), conf_state })
}

/// Decodes `data` as `M` if it is nothing else: fields that `M` has not would make the re-encoding shorter.
fn exactly<M: Message + Default>(data: Bytes) -> Result<M, String> {
    with_slack(data, 0)
}

/// As [`exactly`], where up to `slack` bytes of explicit zeros may be lost in re-encoding.
fn with_slack<M: Message + Default>(data: Bytes, slack: usize) -> Result<M, String> {
    let len = data.len();
    let message = M::decode(data).map_err(|error| format!("not the message its type says: {error}"))?;
    if message.encoded_len() + slack < len {
        Err("more data than the message its type says".into())
    } else {
        Ok(message)
    }
}

/// Encodes records one after the other into `out`, carrying the running checksum along.
pub(crate) struct Encoder<'a> {
    pub out: &'a mut Vec<u8>,
    /// Checksum over the data of every record so far, in this and all earlier segments.
    pub crc: &'a mut u32,
}

impl Encoder<'_> {
    /// The first record of a segment: carries the checksum over from the segment before.
    pub(crate) fn crc_mark(&mut self) {
        frame::put(self.out, Kind::Crc, *self.crc, [&[], &[]]);
    }

    pub(crate) fn metadata(&mut self, metadata: &Metadata) {
        // By hand, since zeros are written out: the data must never be empty, and etcd up to 3.6 writes it so.
        let mut data = [0; 22];
        let mut at = put_field(&mut data, 0x08, metadata.node_id);
        at += put_field(&mut data[at..], 0x10, metadata.cluster_id);
        self.record(Kind::Metadata, [&data[..at], &[]]);
    }

    pub(crate) fn state(&mut self, state: &raftpb::HardState) {
        let mut data = [0; 33];
        let mut at = put_field(&mut data, 0x08, state.term());
        at += put_field(&mut data[at..], 0x10, state.vote());
        at += put_field(&mut data[at..], 0x18, state.commit());
        self.record(Kind::State, [&data[..at], &[]]);
    }

    /// Numbers are written even when zero, as etcd up to 3.6 does and every version reads.
    pub(crate) fn entry(&mut self, entry: &raftpb::Entry) {
        let mut head = [0; ENTRY_HEAD_BYTES_MAX];
        // A protobuf enum goes out sign-extended; ours is 0, 1 or 2.
        let mut at = put_field(&mut head, 0x08, entry.r#type() as u64);
        at += put_field(&mut head[at..], 0x10, entry.term());
        at += put_field(&mut head[at..], 0x18, entry.index());
        let payload: &[u8] = match &entry.data {
            Some(data) => {
                at += put_field(&mut head[at..], 0x22, data.len() as u64);
                data
            }
            None => &[],
        };
        self.record(Kind::Entry, [&head[..at], payload]);
    }

    pub(crate) fn mark(&mut self, mark: &SnapshotMark) {
        let conf_state = (mark.index.0 > 0).then(|| mark.conf_state.clone());
        let message = walpb::Snapshot { index: Some(mark.index.0), term: Some(mark.term.0), conf_state };
        self.record(Kind::Snapshot, [&message.encode_to_vec(), &[]]);
    }

    fn record(&mut self, kind: Kind, data: [&[u8]; 2]) {
        *self.crc = crc32c::crc32c_append(*self.crc, data[0]);
        *self.crc = crc32c::crc32c_append(*self.crc, data[1]);
        frame::put(self.out, kind, *self.crc, data);
    }
}

/// Four tags and four varints.
const ENTRY_HEAD_BYTES_MAX: usize = 44;

/// Most bytes that `entry` takes in a segment.
pub(crate) fn entry_frame_bytes_max(entry: &raftpb::Entry) -> u64 {
    frame::frame_bytes_max((ENTRY_HEAD_BYTES_MAX + entry.data.as_ref().map_or(0, Bytes::len)) as u64)
}

/// Most bytes that a HardState takes in a segment.
pub(crate) const STATE_FRAME_BYTES_MAX: u64 = frame::frame_bytes_max(33);

fn put_field(out: &mut [u8], tag: u8, value: u64) -> usize {
    out[0] = tag;
    1 + frame::put_varint(&mut out[1..], value)
}

#[cfg(test)]
mod tests {
    use super::{Content, Metadata, SnapshotMark};
    use crate::frame::Kind;
    use bytes::Bytes;
    use milepost_proto::raftpb;
    use milepost_types::{LogIndex, Term};

    fn decode(kind: Kind, data: &'static [u8]) -> Result<Content, String> {
        Content::decode(kind, Bytes::from_static(data))
    }

    #[test]
    fn both_forms_of_zero_are_read() {
        let entry = raftpb::Entry { term: Some(1), index: Some(7), r#type: None, data: None };
        assert_eq!(decode(Kind::Entry, b"\x10\x01\x18\x07"), Ok(Content::Entry(entry.clone())));
        let explicit = raftpb::Entry { r#type: Some(0), ..entry };
        assert_eq!(decode(Kind::Entry, b"\x08\x00\x10\x01\x18\x07"), Ok(Content::Entry(explicit)));
        let birth = SnapshotMark { index: LogIndex(0), term: Term(0), conf_state: raftpb::ConfState::default() };
        assert_eq!(decode(Kind::Snapshot, b"\x08\x00\x10\x00"), Ok(Content::Snapshot(birth)));
        let nobody = Content::Metadata(Metadata { node_id: 0, cluster_id: 0 });
        assert_eq!(decode(Kind::Metadata, b"\x08\x00\x10\x00"), Ok(nobody.clone()));
        assert_eq!(decode(Kind::Metadata, b""), Ok(nobody));
    }

    #[test]
    fn one_kind_is_not_taken_for_another() {
        let entry_with_data = b"\x08\x00\x10\x01\x18\x07\x22\x01x";
        assert!(decode(Kind::State, entry_with_data).is_err());
        let empty_entry = b"\x08\x00\x10\x01\x18\x07";
        assert!(decode(Kind::State, empty_entry).is_err());
        let state = b"\x08\x05\x10\x09\x18\x07";
        assert!(decode(Kind::State, state).is_ok());
        assert!(decode(Kind::Entry, state).is_err());
        assert!(decode(Kind::Entry, b"\x08\x02\x10\x09\x18\x07").is_err());
        assert!(decode(Kind::Snapshot, b"").is_err());
        assert!(decode(Kind::Crc, b"\x08\x00\x10\x00").is_err());
        assert!(decode(Kind::Metadata, b"\x08\x00\x10\x00\x1a\x02\x08\x01").is_err());
    }
}
