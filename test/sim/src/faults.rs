//! Bad luck, and the end of it.

use crate::network::Fate;
use crate::plan::Plant;
use crate::sim::{Broken, Event, Parcel, Sim, peer_url};
use bytes::Bytes;
use milepost_env::Fault;
use milepost_machine::Member as ClusterMember;
use milepost_machine::member::{add, promote, remove};
use milepost_node::stepped::ToApply;
use milepost_node::{Role, SnapshotLetter, Waiter};
use milepost_proto::{Message as _, raftpb};
use milepost_types::MemberId;
use milepost_wal::Wal;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

/// Members at most.
const MEMBERS_MAX: usize = 5;
/// Simulated time in which everything must be well again, in microseconds.
const HEAL_TIME: u64 = 60_000_000;

impl Sim {
    /// Members whose process runs.
    pub fn up(&self) -> Vec<u64> {
        self.members.values().filter(|member| member.live.is_some()).map(|member| member.id).collect()
    }

    /// Who leads, as far as it knows itself.
    pub fn leader(&self) -> Option<u64> {
        let leads = |id: &u64| {
            let live = self.members[id].live.as_ref().expect("it is up");
            live.core().standing().role == Role::Leader
        };
        // The newest term's; an older leader may not know yet.
        let term = |id: &u64| self.members[id].live.as_ref().expect("it is up").core().standing().term;
        self.up().into_iter().filter(leads).max_by_key(term)
    }

    // Crashes.

    /// The machine has lost power.
    pub fn power_cut(&mut self, id: u64) {
        let (disk_seed, keep) = (self.rng.next(), self.rng.chance(1, 2));
        let member = self.members.get_mut(&id).expect("a machine");
        let merged = member.reader().map(|reader| reader.store().stats()).unwrap_or_default();
        member.live = None;
        let report = member.disk.crash(disk_seed);
        let before = (member.engine.dump(milepost_engine::Table::Meta), member.engine.crash(true));
        member.engine = Arc::new(member.engine.crash(keep));
        let lost = before.0 != member.engine.dump(milepost_engine::Table::Meta);
        let counts = &mut self.counts;
        counts.add("crashes");
        counts.add_many("store: newest commit lost in a crash", u64::from(lost));
        counts.add_many("store: merges", merged.merges);
        counts.add_many("store: rows merged that had waited without their values", merged.merged_thin);
        counts.add_many("log: sectors kept in a crash", report.sectors_kept);
        counts.add_many("log: sectors dropped in a crash", report.sectors_dropped);
        let partly = report.sectors_kept > 0 && report.sectors_dropped > 0;
        counts.add_many("log: unsynced writes partly kept", u64::from(partly));
        self.forget_clients_of(id);
        self.trace(|| format!("{id:x} lost power: {report:?}, newest commit of the store kept: {keep}"));
        let wait = match self.rng.below(6) {
            0 => self.rng.between(1_000_000, 4_000_000),
            _ => self.rng.between(1_000, 700_000),
        };
        self.after(wait, Event::Restart(id));
    }

    /// The process is killed; the machine goes on.
    fn kill(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("a machine");
        member.live = None;
        self.counts.add("crash: of the process alone");
        self.forget_clients_of(id);
        let wait = self.rng.between(1_000, 500_000);
        self.after(wait, Event::Restart(id));
    }

    /// The machine is switched on, and its process started.
    pub fn restart(&mut self, id: u64) -> Result<(), Broken> {
        let percent = if self.plant == Some(Plant::FastClock) { 150 } else { 100 };
        let crash = !self.healing && self.rng.chance(self.plan.crash_per_mille * 6, 1000);
        let budget = self.rng.below(12);
        let time = Arc::clone(&self.time);
        let Some(member) = self.members.get_mut(&id) else { return Ok(()) };
        if member.live.is_some() || member.gone {
            return Ok(());
        }
        if crash {
            member.disk.cut_power_after(budget);
        }
        let result = member.start(&time, percent);
        let (name, life) = (member.name.clone(), member.life);
        if member.disk.power_is_off() {
            self.counts.add("crash: during recovery");
            self.power_cut(id);
            return Ok(());
        }
        if let Err(error) = result {
            if self.members[&id].excused {
                self.trace(|| format!("{name} does not start: {error}"));
                self.after(100_000, Event::Restart(id));
                return Ok(());
            }
            return Err(format!("{name} does not start: {error}"));
        }
        if life > 1 {
            self.counts.add("restarts");
        }
        // Asked of the others only while there is no log.
        self.members.get_mut(&id).expect("it was started").config.join = None;
        let member = &self.members[&id];
        let live = member.live.as_ref().expect("it was started");
        let standing = live.core().standing();
        let found =
            Wal::inspect(&member.disk, &member.config.wal_path()).map_err(|error| format!("{name}: {error}"))?;
        self.truth.note_entries(Some(found.snapshot.term.0), &found.entries)?;
        self.trace(|| format!("{name} starts: {standing:?}"));
        let tick = member_tick(self, id);
        self.at(tick, Event::Tick(id, life));
        let wait = self.rng.between(20_000, 250_000);
        self.after(wait, Event::Store(id, life));
        self.counts_segments(id);
        self.wake(id);
        Ok(())
    }

