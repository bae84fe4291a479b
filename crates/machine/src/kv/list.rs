//! Lists, encoded while they are read: a value goes from the store's page to the place in the answer from which it will be
//! sent, and nowhere else. An answer is made of pieces, so that each is given back as soon as it is sent.
//!
//! ```text
//!   RangeResponse   header │ kv kv kv … │ kv kv … │ … kv │ more, count
//!   pieces          ╰─ room ─ first ───╯ ╰─ next ─╯ ╰─ last ────────╯
//! ```
//! The room is for who answers: the header is not known here.

use milepost_engine::hint;
use milepost_mvcc::{LiveRecord, RangeOptions, View};
use milepost_proto::etcdserverpb as pb;
use milepost_proto::prost::encoding::{encode_varint, encoded_len_varint};
use milepost_types::KeyRange;
use pb::range_request::SortTarget;

use super::range::{fetch_limit, has_revision_bounds, is_default_order};
use crate::error::Fault;

/// Bytes left free at the start of the first piece.
pub const LIST_ROOM: usize = 64;
/// The first piece: most lists are short.
const FIRST_BYTES: usize = 8 << 10;
/// A piece at most, in bytes, unless one key and its value are longer.
pub const LIST_PIECE: usize = 128 << 10;
/// How far ahead of what is written its place is fetched from memory: twenty bytes to a nanosecond, and memory takes a
/// hundred and more.
const AHEAD_BYTES: usize = 4 << 10;
/// What follows the last key.
const TAIL_BYTES: usize = 16;

// Tags of the fields: number and wire type. Source: etcd 3.7.1 `rpc.proto` RangeResponse, `kv.proto` KeyValue.
const KVS: u8 = 2 << 3 | 2;
const MORE: u8 = 3 << 3;
const COUNT: u8 = 4 << 3;
const KEY: u8 = 1 << 3 | 2;
const CREATE_REVISION: u8 = 2 << 3;
const MOD_REVISION: u8 = 3 << 3;
const VERSION: u8 = 4 << 3;
const VALUE: u8 = 5 << 3 | 2;
const LEASE: u8 = 6 << 3;

/// The fields of an encoded [`pb::RangeResponse`] that follow its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Revision for the header.
    pub revision: i64,
    /// At least one; the first begins with [`LIST_ROOM`] free bytes.
    pub pieces: Vec<Vec<u8>>,
    /// Keys in it.
    pub keys: usize,
    /// Keys in the whole range.
    pub count: i64,
}

/// Can `request` be answered by a [`List`]? Keys as the store has them, with their values. (An order of NONE by anything
/// but the key is cut in the order of keys, and sorted then.)
#[must_use]
pub fn is_list(request: &pb::RangeRequest) -> bool {
    !request.range_end.is_empty()
        && !request.count_only
        && !request.keys_only
        && is_default_order(request)
        && request.sort_target == SortTarget::Key as i32
        && !has_revision_bounds(request)
}

/// Gives the memory for a piece: an empty vector with room for so many bytes.
pub type ListRoom<'r> = &'r mut dyn FnMut(usize) -> Vec<u8>;

/// Answers a request that [`is_list`].
pub(crate) fn list(view: &View, request: &pb::RangeRequest, room: ListRoom<'_>) -> Result<List, Fault> {
    let span = KeyRange::from_wire(&request.key, &request.range_end);
    let options = RangeOptions { limit: fetch_limit(request), count: true, values: true };
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let mut pieces = Pieces { done: Vec::new(), piece: room(FIRST_BYTES), room };
    pieces.piece.resize(LIST_ROOM, 0);
    let mut met = 0;
    let count = view.each(span, request.revision, options, &mut |record| {
        met += 1;
        if met <= limit {
            pieces.add(record);
        }
    })?;
    Ok(List { revision: view.revision(), pieces: pieces.finish(met > limit, count), keys: met.min(limit), count })
}

struct Pieces<'r> {
    done: Vec<Vec<u8>>,
    piece: Vec<u8>,
    room: ListRoom<'r>,
}

impl Pieces<'_> {
    /// Makes room for `bytes` more.
    fn make_room(&mut self, bytes: usize) {
        if self.piece.capacity() - self.piece.len() >= bytes {
            return;
        }
        // A first piece that is little more than its room goes on growing.
        if self.done.is_empty() && self.piece.len() + bytes <= FIRST_BYTES {
            self.piece.reserve(bytes);
            return;
        }
        let next = (2 * self.piece.capacity()).clamp(FIRST_BYTES, LIST_PIECE).max(bytes);
        self.done.push(std::mem::replace(&mut self.piece, (self.room)(next)));
    }

    fn add(&mut self, record: &LiveRecord<'_>) {
        let length = length(record);
        self.make_room(1 + encoded_len_varint(length as u64) + length);
        let out = &mut self.piece;
        let ahead = out.spare_capacity_mut().get(AHEAD_BYTES..).unwrap_or_default();
        hint::soon_written(&ahead[..length.min(ahead.len())]);
        out.push(KVS);
        encode_varint(length as u64, out);
        put_bytes(KEY, record.key, out);
        put_number(CREATE_REVISION, record.create_revision, out);
        put_number(MOD_REVISION, record.mod_revision, out);
        put_number(VERSION, record.version, out);
        put_bytes(VALUE, record.value, out);
        put_number(LEASE, record.lease.0, out);
    }

    fn finish(mut self, more: bool, count: i64) -> Vec<Vec<u8>> {
        self.make_room(TAIL_BYTES);
        put_number(MORE, i64::from(more), &mut self.piece);
        put_number(COUNT, count, &mut self.piece);
        self.done.push(self.piece);
        self.done
    }
}

fn length(record: &LiveRecord<'_>) -> usize {
    let bytes =
        |bytes: &[u8]| if bytes.is_empty() { 0 } else { 1 + encoded_len_varint(bytes.len() as u64) + bytes.len() };
    let number = |number: i64| if number == 0 { 0 } else { 1 + encoded_len_varint(number as u64) };
    bytes(record.key)
        + number(record.create_revision)
        + number(record.mod_revision)
        + number(record.version)
        + bytes(record.value)
        + number(record.lease.0)
}

fn put_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        out.push(tag);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

fn put_number(tag: u8, number: i64, out: &mut Vec<u8>) {
    if number != 0 {
        out.push(tag);
        encode_varint(number as u64, out);
    }
}
