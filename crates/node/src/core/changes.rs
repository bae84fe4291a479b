//! Conf changes that a leader is asked for while it has not applied the one before.
//!
//! Raft takes one at a time: the crate puts an empty entry in the place of another, and nobody who asked for that hears of it
//! before his time is over. That is as it must be for changes that are asked for at the same time, each checked against the
//! same members. But a follower may have applied a change, and answered, before the leader has: who asks there for one change
//! after the other is right, and his next one waits here for the leader's own apply.

use super::Core;
use raft::eraftpb::{EntryType, Message, MessageType};

/// So many wait at most; more are left to the crate.
const WAITING_MAX: usize = 64;

impl Core {
    /// Keeps `message` back if it asks for a conf change that must wait.
    pub(super) fn keep_change_back(&mut self, message: Message) -> Option<Message> {
        let is_change = message.get_msg_type() == MessageType::MsgPropose
            && message.get_entries().iter().any(|entry| entry.get_entry_type() == EntryType::EntryConfChange);
        let raft = &self.node.raft;
        let only_apply_is_missing = raft.has_pending_conf() && raft.pending_conf_index <= raft.raft_log.committed;
        if !is_change || !only_apply_is_missing || self.changes.len() >= WAITING_MAX {
            return Some(message);
        }
        self.changes.push(message);
        None
    }

    /// Steps those that waited, once nothing is missing; a member that leads no longer passes them on.
    pub(super) fn release_changes(&mut self) {
        if self.changes.is_empty() || self.node.raft.has_pending_conf() {
            return;
        }
        for message in std::mem::take(&mut self.changes) {
            // Without a leader, or with leadership on its way to another, it is lost as any message may be.
            let _ = self.node.step(message);
        }
    }
}
