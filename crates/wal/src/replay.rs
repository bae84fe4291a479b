//! Records in, the log's state out. Pure: the same records give the same state, and no file is touched here.
//!
//! Later records win: an entry takes the place of its predecessor at the same index and of everything behind it; the
//! last HardState counts; a snapshot mark counts once the commit has reached it. A mark that an entry at or below it
//! follows never counts: the snapshot was received, and the member went down before it was installed. What it covers came
//! as entries then.

use milepost_proto::raftpb::{Entry, HardState};

use crate::catalog::{Catalog, Mark};
use crate::frame::Kind;
use crate::reader::Raw;
use crate::record::{Content, Metadata, SnapshotMark};

/// What the records so far amount to.
///
/// Invariants: `entries` holds `base + 1 ..= last()` without a gap, terms never fall; no mark at or below the commit
/// lies above `base`.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub metadata: Option<Metadata>,
    pub state: HardState,
    /// All of them, in log order.
    pub marks: Vec<SnapshotMark>,
    /// Entries after the newest mark that counts; up to `known` without their data.
    pub entries: Vec<Entry>,
    /// Nobody asks for the data of entries up to this index: memory stays bounded while a long log is read.
    pub known: u64,
    /// Index before `entries`; `None` until an entry or a mark that counts tells.
    pub base: Option<u64>,
    pub catalog: Catalog,
}

impl Replay {
    /// Takes one record of segment `seq`. The error is a sentence without place.
    pub(crate) fn record(&mut self, raw: Raw, seq: u64) -> Result<(), String> {
        match (raw.number, raw.kind) {
            (0, Kind::Crc) | (1, Kind::Metadata) => {}
            (0, _) => return Err("a segment must begin with a checksum record".into()),
            (1, _) => return Err("a segment's second record must be the metadata".into()),
            (_, Kind::Crc) => return Err("a checksum record in the middle of a segment".into()),
            _ => {}
        }
        let place = (raw.offset, raw.crc_before);
        match Content::decode(raw.kind, raw.data)? {
            Content::Crc => Ok(()),
            Content::Metadata(metadata) => self.metadata(metadata),
            Content::State(state) => self.state(state),
            Content::Snapshot(mark) => self.mark(mark),
            Content::Entry(entry) => {
                let mark = Mark { index: entry.index(), seq, offset: place.0, crc: place.1 };
                self.entry(entry, mark)
            }
        }
    }

    /// Last index of the log; 0 when nothing tells.
    pub(crate) fn last(&self) -> u64 {
        self.base.unwrap_or(0) + self.entries.len() as u64
    }

    /// The newest mark that the commit has reached.
    pub(crate) fn newest_valid_mark(&self) -> Option<&SnapshotMark> {
        self.marks.iter().filter(|mark| mark.index.0 <= self.state.commit()).max_by_key(|mark| mark.index)
    }

    fn metadata(&mut self, metadata: Metadata) -> Result<(), String> {
        match self.metadata.replace(metadata) {
            Some(before) if before != metadata => Err(format!(
                "the log of member {:x} of cluster {:x} goes on as that of member {:x} of cluster {:x}",
                before.node_id, before.cluster_id, metadata.node_id, metadata.cluster_id
            )),
            _ => Ok(()),
        }
    }

    fn state(&mut self, state: HardState) -> Result<(), String> {
        if state.term() < self.state.term() {
            return Err(format!("the term goes back from {} to {}", self.state.term(), state.term()));
        }
        self.state = state;
        self.forget_covered();
        Ok(())
    }

    fn mark(&mut self, mark: SnapshotMark) -> Result<(), String> {
        self.marks.push(mark);
        self.forget_covered();
        Ok(())
    }

    fn entry(&mut self, mut entry: Entry, place: Mark) -> Result<(), String> {
        let index = entry.index();
        if index <= self.known {
            entry.data = None;
        }
        if index <= self.state.commit() {
            return Err(format!("entry {index} is written again after commit {}", self.state.commit()));
        }
        // All that are left of these lie above the commit: see above.
        self.marks.retain(|mark| mark.index.0 < index);
        if self.base.is_some() && index > self.last() + 1 {
            self.jump(index)?;
        }
        let base = *self.base.get_or_insert(index - 1);
        if index <= base {
            // Only below a base that the first entry told: everything held is superseded.
            self.entries.clear();
            self.base = Some(index - 1);
        } else {
            self.entries.truncate(usize::try_from(index - base - 1).unwrap_or(usize::MAX));
        }
        if let Some(before) = self.entries.last().filter(|before| before.term() > entry.term()) {
            return Err(format!("entry {index} has term {} after an entry of term {}", entry.term(), before.term()));
        }
        self.catalog.note(place);
        self.entries.push(entry);
        Ok(())
    }

    /// Entries are missing before `index`: in order behind a received snapshot whose commit comes only with a later
    /// HardState, and when nothing but an old mark was read so far: the entries between it and the oldest segment
    /// were released. Whether the gap matters shows at the end.
    fn jump(&mut self, index: u64) -> Result<(), String> {
        let behind_mark = self.marks.last().is_some_and(|mark| mark.index.0 > self.last() && index == mark.index.0 + 1);
        if !behind_mark && !self.entries.is_empty() {
            return Err(format!("entry {index} follows entry {}", self.last()));
        }
        self.restart_at(index - 1);
        Ok(())
    }

    /// Drops what the newest valid mark covers: memory stays bounded while a long log is read.
    fn forget_covered(&mut self) {
        let Some(mark) = self.newest_valid_mark() else { return };
        let (index, term) = (mark.index.0, mark.term.0);
        let Some(base) = self.base else { return self.base = Some(index) };
        if index <= base {
            return;
        }
        if index > self.last() {
            return self.restart_at(index);
        }
        self.entries.drain(..usize::try_from(index - base).unwrap_or(usize::MAX));
        self.base = Some(index);
        // A received snapshot took the place of a tail that never was committed.
        if self.entries.first().is_some_and(|entry| entry.term() < term) {
            self.restart_at(index);
        }
    }

    fn restart_at(&mut self, index: u64) {
        self.entries.clear();
        self.base = Some(index);
        self.catalog.restart_at(index);
    }
}
