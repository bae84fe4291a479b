//! A cluster that begins: ids out of names and URLs, and the first entries of its log.
//!
//! All founders compute the same from the same `--initial-cluster` and token, without talking to each other.
//! Source: `facts/peer-protocol.md` §7, `facts/bbolt-format.md` §5.

use std::collections::BTreeMap;

use milepost_proto::raftpb::{ConfChange, Entry};
use milepost_proto::{Message, raftpb};
use milepost_types::{ClusterId, LogIndex, MemberId, Term};
use sha1::{Digest, Sha1};

use super::{Member, change};

/// Raft's number for an entry that changes the configuration.
const ENTRY_CONF_CHANGE: i32 = 1;
/// The term of the first entries.
const FIRST_TERM: Term = Term(1);

/// Why founders cannot be told apart, or there are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// Two of them have the same peer URLs and so the same id.
    #[error("members {0} and {1} have the same peer URLs")]
    SameUrls(String, String),
    /// The hash came out as zero, which means nobody.
    #[error("member {0} would get id 0; change a peer URL or the cluster token")]
    ZeroId(String),
    /// The initial cluster is empty.
    #[error("the initial cluster has no members")]
    Empty,
}

/// Everything that follows from an initial cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// The cluster's id, for ever.
    pub cluster_id: ClusterId,
    /// The founders, sorted by id.
    pub members: Vec<Member>,
    /// Committed from the start: entries 1 to n of term 1, each adding one founder.
    pub entries: Vec<Entry>,
    /// The configuration after them.
    pub conf_state: raftpb::ConfState,
}

impl Bootstrap {
    /// From the founders' names and peer URLs (as etcd prints URLs, in any order) and the cluster token.
    ///
    /// # Errors
    /// [`BootstrapError`]: the configuration names no cluster.
    pub fn new(founders: &BTreeMap<String, Vec<String>>, token: &str) -> Result<Self, BootstrapError> {
        let mut members = BTreeMap::<MemberId, Member>::new();
        for (name, urls) in founders {
            let mut peer_urls = urls.clone();
            peer_urls.sort();
            let id = member_id(&peer_urls, token, None);
            if id == MemberId(0) {
                return Err(BootstrapError::ZeroId(name.clone()));
            }
            if let Some(other) = members.get(&id) {
                return Err(BootstrapError::SameUrls(other.name.clone(), name.clone()));
            }
            members.insert(id, Member { id, peer_urls, name: name.clone(), ..Member::default() });
        }
        if members.is_empty() {
            return Err(BootstrapError::Empty);
        }
        let entries = (1..).zip(members.values()).map(|(index, member)| founding_entry(LogIndex(index), member));
        Ok(Self {
            cluster_id: cluster_id(members.keys().copied()),
            entries: entries.collect(),
            conf_state: raftpb::ConfState { voters: members.keys().map(|id| id.0).collect(), ..Default::default() },
            members: members.into_values().collect(),
        })
    }
}

fn founding_entry(index: LogIndex, member: &Member) -> Entry {
    let change = ConfChange { id: None, ..change::add(0, member) };
    Entry {
        term: Some(FIRST_TERM.0),
        index: Some(index.0),
        r#type: Some(ENTRY_CONF_CHANGE),
        data: Some(change.encode_to_vec().into()),
    }
}

/// The id of a member: a hash over its peer URLs, the cluster token, and for members added at run time (with an empty
/// token) the time of adding in Unix seconds.
#[must_use]
pub fn member_id(peer_urls: &[String], token: &str, added_at: Option<u64>) -> MemberId {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut text = urls.concat();
    text.push_str(token);
    if let Some(seconds) = added_at {
        text.push_str(&seconds.to_string());
    }
    MemberId(first_eight_bytes(&Sha1::digest(text.as_bytes())))
}

/// The id of a cluster: a hash over its founders' ids.
#[must_use]
pub fn cluster_id(founders: impl IntoIterator<Item = MemberId>) -> ClusterId {
    let mut ids: Vec<MemberId> = founders.into_iter().collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.0.to_be_bytes());
    }
    ClusterId(first_eight_bytes(&hash.finalize()))
}

fn first_eight_bytes(hash: &[u8]) -> u64 {
    u64::from_be_bytes(hash[..8].try_into().expect("SHA-1 has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founders(list: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
        list.iter().map(|(name, url)| ((*name).to_owned(), vec![(*url).to_owned()])).collect()
    }

    /// The ids that every etcd prints when it is started with its defaults.
    #[test]
    fn default_cluster_has_etcds_well_known_ids() {
        let one = Bootstrap::new(&founders(&[("default", "http://localhost:2380")]), "etcd-cluster").unwrap();
        assert_eq!(one.members[0].id, MemberId(0x8e9e_05c5_2164_694d));
        assert_eq!(one.cluster_id, ClusterId(0xcdf8_1819_4e3a_8c32));
        assert_eq!(one.entries.len(), 1);
    }

    #[test]
    fn order_of_urls_does_not_matter_and_time_does() {
        let urls = ["http://b".to_owned(), "http://a".to_owned()];
        let turned = ["http://a".to_owned(), "http://b".to_owned()];
        assert_eq!(member_id(&urls, "t", None), member_id(&turned, "t", None));
        assert_ne!(member_id(&urls, "", Some(1)), member_id(&urls, "", Some(2)));
        assert_eq!(member_id(&urls, "", Some(12)), member_id(&urls, "12", None));
    }

    #[test]
    fn entries_add_the_founders_by_id() {
        let three =
            Bootstrap::new(&founders(&[("a", "http://a:1"), ("b", "http://b:1"), ("c", "http://c:1")]), "t").unwrap();
        assert!(three.members.is_sorted_by_key(|member| member.id));
        for (i, entry) in three.entries.iter().enumerate() {
            assert_eq!((entry.index(), entry.term(), entry.r#type()), (i as u64 + 1, 1, 1));
            let change = ConfChange::decode(entry.data().to_vec().as_slice()).unwrap();
            assert_eq!((change.id, change.r#type, change.node_id()), (None, Some(0), three.members[i].id.0));
            assert_eq!(Member::from_json(change.context()).unwrap(), three.members[i]);
        }
        assert_eq!(three.conf_state.voters.len(), 3);
    }

    #[test]
    fn refuses_what_names_no_cluster() {
        assert_eq!(Bootstrap::new(&founders(&[]), "t"), Err(BootstrapError::Empty));
        let same = Bootstrap::new(&founders(&[("a", "http://a"), ("b", "http://a")]), "t");
        assert_eq!(same, Err(BootstrapError::SameUrls("a".into(), "b".into())));
    }
}
