//! When what is behind is worth a merge.
//!
//! A merge rewrites each leaf on which it has a row. Rows of keys that are written in their order share their leaves and wait in
//! vain: the writer will not come back soon. Of keys drawn from many each has nearly its own leaf, until most leaves are met
//! anyway: then each further change of a row that waits is one that need not be written. On the other hand a start reads
//! again what waits.

use std::ops::Bound;

use milepost_engine::{EngineError, Table};

use crate::behind::{Behind, Row};
use crate::commit::Committer;
use crate::error::StoreError;
use crate::shared::Inner;

const LEAF_BYTES: u64 = 4096;
/// Rows that are looked at, each with its neighbour.
const SAMPLES: usize = 256;
/// Rows near each other are written together if at most such a part of all records lies between them: one in a hundred. Near,
/// not next to each other: who puts some keys that follow one another in each transaction need not go on behind them.
const TOGETHER: u64 = 100;
/// After so many more in a hundred it is asked again.
const AGAIN_PERCENT: u64 = 10;

/// What neighbours among the rows behind tell.
#[derive(Default)]
struct Sample {
    pairs: u64,
    /// Of these, such whose surroundings were written together.
    together: u64,
    /// Pairs that a leaf's end lies between.
    apart: u64,
}

impl Inner {
    /// Are the records behind worth what a merge will write?
    pub(crate) fn is_worth_it(&self, committer: &Committer) -> bool {
        let records = committer.behind_records;
        let is_many = records >= self.options.behind_records;
        if records < self.options.behind_records_in_order.max(committer.ask_again_at.get()) {
            return false;
        }
        let behind = self.state.load().behind.clone();
        // A guess will do: what cannot be read fails where it is needed.
        let sample = self.sample(&behind, records / TOGETHER).unwrap_or_default();
        let leaves = self.engine().leaves(Table::Current).unwrap_or_default();
        let leaves = (behind.len() as u64 * sample.apart).checked_div(sample.pairs).unwrap_or(0).min(leaves);
        let bytes = leaves * LEAF_BYTES + behind.new_bytes() as u64;
        let is = 2 * sample.together >= sample.pairs || is_many && bytes <= records * self.options.merge_record_bytes;
        committer.ask_again_at.set(if is { 0 } else { records + records * AGAIN_PERCENT / 100 });
        is
    }

    fn sample(&self, behind: &Behind, together: u64) -> Result<Sample, StoreError> {
        let engine = self.engine();
        let txn = engine.read()?;
        let page = |row: Row<'_>| {
            let mut cursor = txn.scan(Table::Current, Bound::Included(row.key()), Bound::Unbounded)?;
            // A key that the engine has not yet will stand before the next one that it has.
            let next = cursor.next()?;
            Ok::<_, EngineError>(next.map(|(_, record)| record.as_ptr() as u64 / LEAF_BYTES))
        };
        let mut sample = Sample::default();
        for [row, next, far] in behind.neighbours(SAMPLES) {
            sample.pairs += 1;
            sample.together += u64::from(row.revision()?.main.abs_diff(far.revision()?.main) <= together);
            sample.apart += u64::from(page(row)? != page(next)?);
        }
        Ok(sample)
    }
}
