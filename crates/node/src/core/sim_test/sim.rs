//! The machinery: effects are run, what must stay true is checked.

use super::world::{Counts, Disk, Machine, Rng, Setup, Sim, Store, conf_change, take_change};
use super::{ELECTION_TICKS, SNAPSHOT};
use crate::core::validate::Refused;
use crate::core::{Core, CoreConfig, Effect, Input, MEMORY_BYTES_MAX, Restart, Role, mix};
use milepost_proto::raftpb;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

impl Sim {
    pub fn new(setup: Setup, seed: u64) -> Self {
        let mut sim = Self {
            setup,
            seed,
            rng: Rng(mix(seed)),
            members: BTreeMap::new(),
            network: Vec::new(),
            counts: Counts::default(),
            trace: 0,
            leaders: BTreeMap::new(),
            entries: BTreeMap::new(),
            applied: BTreeMap::new(),
            next_proposal: 0,
            first_member_syncs: 0,
            deferred: VecDeque::new(),
        };
        let first: Vec<raftpb::Entry> = (1..=setup.voters)
            .map(|id| raftpb::Entry { index: Some(id), term: Some(1), r#type: Some(1), data: Some(conf_change(0, id)) })
            .collect();
        let hard_state = raftpb::HardState { term: Some(1), vote: Some(0), commit: Some(setup.voters) };
        for id in 1..=setup.voters + setup.joiners {
            let founding = id <= setup.voters;
            let disk =
                if founding { Disk { entries: first.clone(), hard_state, ..Disk::default() } } else { Disk::default() };
            sim.members.insert(
                id,
                Machine {
                    core: None,
                    disk,
                    writes: VecDeque::new(),
                    to_apply: VecDeque::new(),
                    store: Store::default(),
                    durable: Store::default(),
                    reads: VecDeque::new(),
                    next_batch: 0,
                    starts: 0,
                    stuck: false,
                },
            );
            sim.start(id);
        }
        sim
    }

    pub fn start(&mut self, id: u64) {
        let seed = self.seed;
        let member = self.members.get_mut(&id).expect("member");
        member.starts += 1;
        if member.durable.applied < member.disk.cut.0 {
            // A received snapshot was recorded in the log, and the store not switched to it yet.
            member.durable = Store { applied: member.disk.cut.0, conf_state: member.disk.snapshot.clone() };
        }
        member.store = member.durable.clone();
        member.writes.clear();
        member.to_apply.clear();
        member.reads.clear();
        // As recovery has it: of what the store has, only terms.
        let applied = member.store.applied;
        let (known, entries): (Vec<_>, Vec<_>) =
            member.disk.entries.iter().cloned().partition(|entry| entry.index() <= applied);
        let mut terms = vec![member.disk.cut];
        terms.extend(known.iter().map(|entry| (entry.index(), entry.term())));
        terms.dedup_by_key(|(_, term)| *term);
        let (hard_state, conf_state) = (member.disk.hard_state, member.store.conf_state.clone());
        let mut restart = Restart { hard_state, conf_state, terms, entries, applied };
        restart.raise();
        let config = CoreConfig {
            id,
            seed,
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 1,
            pre_vote: true,
            first_read_context: (id << 48) | (member.starts << 24),
            memory_bytes_max: if self.setup.cut { 1_500 } else { MEMORY_BYTES_MAX },
        };
        member.core = Some(Core::new(config, &restart).expect("a core starts from what it wrote"));
    }

    pub fn handle(&mut self, id: u64, input: Input) {
        let mut effects = Vec::new();
        let Some(core) = self.members.get_mut(&id).and_then(|member| member.core.as_mut()) else { return };
        core.handle(input, &mut effects).expect("no broken truth");
        let mut text = String::new();
        write!(text, "{id}{effects:?}").expect("memory");
        self.trace =
            text.bytes().fold(self.trace, |trace, byte| trace.rotate_left(5).wrapping_mul(31) ^ u64::from(byte));
        for effect in effects {
            self.run(id, effect);
        }
        self.check(id);
        while let Some((id, input)) = self.deferred.pop_front() {
            self.handle(id, input);
        }
    }

    pub fn run(&mut self, id: u64, effect: Effect) {
        let member = self.members.get_mut(&id).expect("member");
        match effect {
            Effect::Persist(persist) => member.writes.push_back(persist),
            Effect::Send(messages) => {
                for message in messages {
                    let is_append = message.r#type() == 3;
                    self.note(message.log_term(), if is_append { &message.entries } else { &[] });
                    if self.rng.chance(self.setup.loss) {
                        self.counts.lost += 1;
                        if message.r#type() == SNAPSHOT {
                            self.deferred.push_back((id, Input::SnapshotSent { to: message.to(), ok: false }));
                        }
                        continue;
                    }
                    if self.rng.chance(self.setup.loss / 4) {
                        self.counts.doubled += 1;
                        self.network.push(message.clone());
                    }
                    self.network.push(message);
                }
            }
            Effect::Apply(entries) => member.to_apply.extend(entries),
            Effect::ReadReady { batch, index } => {
                while member.reads.front().is_some_and(|&(asked, _)| asked <= batch) {
                    let (_, floor) = member.reads.pop_front().expect("front");
                    assert!(index >= floor, "a read got index {index}, {floor} was applied before it asked");
                    self.counts.reads += 1;
                }
            }
            Effect::RoleChanged(change) => {
                self.counts.elections += u64::from(change.role == Role::Leader);
            }
            Effect::Dropped(proposals) => self.counts.dropped_proposals += proposals.len() as u64,
            Effect::Fetch { ticket, from, end, .. } => {
                self.counts.fetches += 1;
                let entries = &member.disk.entries;
                let wanted = |entry: &&raftpb::Entry| (from..end).contains(&entry.index());
                let entries: Vec<_> = entries.iter().filter(wanted).take(3).cloned().collect();
                // Cut meanwhile: nothing, rather than something that does not begin where it was asked for.
                let entries = if entries.first().is_some_and(|first| first.index() == from) { entries } else { vec![] };
                self.deferred.push_back((id, Input::Fetched { ticket, entries }));
            }
            Effect::ApplySnapshot(snapshot) => {
                self.counts.snapshots += 1;
                let metadata = snapshot.metadata.expect("it has a place");
                let conf_state = metadata.conf_state.clone().unwrap_or_default();
                assert!(metadata.index() >= member.store.applied, "a snapshot takes the store back");
                // What came before it is applied before it.
                for entry in member.to_apply.drain(..).filter(|entry| entry.r#type() == 1) {
                    let change = take_change(&entry, &mut member.store.conf_state);
                    self.deferred.push_back((id, Input::ConfChangeApplied { index: entry.index(), change }));
                }
                member.store = Store { applied: metadata.index(), conf_state };
                member.durable = member.store.clone();
                self.deferred.push_back((id, Input::Applied(metadata.index())));
            }
            Effect::Refused { why: Refused::Ignored(_), .. } => {}
            Effect::Refused { from, why } => panic!("member {id} refused a message of {from}: {why}"),
        }
    }

    /// Entries that somebody may rely on from now on: they were sent, or are on a disk.
    pub fn note(&mut self, mut before: u64, entries: &[raftpb::Entry]) {
        for entry in entries {
            let content = (entry.data.clone().unwrap_or_default(), before);
            let known = self.entries.entry((entry.index(), entry.term())).or_insert_with(|| content.clone());
            assert_eq!(*known, content, "two entries at index {} of term {}", entry.index(), entry.term());
            before = entry.term();
        }
    }

    pub fn note_disk(&mut self, id: u64, from: u64) {
        let disk = self.members[&id].disk.clone();
        let from = from.clamp(disk.cut.0 + 1, disk.last() + 1);
        let before = disk.term_at(from - 1);
        self.note(before, &disk.entries[(from - disk.cut.0) as usize - 1..]);
    }

    pub fn check(&mut self, id: u64) {
        self.counts.events += 1;
        let member = &self.members[&id];
        let Some(core) = &member.core else { return };
        let now = core.standing();
        if now.role == Role::Leader {
            let leader = *self.leaders.entry(now.term).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {}", now.term);
        }
        assert!(member.durable.applied <= member.store.applied, "the store on disk is ahead of the store");
        assert!(
            member.store.applied <= now.committed.min(now.persisted),
            "member {id} applied {}, committed {}, durable {}",
            member.store.applied,
            now.committed,
            now.persisted
        );
        let on_disk = &member.disk.entries;
        let last = member.disk.last();
        assert!(now.persisted <= last, "member {id} takes {} as durable, its disk ends at {last}", now.persisted);
        let durable = on_disk.iter().filter(|entry| (now.first..=now.persisted).contains(&entry.index()));
        for entry in durable.rev().take(3) {
            assert_eq!(core.term_at(entry.index()), Some(entry.term()), "log and disk differ at {}", entry.index());
        }
        self.counts.longest_log = self.counts.longest_log.max(now.last);
    }

    /// One member applies a few entries; sometimes the store becomes durable.
    pub fn apply(&mut self, id: u64, count: usize) {
        for _ in 0..count {
            let member = self.members.get_mut(&id).expect("member");
            let Some(entry) = member.to_apply.pop_front() else { break };
            assert_eq!(entry.index(), member.store.applied + 1, "applied in order");
            member.store.applied = entry.index();
            let content = (entry.term(), entry.data.clone().unwrap_or_default());
            let known = self.applied.entry(entry.index()).or_insert_with(|| content.clone());
            assert_eq!(*known, content, "members disagree on what is committed at {}", entry.index());
            self.counts.applied += 1;
            if entry.r#type() == 1 {
                self.counts.conf_changes += 1;
                let change = take_change(&entry, &mut member.store.conf_state);
                self.handle(id, Input::ConfChangeApplied { index: entry.index(), change });
            }
            let durable = self.rng.chance(30);
            let member = self.members.get_mut(&id).expect("member");
            if durable {
                member.durable = member.store.clone();
            }
        }
        let applied = self.members[&id].store.applied;
        self.handle(id, Input::Applied(applied));
    }

