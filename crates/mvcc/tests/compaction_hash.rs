//! The hash that a compaction takes on its way: whatever comes between its steps, it is that of all that lies up to the
//! bound before anything is deleted.

use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::Table;
use milepost_engine::mem::MemEngine;
use milepost_mvcc::{HashKv, RangeOptions, Store, StoreOptions, Writer};
use milepost_types::{KeyRange, LeaseId, LogIndex, Term};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const FIRST: i64 = 40;
const BOUND: i64 = 150;
const LATER: i64 = 170;

/// What comes between the steps of the compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Nothing,
    /// A reader still needs what the compaction would delete.
    Reader,
    /// Every other step finds no room on the disk.
    FullDisk,
    /// Another compaction is asked for.
    Another,
    /// The store is rewritten.
    Defragmentation,
}

/// Takes step after step, at most `count` of them; true: there was nothing more to do.
fn steps(store: &Store, count: usize) -> bool {
    (0..count).any(|_| !store.step(true).expect("step"))
}

fn compact(writer: &mut Writer, index: u64, bound: i64) {
    let mut change = writer.begin(LogIndex(index), Term(1));
    change.compact(bound).expect("compact");
    change.finish().expect("finish");
}

/// A table as it lies in the engine.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn life(seed: u64, between: Between) -> (Vec<HashKv>, Rows) {
    let engine = Arc::new(MemEngine::new());
    let options =
        StoreOptions { background: false, compaction_hash: true, compaction_batch: 3, ..StoreOptions::default() };
    let (store, mut writer, _) = Store::open(engine.clone(), options).expect("open");
    let mut rng = SmallRng::seed_from_u64(seed);
    for index in 1..260 {
        let mut change = writer.begin(LogIndex(index), Term(1));
        for _ in 0..rng.random_range(1..3) {
            let key = format!("key{:02}", rng.random_range(0..30)).into_bytes();
            if rng.random_bool(0.7) {
                change.put(key.into(), Bytes::from(vec![rng.random(); 5]), LeaseId(0)).expect("put");
            } else {
                change.delete_range(KeyRange::single(&key), false).expect("delete");
            }
        }
        change.finish().expect("finish");
    }
    compact(&mut writer, 260, FIRST);
    assert!(steps(&store, usize::MAX));
    let view = store.view();
    compact(&mut writer, 261, BOUND);
    if between != Between::Reader {
        drop(view);
        assert!(!steps(&store, 20), "the compaction is not long enough");
    } else {
        assert!(steps(&store, usize::MAX), "the reader is waited for");
        assert!(!view.range(KeyRange::all(), FIRST, RangeOptions::default()).expect("range").records.is_empty());
        drop(view);
    }
    match between {
        Between::Nothing | Between::Reader => {}
        Between::FullDisk => {
            for round in 0_u64.. {
                engine.fill_disk(round % 2);
                if let Ok(false) = store.step(true) {
                    break;
                }
            }
            assert!(store.stats().commit_retries > 0);
            engine.fill_disk(0);
        }
        Between::Another => compact(&mut writer, 262, LATER),
        Between::Defragmentation => store.defragment().expect("defragment"),
    }
    assert!(steps(&store, usize::MAX));
    if between != Between::Another {
        compact(&mut writer, 262, LATER);
        assert!(steps(&store, usize::MAX));
    }
    let hashes = store.compaction_hashes().into_iter().filter(|hash| hash.hash_revision <= BOUND).collect();
    store.force_sync().expect("sync");
    drop((store, writer));
    (hashes, engine.crash(true).dump(Table::History))
}

#[test]
fn the_hash_is_the_same_whatever_comes_between() {
    for seed in 0..20 {
        let (hashes, history) = life(seed, Between::Nothing);
        assert_eq!(hashes.iter().map(|hash| hash.hash_revision).collect::<Vec<_>>(), [BOUND, FIRST]);
        for between in [Between::Reader, Between::FullDisk, Between::Another, Between::Defragmentation] {
            let (others, left) = life(seed, between);
            assert_eq!(others, hashes, "seed {seed}, {between:?}");
            assert_eq!(left, history, "seed {seed}, {between:?}");
        }
    }
}
