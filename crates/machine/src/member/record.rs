//! One member, and its JSON.

use milepost_proto::etcdserverpb as pb;
use milepost_types::MemberId;
use serde::{Deserialize, Deserializer, Serialize};

/// A member of the cluster. In JSON exactly as etcd writes it: the order of fields, the names, what is left out when
/// empty (all but `id` and `peerURLs`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// It has no vote yet.
    pub is_learner: bool,
    /// Empty until it has started for the first time.
    pub name: String,
    /// Where clients reach it; empty until it has started for the first time.
    pub client_urls: Vec<String>,
}

/// Fields as etcd's struct nests and orders them.
#[derive(Serialize, Deserialize)]
struct Json {
    #[serde(default)]
    id: u64,
    #[serde(flatten)]
    raft: RaftAttributes,
    #[serde(flatten)]
    attributes: Attributes,
}

/// What Raft needs to know: one of the two v2 records of a member.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct RaftAttributes {
    #[serde(rename = "peerURLs", default, deserialize_with = "null_is_empty")]
    pub(super) peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_learner: bool,
}

/// What the member says of itself: the other v2 record.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Attributes {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(rename = "clientURLs", default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub(super) client_urls: Vec<String>,
}

/// Go writes a list that was never set as null.
fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Member {
    /// Key of its records.
    pub(crate) fn key(id: MemberId) -> Vec<u8> {
        id.to_string().into_bytes()
    }

    /// Has it ever started? Then it has told its name.
    #[must_use]
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }

    /// etcd's JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        to_go_json(&Json { id: self.id.0, raft: self.raft_attributes(), attributes: self.attributes() })
    }

    /// The reverse of [`Member::to_json`]; unknown fields are skipped, missing ones empty.
    ///
    /// # Errors
    /// If `json` is no object, or a field has another type.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let Json { id, raft, attributes } = serde_json::from_slice(json)?;
        Ok(Self {
            id: MemberId(id),
            peer_urls: raft.peer_urls,
            is_learner: raft.is_learner,
            name: attributes.name,
            client_urls: attributes.client_urls,
        })
    }

    pub(super) fn raft_attributes(&self) -> RaftAttributes {
        RaftAttributes { peer_urls: self.peer_urls.clone(), is_learner: self.is_learner }
    }

    pub(super) fn attributes(&self) -> Attributes {
        Attributes { name: self.name.clone(), client_urls: self.client_urls.clone() }
    }

    /// As the client API shows it.
    #[must_use]
    pub fn to_wire(&self) -> pb::Member {
        pb::Member {
            id: self.id.0,
            name: self.name.clone(),
            peer_ur_ls: self.peer_urls.clone(),
            client_ur_ls: self.client_urls.clone(),
            is_learner: self.is_learner,
        }
    }
}

/// JSON with the escapes that Go's encoder adds for the sake of browsers, so that the bytes are the same.
pub(super) fn to_go_json(value: &impl Serialize) -> Vec<u8> {
    let plain = serde_json::to_string(value).expect("strings, numbers and lists have a JSON form");
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::Member;
    use milepost_types::MemberId;

    #[test]
    fn json_is_etcds() {
        let mut member =
            Member { id: MemberId(u64::MAX), peer_urls: vec!["http://a:1?x&y".into()], ..Member::default() };
        assert_eq!(
            String::from_utf8(member.to_json()).unwrap(),
            r#"{"id":18446744073709551615,"peerURLs":["http://a:1?x\u0026y"]}"#
        );
        (member.is_learner, member.name, member.client_urls) = (true, "n".into(), vec!["http://c".into()]);
        assert_eq!(
            String::from_utf8(member.to_json()).unwrap(),
            r#"{"id":18446744073709551615,"peerURLs":["http://a:1?x\u0026y"],"isLearner":true,"name":"n","clientURLs":["http://c"]}"#
        );
        assert_eq!(Member::from_json(&member.to_json()).unwrap(), member);
    }

    #[test]
    fn reads_what_go_may_write() {
        let member = Member::from_json(br#"{"id":7,"peerURLs":null,"isPromote":true,"clientURLs":null}"#).unwrap();
        assert_eq!(member, Member { id: MemberId(7), ..Member::default() });
        assert!(Member::from_json(b"[]").is_err() && Member::from_json(br#"{"id":-1}"#).is_err());
    }
}
