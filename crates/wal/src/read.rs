//! Older entries, read back from the segments while the log is being written.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use milepost_env::{Disk, Open};
use milepost_proto::raftpb::Entry;
use milepost_types::LogIndex;

use crate::catalog::{Catalog, Run};
use crate::error::WalError;
use crate::frame::Kind;
use crate::name::SegmentName;
use crate::reader::{Bad, Raw, Reader, Stop};
use crate::record::Content;

/// Bytes fetched at a time: a few marks' worth.
const READ_CHUNK_BYTES: u64 = 128 * 1024;

/// Reads entries that have left memory, for followers that lag. Clones share the map; any thread may read.
#[derive(Clone)]
pub struct WalReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    catalog: Arc<Mutex<Catalog>>,
}

impl WalReader {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, catalog: Arc<Mutex<Catalog>>) -> Self {
        Self { disk, dir, catalog }
    }

    /// First and last index that can be read: what was written and not released. First > last: none.
    #[must_use]
    pub fn held(&self) -> (LogIndex, LogIndex) {
        let (first, last) = self.catalog.lock().unwrap_or_else(PoisonError::into_inner).readable();
        (LogIndex(first), LogIndex(last))
    }

    /// Entries `from..to`, `to` excluded, as many as fit into `bytes_max` bytes of payload, but at least one. Every
    /// checksum is verified on the way.
    ///
    /// # Errors
    /// [`WalError::NotHeld`] if some have been released or are not written yet; [`WalError::Corrupt`],
    /// [`WalError::Disk`].
    pub fn read_entries(&self, from: LogIndex, to: LogIndex, bytes_max: u64) -> Result<Vec<Entry>, WalError> {
        let mut entries = Vec::new();
        if from >= to {
            return Ok(entries);
        }
        let mut left = bytes_max;
        for (run, name) in self.runs(from, to)? {
            if !self.read_run(run, name, from, &mut left, &mut entries)? {
                break;
            }
        }
        Ok(entries)
    }

    fn runs(&self, from: LogIndex, to: LogIndex) -> Result<Vec<(Run, SegmentName)>, WalError> {
        let catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = catalog.readable();
        if from.0 < first || to.0 - 1 > last {
            let (first, last) = (LogIndex(first), LogIndex(last));
            return Err(WalError::NotHeld { dir: self.dir.clone(), from, to: LogIndex(to.0 - 1), first, last });
        }
        Ok(catalog.runs(from.0, to.0))
    }

    /// Reads one stretch; false when `left` is used up.
    fn read_run(
        &self,
        run: Run,
        name: SegmentName,
        from: LogIndex,
        left: &mut u64,
        entries: &mut Vec<Entry>,
    ) -> Result<bool, WalError> {
        let path = self.dir.join(name.to_string());
        let file = match self.disk.open(&path, Open::Read) {
            Ok(file) => file,
            // Released between looking it up and opening it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.not_held(from, run)),
            Err(error) => return Err(WalError::disk("open", &path, error)),
        };
        let mut reader = Reader::at(file, path, run.mark.offset, Some(run.mark.crc), READ_CHUNK_BYTES)?;
        let mut index = run.mark.index;
        while index < run.until {
            let (offset, number) = (reader.offset(), reader.number());
            let damaged = |problem| Bad { offset, number, problem, torn: false };
            let raw = match reader.next() {
                Ok(Some(raw)) => raw,
                Ok(None) => {
                    return Err(damaged(format!("entry {index} is not there any more")).into_error(reader.path()));
                }
                Err(Stop::Bad(bad)) => return Err(bad.into_error(reader.path())),
                Err(Stop::Failed(error)) => return Err(error),
            };
            if raw.kind != Kind::Entry {
                continue;
            }
            let entry = expect_entry(raw, index).map_err(|problem| damaged(problem).into_error(reader.path()))?;
            if index >= from.0 {
                let bytes = entry.data.as_ref().map_or(0, |data| data.len() as u64);
                if bytes > *left && !entries.is_empty() {
                    return Ok(false);
                }
                *left = left.saturating_sub(bytes);
                entries.push(entry);
            }
            index += 1;
        }
        Ok(true)
    }

    fn not_held(&self, from: LogIndex, run: Run) -> WalError {
        let (first, last) = self.held();
        WalError::NotHeld { dir: self.dir.clone(), from, to: LogIndex(run.until - 1), first, last }
    }
}

fn expect_entry(raw: Raw, index: u64) -> Result<Entry, String> {
    match Content::decode(raw.kind, raw.data)? {
        Content::Entry(entry) if entry.index() == index => Ok(entry),
        Content::Entry(entry) => Err(format!("entry {} where entry {index} was written", entry.index())),
        other => Err(format!("{other:?} where entry {index} was written")),
    }
}
