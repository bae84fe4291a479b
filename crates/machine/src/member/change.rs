//! Changes of membership: what they carry, when they are refused, what they do.

use milepost_proto::raftpb::{ConfChange, ConfState};
use milepost_types::MemberId;
use serde::{Deserialize, Serialize};

use super::{Member, Membership};
use crate::error::Error;

/// etcd's numbers of the kinds; raft-rs has others (`facts/raft-compat.md` §1).
const ADD_NODE: i32 = 0;
const REMOVE_NODE: i32 = 1;
const UPDATE_NODE: i32 = 2;
const ADD_LEARNER_NODE: i32 = 3;

/// The ConfChange that adds `member`, as a voter or, if it says so, as a learner. `request_id`: for the waiter.
#[must_use]
pub fn add(request_id: u64, member: &Member) -> ConfChange {
    let kind = if member.is_learner { ADD_LEARNER_NODE } else { ADD_NODE };
    conf_change(request_id, kind, member.id, member.to_json())
}

/// The ConfChange that gives a learner its vote. Its member has no URLs: null, not an empty list.
#[must_use]
pub fn promote(request_id: u64, id: MemberId) -> ConfChange {
    let json = format!(r#"{{"id":{},"peerURLs":null,"isPromote":true}}"#, id.0);
    conf_change(request_id, ADD_NODE, id, json.into_bytes())
}

/// The ConfChange that gives a member other peer URLs.
#[must_use]
pub fn update(request_id: u64, id: MemberId, peer_urls: Vec<String>) -> ConfChange {
    let member = Member { id, peer_urls, ..Member::default() };
    conf_change(request_id, UPDATE_NODE, id, member.to_json())
}

/// The ConfChange that removes a member.
#[must_use]
pub fn remove(request_id: u64, id: MemberId) -> ConfChange {
    ConfChange { id: Some(request_id), r#type: Some(REMOVE_NODE), node_id: Some(id.0), context: None }
}

fn conf_change(request_id: u64, kind: i32, id: MemberId, context: Vec<u8>) -> ConfChange {
    ConfChange { id: Some(request_id), r#type: Some(kind), node_id: Some(id.0), context: Some(context.into()) }
}

/// The one field of the context that is not the member's.
#[derive(Serialize, Deserialize)]
struct Promotion {
    #[serde(rename = "isPromote", default)]
    is_promote: bool,
}

/// What a valid ConfChange does to the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A new member: voter or learner.
    Add(Member),
    /// A learner gets its vote; everything else about it stays.
    Promote(MemberId),
    /// Gone for good.
    Remove(MemberId),
    /// Other peer URLs; everything else about it stays.
    Update(MemberId, Vec<String>),
}

/// The bytes of a ConfChange are not what its kind promises.
#[derive(Debug)]
pub(crate) struct Malformed(pub(crate) String);

impl Membership {
    /// Is `change` valid for these members, and what would it do?
    ///
    /// The rules and their order are etcd's `ValidateConfigurationChange`; they decide state. `max_learners` is the one
    /// local setting among them.
    pub(crate) fn judge(&self, change: &ConfChange, max_learners: usize) -> Result<Result<Verdict, Error>, Malformed> {
        let id = MemberId(change.node_id());
        if self.removed.contains(&id) {
            return Ok(Err(Error::MemberNotFound));
        }
        let verdict = match change.r#type() {
            ADD_NODE | ADD_LEARNER_NODE => {
                let (member, promotes) = context(change)?;
                if promotes { self.judge_promotion(id) } else { self.judge_addition(change, member, max_learners) }
            }
            REMOVE_NODE if !self.members.contains_key(&id) => Err(Error::MemberNotFound),
            REMOVE_NODE => Ok(Verdict::Remove(id)),
            UPDATE_NODE if !self.members.contains_key(&id) => Err(Error::MemberNotFound),
            UPDATE_NODE => {
                let (member, _) = context(change)?;
                let others = self.members.values().filter(|other| other.id != id);
                if uses_any(others, &member.peer_urls) {
                    Err(Error::PeerUrlExists)
                } else {
                    Ok(Verdict::Update(id, member.peer_urls))
                }
            }
            kind => return Err(Malformed(format!("a change of membership of unknown kind {kind}"))),
        };
        Ok(verdict)
    }

    fn judge_promotion(&self, id: MemberId) -> Result<Verdict, Error> {
        match self.members.get(&id) {
            None => Err(Error::MemberNotFound),
            Some(member) if !member.is_learner => Err(Error::NotLearner),
            Some(_) => Ok(Verdict::Promote(id)),
        }
    }

    fn judge_addition(&self, change: &ConfChange, member: Member, max_learners: usize) -> Result<Verdict, Error> {
        if self.members.contains_key(&member.id) {
            return Err(Error::MemberExists);
        }
        if uses_any(self.members.values(), &member.peer_urls) {
            return Err(Error::PeerUrlExists);
        }
        let learners = self.members.values().filter(|member| member.is_learner).count();
        if member.is_learner && change.r#type() == ADD_LEARNER_NODE && learners + 1 > max_learners {
            return Err(Error::TooManyLearners);
        }
        Ok(Verdict::Add(member))
    }

    /// Carries out what [`Membership::judge`] allowed.
    pub(crate) fn apply(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Add(member) => {
                self.members.insert(member.id, member.clone());
            }
            Verdict::Promote(id) => {
                if let Some(member) = self.members.get_mut(id) {
                    member.is_learner = false;
                }
            }
            Verdict::Remove(id) => {
                self.members.remove(id);
                self.removed.insert(*id);
            }
            Verdict::Update(id, peer_urls) => {
                if let Some(member) = self.members.get_mut(id) {
                    member.peer_urls.clone_from(peer_urls);
                }
            }
        }
    }
}

/// Member and promotion mark of the context; its id must be the one of the change.
fn context(change: &ConfChange) -> Result<(Member, bool), Malformed> {
    let json = change.context();
    let read = || Ok((Member::from_json(json)?, serde_json::from_slice::<Promotion>(json)?.is_promote));
    let (member, promotes) =
        read().map_err(|e: serde_json::Error| Malformed(format!("the context of a change of membership: {e}")))?;
    if member.id.0 != change.node_id() {
        let why = format!("a change of member {:x} describes member {}", change.node_id(), member.id);
        return Err(Malformed(why));
    }
    Ok((member, promotes))
}

fn uses_any<'a>(mut members: impl Iterator<Item = &'a Member>, urls: &[String]) -> bool {
    members.any(|member| member.peer_urls.iter().any(|url| urls.contains(url)))
}

impl Verdict {
    /// The configuration after this change. Lists are kept sorted.
    pub(crate) fn next_conf_state(&self, state: &ConfState) -> ConfState {
        let mut next = state.clone();
        let without = |list: &mut Vec<u64>, id: MemberId| list.retain(|&other| other != id.0);
        let with = |list: &mut Vec<u64>, id: MemberId| {
            if let Err(place) = list.binary_search(&id.0) {
                list.insert(place, id.0);
            }
        };
        match self {
            Self::Add(member) if member.is_learner => {
                without(&mut next.voters, member.id);
                with(&mut next.learners, member.id);
            }
            Self::Add(Member { id, .. }) | Self::Promote(id) => {
                without(&mut next.learners, *id);
                with(&mut next.voters, *id);
            }
            Self::Remove(id) => {
                without(&mut next.voters, *id);
                without(&mut next.learners, *id);
            }
            Self::Update(..) => {}
        }
        next
    }
}
