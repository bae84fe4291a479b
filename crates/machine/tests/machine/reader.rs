//! Readers, founding, installing: what scripts cannot say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use milepost_engine::mem::MemEngine;
use milepost_machine::member::Bootstrap;
use milepost_machine::{Config, Entry, EntryKind, Error, Fatal, Machine};
use milepost_mvcc::{Store, StoreOptions};
use milepost_proto::{Message, etcdserverpb as pb};
use milepost_types::{LogIndex, Term};
use pb::range_request::SortTarget;

use crate::common::{self, Command, Rig, parse};

fn rig(config: Config, lines: &[&str]) -> Rig {
    let mut rig = Rig::new(config);
    for line in lines {
        let Command::Propose(request) = parse(line) else { panic!("{line} is not for the log") };
        rig.apply(request, false).unwrap();
    }
    rig
}

#[test]
fn founding_entries_make_the_founders_members() {
    let urls = |url: &str| vec![url.to_owned()];
    let founders = BTreeMap::from([("a".to_owned(), urls("http://a:1")), ("b".to_owned(), urls("http://b:1"))]);
    let bootstrap = Bootstrap::new(&founders, "token").unwrap();
    let mut rig = Rig::new(common::config());
    for entry in &bootstrap.entries {
        let applied = rig.apply_bytes(EntryKind::ConfChange, entry.data().to_vec().into(), false).unwrap();
        assert_eq!(applied.request_id, 0);
    }
    assert_eq!(rig.machine.conf_state(), &bootstrap.conf_state);
    let membership = rig.machine.reader().membership();
    assert!(membership.members.values().eq(&bootstrap.members));
    assert!(membership.members.values().all(milepost_machine::Member::is_started));
    let json: serde_json::Value = serde_json::from_slice(&rig.machine.membership_v2_json()).unwrap();
    let path = format!("/Root/Children/0/Children/members/Children/{}", bootstrap.members[0].id);
    assert!(json.pointer(&path).is_some());
}

#[test]
fn entries_come_in_order_each_once() {
    let mut rig = rig(common::config(), &["put a 1", "put a 2"]);
    for wrong in [0, 1, 2, 4] {
        let data = bytes::Bytes::new();
        let entry = Entry { index: LogIndex(wrong), term: Term(1), kind: EntryKind::Normal, data: &data };
        assert!(matches!(rig.machine.apply(entry, true), Err(Fatal::OutOfOrder { .. })), "{wrong}");
    }
    assert_eq!(rig.machine.applied(), (LogIndex(2), Term(1)));
}

#[test]
fn time_to_live_of_leases() {
    let rig = rig(common::config(), &["grant 1 60", "grant 2 30", "put b 1 lease=1", "put a 1 lease=1"]);
    let reader = rig.machine.reader();
    let ask = |id, keys, seconds| {
        reader.lease_time_to_live(&pb::LeaseTimeToLiveRequest { id, keys }, Duration::from_secs(seconds))
    };
    assert_eq!(ask(1, true, 0), Err(Error::NotPrimary));
    assert_eq!(reader.leases().leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [1, 2]);

    reader.lessor().promote(Duration::from_secs(100), Duration::from_secs(1));
    let left = ask(1, true, 110).unwrap();
    assert_eq!((left.id, left.ttl, left.granted_ttl, left.header.unwrap().revision), (1, 51, 60, 3));
    assert_eq!(left.keys, ["a", "b"]);
    assert!(ask(1, false, 110).unwrap().keys.is_empty());
    let unknown = ask(9, true, 110).unwrap();
    assert_eq!((unknown.id, unknown.ttl, unknown.granted_ttl), (9, -1, 0));
    assert_eq!(reader.leases().leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [2, 1], "soonest first");
}

/// rpc-semantics.md §5: 0 is 2 GiB, negative is none, and what costs nothing always fits.
#[test]
fn the_quota_at_the_door() {
    let reader = |quota_bytes| Rig::new(Config { quota_bytes, ..common::config() }).machine.reader();
    assert_eq!(reader(0).check_quota(2 << 30), Err(Error::NoSpace));
    assert_eq!(reader(0).check_quota(1 << 20), Ok(()));
    assert_eq!(reader(-1).check_quota(u64::MAX), Ok(()));
    assert_eq!(reader(1).check_quota(0), Ok(()));
    assert_eq!(reader(1).check_quota(1), Err(Error::NoSpace));
}

