//! What one member writes, another takes: equal bytes, equal hashes, equal answers ever after.

use std::sync::Arc;

use crate::common::{self, Command, Rig, parse};
use crate::model::{BESIDE_KEYS, passes_the_door, seen};
use crate::twin::chance::Chance;
use milepost_bolt::{Emitter, File, Planner};
use milepost_engine::StoreDirectory;
use milepost_engine::Table;
use milepost_engine::lmdb::{LmdbEngine, LmdbOptions};
use milepost_env::OsDisk;
use milepost_machine::{Database, ImportError, Taken, import};
use milepost_mvcc::{Store, StoreOptions, verify};
use milepost_proto::raftpb::SnapshotMetadata;
use milepost_types::LeaseId;
use std::collections::BTreeMap;

/// Everything happens when the test says so.
fn stepped() -> StoreOptions {
    StoreOptions { background: false, compaction_batch: 7, ..StoreOptions::default() }
}

/// One entry on each of `rigs`.
fn advance(chance: &mut Chance, rigs: &mut [&mut Rig]) {
    let request = loop {
        let request = chance.request(rigs[0].machine.reader().revision());
        if passes_the_door(&request) {
            break request;
        }
    };
    let beside = chance.one_in(4).then(|| parse(chance.pick(&BESIDE_KEYS)));
    let mut told = Vec::new();
    for rig in rigs {
        let applied = match &beside {
            Some(Command::ConfChange(change)) => rig.conf_change(change, true),
            Some(Command::Propose(request)) => rig.apply(request.clone(), true),
            Some(_) => rig.apply_empty(),
            None => rig.apply(request.clone(), true),
        };
        let applied = applied.unwrap();
        told.push((applied.reply, applied.effects, applied.events.map(seen)));
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:#?}");
}

/// The snapshot that a member sends, and what it says of it.
fn snapshot(store: &Store) -> (Vec<u8>, SnapshotMetadata) {
    let database = Database::prepare(store).unwrap();
    let told = SnapshotMetadata {
        conf_state: Some(database.conf_state().unwrap()),
        index: Some(database.applied().0),
        term: Some(database.term().0),
    };
    (database.write(Vec::new()).unwrap(), told)
}

fn take(store: &Store, bytes: &[u8], told: &SnapshotMetadata) -> Result<Taken, ImportError> {
    import(store, bytes, told, &common::config())
}

fn assert_equal(one: &Rig, other: &Rig, context: &str) {
    let (one, other) = (one.machine.reader().store(), other.machine.reader().store());
    assert!(snapshot(&one) == snapshot(&other), "{context}: the bytes differ");
    let (from, to) = (one.compact_revision().max(1), one.revision());
    assert_eq!((from, to), (other.compact_revision().max(1), other.revision()), "{context}");
    for revision in from..=to {
        assert_eq!(one.hash_kv(revision).unwrap(), other.hash_kv(revision).unwrap(), "{context} at {revision}");
        let at = |store: &Store| {
            let request = milepost_proto::etcdserverpb::RangeRequest {
                key: vec![0].into(),
                range_end: vec![0].into(),
                revision,
                ..Default::default()
            };
            let keys = milepost_types::KeyRange::from_wire(&request.key, &request.range_end);
            store.view().range(keys, revision, milepost_mvcc::RangeOptions::default()).unwrap()
        };
        let kvs = |store| at(store).records.iter().map(|record| record.to_kv()).collect::<Vec<_>>();
        assert_eq!(kvs(&one), kvs(&other), "{context} at {revision}");
    }
    for lease in 1..4 {
        let attached = |store: &Store| store.view().attached(LeaseId(lease)).unwrap();
        assert_eq!(attached(&one), attached(&other), "{context} lease {lease}");
    }
}

/// A follower falls behind, takes a snapshot, keeps pace for a while, and falls behind again; compactions are wherever
/// they are, also half-way.
#[test]
fn a_snapshot_makes_members_equal() {
    let (mut half_compacted, mut compacted) = (0, 0);
    for seed in 0..12 {
        let mut chance = Chance::new(1000 + seed);
        let mut ahead = Rig::with(common::config(), stepped());
        let mut behind = Rig::with(common::config(), stepped());
        for round in 0..5 {
            let context = format!("seed {seed} round {round}");
            for _ in 0..60 {
                advance(&mut chance, &mut [&mut ahead, &mut behind]);
            }
            for _ in 0..80 {
                advance(&mut chance, &mut [&mut ahead]);
                let store = ahead.machine.reader().store();
                if chance.one_in(3) {
                    store.step(chance.one_in(2)).unwrap();
                }
            }
            let store = ahead.machine.reader().store();
            let (bytes, told) = snapshot(&store);
            let Taken { imported, unknown } = take(&behind.machine.reader().store(), &bytes, &told).unwrap();
            assert_eq!(unknown, [""; 0]);
            behind.install(imported).unwrap();
            let meta: BTreeMap<_, _> = {
                let file = File::open(&*bytes).unwrap();
                file.bucket(b"meta").unwrap().unwrap().map(Result::unwrap).collect()
            };
            let bounds = ["scheduledCompactRev", "finishedCompactRev"].map(|key| meta.get(key.as_bytes()));
            half_compacted += u64::from(bounds[0] != bounds[1]);
            compacted += u64::from(bounds[1].is_some());
            assert_equal(&ahead, &behind, &context);
            for rig in [&ahead, &behind] {
                while rig.machine.reader().store().step(true).unwrap() {}
            }
            assert_equal(&ahead, &behind, &context);
            verify(&*behind.engine).unwrap();
            if chance.one_in(2) {
                behind = behind.reopen();
            }
        }
        for table in [Table::Attached, Table::Lease, Table::Alarm, Table::Members, Table::Removed, Table::Cluster] {
            let dump = |rig: &Rig| {
                rig.machine.reader().store().force_sync().unwrap();
                rig.engine.crash(true).dump(table)
            };
            assert_eq!(dump(&ahead), dump(&behind), "seed {seed} {table:?}");
        }
    }
    assert!(half_compacted > 3 && compacted > 10, "{half_compacted} half compacted, {compacted} compacted");
}

/// The real engine, more than one chunk, values beside and inside of `current`; readers of the old store go on.
#[test]
fn the_old_store_stays_for_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let directory = StoreDirectory::open(Arc::new(OsDisk), &dir.path().join("store")).unwrap();
        let options =
            LmdbOptions { ballast_bytes: 1 << 20, check: Some(milepost_mvcc::is_sealed), ..Default::default() };
        let engine = Arc::new(LmdbEngine::open_current(Arc::new(directory), options).unwrap());
        Store::open(engine, StoreOptions::default()).unwrap()
    };
    let mut rig = Rig::new(common::config());
    for number in 0..12_000 {
        let Command::Propose(put) = parse(&format!("put k{} {number}", number % 4000)) else { unreachable!("a put") };
        rig.apply(put, false).unwrap();
    }
    let (bytes, told) = snapshot(&rig.machine.reader().store());
    let (old, writer, _) = open();
    let view = old.view();
    let Taken { imported, .. } = take(&old, &bytes, &told).unwrap();
    assert!(dir.path().join("store/2").exists(), "filled beside the other");
    let (new, new_writer, opened) = imported.take_over().unwrap();
    assert_eq!((opened.applied.0, new.revision()), (12_000, 12_001));
    assert_eq!(view.range(milepost_types::KeyRange::all(), 1, Default::default()).unwrap().count, 0);
    assert!(dir.path().join("store/1").exists(), "somebody reads there");
    drop((view, writer, old));
    assert!(!dir.path().join("store/1").exists(), "its last reader is gone");
    assert!(snapshot(&new).0 == bytes);
    new.close();
    drop(new_writer);
    let (again, _writer, opened) = open();
    assert_eq!(opened.applied.0, 12_000);
    assert!(snapshot(&again).0 == bytes);
    // One that nobody takes leaves nothing behind.
    drop(take(&again, &bytes, &told).unwrap());
    assert_eq!(std::fs::read_dir(dir.path().join("store")).unwrap().count(), 3, "CURRENT, BALLAST, 2");
}

