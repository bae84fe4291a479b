//! `--write-out=simple`: lines for people and for `grep`.

use milepost_proto::authpb::Permission;
use milepost_proto::authpb::permission::Type as PermissionType;
use milepost_proto::etcdserverpb::{self as pb, response_op::Response};
use milepost_proto::mvccpb::{Event, KeyValue, event::EventType};

use super::{Answer, Health, hash_rows, member_rows, status_rows};
use crate::out;
use crate::outcome::Outcome;
use crate::range::prefix_end;

/// How keys and values are shown.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub hex: bool,
    pub value_only: bool,
}

/// Appends a line to a page of bytes.
macro_rules! line {
    ($page:expr, $($text:tt)*) => {{
        $page.extend_from_slice(format!($($text)*).as_bytes());
        $page.push(b'\n');
    }};
}

pub(super) fn render(answer: Answer<'_>, style: Style) -> Vec<u8> {
    let mut page = Vec::new();
    match answer {
        Answer::Put(answer) => put(answer, style, &mut page),
        Answer::Get(answer) => answer.kvs.iter().for_each(|kv| pair(kv, style, &mut page)),
        Answer::Del(answer) => del(answer, style, &mut page),
        Answer::Txn(answer) => txn(answer, style, &mut page),
        Answer::Watch(answer) => answer.events.iter().for_each(|event| changed(event, style, &mut page)),
        Answer::Grant(pb::LeaseGrantResponse { id, ttl, .. }) => {
            line!(page, "lease {id:016x} granted with TTL({ttl}s)");
        }
        Answer::Revoke(id, _) => line!(page, "lease {id:016x} revoked"),
        Answer::KeepAlive(pb::LeaseKeepAliveResponse { id, ttl, .. }) => {
            line!(page, "lease {id:016x} keepalived with TTL({ttl})");
        }
        Answer::TimeToLive(answer, with_keys) => time_to_live(answer, with_keys, &mut page),
        Answer::Leases(answer) => {
            line!(page, "found {} leases", answer.leases.len());
            answer.leases.iter().for_each(|lease| line!(page, "{:016x}", lease.id));
        }
        Answer::Alarm(answer) => answer.alarms.iter().for_each(|alarm| line!(page, "{}", alarm_text(alarm))),
        Answer::EndpointHealth(_) => {}
        Answer::EndpointStatus(all) => rows(status_rows(all), &mut page),
        Answer::EndpointHashKv(all) => rows(hash_rows(all), &mut page),
        Answer::MemberList(answer) => rows(member_rows(answer), &mut page),
        Answer::MemberAdd(answer) => {
            let member = answer.member.clone().unwrap_or_default();
            let role = if member.is_learner { "as learner " } else { "" };
            line!(page, "Member {:>16x} added {role}to cluster {:>16x}", member.id, cluster(&answer.header));
        }
        Answer::MemberRemove(id, answer) => {
            line!(page, "Member {id:>16x} removed from cluster {:>16x}", cluster(&answer.header));
        }
        Answer::MemberUpdate(id, answer) => {
            line!(page, "Member {id:>16x} updated in cluster {:>16x}", cluster(&answer.header));
        }
        Answer::MemberPromote(id, answer) => {
            line!(page, "Member {id:>16x} promoted in cluster {:>16x}", cluster(&answer.header));
        }
        Answer::MoveLeader(from, to, _) => line!(page, "Leadership transferred from {from:x} to {to:x}"),
        Answer::Downgrade(action, answer) => {
            line!(page, "Downgrade {action} success, cluster version {}", answer.version);
        }
        Answer::AuthStatus(answer) => {
            line!(page, "Authentication Status: {}", answer.enabled);
            line!(page, "AuthRevision: {}", answer.auth_revision);
        }
        Answer::RoleAdd(role, _) => line!(page, "Role {role} created"),
        Answer::RoleDelete(role, _) => line!(page, "Role {role} deleted"),
        Answer::RoleGrant(role, _) => line!(page, "Role {role} updated"),
        Answer::RoleGet(role, answer) => permissions(role, &answer.perm, &mut page),
        Answer::RoleList(answer) => answer.roles.iter().for_each(|role| line!(page, "{role}")),
        Answer::RoleRevoke(role, key, end, _) => revoked(role, key, end, &mut page),
        Answer::UserAdd(user, _) => line!(page, "User {user} created"),
        Answer::UserDelete(user, _) => line!(page, "User {user} deleted"),
        Answer::UserPasswd(_) => line!(page, "Password updated"),
        Answer::UserGet(user, answer) => {
            line!(page, "User: {user}");
            let roles: String = answer.roles.iter().map(|role| format!(" {role}")).collect();
            line!(page, "Roles:{roles}");
        }
        Answer::UserList(answer) => answer.users.iter().for_each(|user| line!(page, "{user}")),
        Answer::UserGrantRole(user, role, _) => line!(page, "Role {role} is granted to user {user}"),
        Answer::UserRevokeRole(user, role, _) => line!(page, "Role {role} is revoked from user {user}"),
    }
    page
}

/// The only answer that uses both streams: who is well on stdout, who is not on stderr.
pub(super) fn endpoint_health(all: &[Health]) -> Outcome {
    for Health { endpoint, took, error, .. } in all {
        if error.is_empty() {
            out::line(format_args!("{endpoint} is healthy: successfully committed proposal: took = {took}"))?;
        } else {
            out::complain(format_args!("{endpoint} is unhealthy: failed to commit proposal: {error}"));
        }
    }
    Ok(())
}

