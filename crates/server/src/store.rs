//! The store of a real member: LMDB in the directory that counts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::{Engine, StoreDirectory};
use milepost_env::Disk;
use milepost_mvcc::{Store, StoreError, StoreOptions, is_sealed, rescue, verify};
use milepost_node::OpenStore;
use milepost_node::log::Log;

use crate::config::Config;

/// Commits more often than this would only wait for the disk.
const BATCH_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Opens the store below the directory that the node names.
///
/// A store that a failed sync has left in doubt is copied record by record, with every check, and the copy takes its
/// place; the log has been kept for what was never synced.
pub fn open_store(disk: Arc<dyn Disk>, config: &Config, log: Arc<dyn Log>) -> OpenStore {
    let options = options(config);
    let no_sync = config.unsafe_no_fsync;
    Box::new(move |root: &Path| {
        let directory = Arc::new(StoreDirectory::open(disk, root)?);
        let lmdb = LmdbOptions { no_sync, check: Some(is_sealed), ..LmdbOptions::default() };
        let Some(why) = directory.suspect() else {
            let engine = LmdbEngine::open_current(directory, lmdb)?;
            if engine.is_in_doubt() {
                compare(&engine, &*log)?;
            }
            return Store::begin(Arc::new(engine), options);
        };
        let path = directory.current().display().to_string();
        log.warn(
            "the store is in doubt: copying it record by record, with checks",
            &[("path", path.into()), ("reason", why.into())],
        );
        let suspect: Arc<dyn Engine> = Arc::new(LmdbEngine::open_suspect(Arc::clone(&directory), lmdb)?);
        let sound = rescue(&*suspect)?;
        let path = directory.current().display().to_string();
        log.info("the copy of the store is sound and has taken its place", &[("path", path.into())]);
        Store::begin(sound, options)
    })
}

fn options(config: &Config) -> StoreOptions {
    let own = StoreOptions::default();
    StoreOptions {
        gen_age: config.batch_interval.map_or(own.gen_age, |interval| interval.max(BATCH_INTERVAL_MIN)),
        gen_changes: config.batch_limit.unwrap_or(own.gen_changes),
        compaction_batch: config.compaction_batch.unwrap_or(own.compaction_batch),
        compaction_sleep: config.compaction_sleep.unwrap_or(own.compaction_sleep),
        // Whatever HashKV answers at a compacted revision is what etcd would: members compare it.
        compaction_hash: true,
        ..own
    }
}

/// Reads everything in a store that was written without syncs by a run that never came to its end, and refuses it unless
/// all of it fits together.
fn compare(engine: &LmdbEngine, log: &dyn Log) -> Result<(), StoreError> {
    let path = engine.path().display().to_string();
    log.warn(
        "the store was written with --unsafe-no-fsync and not closed: comparing every record",
        &[("path", path.into())],
    );
    let walked = verify(engine)?;
    engine.settle()?;
    log.info("every record of the store fits the others", &[("records", walked.records.into())]);
    Ok(())
}
