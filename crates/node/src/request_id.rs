//! Ids under which proposals are waited for.
//!
//! ```text
//!   63            48 47                                        0
//!   ├── member (16) ─┼── (Unix ms at start) << 8, then counting ─┤
//! ```
//! Any member may see another member's entry and must not take it for its own: hence the prefix. A member that restarts
//! must not take an entry of its former life for a new one: hence the time, which leaves room for 256 ids per
//! millisecond of its life before it could meet itself. Source: etcd `pkg/idutil`.

use milepost_proto::raftpb;
use milepost_types::MemberId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SUFFIX_BITS: u32 = 48;
const COUNTER_BITS: u32 = 8;

/// Hands out ids; shared by all threads.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    suffix: AtomicU64,
}

impl RequestIds {
    /// Ids of `member`, started at `unix`.
    #[must_use]
    pub fn new(member: MemberId, unix: Duration) -> Self {
        let millis = u64::try_from(unix.as_millis()).unwrap_or(0);
        Self { prefix: member.0 << SUFFIX_BITS, suffix: AtomicU64::new(millis << COUNTER_BITS) }
    }

    /// One that was not handed out before; never 0 while the suffix has not wrapped to it.
    pub fn next(&self) -> u64 {
        let suffix = self.suffix.fetch_add(1, Ordering::Relaxed) + 1;
        self.prefix | (suffix & ((1 << SUFFIX_BITS) - 1))
    }
}

/// The id inside an encoded `InternalRaftRequest`, without decoding the rest; 0 if there is none or the bytes are not
/// one.
///
/// It is field 1, or field 1 of the header (field 100).
#[must_use]
pub fn of_request(payload: &[u8]) -> u64 {
    find(payload).unwrap_or(0)
}

/// The id inside an encoded `ConfChange`.
#[must_use]
pub fn of_conf_change(payload: &[u8]) -> u64 {
    use milepost_proto::Message as _;
    raftpb::ConfChange::decode(payload).map_or(0, |change| change.id())
}

const ID_FIELD: u64 = 1;
const HEADER_FIELD: u64 = 100;

fn find(mut bytes: &[u8]) -> Option<u64> {
    let mut in_header = 0;
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        match (tag >> 3, tag & 7) {
            (ID_FIELD, 0) => {
                let id = varint(&mut bytes)?;
                if id != 0 {
                    return Some(id);
                }
            }
            (HEADER_FIELD, 2) => in_header = find_in_header(field(&mut bytes)?)?,
            (_, 0) => {
                varint(&mut bytes)?;
            }
            (_, 1) => bytes = bytes.get(8..)?,
            (_, 2) => {
                field(&mut bytes)?;
            }
            (_, 5) => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some(in_header)
}

fn find_in_header(mut bytes: &[u8]) -> Option<u64> {
    while !bytes.is_empty() {
        match varint(&mut bytes)? {
            0x08 => return varint(&mut bytes),
            tag if tag & 7 == 0 => {
                varint(&mut bytes)?;
            }
            tag if tag & 7 == 2 => {
                field(&mut bytes)?;
            }
            _ => return None,
        }
    }
    Some(0)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (field, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::{RequestIds, of_conf_change, of_request};
    use bytes::Bytes;
    use milepost_proto::etcdserverpb::{
        InternalRaftRequest, PutRequest, RequestHeader, internal_raft_request::Request,
    };
    use milepost_proto::{Message as _, raftpb};
    use milepost_types::MemberId;
    use std::time::Duration;

    #[test]
    fn ids_carry_member_and_time() {
        let ids = RequestIds::new(MemberId(0x8e9e_05c5_2164_694d), Duration::from_millis(0x0123_4567_89ab));
        assert_eq!(ids.next(), 0x694d_2345_6789_ab01);
        assert_eq!(ids.next(), 0x694d_2345_6789_ab02);
    }

    #[test]
    fn ids_are_found_in_both_places() {
        let put = PutRequest { key: Bytes::from_static(b"k"), value: Bytes::from(vec![7; 300]), ..Default::default() };
        let mut request = InternalRaftRequest {
            header: Some(RequestHeader { id: 77, username: "root".into(), auth_revision: 9 }),
            id: 0,
            request: Some(Request::Put(put)),
        };
        assert_eq!(of_request(&request.encode_to_vec()), 77);
        request.id = u64::MAX;
        assert_eq!(of_request(&request.encode_to_vec()), u64::MAX);
        request.header = None;
        request.id = 0;
        assert_eq!(of_request(&request.encode_to_vec()), 0);
        let change = raftpb::ConfChange { id: Some(5), ..Default::default() };
        assert_eq!(of_conf_change(&change.encode_to_vec()), 5);
    }

    #[test]
    fn broken_bytes_have_no_id() {
        for bytes in
            [&b"\xff"[..], b"\x08", b"\xa2\x06\x7f\x00", b"\x0f\x00", b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"]
        {
            assert_eq!(of_request(bytes), 0, "{bytes:?}");
        }
    }
}
