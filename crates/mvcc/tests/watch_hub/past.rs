//! A keyspace in memory, simple enough to be right at a glance.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use milepost_mvcc::watch::{EventBatch, History, HistoryError, Record};
use milepost_types::Revision;
use parking_lot::Mutex;

/// One change of a request: a value, or `None` to delete.
pub type Op = (Bytes, Option<Bytes>);

/// Every record since the last compaction, and every record ever.
#[derive(Default)]
pub struct Past(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    log: Vec<Arc<Record>>,
    all: Vec<Arc<Record>>,
    current: BTreeMap<Bytes, Arc<Record>>,
    /// Revisions above main 1, where a fresh keyspace stands.
    changes: i64,
    floor: i64,
    unreadable: Option<i64>,
}

impl Past {
    /// Makes one request's changes; `None` if there were none to make.
    pub fn txn(&self, ops: &[Op]) -> Option<Arc<EventBatch>> {
        let mut inner = self.0.lock();
        let main = inner.changes + 2;
        let mut records = Vec::new();
        for (key, value) in ops {
            let before = inner.current.get(key).cloned();
            if before.is_none() && value.is_none() {
                continue;
            }
            let revision = Revision::new(main, i64::try_from(records.len()).expect("few"));
            let record = match value {
                None => Record { key: key.clone(), revision, ..Record::default() },
                Some(value) => Record {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: before.as_ref().map_or(main, |before| before.create_revision),
                    revision,
                    version: before.as_ref().map_or(1, |before| before.version + 1),
                    ..Record::default()
                },
            };
            let record = Arc::new(record);
            match value {
                None => inner.current.remove(key),
                Some(_) => inner.current.insert(key.clone(), record.clone()),
            };
            records.push(record);
        }
        if records.is_empty() {
            return None;
        }
        inner.changes += 1;
        inner.log.extend(records.iter().cloned());
        inner.all.extend(records.iter().cloned());
        Some(Arc::new(EventBatch { revision: main, records }))
    }

    /// Forgets what is not needed to read at `revision` or later.
    pub fn compact(&self, revision: i64) {
        let mut inner = self.0.lock();
        inner.floor = revision;
        let mut newest: BTreeMap<Bytes, Revision> = BTreeMap::new();
        for record in inner.log.iter().filter(|record| record.revision.main <= revision) {
            newest.insert(record.key.clone(), record.revision);
        }
        inner.log.retain(|record| {
            let kept = newest.get(&record.key) == Some(&record.revision);
            let dead = record.is_tombstone() && record.revision.main < revision;
            record.revision.main > revision || (kept && !dead)
        });
    }

    /// Every record ever, compacted or not.
    pub fn all(&self) -> Vec<Arc<Record>> {
        self.0.lock().all.clone()
    }

    /// Readings that begin at this revision fail from now on.
    pub fn break_at(&self, revision: i64) {
        self.0.lock().unreadable = Some(revision);
    }
}

impl History for Past {
    fn revision(&self) -> i64 {
        self.0.lock().changes + 1
    }

    fn compact_revision(&self) -> i64 {
        let floor = self.0.lock().floor;
        if floor == 0 { -1 } else { floor }
    }

    fn history(&self, from: Revision, max_records: usize, max_bytes: usize) -> Result<Vec<Arc<Record>>, HistoryError> {
        let inner = self.0.lock();
        if inner.unreadable == Some(from.main) {
            return Err(HistoryError(format!("revision {from} cannot be read")));
        }
        let start = inner.log.partition_point(|record| record.revision < from);
        let mut records = Vec::new();
        let mut bytes = 0;
        for record in &inner.log[start..] {
            if records.len() == max_records || (bytes >= max_bytes && !records.is_empty()) {
                break;
            }
            bytes += record.key.len() + record.value.len();
            records.push(record.clone());
        }
        Ok(records)
    }

    fn previous(&self, record: &Record) -> Result<Option<Arc<Record>>, HistoryError> {
        let inner = self.0.lock();
        let older = |other: &&Arc<Record>| other.key == record.key && other.revision.main < record.revision.main;
        let found = inner.log.iter().rev().find(older).filter(|other| !other.is_tombstone());
        Ok(found.cloned())
    }
}

/// A shared one, for a hub that wants to own its history.
#[derive(Clone, Default)]
pub struct SharedPast(pub Arc<Past>);

impl History for SharedPast {
    fn revision(&self) -> i64 {
        self.0.revision()
    }

    fn compact_revision(&self) -> i64 {
        self.0.compact_revision()
    }

    fn history(&self, from: Revision, max_records: usize, max_bytes: usize) -> Result<Vec<Arc<Record>>, HistoryError> {
        self.0.history(from, max_records, max_bytes)
    }

    fn previous(&self, record: &Record) -> Result<Option<Arc<Record>>, HistoryError> {
        self.0.previous(record)
    }
}
