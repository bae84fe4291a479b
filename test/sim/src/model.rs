//! What the keyspace should be: a naive twin of the state machine, fed with the log, one entry at a time.
//!
//! It keeps every value that every key ever had, by revision, so that any answer can be looked up. It knows only the
//! requests that the simulated clients make.

use milepost_proto::Message as _;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::etcdserverpb::{InternalRaftRequest, TxnRequest, compare, request_op};
use milepost_proto::raftpb;
use std::collections::{BTreeMap, BTreeSet};

/// A key or a value.
pub type Text = Vec<u8>;

/// What one write came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Its place in the log.
    pub index: u64,
    /// The keyspace's revision after it.
    pub revision: i64,
    /// Did it change anything? Then the revision is its own.
    pub changed: bool,
    /// What its client hears.
    pub heard: Heard,
}

/// An answer, as far as the clients look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A put; the value before.
    Put(Option<Text>),
    /// Keys deleted.
    Deleted(i64),
    /// A transaction was carried out.
    Swapped,
    /// Its condition did not hold: the value that was there instead.
    Kept(Option<Text>),
    /// Something without a result.
    Done,
    /// Refused, without any change.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub struct Model {
    /// Entries fed so far.
    pub applied: u64,
    /// The newest revision.
    pub revision: i64,
    /// The newest compaction.
    pub compacted: i64,
    /// Of each key every value since its first: (revision, value or gone), ascending.
    keys: BTreeMap<Text, Vec<(i64, Option<Text>)>>,
    /// Keys of each lease.
    leases: BTreeMap<i64, BTreeSet<Text>>,
    lease_of: BTreeMap<Text, i64>,
    /// By request id.
    effects: BTreeMap<u64, Effect>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            applied: 0,
            revision: 1,
            compacted: -1,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            lease_of: BTreeMap::new(),
            effects: BTreeMap::new(),
        }
    }
}

impl Model {
    /// The next entry of the log.
    ///
    /// # Errors
    /// A request that was carried out before, or one that nobody makes.
    pub fn feed(&mut self, entry: &raftpb::Entry) -> Result<(), String> {
        assert_eq!(entry.index(), self.applied + 1, "the model is fed in order");
        self.applied += 1;
        let empty = entry.data().is_empty();
        if empty || entry.r#type() == 1 {
            return Ok(());
        }
        let request = InternalRaftRequest::decode(entry.data.clone().unwrap_or_default());
        let request = request.map_err(|error| format!("entry {} cannot be read: {error}", self.applied))?;
        let id = request.header.map_or(request.id, |header| header.id);
        let Some(request) = request.request else { return Err(format!("entry {} asks for nothing", self.applied)) };
        self.request(id, &request)
    }

    /// The same for a request alone.
    ///
    /// # Errors
    /// As [`Model::feed`].
    pub fn request(&mut self, id: u64, request: &Request) -> Result<(), String> {
        let before = self.revision;
        let heard = self.carry_out(request)?;
        let changed = self.revision != before;
        let effect = Effect { index: self.applied, revision: self.revision, changed, heard };
        match self.effects.insert(id, effect) {
            Some(first) => {
                Err(format!("request {id:x} was carried out twice, at {} and {}", first.index, self.applied))
            }
            None => Ok(()),
        }
    }

    fn carry_out(&mut self, request: &Request) -> Result<Heard, String> {
        Ok(match request {
            Request::Put(put) if put.lease != 0 && !self.leases.contains_key(&put.lease) => Heard::Refused,
            Request::Put(put) => {
                let before = self.now(&put.key).cloned();
                self.revision += 1;
                self.set(&put.key, Some(put.value.to_vec()), put.lease);
                Heard::Put(before)
            }
            Request::DeleteRange(delete) => {
                let there = self.now(&delete.key).is_some();
                if there {
                    self.revision += 1;
                    self.set(&delete.key, None, 0);
                }
                Heard::Deleted(i64::from(there))
            }
            Request::Txn(txn) => self.txn(txn)?,
            Request::Compaction(compaction) => {
                let refused = compaction.revision <= self.compacted || compaction.revision > self.revision;
                if !refused {
                    self.compacted = compaction.revision;
                }
                if refused { Heard::Refused } else { Heard::Done }
            }
            Request::LeaseGrant(grant) => {
                let there = self.leases.contains_key(&grant.id);
                self.leases.entry(grant.id).or_default();
                if there { Heard::Refused } else { Heard::Done }
            }
            Request::LeaseRevoke(revoke) => match self.leases.remove(&revoke.id) {
                Some(keys) => {
                    self.revision += i64::from(!keys.is_empty());
                    keys.iter().for_each(|key| self.set(key, None, 0));
                    Heard::Done
                }
                None => Heard::Refused,
            },
            Request::LeaseCheckpoint(_)
            | Request::ClusterMemberAttrSet(_)
            | Request::ClusterVersionSet(_)
            | Request::Alarm(_) => Heard::Done,
            other => return Err(format!("nobody asks for {other:?}")),
        })
    }

    /// If the key's value is as expected (empty: if there is no such key), put all; else tell the value.
    fn txn(&mut self, txn: &TxnRequest) -> Result<Heard, String> {
        let [condition] = &txn.compare[..] else { return Err(format!("not one condition: {txn:?}")) };
        let now = self.now(&condition.key);
        let holds = match &condition.target_union {
            Some(compare::TargetUnion::Value(expected)) => now.is_some_and(|now| *now == **expected),
            Some(compare::TargetUnion::CreateRevision(0)) => now.is_none(),
            other => return Err(format!("not a condition of ours: {other:?}")),
        };
        if !holds {
            return Ok(Heard::Kept(now.cloned()));
        }
        self.revision += 1;
        for op in &txn.success {
            let Some(request_op::Request::RequestPut(put)) = &op.request else {
                return Err(format!("not an operation of ours: {op:?}"));
            };
            self.set(&put.key, Some(put.value.to_vec()), 0);
        }
        Ok(Heard::Swapped)
    }

    fn set(&mut self, key: &[u8], value: Option<Text>, lease: i64) {
        self.keys.entry(key.to_vec()).or_default().push((self.revision, value));
        if let Some(before) = self.lease_of.remove(key)
            && let Some(keys) = self.leases.get_mut(&before)
        {
            keys.remove(key);
        }
        if lease != 0 {
            self.lease_of.insert(key.to_vec(), lease);
            self.leases.entry(lease).or_default().insert(key.to_vec());
        }
    }

    fn now(&self, key: &[u8]) -> Option<&Text> {
        self.value_at(key, i64::MAX)
    }

    /// The value of `key` at a revision; `None`: there was none.
    #[must_use]
    pub fn value_at(&self, key: &[u8], revision: i64) -> Option<&Text> {
        let versions = self.keys.get(key)?;
        let newer = versions.partition_point(|&(at, _)| at <= revision);
        versions[..newer].last()?.1.as_ref()
    }

    /// Everything that was there at a revision, by key.
    #[must_use]
    pub fn state_at(&self, revision: i64) -> Vec<(Text, Text)> {
        let value = |key: &Text| Some((key.clone(), self.value_at(key, revision)?.clone()));
        self.keys.keys().filter_map(value).collect()
    }

    /// What a request came to; `None`: it never entered the log.
    #[must_use]
    pub fn effect(&self, id: u64) -> Option<&Effect> {
        self.effects.get(&id)
    }

    /// The leases in force.
    #[must_use]
    pub fn leases(&self) -> Vec<i64> {
        self.leases.keys().copied().collect()
    }
}
