//! The machine against its naive twin, and against itself: the same log gives the same state.

use std::sync::Arc;

use crate::common::{self, Command, Rig, parse};
use crate::twin::Twin;
use crate::twin::chance::Chance;
use milepost_engine::Table;
use milepost_machine::{Error, Reply, is_txn_readonly, validate};
use milepost_mvcc::EventBatch;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::mvccpb::KeyValue;
use milepost_types::{LeaseId, Revision};
use pb::internal_raft_request::Request;

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

/// What the twin answers.
fn answer(twin: &mut Twin, request: &Request) -> Result<Reply, Error> {
    match request {
        Request::Range(request) => twin.range(request).map(Reply::Range),
        Request::Put(request) => twin.put(request).map(Reply::Put),
        Request::DeleteRange(request) => Ok(Reply::DeleteRange(twin.delete(request))),
        Request::Txn(request) => twin.txn(request).map(Reply::Txn),
        Request::Compaction(request) => {
            let header = twin.compact(request.revision).map(header)?;
            Ok(Reply::Compaction(pb::CompactionResponse { header }))
        }
        Request::LeaseGrant(request) => {
            twin.grant(request.id, request.ttl)?;
            let (id, ttl) = (request.id, twin.leases[&request.id]);
            let header = header(twin.revision);
            Ok(Reply::LeaseGrant(pb::LeaseGrantResponse { header, id, ttl, error: String::new() }))
        }
        Request::LeaseRevoke(request) => {
            let header = header(twin.revoke(request.id)?);
            Ok(Reply::LeaseRevoke(pb::LeaseRevokeResponse { header }))
        }
        other => panic!("the twin does not know {other:?}"),
    }
}

/// Requests that the door would refuse are never proposed.
pub fn passes_the_door(request: &Request) -> bool {
    match request {
        Request::Txn(request) => validate::txn(request, 128).is_ok(),
        _ => true,
    }
}

#[test]
fn machine_and_twin_agree() {
    for seed in 0..30 {
        let mut chance = Chance::new(seed);
        let mut twin = Twin::new();
        let mut rig = Rig::new(common::config());
        for step in 0..400 {
            let context = format!("seed {seed} step {step}");
            let request = chance.request(twin.revision);
            if !passes_the_door(&request) {
                continue;
            }
            let before = twin.revision;
            let expected = answer(&mut twin, &request);
            if let Request::Txn(txn) = &request
                && is_txn_readonly(txn)
            {
                assert_eq!(rig.machine.reader().txn_readonly(txn).map(Reply::Txn), expected, "{context}: {request:?}");
            }
            let applied = rig.apply(request.clone(), true).unwrap();
            assert_eq!(applied.reply, Some(expected), "{context}: {request:?}");
            assert_eq!(applied.events.is_some(), twin.revision > before, "{context}: {request:?}");
            if chance.one_in(60) {
                rig = rig.reopen();
            }
            let question = chance.range(twin.revision);
            assert_eq!(rig.machine.reader().range(&question), twin.range(&question), "{context}: {question:?}");
        }
        for lease in -1..4 {
            let keys = rig.machine.reader().store().view().attached(LeaseId(lease)).unwrap();
            let expected = if lease == 0 { vec![] } else { twin.attached(lease) };
            assert_eq!(keys, expected, "seed {seed} lease {lease}");
        }
        let ids: Vec<_> = rig.machine.lessor().ids().into_iter().map(|id| id.0).collect();
        assert!(ids.iter().eq(twin.leases.keys()), "seed {seed}");
    }
}

/// What a watcher is told.
pub fn seen(batch: Arc<EventBatch>) -> (i64, Vec<(Revision, KeyValue)>) {
    (batch.revision, batch.records.iter().map(|record| (record.revision, record.to_kv())).collect())
}

/// Requests about everything else, as the scripts write them.
pub const BESIDE_KEYS: [&str; 16] = [
    "empty",
    "checkpoint 1 7",
    "checkpoint 2 0",
    "alarm raise a nospace",
    "alarm clear a nospace",
    "alarm clear b corrupt",
    "version 3.6.0",
    "downgrade 3.6.0",
    "member add a http://a",
    "member learner b http://b",
    "member promote b",
    "member update b http://b2",
    "member remove b",
    "attributes a name http://client",
    "auth-enable",
    "auth-status",
];

/// Two members apply one log: one answers its clients and never stops, the other answers nobody and restarts often.
#[test]
fn same_log_same_state() {
    for seed in 100..110 {
        let mut chance = Chance::new(seed);
        let mut serving = Rig::new(common::config());
        let mut silent = Rig::new(common::config());
        for _ in 0..300 {
            let request = chance.request(serving.machine.reader().revision());
            if !passes_the_door(&request) {
                continue;
            }
            let (one, other) = if chance.one_in(4) {
                match parse(chance.pick(&BESIDE_KEYS)) {
                    Command::ConfChange(change) => {
                        (serving.conf_change(&change, true), silent.conf_change(&change, false))
                    }
                    Command::Propose(request) => (serving.apply(request.clone(), true), silent.apply(request, false)),
                    _ => (serving.apply_empty(), silent.apply_empty()),
                }
            } else {
                (serving.apply(request.clone(), true), silent.apply(request, false))
            };
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!(one.effects, other.effects, "seed {seed}");
            assert_eq!(one.events.map(seen), other.events.map(seen), "seed {seed}");
            if chance.one_in(25) {
                silent = silent.reopen();
            }
        }
        let everything = |rig: &Rig| {
            let store = rig.machine.reader().store();
            let from = Revision::new(store.compact_revision().max(0) + 1, 0);
            let history = store.history(from, usize::MAX, usize::MAX).unwrap();
            let history: Vec<_> = history.iter().map(|record| (record.revision, record.to_kv())).collect();
            let hash = rig.machine.reader().hash_kv(0).unwrap();
            (rig.machine.conf_state().clone(), hash, store.revision(), store.compact_revision(), history)
        };
        assert_eq!(everything(&serving), everything(&silent), "seed {seed}");
        let (serving, silent) = (serving.reopen(), silent.reopen());
        for table in [Table::Attached, Table::Lease, Table::Alarm, Table::Members, Table::Removed, Table::Cluster] {
            assert_eq!(serving.engine.dump(table), silent.engine.dump(table), "seed {seed} {table:?}");
        }
    }
}

/// A compare over more keys than are read at once finds the one that fails, wherever it stands.
#[test]
fn compares_reach_the_last_key_of_a_large_range() {
    let mut rig = Rig::new(common::config());
    for i in 0..2500 {
        let Command::Propose(put) = parse(&format!("put k{i:04} 1")) else { unreachable!("a put is a proposal") };
        rig.apply(put, false).unwrap();
    }
    let succeeds = |rig: &Rig| {
        let Command::Txn(txn) = parse("read-txn if version(k,l) = 1") else { unreachable!("a read") };
        rig.machine.reader().txn_readonly(&txn).unwrap().succeeded
    };
    assert!(succeeds(&rig));
    for key in ["k0000", "k0999", "k1000", "k2499"] {
        let (put, delete) = (parse(&format!("put {key} 2")), parse(&format!("del {key}")));
        let (Command::Propose(put), Command::Propose(delete)) = (put, delete) else { unreachable!("proposals") };
        rig.apply(put.clone(), false).unwrap();
        assert!(!succeeds(&rig), "{key}");
        rig.apply(delete, false).unwrap();
        rig.apply(put, false).unwrap();
        assert!(succeeds(&rig), "{key}");
    }
}
