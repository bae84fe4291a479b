//! What a simulated member is made of.

use crate::core::{Core, Input, Persist, mix};
use bytes::Bytes;
use milepost_proto::{Message as _, raftpb};
use std::collections::{BTreeMap, VecDeque};

/// Draws from a counter.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Disk {
    /// (index, term) before the first entry.
    pub cut: (u64, u64),
    /// Of a received snapshot at the cut.
    pub snapshot: raftpb::ConfState,
    pub entries: Vec<raftpb::Entry>,
    pub hard_state: raftpb::HardState,
}

impl Disk {
    pub fn last(&self) -> u64 {
        self.cut.0 + self.entries.len() as u64
    }

    pub fn term_at(&self, index: u64) -> u64 {
        if index == self.cut.0 { self.cut.1 } else { self.entries[(index - self.cut.0) as usize - 1].term() }
    }

    pub fn append(&mut self, entries: &[raftpb::Entry]) {
        if let Some(first) = entries.first() {
            assert!((self.cut.0 + 1..=self.last() + 1).contains(&first.index()), "a gap in the log on disk");
            self.entries.truncate((first.index() - self.cut.0) as usize - 1);
            self.entries.extend_from_slice(entries);
        }
    }

    pub fn write(&mut self, persist: &Persist) {
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

    pub fn cut_to(&mut self, index: u64) {
        if index > self.cut.0 && index <= self.last() {
            self.cut = (index, self.term_at(index));
            self.entries.retain(|entry| entry.index() > index);
        }
    }
}

/// The state machine: what was applied, and the configuration that follows from it.
#[derive(Clone, Default)]
pub struct Store {
    pub applied: u64,
    pub conf_state: raftpb::ConfState,
}

pub struct Machine {
    pub core: Option<Core>,
    pub disk: Disk,
    /// Written, not synced, in order.
    pub writes: VecDeque<Persist>,
    /// Handed out, not applied.
    pub to_apply: VecDeque<raftpb::Entry>,
    pub store: Store,
    pub durable: Store,
    /// (batch, what was applied anywhere when it asked).
    pub reads: VecDeque<(u64, u64)>,
    pub next_batch: u64,
    pub starts: u64,
    /// Its syncs do not return.
    pub stuck: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub events: u64,
    pub delivered: u64,
    pub lost: u64,
    pub doubled: u64,
    pub syncs: u64,
    pub crashes: u64,
    pub torn: u64,
    pub elections: u64,
    pub applied: u64,
    pub reads: u64,
    pub conf_changes: u64,
    pub dropped_proposals: u64,
    pub transfers: u64,
    pub longest_log: u64,
    pub cuts: u64,
    pub snapshots: u64,
    pub fetches: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Voters from the start.
    pub voters: u64,
    /// Members that join later as learners and are promoted.
    pub joiners: u64,
    pub events: usize,
    /// Percent of syncs that crash instead.
    pub crash: u64,
    /// Percent of messages lost.
    pub loss: u64,
    /// Are logs cut, so that members that fell behind need snapshots?
    pub cut: bool,
    /// Crash at exactly this sync of the first member.
    pub crash_at_sync: Option<u64>,
}

pub struct Sim {
    pub setup: Setup,
    pub seed: u64,
    pub rng: Rng,
    pub members: BTreeMap<u64, Machine>,
    pub network: Vec<raftpb::Message>,
    pub counts: Counts,
    pub trace: u64,
    pub leaders: BTreeMap<u64, u64>,
    /// (index, term) → (content, term of the entry before).
    pub entries: BTreeMap<(u64, u64), (Bytes, u64)>,
    /// What was applied, by index.
    pub applied: BTreeMap<u64, (u64, Bytes)>,
    pub next_proposal: u64,
    pub first_member_syncs: u64,
    /// Inputs that follow from effects.
    pub deferred: VecDeque<(u64, Input)>,
}

pub fn conf_change(kind: i32, node: u64) -> Bytes {
    let change = raftpb::ConfChange { id: Some(node), r#type: Some(kind), node_id: Some(node), context: None };
    Bytes::from(change.encode_to_vec())
}

/// The conf change in `entry`, carried out on `state`; `None` if the members that there are then do not allow it.
pub fn take_change(entry: &raftpb::Entry, state: &mut raftpb::ConfState) -> Option<raftpb::ConfChange> {
    let change = raftpb::ConfChange::decode(entry.data.clone().unwrap_or_default()).expect("ours");
    let node = change.node_id();
    let allowed = match change.r#type() {
        0 => !state.voters.contains(&node),
        1 => state.voters.contains(&node) || state.learners.contains(&node),
        _ => !state.voters.contains(&node) && !state.learners.contains(&node),
    };
    if !allowed {
        return None;
    }
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
    Some(change)
}
