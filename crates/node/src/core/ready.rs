//! From the crate's Readies to effects. The order of steps in here is the one that the module above argues for.

use super::effect::{Effect, Persist};
use super::{Core, convert};
use milepost_proto::raftpb;
use raft::StateRole;
use raft::eraftpb as inner;

impl Core {
    /// Turns every Ready that the crate has into effects.
    pub(super) fn drain(&mut self, effects: &mut Vec<Effect>) {
        while self.node.has_ready() {
            self.drain_one(effects);
        }
        self.held.release(self.durable_ready(), self.conf_changes_out.front().copied(), effects);
        for fetch in self.node.store().take_wanted() {
            if let Some((_, contexts)) = self.fetches.values_mut().find(|(from, _)| *from == fetch.from_index) {
                contexts.push(fetch.context);
                continue;
            }
            self.last_fetch += 1;
            self.fetches.insert(self.last_fetch, (fetch.from_index, vec![fetch.context]));
            effects.push(Effect::Fetch {
                ticket: self.last_fetch,
                from: fetch.from_index,
                end: fetch.end_index,
                max_bytes: fetch.max_bytes,
            });
        }
    }

    fn drain_one(&mut self, effects: &mut Vec<Effect>) {
        let mut ready = self.node.ready();
        let number = ready.number();
        self.last_ready = number;
        let snapshot = (!ready.snapshot().is_empty()).then(|| convert::snapshot_out(ready.snapshot()));
        let log = self.node.mut_store();
        if snapshot.is_some() {
            log.install(ready.snapshot());
        }
        let entries = ready.take_entries();
        log.append(&entries);
        let committed = ready.take_committed_entries();
        let hard_state = ready.hs().map(convert::hard_state_out);
        let must_sync = ready.must_sync();
        let reads = ready.take_read_states();
        let mut messages = ready.take_messages();
        messages.append(&mut ready.take_persisted_messages());
        self.node.advance_append_async(ready);

        let fenced = hard_state
            .as_ref()
            .is_some_and(|new| (new.term(), new.vote()) != (self.hard_state.term(), self.hard_state.vote()));
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state;
        }
        if must_sync {
            if let Some(snapshot) = &snapshot {
                self.snapshot_index = snapshot.metadata.as_ref().map_or(0, raftpb::SnapshotMetadata::index);
                self.handed_out = self.snapshot_index;
                self.snapshots.push_back((number, snapshot.clone()));
            }
            let entries = entries.iter().map(convert::entry_out).collect();
            self.persist(number, entries, snapshot, true, effects);
        } else if self.outstanding.is_empty() {
            self.report_persisted();
        }
        let conf_change = self.hand_out(&committed, effects);
        let leader = self.node.raft.state == StateRole::Leader;
        self.held.take(number, fenced, leader, conf_change, messages, effects);
        self.confirm_reads(&reads, effects);
    }

    fn persist(
        &mut self,
        number: u64,
        entries: Vec<raftpb::Entry>,
        snapshot: Option<raftpb::Snapshot>,
        must_sync: bool,
        effects: &mut Vec<Effect>,
    ) {
        let hard_state = (self.hard_state != self.hard_state_written).then_some(self.hard_state);
        self.hard_state_written = self.hard_state;
        if must_sync {
            self.outstanding.push_back((number, self.now));
        }
        effects.push(Effect::Persist(Persist { number, entries, hard_state, snapshot, must_sync }));
    }

    pub(super) fn write_lagging_commit(&mut self, effects: &mut Vec<Effect>) {
        if self.hard_state != self.hard_state_written {
            self.persist(self.last_ready, Vec::new(), None, false, effects);
        }
    }

    /// Hands out what is to be applied; returns the last conf change in it.
    fn hand_out(&mut self, committed: &[inner::Entry], effects: &mut Vec<Effect>) -> Option<u64> {
        let (first, last) = (committed.first()?.index, committed.last()?.index);
        let log = &self.node.raft.raft_log;
        assert_eq!(first, self.handed_out + 1, "entries are handed out once, without gaps");
        assert!(
            last <= log.committed.min(log.persisted),
            "entry {last} handed out, committed {}, durable {}",
            log.committed,
            log.persisted
        );
        self.handed_out = last;
        let is_conf_change = |entry: &&inner::Entry| entry.get_entry_type() == inner::EntryType::EntryConfChange;
        self.conf_changes_out.extend(committed.iter().filter(is_conf_change).map(|entry| entry.index));
        effects.push(Effect::Apply(committed.iter().map(convert::entry_out).collect()));
        committed.iter().rfind(is_conf_change).map(|entry| entry.index)
    }

    fn confirm_reads(&mut self, states: &[raft::ReadState], effects: &mut Vec<Effect>) {
        for state in states {
            let context = <[u8; 8]>::try_from(state.request_ctx.as_slice()).map(u64::from_be_bytes);
            let Some(batch) = context.ok().and_then(|context| self.reads.confirm(context)) else { continue };
            effects.push(Effect::ReadReady { batch, index: state.index });
        }
        if !states.is_empty() && self.reads.start_next() {
            self.send_read();
        }
    }
}
