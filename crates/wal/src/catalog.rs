//! Where in the segments which entry stands: the map behind reading older entries.
//!
//! One mark per 16 KiB of log and one wherever the order breaks: at the first entry of a segment, and where an entry
//! takes the place of one written before. From a mark entries follow one another up to the next mark's index; whatever
//! stands behind that in the segment was superseded.
//!
//! ```text
//!   segment 7:  …│10│11│12│13│11'│12'│13'│14'│…      marks: (10, offset a) (11, offset b)
//!                a           b                        12 is read from b, never from a
//! ```

use std::collections::{BTreeMap, VecDeque};

use crate::name::SegmentName;

/// Bytes of log between two marks: what is read in vain at most to find an entry. At 24 bytes of mark per 16 KiB a
/// full segment costs 100 KB of memory.
const STRIDE_BYTES: u64 = 16 * 1024;

/// Where one entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub index: u64,
    /// Sequence number of its segment.
    pub seq: u64,
    /// Start of its frame in the segment.
    pub offset: u64,
    /// The running checksum before it.
    pub crc: u32,
}

/// A stretch of contiguous entries: from the mark up to, not including, `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub mark: Mark,
    pub until: u64,
}

/// The map, and the segments that there are.
///
/// Invariants: marks grow in index and in (seq, offset); `last` is at or above the last mark's index; `readable` ≤
/// `last`.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    marks: VecDeque<Mark>,
    /// Last index noted; 0: none.
    last: u64,
    /// Last index whose bytes are in the file; entries above it are still in the writer's buffer.
    readable: u64,
    /// Segments that exist, with the log bytes before each since the log was opened or created.
    segments: BTreeMap<u64, (SegmentName, u64)>,
    /// Total bytes of log at the last note.
    position: u64,
}

impl Catalog {
    /// A segment begins.
    pub(crate) fn add_segment(&mut self, name: SegmentName, position: u64) {
        self.segments.insert(name.seq, (name, position));
    }

    /// Log bytes before segment `seq`.
    pub(crate) fn segment_position(&self, seq: u64) -> u64 {
        self.segments.get(&seq).map_or(0, |(_, position)| *position)
    }

    /// An entry stands here. Entries at or above it, and a log that does not reach up to it, are gone.
    pub(crate) fn note(&mut self, mark: Mark) {
        let follows = mark.index == self.last + 1;
        if mark.index > self.last + 1 {
            self.marks.clear();
        }
        while self.marks.back().is_some_and(|back| back.index >= mark.index) {
            self.marks.pop_back();
        }
        let near =
            self.marks.back().is_some_and(|back| back.seq == mark.seq && mark.offset - back.offset < STRIDE_BYTES);
        if !(follows && near) {
            self.marks.push_back(mark);
        }
        self.last = mark.index;
        self.readable = self.readable.min(mark.index - 1);
        self.position = self.segment_position(mark.seq) + mark.offset;
    }

    /// A snapshot took the place of everything up to `index`.
    pub(crate) fn restart_at(&mut self, index: u64) {
        self.marks.clear();
        self.last = index;
        self.readable = index;
    }

    /// Everything noted is in the file now.
    pub(crate) fn written(&mut self) {
        self.readable = self.last;
    }

    /// First and last index that can be read; first > last: none.
    pub(crate) fn readable(&self) -> (u64, u64) {
        (self.marks.front().map_or(self.last + 1, |mark| mark.index), self.readable)
    }

    /// The stretches that together hold `from..to`, first to last. Both must be readable.
    pub(crate) fn runs(&self, from: u64, to: u64) -> Vec<(Run, SegmentName)> {
        let first = self.marks.partition_point(|mark| mark.index <= from).saturating_sub(1);
        let mut runs = Vec::new();
        for (at, mark) in self.marks.iter().enumerate().skip(first).take_while(|(_, mark)| mark.index < to) {
            let until = self.marks.get(at + 1).map_or(u64::MAX, |next| next.index).min(to);
            if let Some((name, _)) = self.segments.get(&mark.seq) {
                runs.push((Run { mark: *mark, until }, *name));
            }
        }
        runs
    }