type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn buckets(bytes: &[u8]) -> Buckets {
    let file = File::open(bytes).unwrap();
    let rows = |name: &[u8]| file.bucket(name).unwrap().unwrap().map(Result::unwrap).collect();
    file.buckets().unwrap().into_iter().map(|name| (name.clone(), rows(&name))).collect()
}

fn written(buckets: &Buckets) -> Vec<u8> {
    let mut planner = Planner::new();
    for (name, rows) in buckets {
        planner.bucket(name).unwrap();
        rows.iter().for_each(|(key, value)| planner.item(key, value.len()).unwrap());
    }
    let mut emitter = Emitter::new(planner.finish(), 2, Vec::new()).unwrap();
    for (name, rows) in buckets {
        emitter.bucket(name).unwrap();
        rows.iter().for_each(|(key, value)| emitter.item(key, value).unwrap());
    }
    emitter.finish().unwrap()
}

fn small() -> (Rig, Vec<u8>, SnapshotMetadata) {
    let mut rig = Rig::with(common::config(), stepped());
    for line in
        ["member add a http://a", "version 3.7.0", "grant 7 100", "put a 1 lease=7", "put b 2", "del a", "put a 3"]
    {
        let (next, said) = rig.run(line);
        assert!(!said.contains("error"), "{line}: {said}");
        rig = next;
    }
    let (bytes, told) = snapshot(&rig.machine.reader().store());
    (rig, bytes, told)
}

