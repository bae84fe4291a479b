//! Records on disk. Every one begins with a CRC-32C (little-endian) over its engine key and the bytes after the CRC, so
//! that a record read at the wrong place fails as surely as a damaged one. Numbers are LEB128 varints.
//!
//! ```text
//!   history   16-byte revision → crc │ flags │ create  version  lease │ previous │ jump │ key length │ key │ value
//!   current   engine key       → crc │ flags │ main  sub │ create  version  lease │ previous
//!                                    │ links length │ depth  jump… │ key length, key (long keys) │ value (unless apart)
//!   attached  lease ++ key     → crc │ key
//!   others    the owner's key  → crc │ the owner's value
//! ```
//!
//! `current` may lack what `history` has above a main revision that `meta` names; see `behind.rs`.
//!
//! `create`, `previous` and the jumps are written as the distance of their main from the revision before them in that
//! list, and previous and jumps with their sub. A tombstone has no create, version, lease and value.

use milepost_engine::Table;
use milepost_engine::crc::{crc32c, crc32c_append};
use milepost_types::{LeaseId, Revision};

use crate::error::StoreError;
use crate::keys;
use crate::record::{Record, Spine};

/// Longest value kept in `current` beside its place in `history`, in bytes. Above it a range reads `history` once per
/// key, which is cheap beside moving such values; below it one sequential scan is 11 to 13 times faster.
pub(crate) const INLINE_MAX: usize = 768;

/// Longest value that stays in a row that waits in memory for its place in `current`, where memory is to be saved: below it,
/// leaving it out gains little.
pub(crate) const KEPT_MAX: usize = 32;

const CRC_LEN: usize = 4;

const TOMBSTONE: u8 = 1;
const HAS_PREVIOUS: u8 = 1 << 1;
/// In `history`: a jump other than the previous follows.
const HAS_JUMP: u8 = 1 << 2;
/// In `current`: the value is only in `history`.
const APART: u8 = 1 << 3;
const KNOWN_FLAGS: u8 = TOMBSTONE | HAS_PREVIOUS | HAS_JUMP | APART;

/// A record of `history`, still in the engine's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HistoryRef<'a> {
    pub revision: Revision,
    pub tombstone: bool,
    pub create_revision: i64,
    pub version: i64,
    pub lease: LeaseId,
    pub previous: Revision,
    pub jump: Revision,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// A record of `current`, still in the engine's page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CurrentRef<'a> {
    pub revision: Revision,
    pub tombstone: bool,
    pub create_revision: i64,
    pub version: i64,
    pub lease: LeaseId,
    pub previous: Revision,
    pub key: &'a [u8],
    /// `None`: the value is only in `history`.
    pub value: Option<&'a [u8]>,
    links: &'a [u8],
}

/// Writes `record` as `history` keeps it into `out`, replacing what was there.
pub(crate) fn encode_history(record: &Record, out: &mut Vec<u8>) {
    start(out);
    let mut flags = 0;
    flags |= if record.is_tombstone() { TOMBSTONE } else { 0 };
    flags |= if record.previous == Revision::ZERO { 0 } else { HAS_PREVIOUS };
    flags |= if record.jump == record.previous { 0 } else { HAS_JUMP };
    out.push(flags);
    put_life(&record.borrow(), out);
    put_link(record.revision, record.previous, flags & HAS_PREVIOUS, out);
    put_link(record.revision, record.jump, flags & HAS_JUMP, out);
    put_varint(record.key.len() as u64, out);
    out.extend_from_slice(&record.key);
    out.extend_from_slice(&record.value);
    seal(&record.revision.to_bytes(), out);
}

/// Writes `record` as `current` keeps it under `engine_key` into `out`, replacing what was there. Its jump is told by its
/// spine. A value longer than `inline_max` bytes stays apart.
pub(crate) fn encode_current(
    record: &HistoryRef<'_>,
    spine: &Spine,
    engine_key: &[u8],
    inline_max: usize,
    out: &mut Vec<u8>,
) {
    start(out);
    let mut flags = 0;
    flags |= if record.tombstone { TOMBSTONE } else { 0 };
    flags |= if record.previous == Revision::ZERO { 0 } else { HAS_PREVIOUS };
    flags |= if record.value.len() > inline_max { APART } else { 0 };
    out.push(flags);
    put_varint(record.revision.main as u64, out);
    put_varint(record.revision.sub as u64, out);
    put_life(record, out);
    put_link(record.revision, record.previous, flags & HAS_PREVIOUS, out);
    put_spine(record.revision, spine, out);
    if keys::is_long(engine_key) {
        put_varint(record.key.len() as u64, out);
        out.extend_from_slice(record.key);
    }
    if flags & APART == 0 {
        out.extend_from_slice(record.value);
    }
    seal(engine_key, out);
}

