//! From replies to text.

use std::fmt::Write;

use milepost_machine::{Applied, Effect, Error, Fatal, Reader, Reply};
use milepost_proto::etcdserverpb as pb;
use milepost_proto::mvccpb::KeyValue;
use pb::response_op::Response;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\\0")
}

fn kv(kv: &KeyValue) -> String {
    let lease = if kv.lease == 0 { String::new() } else { format!(" lease={}", kv.lease) };
    let (key, value) = (text(&kv.key), text(&kv.value));
    format!("{key}={value} create={} mod={} version={}{lease}", kv.create_revision, kv.mod_revision, kv.version)
}

fn revision(header: Option<&pb::ResponseHeader>) -> String {
    header.map_or("no header".into(), |header| format!("rev={}", header.revision))
}

pub fn outcome(result: Result<String, Error>) -> String {
    result.unwrap_or_else(|error| format!("error: {error}\n"))
}

pub fn range(reply: &pb::RangeResponse) -> String {
    let more = if reply.more { " more" } else { "" };
    let mut out = format!("range {} count={}{more}\n", revision(reply.header.as_ref()), reply.count);
    for pair in &reply.kvs {
        writeln!(out, "  {}", kv(pair)).unwrap();
    }
    out
}

pub fn txn(reply: &pb::TxnResponse) -> String {
    let mut out = format!("txn {} succeeded={}\n", revision(reply.header.as_ref()), reply.succeeded);
    for op in &reply.responses {
        let inner = match &op.response {
            Some(Response::ResponseRange(reply)) => range(reply),
            Some(Response::ResponsePut(reply)) => put(reply),
            Some(Response::ResponseDeleteRange(reply)) => delete(reply),
            Some(Response::ResponseTxn(reply)) => txn(reply),
            None => "nothing\n".into(),
        };
        for line in inner.lines() {
            writeln!(out, "  {line}").unwrap();
        }
    }
    out
}

fn put(reply: &pb::PutResponse) -> String {
    let prev = reply.prev_kv.as_ref().map(|prev| format!(" prev: {}", kv(prev))).unwrap_or_default();
    format!("put {}{prev}\n", revision(reply.header.as_ref()))
}

fn delete(reply: &pb::DeleteRangeResponse) -> String {
    let mut out = format!("del {} deleted={}\n", revision(reply.header.as_ref()), reply.deleted);
    for prev in &reply.prev_kvs {
        writeln!(out, "  prev: {}", kv(prev)).unwrap();
    }
    out
}

fn members(members: &[pb::Member]) -> String {
    let mut out = String::new();
    for member in members {
        let learner = if member.is_learner { " learner" } else { "" };
        let (peers, clients) = (member.peer_ur_ls.join(","), member.client_ur_ls.join(","));
        writeln!(out, "  member {:x} peers={peers} name={} clients={clients}{learner}", member.id, member.name)
            .unwrap();
    }
    out
}

fn alarms(alarms: &[pb::AlarmMember]) -> String {
    let line = |alarm: &pb::AlarmMember| format!("  alarm {:x} {}\n", alarm.member_id, alarm.alarm().as_str_name());
    alarms.iter().map(line).collect()
}

fn reply(reply: &Reply) -> String {
    match reply {
        Reply::Put(reply) => put(reply),
        Reply::Range(reply) => range(reply),
        Reply::DeleteRange(reply) => delete(reply),
        Reply::Txn(reply) => txn(reply),
        Reply::Compaction(reply) => format!("compacted {}\n", revision(reply.header.as_ref())),
        Reply::LeaseGrant(reply) => {
            format!("granted {} id={} ttl={}\n", revision(reply.header.as_ref()), reply.id, reply.ttl)
        }
        Reply::LeaseRevoke(reply) => format!("revoked {}\n", revision(reply.header.as_ref())),
        Reply::LeaseCheckpoint(reply) => format!("checkpointed {}\n", revision(reply.header.as_ref())),
        Reply::Alarm(reply) => format!("alarms {}\n{}", revision(reply.header.as_ref()), alarms(&reply.alarms)),
        Reply::AuthStatus(reply) => format!("auth enabled={} revision={}\n", reply.enabled, reply.auth_revision),
        Reply::ConfChange(list) => format!("members\n{}", members(list)),
        Reply::Empty => "done\n".into(),
    }
}

pub fn applied(result: Result<Applied, Fatal>) -> String {
    let applied = match result {
        Ok(applied) => applied,
        Err(fatal) => return format!("FATAL: {fatal}\n"),
    };
    let mut out = match &applied.reply {
        None => "no reply\n".into(),
        Some(Ok(ok)) => reply(ok),
        Some(Err(error)) => format!("error: {error}\n"),
    };
    if let Some(batch) = &applied.events {
        for record in &batch.records {
            let kind = if record.is_tombstone() { "delete" } else { "put" };
            writeln!(out, "  event {} {kind} {}", record.revision, text(&record.key)).unwrap();
        }
    }
    for effect in &applied.effects {
        writeln!(out, "  effect {}", self::effect(effect)).unwrap();
    }
    out
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::ConfChange { change, peer_urls, conf_state } => {
            let change = change.as_ref().map_or("refused".into(), |change| {
                format!("kind {} of {:x} at [{}]", change.r#type(), change.node_id(), peer_urls.join(","))
            });
            format!("raft: {change}; voters {:x?} learners {:x?}", conf_state.voters, conf_state.learners)
        }
        Effect::RaiseAlarm { member, alarm } => format!("raise {} for {member}", alarm.as_str_name()),
        Effect::ClusterVersion { version, lowered } => format!("cluster version {version} lowered={lowered}"),
        Effect::MemberAttributes { member } => format!("attributes of {member}"),
        Effect::PhysicalCompaction { revision } => format!("wait for compaction to {revision}"),
        Effect::EmptyEntry { term } => format!("first entry of term {term}"),
    }
}

/// Everything that is not keys.
pub fn state(reader: &Reader) -> String {
    let membership = reader.membership();
    let cluster = reader.cluster();
    let removed: Vec<String> = membership.removed.iter().map(ToString::to_string).collect();
    let version = cluster.version.map_or("undecided".into(), |version| version.to_string());
    let mut out = members(&membership.to_wire());
    let downgrade = if cluster.downgrade.enabled { &cluster.downgrade.target } else { "none" };
    writeln!(out, "  removed [{}], version {version}, downgrade {downgrade}", removed.join(" ")).unwrap();
    out += &alarms(&reader.alarms().list(0));
    for id in reader.lessor().ids() {
        let (ttl, remaining) = reader.lessor().replicated(id).unwrap();
        let keys: Vec<String> = reader.store().view().attached(id).unwrap().iter().map(|key| text(key)).collect();
        writeln!(out, "  lease {} ttl={ttl} remaining={remaining} keys={}", id.0, keys.join(",")).unwrap();
    }
    out
}
