//! `--force-new-cluster`: a member that lost the others for good goes on as the whole cluster.
//!
//! What is not known to be committed is dropped (the others may have committed something else in its place, and nobody
//! was answered for it here), and entries that remove everybody else are appended and taken for committed. The data of the
//! other members must never be used again: two clusters with one id would come of it. So the caller is asked whether
//! one of them is still alive.
//!
//! Source: etcd `bootstrapWALFromSnapshot`, `CreateConfigChangeEnts`. A member that is no voter is refused here; etcd
//! ends in a panic then.

use super::{Recovery, StartError};
use crate::log::{Log, Value};
use milepost_machine::Machine;
use milepost_machine::member::{Member, remove};
use milepost_proto::{Message as _, raftpb};
use milepost_types::MemberId;
use std::collections::BTreeMap;

/// Is a member of the configuration a voter?
type Config = BTreeMap<u64, bool>;

/// Drops what is not committed and everybody else.
pub(crate) fn alone(
    recovery: &mut Recovery,
    machine: &Machine,
    may_drop: &dyn Fn(&[Member]) -> Result<(), String>,
    log: &dyn Log,
) -> Result<(), StartError> {
    if recovery.fresh {
        return Ok(());
    }
    let restart = &mut recovery.restart;
    let mut hard_state = restart.hard_state;
    let kept = restart.entries.partition_point(|entry| entry.index() <= hard_state.commit());
    let config = config_at_end(machine.conf_state(), restart.applied, &restart.entries[..kept]);
    if config.get(&recovery.member.0) != Some(&true) {
        return Err(StartError::Force(format!(
            "member {} is no voter of its cluster, so it cannot go on alone; use the data directory of a voter, or restore \
             a snapshot (etcdutl snapshot restore)",
            recovery.member
        )));
    }
    let mut others = machine.reader().membership().members.clone();
    follow(&mut others, restart.applied, &restart.entries[..kept]);
    others.remove(&recovery.member);
    may_drop(&others.into_values().collect::<Vec<_>>()).map_err(StartError::Force)?;
    let dropped = restart.entries.len() - kept;
    if dropped > 0 {
        let fields = [
            ("entry-index", Value::from(restart.entries[kept].index())),
            ("commit-index-from-wal", Value::from(hard_state.commit())),
            ("number-of-discarded-entries", Value::from(dropped)),
        ];
        log.info("discarding uncommitted WAL entries", &fields);
        restart.entries.truncate(kept);
    }
    let ids = config.into_keys().filter(|&id| id != recovery.member.0);
    let removals: Vec<raftpb::Entry> =
        (hard_state.commit() + 1..).zip(ids).map(|(index, id)| removal(index, hard_state.term(), id)).collect();
    if let Some(last) = removals.last() {
        hard_state.commit = Some(last.index());
        restart.entries.extend_from_slice(&removals);
    }
    restart.hard_state = hard_state;
    recovery.wal.append(&removals, Some(&hard_state))?;
    recovery.wal.sync()?;
    Ok(())
}

fn removal(index: u64, term: u64, id: u64) -> raftpb::Entry {
    let change = raftpb::ConfChange { id: None, ..remove(0, MemberId(id)) };
    raftpb::Entry { term: Some(term), index: Some(index), r#type: Some(1), data: Some(change.encode_to_vec().into()) }
}

/// Whom `entries` add, with their URLs: the store may not have them yet.
fn follow(members: &mut BTreeMap<MemberId, Member>, applied: u64, entries: &[raftpb::Entry]) {
    for entry in entries.iter().filter(|entry| entry.index() > applied && entry.r#type() == 1) {
        let Ok(change) = raftpb::ConfChange::decode(entry.data()) else { continue };
        let id = MemberId(change.node_id());
        if change.r#type() == 1 {
            members.remove(&id);
            continue;
        }
        let Ok(member) = Member::from_json(change.context()) else { continue };
        let known = members.entry(id).or_insert_with(|| Member { id, ..Member::default() });
        if !member.peer_urls.is_empty() {
            known.peer_urls = member.peer_urls;
        }
    }
}

/// The configuration after `entries`. Those that apply will refuse are taken for accepted: removing somebody who is not
/// there is refused in turn.
fn config_at_end(at_applied: &raftpb::ConfState, applied: u64, entries: &[raftpb::Entry]) -> Config {
    let mut config: Config = at_applied.learners.iter().map(|&id| (id, false)).collect();
    config.extend(at_applied.voters.iter().map(|&id| (id, true)));
    for entry in entries.iter().filter(|entry| entry.index() > applied && entry.r#type() == 1) {
        let Ok(change) = raftpb::ConfChange::decode(entry.data()) else { continue };
        match change.r#type() {
            0 => _ = config.insert(change.node_id(), true),
            1 => _ = config.remove(&change.node_id()),
            3 => _ = config.entry(change.node_id()).or_insert(false),
            _ => {}
        }
    }
    config
}
