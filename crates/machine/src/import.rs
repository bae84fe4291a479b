//! A received snapshot, read into a store: the reverse of [`crate::Database`], for files of ours and of etcd's.
//!
//! Nothing in the file is believed: its pages are walked before anything is made of them, every record is compared with
//! what we would write for it, and the rest is read as a start would read it. What is refused leaves nothing behind.
//! What the buckets hold: `facts/bbolt-format.md` §2.

use bytes::Bytes;
use milepost_bolt::{BoltError, File, ReadAt};
use milepost_mvcc::{Import, ImportEnd, Imported, NewRecord, SmallTable, Store, StoreError};
use milepost_proto::raftpb::{ConfState, SnapshotMetadata};
use milepost_proto::{Message, mvccpb};
use milepost_types::{LeaseId, LogIndex, Revision, Term};

use crate::config::Config;
use crate::database::{BUCKETS, Source};
use crate::error::Fatal;
use crate::hex;
use crate::machine::check_opened;
use crate::member::{conf_state_from_bytes, conf_state_to_bytes};

/// Longest key of a row, in bytes: the engine's.
const ROW_KEY_BYTES_MAX: usize = 511;

/// Why a file did not become a store.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is damaged, or none of bbolt's.
    #[error("the snapshot's database cannot be read: {0}")]
    Bolt(#[from] BoltError),
    /// A bucket without which it is no database of a member.
    #[error("the snapshot's database has no bucket {0:?}: it is not that of a member")]
    NoBucket(&'static str),
    /// A row is not what etcd writes there.
    #[error(
        "the snapshot's database holds {what} in bucket {bucket:?} at key {key}: it is damaged, or of an unknown version"
    )]
    Row {
        /// The bucket.
        bucket: &'static str,
        /// The row's key in hexadecimal.
        key: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The file is of another entry than the message that it came with.
    #[error("the snapshot's database has {what} {found}, its message {told}: they do not belong together")]
    Differs {
        /// Which number.
        what: &'static str,
        /// In the file.
        found: String,
        /// In the message.
        told: String,
    },
    /// It is of another history.
    #[error(
        "the snapshot ends at revision {found}, but this member is at {own} already: it is of another cluster's history; \
         remove this member, wipe its data directory and add it again"
    )]
    GoesBack {
        /// In the file.
        found: i64,
        /// This member's.
        own: i64,
    },
    /// Users would not be asked for their rights here.
    #[error(
        "the cluster has authentication switched on, which this version does not support: this member would answer \
         everybody; switch it off (etcdctl auth disable), or remove this member"
    )]
    AuthEnabled,
    /// The machine could not start with it.
    #[error("this member cannot go on from the snapshot: {0}")]
    Machine(#[from] Fatal),
    /// The new store cannot be written.
    #[error("the snapshot cannot be stored: {0}")]
    Store(#[from] StoreError),
}

/// What came of a file.
pub struct Taken {
    /// The store, durable, beside the one that counts.
    pub imported: Imported,
    /// Buckets, and keys of `meta`, that this version does not know; they were left out.
    pub unknown: Vec<String>,
}

/// Reads `source`, the database of the snapshot that `told` describes, into a new store beside `store`. Memory is
/// bounded, whatever the file's length.
///
/// # Errors
/// [`ImportError`]; nothing is left of the new store then.
pub fn import<R: ReadAt>(
    store: &Store,
    source: R,
    told: &SnapshotMetadata,
    config: &Config,
) -> Result<Taken, ImportError> {
    let file = File::open(source)?;
    let pages = file.check()?;
    let (end, mut unknown) = meta(&file, told)?;
    let known = |name: &[u8]| BUCKETS.iter().any(|(bucket, _)| bucket.as_bytes() == name);
    let others = file.buckets()?.into_iter().filter(|name| !known(name));
    unknown.extend(others.map(|name| format!("bucket {}", name.escape_ascii())));
    // Small values stand in two tables. What it takes beyond that is asked for as it comes.
    let bytes = pages.used * file.page_bytes() / 2 * 3;
    let mut import = store.import(bytes)?;
    for (bucket, source) in BUCKETS {
        match source {
            Source::Rows(table) => rows(&file, bucket, table, &mut import)?,
            Source::History => history(&file, &mut import)?,
            Source::Meta => {}
        }
    }
    let imported = import.finish(&end)?;
    check_opened(imported.opened(), config)?;
    let (found, own) = (imported.revision(), store.revision());
    if found < own {
        return Err(ImportError::GoesBack { found, own });
    }
    Ok(Taken { imported, unknown })
}

fn row_error(bucket: &'static str, key: &[u8], what: &'static str) -> ImportError {
    ImportError::Row { bucket, key: hex(key), what }
}

/// Where the file ends, which is where the message says; and what else stands there.
fn meta<R: ReadAt>(file: &File<R>, told: &SnapshotMetadata) -> Result<(ImportEnd, Vec<String>), ImportError> {
    let told_conf = told.conf_state.clone().unwrap_or_default();
    let mut end = ImportEnd { term: Term(told.term()), ..ImportEnd::default() };
    let mut unknown = Vec::new();
    for row in file.bucket(b"meta")?.ok_or(ImportError::NoBucket("meta"))? {
        let (key, value) = row?;
        let number = || {
            let bytes =
                <[u8; 8]>::try_from(&*value).map_err(|_| row_error("meta", &key, "no number of eight bytes"))?;
            Ok::<u64, ImportError>(u64::from_be_bytes(bytes))
        };
        let bound = || match revision(&value) {
            Some((at, false)) if at.sub == 0 && at.main >= 0 => Ok(Some(at.main)),
            _ => Err(row_error("meta", &key, "no revision")),
        };
        match &*key {
            b"consistent_index" => end.applied = LogIndex(number()?),
            b"term" => agree("the term", number()?, told.term())?,
            b"confState" => {
                let found = conf_state_from_bytes(&value);
                let found = found.map_err(|_| row_error("meta", &key, "no configuration of Raft"))?;
                agree("the members of Raft", ids(&found), ids(&told_conf))?;
                end.conf_state = value;
            }
            b"scheduledCompactRev" => end.scheduled = bound()?,
            b"finishedCompactRev" => end.finished = bound()?,
            // Ours follows from the cluster's version.
            b"storageVersion" => {}
            other => unknown.push(format!("meta key {}", other.escape_ascii())),
        }
    }
    agree("the index", end.applied.0, told.index())?;
    if end.conf_state.is_empty() && told_conf != ConfState::default() {
        // Not there before 3.5, nor before the first change after it.
        end.conf_state = conf_state_to_bytes(&told_conf);
    }
    Ok((end, unknown))
}

fn agree<T: PartialEq + std::fmt::Debug>(what: &'static str, found: T, told: T) -> Result<(), ImportError> {
    if found == told {
        return Ok(());
    }
    Err(ImportError::Differs { what, found: format!("{found:?}"), told: format!("{told:?}") })
}

/// Voters and learners, sorted: members do not agree on their order.
fn ids(conf: &ConfState) -> (Vec<u64>, Vec<u64>) {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    (sorted(&conf.voters), sorted(&conf.learners))
}

fn rows<R: ReadAt>(
    file: &File<R>,
    bucket: &'static str,
    table: SmallTable,
    import: &mut Import,
) -> Result<(), ImportError> {
    // Older members lack some.
    let Some(items) = file.bucket(bucket.as_bytes())? else { return Ok(()) };
    for item in items {
        let (key, value) = item?;
        if key.is_empty() || key.len() > ROW_KEY_BYTES_MAX {
            return Err(row_error(bucket, &key, "a key that is too long"));
        }
        if table == SmallTable::Auth && key == b"authEnabled" && value != [0] {
            return Err(ImportError::AuthEnabled);
        }
        import.row(table, key, value)?;
    }
    Ok(())
}

fn history<R: ReadAt>(file: &File<R>, import: &mut Import) -> Result<(), ImportError> {
    let mut ours = Vec::new();
    for item in file.bucket(b"key")?.ok_or(ImportError::NoBucket("key"))? {
        let (key, value) = item?;
        let record = record(&key, &value).map_err(|what| row_error("key", &key, what))?;
        record.encode(&mut ours);
        // Hashes are taken over what we would write: it must be what the others have.
        if ours.strip_prefix(&*key) != Some(&value) {
            return Err(row_error("key", &key, "a record that no member writes"));
        }
        import.record(record)?;
    }
    Ok(())
}

/// A row of the bucket `key`.
fn record(key: &[u8], value: &[u8]) -> Result<NewRecord, &'static str> {
    let (revision, tombstone) = revision(key).ok_or("a key that is no revision")?;
    let kv = mvccpb::KeyValue::decode(Bytes::copy_from_slice(value)).map_err(|_| "no key with its value")?;
    if value.is_empty() && !tombstone {
        return Ok(NewRecord::raw(revision));
    }
    if kv.key.is_empty() {
        return Err("a record without a key");
    }
    let is_alive = kv.version >= 1 && (0..=revision.main).contains(&kv.create_revision);
    if !tombstone && !is_alive {
        return Err("a record of a key that was never created");
    }
    Ok(NewRecord {
        revision,
        tombstone,
        key: Some(kv.key),
        value: kv.value,
        create_revision: kv.create_revision,
        version: kv.version,
        lease: LeaseId(kv.lease),
    })
}

/// A revision as etcd writes it, and whether it is that of a tombstone.
fn revision(bytes: &[u8]) -> Option<(Revision, bool)> {
    let (main, rest) = bytes.split_first_chunk::<8>()?;
    let (sub, rest) = rest.strip_prefix(b"_")?.split_first_chunk::<8>()?;
    let tombstone = match rest {
        b"" => false,
        b"t" => true,
        _ => return None,
    };
    let revision = Revision::new(i64::from_be_bytes(*main), i64::from_be_bytes(*sub));
    (revision.main >= 0 && revision.sub >= 0).then_some((revision, tombstone))
}