#[test]
fn what_is_wrong_is_refused_with_a_sentence() {
    let (_rig, bytes, told) = small();
    let fresh = Rig::new(common::config());
    let store = fresh.machine.reader().store();
    let whole = buckets(&bytes);
    let refused = |edit: &dyn Fn(&mut Buckets)| {
        let mut changed = whole.clone();
        edit(&mut changed);
        take(&store, &written(&changed), &told).err().map(|error| error.to_string())
    };
    assert_eq!(refused(&|_| {}), None);
    let key = |name: &str| name.as_bytes().to_vec();
    let set = |bucket: &str, row: &[u8], value: &[u8]| {
        let (bucket, row, value) = (key(bucket), row.to_vec(), value.to_vec());
        refused(&move |all: &mut Buckets| {
            drop(all.entry(bucket.clone()).or_default().insert(row.clone(), value.clone()))
        })
    };
    let record = |main: i64, tail: &[u8]| [&main.to_be_bytes()[..], b"_", &[0; 8], tail].concat();
    for (said, expected) in [
        (refused(&|all| drop(all.remove(b"meta".as_slice()))), "no bucket \"meta\""),
        (refused(&|all| drop(all.remove(b"key".as_slice()))), "no bucket \"key\""),
        (set("meta", b"consistent_index", &99u64.to_be_bytes()), "the index 99, its message 7"),
        (set("meta", b"term", &3u64.to_be_bytes()), "the term 3, its message 1"),
        (set("meta", b"confState", br#"{"voters":[1]}"#), "the members of Raft"),
        (set("meta", b"confState", b"{"), "no configuration of Raft"),
        (set("meta", b"finishedCompactRev", b"17"), "no revision"),
        (set("auth", b"authEnabled", &[1]), "switch it off (etcdctl auth disable)"),
        (set("key", b"odd", b""), "a key that is no revision"),
        (set("key", &record(50, b""), b"\xff"), "no key with its value"),
        (set("key", &record(50, b"t"), b""), "a record without a key"),
        (set("key", &record(50, b""), b"\x0a\x01a"), "never created"),
        (set("key", &record(50, b"t"), b"\x0a\x01a\x20\x01"), "that no member writes"),
        (set("key", &record(4, b""), b"\x0a\x01a\x10\x04\x18\x04\x20\x01"), "does not come after"),
        (set("members", b"zz", b"{}"), "not a member id"),
        (set("lease", b"short", b""), "lease"),
        (set("cluster", b"clusterVersion", b"3.9.0"), "3.9.0"),
        (set("authUsers", &[b'u'; 600], b""), "a key that is too long"),
    ] {
        let said = said.unwrap_or_else(|| panic!("taken, where it should say {expected:?}"));
        assert!(said.contains(expected), "{said:?} lacks {expected:?}");
    }
    for cut in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(take(&store, &bytes[..cut], &told), Err(ImportError::Bolt(_))), "{cut} bytes");
    }
    let mut other_history = Rig::new(common::config());
    for number in 0..40 {
        (other_history, _) = other_history.run(&format!("put k {number}"));
    }
    let refused = take(&other_history.machine.reader().store(), &bytes, &told);
    assert!(matches!(refused, Err(ImportError::GoesBack { found: 5, own: 41 })));
    assert_eq!(store.revision(), 1, "the store that counts is as it was");
}

