//! Reads one segment, record by record, and tells a clean end from a torn write from damage.
//!
//! What a power cut can do to bytes that were not synced: each 512-byte sector of them is as written or as it was
//! before, and before it was zeros (segments are allocated, and their tails zeroed when a log is opened). What was in
//! the same sector *before* the unsynced bytes is rewritten unchanged with them. Hence:
//!
//! ```text
//!   ..│ synced ─────┤ A ────────┤ B ─────────│──────────┤ C ──│───┤ 0 0 0 0 ..
//!     └── sector 1, new or old ───────────┘└─ sector 2 ─────┘└─ sector 3 ─┘
//!   sector 1 old:  the first unsynced length is zero, and so is the rest of the sector: a clean end (with junk behind)
//!   sector 2 old:  B's checksum is wrong and B's span holds a sector of zeros: torn
//!   a bit turned:  a checksum is wrong, a length is absurd, or a zero length has company in its sector: damage
//! ```
//! A payload may hold sectors of zeros of its own; a bit turned over beside them looks like a lost sector, but for the
//! checksum: it is off by exactly what one bit makes. So is it when the lost sector held one set bit of the record, as where
//! only its last byte, a 1, reached over: then the place of the bit tells. A bit in a sector of zeros was lost with it.
//!
//! A record that the end of the file cuts is torn as well: the file's length had not reached the disk.
//!
//! Source: etcd `server/storage/wal/decoder.go`, which is laxer about lengths; `docs` of the format in [`crate::frame`].

use std::path::{Path, PathBuf};

use bytes::Bytes;
use milepost_env::{File, SECTOR_BYTES};

use crate::error::WalError;
use crate::frame::{self, ALIGN, HEADER_BYTES_MAX, Header, Kind, LENGTH_BYTES};

/// Bytes fetched at a time when a whole segment is read.
pub(crate) const SCAN_CHUNK_BYTES: u64 = 1 << 20;

/// A record as it stands in the segment; its checksum was right.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub kind: Kind,
    /// Shares memory with its neighbours in the chunk that was read.
    pub data: Bytes,
    /// Start of its frame in the segment.
    pub offset: u64,
    /// Number in the segment, from 0, or from where reading began.
    pub number: u64,
    /// The running checksum before it.
    pub crc_before: u32,
}

/// A place where reading cannot go on.
#[derive(Debug)]
pub(crate) struct Bad {
    pub offset: u64,
    pub number: u64,
    pub problem: String,
    /// True if a power cut explains it and the bytes had not been synced, provided this is the log's last segment.
    pub torn: bool,
}

impl Bad {
    pub(crate) fn into_error(self, path: &Path) -> WalError {
        WalError::Corrupt { path: path.to_owned(), offset: self.offset, record: self.number, problem: self.problem }
    }
}

/// Why [`Reader::next`] gives no record.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The kernel refused to read.
    Failed(WalError),
    /// The bytes are no record.
    Bad(Bad),
}

/// A position in a segment.
pub(crate) struct Reader {
    file: Box<dyn File>,
    path: PathBuf,
    /// Length of the file.
    len: u64,
    /// From here on there are only zeros, as the file system says.
    data_end: u64,
    /// Start of the next frame.
    offset: u64,
    /// Bytes of the file from `offset` on, as many as were fetched.
    chunk: Bytes,
    /// The memory that `chunk` is a part of.
    fetched: Bytes,
    chunk_bytes: u64,
    /// The running checksum; `None` before the first record of the first segment that is read, which tells it.
    crc: Option<u32>,
    number: u64,
}

impl Reader {
    /// Starts at the beginning of a segment. `crc`: the checksum at the end of the segment before, if it was read.
    pub(crate) fn new(file: Box<dyn File>, path: PathBuf, crc: Option<u32>) -> Result<Self, WalError> {
        // Before anything is read: what is in the cache may pass for data. Most of a segment was never written, and
        // reading its zeros is most of a restart.
        let data_end = file.data_end().map_err(|error| WalError::disk("measure", &path, error))?;
        Ok(Self { data_end, ..Self::at(file, path, 0, crc, SCAN_CHUNK_BYTES)? })
    }