#[test]
fn readers_follow_to_an_installed_store() {
    let mut behind = rig(common::config(), &["put old 1", "grant 1 60", "alarm raise a nospace"]);
    let reader = behind.machine.reader();
    reader.lessor().promote(Duration::ZERO, Duration::ZERO);

    let ahead = rig(common::config(), &["put a 1", "put a 2", "put a 3", "grant 7 60", "version 3.7.0"]).reopen();
    let engine: Arc<MemEngine> = Arc::clone(&ahead.engine);
    drop(ahead.machine.into_writer());
    let (store, writer, opened) = Store::open(engine, StoreOptions::default()).unwrap();
    drop(behind.machine.replace(store, writer, &opened).unwrap());

    assert_eq!((reader.revision(), behind.machine.applied().0), (4, LogIndex(5)));
    let range = pb::RangeRequest { key: "a".into(), ..Default::default() };
    assert_eq!(reader.range(&range).unwrap().kvs[0].version, 3);
    assert!(reader.alarms().list(0).is_empty() && !reader.lessor().is_primary());
    assert_eq!(reader.leases().leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [7]);
    assert_eq!(reader.cluster_version().unwrap().to_string(), "3.7.0");
    let data = bytes::Bytes::new();
    let entry = Entry { index: LogIndex(6), term: Term(2), kind: EntryKind::Normal, data: &data };
    behind.machine.apply(entry, false).unwrap();
}

#[test]
fn a_cluster_above_our_version_is_not_opened() {
    let rig = rig(common::config(), &["version 3.7.0"]).reopen();
    let engine: Arc<MemEngine> = Arc::clone(&rig.engine);
    let older = Config { server_version: milepost_machine::Version::parse("3.6.9").unwrap(), ..common::config() };
    drop(rig.machine.into_writer());
    let (store, writer, opened) = Store::open(engine, StoreOptions::default()).unwrap();
    assert!(matches!(Machine::open(store, writer, &opened, older), Err(Fatal::VersionTooNew { .. })));
}

#[test]
fn a_list_is_the_range_encoded() {
    let lengths = [1, 100, 8000, 8100, 120_000, 131_000, 140_000, 300_000, 0, 127, 128, 16_383, 16_384];
    let puts: Vec<String> = lengths.iter().map(|len| format!("put k{len:06} {}", "x".repeat(*len))).collect();
    let mut lines: Vec<&str> = puts.iter().map(String::as_str).collect();
    lines.extend(["grant 7 60", "put k000001 other", "put kl leased lease=7", "del k000128"]);
    let rig = rig(common::config(), &lines);
    let reader = rig.machine.reader();
    for (start, end) in [("", "\0"), ("k0001", "l"), ("k000002", "k000128"), ("l", "m"), ("k1", "k0")] {
        for (limit, revision) in [(0, 0), (1, 0), (3, 0), (12, 0), (13, 0), (14, 0), (0, 9), (5, 9)] {
            let (key, range_end) = (start.into(), end.into());
            let request = pb::RangeRequest { key, range_end, limit, revision, ..Default::default() };
            assert!(milepost_machine::is_list(&request));
            let expected = reader.range(&request).unwrap();
            let list = reader.list(&request, &mut Vec::with_capacity).unwrap();
            assert_eq!((list.keys, list.count), (expected.kvs.len(), expected.count));
            assert_eq!(Some(list.revision), expected.header.as_ref().map(|header| header.revision));
            let encoded = list.pieces.concat().split_off(milepost_machine::LIST_ROOM);
            assert!(encoded == pb::RangeResponse { header: None, ..expected }.encode_to_vec(), "{request:?}");
        }
    }
    let sorted = pb::RangeRequest { range_end: "l".into(), sort_target: SortTarget::Mod as i32, ..Default::default() };
    assert!(!milepost_machine::is_list(&sorted), "sorted after it is cut");
    let old = pb::RangeRequest { key: "k".into(), range_end: "l".into(), revision: 99, ..Default::default() };
    assert_eq!(reader.list(&old, &mut Vec::with_capacity), Err(Error::FutureRevision));
}

/// RangeStream reads at one revision however long it takes, until that is compacted.
#[test]
fn a_stream_stays_at_its_revision() {
    let puts: Vec<String> = (0..40).map(|i| format!("put k{i:02} 1")).collect();
    let lines: Vec<&str> = puts.iter().map(String::as_str).collect();
    let mut rig = rig(common::config(), &lines);
    let request = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let mut streams = [0, 1].map(|_| rig.machine.reader().range_stream(request.clone()));
    for stream in &mut streams {
        assert_eq!(stream.next_piece().unwrap().unwrap().kvs.len(), 10);
    }
    let mut change = |line: &str| {
        let Command::Propose(request) = parse(line) else { panic!("{line} is not for the log") };
        rig.apply(request, false).unwrap();
    };
    change("del k15");
    change("put k99 1");
    let [mut whole, mut cut] = streams;
    let piece = whole.next_piece().unwrap().unwrap();
    assert_eq!((piece.kvs.len(), piece.header), (20, None));
    let last = whole.next_piece().unwrap().unwrap();
    assert_eq!((last.kvs.len(), last.count, last.header.unwrap().revision), (10, 40, 41));
    assert_eq!(whole.next_piece(), Ok(None));
    change("compact 42");
    assert_eq!(cut.next_piece(), Err(Error::Compacted));
}
