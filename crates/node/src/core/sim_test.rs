//! Whole clusters over the core: a network that loses, doubles and reorders, disks that forget what was not synced.
//!
//! One seed gives one run. After every event: one leader per term; an entry's (index, term) names one content and one
//! predecessor (which is log matching); what is applied anywhere is applied everywhere alike, and only after it is
//! committed and durable there; a read's index covers everything applied anywhere before it was asked for. After each
//! run the network heals and a last proposal must reach every member.
//!
//! A failure names its seed and set-up; `run(set-up, seed)` replays it.

use super::validate::Refused;
use super::{Core, CoreConfig, Effect, Input, MEMORY_BYTES_MAX, Persist, Proposal, Restart, Role, mix};
use bytes::Bytes;
use milepost_proto::{Message as _, raftpb};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

const ELECTION_TICKS: usize = 10;
/// Message type.
const SNAPSHOT: i32 = 7;

/// Draws from a counter.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    /// (index, term) before the first entry.
    cut: (u64, u64),
    /// Of a received snapshot at the cut.
    snapshot: raftpb::ConfState,
    entries: Vec<raftpb::Entry>,
    hard_state: raftpb::HardState,
}

impl Disk {
    fn last(&self) -> u64 {
        self.cut.0 + self.entries.len() as u64
    }

    fn term_at(&self, index: u64) -> u64 {
        if index == self.cut.0 { self.cut.1 } else { self.entries[(index - self.cut.0) as usize - 1].term() }
    }

    fn append(&mut self, entries: &[raftpb::Entry]) {
        if let Some(first) = entries.first() {
            assert!((self.cut.0 + 1..=self.last() + 1).contains(&first.index()), "a gap in the log on disk");
            self.entries.truncate((first.index() - self.cut.0) as usize - 1);
            self.entries.extend_from_slice(entries);
        }
    }

    fn write(&mut self, persist: &Persist) {
        if let Some(metadata) = persist.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref()) {
            self.cut = (metadata.index(), metadata.term());
            self.snapshot = metadata.conf_state.clone().unwrap_or_default();
            self.entries.clear();
        }
        self.append(&persist.entries);
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
    }

    fn cut_to(&mut self, index: u64) {
        if index > self.cut.0 && index <= self.last() {
            self.cut = (index, self.term_at(index));
            self.entries.retain(|entry| entry.index() > index);
        }
    }
}

/// The state machine: what was applied, and the configuration that follows from it.
#[derive(Clone, Default)]
struct Store {
    applied: u64,
    conf_state: raftpb::ConfState,
}

struct Machine {
    core: Option<Core>,
    disk: Disk,
    /// Written, not synced, in order.
    writes: VecDeque<Persist>,
    /// Handed out, not applied.
    to_apply: VecDeque<raftpb::Entry>,
    store: Store,
    durable: Store,
    /// (batch, what was applied anywhere when it asked).
    reads: VecDeque<(u64, u64)>,
    next_batch: u64,
    starts: u64,
    /// Its syncs do not return.
    stuck: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    events: u64,
    delivered: u64,
    lost: u64,
    doubled: u64,
    syncs: u64,
    crashes: u64,
    torn: u64,
    elections: u64,
    applied: u64,
    reads: u64,
    conf_changes: u64,
    dropped_proposals: u64,
    transfers: u64,
    longest_log: u64,
    cuts: u64,
    snapshots: u64,
    fetches: u64,
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    /// Voters from the start.
    voters: u64,
    /// Members that join later as learners and are promoted.
    joiners: u64,
    events: usize,
    /// Percent of syncs that crash instead.
    crash: u64,
    /// Percent of messages lost.
    loss: u64,
    /// Are logs cut, so that members that fell behind need snapshots?
    cut: bool,
    /// Crash at exactly this sync of the first member.
    crash_at_sync: Option<u64>,
}

struct Sim {
    setup: Setup,
    seed: u64,
    rng: Rng,
    members: BTreeMap<u64, Machine>,
    network: Vec<raftpb::Message>,
    counts: Counts,
    trace: u64,
    leaders: BTreeMap<u64, u64>,
    /// (index, term) → (content, term of the entry before).
    entries: BTreeMap<(u64, u64), (Bytes, u64)>,
    /// What was applied, by index.
    applied: BTreeMap<u64, (u64, Bytes)>,
    next_proposal: u64,
    first_member_syncs: u64,
    /// Inputs that follow from effects.
    deferred: VecDeque<(u64, Input)>,
}