    // Snapshots between members.

    /// One is on its way.
    pub fn send_snapshot(&mut self, id: u64, letter: SnapshotLetter) {
        let life = self.members[&id].life;
        let knows = self.members[&id].outbox.knows(letter.message.to());
        let fate = if knows { self.plan.weather.fate(&letter.message, &mut self.rng) } else { Fate::Refused };
        self.counts.add("snapshots: sent");
        let slow = self.rng.below(300_000);
        let (wait, arrives) = match fate {
            Fate::Comes(first, _) => (first + slow, true),
            Fate::Lost | Fate::Refused => (100_000, false),
        };
        self.after(wait, Event::Snapshot(Box::new(Parcel { letter, life, arrives })));
    }

    /// It has arrived, whole or in part, or not at all; its sender hears of the end.
    pub fn deliver_snapshot(&mut self, parcel: Parcel) -> Result<(), Broken> {
        let Parcel { letter, life, arrives } = parcel;
        let SnapshotLetter { message, body, .. } = letter;
        let (from, to) = (message.from(), message.to());
        if self.members.get(&from).is_none_or(|sender| sender.life != life || sender.live.is_none()) {
            self.counts.add("snapshots: lost on the way");
            return Ok(());
        }
        let mut bytes = Vec::new();
        let written = body.write(&mut bytes).is_ok();
        let cut = self.plan.weather.cut.contains(&(from, to));
        let ok = arrives && written && !cut && self.receive_snapshot(to, message, &bytes)?;
        if !ok {
            self.counts.add("snapshots: lost on the way");
        }
        self.members[&from].live.as_ref().expect("it sends").node().report_snapshot(MemberId(to), ok);
        self.wake(from);
        Ok(())
    }

    fn receive_snapshot(&mut self, to: u64, message: raftpb::Message, bytes: &[u8]) -> Result<bool, Broken> {
        let crash = !self.healing && self.rng.chance(self.plan.crash_per_mille * 10, 1000);
        let after = self.rng.below(16);
        let breaks = !self.healing && self.rng.chance(1, 12);
        let come = if breaks { self.rng.below(bytes.len() as u64) as usize } else { bytes.len() };
        let index =
            message.snapshot.as_ref().and_then(|it| it.metadata.as_ref()).map_or(0, |metadata| metadata.index());
        let Some(member) = self.members.get_mut(&to) else { return Ok(false) };
        let Some(live) = &mut member.live else { return Ok(false) };
        if crash {
            member.disk.cut_power_after(after);
        }
        member.received = member.received.max(index);
        let offered = live.offer_snapshot(message, &mut &bytes[..come]);
        if breaks {
            self.counts.add("snapshots: broken off");
        }
        self.trace(|| format!("{to:x} is offered a snapshot at {index}: {offered:?}"));
        if self.members[&to].disk.power_is_off() {
            self.counts.add("crash: while a snapshot is received");
        }
        self.look_after(to)?;
        Ok(offered.is_ok())
    }

    /// Raft has taken a received snapshot, and the log has recorded it: it takes the place of the state.
    pub fn install(&mut self, id: u64, snapshot: raftpb::Snapshot) -> Result<(), Broken> {
        let index = snapshot.metadata.as_ref().map_or(0, |metadata| metadata.index());
        let member = self.members.get_mut(&id).expect("it is up");
        if !member.live.as_mut().expect("it is up").apply(ToApply::Snapshot(snapshot)) {
            return Ok(());
        }
        self.counts.add("snapshots: installed");
        let member = &self.members[&id];
        let live = member.live.as_ref().expect("it is up");
        live.machine().check().map_err(|why| format!("{}: {why}", member.name))?;
        if live.machine().applied().0.0 != index {
            return Err(format!("{} installed a snapshot at {index}, and is not there", member.name));
        }
        self.truth.note_state(member, live)
    }

    // Blows of fate.

