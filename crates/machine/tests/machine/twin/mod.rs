//! A naive twin of the machine's keys and leases: everything it ever held in one sorted map, everything computed anew
//! for each question. Written from `facts/rpc-semantics.md` §1, not from the machine.

pub mod chance;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use milepost_machine::Error;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::mvccpb::KeyValue;
use pb::compare::TargetUnion;
use pb::request_op::Request as Op;
use pb::response_op::Response;

type Key = Vec<u8>;

/// One state of one key; version 0: deleted.
#[derive(Clone, Debug)]
struct State {
    main: i64,
    create: i64,
    version: i64,
    value: Vec<u8>,
    lease: i64,
}

#[derive(Clone, Debug)]
pub struct Twin {
    pub revision: i64,
    pub compacted: i64,
    history: BTreeMap<Key, Vec<State>>,
    pub leases: BTreeMap<i64, i64>,
    /// Has the request at hand changed something?
    changed: bool,
}

impl Twin {
    pub fn new() -> Self {
        Self { revision: 1, compacted: -1, history: BTreeMap::new(), leases: BTreeMap::new(), changed: false }
    }

    /// The newest revision that the request at hand can see.
    fn visible(&self) -> i64 {
        self.revision + i64::from(self.changed)
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision: self.visible(), ..Default::default() })
    }

    fn end_request(&mut self) {
        self.revision = self.visible();
        self.changed = false;
    }

    fn live(&self, key: &[u8], revision: i64) -> Option<&State> {
        let states = self.history.get(key)?;
        states.iter().rev().find(|state| state.main <= revision).filter(|state| state.version > 0)
    }

    fn keys(&self, key: &[u8], end: &[u8], revision: i64) -> Vec<KeyValue> {
        let inside = |candidate: &[u8]| match end {
            b"" => candidate == key,
            b"\0" => candidate >= key,
            end => candidate >= key && candidate < end,
        };
        let mut found = Vec::new();
        for candidate in self.history.keys().filter(|candidate| inside(candidate)) {
            if let Some(state) = self.live(candidate, revision) {
                found.push(KeyValue {
                    key: candidate.clone().into(),
                    create_revision: state.create,
                    mod_revision: state.main,
                    version: state.version,
                    value: state.value.clone().into(),
                    lease: state.lease,
                });
            }
        }
        found
    }

    pub fn attached(&self, lease: i64) -> Vec<Key> {
        let mut keys = self.keys(b"\0", b"\0", self.revision);
        keys.retain(|kv| kv.lease == lease);
        keys.into_iter().map(|kv| kv.key.to_vec()).collect()
    }

    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        let at = if request.revision <= 0 { self.visible() } else { request.revision };
        if at > self.visible() {
            return Err(Error::FutureRevision);
        }
        if at < self.compacted {
            return Err(Error::Compacted);
        }
        let mut kvs = self.keys(&request.key, &request.range_end, at);
        let count = kvs.len() as i64;
        if request.count_only {
            return Ok(pb::RangeResponse { header: self.header(), count, ..Default::default() });
        }
        let bounds = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let (order, target) = (request.sort_order(), request.sort_target());
        let unordered = request.sort_order == 0;
        let explicit = !(unordered || (request.sort_order == 1 && request.sort_target == 0));
        let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
        if !explicit && bounds == [0; 4] {
            kvs.truncate(limit.saturating_add(1));
        }
        kvs.retain(|kv| {
            (bounds[0] == 0 || kv.mod_revision >= bounds[0])
                && (bounds[1] == 0 || kv.mod_revision <= bounds[1])
                && (bounds[2] == 0 || kv.create_revision >= bounds[2])
                && (bounds[3] == 0 || kv.create_revision <= bounds[3])
        });
        let number = |kv: &KeyValue| match target {
            pb::range_request::SortTarget::Version => kv.version,
            pb::range_request::SortTarget::Create => kv.create_revision,
            pb::range_request::SortTarget::Mod => kv.mod_revision,
            _ => 0,
        };
        let text = |kv: &KeyValue| match target {
            pb::range_request::SortTarget::Key => kv.key.clone(),
            pb::range_request::SortTarget::Value => kv.value.clone(),
            _ => bytes::Bytes::new(),
        };
        if order == pb::range_request::SortOrder::Descend {
            kvs.sort_by_key(|kv| (Reverse(number(kv)), Reverse(text(kv)), kv.key.clone()));
        } else {
            kvs.sort_by_key(|kv| (number(kv), text(kv), kv.key.clone()));
        }
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = bytes::Bytes::new();
                if target != pb::range_request::SortTarget::Value {
                    kv.lease = 0;
                }
            }
        }
        Ok(pb::RangeResponse { header: self.header(), kvs, more, count })
    }

    fn check_put(&self, request: &pb::PutRequest) -> Result<(), Error> {
        if request.lease != 0 && !self.leases.contains_key(&request.lease) {
            return Err(Error::LeaseNotFound);
        }
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && self.live(&request.key, self.visible()).is_none() { Err(Error::KeyNotFound) } else { Ok(()) }
    }

    fn write(&mut self, key: &[u8], new: Option<(Vec<u8>, i64)>) {
        let main = self.revision + 1;
        let before = self.live(key, main).cloned();
        let state = match new {
            None => State { main, create: 0, version: 0, value: vec![], lease: 0 },
            Some((value, lease)) => {
                let create = before.as_ref().map_or(main, |before| before.create);
                State { main, create, version: before.map_or(0, |before| before.version) + 1, value, lease }
            }
        };
        self.history.entry(key.to_vec()).or_default().push(state);
        self.changed = true;
    }

    fn do_put(&mut self, request: &pb::PutRequest) -> pb::PutResponse {
        let before = self.keys(&request.key, b"", self.visible()).pop();
        let kept = before.clone().unwrap_or_default();
        let value = if request.ignore_value { kept.value.to_vec() } else { request.value.to_vec() };
        let lease = if request.ignore_lease { kept.lease } else { request.lease };
        self.write(&request.key, Some((value, lease)));
        pb::PutResponse { header: self.header(), prev_kv: before.filter(|_| request.prev_kv) }
    }

    fn do_delete(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let gone = self.keys(&request.key, &request.range_end, self.visible());
        for kv in &gone {
            self.write(&kv.key, None);
        }
        let deleted = gone.len() as i64;
        let prev_kvs = if request.prev_kv { gone } else { vec![] };
        pb::DeleteRangeResponse { header: self.header(), deleted, prev_kvs }
    }

    pub fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Error> {
        self.check_put(request)?;
        let reply = self.do_put(request);
        self.end_request();
        Ok(reply)
    }

    pub fn delete(&mut self, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let reply = self.do_delete(request);
        self.end_request();
        reply
    }

    /// Three passes over copies: `before` answers every question about the state before.
    pub fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let before = self.clone();
        before.check_txn(request)?;
        let mut reply = self.do_txn(&before, request);
        reply.header = self.header();
        self.end_request();
        Ok(reply)
    }

    fn branch<'a>(&self, request: &'a pb::TxnRequest) -> (bool, &'a [pb::RequestOp]) {
        let all = request.compare.iter().all(|compare| self.holds(compare));
        (all, if all { &request.success } else { &request.failure })
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let mut kvs = self.keys(&compare.key, &compare.range_end, self.revision);
        if kvs.is_empty() {
            if compare.target == 3 {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        kvs.iter().all(|kv| {
            let numbers = |ours: i64, theirs: i64| ours.cmp(&theirs);
            let ordering = match (compare.target, &compare.target_union) {
                (0, Some(TargetUnion::Version(other))) => numbers(kv.version, *other),
                (1, Some(TargetUnion::CreateRevision(other))) => numbers(kv.create_revision, *other),
                (2, Some(TargetUnion::ModRevision(other))) => numbers(kv.mod_revision, *other),
                (3, Some(TargetUnion::Value(other))) => kv.value.cmp(other),
                (4, Some(TargetUnion::Lease(other))) => numbers(kv.lease, *other),
                (0, _) => numbers(kv.version, 0),
                (1, _) => numbers(kv.create_revision, 0),
                (2, _) => numbers(kv.mod_revision, 0),
                (3, _) => kv.value[..].cmp(b""),
                (4, _) => numbers(kv.lease, 0),
                other => panic!("no such target: {other:?}"),
            };
            match compare.result {
                0 => ordering.is_eq(),
                1 => ordering.is_gt(),
                2 => ordering.is_lt(),
                3 => ordering.is_ne(),
                other => panic!("no such result: {other}"),
            }
        })
    }

    fn check_txn(&self, request: &pb::TxnRequest) -> Result<(), Error> {
        for op in self.branch(request).1 {
            match op.request.as_ref().unwrap() {
                Op::RequestRange(range) if range.revision > self.revision => return Err(Error::FutureRevision),
                Op::RequestRange(range) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(Error::Compacted);
                }
                Op::RequestPut(put) => self.check_put(put)?,
                Op::RequestTxn(inner) => self.check_txn(inner)?,
                Op::RequestRange(_) | Op::RequestDeleteRange(_) => {}
            }
        }
        Ok(())
    }

    fn do_txn(&mut self, before: &Self, request: &pb::TxnRequest) -> pb::TxnResponse {
        let (succeeded, ops) = before.branch(request);
        let mut responses = Vec::new();
        for op in ops {
            let response = match op.request.as_ref().unwrap() {
                Op::RequestRange(range) => Response::ResponseRange(self.range(range).unwrap()),
                Op::RequestPut(put) => Response::ResponsePut(self.do_put(put)),
                Op::RequestDeleteRange(delete) => Response::ResponseDeleteRange(self.do_delete(delete)),
                Op::RequestTxn(inner) => Response::ResponseTxn(self.do_txn(before, inner)),
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        pb::TxnResponse { header: Some(pb::ResponseHeader::default()), succeeded, responses }
    }

    pub fn compact(&mut self, revision: i64) -> Result<i64, Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted);
        }
        if revision > self.revision {
            return Err(Error::FutureRevision);
        }
        self.compacted = revision;
        Ok(self.revision)
    }

    pub fn grant(&mut self, id: i64, ttl: i64) -> Result<(), Error> {
        match id {
            0 => Err(Error::LeaseNotFound),
            id if self.leases.contains_key(&id) => Err(Error::LeaseExists),
            id => {
                self.leases.insert(id, ttl.max(2));
                Ok(())
            }
        }
    }

    pub fn revoke(&mut self, id: i64) -> Result<i64, Error> {
        if self.leases.remove(&id).is_none() {
            return Err(Error::LeaseNotFound);
        }
        for key in self.attached(id) {
            self.write(&key, None);
        }
        self.end_request();
        Ok(self.revision)
    }
}
