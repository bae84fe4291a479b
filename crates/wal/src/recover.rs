//! From a directory of segments to the state they hold: find, read, judge, repair. Nothing is changed before the
//! judgement is passed, and only a torn tail is ever repaired.

use std::path::{Path, PathBuf};

use milepost_env::{Disk, File, Open};
use milepost_proto::raftpb::{Entry, HardState};
use milepost_types::{LogIndex, Term};

use crate::catalog::Catalog;
use crate::error::WalError;
use crate::name::SegmentName;
use crate::reader::{Bad, Reader, SCAN_CHUNK_BYTES, Stop};
use crate::record::{Metadata, SnapshotMark};
use crate::replay::Replay;

/// What a log held when it was opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// Whose log it is.
    pub metadata: Metadata,
    /// The last one written.
    pub hard_state: HardState,
    /// All snapshot records, oldest first, those above the commit included.
    pub snapshots: Vec<SnapshotMark>,
    /// The newest snapshot record at or below the commit: where Raft's log begins.
    pub snapshot: SnapshotMark,
    /// Terms of the entries from the snapshot to where `entries` begin: the first index of each and the term, both rising.
    /// The first pair is the snapshot's.
    pub terms: Vec<(LogIndex, Term)>,
    /// Index before `entries`: the snapshot's, or [`Options::must_hold`](crate::Options::must_hold) if that is above it.
    pub before: LogIndex,
    /// The entries after `before`, without a gap. All of them are on the disk.
    pub entries: Vec<Entry>,
    /// What was cut off the end, if anything.
    pub repaired: Option<TornTail>,
}

impl Recovered {
    /// Last index of the log: that of the last entry, or of the snapshot if there is none behind it.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.before.0 + self.entries.len() as u64)
    }

    /// Its term.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.entries.last().map_or(self.term_before(), |entry| Term(entry.term()))
    }

    /// Term of the entry at `before`.
    #[must_use]
    pub fn term_before(&self) -> Term {
        self.terms.last().map_or(self.snapshot.term, |(_, term)| *term)
    }
}

/// The tail of a log that a power cut left half written. It had not been synced, so nobody was told that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// Copy of the segment as it was found.
    pub broken: PathBuf,
    /// Where the segment ends now.
    pub offset: u64,
    /// Number of the record, from 0, that would have stood there.
    pub record: u64,
    /// What was found, in words.
    pub problem: String,
}

/// Records at the head of every segment: checksum and metadata.
const HEAD_RECORDS: u64 = 2;

/// Everything that reading told, and where writing goes on.
pub(crate) struct Scan {
    pub replay: Replay,
    /// The last segment.
    pub tail: SegmentName,
    /// Where its last good record ends, and the next record's number.
    pub end: u64,
    pub end_record: u64,
    /// The running checksum there.
    pub crc: u32,
    /// Length of the last segment's file.
    pub file_len: u64,
    /// Why the tail must be cut, if it must.
    pub torn: Option<String>,
}

/// Names of the segments in `dir`, in order and without a gap; never none.
pub(crate) fn segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<SegmentName>, WalError> {
    let names = disk.list(dir).map_err(|error| WalError::disk("list", dir, error))?;
    let mut segments: Vec<SegmentName> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
    segments.sort_unstable();
    if segments.is_empty() {
        return Err(WalError::NotFound { dir: dir.to_owned() });
    }
    for pair in segments.windows(2) {
        if pair[1].seq != pair[0].seq + 1 {
            return Err(WalError::MissingSegment {
                dir: dir.to_owned(),
                missing: pair[0].seq + 1,
                before: pair[0].to_string(),
                after: pair[1].to_string(),
            });
        }
    }
    Ok(segments)
}

/// Reads every segment. Changes nothing. Of entries up to `known` the data are looked at, but not kept.
pub(crate) fn scan(disk: &dyn Disk, dir: &Path, segments: &[SegmentName], known: LogIndex) -> Result<Scan, WalError> {
    let mut replay = Replay { known: known.0, ..Replay::default() };
    let mut position = 0;
    let mut crc = None;
    let Some((&tail, closed)) = segments.split_last() else { return Err(WalError::NotFound { dir: dir.to_owned() }) };
    for &name in closed {
        replay.catalog.add_segment(name, position);
        let mut reader = open_reader(disk, dir, name, crc)?;
        if let Some(bad) = read_segment(&mut reader, &mut replay, name.seq)? {
            return Err(bad.into_error(reader.path()));
        }
        check_head(&reader, "it is cut")?;
        crc = reader.crc();
        position += reader.offset();
    }
    replay.catalog.add_segment(tail, position);
    let mut reader = open_reader(disk, dir, tail, crc)?;
    let bad = read_segment(&mut reader, &mut replay, tail.seq)?;
    replay.catalog.written();
    let torn = match bad {
        Some(bad) if bad.torn => Some(bad.problem),
        Some(bad) => return Err(bad.into_error(reader.path())),
        None if reader.rest_is_zero()? => None,
        None => Some("bytes behind the last whole record".to_owned()),
    };
    check_head(&reader, torn.as_deref().unwrap_or("it is cut"))?;
    let (end, end_record, crc) = (reader.offset(), reader.number(), reader.crc().unwrap_or(0));
    let file_len = reader.file_len();
    Ok(Scan { replay, tail, end, end_record, crc, file_len, torn })
}