    /// Something bad happens.
    pub fn chaos(&mut self) -> Result<(), Broken> {
        if self.healing {
            return Ok(());
        }
        let every = self.plan.chaos_every;
        let wait = every / 2 + self.rng.below(every);
        self.after(wait, Event::Chaos);
        let up = self.up();
        let leader = self.leader();
        let any = self.rng.pick(&up);
        let Some(victim) = (if self.rng.chance(1, 3) { leader.or(any) } else { any }) else { return Ok(()) };
        match self.rng.below(16) {
            0..=2 => {
                self.counts.add("crash: between two syncs");
                self.power_cut(victim);
            }
            3 => self.kill(victim),
            4 => self.pause(victim),
            5 | 6 => self.cut_off(victim),
            7 => self.cut_one_way(),
            8 => self.split(),
            9 | 10 => self.slow_disk(victim, leader),
            11 => {
                self.counts.add("disk: failed syncs");
                let member = self.members.get_mut(&victim).expect("it is up");
                member.excused = true;
                member.disk.fail(Fault::Sync, self.rng.between(1, 3), ErrorKind::Other);
            }
            12 => {
                self.counts.add("clock: wall clocks set");
                let seconds = i64::try_from(self.rng.below(7_200)).unwrap_or(0) - 3_600;
                self.members[&victim].clock.jump(seconds);
            }
            13 | 14 => self.hand_over(leader),
            _ => {
                let all = self.up();
                if all.len() == self.members.values().filter(|member| !member.gone).count() {
                    all.into_iter().for_each(|id| self.power_cut(id));
                }
            }
        }
        Ok(())
    }

    fn pause(&mut self, id: u64) {
        self.counts.add("paused members");
        let until = self.now() + self.rng.between(100_000, 2_500_000);
        self.members.get_mut(&id).expect("a machine").paused_until = until;
    }

    fn cut(&mut self, pairs: Vec<(u64, u64)>) {
        self.plan.weather.cut.extend(&pairs);
        let wait = self.rng.between(300_000, 3_000_000);
        self.after(wait, Event::Mend(pairs));
    }

    fn cut_off(&mut self, id: u64) {
        self.counts.add("network: cut off, both ways");
        if self.leader() == Some(id) {
            self.counts.add("network: minority with the leader cut off");
        }
        let others: Vec<u64> = self.members.keys().copied().filter(|&other| other != id).collect();
        self.cut(others.iter().flat_map(|&other| [(id, other), (other, id)]).collect());
    }

    fn cut_one_way(&mut self) {
        let up = self.up();
        let (Some(from), Some(to)) = (self.rng.pick(&up), self.rng.pick(&up)) else { return };
        if from != to {
            self.counts.add("network: cut off, one way");
            self.cut(vec![(from, to)]);
        }
    }

    /// Two halves.
    fn split(&mut self) {
        let sides: BTreeMap<u64, bool> = self.members.keys().map(|&id| (id, self.rng.chance(1, 2))).collect();
        let mut pairs = Vec::new();
        for (&one, side) in &sides {
            pairs.extend(sides.iter().filter(|(_, other)| *other != side).map(|(&other, _)| (one, other)));
        }
        if !pairs.is_empty() {
            self.counts.add("network: cut in two");
            self.cut(pairs);
        }
    }

    fn slow_disk(&mut self, id: u64, leader: Option<u64>) {
        self.counts.add(if leader == Some(id) { "disk: slow on the leader" } else { "disk: slow on a follower" });
        let time = self.rng.pick(&[20_000, 300_000, 4_000_000]).unwrap_or(20_000);
        self.members.get_mut(&id).expect("a machine").sync_time = time;
        let wait = self.rng.between(300_000, 3_000_000);
        self.after(wait, Event::Quick(id));
    }

    fn hand_over(&mut self, leader: Option<u64>) {
        let Some(leader) = leader else { return };
        let live = self.members[&leader].live.as_ref().expect("it is up");
        let voters = live.core().conf_state().voters;
        if let Some(to) = self.rng.pick(&voters).filter(|&to| to != leader) {
            live.node().transfer_leader(MemberId(to));
            self.counts.add("leader: hand-over asked for");
            self.handing_over = Some(to);
            self.trace(|| format!("{leader:x} is to hand over to {to:x}"));
            self.wake(leader);
        }
    }

    // Membership.

