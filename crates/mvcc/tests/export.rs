//! An export shows one commit, whatever happens to the store meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::Engine;
use milepost_engine::mem::MemEngine;
use milepost_mvcc::{Export, SmallTable, Store, StoreOptions, StoredRecord, Writer};
use milepost_types::{KeyRange, LeaseId, LogIndex, Term};

fn put(writer: &mut Writer, index: u64, key: &str, value: Vec<u8>) {
    let mut change = writer.begin(LogIndex(index), Term(7));
    change.put(Bytes::copy_from_slice(key.as_bytes()), value.into(), LeaseId(3)).expect("put");
    change.finish().expect("finish");
}

fn delete(writer: &mut Writer, index: u64, key: &str) {
    let mut change = writer.begin(LogIndex(index), Term(7));
    change.delete_range(KeyRange::single(key.as_bytes()), false).expect("delete");
    change.finish().expect("finish");
}

fn all(export: &Export) -> Vec<StoredRecord> {
    export.records().flat_map(|chunk| chunk.expect("readable")).collect()
}

#[test]
fn history_stays_while_it_is_exported() {
    let engine: Arc<dyn Engine> = Arc::new(MemEngine::new());
    let options = StoreOptions { background: false, ..StoreOptions::default() };
    let (store, mut writer, _) = Store::open(engine, options).expect("open");
    for index in 1..=5000 {
        put(&mut writer, index, &format!("key-{}", index % 700), vec![7; 400]);
    }
    delete(&mut writer, 5001, "key-5");
    let mut change = writer.begin(LogIndex(5002), Term(7));
    change.table_put(SmallTable::Lease, b"id".to_vec(), b"lease".to_vec());
    change.table_put(SmallTable::Meta, b"app/note".to_vec(), b"ours".to_vec());
    change.set_conf_state(b"conf".to_vec());
    change.compact(4000).expect("compact");
    change.finish().expect("finish");

    let export = store.export().expect("export");
    assert_eq!((export.applied(), export.term(), export.revision()), (LogIndex(5002), Term(7), 5002));
    assert_eq!((export.compactions(), export.conf_state()), ((Some(4000), None), &b"conf"[..]));
    assert_eq!(export.rows(SmallTable::Lease).get(&b"id"[..]), Some(&b"lease".to_vec()));
    assert_eq!(export.rows(SmallTable::Meta).len(), 1, "the store's own rows are not among them");
    let before = all(&export);
    assert_eq!(before.len(), 5001, "nothing has been deleted yet");
    assert!(before.windows(2).all(|pair| pair[0].0 < pair[1].0), "in the order of revisions");
    let (key, value) = before.last().expect("some");
    assert_eq!((&key[..8], key.len(), &value[..]), (&5002i64.to_be_bytes()[..], 18, &b"\x0a\x05key-5"[..]));

    for index in 5003..6000 {
        put(&mut writer, index, &format!("key-{}", index % 700), vec![8; 400]);
    }
    // Compaction is due, but waits.
    while store.step(true).expect("step") {}
    assert_eq!(store.stats().compaction_deleted, 0);
    assert!(all(&export) == before, "the same from the first to the last");
    drop(export);
    while store.step(true).expect("step") {}
    assert!(store.stats().compaction_deleted > 3000, "{}", store.stats().compaction_deleted);
}