fn conf_change(kind: i32, node: u64) -> Bytes {
    let change = raftpb::ConfChange { id: Some(node), r#type: Some(kind), node_id: Some(node), context: None };
    Bytes::from(change.encode_to_vec())
}

fn conf_state_after(mut state: raftpb::ConfState, change: &raftpb::ConfChange) -> raftpb::ConfState {
    let node = change.node_id();
    state.voters.retain(|&id| id != node);
    state.learners.retain(|&id| id != node);
    match change.r#type() {
        0 => state.voters.push(node),
        3 => state.learners.push(node),
        _ => {}
    }
    state.voters.sort_unstable();
    state.learners.sort_unstable();
    state.auto_leave = Some(false);
    state
}

impl Sim {
    fn new(setup: Setup, seed: u64) -> Self {
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

    fn start(&mut self, id: u64) {
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
        let mut restart = Restart {
            hard_state: member.disk.hard_state,
            conf_state: member.store.conf_state.clone(),
            cut: member.disk.cut,
            entries: member.disk.entries.clone(),
            applied: member.store.applied,
        };
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

    fn handle(&mut self, id: u64, input: Input) {
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

    fn run(&mut self, id: u64, effect: Effect) {
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
                member.to_apply.clear();
                member.store = Store { applied: metadata.index(), conf_state };
                member.durable = member.store.clone();
                self.deferred.push_back((id, Input::Applied(metadata.index())));
            }
            Effect::Refused { why: Refused::Ignored(_), .. } => {}
            Effect::Refused { from, why } => panic!("member {id} refused a message of {from}: {why}"),
        }
    }

    /// Entries that somebody may rely on from now on: they were sent, or are on a disk.
    fn note(&mut self, mut before: u64, entries: &[raftpb::Entry]) {
        for entry in entries {
            let content = (entry.data.clone().unwrap_or_default(), before);
            let known = self.entries.entry((entry.index(), entry.term())).or_insert_with(|| content.clone());
            assert_eq!(*known, content, "two entries at index {} of term {}", entry.index(), entry.term());
            before = entry.term();
        }
    }

    fn note_disk(&mut self, id: u64, from: u64) {
        let disk = self.members[&id].disk.clone();
        let from = from.clamp(disk.cut.0 + 1, disk.last() + 1);
        let before = disk.term_at(from - 1);
        self.note(before, &disk.entries[(from - disk.cut.0) as usize - 1..]);
    }

    fn check(&mut self, id: u64) {
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
    fn apply(&mut self, id: u64, count: usize) {
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
                let change = raftpb::ConfChange::decode(entry.data.clone().unwrap_or_default()).expect("ours");
                let state = &mut member.store.conf_state;
                let node = change.node_id();
                let allowed = match change.r#type() {
                    0 => !state.voters.contains(&node),
                    _ => !state.voters.contains(&node) && !state.learners.contains(&node),
                };
                if allowed {
                    *state = conf_state_after(state.clone(), &change);
                }
                let change = allowed.then_some(change);
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

    fn sync(&mut self, id: u64) {
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
    fn crash(&mut self, id: u64) {
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

    fn propose(&mut self, id: u64) {
        let mut proposals = Vec::new();
        for _ in 0..=self.rng.below(3) {
            self.next_proposal += 1;
            proposals.push(Proposal { data: Bytes::from(format!("p{}", self.next_proposal)), conf_change: false });
        }
        self.handle(id, Input::Propose(proposals));
    }

    /// Adds the next joiner as a learner, or promotes one.
    fn grow(&mut self, id: u64) {
        let state = self.members[&id].store.conf_state.clone();
        let change = match state.learners.first() {
            Some(&learner) => (0, learner),
            None => {
                let members = 1..=self.setup.voters + self.setup.joiners;
                let Some(next) = members.into_iter().find(|id| !state.voters.contains(id)) else { return };
                (3, next)
            }
        };
        let data = conf_change(change.0, change.1);
        self.handle(id, Input::Propose(vec![Proposal { data, conf_change: true }]));
    }

    fn read(&mut self, id: u64) {
        let floor = self.applied.last_key_value().map_or(0, |(&index, _)| index);
        let member = self.members.get_mut(&id).expect("member");
        member.next_batch += 1;
        let batch = member.next_batch;
        member.reads.push_back((batch, floor));
        self.handle(id, Input::Read { batch });
    }

    /// The log behind a snapshot point is not kept.
    fn cut(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("member");
        let kept = self.rng.below(6) as u64;
        let to = member.durable.applied.saturating_sub(kept);
        member.disk.cut_to(to);
        self.counts.cuts += 1;
        self.handle(id, Input::CutTo(to));
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = self.rng.below(self.network.len());
        let message = self.network.swap_remove(at);
        self.counts.delivered += 1;
        let (from, to, kind) = (message.from(), message.to(), message.r#type());
        self.handle(to, Input::Message(Box::new(message)));
        if kind == SNAPSHOT {
            self.handle(from, Input::SnapshotSent { to, ok: true });
        }
    }

    fn event(&mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let id = ids[self.rng.below(ids.len())];
        match self.rng.below(100) {
            0..=9 => self.handle(id, Input::Tick),
            10..=19 => self.propose(id),
            20..=24 => self.read(id),
            25..=49 => self.sync(id),
            50..=64 => {
                let count = 1 + self.rng.below(4);
                self.apply(id, count);
            }
            65 => {
                let to = ids[self.rng.below(ids.len())];
                self.counts.transfers += 1;
                self.handle(id, Input::TransferLeader(to));
            }
            66..=67 if self.setup.joiners > 0 => self.grow(id),
            68..=69 if self.setup.cut => self.cut(id),
            _ => self.deliver(),
        }
    }

    /// The network heals, disks are quick: everybody must agree soon.
    fn heal(&mut self) {
        self.setup.loss = 0;
        self.setup.crash = 0;
        self.setup.crash_at_sync = None;
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let mark = Bytes::from_static(b"last");
        let mut asked = 0;
        for round in 0..400 {
            for &id in &ids {
                self.handle(id, Input::Tick);
                self.apply(id, 1000);
            }
            while !self.network.is_empty() || ids.iter().any(|id| !self.members[id].writes.is_empty()) {
                self.deliver();
                for &id in &ids {
                    self.sync(id);
                    self.apply(id, 1000);
                }
            }
            let leader =
                ids.iter().find(|id| self.members[id].core.as_ref().expect("up").standing().role == Role::Leader);
            if let Some(&leader) = leader
                && round > asked + 30
            {
                asked = round;
                self.handle(leader, Input::Propose(vec![Proposal { data: mark.clone(), conf_change: false }]));
                for &id in &ids {
                    self.sync(id);
                    self.apply(id, 1000);
                }
            }
            let done = self.applied.iter().find(|(_, (_, data))| *data == mark).map(|(&index, _)| index);
            let Some(done) = done else { continue };
            let members = self.members.values();
            let part = members
                .filter(|member| member.store.conf_state.voters.len() + member.store.conf_state.learners.len() > 0);
            let reached: BTreeSet<bool> = part.map(|member| member.store.applied >= done).collect();
            if reached == BTreeSet::from([true]) {
                return;
            }
        }
        panic!("after the network healed, a proposal did not reach everybody");
    }
}

fn run(setup: Setup, seed: u64) -> (Counts, u64) {
    struct Named(Setup, u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("replay with run({:?}, {})", self.0, self.1);
            }
        }
    }
    let _named = Named(setup, seed);
    let mut sim = Sim::new(setup, seed);
    for _ in 0..setup.events {
        sim.event();
    }
    sim.heal();
    (sim.counts, sim.trace)
}

const CALM: Setup = Setup { voters: 1, joiners: 0, events: 600, crash: 0, loss: 0, cut: false, crash_at_sync: None };

#[test]
fn alone_with_crashes() {
    let setup = Setup { events: 4_000, crash: 10, ..CALM };
    for seed in 0..10 {
        let (counts, _) = run(setup, seed);
        if seed == 0 {
            println!("{counts:?}");
        }
        assert!(counts.crashes > 20 && counts.applied > 100 && counts.reads > 50, "{counts:?}");
    }
}

#[test]
fn three_with_loss_and_crashes() {
    let setup = Setup { voters: 3, events: 8_000, crash: 3, loss: 10, ..CALM };
    for seed in 0..20 {
        let (counts, _) = run(setup, seed);
        if seed == 0 {
            println!("{counts:?}");
        }
        assert!(counts.crashes > 0 && counts.lost > 50 && counts.applied > 100, "{counts:?}");
    }
}

/// The growth path: one voter, then learners, then three voters, while everything fails.
#[test]
fn one_becomes_three() {
    let setup = Setup { joiners: 2, events: 6_000, crash: 5, loss: 5, ..CALM };
    let mut grown = 0;
    for seed in 0..20 {
        let (counts, _) = run(setup, seed);
        if seed == 0 {
            println!("{counts:?}");
        }
        grown += u64::from(counts.conf_changes >= 5);
    }
    assert!(grown >= 5, "only {grown} of 20 clusters grew to three");
}

/// Logs are cut, memory holds little: members that fell behind get entries from disk, or snapshots.
#[test]
fn three_with_cut_logs() {
    let setup = Setup { voters: 3, events: 10_000, crash: 2, loss: 15, cut: true, ..CALM };
    let mut all = (0, 0, 0);
    for seed in 0..20 {
        let (counts, _) = run(setup, seed);
        if seed == 0 {
            println!("{counts:?}");
        }
        all = (all.0 + counts.cuts, all.1 + counts.snapshots, all.2 + counts.fetches);
    }
    assert!(all.0 > 500 && all.1 > 20 && all.2 > 20, "cuts, snapshots, fetches: {all:?}");
}

#[test]
fn one_becomes_three_with_cut_logs() {
    let setup = Setup { joiners: 2, events: 8_000, crash: 3, loss: 5, cut: true, ..CALM };
    let mut grown = 0;
    for seed in 0..20 {
        let (counts, _) = run(setup, seed);
        grown += u64::from(counts.conf_changes >= 5 && counts.snapshots > 0);
    }
    assert!(grown >= 3, "only {grown} of 20 clusters grew by snapshots");
}

/// A leader whose disk hangs, while a quorum without it goes on, hands leadership over.
#[test]
fn a_leader_that_cannot_persist_gives_way() {
    let mut sim = Sim::new(Setup { voters: 3, ..CALM }, 5);
    sim.heal();
    let leader_of = |sim: &Sim| {
        let leads = |member: &Machine| member.core.as_ref().expect("up").standing().role == Role::Leader;
        sim.members.iter().filter(|(_, member)| leads(member)).map(|(&id, _)| id).collect::<Vec<u64>>()
    };
    let before = leader_of(&sim);
    assert_eq!(before.len(), 1);
    sim.members.get_mut(&before[0]).expect("the leader").stuck = true;
    sim.propose(before[0]);
    let mut ticks = 0;
    while leader_of(&sim) == before {
        ticks += 1;
        assert!(ticks < 6 * ELECTION_TICKS, "it leads still");
        for id in 1..=3 {
            sim.handle(id, Input::Tick);
        }
        for _ in 0..200 {
            sim.deliver();
            for id in 1..=3 {
                sim.sync(id);
                sim.apply(id, 10);
            }
        }
    }
    assert!(ticks > ELECTION_TICKS, "it gave way after {ticks} ticks, before its disk had its time");
    sim.members.get_mut(&before[0]).expect("the old leader").stuck = false;
    sim.heal();
}

/// A lone voter leads from inside one Ready. Until that is durable, its learner must hear nothing: after a crash the same
/// term comes again, with other entries.
#[test]
fn a_lone_voter_tells_its_learner_nothing_of_a_term_that_it_may_forget() {
    let mut sim = Sim::new(Setup { joiners: 1, ..CALM }, 3);
    while sim.members[&2].store.conf_state.learners.is_empty() {
        sim.handle(1, Input::Tick);
        sim.grow(1);
        for _ in 0..20 {
            sim.sync(1);
            sim.apply(1, 10);
            sim.deliver();
            sim.sync(2);
            sim.apply(2, 10);
        }
    }
    for _ in 0..50 {
        sim.crash(1);
        for _ in 0..10 {
            sim.propose(1);
            sim.apply(1, 10);
            sim.deliver();
            sim.sync(2);
        }
    }
    sim.heal();
}

/// A lone voter with a learner crashes at each of its syncs in turn: what it sent must stay true.
#[test]
fn a_lone_voter_with_a_learner_crashes_at_every_sync() {
    for at in 1..=60 {
        let setup = Setup { joiners: 1, loss: 2, crash_at_sync: Some(at), ..CALM };
        run(setup, 7);
    }
}

#[test]
fn three_crash_at_every_sync() {
    for at in 1..=60 {
        let setup = Setup { voters: 3, loss: 5, crash_at_sync: Some(at), events: 1_500, ..CALM };
        run(setup, 11);
    }
}

#[test]
fn one_seed_one_trace() {
    let setup = Setup { voters: 3, events: 3_000, crash: 3, loss: 10, ..CALM };
    let first = run(setup, 42);
    assert_eq!(first, run(setup, 42), "the same seed gave two traces");
    assert_ne!(first.1, run(setup, 43).1, "two seeds gave one trace");
}
