//! Names of segments.

use std::fmt;

/// `SSSSSSSSSSSSSSSS-IIIIIIIIIIIIIIII.wal`: a sequence number and the first index that the segment may hold, in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    pub seq: u64,
    pub index: u64,
}

impl SegmentName {
    /// The first segment of a log.
    pub(crate) const FIRST: Self = Self { seq: 0, index: 0 };

    /// `None` for every other file of the directory: they are nobody's business.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
        Some(Self { seq: hex16(seq)?, index: hex16(index)? })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.seq, self.index)
    }
}

/// Reads exactly sixteen lower-case hex digits.
pub(crate) fn hex16(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if text.len() == 16 && digits { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::SegmentName;

    #[test]
    fn names_read_back_and_nothing_else_is_a_name() {
        let name = SegmentName { seq: 10, index: 0xabc };
        assert_eq!(name.to_string(), "000000000000000a-0000000000000abc.wal");
        assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        for other in [
            "0.tmp",
            "000000000000000a-0000000000000abc.wal.broken",
            "a-b.wal",
            "000000000000000A-0000000000000abc.wal",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }
}