/// What etcd's tools leave behind when they raise the revision, and what newer versions may add.
#[test]
fn odd_rows_are_kept_or_named() {
    let (_rig, bytes, told) = small();
    let mut changed = buckets(&bytes);
    changed.entry(b"later".to_vec()).or_default().insert(b"k".to_vec(), b"v".to_vec());
    changed.get_mut(b"meta".as_slice()).unwrap().insert(b"note".to_vec(), b"x".to_vec());
    let history = changed.get_mut(b"key".as_slice()).unwrap();
    for main in [1000i64, 2000] {
        history.insert([&main.to_be_bytes()[..], b"_", &[0; 8]].concat(), Vec::new());
    }
    let bytes = written(&changed);
    let mut rig = Rig::with(common::config(), stepped());
    let Taken { imported, unknown } = take(&rig.machine.reader().store(), &bytes, &told).unwrap();
    assert_eq!(unknown, ["meta key note", "bucket later"]);
    rig.install(imported).unwrap();
    let store = rig.machine.reader().store();
    assert_eq!(store.revision(), 2000);
    changed.remove(b"later".as_slice());
    changed.get_mut(b"meta".as_slice()).unwrap().remove(b"note".as_slice());
    assert!(buckets(&snapshot(&store).0) == changed, "the rest comes out as it went in");
    // The reference: CRC-32C over the bucket's name and its rows.
    let rows = changed[b"key".as_slice()].iter();
    let hash = rows.fold(crc32c::crc32c(b"key"), |crc, (key, value)| {
        crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
    });
    assert_eq!(store.hash_kv(0).unwrap().hash, hash);
    verify(&rig.engine.crash(true)).unwrap();
    let from = milepost_types::Revision::new(1, 0);
    let told = store.history(from, usize::MAX, usize::MAX).unwrap();
    assert!(told.iter().all(|record| record.revision.main < 1000), "no watcher hears of them");
    let (mut rig, said) = rig.run("put a 4");
    assert!(said.contains("2001"), "{said}");
    let Command::Propose(compact) = parse("compact 2001") else { unreachable!("a proposal") };
    rig.apply(compact, true).unwrap();
    while rig.machine.reader().store().step(true).unwrap() {}
    let left = buckets(&snapshot(&rig.machine.reader().store()).0);
    let mains: Vec<_> =
        left[b"key".as_slice()].keys().map(|key| i64::from_be_bytes(key[..8].try_into().unwrap())).collect();
    assert_eq!(mains, [3, 2000, 2001], "the newest of each key, and of no key");
}
