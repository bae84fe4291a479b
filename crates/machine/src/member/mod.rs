//! Who belongs to the cluster.
//!
//! Members are added, promoted, updated and removed by ConfChange entries whose context is etcd's JSON; each is checked
//! when it is applied, against the members at that point, so that all members accept and refuse the same ones. A
//! removed id never comes back. Name and client URLs follow by an entry of their own, once a member has started.
//!
//! Records, as etcd's buckets have them: table `members`: id as lower hex text without padding → JSON; table
//! `removed`: the same key → `removed`. Source: `facts/apply-semantics.md` §7, `facts/bbolt-format.md` §4.

mod bootstrap;
mod change;
mod conf_state;
mod record;
mod strict;
mod v2_json;

use std::collections::{BTreeMap, BTreeSet};

use milepost_proto::etcdserverpb as pb;
use milepost_types::MemberId;

pub use bootstrap::{Bootstrap, BootstrapError, cluster_id, member_id};
pub use change::{add, promote, remove, update};
pub use conf_state::{conf_state_from_bytes, conf_state_to_bytes};
pub use record::Member;

use crate::cluster::Version;
use crate::error::Fatal;
use crate::hex;

/// The members of the cluster, and the ids of the ones it removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Members by id.
    pub members: BTreeMap<MemberId, Member>,
    /// Ids that were removed; they cannot be used again.
    pub removed: BTreeSet<MemberId>,
}

impl Membership {
    /// From the records of the two tables.
    pub(crate) fn load(
        members: &BTreeMap<Vec<u8>, Vec<u8>>,
        removed: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<Self, Fatal> {
        let id_of = |table, key: &[u8]| {
            let text = std::str::from_utf8(key).ok();
            let id = text.and_then(|text| u64::from_str_radix(text, 16).ok());
            id.map(MemberId).ok_or_else(|| Fatal::BrokenRecord { table, key: hex(key), why: "not a member id".into() })
        };
        let mut membership = Self::default();
        for (key, json) in members {
            let id = id_of("members", key)?;
            let member = Member::from_json(json).map_err(|why| Fatal::BrokenRecord {
                table: "members",
                key: hex(key),
                why: why.to_string(),
            })?;
            membership.members.insert(id, Member { id, ..member });
        }
        for key in removed.keys() {
            membership.removed.insert(id_of("removed", key)?);
        }
        Ok(membership)
    }

    /// As the client API lists them: sorted by id.
    #[must_use]
    pub fn to_wire(&self) -> Vec<pb::Member> {
        self.members.values().map(Member::to_wire).collect()
    }

    /// Voters, sorted by id.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.is_learner)
    }

    /// The membership as a v2 store, which etcd up to 3.6 wants inside `.snap` files and snapshot messages.
    #[must_use]
    pub fn v2_json(&self, version: Option<Version>) -> Vec<u8> {
        v2_json::encode(self, version)
    }
}