    /// Somebody changes the membership, through any member, by what that member knows.
    pub fn admin(&mut self) -> Result<(), Broken> {
        if self.healing {
            return Ok(());
        }
        let every = self.plan.admin_every;
        let wait = every / 2 + self.rng.below(every);
        self.after(wait, Event::Admin);
        let up = self.up();
        let Some(via) = self.rng.pick(&up) else { return Ok(()) };
        let membership = self.members[&via].reader().expect("it is up").membership();
        let of = |learner: bool| -> Vec<u64> {
            membership
                .members
                .values()
                .filter(|member| member.is_learner == learner)
                .map(|member| member.id.0)
                .collect()
        };
        let (voters, learners) = (of(false), of(true));
        let room = voters.len() + learners.len() < MEMBERS_MAX;
        let live = self.members[&via].live.as_ref().expect("it is up");
        let request = live.node().next_request_id();
        let change = match self.rng.below(10) {
            0..=2 if room => self.new_member(request, true),
            3 if room => self.new_member(request, false),
            4..=6 => match self.rng.pick(&learners) {
                Some(learner) => promote(request, MemberId(learner)),
                None => return Ok(()),
            },
            7 | 8 if voters.len() > 2 => {
                let all: Vec<u64> = voters.iter().chain(&learners).copied().collect();
                let Some(gone) = self.rng.pick(&all) else { return Ok(()) };
                remove(request, MemberId(gone))
            }
            _ => return Ok(()),
        };
        self.counts.add("conf change: asked for");
        self.trace(|| format!("{via:x} is asked for {change:?}"));
        let member = &self.members[&via];
        let waiter = Waiter { sink: Arc::clone(&member.answers) as _, ticket: u64::MAX };
        let node = member.live.as_ref().expect("it is up").node();
        node.propose_conf_change(request, Bytes::from(change.encode_to_vec()), waiter);
        self.wake(via);
        Ok(())
    }

    fn new_member(&mut self, request: u64, is_learner: bool) -> raftpb::ConfChange {
        let id = self.next_joiner();
        let peer_urls = vec![peer_url(&self.joiner_name(id))];
        add(request, &ClusterMember { id: MemberId(id), peer_urls, is_learner, ..ClusterMember::default() })
    }

    // The end.

    /// No more trouble: everybody must come back and agree, on what is there and on one more write.
    pub fn heal(&mut self) -> Result<(), Broken> {
        self.healing = true;
        self.trace(|| "everything heals".to_owned());
        self.plan.weather = crate::network::Weather { delay: 500, ..Default::default() };
        let (now, limit) = (self.now(), self.now() + HEAL_TIME);
        let ids: Vec<u64> = self.members.keys().copied().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("a machine");
            member.paused_until = now;
            member.sync_time = 1_000;
            if member.live.is_none() {
                self.after(1_000, Event::Restart(id));
            }
        }
        let mut mark = None;
        while self.now() < limit {
            self.step()?;
            match mark {
                None => mark = self.mark()?,
                Some(index) if self.all_reached(index) && self.truth.promises_are_over(self.now()) => {
                    return self.all_agree();
                }
                Some(_) => {}
            }
        }
        let standings: Vec<_> = self
            .members
            .values()
            .map(|member| {
                let live = member.live.as_ref().map(|live| (live.core().standing(), live.machine().applied()));
                format!("{} gone {} {live:?}", member.name, member.gone)
            })
            .collect();
        let leases = self.truth.model.leases();
        Err(format!("not well again after {HEAL_TIME} µs: mark {mark:?}, leases {leases:?}, {standings:#?}"))
    }

    /// Has a write of after the healing been applied? Where.
    fn mark(&mut self) -> Result<Option<u64>, Broken> {
        let asked = self.clients[0].mark;
        Ok(asked.and_then(|id| self.truth.model.effect(id)).map(|effect| effect.index))
    }

    fn current_members(&self) -> impl Iterator<Item = &crate::member::Member> {
        self.members.values().filter(|member| self.truth.members.contains_key(&member.id))
    }

    fn all_reached(&self, index: u64) -> bool {
        self.current_members().all(|member| {
            let applied = member.live.as_ref().map_or(0, |live| live.machine().applied().0.0);
            applied >= index && applied == self.truth.last_applied()
        })
    }

    fn all_agree(&mut self) -> Result<(), Broken> {
        let ids: Vec<u64> = self.current_members().map(|member| member.id).collect();
        for id in ids {
            let member = &self.members[&id];
            let live = member.live.as_ref().expect("it reached the mark");
            self.truth.note_state(member, live)?;
            if live.machine().reader().revision() != self.truth.model.revision {
                return Err(format!("{} is at revision {}", member.name, live.machine().reader().revision()));
            }
        }
        Ok(())
    }

    fn counts_segments(&mut self, id: u64) {
        let member = &self.members[&id];
        let names = milepost_env::Disk::list(&member.disk, &member.config.wal_path()).unwrap_or_default();
        let segments = names.iter().filter(|name| name.ends_with(".wal")).count() as u64;
        self.counts.add_many("log: segments cut", segments.saturating_sub(1));
    }
}

fn member_tick(sim: &Sim, id: u64) -> u64 {
    let member = &sim.members[&id];
    let live = member.live.as_ref().expect("it was started");
    member.clock.world_at(live.next_tick()).max(sim.now() + 1)
}
