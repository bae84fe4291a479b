//! When what is behind is worth a merge.
//!
//! A merge rewrites each leaf on which it has a row. Rows of keys that were written in their order share their leaves, and wait
//! in vain; of keys drawn from many each has nearly its own, until most leaves are met anyway: then each further change of a
//! row that waits is one that need not be written. On the other hand a start reads again what waits.

use milepost_engine::{EngineError, Table};

use crate::behind::{Behind, Row};
use crate::commit::Committer;
use crate::shared::Inner;

const LEAF_BYTES: u64 = 4096;
/// Rows that are looked at for how many leaves there are to be met, each with its neighbour.
const SAMPLES: usize = 256;
/// After so many more in a hundred it is asked again.
const AGAIN_PERCENT: u64 = 5;

impl Inner {
    /// Are the records behind worth what a merge will write? Or so many that a start would read them again for longer than
    /// becomes a store of this size?
    pub(crate) fn is_worth_it(&self, committer: &Committer) -> bool {
        let records = committer.behind_records;
        if records < self.options.behind_records.max(committer.ask_again_at.get()) {
            return false;
        }
        let engine = self.engine();
        // A guess will do: what cannot be read fails where it is needed.
        let size = |table| engine.table_size(table).unwrap_or_default();
        let behind = self.state.load().behind.clone();
        let leaves = self.leaves_met(&behind).unwrap_or_default().min(size(Table::Current).leaves);
        let is = leaves * LEAF_BYTES <= records * self.options.merge_record_bytes
            || records >= size(Table::History).rows / 2;
        committer.ask_again_at.set(if is { 0 } else { records + records * AGAIN_PERCENT / 100 });
        is
    }

    /// How many leaves of `current` a merge will meet, about.
    fn leaves_met(&self, behind: &Behind) -> Result<u64, EngineError> {
        let engine = self.engine();
        let txn = engine.read()?;
        let page = |row: Row<'_>| {
            let mut cursor =
                txn.scan(Table::Current, std::ops::Bound::Included(row.key()), std::ops::Bound::Unbounded)?;
            // A key that the engine has not yet will stand before the next one that it has.
            let next = cursor.next()?;
            Ok::<_, EngineError>(next.map(|(_, record)| record.as_ptr() as u64 / LEAF_BYTES))
        };
        let (mut pairs, mut apart) = (0, 0);
        for (row, next) in behind.neighbours(SAMPLES) {
            pairs += 1;
            apart += u64::from(page(row)? != page(next)?);
        }
        Ok((behind.len() as u64 * apart).checked_div(pairs).unwrap_or(0))
    }
}