    /// Bytes of log from the entry `index` on, to the last entry, at 16 KiB precision.
    pub(crate) fn bytes_since(&self, index: u64) -> u64 {
        let at = self.marks.partition_point(|mark| mark.index <= index).saturating_sub(1);
        let start = self
            .marks
            .get(at)
            .filter(|_| index <= self.last)
            .and_then(|mark| self.segments.get(&mark.seq).map(|(_, position)| position + mark.offset));
        start.map_or(0, |start| self.position.saturating_sub(start))
    }

    /// Names of the segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<SegmentName> {
        self.segments.values().map(|(name, _)| *name).collect()
    }

    /// The segment `seq` is gone.
    pub(crate) fn remove_segment(&mut self, seq: u64) {
        self.segments.remove(&seq);
        while self.marks.front().is_some_and(|mark| mark.seq <= seq) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Catalog, Mark, Run, STRIDE_BYTES};
    use crate::name::SegmentName;

    fn mark(index: u64, seq: u64, offset: u64) -> Mark {
        Mark { index, seq, offset, crc: 0 }
    }

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        catalog.add_segment(SegmentName::FIRST, 0);
        catalog
    }

    fn runs(catalog: &Catalog, from: u64, to: u64) -> Vec<(u64, u64, u64)> {
        let runs = catalog.runs(from, to).into_iter();
        runs.map(|(Run { mark, until }, _)| (mark.index, mark.offset, until)).collect()
    }

    #[test]
    fn superseded_entries_are_jumped_over() {
        let mut catalog = catalog();
        for (index, offset) in [(1, 100), (2, 200), (3, 300), (4, 400), (2, 500), (3, 600), (4, 700)] {
            catalog.note(mark(index, 0, offset));
        }
        catalog.written();
        assert_eq!(catalog.readable(), (1, 4));
        assert_eq!(runs(&catalog, 1, 5), [(1, 100, 2), (2, 500, 5)]);
        assert_eq!(runs(&catalog, 3, 4), [(2, 500, 4)]);
    }

    #[test]
    fn marks_are_sparse_within_a_segment_and_anew_in_the_next() {
        let mut catalog = catalog();
        for index in 1..=100 {
            catalog.note(mark(index, 0, index * 1000));
        }
        catalog.add_segment(SegmentName { seq: 1, index: 101 }, 101_000);
        catalog.note(mark(101, 1, 64));
        catalog.written();
        assert_eq!(catalog.marks.len() as u64, 100_000u64.div_ceil(STRIDE_BYTES + 1000 - STRIDE_BYTES % 1000) + 1);
        assert_eq!(runs(&catalog, 101, 102), [(101, 64, 102)]);
        assert_eq!(catalog.bytes_since(1), 101_064 - 1000);
        assert_eq!(catalog.bytes_since(102), 0);
        catalog.remove_segment(0);
        assert_eq!(catalog.readable(), (101, 101));
    }

    #[test]
    fn what_is_not_written_yet_cannot_be_read() {
        let mut catalog = catalog();
        for index in 1..=3 {
            catalog.note(mark(index, 0, index * 100));
        }
        catalog.written();
        catalog.note(mark(2, 0, 400));
        assert_eq!(catalog.readable(), (1, 1));
        catalog.written();
        assert_eq!(catalog.readable(), (1, 2));
    }

    #[test]
    fn a_snapshot_starts_anew() {
        let mut catalog = catalog();
        catalog.note(mark(1, 0, 100));
        catalog.restart_at(50);
        let (first, last) = catalog.readable();
        assert!(first > last);
        catalog.note(mark(51, 0, 300));
        catalog.written();
        assert_eq!(catalog.readable(), (51, 51));
    }
}
