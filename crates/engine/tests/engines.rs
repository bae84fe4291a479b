//! Both engines do the same, and the one on disk keeps a reserve of space.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_engine::mem::MemEngine;
use milepost_engine::{Engine, Room, StoreDirectory, Table};
use milepost_env::OsDisk;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn all(engine: &dyn Engine, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let txn = engine.read().expect("read");
    let mut cursor = txn.scan(table, from, to).expect("scan");
    let mut pairs = Vec::new();
    while let Some((key, value)) = cursor.next().expect("next") {
        pairs.push((key.to_vec(), value.to_vec()));
    }
    pairs
}

fn bound(key: &[u8], kind: u8) -> Bound<&[u8]> {
    match kind {
        0 => Bound::Unbounded,
        1 => Bound::Included(key),
        _ => Bound::Excluded(key),
    }
}

#[test]
fn memory_and_disk_agree() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = LmdbEngine::open(dir.path(), LmdbOptions::default()).expect("open");
    let memory = MemEngine::new();
    let engines: [&dyn Engine; 2] = [&disk, &memory];
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..50 {
        let changes: Vec<_> =
            (0..20).map(|_| (rng.random_range(1..60_u8), rng.random_bool(0.3), rng.random_range(0..3000))).collect();
        let commit = rng.random_bool(0.8);
        for engine in engines {
            let mut txn = engine.write().expect("write");
            for (key, delete, len) in &changes {
                let key = [*key, 0, *key];
                if *delete {
                    let was_there = txn.get(Table::Lease, &key).expect("get").is_some();
                    assert_eq!(txn.delete(Table::Lease, &key).expect("delete"), was_there);
                } else {
                    txn.put(Table::Lease, &key, &vec![key[0]; *len]).expect("put");
                    assert_eq!(txn.get(Table::Lease, &key).expect("get").map(<[u8]>::len), Some(*len));
                }
            }
            if commit {
                txn.commit().expect("commit");
            }
        }
        let (from, to): ([u8; 1], [u8; 1]) = (rng.random(), rng.random());
        let (from, to) = (bound(&from, rng.random_range(0..3)), bound(&to, rng.random_range(0..3)));
        assert_eq!(all(&disk, Table::Lease, from, to), all(&memory, Table::Lease, from, to));
        assert!(all(&disk, Table::Auth, Bound::Unbounded, Bound::Unbounded).is_empty(), "tables are apart");
        let last = |engine: &dyn Engine| {
            engine.read().expect("read").last(Table::Lease).expect("last").map(|(key, _)| key.to_vec())
        };
        assert_eq!(last(&disk), last(&memory));
        let mut asked: Vec<[u8; 3]> = (0..40).map(|_| rng.random_range(0..62_u8)).map(|key| [key, 0, key]).collect();
        if rng.random() {
            // Neighbours, and what was deleted behind them.
            asked.sort_unstable();
        }
        let asked: Vec<&[u8]> = asked.iter().map(|key| &key[..]).collect();
        for engine in engines {
            let txn = engine.read().expect("read");
            let mut found = vec![None];
            txn.get_each(Table::Lease, &asked, &mut found).expect("get each");
            let one_by_one = asked.iter().map(|key| txn.get(Table::Lease, key).expect("get"));
            assert_eq!(found, std::iter::once(None).chain(one_by_one).collect::<Vec<_>>());
            txn.get_each(Table::Auth, &asked, &mut found).expect("get each");
            assert!(found[41..].len() == 40 && found[41..].iter().all(Option::is_none), "nothing is there");
        }
    }
}

#[test]
fn appending_out_of_order_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = LmdbEngine::open(dir.path(), LmdbOptions::default()).expect("open");
    let engines: [&dyn Engine; 2] = [&disk, &MemEngine::new()];
    for engine in engines {
        let mut txn = engine.write().expect("write");
        txn.append(Table::History, b"b", b"").expect("append");
        assert!(txn.append(Table::History, b"a", b"").is_err());
        assert!(txn.append(Table::History, b"b", b"").is_err());
        txn.append(Table::History, b"c", b"").expect("append");
    }
}

fn open(root: &Path) -> LmdbEngine {
    let directory = StoreDirectory::open(Arc::new(OsDisk), root).expect("directory");
    let options = LmdbOptions { ballast_bytes: 1 << 20, ..LmdbOptions::default() };
    LmdbEngine::open_current(Arc::new(directory), options).expect("engine")
}

