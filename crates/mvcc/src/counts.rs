//! Counts of ranges asked for lately. etcd's answers tell how many keys a range holds whatever the limit, so a client
//! that pages through a million keys makes its server count the rest of them on every page.
//!
//! A count at one revision becomes the count at another by adding what was created between them and taking off what was
//! deleted; both can be told from the records alone, a first version and a tombstone. And the count of a page's rest is
//! that of the page's range less what the page holds: so each page leaves the count that the next one needs.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use milepost_types::{KeyRange, RangeEnd, Revision};
use parking_lot::Mutex;

use crate::error::StoreError;
use crate::view::Reader;

/// Ranges remembered: a few dozen clients that page at the same time, two entries each.
const REMEMBERED: usize = 128;
/// Ranges with fewer keys are counted faster than looked up and kept right.
pub(crate) const WORTH_REMEMBERING: i64 = 500;

/// The cache, shared by all readers.
#[derive(Default)]
pub(crate) struct Counts {
    /// Locked for a walk through at most [`REMEMBERED`] entries.
    known: Mutex<Vec<Count>>,
    clock: AtomicU64,
}

struct Count {
    start: Bytes,
    /// `None`: open.
    end: Option<Bytes>,
    /// Main revision that the count is of.
    at: i64,
    count: i64,
    used: u64,
}

impl Count {
    fn is_of(&self, start: &[u8], end: RangeEnd<'_>) -> bool {
        let same_end = match end {
            RangeEnd::Single => false,
            RangeEnd::Open => self.end.is_none(),
            RangeEnd::Before(end) => self.end.as_deref() == Some(end),
        };
        same_end && self.start == start
    }
}

impl Counts {
    fn find(&self, range: KeyRange<'_>) -> Option<(i64, i64)> {
        let mut known = self.known.lock();
        let found = known.iter_mut().find(|count| count.is_of(range.start, range.end))?;
        found.used = self.clock.fetch_add(1, Ordering::Relaxed);
        Some((found.at, found.count))
    }

    /// Remembers that `range` held `count` keys at main revision `at`.
    pub fn remember(&self, range: KeyRange<'_>, at: i64, count: i64) {
        if count < WORTH_REMEMBERING {
            return;
        }
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock();
        if let Some(found) = known.iter_mut().find(|count| count.is_of(range.start, range.end)) {
            (found.at, found.count, found.used) = (at, count, used);
            return;
        }
        let end = match range.end {
            RangeEnd::Single => return,
            RangeEnd::Open => None,
            RangeEnd::Before(end) => Some(Bytes::copy_from_slice(end)),
        };
        let count = Count { start: Bytes::copy_from_slice(range.start), end, at, count, used };
        if known.len() < REMEMBERED {
            known.push(count);
        } else if let Some(oldest) = known.iter_mut().min_by_key(|count| count.used) {
            *oldest = count;
        }
    }
}

impl Reader<'_> {
    /// How many keys `range` held at main revision `at`, if that can be told for less than counting them.
    pub fn known_count(&self, range: KeyRange<'_>, at: i64) -> Result<Option<i64>, StoreError> {
        let Some((known_at, count)) = self.inner.counts.find(range) else { return Ok(None) };
        let (from, to) = (known_at.min(at), known_at.max(at));
        // Below the floor the records that would tell are gone; and a long way is no shorter than counting.
        if from < self.state.floor.compact_revision || to - from > count / 4 {
            return Ok(None);
        }
        let mut difference = 0;
        let max = count as usize / 2;
        let rest = self.each_record(Revision::new(from + 1, 0), to, max, &mut |record| {
            if range.contains(record.key) {
                difference += if record.tombstone { -1 } else { i64::from(record.version == 1) };
            }
        })?;
        if rest.is_some() {
            return Ok(None);
        }
        let count = if known_at <= at { count + difference } else { count - difference };
        self.inner.counts.remember(range, at, count);
        self.inner.stats.counts_known.fetch_add(1, Ordering::Relaxed);
        Ok(Some(count))
    }

    /// Remembers the count of a range and of what lies behind each of `keys`, of which `taken` come up to and with it.
    pub fn remember_counts(&self, range: KeyRange<'_>, at: i64, count: i64, keys: &[(usize, &[u8])]) {
        self.inner.counts.remember(range, at, count);
        for (taken, key) in keys {
            let start = [key, &[0][..]].concat();
            self.inner.counts.remember(KeyRange { start: &start, end: range.end }, at, count - *taken as i64);
        }
    }
}
