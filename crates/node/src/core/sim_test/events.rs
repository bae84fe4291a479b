//! What happens, by chance and at the end.

use super::SNAPSHOT;
use super::world::{Sim, conf_change};
use crate::core::{Input, Proposal, Role};
use bytes::Bytes;
use std::collections::BTreeSet;

impl Sim {
    pub fn propose(&mut self, id: u64) {
        let mut proposals = Vec::new();
        for _ in 0..=self.rng.below(3) {
            self.next_proposal += 1;
            proposals.push(Proposal { data: Bytes::from(format!("p{}", self.next_proposal)), conf_change: false });
        }
        self.handle(id, Input::Propose(proposals));
    }

    /// Adds the next joiner as a learner, or promotes one.
    pub fn grow(&mut self, id: u64) {
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

    pub fn read(&mut self, id: u64) {
        let floor = self.applied.last_key_value().map_or(0, |(&index, _)| index);
        let member = self.members.get_mut(&id).expect("member");
        member.next_batch += 1;
        let batch = member.next_batch;
        member.reads.push_back((batch, floor));
        self.handle(id, Input::Read { batch });
    }

    /// The log behind a snapshot point is not kept.
    pub fn cut(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("member");
        let kept = self.rng.below(6) as u64;
        let to = member.durable.applied.saturating_sub(kept);
        member.disk.cut_to(to);
        self.counts.cuts += 1;
        self.handle(id, Input::CutTo(to));
    }

    pub fn deliver(&mut self) {
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

    pub fn event(&mut self) {
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
    pub fn heal(&mut self) {
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
