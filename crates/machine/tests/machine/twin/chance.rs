//! Requests at random: few keys, few values, every option.

use bytes::Bytes;
use milepost_proto::etcdserverpb as pb;
use pb::compare::TargetUnion;
use pb::internal_raft_request::Request;
use pb::request_op::Request as Op;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A source of requests; `revision` steers where reads of the past and compactions aim.
pub struct Chance {
    rng: SmallRng,
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed) }
    }

    pub fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    pub fn pick<'a>(&mut self, lines: &[&'a str]) -> &'a str {
        lines[self.rng.random_range(0..lines.len())]
    }

    fn key(&mut self) -> Bytes {
        let mut key = vec![b'a' + self.rng.random_range(0..5)];
        if self.one_in(3) {
            key.push([0, b'x', 0xff][self.rng.random_range(0..3)]);
        }
        key.into()
    }

    fn end(&mut self) -> Bytes {
        match self.rng.random_range(0..4) {
            0 => self.key(),
            1 => Bytes::from_static(b"\0"),
            _ => Bytes::new(),
        }
    }

    fn value(&mut self) -> Bytes {
        let length = self.rng.random_range(0..3);
        (0..length).map(|_| self.rng.random_range(b'0'..b'4')).collect::<Vec<u8>>().into()
    }

    fn lease(&mut self) -> i64 {
        if self.one_in(3) { self.rng.random_range(-1..4) } else { 0 }
    }

    /// Mostly the newest, now and then one around the floor, the past, or just above.
    fn revision(&mut self, revision: i64) -> i64 {
        match self.rng.random_range(0..6) {
            0 => self.rng.random_range(-3..=revision + 1),
            1 => self.rng.random_range((revision - 20).max(0)..=revision + 1),
            _ => 0,
        }
    }

    fn bound(&mut self, revision: i64) -> i64 {
        if self.one_in(8) { self.rng.random_range(-1..=revision + 1) } else { 0 }
    }

    pub fn range(&mut self, revision: i64) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.key(),
            range_end: self.end(),
            limit: if self.one_in(2) { self.rng.random_range(-1..6) } else { 0 },
            revision: self.revision(revision),
            sort_order: self.rng.random_range(0..3),
            sort_target: self.rng.random_range(0..5),
            serializable: self.one_in(2),
            keys_only: self.one_in(4),
            count_only: self.one_in(8),
            min_mod_revision: self.bound(revision),
            max_mod_revision: self.bound(revision),
            min_create_revision: self.bound(revision),
            max_create_revision: self.bound(revision),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let (ignore_value, ignore_lease) = (self.one_in(6), self.one_in(6));
        pb::PutRequest {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if ignore_lease { 0 } else { self.lease() },
            prev_kv: self.one_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: self.key(), range_end: self.end(), prev_kv: self.one_in(2) }
    }

    fn compare(&mut self, revision: i64) -> pb::Compare {
        let target = self.rng.random_range(0..5);
        let number = if self.one_in(2) { self.rng.random_range(0..4) } else { self.rng.random_range(0..=revision) };
        // Now and then of another target, which counts as zero, or none.
        let union = if self.one_in(10) { self.rng.random_range(0..6) } else { target };
        pb::Compare {
            result: self.rng.random_range(0..4),
            target,
            key: self.key(),
            range_end: self.end(),
            target_union: match union {
                0 => Some(TargetUnion::Version(number)),
                1 => Some(TargetUnion::CreateRevision(number)),
                2 => Some(TargetUnion::ModRevision(number)),
                3 => Some(TargetUnion::Value(self.value())),
                4 => Some(TargetUnion::Lease(self.lease())),
                _ => None,
            },
        }
    }

    pub fn txn(&mut self, revision: i64, depth: u32) -> pb::TxnRequest {
        let compares = self.rng.random_range(0..3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare(revision)).collect(),
            success: self.ops(revision, depth),
            failure: self.ops(revision, depth),
        }
    }

    fn ops(&mut self, revision: i64, depth: u32) -> Vec<pb::RequestOp> {
        let count = self.rng.random_range(0..4);
        let mut ops = Vec::new();
        for _ in 0..count {
            let request = match self.rng.random_range(0..7) {
                0..2 => Op::RequestRange(self.range(revision)),
                2..4 => Op::RequestPut(self.put()),
                4..6 => Op::RequestDeleteRange(self.delete()),
                _ if depth == 0 => Op::RequestPut(self.put()),
                _ => Op::RequestTxn(self.txn(revision, depth - 1)),
            };
            ops.push(pb::RequestOp { request: Some(request) });
        }
        ops
    }

    /// Any request about keys and leases.
    pub fn request(&mut self, revision: i64) -> Request {
        match self.rng.random_range(0..40) {
            0 => Request::Compaction(pb::CompactionRequest {
                revision: self.rng.random_range((revision - 40).max(1)..=revision + 1),
                physical: false,
            }),
            1..4 => {
                Request::LeaseGrant(pb::LeaseGrantRequest { id: self.lease(), ttl: self.rng.random_range(-1..100) })
            }
            4..6 => Request::LeaseRevoke(pb::LeaseRevokeRequest { id: self.lease() }),
            6..10 => Request::Range(self.range(revision)),
            10..22 => Request::Put(self.put()),
            22..26 => Request::DeleteRange(self.delete()),
            _ => Request::Txn(self.txn(revision, 2)),
        }
    }
}
