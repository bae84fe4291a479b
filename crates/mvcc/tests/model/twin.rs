//! The naive twin: all of history in one list, every question answered by walking it.

use std::collections::{BTreeMap, BTreeSet};

use milepost_types::{KeyRange, LeaseId, Revision};

/// One change.
#[derive(Clone, Debug)]
pub struct Fact {
    pub revision: Revision,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub create: i64,
    /// 0: tombstone.
    pub version: i64,
    pub lease: i64,
}

#[derive(Clone, Debug)]
pub struct Twin {
    pub facts: Vec<Fact>,
    /// What etcd would still have on disk.
    pub stored: Vec<Fact>,
    pub revision: i64,
    pub floor: i64,
    /// The hash that etcd takes while it compacts, by bound, with the floor before.
    pub compaction_hashes: BTreeMap<i64, (u32, i64)>,
}

/// What an entry of the log asks for.
#[derive(Clone, Debug)]
pub enum Step {
    Put { key: Vec<u8>, value: Vec<u8>, lease: i64 },
    Delete { start: Vec<u8>, end: Option<Vec<u8>> },
    Compact(i64),
}

pub fn range<'a>(start: &'a [u8], end: Option<&'a Vec<u8>>) -> KeyRange<'a> {
    KeyRange::from_wire(start, end.map_or(&[], |end| end))
}

impl Twin {
    pub fn new() -> Self {
        Self { facts: Vec::new(), stored: Vec::new(), revision: 1, floor: -1, compaction_hashes: BTreeMap::new() }
    }

    pub fn live(&self, at: i64) -> BTreeMap<&[u8], &Fact> {
        let mut live = BTreeMap::new();
        for fact in self.facts.iter().take_while(|fact| fact.revision.main <= at) {
            if fact.version == 0 {
                live.remove(&*fact.key);
            } else {
                live.insert(&*fact.key, fact);
            }
        }
        live
    }

    pub fn attached(&self, lease: LeaseId) -> Vec<Vec<u8>> {
        self.live(i64::MAX).values().filter(|fact| fact.lease == lease.0).map(|fact| fact.key.clone()).collect()
    }

    pub fn apply(&mut self, steps: &[Step]) {
        let main = self.revision + 1;
        let before = self.facts.len();
        for step in steps {
            let sub = (self.facts.len() - before) as i64;
            match step {
                Step::Put { key, value, lease } => {
                    let live = self.live(i64::MAX).get(&**key).map(|fact| (fact.create, fact.version));
                    let (create, version) = live.map_or((main, 1), |(create, version)| (create, version + 1));
                    let revision = Revision::new(main, sub);
                    self.add(Fact { revision, key: key.clone(), value: value.clone(), create, version, lease: *lease });
                }
                Step::Delete { start, end } => {
                    let range = range(start, end.as_ref());
                    let doomed: Vec<_> =
                        self.live(i64::MAX).into_keys().filter(|key| range.contains(key)).map(<[u8]>::to_vec).collect();
                    for (more, key) in doomed.into_iter().enumerate() {
                        let revision = Revision::new(main, sub + more as i64);
                        self.add(Fact { revision, key, value: Vec::new(), create: 0, version: 0, lease: 0 });
                    }
                }
                Step::Compact(bound) => self.compact(*bound),
            }
        }
        if self.facts.len() > before {
            self.revision = main;
        }
    }

    fn add(&mut self, fact: Fact) {
        self.facts.push(fact.clone());
        self.stored.push(fact);
    }

    fn compact(&mut self, bound: i64) {
        let keep = self.keep(bound, true);
        self.compaction_hashes.insert(bound, (self.hash(bound, &keep), self.floor));
        self.floor = bound;
        self.stored.retain(|fact| fact.revision.main > bound || keep.contains(&fact.revision));
    }

    /// etcd's keep set at `bound`: lives that ended below it are passed over; of the first other one, the newest change
    /// at or below it; a tombstone at exactly `bound` only for a compaction.
    fn keep(&self, bound: i64, for_compaction: bool) -> BTreeSet<Revision> {
        let mut lives: BTreeMap<&[u8], Vec<Vec<&Fact>>> = BTreeMap::new();
        for fact in &self.stored {
            let lives = lives.entry(&fact.key).or_insert_with(|| vec![Vec::new()]);
            if lives.last().is_some_and(|life| life.last().is_some_and(|last| last.version == 0)) {
                lives.push(Vec::new());
            }
            lives.last_mut().expect("one at least").push(fact);
        }
        let mut keep = BTreeSet::new();
        for lives in lives.values() {
            let open =
                |life: &&Vec<&Fact>| !life.last().is_some_and(|last| last.version == 0 && last.revision.main < bound);
            let Some(life) = lives.iter().find(open) else { continue };
            let Some(newest) = life.iter().rev().find(|fact| fact.revision.main <= bound) else { continue };
            if newest.version != 0 || for_compaction {
                keep.insert(newest.revision);
            }
        }
        keep
    }

    /// etcd's HashKV.
    pub fn hash_kv(&self, at: i64) -> u32 {
        self.hash(at, &self.keep(at, false))
    }

    fn hash(&self, at: i64, keep: &BTreeSet<Revision>) -> u32 {
        let mut bytes = b"key".to_vec();
        for fact in &self.stored {
            let (main, tombstone) = (fact.revision.main, fact.version == 0);
            let dropped = main <= self.floor && !keep.is_empty() && !keep.contains(&fact.revision);
            if main > at || dropped || (main == self.floor && tombstone) {
                continue;
            }
            bytes.extend(main.to_be_bytes());
            bytes.push(b'_');
            bytes.extend(fact.revision.sub.to_be_bytes());
            if tombstone {
                bytes.push(b't');
            }
            let kv = milepost_proto::mvccpb::KeyValue {
                key: fact.key.clone().into(),
                create_revision: fact.create,
                mod_revision: if tombstone { 0 } else { main },
                version: fact.version,
                value: fact.value.clone().into(),
                lease: fact.lease,
            };
            bytes.extend(prost::Message::encode_to_vec(&kv));
        }
        crc32c::crc32c(&bytes)
    }
}
