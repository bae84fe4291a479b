//! Reading changes in the order in which they were made.

use std::ops::Bound;
use std::sync::Arc;

use milepost_engine::Table;
use milepost_types::Revision;

use crate::codec::{self, HistoryRef};
use crate::error::StoreError;
use crate::record::Record;
use crate::store::Store;
use crate::view::{Reader, View};

impl Store {
    /// Changes from `from` on in the order of their revisions, up to the newest visible one: at least one if there is
    /// any, at most `max_records`, ending when their keys and values exceed `max_bytes`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if `from` lies below the floor, or if the store cannot be read.
    pub fn history(
        &self,
        from: Revision,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Record>>, StoreError> {
        let view = self.view();
        let floor = view.compact_revision();
        if from.main < floor {
            return Err(StoreError::Compacted { asked: from.main, floor });
        }
        let mut out = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        let mut fits = |record: &Record| {
            let fits = count < max_records && (count == 0 || bytes < max_bytes);
            count += 1;
            bytes += record.key.len() + record.value.len();
            fits
        };
        if !self.inner().note(view.history_in_engine(from, &mut out, &mut fits))? {
            return Ok(out);
        }
        if let Some(sealed) = &view.state.sealed {
            sealed.history(from, view.revision, &mut out, &mut fits);
        }
        view.state.active.history(from, view.revision, &mut out, &mut fits);
        Ok(out)
    }

    /// What `record`'s key was just before the request that made `record`: `None` if it was not there, or if that has
    /// been compacted.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn previous(&self, record: &Record) -> Result<Option<Arc<Record>>, StoreError> {
        let before = record.revision.main - 1;
        let view = self.view();
        if before < view.compact_revision() || record.previous == Revision::ZERO || record.create_revision > before {
            return Ok(None);
        }
        self.inner().note(view.at_revision(&record.key, record.previous, before))
    }
}

impl View {
    /// Appends what the engine holds from `from` on; false if `fits` refused one.
    fn history_in_engine(
        &self,
        from: Revision,
        out: &mut Vec<Arc<Record>>,
        fits: &mut dyn FnMut(&Record) -> bool,
    ) -> Result<bool, StoreError> {
        let end = Revision::new(self.state.first_main(), 0);
        if from >= end {
            return Ok(true);
        }
        let txn = self.state.engine.read()?;
        let (from, end) = (from.to_bytes(), end.to_bytes());
        let mut cursor = txn.scan(Table::History, Bound::Included(&from), Bound::Excluded(&end))?;
        while let Some((key, bytes)) = cursor.next()? {
            let record = codec::decode_history(key, bytes)?;
            if record.key.is_empty() {
                // Raw: no change of any key.
                continue;
            }
            let record = Arc::new(record.own(true));
            if !fits(&record) {
                return Ok(false);
            }
            out.push(record);
        }
        Ok(true)
    }

    /// The newest live record of `key` at or below main revision `at`, known to be at or before `revision`.
    fn at_revision(&self, key: &[u8], revision: Revision, at: i64) -> Result<Option<Arc<Record>>, StoreError> {
        if revision.main > at || revision.main >= self.state.first_main() {
            return self.get(key, at);
        }
        let txn = self.state.engine.read()?;
        let reader = Reader { inner: &self.inner, state: &self.state };
        let tables = reader.tables(&*txn);
        let Some(record) = tables.at_floor(revision)? else { return Ok(None) };
        Ok((!record.tombstone).then(|| Arc::new(record.own(true))))
    }
}

impl Reader<'_> {
    /// Calls `each` for the records from `from` on up to main revision `to`, about `max` of them. The answer is where to
    /// go on; `None`: that was all.
    pub(crate) fn each_record(
        &self,
        from: Revision,
        to: i64,
        max: usize,
        each: &mut dyn FnMut(&HistoryRef<'_>),
    ) -> Result<Option<Revision>, StoreError> {
        let last = Revision::end_of(to.min(self.state.first_main() - 1));
        if from <= last {
            let txn = self.state.engine.read()?;
            let (first, last) = (from.to_bytes(), last.to_bytes());
            let mut cursor = txn.scan(Table::History, Bound::Included(&first), Bound::Included(&last))?;
            for _ in 0..max {
                let Some((key, bytes)) = cursor.next()? else { return Ok(self.after_engine(to)) };
                each(&codec::decode_history(key, bytes)?);
            }
            return Ok(cursor.next()?.and_then(|(key, _)| Revision::from_bytes(key)).or_else(|| self.after_engine(to)));
        }
        for generation in self.state.sealed.iter().chain([&self.state.active]) {
            generation.each(from, to, &mut |record| each(&record.borrow()));
        }
        Ok(None)
    }

    fn after_engine(&self, to: i64) -> Option<Revision> {
        let first = self.state.first_main();
        (first <= to).then_some(Revision::new(first, 0))
    }
}

impl Record {
    /// The same without its spine, as if it stood in the engine.
    pub(crate) fn borrow(&self) -> HistoryRef<'_> {
        HistoryRef {
            revision: self.revision,
            tombstone: self.is_tombstone(),
            create_revision: self.create_revision,
            version: self.version,
            lease: self.lease,
            previous: self.previous,
            jump: self.jump,
            key: &self.key,
            value: &self.value,
        }
    }
}
