//! Readers on several threads beside apply, commits and compactions, on a real engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use milepost_engine::StoreDirectory;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_mvcc::{RangeOptions, Store, StoreError, StoreOptions};
use milepost_types::{KeyRange, LeaseId, LogIndex, Revision, Term};

const ACCOUNTS: i64 = 50;
const START: i64 = 100;
const TRANSFERS: i64 = 20_000;

fn account(n: i64) -> Bytes {
    format!("account/{n:03}").into()
}

fn total(store: &Store, at: i64) -> Result<i64, StoreError> {
    let all = store.view().range(KeyRange::from_wire(b"account/", b"account0"), at, RangeOptions::default())?;
    assert_eq!(all.records.len(), ACCOUNTS as usize);
    Ok(all.records.iter().map(|record| std::str::from_utf8(&record.value).unwrap().parse::<i64>().unwrap()).sum())
}

/// Money moves between accounts, two to an entry; whatever a reader sees adds up.
#[test]
fn every_reader_sees_whole_entries() {
    let dir = tempfile::tempdir().expect("directory");
    let directory = StoreDirectory::open(Arc::new(milepost_env::OsDisk), dir.path()).expect("directory");
    let engine_options =
        LmdbOptions { ballast_bytes: 1 << 20, check: Some(milepost_mvcc::is_sealed), ..LmdbOptions::default() };
    let engine = Arc::new(LmdbEngine::open_current(Arc::new(directory), engine_options).expect("engine"));
    let options = StoreOptions {
        gen_changes: 300,
        gen_age: Duration::from_millis(3),
        compaction_batch: 100,
        compaction_sleep: Duration::from_millis(1),
        behind_bytes: 10_000,
        behind_values_bytes: 5000,
        behind_records_most: 1000,
        ..StoreOptions::default()
    };
    let (store, mut writer, _) = Store::open(engine, options).expect("open");
    let mut change = writer.begin(LogIndex(1), Term(1));
    for n in 0..ACCOUNTS {
        change.put(account(n), START.to_string().into(), LeaseId(0)).expect("put");
    }
    change.finish().expect("finish");

    let (done, old_reads) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| {
        let store = &store;
        for reader in 0..3 {
            let (store, done, old_reads) = (store, &done, &old_reads);
            scope.spawn(move || {
                let mut history = Revision::new(2, 0);
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(total(store, 0).expect("newest"), ACCOUNTS * START);
                    match total(store, (store.revision() - 100 * reader).max(2)) {
                        Ok(sum) => {
                            assert_eq!(sum, ACCOUNTS * START);
                            old_reads.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(StoreError::Compacted { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    follow(store, &mut history);
                }
            });
        }
        let (ask, asked) = std::sync::mpsc::channel();
        scope.spawn(move || asked.iter().for_each(|()| store.defragment().expect("defragment")));
        for transfer in 0..TRANSFERS {
            let mut change = writer.begin(LogIndex(transfer as u64 + 2), Term(1));
            if transfer % 500 == 499 {
                change.compact(change.revision() - 150).expect("compact");
            }
            if transfer % 4000 == 2000 {
                ask.send(()).expect("it listens");
            }
            for (n, amount) in [(transfer * 7 % ACCOUNTS, -1), ((transfer * 7 + 1 + transfer % 9) % ACCOUNTS, 1)] {
                let old = change.get(&account(n)).expect("get").expect("there");
                let sum = std::str::from_utf8(&old.value).unwrap().parse::<i64>().unwrap() + amount;
                change.put(account(n), sum.to_string().into(), LeaseId(0)).expect("put");
            }
            change.finish().expect("finish");
        }
        // Commits go first: on a busy machine it may be that nothing was deleted yet.
        let (send, compacted) = std::sync::mpsc::channel();
        store.when_compacted(store.compact_revision(), Box::new(move || send.send(()).expect("waiting")));
        compacted.recv().expect("compacted");
        done.store(true, Ordering::Relaxed);
        drop(ask);
    });
    assert!(old_reads.into_inner() > 0);
    assert!(store.stats().compaction_deleted > 0, "{:?}", store.stats());
    assert_eq!(store.failed(), None);
    let engines =
        std::fs::read_dir(dir.path()).expect("list").filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(engines, 1, "the ones that were left are gone");
}

/// Reads on in history without a gap, as a watcher does.
fn follow(store: &Store, next: &mut Revision) {
    match store.history(*next, 100, 1 << 20) {
        Ok(records) => {
            for record in records {
                // At the floor some may have been compacted; above it nothing is missing.
                if next.main > store.compact_revision() {
                    assert!(record.revision == *next || record.revision == Revision::new(next.main + 1, 0), "{next}");
                }
                *next = Revision::new(record.revision.main, record.revision.sub + 1);
            }
        }
        Err(StoreError::Compacted { floor, .. }) => *next = Revision::new(floor + 1, 0),
        Err(error) => panic!("{error}"),
    }
}
