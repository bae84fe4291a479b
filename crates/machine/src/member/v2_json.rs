//! The membership as a v2 store: what the data of a Raft snapshot carries.
//!
//! etcd up to 3.6 refuses a snapshot whose data does not parse as this; 3.7 writes it and ignores it.
//! ```text
//! /                                           a directory has Children, a file has null
//! ├─ 0/                                       the cluster's own part
//! │  ├─ members/<hex id>/raftAttributes       {"peerURLs":[..],"isLearner":true}
//! │  │                  /attributes           {"name":"..","clientURLs":[..]}, once client URLs are known
//! │  ├─ removed_members/<hex id>              empty
//! │  └─ version                               3.7.0
//! └─ 1/                                       the users' part: empty
//! ```
//! Source: `facts/peer-protocol.md` §9.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Membership;
use super::record::to_go_json;
use crate::cluster::Version;

/// Events that the v2 store remembered; its ring must have all its slots or a later insert fails.
const HISTORY: usize = 1000;
/// Go's zero time: never expires.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Store {
    root: Node,
    watcher_hub: WatcherHub,
    current_index: u64,
    stats: Stats,
    current_version: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    path: String,
    created_index: u64,
    modified_index: u64,
    expire_time: &'static str,
    value: String,
    children: Option<BTreeMap<String, Node>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WatcherHub {
    event_history: EventHistory,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventHistory {
    queue: EventQueue,
    start_index: u64,
    last_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventQueue {
    events: Vec<Option<()>>,
    size: u64,
    front: u64,
    back: u64,
    capacity: usize,
}

/// All zero; present because etcd writes them.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    gets_success: u64,
    gets_fail: u64,
    sets_success: u64,
    sets_fail: u64,
    delete_success: u64,
    delete_fail: u64,
    update_success: u64,
    update_fail: u64,
    create_success: u64,
    create_fail: u64,
    compare_and_swap_success: u64,
    compare_and_swap_fail: u64,
    compare_and_delete_success: u64,
    compare_and_delete_fail: u64,
    expire_count: u64,
    watchers: u64,
}

impl Node {
    fn directory(path: &str, index: u64) -> Self {
        Self { children: Some(BTreeMap::new()), ..Self::file(path, String::new(), index) }
    }

    fn file(path: &str, value: String, index: u64) -> Self {
        let path = path.to_owned();
        Self { path, created_index: index, modified_index: index, expire_time: NEVER, value, children: None }
    }

    /// Writes a file below this directory, with the directories on the way.
    fn write(&mut self, names: &[&str], value: String, index: u64) {
        let (name, rest) = names.split_first().expect("a file has a name");
        let path = if self.path == "/" { format!("/{name}") } else { format!("{}/{name}", self.path) };
        let children = self.children.as_mut().expect("files are only written below directories");
        if rest.is_empty() {
            children.insert((*name).to_owned(), Self::file(&path, value, index));
        } else {
            let child = children.entry((*name).to_owned()).or_insert_with(|| Self::directory(&path, index - 1));
            child.write(rest, value, index);
        }
    }
}

pub(super) fn encode(membership: &Membership, version: Option<Version>) -> Vec<u8> {
    let mut root = Node::directory("/", 0);
    for namespace in ["0", "1"] {
        let directory = Node::directory(&format!("/{namespace}"), 0);
        root.children.get_or_insert_default().insert(namespace.to_owned(), directory);
    }
    let mut index = 0;
    let mut write = |names: &[&str], value: Vec<u8>| {
        index += 1;
        root.write(names, String::from_utf8(value).expect("JSON and versions are text"), index);
    };
    for (id, member) in &membership.members {
        let id = id.to_string();
        write(&["0", "members", &id, "raftAttributes"], to_go_json(&member.raft_attributes()));
        if !member.client_urls.is_empty() {
            write(&["0", "members", &id, "attributes"], to_go_json(&member.attributes()));
        }
    }
    for id in &membership.removed {
        write(&["0", "removed_members", &id.to_string()], Vec::new());
    }
    if let Some(version) = version {
        write(&["0", "version"], version.to_string().into_bytes());
    }
    let queue = EventQueue { events: vec![None; HISTORY], size: 0, front: 0, back: 0, capacity: HISTORY };
    to_go_json(&Store {
        root,
        watcher_hub: WatcherHub { event_history: EventHistory { queue, start_index: 0, last_index: 0 } },
        current_index: index,
        stats: Stats::default(),
        current_version: 2,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Member, Membership};
    use super::Version;
    use milepost_types::MemberId;

    #[test]
    fn tree_of_a_cluster() {
        let member = |id, name: &str, learner| Member {
            id: MemberId(id),
            peer_urls: vec![format!("http://p{id}")],
            is_learner: learner,
            name: name.into(),
            client_urls: if name.is_empty() { vec![] } else { vec!["http://c".into()] },
        };
        let members = [member(0x10, "n", false), member(0xa, "", true)];
        let membership = Membership {
            members: members.into_iter().map(|member| (member.id, member)).collect(),
            removed: [MemberId(0xdead)].into(),
        };
        let json: serde_json::Value = serde_json::from_slice(&membership.v2_json(Version::parse("3.7.0"))).unwrap();
        let file = |path: &str| json.pointer(&format!("/Root/Children/0/Children/{path}/Value")).unwrap().clone();
        assert_eq!(file("members/Children/10/Children/raftAttributes"), r#"{"peerURLs":["http://p16"]}"#);
        assert_eq!(file("members/Children/10/Children/attributes"), r#"{"name":"n","clientURLs":["http://c"]}"#);
        assert_eq!(
            file("members/Children/a/Children/raftAttributes"),
            r#"{"peerURLs":["http://p10"],"isLearner":true}"#
        );
        assert_eq!(json.pointer("/Root/Children/0/Children/members/Children/a/Children/attributes"), None);
        assert_eq!(file("removed_members/Children/dead"), "");
        assert_eq!(file("version"), "3.7.0");
        assert_eq!(json["Root"]["Children"]["1"]["Children"], serde_json::json!({}));
        let version = json.pointer("/Root/Children/0/Children/version").unwrap();
        assert_eq!((&version["Path"], &version["Children"]), (&"/0/version".into(), &serde_json::Value::Null));
        assert_eq!(json["CurrentIndex"], 5);
        assert_eq!(json["WatcherHub"]["EventHistory"]["Queue"]["Events"].as_array().unwrap().len(), 1000);
        assert_eq!(json["Stats"]["compareAndDeleteFail"], 0);
    }
}