/// Writes `record`, a sound one of `current`, into `out` without its value, and tells how long that was; `None`: it has none
/// that is longer than [`KEPT_MAX`], or is damaged.
pub(crate) fn without_value(engine_key: &[u8], record: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let value = decode_current(engine_key, record).ok()?.value.filter(|value| value.len() > KEPT_MAX)?;
    out.clear();
    out.extend_from_slice(&record[..record.len() - value.len()]);
    out[CRC_LEN] |= APART;
    seal(engine_key, out);
    Some(value.len())
}

/// Writes `record`, a sound one of `current` whose value is apart, into `out` with `value` in it.
pub(crate) fn with_value(engine_key: &[u8], record: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(record);
    out[CRC_LEN] &= !APART;
    out.extend_from_slice(value);
    seal(engine_key, out);
}

/// Writes the value of `attached` for `key` into `out`, replacing what was there.
pub(crate) fn encode_attached(engine_key: &[u8], key: &[u8], out: &mut Vec<u8>) {
    start(out);
    out.extend_from_slice(key);
    seal(engine_key, out);
}

/// Writes a row of a small table into `out`, replacing what was there.
pub(crate) fn encode_row(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    start(out);
    out.extend_from_slice(value);
    seal(key, out);
}

fn start(out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0; CRC_LEN]);
}

fn seal(engine_key: &[u8], out: &mut [u8]) {
    let crc = crc32c_append(crc32c(engine_key), &out[CRC_LEN..]);
    out[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
}

fn put_life(record: &HistoryRef<'_>, out: &mut Vec<u8>) {
    if !record.tombstone {
        put_varint((record.revision.main - record.create_revision) as u64, out);
        put_varint(record.version as u64, out);
        put_varint(record.lease.0 as u64, out);
    }
}

fn put_link(from: Revision, to: Revision, present: u8, out: &mut Vec<u8>) {
    if present != 0 {
        put_varint((from.main - to.main) as u64, out);
        put_varint(to.sub as u64, out);
    }
}

fn put_spine(revision: Revision, spine: &Spine, out: &mut Vec<u8>) {
    if spine.depth == 0 {
        return out.push(0);
    }
    let mut links = Vec::with_capacity(4 + 4 * spine.jumps.len());
    put_varint(spine.depth, &mut links);
    let mut from = revision;
    for jump in spine.jumps.iter().rev() {
        put_link(from, *jump, 1, &mut links);
        from = *jump;
    }
    put_varint(links.len() as u64, out);
    out.extend_from_slice(&links);
}

/// Appends `value` in groups of seven bits, lowest first.
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a record of `history`.
#[inline(always)]
pub(crate) fn decode_history<'a>(engine_key: &[u8], bytes: &'a [u8]) -> Result<HistoryRef<'a>, StoreError> {
    let corrupt = |what| corrupt(Table::History, engine_key, what);
    let revision = Revision::from_bytes(engine_key).ok_or_else(|| corrupt("key is no revision"))?;
    let input = Input::check(engine_key, bytes).map_err(corrupt)?;
    parse_history(revision, input).ok_or_else(|| corrupt("malformed"))
}

/// What a record of `history` that [`decode_history`] has read says, without its checksum and its value of so many bytes.
pub(crate) fn unsealed(bytes: &[u8], value_len: usize) -> &[u8] {
    &bytes[CRC_LEN..bytes.len() - value_len]
}

/// Reads what [`unsealed`] gave of the record at `revision`.
pub(crate) fn parse_unsealed(revision: Revision, bytes: &[u8]) -> Option<HistoryRef<'_>> {
    parse_history(revision, Input { rest: bytes })
}

