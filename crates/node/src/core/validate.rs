//! What a peer's message must satisfy before the consensus crate sees it.
//!
//! The crate trusts its peers: each of the refusals here would otherwise end the process inside it (it panics on a gap in
//! an append, on a commit index beyond its log, on terms where it expects none) or break truth quietly. A message is
//! refused whole. Refusals of shape are a peer's fault and are dropped with a log line; [`Refused::LostLog`] and
//! [`Refused::LostByLeader`] say that a member's log is not what it was, and a person has to act.

use super::convert;
use milepost_proto::raftpb;
use raft::eraftpb::MessageType;
use std::fmt;

/// Positions and terms above this are nonsense and would overflow sums inside the crate.
const POSITION_MAX: u64 = u64::MAX >> 2;

/// What the receiver knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The receiver.
    pub id: u64,
    /// Its term.
    pub term: u64,
    /// Is it the leader of that term?
    pub leader: bool,
    /// Index of the last entry in its log.
    pub last: u64,
}

/// Why a message does not reach Raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not for us, from nobody, or of a kind that never crosses the network. Newer members may send such messages.
    Ignored(&'static str),
    /// No correct member sends this.
    Malformed(&'static str),
    /// The leader knows that this member acknowledged more than it has: its directory was replaced by an older copy, or
    /// its disk dropped what it had synced.
    LostLog {
        /// What the leader says we hold.
        known: u64,
        /// What we hold.
        last: u64,
    },
    /// A follower acknowledges entries that this leader does not have: this leader's log is an old copy.
    LostByLeader {
        /// What the follower holds.
        known: u64,
        /// What we hold.
        last: u64,
    },
}

impl Refused {
    /// Does this say that a member's log lost acknowledged entries? Then the member that lost them must not go on.
    #[must_use]
    pub fn is_broken_truth(&self) -> bool {
        matches!(self, Self::LostLog { .. } | Self::LostByLeader { .. })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored(why) | Self::Malformed(why) => f.write_str(why),
            Self::LostLog { known, last } => write!(
                f,
                "the leader knows this member's log up to index {known}, but it ends at {last}: the data directory is an \
                 old copy or lost synced writes; remove this member, wipe its data directory and add it again"
            ),
            Self::LostByLeader { known, last } => write!(
                f,
                "a follower holds this leader's log up to index {known}, but it ends at {last}: the data directory is an \
                 old copy or lost synced writes; remove this member, wipe its data directory and add it again"
            ),
        }
    }
}

fn malformed(bad: bool, why: &'static str) -> Result<(), Refused> {
    if bad { Err(Refused::Malformed(why)) } else { Ok(()) }
}