#[test]
fn a_reserve_is_kept_and_space_inside_the_file_counts() {
    let dir = tempfile::tempdir().expect("directory");
    let root = dir.path().join("store");
    let engine = open(&root);
    assert_eq!(std::fs::metadata(root.join("BALLAST")).expect("ballast").len(), 1 << 20);
    assert_eq!(engine.reserve(0), Room::Whole);
    assert_eq!(engine.reserve(1 << 20), Room::Whole);
    // More than any disk has: the ballast is given up for it, and comes back with the next modest wish.
    assert_eq!(engine.reserve(1 << 60), Room::Low);
    assert!(!root.join("BALLAST").exists());
    assert_eq!(engine.reserve(0), Room::Whole);
    assert!(root.join("BALLAST").exists());
}

#[test]
fn sizes_tell_live_data_from_the_file() {
    let dir = tempfile::tempdir().expect("directory");
    let engine = open(&dir.path().join("store"));
    let empty = engine.sizes().expect("sizes");
    assert_eq!(engine.open_reads(), 0);
    let read = engine.read().expect("read");
    assert_eq!(engine.open_reads(), 1);
    drop(read);
    assert_eq!(engine.open_reads(), 0);
    assert!(empty.in_use > 0 && empty.in_use <= empty.file, "{empty:?}");
    for delete in [false, true] {
        let mut txn = engine.write().expect("write");
        for key in 0..1000_u32 {
            if delete {
                txn.delete(Table::History, &key.to_be_bytes()).expect("delete");
            } else {
                txn.append(Table::History, &key.to_be_bytes(), &[0; 1000]).expect("append");
            }
        }
        txn.commit().expect("commit");
        let sizes = engine.sizes().expect("sizes");
        assert!(sizes.file >= 1_000_000 && sizes.file >= sizes.in_use, "{sizes:?}");
        assert_eq!(sizes.in_use > empty.in_use + 1_000_000, !delete, "{sizes:?}");
    }
}

#[test]
fn a_condemned_store_is_not_opened_again() {
    let dir = tempfile::tempdir().expect("directory");
    let root = dir.path().join("store");
    open(&root).condemn("sync failed: bad disk");
    let directory = StoreDirectory::open(Arc::new(OsDisk), &root).expect("directory");
    let refused = LmdbEngine::open_current(Arc::new(directory), LmdbOptions::default()).err().expect("refused");
    assert!(refused.to_string().contains("marked as suspect (sync failed: bad disk)"), "{refused}");
}

#[test]
fn a_successor_takes_the_place_and_the_old_files_go_with_the_last_reader() {
    let dir = tempfile::tempdir().expect("directory");
    let root = dir.path().join("store");
    let old = Arc::new(open(&root));
    let put = |engine: &dyn Engine, key: &[u8]| {
        let mut txn = engine.write().expect("write");
        txn.put(Table::Meta, key, b"").expect("put");
        txn.commit().expect("commit");
    };
    put(&*old, b"old");
    let unused = old.successor(1 << 20).expect("successor");
    unused.retire();
    drop(unused);
    assert!(!root.join("2").exists());
    let new = old.successor(1 << 20).expect("successor");
    put(&*new, b"new");
    new.sync().expect("sync");
    let reader = old.read().expect("read");
    old.give_way().expect("give way");
    assert!(reader.get(Table::Meta, b"old").expect("get").is_some());
    drop(reader);
    assert!(root.join("1").exists());
    drop(old);
    assert!(!root.join("1").exists());
    drop(new);
    let again = open(&root);
    assert_eq!(again.path(), root.join("2"));
    assert_eq!(all(&again, Table::Meta, Bound::Unbounded, Bound::Unbounded), [(b"new".to_vec(), Vec::new())]);
}

/// LMDB leaves a large value's pages as they are when a shorter one takes its place in the same transaction.
#[test]
fn a_large_value_made_shorter_in_its_transaction_is_sound() {
    let dir = tempfile::tempdir().expect("directory");
    let disk = LmdbEngine::open(dir.path(), LmdbOptions::default()).expect("open");
    let mut txn = disk.write().expect("write");
    txn.put(Table::History, b"key", &[1; 20_000]).expect("put");
    txn.put(Table::History, b"key", &[2; 3_000]).expect("put");
    txn.commit().expect("commit");
    let read =
        |disk: &LmdbEngine| disk.read().expect("read").get(Table::History, b"key").expect("sound").map(<[u8]>::to_vec);
    assert_eq!(read(&disk), Some(vec![2; 3_000]));
    drop(disk);
    // As after a run without syncs: the start walks through all pages.
    std::fs::write(dir.path().join("UNSYNCED"), b"").expect("mark");
    let disk = LmdbEngine::open(dir.path(), LmdbOptions::default()).expect("every page is in order");
    assert_eq!(read(&disk), Some(vec![2; 3_000]));
}
