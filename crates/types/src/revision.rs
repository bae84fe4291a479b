//! Positions in the history of the keyspace.

use std::fmt;

/// One change of the keyspace: `main` counts changing requests, `sub` the changes inside one request from 0.
///
/// A fresh keyspace stands at main 1; the first change makes main 2. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// What clients call the revision.
    pub main: i64,
    /// Order inside one request; visible only in event and storage order.
    pub sub: i64,
}

impl Revision {
    /// Bytes of [`Revision::to_bytes`].
    pub const ENCODED_LEN: usize = 16;

    /// The change `sub` of request `main`.
    #[must_use]
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }

    /// The last possible change of `main`: an upper bound for "as of revision `main`".
    #[must_use]
    pub const fn end_of(main: i64) -> Self {
        Self { main, sub: i64::MAX }
    }

    /// No revision: below every change.
    pub const ZERO: Self = Self { main: 0, sub: 0 };

    /// Big-endian main, then sub: byte order is revision order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[..8].copy_from_slice(&self.main.to_be_bytes());
        out[8..].copy_from_slice(&self.sub.to_be_bytes());
        out
    }

    /// The reverse of [`Revision::to_bytes`]; `None` if `bytes` has another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::ENCODED_LEN] = bytes.try_into().ok()?;
        let (main, sub) = bytes.split_at(8);
        Some(Self { main: i64::from_be_bytes(main.try_into().ok()?), sub: i64::from_be_bytes(sub.try_into().ok()?) })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::Revision;

    #[test]
    fn byte_order_is_revision_order() {
        let revisions =
            [Revision::ZERO, Revision::new(1, 0), Revision::new(1, 7), Revision::new(256, 0), Revision::end_of(256)];
        for pair in revisions.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].to_bytes() < pair[1].to_bytes());
        }
        for revision in revisions {
            assert_eq!(Revision::from_bytes(&revision.to_bytes()), Some(revision));
        }
        assert_eq!(Revision::from_bytes(&[0; 15]), None);
    }
}
