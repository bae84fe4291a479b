//! The store of a real member: LMDB in the directory that counts.

use std::path::Path;
use std::sync::Arc;

use milepost_engine::StoreDirectory;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_env::Disk;
use milepost_mvcc::{Store, StoreOptions};
use milepost_node::OpenStore;

/// Opens the store below the directory that the node names; `no_sync`: never wait for the disk.
pub fn open_store(disk: Arc<dyn Disk>, no_sync: bool) -> OpenStore {
    Box::new(move |root: &Path| {
        let directory = Arc::new(StoreDirectory::open(disk, root)?);
        let engine = LmdbEngine::open_current(directory, LmdbOptions { no_sync, ..LmdbOptions::default() })?;
        Store::open(Arc::new(engine), StoreOptions { compaction_hash: true, ..StoreOptions::default() })
    })
}