/// An alarm as Go prints such a message. How many spaces stand between the fields depends on the build there.
pub(super) fn alarm_text(alarm: &pb::AlarmMember) -> String {
    let mut fields = Vec::new();
    if alarm.member_id != 0 {
        fields.push(format!("memberID:{}", alarm.member_id));
    }
    if alarm.alarm != 0 {
        fields.push(format!("alarm:{}", alarm_name(alarm.alarm)));
    }
    fields.join("  ")
}

/// The alarm's name; an unknown one is its number.
pub(super) fn alarm_name(alarm: i32) -> String {
    pb::AlarmType::try_from(alarm).map_or_else(|_| alarm.to_string(), |alarm| alarm.as_str_name().to_owned())
}

fn cluster(header: &Option<pb::ResponseHeader>) -> u64 {
    header.as_ref().map_or(0, |header| header.cluster_id)
}

fn rows(rows: Vec<Vec<String>>, page: &mut Vec<u8>) {
    rows.iter().for_each(|row| line!(page, "{}", row.join(", ")));
}

fn pair(kv: &KeyValue, style: Style, page: &mut Vec<u8>) {
    let mut bytes = |bytes: &[u8]| {
        if style.hex {
            bytes.iter().for_each(|byte| page.extend_from_slice(format!("\\x{byte:02x}").as_bytes()));
        } else {
            page.extend_from_slice(bytes);
        }
        page.push(b'\n');
    };
    if !style.value_only {
        bytes(&kv.key);
    }
    bytes(&kv.value);
}

fn put(answer: &pb::PutResponse, style: Style, page: &mut Vec<u8>) {
    line!(page, "OK");
    answer.prev_kv.iter().for_each(|kv| pair(kv, style, page));
}

fn del(answer: &pb::DeleteRangeResponse, style: Style, page: &mut Vec<u8>) {
    line!(page, "{}", answer.deleted);
    answer.prev_kvs.iter().for_each(|kv| pair(kv, style, page));
}

fn txn(answer: &pb::TxnResponse, style: Style, page: &mut Vec<u8>) {
    line!(page, "{}", if answer.succeeded { "SUCCESS" } else { "FAILURE" });
    for op in &answer.responses {
        page.push(b'\n');
        match &op.response {
            Some(Response::ResponseRange(answer)) => answer.kvs.iter().for_each(|kv| pair(kv, style, page)),
            Some(Response::ResponsePut(answer)) => put(answer, style, page),
            Some(Response::ResponseDeleteRange(answer)) => del(answer, style, page),
            Some(Response::ResponseTxn(answer)) => txn(answer, style, page),
            None => {}
        }
    }
}

fn changed(event: &Event, style: Style, page: &mut Vec<u8>) {
    line!(page, "{}", EventType::try_from(event.r#type).unwrap_or_default().as_str_name());
    event.prev_kv.iter().chain(&event.kv).for_each(|kv| pair(kv, style, page));
}

fn time_to_live(answer: &pb::LeaseTimeToLiveResponse, with_keys: bool, page: &mut Vec<u8>) {
    let pb::LeaseTimeToLiveResponse { id, ttl, granted_ttl, keys, .. } = answer;
    if *granted_ttl == 0 && *ttl == -1 {
        line!(page, "lease {id:016x} already expired");
        return;
    }
    page.extend_from_slice(format!("lease {id:016x} granted with TTL({granted_ttl}s), remaining({ttl}s)").as_bytes());
    if with_keys {
        page.extend_from_slice(b", attached keys([");
        page.extend_from_slice(&keys.join(&b' '));
        page.extend_from_slice(b"])");
    }
    page.push(b'\n');
}

fn permissions(role: &str, all: &[Permission], page: &mut Vec<u8>) {
    line!(page, "Role {role}");
    for (title, half) in [("KV Read:", PermissionType::Read), ("KV Write:", PermissionType::Write)] {
        line!(page, "{title}");
        if role == "root" && all.is_empty() {
            line!(page, "\t[, <open ended>");
        }
        let allows = |kind: i32| kind == half as i32 || kind == PermissionType::Readwrite as i32;
        all.iter().filter(|permission| allows(permission.perm_type)).for_each(|permission| granted(permission, page));
    }
}

fn granted(permission: &Permission, page: &mut Vec<u8>) {
    let (key, end) = (&permission.key, &permission.range_end);
    page.push(b'\t');
    if end.is_empty() {
        page.extend_from_slice(key);
    } else {
        range(key, end, page);
        if !key.is_empty() && prefix_end(key) == end.as_ref() {
            page.extend_from_slice(b" (prefix ");
            page.extend_from_slice(key);
            page.push(b')');
        }
    }
    page.push(b'\n');
}

fn range(key: &[u8], end: &[u8], page: &mut Vec<u8>) {
    page.push(b'[');
    page.extend_from_slice(key);
    page.extend_from_slice(b", ");
    if end == b"\0" {
        page.extend_from_slice(b"<open ended>");
    } else {
        page.extend_from_slice(end);
        page.push(b')');
    }
}

fn revoked(role: &str, key: &[u8], end: &[u8], page: &mut Vec<u8>) {
    if end.is_empty() {
        page.extend_from_slice(b"Permission of key ");
        page.extend_from_slice(key);
    } else {
        page.extend_from_slice(b"Permission of range ");
        range(key, end, page);
    }
    line!(page, " is revoked from role {role}");
}
