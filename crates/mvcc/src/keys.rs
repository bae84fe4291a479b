//! How users' keys of any length fit into an engine's keys of at most 511 bytes.
//!
//! ```text
//!   user key up to 472 bytes     as it is
//!   longer                       first 472 bytes │ 0x00 │ SHA-256 of the whole key     = 505 bytes
//! ```
//!
//! All long keys with one prefix (a *group*) lie together, between that prefix itself and everything that sorts after
//! it, but among themselves in the order of their digests: a scan collects the group and sorts it by the whole keys,
//! which the records hold.

use std::ops::Bound;

use milepost_engine::MAX_KEY_LEN;
use milepost_types::{KeyRange, LeaseId, RangeEnd};
use sha2::{Digest, Sha256};

/// Bytes of a SHA-256 digest with the zero byte before it.
const SUFFIX_LEN: usize = 1 + 32;
/// Longest user key that the table `current` holds as it is. Part of the format on disk.
pub(crate) const CURRENT_CUT: usize = 472;
/// Length of the engine's key of a long user key in `current`.
const CURRENT_LONG: usize = CURRENT_CUT + SUFFIX_LEN;
/// Lease id in front of a key in `attached`.
pub(crate) const LEASE_LEN: usize = 8;
/// Longest user key that the table `attached` holds as it is. Part of the format on disk.
const ATTACHED_CUT: usize = 462;

const _: () = assert!(CURRENT_LONG <= MAX_KEY_LEN);
const _: () = assert!(LEASE_LEN + ATTACHED_CUT + SUFFIX_LEN <= MAX_KEY_LEN);

/// The engine's key of a user key in the table `current`.
pub(crate) enum EngineKey<'a> {
    Short(&'a [u8]),
    Long(Box<[u8; CURRENT_LONG]>),
}

impl<'a> EngineKey<'a> {
    pub fn of(key: &'a [u8]) -> Self {
        if key.len() <= CURRENT_CUT {
            return Self::Short(key);
        }
        let mut long = Box::new([0; CURRENT_LONG]);
        long[..CURRENT_CUT].copy_from_slice(&key[..CURRENT_CUT]);
        long[CURRENT_CUT + 1..].copy_from_slice(&Sha256::digest(key));
        Self::Long(long)
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(key) => key,
            Self::Long(key) => &**key,
        }
    }
}

/// Does this engine key of `current` stand for a longer one?
pub(crate) fn is_long(engine_key: &[u8]) -> bool {
    engine_key.len() == CURRENT_LONG
}

/// The part that all members of a long key's group share.
pub(crate) fn group(engine_key: &[u8]) -> &[u8] {
    &engine_key[..engine_key.len().min(CURRENT_CUT)]
}

/// An end of a walk through `current`.
pub(crate) enum Edge {
    Open,
    At(Vec<u8>),
}

/// First engine key that can hold a member of `range`.
pub(crate) fn lower_edge(range: KeyRange<'_>) -> Edge {
    match range.start {
        [] => Edge::Open,
        start if start.len() <= CURRENT_CUT => Edge::At(start.to_vec()),
        start => Edge::At(group_start(start)),
    }
}

/// First engine key above every member of `range`.
pub(crate) fn upper_edge(range: KeyRange<'_>) -> Edge {
    match range.end {
        RangeEnd::Open => Edge::Open,
        RangeEnd::Before(end) if end.len() <= CURRENT_CUT => Edge::At(end.to_vec()),
        RangeEnd::Before(end) => Edge::At(group_end(end)),
        RangeEnd::Single if range.start.len() <= CURRENT_CUT => Edge::At([range.start, &[0]].concat()),
        RangeEnd::Single => Edge::At(group_end(range.start)),
    }
}

fn group_start(key: &[u8]) -> Vec<u8> {
    [&key[..CURRENT_CUT], &[0]].concat()
}

fn group_end(key: &[u8]) -> Vec<u8> {
    [&key[..CURRENT_CUT], &[1]].concat()
}

impl Edge {
    pub fn lower(&self) -> Bound<&[u8]> {
        match self {
            Self::Open => Bound::Unbounded,
            Self::At(key) => Bound::Included(key),
        }
    }

    pub fn upper(&self) -> Bound<&[u8]> {
        match self {
            Self::Open => Bound::Unbounded,
            Self::At(key) => Bound::Excluded(key),
        }
    }
}

/// The engine's key in the table `attached`: lease, then key.
pub(crate) fn attached_key(lease: LeaseId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(LEASE_LEN + key.len().min(ATTACHED_CUT + SUFFIX_LEN));
    out.extend_from_slice(&lease.0.to_be_bytes());
    if key.len() <= ATTACHED_CUT {
        out.extend_from_slice(key);
    } else {
        out.extend_from_slice(&key[..ATTACHED_CUT]);
        out.push(0);
        out.extend_from_slice(&Sha256::digest(key));
    }
    out
}

/// Lower bound of a lease's keys in `attached`, and the bound above them (`None`: the table's end).
pub(crate) fn attached_bounds(lease: LeaseId) -> ([u8; LEASE_LEN], Option<[u8; LEASE_LEN]>) {
    let first = (lease.0 as u64).to_be_bytes();
    (first, (lease.0 as u64).checked_add(1).map(u64::to_be_bytes))
}

#[cfg(test)]
mod tests {
    use milepost_types::LeaseId;

    use super::{EngineKey, MAX_KEY_LEN, attached_key, is_long};

    #[test]
    fn every_engine_key_fits() {
        for len in [1, 461, 462, 463, 471, 472, 473, 474, 505, 511, 2000, 1_500_000] {
            let key = vec![0xff; len];
            let engine_key = EngineKey::of(&key);
            assert!(engine_key.bytes().len() <= MAX_KEY_LEN, "{len}");
            assert_eq!(is_long(engine_key.bytes()), len > 472, "{len}");
            assert!(attached_key(LeaseId(-1), &key).len() <= MAX_KEY_LEN, "{len}");
        }
    }
}
