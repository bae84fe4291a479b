//! Messages that must not leave before what they promise is durable.

use super::{Effect, convert};
use milepost_proto::raftpb;
use raft::eraftpb::{Message, MessageType};
use std::collections::VecDeque;

#[derive(Debug)]
struct Waiting {
    /// Ready that must be durable.
    after: u64,
    /// Conf change that must have been applied.
    conf_change: Option<u64>,
    messages: Vec<raftpb::Message>,
}

/// A queue in Ready order.
#[derive(Debug, Default)]
pub struct Held {
    queue: VecDeque<Waiting>,
    /// Last Ready that changed term or vote.
    fence: u64,
    /// Last Ready known to be durable.
    durable: u64,
}

/// Does a follower promise something durable with this?
fn promises(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
    )
}

impl Held {
    /// Takes the messages of Ready `number`: sends what may leave, keeps the rest.
    ///
    /// `fenced`: this Ready changes term or vote. `conf_change`: it hands out this one.
    pub fn take(
        &mut self,
        number: u64,
        fenced: bool,
        leader: bool,
        conf_change: Option<u64>,
        messages: Vec<Message>,
        effects: &mut Vec<Effect>,
    ) {
        if fenced {
            self.fence = number;
        }
        let fence_up = self.fence > self.durable;
        let mut now = Vec::new();
        let mut later = Vec::new();
        for message in &messages {
            let waits = fence_up || (!leader && promises(message.get_msg_type()));
            if waits { &mut later } else { &mut now }.push(convert::message_out(message));
        }
        if !later.is_empty() {
            let after = if leader { self.fence } else { number };
            let conf_change = conf_change.filter(|_| !leader);
            self.queue.push_back(Waiting { after, conf_change, messages: later });
        }
        if !now.is_empty() {
            effects.push(Effect::Send(now));
        }
    }

    /// Sends what waited for Readies up to `durable`, and for conf changes before `next_conf_change`, in order.
    pub fn release(&mut self, durable: u64, next_conf_change: Option<u64>, effects: &mut Vec<Effect>) {
        self.durable = self.durable.max(durable);
        let mut now = Vec::new();
        while let Some(first) = self.queue.front() {
            let applied = first.conf_change.is_none_or(|index| next_conf_change.is_none_or(|next| next > index));
            if first.after > self.durable || !applied {
                break;
            }
            now.append(&mut self.queue.pop_front().expect("it has a front").messages);
        }
        if !now.is_empty() {
            effects.push(Effect::Send(now));
        }
    }
}
