//! One record's frame: a length, the record's own header, the data, zeros up to the next multiple of eight.
//!
//! ```text
//! offset 0            8        10          11+k         12+k+m
//!   ┌────────────────┬────────┬───────────┬────────────┬───────────┬─────────┐
//!   │ length   u56 le│ 08 kind│ 10 crc (k)│ 1a len  (m)│ data      │ 0..7 ×0 │
//!   │ 0x80|pad    u8 │        │   varint  │   varint   │           │ padding │
//!   └────────────────┴────────┴───────────┴────────────┴───────────┴─────────┘
//!                     ◄───────── length bytes, a walpb.Record ─────►
//! ```
//! The top byte is 0 when there is no padding. A frame starts at a multiple of eight, so a length never straddles two
//! sectors. `crc` is the running CRC-32C over the data of all records so far; `1a len data` is absent in a crc record.
//!
//! Source: etcd `server/storage/wal/encoder.go`, `walpb/record.proto`.

/// Bytes of the length field.
pub(crate) const LENGTH_BYTES: u64 = 8;
/// Most bytes of a record before its data: three tags, a kind below 128, a five-byte crc, a ten-byte length.
pub(crate) const HEADER_BYTES_MAX: usize = 3 + 1 + 5 + 10;
/// Frames start at multiples of this.
pub(crate) const ALIGN: u64 = 8;

const LENGTH_MASK: u64 = (1 << 56) - 1;
const TAG_KIND: u8 = 0x08;
const TAG_CRC: u8 = 0x10;
const TAG_DATA: u8 = 0x1a;

/// What a record's data is. The numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Metadata,
            2 => Self::Entry,
            3 => Self::State,
            4 => Self::Crc,
            5 => Self::Snapshot,
            _ => return None,
        })
    }
}

/// Padding after a record of `len` bytes.
pub(crate) const fn padding(len: u64) -> u64 {
    (ALIGN - len % ALIGN) % ALIGN
}

/// The length field of a record of `len` bytes.
pub(crate) const fn length_field(len: u64) -> u64 {
    match padding(len) {
        0 => len,
        pad => len | (0x80 | pad) << 56,
    }
}

/// The record length in a length field, or `None` if no writer makes such a field.
pub(crate) const fn record_len(field: u64) -> Option<u64> {
    let len = field & LENGTH_MASK;
    if len > 0 && length_field(len) == field { Some(len) } else { None }
}

/// Most bytes that a record with `data` bytes of data can take.
pub(crate) const fn frame_bytes_max(data: u64) -> u64 {
    LENGTH_BYTES + HEADER_BYTES_MAX as u64 + data + ALIGN
}

/// Appends one frame to `out`. `data` comes in two pieces so that a payload is copied only once; both empty: no data
/// field at all, as in a crc record. `crc` is the running one after this data.
pub(crate) fn put(out: &mut Vec<u8>, kind: Kind, crc: u32, data: [&[u8]; 2]) {
    let data_len = data[0].len() + data[1].len();
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = TAG_KIND;
    header[1] = kind as u8;
    header[2] = TAG_CRC;
    let mut at = 3 + put_varint(&mut header[3..], u64::from(crc));
    if data_len > 0 {
        header[at] = TAG_DATA;
        at += 1;
        at += put_varint(&mut header[at..], data_len as u64);
    }
    let len = (at + data_len) as u64;
    out.extend_from_slice(&length_field(len).to_le_bytes());
    out.extend_from_slice(&header[..at]);
    out.extend_from_slice(data[0]);
    out.extend_from_slice(data[1]);
    out.extend_from_slice(&[0; ALIGN as usize][..padding(len) as usize]);
}

/// A record's header, as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    pub crc: u32,
    /// Bytes of the header itself; the data follows.
    pub header_len: usize,
    /// Bytes of data; 0: none.
    pub data_len: u64,
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadHeader {
    /// Position of the first byte that cannot stand there; the length of the input if that ended too early.
    pub at: usize,
    pub problem: &'static str,
}

