//! The store of a real member: LMDB in the directory that counts.

use std::path::Path;
use std::sync::Arc;

use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::{Engine, StoreDirectory};
use milepost_env::Disk;
use milepost_mvcc::{Store, StoreOptions, rescue};
use milepost_node::OpenStore;
use milepost_node::log::Log;

/// Opens the store below the directory that the node names; `no_sync`: never wait for the disk.
///
/// A store that a failed sync has left in doubt is copied record by record, with every check, and the copy takes its
/// place; the log has been kept for what was never synced.
pub fn open_store(disk: Arc<dyn Disk>, no_sync: bool, log: Arc<dyn Log>) -> OpenStore {
    Box::new(move |root: &Path| {
        let directory = Arc::new(StoreDirectory::open(disk, root)?);
        // Whatever HashKV answers at a compacted revision is what etcd would: members compare it.
        let options = StoreOptions { compaction_hash: true, ..StoreOptions::default() };
        let lmdb = LmdbOptions { no_sync, ..LmdbOptions::default() };
        let Some(why) = directory.suspect() else {
            return Store::open(Arc::new(LmdbEngine::open_current(directory, lmdb)?), options);
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
        Store::open(sound, options)
    })
}