#[inline(always)]
fn parse_history(revision: Revision, mut input: Input<'_>) -> Option<HistoryRef<'_>> {
    let flags = input.flags()?;
    let life = input.life(flags, revision)?;
    let previous = input.link(revision, flags & HAS_PREVIOUS)?;
    let jump = if flags & HAS_JUMP == 0 { previous } else { input.link(revision, HAS_JUMP)? };
    let len = input.varint()?;
    let key = input.take(len)?;
    Some(HistoryRef {
        revision,
        tombstone: flags & TOMBSTONE != 0,
        create_revision: life.create_revision,
        version: life.version,
        lease: life.lease,
        previous,
        jump,
        key,
        value: input.rest,
    })
}

/// Reads a record of `current`.
pub(crate) fn decode_current<'a>(engine_key: &'a [u8], bytes: &'a [u8]) -> Result<CurrentRef<'a>, StoreError> {
    let input = Input::check(engine_key, bytes).map_err(|what| corrupt(Table::Current, engine_key, what))?;
    parse_current(engine_key, input)
}

/// As [`decode_current`] for who only wants to know whether the key is there: without a look at the checksum of a record
/// that lies on a leaf, which the engine takes when it first meets the leaf. (A long key's may lie elsewhere.)
pub(crate) fn peek_current<'a>(engine_key: &'a [u8], bytes: &'a [u8]) -> Result<CurrentRef<'a>, StoreError> {
    if keys::is_long(engine_key) {
        return decode_current(engine_key, bytes);
    }
    let rest = bytes.get(CRC_LEN..).ok_or_else(|| corrupt(Table::Current, engine_key, "too short"))?;
    parse_current(engine_key, Input { rest })
}

fn parse_current<'a>(engine_key: &'a [u8], mut input: Input<'a>) -> Result<CurrentRef<'a>, StoreError> {
    let corrupt = |what| corrupt(Table::Current, engine_key, what);
    let mut parse = || {
        let flags = input.flags()?;
        let revision = Revision::new(input.number()?, input.number()?);
        let life = input.life(flags, revision)?;
        let previous = input.link(revision, flags & HAS_PREVIOUS)?;
        let len = input.varint()?;
        let links = input.take(len)?;
        let key = if keys::is_long(engine_key) {
            let len = input.varint()?;
            input.take(len)?
        } else {
            engine_key
        };
        Some(CurrentRef {
            revision,
            tombstone: flags & TOMBSTONE != 0,
            create_revision: life.create_revision,
            version: life.version,
            lease: life.lease,
            previous,
            key,
            value: (flags & APART == 0).then_some(input.rest),
            links,
        })
    };
    parse().ok_or_else(|| corrupt("malformed"))
}

/// Reads a record of `attached`: the whole key.
pub(crate) fn decode_attached<'a>(engine_key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let input = Input::check(engine_key, bytes).map_err(|what| corrupt(Table::Attached, engine_key, what))?;
    Ok(input.rest)
}

/// Reads a row of a small table: the owner's value.
pub(crate) fn decode_row<'a>(table: Table, key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], StoreError> {
    Input::check(key, bytes).map(|input| input.rest).map_err(|what| corrupt(table, key, what))
}