/// Reads the header of a record of `record_len` bytes from its first bytes: all of it, or at least
/// [`HEADER_BYTES_MAX`]. The two lengths, the frame's and the header's, must tell the same.
pub(crate) fn parse_header(bytes: &[u8], record_len: u64) -> Result<Header, BadHeader> {
    let bytes = &bytes[..bytes.len().min(usize::try_from(record_len).unwrap_or(usize::MAX))];
    let mut at = 0;
    expect_tag(bytes, &mut at, TAG_KIND)?;
    let kind =
        bytes.get(at).copied().and_then(Kind::from_byte).ok_or(BadHeader { at, problem: "unknown record type" })?;
    at += 1;
    expect_tag(bytes, &mut at, TAG_CRC)?;
    let crc_at = at;
    let crc = take_varint(bytes, &mut at)?;
    let crc = u32::try_from(crc).map_err(|_| BadHeader { at: crc_at, problem: "checksum of more than 32 bits" })?;
    let mut data_len = 0;
    if at as u64 != record_len {
        expect_tag(bytes, &mut at, TAG_DATA)?;
        data_len = take_varint(bytes, &mut at)?;
        if data_len == 0 || data_len.checked_add(at as u64) != Some(record_len) {
            return Err(BadHeader { at: at - 1, problem: "the two lengths of the record do not agree" });
        }
    }
    Ok(Header { kind, crc, header_len: at, data_len })
}

fn expect_tag(bytes: &[u8], at: &mut usize, tag: u8) -> Result<(), BadHeader> {
    if bytes.get(*at) != Some(&tag) {
        return Err(BadHeader { at: *at, problem: "not a record header" });
    }
    *at += 1;
    Ok(())
}

fn take_varint(bytes: &[u8], at: &mut usize) -> Result<u64, BadHeader> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(BadHeader { at: *at, problem: "the record header is cut" })?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(BadHeader { at: *at - 1, problem: "a number of more than 64 bits" })
}

/// Writes `value` as a protobuf varint; returns its bytes. `out` must hold them.
pub(crate) fn put_varint(out: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

#[cfg(test)]
mod tests {
    use super::{BadHeader, HEADER_BYTES_MAX, Header, Kind, length_field, padding, parse_header, put, record_len};

    #[test]
    fn length_fields_name_their_padding() {
        assert_eq!(length_field(8), 8);
        assert_eq!(length_field(1).to_le_bytes(), [1, 0, 0, 0, 0, 0, 0, 0x87]);
        assert_eq!(length_field(15).to_le_bytes(), [15, 0, 0, 0, 0, 0, 0, 0x81]);
        for len in 1..100 {
            assert_eq!((len + padding(len)) % 8, 0);
            let field = length_field(len);
            assert_eq!(record_len(field), Some(len));
            // No single bit can be turned over in the low three or the high eight without being noticed.
            for bit in (0..3).chain(56..64) {
                assert_eq!(record_len(field ^ (1 << bit)), None, "length {len} bit {bit}");
            }
        }
        assert_eq!(record_len(0), None);
    }

    #[test]
    fn a_frame_is_these_bytes() {
        let mut out = Vec::new();
        put(&mut out, Kind::Crc, 0, [&[], &[]]);
        assert_eq!(out, [4, 0, 0, 0, 0, 0, 0, 0x84, 0x08, 4, 0x10, 0, 0, 0, 0, 0]);
        out.clear();
        put(&mut out, Kind::Entry, 300, [b"ab", b"c"]);
        let expected =
            [10, 0, 0, 0, 0, 0, 0, 0x86, 0x08, 2, 0x10, 0xac, 0x02, 0x1a, 3, b'a', b'b', b'c', 0, 0, 0, 0, 0, 0];
        assert_eq!(out, expected);
        let header = Header { kind: Kind::Entry, crc: 300, header_len: 7, data_len: 3 };
        assert_eq!(parse_header(&out[8..], 10), Ok(header));
    }

    #[test]
    fn the_longest_header_fits() {
        let mut out = Vec::new();
        put(&mut out, Kind::Entry, u32::MAX, [&vec![1; 300], &[]]);
        let header = parse_header(&out[8..8 + HEADER_BYTES_MAX], 300 + 11).unwrap();
        assert_eq!((header.crc, header.header_len), (u32::MAX, 11));
    }

    #[test]
    fn lengths_that_disagree_are_named() {
        let mut out = Vec::new();
        put(&mut out, Kind::Entry, 7, [b"abc", &[]]);
        assert_eq!(parse_header(&out[8..], 9 + 8).unwrap_err().at, 5);
        assert_eq!(parse_header(&out[8..11], 9), Err(BadHeader { at: 3, problem: "the record header is cut" }));
        assert_eq!(parse_header(&[0x08, 9, 0x10, 1], 4).unwrap_err().problem, "unknown record type");
        assert!(parse_header(&[], 4).is_err());
    }
}
