//! Raft's configuration as the store keeps it: etcd's JSON.

use milepost_proto::raftpb::ConfState;
use serde::{Deserialize, Serialize};

/// Empty lists and unset marks are left out, as etcd 3.7 does; 3.5 and 3.6 write `auto_leave` always.
#[derive(Serialize, Deserialize)]
struct Json {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voters: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voters_outgoing: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners_next: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auto_leave: Option<bool>,
}

/// The bytes that [`milepost_mvcc::Change::set_conf_state`] stores.
#[must_use]
pub fn conf_state_to_bytes(state: &ConfState) -> Vec<u8> {
    let json = Json {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave,
    };
    serde_json::to_vec(&json).expect("numbers and lists have a JSON form")
}

/// The reverse of [`conf_state_to_bytes`]; nothing stored is the empty configuration.
///
/// # Errors
/// If `bytes` is not that JSON.
pub fn conf_state_from_bytes(bytes: &[u8]) -> Result<ConfState, serde_json::Error> {
    if bytes.is_empty() {
        return Ok(ConfState::default());
    }
    let Json { voters, learners, voters_outgoing, learners_next, auto_leave } = serde_json::from_slice(bytes)?;
    Ok(ConfState { voters, learners, voters_outgoing, learners_next, auto_leave })
}

#[cfg(test)]
mod tests {
    use super::{ConfState, conf_state_from_bytes, conf_state_to_bytes};

    #[test]
    fn there_and_back() {
        let state = ConfState { voters: vec![u64::MAX, 1], learners: vec![2], ..ConfState::default() };
        let bytes = conf_state_to_bytes(&state);
        assert_eq!(bytes, br#"{"voters":[18446744073709551615,1],"learners":[2]}"#);
        assert_eq!(conf_state_from_bytes(&bytes).unwrap(), state);
        assert_eq!(conf_state_from_bytes(b"").unwrap(), ConfState::default());
        let old = conf_state_from_bytes(br#"{"voters":[1],"auto_leave":false}"#).unwrap();
        assert_eq!((old.voters, old.auto_leave), (vec![1], Some(false)));
        assert!(conf_state_from_bytes(b"x").is_err());
    }
}
