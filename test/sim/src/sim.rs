//! The world: one queue of events in the order of simulated time, and what each of them does.
//!
//! ```text
//!   events: a thread's turn · a tick · a letter arrives · a client asks · a blow of fate · …
//!      │ the earliest one
//!      ▼
//!   step: the real node takes that turn ──► letters, answers, work for its other threads ──► more events
//!      │
//!      ▼
//!   rules of `truth` for that member; at the end the clients' history
//! ```

use crate::clients::Client;
use crate::clock::World as Time;
use crate::counts::Counts;
use crate::history::Op;
use crate::member::{Member, Thread};
use crate::network::Fate;
use crate::plan::{Plan, Plant};
use crate::rng::Rng;
use crate::truth::{COMPARE_EVERY, Truth};
use milepost_machine::member::{Bootstrap, Member as ClusterMember};
use milepost_node::core::Input;
use milepost_node::log::Log;
use milepost_node::stepped::{Stepped, ToApply};
use milepost_node::{Join, NodeConfig, Role, SnapshotLetter, StopReason};
use milepost_proto::raftpb;
use milepost_types::{ClusterId, MemberId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A heartbeat; an election timeout is ten to twenty of them.
pub const HEARTBEAT: Duration = Duration::from_millis(50);
/// The rules are broken, in words.
pub type Broken = String;

/// Something that is going to happen.
#[derive(Debug)]
pub enum Event {
    /// A thread of a process takes its turn.
    Turn(u64, u64, Thread),
    /// A process wakes up for a tick.
    Tick(u64, u64),
    /// A store works in the background.
    Store(u64, u64),
    /// A letter arrives.
    Deliver(Box<raftpb::Message>),
    /// A snapshot arrives, or does not.
    Snapshot(Box<Parcel>),
    /// A client does something.
    Client(usize),
    /// A client has waited long enough for this one.
    GiveUp(usize, u64),
    /// Something bad happens.
    Chaos,
    /// Somebody changes the membership.
    Admin,
    /// A machine is switched on.
    Restart(u64),
    /// A cut in the network heals.
    Mend(Vec<(u64, u64)>),
    /// A disk is quick again.
    Quick(u64),
}

/// A snapshot under way.
pub struct Parcel {
    /// What is sent.
    pub letter: SnapshotLetter,
    /// The process that sends it.
    pub life: u64,
    /// Does it get through?
    pub arrives: bool,
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {} bytes, arrives: {}", self.letter.message, self.letter.total_bytes, self.arrives)
    }
}

/// See the module.
pub struct Sim {
    /// The seed.
    pub seed: u64,
    /// What kind of world.
    pub plan: Plan,
    /// The bug in it.
    pub plant: Option<Plant>,
    /// Chance.
    pub rng: Rng,
    /// Time.
    pub time: Arc<Time>,
    queue: BTreeMap<(u64, u64), Event>,
    last_event: u64,
    /// Events so far.
    pub events: u64,
    /// By id.
    pub members: BTreeMap<u64, Member>,
    next_name: u64,
    cluster: u64,
    /// Who asks.
    pub clients: Vec<Client>,
    /// What was asked and heard.
    pub history: Vec<Op>,
    /// What is true.
    pub truth: Truth,
    /// What happened.
    pub counts: Counts,
    /// Who was asked to take over leadership.
    pub handing_over: Option<u64>,
    /// No more trouble.
    pub healing: bool,
    traced: bool,
    /// Lines of the trace, if wanted.
    pub trace: Vec<String>,
    /// A number that every line of the trace changes.
    pub fingerprint: u64,
}

impl Sim {
    /// A cluster that is about to start.
    pub fn new(seed: u64, plant: Option<Plant>, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(seed, &mut rng);
        let mut sim = Self {
            seed,
            plant,
            time: Arc::default(),
            queue: BTreeMap::new(),
            last_event: 0,
            events: 0,
            members: BTreeMap::new(),
            next_name: 1,
            cluster: 0,
            clients: (0..plan.clients).map(|_| Client::default()).collect(),
            history: Vec::new(),
            truth: Truth::default(),
            counts: Counts::default(),
            handing_over: None,
            healing: false,
            traced,
            trace: Vec::new(),
            fingerprint: seed,
            plan,
            rng,
        };
        sim.found();
        sim
    }