impl<'a> CurrentRef<'a> {
    /// The same record as `history` holds it; its jump is not told.
    pub fn with_value(&self, value: &'a [u8]) -> HistoryRef<'a> {
        HistoryRef {
            revision: self.revision,
            tombstone: self.tombstone,
            create_revision: self.create_revision,
            version: self.version,
            lease: self.lease,
            previous: self.previous,
            jump: Revision::ZERO,
            key: self.key,
            value,
        }
    }

    /// The record's spine.
    pub fn spine(&self) -> Result<Spine, StoreError> {
        let mut input = Input { rest: self.links };
        if self.links.is_empty() {
            return Ok(Spine::default());
        }
        let mut parse = || {
            let depth = input.varint()?;
            let mut jumps = Vec::with_capacity(8);
            let mut from = self.revision;
            while !input.rest.is_empty() {
                from = input.link(from, 1)?;
                jumps.push(from);
            }
            jumps.reverse();
            Some(Spine { depth, jumps: jumps.into_boxed_slice() })
        };
        parse().ok_or_else(|| corrupt(Table::Current, self.key, "malformed links"))
    }
}

/// Is the record under `engine_key` as it was written? The same for every table.
#[must_use]
pub fn is_sealed(engine_key: &[u8], bytes: &[u8]) -> bool {
    Input::check(engine_key, bytes).is_ok()
}

/// What is wrong with a record that is not there.
pub(crate) const MISSING: &str = "missing";

pub(crate) fn corrupt(table: Table, engine_key: &[u8], what: &'static str) -> StoreError {
    let record = match (table, Revision::from_bytes(engine_key)) {
        (Table::History, Some(revision)) => revision.to_string(),
        _ => engine_key.escape_ascii().to_string(),
    };
    StoreError::Corrupt { table: table.name(), record, what }
}

struct Life {
    create_revision: i64,
    version: i64,
    lease: LeaseId,
}

/// The bytes of a record that are still to be read.
///
/// What reads them is put in place, always: an answer that comes through memory in halves is not read as a whole before
/// every store ahead of it is through, and these go to where lists are made.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn check(engine_key: &[u8], bytes: &'a [u8]) -> Result<Self, &'static str> {
        let (crc, rest) = bytes.split_first_chunk::<CRC_LEN>().ok_or("too short")?;
        if crc32c_append(crc32c(engine_key), rest) != u32::from_le_bytes(*crc) {
            return Err("checksum mismatch");
        }
        Ok(Self { rest })
    }

    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    #[inline(always)]
    fn flags(&mut self) -> Option<u8> {
        self.byte().filter(|flags| flags & !KNOWN_FLAGS == 0)
    }

    #[inline(always)]
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    #[inline(always)]
    fn number(&mut self) -> Option<i64> {
        self.varint().and_then(|value| i64::try_from(value).ok())
    }

    #[inline(always)]
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline(always)]
    fn life(&mut self, flags: u8, revision: Revision) -> Option<Life> {
        if flags & TOMBSTONE != 0 {
            return Some(Life { create_revision: 0, version: 0, lease: LeaseId(0) });
        }
        let create_revision = revision.main.checked_sub(self.number()?)?;
        Some(Life { create_revision, version: self.number()?, lease: LeaseId(self.varint()? as i64) })
    }

    #[inline(always)]
    fn link(&mut self, from: Revision, present: u8) -> Option<Revision> {
        if present == 0 {
            return Some(Revision::ZERO);
        }
        Some(Revision::new(from.main.checked_sub(self.number()?)?, self.number()?))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use milepost_types::{LeaseId, Revision};

    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Record {
        let spine = Spine { depth: 2, jumps: Box::new([Revision::new(3, 0), Revision::new(7, 2)]) };
        Record {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
            create_revision: 3,
            revision: Revision::new(300, 129),
            version: 3,
            lease: LeaseId(-5),
            previous: Revision::new(9, 1),
            jump: spine.jump(),
            spine,
        }
    }

    #[test]
    fn history_comes_back() {
        let record = record(b"key", b"value");
        let mut bytes = Vec::new();
        encode_history(&record, &mut bytes);
        let key = record.revision.to_bytes();
        let back = decode_history(&key, &bytes).expect("own record");
        assert_eq!((back.key, back.value), (&b"key"[..], &b"value"[..]));
        assert_eq!((back.create_revision, back.version, back.lease), (3, 3, LeaseId(-5)));
        assert_eq!((back.previous, back.jump, back.tombstone), (record.previous, record.jump, false));
        assert!(decode_history(&Revision::new(300, 130).to_bytes(), &bytes).is_err(), "at another place");
    }

    #[test]
    fn current_comes_back_with_its_spine() {
        for (key_len, value_len) in [(3, 5), (3, INLINE_MAX), (3, INLINE_MAX + 1), (600, 5)] {
            let record = record(&vec![b'k'; key_len], &vec![b'v'; value_len]);
            let engine_key = keys::EngineKey::of(&record.key);
            let mut bytes = Vec::new();
            encode_current(&record.borrow(), &record.spine, engine_key.bytes(), INLINE_MAX, &mut bytes);
            let back = decode_current(engine_key.bytes(), &bytes).expect("own record");
            assert_eq!(back.key, &record.key[..]);
            assert_eq!(back.value.map(<[u8]>::len), (value_len <= INLINE_MAX).then_some(value_len));
            assert_eq!(back.spine().expect("own spine"), record.spine);
            assert_eq!((back.revision, back.previous), (record.revision, record.previous));
        }
    }

    #[test]
    fn a_value_is_left_out_and_put_in_again() {
        for (key_len, value_len) in [(3, 0), (3, KEPT_MAX), (3, KEPT_MAX + 1), (600, INLINE_MAX), (3, INLINE_MAX + 1)] {
            let record = record(&vec![b'k'; key_len], &vec![b'v'; value_len]);
            let engine_key = keys::EngineKey::of(&record.key);
            let encode = |inline_max| {
                let mut bytes = Vec::new();
                encode_current(&record.borrow(), &record.spine, engine_key.bytes(), inline_max, &mut bytes);
                bytes
            };
            let whole = encode(INLINE_MAX);
            let (mut thin, mut again) = (Vec::new(), Vec::new());
            let left_out = without_value(engine_key.bytes(), &whole, &mut thin);
            assert_eq!(left_out, (KEPT_MAX + 1..=INLINE_MAX).contains(&value_len).then_some(value_len));
            if left_out.is_some() {
                assert_eq!(thin, encode(KEPT_MAX));
                with_value(engine_key.bytes(), &thin, &record.value, &mut again);
                assert_eq!(again, whole);
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let record = record(b"key", b"value");
        let mut bytes = Vec::new();
        encode_current(&record.borrow(), &record.spine, b"key", INLINE_MAX, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_current(b"key", &bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(decode_current(b"key", &[]).is_err());
    }
}