    pub fn sync(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("member");
        if member.writes.is_empty() || member.stuck {
            return;
        }
        self.first_member_syncs += u64::from(id == 1);
        let crash = self.setup.crash_at_sync.is_some_and(|at| id == 1 && at == self.first_member_syncs);
        if crash || self.rng.chance(self.setup.crash) {
            self.crash(id);
            return;
        }
        self.counts.syncs += 1;
        let mut highest = 0;
        let mut first = u64::MAX;
        for persist in std::mem::take(&mut member.writes) {
            highest = persist.number;
            first = first.min(persist.entries.first().map_or(u64::MAX, raftpb::Entry::index));
            member.disk.write(&persist);
        }
        self.note_disk(id, first);
        self.handle(id, Input::Persisted(highest));
    }

    /// The process ends; of what was not synced a part reached the disk: whole writes, and a piece of the next one.
    pub fn crash(&mut self, id: u64) {
        self.counts.crashes += 1;
        let member = self.members.get_mut(&id).expect("member");
        let writes = std::mem::take(&mut member.writes);
        let kept = self.rng.below(writes.len() + 1);
        for persist in writes.iter().take(kept) {
            member.disk.write(persist);
        }
        if let Some(torn) = writes.get(kept)
            && !torn.entries.is_empty()
        {
            let whole = self.rng.below(torn.entries.len() + 1);
            self.counts.torn += u64::from(whole > 0);
            member.disk.append(&torn.entries[..whole]);
        }
        self.note_disk(id, 1);
        self.start(id);
    }
}