    fn found(&mut self) {
        let names: Vec<String> = (1..=self.plan.founders).map(|number| format!("m{number}")).collect();
        let founders: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), vec![peer_url(name)])).collect();
        let config = self.config("m1");
        let bootstrap = Bootstrap::new(&founders, &config.cluster_token).expect("a cluster");
        self.cluster = bootstrap.cluster_id.0;
        self.next_name = self.plan.founders + 1;
        for founder in &bootstrap.members {
            let mut config = self.config(&founder.name);
            config.initial_cluster = founders.clone();
            self.add_machine(founder.id.0, founder.name.clone(), config);
            self.at(self.now(), Event::Restart(founder.id.0));
        }
        self.trace(|| format!("{bootstrap:?}"));
        for client in 0..self.clients.len() {
            self.after(300_000, Event::Client(client));
        }
        self.after(1_200_000, Event::Chaos);
        self.after(if self.plan.founders == 1 { 400_000 } else { 1_500_000 }, Event::Admin);
    }

    fn config(&self, name: &str) -> NodeConfig {
        let silent: Arc<dyn Log> = Arc::new(crate::member::Lines::default());
        let mut config = NodeConfig::new(name, PathBuf::from("/data"), silent);
        config.heartbeat = HEARTBEAT;
        config.seed = self.seed;
        config.pre_vote = self.plan.pre_vote;
        config.snapshot_count = self.plan.snapshot_count;
        config.catch_up_entries = self.plan.catch_up;
        config.log_memory_bytes = self.plan.log_memory;
        config.segment_bytes = self.plan.segment_bytes;
        config.max_wals = 2;
        config.max_snapshots = 2;
        config.machine.max_learners = 2;
        config.machine.lease_checkpoint_interval = Duration::from_secs(1);
        config
    }

    fn add_machine(&mut self, id: u64, name: String, config: NodeConfig) {
        let seed = self.rng.next();
        let member = Member::new(id, name, config, seed, &self.time, self.traced);
        self.members.insert(id, member);
    }

    /// A machine for a member that was just added; it is switched on soon.
    fn add_joiner(&mut self, id: u64, members: Vec<ClusterMember>) {
        let name = self.joiner_name(id);
        let mut config = self.config(&name);
        config.initial_cluster.clear();
        config.join = Some(Join { member: MemberId(id), cluster: ClusterId(self.cluster), members });
        self.add_machine(id, name, config);
        let wait = self.rng.between(5_000, 600_000);
        self.after(wait, Event::Restart(id));
    }

    /// The next id for a new member.
    pub fn next_joiner(&mut self) -> u64 {
        let id = (self.next_name << 40) | 0x5100 | self.next_name;
        self.next_name += 1;
        id
    }

    /// The name that goes with it.
    pub fn joiner_name(&self, id: u64) -> String {
        format!("m{}", id >> 40)
    }

    /// Now, in microseconds.
    pub fn now(&self) -> u64 {
        self.time.now()
    }

    /// A line of the trace.
    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        if self.traced {
            let line = format!("{:>10} {}", self.time.now(), line());
            self.fingerprint =
                line.bytes().fold(self.fingerprint, |all, byte| all.rotate_left(5).wrapping_mul(31) ^ u64::from(byte));
            self.trace.push(line);
        }
    }

    /// `event` happens at this time.
    pub fn at(&mut self, time: u64, event: Event) {
        self.last_event += 1;
        self.queue.insert((time, self.last_event), event);
    }

    /// `event` happens in so many microseconds.
    pub fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now() + micros, event);
    }

    /// For people.
    pub fn name(&self, id: u64) -> String {
        self.members.get(&id).map_or_else(|| format!("{id:x}"), |member| member.name.clone())
    }

    /// Everything until the end of the trouble, then until everything is well again, then the history.
    pub fn run(&mut self) -> Result<(), Broken> {
        while self.now() < self.plan.trouble {
            self.step()?;
        }
        self.heal()?;
        crate::history::check(&self.history, &self.truth.model)?;
        self.count_the_end();
        Ok(())
    }

    /// The next event.
    pub fn step(&mut self) -> Result<(), Broken> {
        let Some(((time, _), event)) = self.queue.pop_first() else { return Err("nothing happens any more".into()) };
        self.time.set(time);
        self.events += 1;
        if !matches!(event, Event::Turn(..) | Event::Tick(..) | Event::Store(..)) {
            self.trace(|| format!("{event:?}"));
        }
        match event {
            Event::Turn(id, life, thread) => self.turn(id, life, thread),
            Event::Tick(id, life) => self.tick(id, life),
            Event::Store(id, life) => self.store(id, life),
            Event::Deliver(message) => self.deliver(*message),
            Event::Snapshot(parcel) => self.deliver_snapshot(*parcel),
            Event::Client(client) => self.client(client),
            Event::GiveUp(client, number) => {
                self.give_up(client, number);
                Ok(())
            }
            Event::Chaos => self.chaos(),
            Event::Admin => self.admin(),
            Event::Restart(id) => self.restart(id),
            Event::Mend(pairs) => {
                pairs.iter().for_each(|pair| {
                    self.plan.weather.cut.remove(pair);
                });
                Ok(())
            }
            Event::Quick(id) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.sync_time = 1_000;
                }
                Ok(())
            }
        }
    }

    /// Is that process still there, and not paused? A paused one gets its event later.
    fn is_up(&mut self, id: u64, life: u64, event: impl FnOnce() -> Event) -> bool {
        let Some(member) = self.members.get(&id) else { return false };
        if member.live.is_none() || member.life != life {
            return false;
        }
        if member.is_paused(self.now()) {
            let until = member.paused_until;
            self.at(until, event());
            return false;
        }
        true
    }

    fn turn(&mut self, id: u64, life: u64, thread: Thread) -> Result<(), Broken> {
        if !self.is_up(id, life, || Event::Turn(id, life, thread)) {
            return Ok(());
        }
        self.members.get_mut(&id).expect("it is up").planned.remove(&thread);
        match thread {
            Thread::Raft => self.raft_turn(id)?,
            Thread::Log => self.log_turn(id)?,
            Thread::Apply => self.apply_turn(id)?,
            Thread::Keeper => self.keeper_turn(id),
        }
        self.look_after(id)
    }

    fn tick(&mut self, id: u64, life: u64) -> Result<(), Broken> {
        if !self.is_up(id, life, || Event::Tick(id, life)) {
            return Ok(());
        }
        self.raft_turn(id)?;
        self.plan_tick(id);
        self.look_after(id)
    }

    fn plan_tick(&mut self, id: u64) {
        let member = &self.members[&id];
        if let Some(live) = &member.live {
            let time = member.clock.world_at(live.next_tick()).max(self.now() + 1);
            let life = member.life;
            self.at(time, Event::Tick(id, life));
        }
    }

    fn raft_turn(&mut self, id: u64) -> Result<(), Broken> {
        let now = self.now();
        let member = self.members.get_mut(&id).expect("it is up");
        let live = member.live.as_mut().expect("it is up");
        live.raft();
        let unwritten = live.unwritten();
        let fresh: Vec<_> =
            unwritten.iter().filter(|persist| persist.number > member.noted && persist.must_sync).collect();
        if let Some(last) = fresh.last() {
            member.noted = last.number;
        }
        for persist in &fresh {
            self.truth.note_leases(&persist.entries, now);
        }
        if self.plant == Some(Plant::SendBeforeSync) {
            let news = fresh.iter().filter(|persist| {
                persist.hard_state.is_some_and(|state| (state.term(), state.vote()) != member.written)
            });
            if let Some(number) = news.map(|persist| persist.number).max() {
                live.tell(Input::Persisted(number));
            }
        }
        Ok(())
    }

    fn log_turn(&mut self, id: u64) -> Result<(), Broken> {
        let crash_per_mille = if self.healing { 0 } else { self.plan.crash_per_mille };
        let lone = self.is_lone_with_learner(id);
        let member = self.members.get_mut(&id).expect("it is up");
        let live = member.live.as_mut().expect("it is up");
        let unwritten = live.unwritten();
        let state = unwritten.iter().rev().find_map(|persist| persist.hard_state);
        let kind = if unwritten.iter().any(|persist| persist.snapshot.is_some()) {
            "crash: while a received snapshot is recorded"
        } else if state.is_some_and(|state| (state.term(), state.vote()) != member.written) {
            "crash: at a sync of a term or vote"
        } else if unwritten.iter().any(|persist| persist.entries.iter().any(|entry| entry.r#type() == 1)) {
            "crash: at a sync of a conf change"
        } else if unwritten.iter().any(|persist| !persist.entries.is_empty()) {
            "crash: at a sync of entries"
        } else if unwritten.is_empty() {
            "crash: at a snapshot point"
        } else {
            "crash: at a write of the commit index"
        };
        if let Some(state) = state {
            member.written = (state.term(), state.vote());
        }
        let syncs = unwritten.iter().any(|persist| persist.must_sync);
        member.syncs += u64::from(syncs);
        let first = self.plan.crash_at_sync.is_some_and(|at| at == member.syncs) && member.name == "m1" && syncs;
        let rare = kind.contains("received") || kind.contains("point") || kind.contains("conf change");
        let chance = if lone { crash_per_mille * 6 } else { crash_per_mille * (1 + 9 * u64::from(rare)) };
        if (first && !self.healing) || self.rng.chance(chance, 1000) {
            // A write and a sync, and more where a segment ends: somewhere in there, or just behind.
            member.disk.cut_power_after(self.rng.below(if rare { 6 } else { 3 }));
        }
        let lies = self.plant == Some(Plant::LyingDisk) && self.rng.chance(1, 2);
        member.disk.ignore_syncs(lies);
        live.log();
        member.disk.ignore_syncs(false);
        if !member.disk.power_is_off() && !lies && live.node().stopped().is_none() {
            for persist in &unwritten {
                // Where one turn writes an index twice, the core no longer knows what stood before the first.
                let first = persist.entries.first().map_or(0, raftpb::Entry::index);
                let before = if unwritten.len() == 1 { live.core().term_at(first.saturating_sub(1)) } else { None };
                self.truth.note_entries(before, &persist.entries)?;
            }
        }
        let leads = live.core().standing().role == Role::Leader;
        if self.plant == Some(Plant::AnswerBeforeQuorum) && leads && !member.disk.power_is_off() {
            self.answer_early(id);
        }
        let member = &self.members[&id];
        if member.disk.power_is_off() {
            self.counts.add(kind);
            if lone {
                self.counts.add("crash: lone voter with a learner, at a sync");
            }
            self.trace(|| format!("{id:x} {kind}"));
        }
        Ok(())
    }

    /// Is it the only voter, with a learner beside it?
    fn is_lone_with_learner(&self, id: u64) -> bool {
        let Some(live) = self.members.get(&id).and_then(|member| member.live.as_ref()) else { return false };
        let conf_state = live.core().conf_state();
        conf_state.voters == [id] && !conf_state.learners.is_empty()
    }

    fn apply_turn(&mut self, id: u64) -> Result<(), Broken> {
        let most = self.rng.between(1, 12);
        let member = self.members.get_mut(&id).expect("it is up");
        let live = member.live.as_mut().expect("it is up");
        if member.pending.is_empty() {
            match live.next_to_apply() {
                Some(ToApply::Entries(entries)) => member.pending.extend(entries),
                Some(ToApply::Snapshot(snapshot)) => return self.install(id, snapshot),
                None => return Ok(()),
            }
        }
        let mut chunk = Vec::new();
        while let Some(entry) = member.pending.pop_front() {
            let stop = entry.index() % COMPARE_EVERY == 0;
            chunk.push(entry);
            if stop || chunk.len() as u64 == most {
                break;
            }
        }
        if !member.pending.is_empty() {
            self.counts.add("apply: chunks that ended between two entries of one hand-out");
        }
        self.apply(id, chunk)
    }

    fn apply(&mut self, id: u64, mut chunk: Vec<raftpb::Entry>) -> Result<(), Broken> {
        let name = self.name(id);
        self.trace(|| {
            format!("{name} applies {:?}", chunk.iter().map(|entry| (entry.index(), entry.term())).collect::<Vec<_>>())
        });
        let mut news = false;
        for entry in &chunk {
            let first = self.truth.note_applied(&name, entry)?;
            news |= first && entry.r#type() == 1;
            if first {
                self.note_first(entry);
            }
        }
        let now = self.now();
        let member = self.members.get_mut(&id).expect("it is up");
        if self.plant == Some(Plant::ApplyReadsClock) {
            crate::clients::stamp(&mut chunk, now);
        }
        let live = member.live.as_mut().expect("it is up");
        if !live.apply(ToApply::Entries(chunk)) {
            return Ok(());
        }
        live.machine().check().map_err(|why| format!("{name}: {why}"))?;
        let member = &self.members[&id];
        let live = member.live.as_ref().expect("it is up");
        if live.machine().applied().0.0.is_multiple_of(COMPARE_EVERY) {
            self.truth.note_state(member, live)?;
        }
        if news {
            self.follow_membership(id);
        }
        Ok(())
    }

    /// Somebody is the first to apply a change of membership.
    fn follow_membership(&mut self, id: u64) {
        let Some(reader) = self.members[&id].reader() else { return };
        let membership = reader.membership();
        let now: BTreeMap<u64, bool> =
            membership.members.values().map(|member| (member.id.0, member.is_learner)).collect();
        let before = std::mem::replace(&mut self.truth.members, now.clone());
        self.truth.removed = membership.removed.iter().map(|id| id.0).collect();
        for (&member, &learner) in &now {
            match before.get(&member) {
                Some(true) if !learner => self.counts.add("conf change: learner promoted"),
                Some(_) => {}
                None if self.members.contains_key(&member) => {}
                None => {
                    self.counts.add(if learner { "conf change: learner added" } else { "conf change: voter added" });
                    self.add_joiner(member, membership.members.values().cloned().collect());
                }
            }
        }
        let gone = before.keys().filter(|member| !now.contains_key(member)).count();
        self.counts.add_many("conf change: member removed", gone as u64);
    }

    fn keeper_turn(&mut self, id: u64) {
        let crash = !self.healing && self.rng.chance(self.plan.crash_per_mille * 4, 1000);
        let member = self.members.get_mut(&id).expect("it is up");
        if crash {
            member.disk.cut_power_after(self.rng.below(7));
        }
        member.live.as_mut().expect("it is up").keeper();
        if member.disk.power_is_off() {
            self.counts.add("crash: at a snapshot point");
        }
    }

    fn store(&mut self, id: u64, life: u64) -> Result<(), Broken> {
        if !self.is_up(id, life, || Event::Store(id, life)) {
            return Ok(());
        }
        let flush = self.rng.chance(2, 3);
        while self.members.get_mut(&id).and_then(|member| member.live.as_mut()).is_some_and(Stepped::send_snapshot) {}
        let store = self.members[&id].reader().expect("it is up").store();
        // An error is remembered by the store, and the Raft thread sees it.
        let _ = store.step(flush);
        let wait = self.rng.between(20_000, 250_000);
        self.after(wait, Event::Store(id, life));
        self.look_after(id)
    }

    /// After a process did something: letters, answers, its end, the rules, who is next.
    pub fn look_after(&mut self, id: u64) -> Result<(), Broken> {
        self.say_lines(id);
        let member = self.members.get_mut(&id).expect("it is up");
        if member.disk.power_is_off() {
            self.power_cut(id);
            return Ok(());
        }
        let Some(live) = &member.live else { return Ok(()) };
        if let Some(reason) = live.node().stopped() {
            return self.stopped(id, reason);
        }
        let elected = {
            let member = &self.members[&id];
            self.truth.check(member, member.live.as_ref().expect("it is up"))?
        };
        if elected {
            self.counts.add("elections");
            let handed_over = self.handing_over.take_if(|&mut to| to == id);
            self.counts.add_many("leader: handed over", u64::from(handed_over.is_some()));
        }
        self.count_progress(id);
        let member = &self.members[&id];
        let (messages, answers, snapshots) =
            (member.outbox.take(), member.answers.take(), member.outbox.take_snapshots());
        for letter in snapshots {
            self.send_snapshot(id, letter);
        }
        for message in messages {
            self.send(message)?;
        }
        for (ticket, completion) in answers {
            self.answered(id, ticket, completion)?;
        }
        self.wake(id);
        Ok(())
    }

    /// Plans the turns of the threads that have something to do.
    pub fn wake(&mut self, id: u64) {
        let member = &self.members[&id];
        let Some(live) = &member.live else { return };
        let waits = live.waits();
        let apply = waits.apply || !member.pending.is_empty();
        let wishes = [
            (waits.raft, Thread::Raft),
            (waits.log, Thread::Log),
            (apply, Thread::Apply),
            (waits.keeper, Thread::Keeper),
        ];
        let (life, sync_time) = (member.life, member.sync_time);
        for (_, thread) in wishes.into_iter().filter(|&(wanted, _)| wanted) {
            if self.members[&id].planned.contains_key(&thread) {
                continue;
            }
            let slow = self.rng.chance(1, 40);
            let wait = match thread {
                Thread::Raft => 5 + self.rng.below(if slow { 20_000 } else { 150 }),
                Thread::Log => 50 + self.rng.below(sync_time),
                Thread::Apply => 5 + self.rng.below(if slow { 60_000 } else { 200 }),
                Thread::Keeper => 100 + self.rng.below(5_000),
            };
            let time = self.now() + wait;
            self.members.get_mut(&id).expect("it is up").planned.insert(thread, time);
            self.at(time, Event::Turn(id, life, thread));
        }
    }

    fn count_progress(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("it is up");
        let live = member.live.as_ref().expect("it is up");
        let now = [live.snapshot_point(), live.core().standing().reads_resent, live.fetches()];
        let before = std::mem::replace(&mut member.progress, now);
        self.counts.add_many("snapshot points", u64::from(now[0] > before[0]));
        self.counts.add_many("reads: requests repeated", now[1] - before[1]);
        self.counts.add_many("log: entries fetched from disk", now[2] - before[2]);
    }

    fn say_lines(&mut self, id: u64) {
        let lines = &self.members[&id].lines;
        let (said, torn) = (lines.take(), lines.take_torn());
        self.counts.add_many("log: torn tails repaired", torn);
        let name = self.name(id);
        for line in said {
            self.trace(|| format!("{name} says {line}"));
        }
    }

    fn send(&mut self, message: raftpb::Message) -> Result<(), Broken> {
        self.trace(|| format!("sent {message:?}"));
        let (from, to) = (message.from(), message.to());
        if message.r#type() == 3 {
            self.truth.note_entries(Some(message.log_term()), &message.entries)?;
        }
        // A transport has no way to those whom the cluster does not know.
        let knows = self.members.get(&from).is_some_and(|sender| sender.outbox.knows(to));
        if !knows {
            return Ok(());
        }
        match self.plan.weather.fate(&message, &mut self.rng) {
            Fate::Lost => self.counts.add("network: lost"),
            Fate::Refused => {
                self.counts.add("network: lost");
                if let Some(live) = self.members.get(&from).and_then(|sender| sender.live.as_ref()) {
                    live.tell(Input::Unreachable(to));
                }
            }
            Fate::Comes(first, again) => {
                if first > 50_000 {
                    self.counts.add("network: late");
                }
                if let Some(again) = again {
                    self.counts.add("network: doubled");
                    self.after(again, Event::Deliver(Box::new(message.clone())));
                }
                self.after(first, Event::Deliver(Box::new(message)));
            }
        }
        Ok(())
    }

    fn deliver(&mut self, message: raftpb::Message) -> Result<(), Broken> {
        let (from, to) = (message.from(), message.to());
        let Some(member) = self.members.get(&to) else { return Ok(()) };
        if self.plan.weather.cut.contains(&(from, to)) || member.outbox.has_removed(from) {
            return Ok(());
        }
        let Some(live) = &member.live else { return Ok(()) };
        member.outbox.hears_of(from);
        live.node().receive(message);
        self.wake(to);
        Ok(())
    }

    fn stopped(&mut self, id: u64, reason: StopReason) -> Result<(), Broken> {
        let name = self.name(id);
        self.trace(|| format!("{name} stops: {reason:?}"));
        let member = self.members.get_mut(&id).expect("it stopped");
        if let Some(live) = member.live.take() {
            live.stop();
        }
        let answers = member.answers.take();
        for (ticket, completion) in answers {
            self.answered(id, ticket, completion)?;
        }
        let member = self.members.get_mut(&id).expect("it stopped");
        match reason {
            StopReason::Removed => {
                member.gone = true;
                self.counts.add("removed members that stopped themselves");
                Ok(())
            }
            StopReason::Broken(_) if member.excused => {
                let wait = self.rng.between(10_000, 500_000);
                self.after(wait, Event::Restart(id));
                Ok(())
            }
            other => Err(format!("{name} stopped: {other:?}")),
        }
    }
}

/// A member's peer URL.
pub fn peer_url(name: &str) -> String {
    format!("http://{name}:2380")
}
