//! Sets of keys as etcd's requests name them.

/// Where a [`KeyRange`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeEnd<'a> {
    /// The range is one key.
    Single,
    /// All keys from the start on.
    Open,
    /// Keys below this one; at or below the start the range is empty.
    Before(&'a [u8]),
}

/// A set of keys: one key, a half-open interval, or everything from a key on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// First key of the range.
    pub start: &'a [u8],
    /// Where it ends.
    pub end: RangeEnd<'a>,
}

impl<'a> KeyRange<'a> {
    /// One key.
    #[must_use]
    pub const fn single(key: &'a [u8]) -> Self {
        Self { start: key, end: RangeEnd::Single }
    }

    /// Every key there is.
    #[must_use]
    pub const fn all() -> Self {
        Self { start: &[], end: RangeEnd::Open }
    }

    /// From the wire's `key` and `range_end`: empty end = one key, one zero byte = open, else half-open.
    #[must_use]
    pub fn from_wire(key: &'a [u8], range_end: &'a [u8]) -> Self {
        let end = match range_end {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Open,
            end => RangeEnd::Before(end),
        };
        Self { start: key, end }
    }

    /// Is `key` in the set?
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.end {
            RangeEnd::Single => key == self.start,
            RangeEnd::Open => key >= self.start,
            RangeEnd::Before(end) => key >= self.start && key < end,
        }
    }

    /// True if no key can be in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.end, RangeEnd::Before(end) if end <= self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyRange, RangeEnd};

    #[test]
    fn wire_forms() {
        assert_eq!(KeyRange::from_wire(b"a", b"").end, RangeEnd::Single);
        assert_eq!(KeyRange::from_wire(b"a", b"\0").end, RangeEnd::Open);
        let range = KeyRange::from_wire(b"a", b"c");
        assert!(range.contains(b"a") && range.contains(b"bzz") && !range.contains(b"c"));
        assert!(KeyRange::from_wire(b"c", b"c").is_empty() && KeyRange::from_wire(b"c", b"a").is_empty());
        assert!(!KeyRange::single(b"x").contains(b"x\0"));
        assert!(KeyRange::all().contains(b"\0"));
    }
}