    /// Starts at the frame at `offset`, where the running checksum was `crc`.
    pub(crate) fn at(
        file: Box<dyn File>,
        path: PathBuf,
        offset: u64,
        crc: Option<u32>,
        chunk_bytes: u64,
    ) -> Result<Self, WalError> {
        let len = file.len().map_err(|error| WalError::disk("measure", &path, error))?;
        Ok(Self {
            file,
            path,
            len,
            data_end: len,
            offset,
            chunk: Bytes::new(),
            fetched: Bytes::new(),
            chunk_bytes,
            crc,
            number: 0,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file, unused space included.
    pub(crate) fn file_len(&self) -> u64 {
        self.len
    }

    /// Start of the next frame: after the last record, where the next one will be written.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of the next record.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The running checksum after the last record.
    pub(crate) fn crc(&self) -> Option<u32> {
        self.crc
    }

    /// The next record, or `None` at a clean end: the end of the file, or a length of zero.
    pub(crate) fn next(&mut self) -> Result<Option<Raw>, Stop> {
        let left = self.len.saturating_sub(self.offset);
        if left < LENGTH_BYTES {
            self.fetch(left)?;
            return if self.chunk.iter().all(|&byte| byte == 0) {
                Ok(None)
            } else {
                self.torn("a length cut by the end of the file")
            };
        }
        self.fetch(LENGTH_BYTES)?;
        let Some(field) = self.chunk.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
            return self.torn("a length cut by the end of the file");
        };
        if field == 0 {
            return self.end_at_zero();
        }
        let Some(record_len) = frame::record_len(field) else {
            return self.damaged(format!("no record has the length field {field:#018x}"));
        };
        let span = LENGTH_BYTES + record_len + frame::padding(record_len);
        let header = match self.header(record_len, span)? {
            Ok(header) => header,
            Err(bad) => return Err(Stop::Bad(bad)),
        };
        if span > left {
            return self.torn(&format!("a record of {span} bytes cut by the end of the file"));
        }
        self.fetch(span)?;
        let Some(header) = header else { return self.torn("a record without its header") };
        self.check(header, record_len, span)
    }

    /// Is everything from `offset` to the end of the file zero?
    pub(crate) fn rest_is_zero(&mut self) -> Result<bool, WalError> {
        (self.chunk, self.fetched) = (Bytes::new(), Bytes::new());
        let mut at = self.offset;
        let mut buffer = vec![0; SCAN_CHUNK_BYTES as usize];
        while at < self.data_end {
            let want = (self.data_end - at).min(SCAN_CHUNK_BYTES) as usize;
            let read = self.file.read_at(&mut buffer[..want], at);
            let read = read.map_err(|error| WalError::disk("read", &self.path, error))?;
            if !is_zero(&buffer[..read]) {
                return Ok(false);
            }
            if read < want {
                break;
            }
            at += read as u64;
        }
        Ok(true)
    }

    /// A length of zero ends the segment, if the rest of its sector is as empty as the length says.
    fn end_at_zero(&mut self) -> Result<Option<Raw>, Stop> {
        self.fetch(to_sector_end(self.offset))?;
        let rest = self.chunk.len().min(to_sector_end(self.offset) as usize);
        if is_zero(&self.chunk[..rest]) {
            Ok(None)
        } else {
            self.damaged("a length of zero with data behind it in the same sector".into())
        }
    }

    /// The header of the record here. `Ok(None)`: it reaches into a sector that never got to the disk.
    fn header(&mut self, record_len: u64, span: u64) -> Result<Result<Option<Header>, Bad>, Stop> {
        self.fetch(LENGTH_BYTES + (HEADER_BYTES_MAX as u64).min(record_len))?;
        let start = self.chunk.len().min(LENGTH_BYTES as usize);
        let parsed = frame::parse_header(&self.chunk[start..], record_len);
        let bad = match parsed {
            Ok(header) => return Ok(Ok(Some(header))),
            Err(bad) => bad,
        };
        // The length's sector is there, so the part of the header in it must be right. What lies in the next sector,
        // or beyond the end of the file, may have been lost.
        let first_sector = to_sector_end(self.offset);
        let bad_at = LENGTH_BYTES + bad.at as u64;
        let beyond = bad_at >= first_sector && self.sector_is_zero(self.offset + first_sector)?;
        let cut = self.offset + bad_at >= self.len && span > self.len - self.offset;
        if beyond || cut {
            return Ok(Ok(None));
        }
        Ok(Err(self.bad(bad.problem.to_owned(), false)))
    }

    /// The whole record is in `chunk`: is it what was written?
    fn check(&mut self, header: Header, record_len: u64, span: u64) -> Result<Option<Raw>, Stop> {
        let data_start = LENGTH_BYTES as usize + header.header_len;
        let data = self.chunk.slice(data_start..data_start + header.data_len as usize);
        if !is_zero(&self.chunk[(LENGTH_BYTES + record_len) as usize..span as usize]) {
            return self.damaged("padding that is not zero".into());
        }
        let crc = match (header.kind, self.crc) {
            (Kind::Crc, None) => header.crc,
            (Kind::Crc, Some(crc)) => crc,
            (_, crc) => crc32c::crc32c_append(crc.unwrap_or(0), &data),
        };
        if crc != header.crc {
            let problem = format!("checksum {:08x} where the data give {crc:08x}", header.crc);
            let torn = match turned_bit(crc ^ header.crc, data.len()) {
                None => self.span_has_zero_sector(span)?,
                Some(Turned::Data(byte)) => {
                    let at = self.offset + (data_start + byte) as u64;
                    self.sector_is_zero(at - at % SECTOR_BYTES)?
                }
                Some(Turned::Checksum) => false,
            };
            return if torn { self.torn(&problem) } else { self.damaged(problem) };
        }
        let raw = Raw {
            kind: header.kind,
            data,
            offset: self.offset,
            number: self.number,
            crc_before: self.crc.unwrap_or(0),
        };
        self.crc = Some(crc);
        self.chunk = self.chunk.slice(span as usize..);
        self.offset += span;
        self.number += 1;
        Ok(Some(raw))
    }

    /// Does the record's span touch a sector that holds nothing but zeros?
    fn span_has_zero_sector(&self, span: u64) -> Result<bool, Stop> {
        let mut sector = self.offset - self.offset % SECTOR_BYTES;
        while sector < self.offset + span {
            if self.sector_is_zero(sector)? {
                return Ok(true);
            }
            sector += SECTOR_BYTES;
        }
        Ok(false)
    }

    fn sector_is_zero(&self, start: u64) -> Result<bool, Stop> {
        let mut sector = [0; SECTOR_BYTES as usize];
        let read = self.read_at(&mut sector, start)?;
        Ok(is_zero(&sector[..read]))
    }

    /// Makes `chunk` hold at least `bytes`, or all that there is.
    fn fetch(&mut self, bytes: u64) -> Result<(), Stop> {
        let have = self.chunk.len() as u64;
        let left = self.len.saturating_sub(self.offset);
        let written = self.data_end.saturating_sub(self.offset);
        let want = bytes.max(self.chunk_bytes.min(written)).min(left);
        if have >= bytes.min(left) {
            return Ok(());
        }
        let begun = std::mem::take(&mut self.chunk).to_vec();
        // Again the memory of the last time, unless an entry that is kept lies there: fresh memory costs more than reading.
        let mut chunk = std::mem::take(&mut self.fetched).try_into_mut().unwrap_or_default();
        chunk.resize(usize::try_from(want).unwrap_or(usize::MAX), 0);
        chunk[..begun.len()].copy_from_slice(&begun);
        let read = self.read_at(&mut chunk[begun.len()..], self.offset + have)?;
        chunk.truncate(begun.len() + read);
        self.fetched = chunk.freeze();
        self.chunk = self.fetched.clone();
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize, Stop> {
        self.file.read_at(into, offset).map_err(|error| Stop::Failed(WalError::disk("read", &self.path, error)))
    }

    fn bad(&self, problem: String, torn: bool) -> Bad {
        Bad { offset: self.offset, number: self.number, problem, torn }
    }

    fn torn<T>(&self, problem: &str) -> Result<T, Stop> {
        Err(Stop::Bad(self.bad(problem.to_owned(), true)))
    }

    fn damaged<T>(&self, problem: String) -> Result<T, Stop> {
        Err(Stop::Bad(self.bad(problem, false)))
    }
}

const _: () = assert!(SECTOR_BYTES.is_multiple_of(ALIGN), "a length never straddles two sectors");

/// Bytes from `offset` to the end of its sector.
fn to_sector_end(offset: u64) -> u64 {
    SECTOR_BYTES - offset % SECTOR_BYTES
}

/// Where one bit was turned over, if that is all that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turned {
    /// In this byte of the data.
    Data(usize),
    /// In the stored checksum.
    Checksum,
}

/// The one turned bit that makes a CRC-32C over `len` bytes, or the stored checksum itself, differ by `difference`. More
/// than one turned bit looks like it once in a billion.
fn turned_bit(difference: u32, len: usize) -> Option<Turned> {
    /// The polynomial, bit-reflected: what a turned bit at the very end makes.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut effect = POLYNOMIAL;
    // A bit one place earlier goes through one more step of the division.
    let from_end = (0..len.saturating_mul(8)).find(|_| {
        let found = effect == difference;
        effect = if effect & 1 == 1 { (effect >> 1) ^ POLYNOMIAL } else { effect >> 1 };
        found
    });
    let in_data = from_end.map(|bit| Turned::Data(len - 1 - bit / 8));
    in_data.or_else(|| difference.is_power_of_two().then_some(Turned::Checksum))
}

fn is_zero(bytes: &[u8]) -> bool {
    // In blocks: the compiler turns the inner loop into vector instructions, the outer one stops early.
    bytes.chunks(4096).all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::{Turned, turned_bit};

    #[test]
    fn one_bit_is_told_from_more_and_found() {
        let mut data = [0; 700];
        data[10] = 0x55;
        let right = crc32c::crc32c_append(77, &data);
        for bit in 0..data.len() * 8 {
            data[bit / 8] ^= 1 << (bit % 8);
            let wrong = crc32c::crc32c_append(77, &data);
            assert_eq!(turned_bit(right ^ wrong, data.len()), Some(Turned::Data(bit / 8)), "bit {bit}");
            data[bit / 8] ^= 1 << (bit % 8);
        }
        data[10] = 0;
        assert_eq!(turned_bit(right ^ crc32c::crc32c_append(77, &data), data.len()), None, "four bits");
        assert_eq!(turned_bit(1 << 31, 0), Some(Turned::Checksum));
    }
}