/// Checks a message that came from the network.
///
/// # Errors
/// See [`Refused`].
pub fn message(message: &raftpb::Message, view: &View) -> Result<(), Refused> {
    let kind = convert::message_type(message.r#type()).ok_or(Refused::Ignored("its type is not known"))?;
    match kind {
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => return Err(Refused::Ignored("its type never crosses the network")),
        _ => {}
    }
    if message.to() != view.id {
        return Err(Refused::Ignored("it is for another member"));
    }
    // Forwarded messages keep their first sender, which may have become the leader since; the sender of a wish to hand
    // over leadership is, by etcd's convention, the member that is to lead.
    let forwarded =
        matches!(kind, MessageType::MsgPropose | MessageType::MsgReadIndex | MessageType::MsgTransferLeader);
    malformed(message.from() == 0 || (message.from() == view.id && !forwarded), "it has no sender")?;
    let numbers = [message.term(), message.log_term(), message.index(), message.commit(), message.reject_hint()];
    malformed(numbers.iter().any(|&number| number > POSITION_MAX), "a position is out of bounds")?;
    // Proposals and reads travel without a term; the crate stops when asked to forward one that has a term, and when it
    // is to answer anything else that has none.
    let without_term = matches!(kind, MessageType::MsgPropose | MessageType::MsgReadIndex);
    malformed(without_term != (message.term() == 0), "its term is set where none belongs, or missing")?;
    for entry in &message.entries {
        malformed(!(0..=1).contains(&entry.r#type()), "an entry's type is not known")?;
    }
    match kind {
        MessageType::MsgAppend => append(message),
        MessageType::MsgHeartbeat => heartbeat(message, view),
        MessageType::MsgAppendResponse => append_response(message, view),
        MessageType::MsgSnapshot => snapshot(message).map(drop),
        MessageType::MsgPropose => malformed(message.entries.is_empty(), "it proposes nothing"),
        MessageType::MsgReadIndex => malformed(message.entries.len() != 1, "it asks for other than one read"),
        // A follower would pass it on, and the crate stops on forwarding a message with a term.
        MessageType::MsgTransferLeader if !view.leader => {
            Err(Refused::Ignored("only the leader hands over leadership"))
        }
        _ => Ok(()),
    }
}

fn append(message: &raftpb::Message) -> Result<(), Refused> {
    malformed((message.index() == 0) != (message.log_term() == 0), "its base has an index without a term")?;
    malformed(message.log_term() > message.term(), "its base is newer than its term")?;
    let mut term = message.log_term();
    for (index, entry) in (message.index() + 1..).zip(&message.entries) {
        malformed(entry.index() != index, "its entries are not contiguous")?;
        malformed(entry.term() < term || entry.term() > message.term(), "its entries' terms go back or ahead")?;
        term = entry.term();
    }
    // Entries at or below commit need no look: the crate answers an append whose base is below commit without reading it.
    Ok(())
}

fn heartbeat(message: &raftpb::Message, view: &View) -> Result<(), Refused> {
    if message.term() >= view.term && message.commit() > view.last {
        return Err(Refused::LostLog { known: message.commit(), last: view.last });
    }
    Ok(())
}

fn append_response(message: &raftpb::Message, view: &View) -> Result<(), Refused> {
    let counts = view.leader && message.term() == view.term && !message.reject();
    if counts && message.index() > view.last {
        return Err(Refused::LostByLeader { known: message.index(), last: view.last });
    }
    Ok(())
}

/// The metadata of the snapshot that `message` brings to member `id`.
///
/// # Errors
/// See [`Refused`].
pub fn snapshot_of(message: &raftpb::Message, id: u64) -> Result<&raftpb::SnapshotMetadata, Refused> {
    if convert::message_type(message.r#type()) != Some(MessageType::MsgSnapshot) {
        return Err(Refused::Malformed("it is no snapshot"));
    }
    if message.to() != id {
        return Err(Refused::Ignored("it is for another member"));
    }
    snapshot(message)
}

fn snapshot(message: &raftpb::Message) -> Result<&raftpb::SnapshotMetadata, Refused> {
    let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
    let metadata = metadata.ok_or(Refused::Malformed("it carries no snapshot"))?;
    let in_bounds = 1..=POSITION_MAX;
    malformed(!in_bounds.contains(&metadata.index()), "its snapshot has no position")?;
    malformed(!(1..=message.term()).contains(&metadata.term()), "its snapshot's term is none or ahead")?;
    conf_state(metadata.conf_state.as_ref().unwrap_or(&raftpb::ConfState::default()))?;
    Ok(metadata)
}

/// A configuration as etcd uses them: voters and learners, disjoint, never joint.
fn conf_state(conf: &raftpb::ConfState) -> Result<(), Refused> {
    let joint = !conf.voters_outgoing.is_empty() || !conf.learners_next.is_empty() || conf.auto_leave();
    malformed(joint, "its configuration is a joint one")?;
    malformed(conf.voters.is_empty(), "its configuration has no voters")?;
    let mut ids: Vec<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
    ids.sort_unstable();
    let twice = ids.windows(2).any(|pair| pair[0] == pair[1]);
    malformed(twice || ids.first() == Some(&0), "its configuration names a member twice, or nobody")
}

#[cfg(test)]
mod tests {
    use super::{Refused, View, message};
    use milepost_proto::raftpb::{ConfState, Entry, Message, Snapshot, SnapshotMetadata};

    /// A follower at term 5 whose log ends at 10.
    fn check(kind: i32, edit: impl FnOnce(&mut Message)) -> Result<(), Refused> {
        check_as(kind, false, edit)
    }

    fn check_as(kind: i32, leader: bool, edit: impl FnOnce(&mut Message)) -> Result<(), Refused> {
        let mut subject =
            Message { r#type: Some(kind), to: Some(1), from: Some(2), term: Some(5), ..Message::default() };
        edit(&mut subject);
        message(&subject, &View { id: 1, term: 5, leader, last: 10 })
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index: Some(index), term: Some(term), r#type: Some(0), data: None }
    }

    fn is_malformed(result: Result<(), Refused>) -> bool {
        matches!(result, Err(Refused::Malformed(_)))
    }

    #[test]
    fn kinds() {
        for kind in [0, 1, 10, 11, 12, 19, 23, -1, i32::MAX] {
            assert!(matches!(check(kind, |_| {}), Err(Refused::Ignored(_))), "type {kind}");
        }
        for kind in [4, 5, 6, 9, 14, 17, 18] {
            assert_eq!(check(kind, |_| {}), Ok(()), "type {kind}");
            assert!(is_malformed(check(kind, |m| m.term = None)), "type {kind} without a term");
        }
        assert!(matches!(check(4, |m| m.to = Some(9)), Err(Refused::Ignored(_))));
        assert!(is_malformed(check(4, |m| m.from = Some(1))));
        assert!(is_malformed(check(4, |m| m.index = Some(u64::MAX))));
        assert!(matches!(check(13, |_| {}), Err(Refused::Ignored(_))));
        assert_eq!(check_as(13, true, |_| {}), Ok(()));
    }

    #[test]
    fn proposals_and_reads() {
        for kind in [2, 15] {
            assert!(is_malformed(check(kind, |m| m.term = None)), "type {kind} with nothing inside");
            let filled = |m: &mut Message| {
                m.term = None;
                m.entries = vec![entry(0, 0)];
            };
            assert_eq!(check(kind, filled), Ok(()));
            assert!(is_malformed(check(kind, |m| {
                filled(m);
                m.term = Some(5);
            })));
            assert!(is_malformed(check(kind, |m| {
                filled(m);
                m.entries[0].r#type = Some(2);
            })));
        }
    }

    #[test]
    fn appends() {
        let append = |base: (u64, u64), entries: Vec<Entry>| {
            check(3, |m| {
                m.index = Some(base.0);
                m.log_term = Some(base.1);
                m.entries = entries;
            })
        };
        assert_eq!(append((10, 4), vec![entry(11, 4), entry(12, 5)]), Ok(()));
        assert_eq!(append((0, 0), vec![entry(1, 4)]), Ok(()));
        assert!(is_malformed(append((10, 4), vec![entry(12, 5)])), "a gap");
        assert!(is_malformed(append((10, 4), vec![entry(11, 5), entry(12, 4)])), "terms go back");
        assert!(is_malformed(append((10, 4), vec![entry(11, 6)])), "an entry from the future");
        assert!(is_malformed(append((20, 0), vec![entry(21, 5)])), "a base that the crate would take as matching");
    }

    #[test]
    fn heartbeats_beyond_the_log() {
        assert_eq!(check(8, |m| m.commit = Some(10)), Ok(()));
        assert_eq!(check(8, |m| m.commit = Some(11)), Err(Refused::LostLog { known: 11, last: 10 }));
        let from_the_past = |m: &mut Message| {
            m.commit = Some(11);
            m.term = Some(4);
        };
        assert_eq!(check(8, from_the_past), Ok(()), "an old leader's word is only answered");
        let beyond = |m: &mut Message| m.index = Some(11);
        assert_eq!(check_as(4, true, beyond), Err(Refused::LostByLeader { known: 11, last: 10 }));
        assert_eq!(check_as(4, false, beyond), Ok(()));
    }

    #[test]
    fn snapshots() {
        let snapshot = |voters: Vec<u64>, learners: Vec<u64>, index: u64, term: u64| {
            check(7, |m| {
                let conf_state = Some(ConfState { voters, learners, ..ConfState::default() });
                let metadata = SnapshotMetadata { conf_state, index: Some(index), term: Some(term) };
                m.snapshot = Some(Snapshot { data: None, metadata: Some(metadata) });
            })
        };
        assert_eq!(snapshot(vec![1, 2], vec![3], 7, 4), Ok(()));
        assert!(is_malformed(check(7, |_| {})));
        assert!(is_malformed(snapshot(vec![], vec![1], 7, 4)));
        assert!(is_malformed(snapshot(vec![1, 2], vec![2], 7, 4)));
        assert!(is_malformed(snapshot(vec![0], vec![], 7, 4)));
        assert!(is_malformed(snapshot(vec![1], vec![], 0, 4)));
        assert!(is_malformed(snapshot(vec![1], vec![], 7, 6)));
    }
}
