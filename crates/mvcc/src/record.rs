//! One change of one key, and the pointers that lead to its older ones.

use bytes::Bytes;
use milepost_proto::mvccpb;
use milepost_types::{LeaseId, Revision};

/// One change of one key: what the key was from this revision on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The user's key.
    pub key: Bytes,
    /// Its value; empty for a tombstone, and where the reader asked for no values.
    pub value: Bytes,
    /// Main revision of the put that created the key; 0 for a tombstone.
    pub create_revision: i64,
    /// Where in history this change stands (the wire's `mod_revision` is its main).
    pub revision: Revision,
    /// Puts since the key was created, this one included; 0 says tombstone.
    pub version: i64,
    /// The lease the key is attached to; zero: none.
    pub lease: LeaseId,
    /// The change of this key before this one, tombstones included; zero: none that was kept.
    pub previous: Revision,
    /// An older change of this key, for skipping; zero: none. See [`Spine`].
    pub jump: Revision,
    /// What the next change of this key needs to find its own jump. Empty in records read for readers.
    pub(crate) spine: Spine,
}

impl Record {
    /// The key was deleted here.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// As the wire and etcd's files say it; of a tombstone only key and `mod_revision`.
    #[must_use]
    pub fn to_kv(&self) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: self.key.clone(),
            create_revision: self.create_revision,
            mod_revision: self.revision.main,
            version: self.version,
            value: self.value.clone(),
            lease: self.lease.0,
        }
    }

    /// Everything but key and value.
    #[must_use]
    pub fn header(&self) -> Header {
        Header {
            create_revision: self.create_revision,
            revision: self.revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// What a record says besides key and value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// As [`Record::create_revision`].
    pub create_revision: i64,
    /// As [`Record::revision`].
    pub revision: Revision,
    /// As [`Record::version`].
    pub version: i64,
    /// As [`Record::lease`].
    pub lease: LeaseId,
}

/// The jumps of a record, one after another: `jump`, the jump of that, and so on to the oldest.
///
/// Each record of a key has a depth, the number of kept records before it. A depth is a sum of terms `2^k - 1`, largest
/// first, each term used once save that the smallest may occur twice (skew-binary numbers); the jumps are as long as the
/// terms. So the lengths need not be kept, the list has at most about log2(depth) members, and adding a record either
/// puts its predecessor in front or, when the two nearest jumps are equally long, lets the nearest go:
///
/// ```text
///   depth   0   1   2   3   4   5   6   7   8          terms of 8: 7 + 1
///   jump    –   0   1   0   3   4   3   0   7          spine of 8: 7, 0
/// ```
///
/// A reader that wants the newest record at or below some revision follows `jump` while it is still above, else
/// `previous`, and visits O(log n) records. Source: Myers, "An applicative random-access stack", 1983.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spine {
    /// Records of this key before this one.
    pub depth: u64,
    /// Oldest first: the last is the record's own jump.
    pub jumps: Box<[Revision]>,
}

impl Spine {
    /// The spine of the record that follows `previous`, whose own spine this is.
    pub fn child(&self, previous: Revision) -> Self {
        let jumps = if self.nearest_two_are_equal() {
            self.jumps[..self.jumps.len().saturating_sub(1)].into()
        } else {
            let mut jumps = Vec::with_capacity(self.jumps.len() + 1);
            jumps.extend_from_slice(&self.jumps);
            jumps.push(previous);
            jumps.into_boxed_slice()
        };
        Self { depth: self.depth + 1, jumps }
    }

    /// The record's own jump; zero: none.
    pub fn jump(&self) -> Revision {
        self.jumps.last().copied().unwrap_or(Revision::ZERO)
    }

    /// Is the smallest term of the depth there twice?
    fn nearest_two_are_equal(&self) -> bool {
        let (mut rest, mut last) = (self.depth, 0);
        while rest > 0 {
            let term = (1 << (rest + 1).ilog2()) - 1;
            if term == rest {
                return term == last;
            }
            last = term;
            rest -= term;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use milepost_types::Revision;

    use super::Spine;

    /// Spines of a chain of `n` records, the record of depth d at main revision d + 1.
    fn chain(n: usize) -> Vec<Spine> {
        let mut spines = vec![Spine::default()];
        for main in 1..n as i64 {
            let child = spines[main as usize - 1].child(Revision::new(main, 0));
            spines.push(child);
        }
        spines
    }

    #[test]
    fn jumps_follow_the_rule_that_looks_at_two_records() {
        let spines = chain(3000);
        let depth = |revision: Revision| revision.main - 1;
        for (d, spine) in spines.iter().enumerate().skip(1) {
            // The textbook rule: look at the parent's jump and the jump of that.
            let parent = d as i64 - 1;
            let first = if parent == 0 { None } else { Some(depth(spines[parent as usize].jump())) };
            let second = first.filter(|first| *first > 0).map(|first| depth(spines[first as usize].jump()));
            let expected = match (first, second) {
                (Some(first), Some(second)) if parent - first == first - second => second,
                _ => parent,
            };
            assert_eq!(depth(spine.jump()), expected, "depth {d}");
            assert_eq!(spine.depth, d as u64);
        }
    }

    #[test]
    fn spines_stay_short() {
        let spines = chain(100_001);
        let longest = spines.iter().map(|spine| spine.jumps.len()).max();
        assert!(longest <= Some(17), "{longest:?}");
    }
}
