//! Records to the wire form of events.

use bytes::{Buf, Bytes};
use milepost_proto::mvccpb::{Event, KeyValue, event::EventType};
use milepost_proto::prost::encoding;

use super::frame::EVENT_FIELD;
use crate::Record;

/// Appends `record` as one `events` field of a `WatchResponse`, with the key's earlier state if there is one to show.
///
/// A deletion carries the key and its revision alone, as etcd's does.
pub(super) fn append_event(record: &Record, previous: Option<&Record>, out: &mut Vec<u8>) {
    let (kind, kv) = if record.is_tombstone() {
        let kv = KeyValue { key: record.key.clone(), mod_revision: record.revision.main, ..KeyValue::default() };
        (EventType::Delete, kv)
    } else {
        (EventType::Put, record.to_kv())
    };
    let event = Event { r#type: kind.into(), kv: Some(kv), prev_kv: previous.map(Record::to_kv) };
    encoding::message::encode(EVENT_FIELD, &event, out);
}

/// A piece of a reply: encoded events and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoded {
    pub events: Bytes,
    pub count: u32,
}

/// Cuts `whole` into pieces such that each, together with `overhead` bytes, stays below `limit`; a single event that is too
/// large stands alone. `whole` itself if it is below the limit or one event.
///
/// Source: etcd `sendFragments`, where `overhead` is the rest of the message.
pub(super) fn fragments(whole: Encoded, overhead: usize, limit: usize) -> Vec<Encoded> {
    if whole.events.len() + overhead < limit || whole.count < 2 {
        return vec![whole];
    }
    let mut pieces = Vec::new();
    let (mut start, mut at, mut count) = (0, 0, 0);
    while at < whole.events.len() {
        let end = at + event_len(&whole.events[at..]);
        if count > 0 && end - start + overhead >= limit {
            pieces.push(Encoded { events: whole.events.slice(start..at), count });
            (start, count) = (at, 0);
        }
        (at, count) = (end, count + 1);
    }
    pieces.push(Encoded { events: whole.events.slice(start..at), count });
    pieces
}

/// Bytes of the first event in `events`, its tag and length included.
fn event_len(mut events: &[u8]) -> usize {
    let all = events.len();
    encoding::decode_key(&mut events).expect("we wrote the tag");
    let body = encoding::decode_varint(&mut events).expect("we wrote the length");
    events.advance(usize::try_from(body).expect("a length in memory"));
    all - events.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Encoded, append_event, event_len, fragments};
    use crate::Record;
    use crate::record::Spine;
    use milepost_types::{LeaseId, Revision};

    fn record(value: Bytes) -> Record {
        Record {
            key: Bytes::from_static(b"k"),
            value,
            create_revision: 2,
            revision: Revision::new(2, 0),
            version: 1,
            lease: LeaseId(0),
            previous: Revision::ZERO,
            jump: Revision::ZERO,
            spine: Spine::default(),
        }
    }

    fn encoded(values: &[usize]) -> Encoded {
        let mut out = Vec::new();
        for &len in values {
            let record = record(vec![b'x'; len].into());
            append_event(&record, None, &mut out);
        }
        Encoded { events: out.into(), count: u32::try_from(values.len()).expect("few") }
    }

    fn counts(values: &[usize], limit: usize) -> Vec<u32> {
        let whole = encoded(values);
        let pieces = fragments(whole.clone(), 10, limit);
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.events.to_vec()).collect();
        assert_eq!(joined, whole.events, "nothing is lost or moved");
        pieces.iter().map(|piece| piece.count).collect()
    }

    #[test]
    fn pieces_stay_below_the_limit_unless_one_event_is_larger() {
        let one = event_len(&encoded(&[100]).events);
        assert_eq!(counts(&[100; 6], 6 * one + 11), [6], "below the limit: whole");
        assert_eq!(counts(&[100; 6], 6 * one + 10), [5, 1], "at the limit: cut");
        assert_eq!(counts(&[100; 6], 2 * one + 11), [2, 2, 2]);
        assert_eq!(counts(&[100; 3], 5), [1, 1, 1]);
        assert_eq!(counts(&[5000, 1, 1, 5000, 1], 200), [1, 2, 1, 1]);
        assert_eq!(counts(&[5000], 200), [1], "one event is never cut");
    }
}