/// A segment gets its name only once its head is durable: without one it was never torn, it is damaged.
fn check_head(reader: &Reader, cause: &str) -> Result<(), WalError> {
    if reader.number() >= HEAD_RECORDS {
        return Ok(());
    }
    let problem = format!("the segment has no head: {cause}");
    Err(Bad { offset: reader.offset(), number: reader.number(), problem, torn: false }.into_error(reader.path()))
}

fn open_reader(disk: &dyn Disk, dir: &Path, name: SegmentName, crc: Option<u32>) -> Result<Reader, WalError> {
    let path = dir.join(name.to_string());
    let file = disk.open(&path, Open::Read).map_err(|error| WalError::disk("open", &path, error))?;
    Reader::new(file, path, crc)
}

/// Feeds a segment's records to `replay`; returns where it could not go on.
fn read_segment(reader: &mut Reader, replay: &mut Replay, seq: u64) -> Result<Option<Bad>, WalError> {
    loop {
        let raw = match reader.next() {
            Ok(Some(raw)) => raw,
            Ok(None) => return Ok(None),
            Err(Stop::Bad(bad)) => return Ok(Some(bad)),
            Err(Stop::Failed(error)) => return Err(error),
        };
        let (offset, number) = (raw.offset, raw.number);
        if let Err(problem) = replay.record(raw, seq) {
            return Ok(Some(Bad { offset, number, problem, torn: false }));
        }
    }
}

/// Is what was read a log that a member may go on with? `must_hold`: an index that is known to have been durable.
pub(crate) fn judge(dir: &Path, scan: Scan, must_hold: LogIndex) -> Result<(Recovered, Catalog), WalError> {
    let Scan { replay, tail, end, end_record, torn, .. } = scan;
    let last = LogIndex(replay.last());
    let commit = LogIndex(replay.state.commit());
    let needed = if last < commit { Some(("the commit index", commit)) } else { None };
    let needed = needed.or((last < must_hold).then_some(("the store's applied index", must_hold)));
    if let Some((what, needed)) = needed {
        let cause = torn.unwrap_or_else(|| "its last records are missing without a trace".to_owned());
        return Err(WalError::LostLog { dir: dir.to_owned(), last, what, needed, cause });
    }
    let Some(snapshot) = replay.newest_valid_mark().cloned() else {
        return Err(WalError::NoSnapshotMark { dir: dir.to_owned(), commit });
    };
    let path = dir.join(tail.to_string());
    let base = replay.base.unwrap_or(snapshot.index.0);
    if base != snapshot.index.0 {
        let problem = format!("entries {} to {base} are missing behind the snapshot record", snapshot.index.next());
        return Err(WalError::Corrupt { path, offset: end, record: end_record, problem });
    }
    let Some(metadata) = replay.metadata else {
        return Err(WalError::Corrupt { path, offset: 0, record: 1, problem: "no metadata record".to_owned() });
    };
    let broken = broken_path(&path);
    let repaired = torn.map(|problem| TornTail { path, broken, offset: end, record: end_record, problem });
    let before = replay.known.max(base);
    let mut known = replay.entries;
    // It ends above: the log holds what it must.
    let entries = known.split_off(usize::try_from(before - base).unwrap_or(usize::MAX));
    let mut terms = vec![(snapshot.index, snapshot.term)];
    for entry in &known {
        if terms.last().is_some_and(|(_, term)| term.0 != entry.term()) {
            terms.push((LogIndex(entry.index()), Term(entry.term())));
        }
    }
    let recovered = Recovered {
        metadata,
        hard_state: replay.state,
        snapshots: replay.marks,
        snapshot,
        terms,
        before: LogIndex(before),
        entries,
        repaired,
    };
    Ok((recovered, replay.catalog))
}

/// Sets a copy of the segment aside and cuts the tail off, durably.
pub(crate) fn repair(disk: &dyn Disk, dir: &Path, torn: &TornTail, file: &mut dyn File) -> Result<(), WalError> {
    copy_aside(disk, file, &torn.path, &torn.broken)?;
    disk.sync_dir(dir).map_err(|error| WalError::disk("sync", dir, error))?;
    file.set_len(torn.offset).map_err(|error| WalError::disk("cut the torn tail of", &torn.path, error))?;
    file.sync_all().map_err(|error| WalError::disk("sync", &torn.path, error))
}

fn broken_path(path: &Path) -> PathBuf {
    let mut broken = path.as_os_str().to_owned();
    broken.push(".broken");
    broken.into()
}

/// Copies what is not zero; the rest stays a hole.
fn copy_aside(disk: &dyn Disk, from: &dyn File, path: &Path, to_path: &Path) -> Result<(), WalError> {
    let failed = |error| WalError::disk("keep the torn tail in", to_path, error);
    let mut to = disk.open(to_path, Open::CreateOrTruncate).map_err(failed)?;
    let mut buffer = vec![0; SCAN_CHUNK_BYTES as usize];
    let mut at = 0;
    loop {
        let read = from.read_at(&mut buffer, at).map_err(|error| WalError::disk("read", path, error))?;
        for (block, bytes) in (0..).zip(buffer[..read].chunks(4096)) {
            if bytes.iter().any(|&byte| byte != 0) {
                to.write_at(bytes, at + block * 4096).map_err(failed)?;
            }
        }
        at += read as u64;
        if read < buffer.len() {
            break;
        }
    }
    to.set_len(at).map_err(failed)?;
    to.sync_all().map_err(failed)
}
