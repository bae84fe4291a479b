//! `--write-out=json`: what `encoding/json` makes of Go's structs, which is not the JSON of protobuf: numbers are
//! numbers, names are those of the fields, zero values are left out where the struct says so.

use milepost_proto::authpb::Permission;
use milepost_proto::etcdserverpb::{self as pb, response_op::Response};
use milepost_proto::mvccpb::{Event, KeyValue};

use super::{Answer, Health};
use crate::go::Json;

pub(super) fn value(answer: Answer<'_>, hex: bool) -> Json {
    match answer {
        Answer::Put(answer) => put(answer),
        Answer::Get(answer) => get(answer),
        Answer::Del(answer) => del(answer),
        Answer::Txn(answer) => txn(answer),
        Answer::Watch(answer) => watch(answer),
        Answer::Grant(answer) => flat(
            &answer.header,
            vec![("ID", answer.id.into()), ("TTL", answer.ttl.into()), ("Error", answer.error.as_str().into())],
        ),
        Answer::KeepAlive(answer) => flat(&answer.header, vec![("ID", answer.id.into()), ("TTL", answer.ttl.into())]),
        Answer::TimeToLive(answer, _) => time_to_live(answer),
        Answer::Leases(answer) => {
            let leases = answer.leases.iter().map(|lease| Json::Object(vec![("id", lease.id.into())])).collect();
            flat(&answer.header, vec![("leases", Json::List(leases))])
        }
        Answer::Revoke(_, answer) => only_header(&answer.header),
        Answer::Alarm(answer) => {
            let alarms = answer
                .alarms
                .iter()
                .map(|alarm| Json::sparse(vec![("memberID", alarm.member_id.into()), ("alarm", alarm.alarm.into())]));
            with_header(&answer.header, vec![("alarms", Json::List(alarms.collect()))])
        }
        Answer::MemberAdd(answer) => {
            let added = answer.member.as_ref();
            if hex {
                let added = added.map_or(Json::Null, hex_member);
                hex_members(&answer.header, vec![("member", added)], &answer.members)
            } else {
                with_header(&answer.header, vec![("member", added.map(member).into()), members(&answer.members)])
            }
        }
        Answer::MemberRemove(_, pb::MemberRemoveResponse { header, members: all })
        | Answer::MemberUpdate(_, pb::MemberUpdateResponse { header, members: all })
        | Answer::MemberPromote(_, pb::MemberPromoteResponse { header, members: all })
        | Answer::MemberList(pb::MemberListResponse { header, members: all }) => {
            if hex {
                hex_members(header, Vec::new(), all)
            } else {
                with_header(header, vec![members(all)])
            }
        }
        Answer::EndpointHealth(all) => list(all.iter().map(health)),
        Answer::EndpointStatus(all) => list(all.iter().map(|(endpoint, answer)| {
            Json::Object(vec![("Endpoint", endpoint.as_str().into()), ("Status", status(answer))])
        })),
        Answer::EndpointHashKv(all) => list(all.iter().map(|(endpoint, answer)| {
            let fields = vec![
                ("hash", answer.hash.into()),
                ("compact_revision", answer.compact_revision.into()),
                ("hash_revision", answer.hash_revision.into()),
            ];
            let answer = with_header(&answer.header, fields);
            Json::Object(vec![("Endpoint", endpoint.as_str().into()), ("HashKV", answer)])
        })),
        Answer::MoveLeader(_, _, answer) => only_header(&answer.header),
        Answer::Downgrade(_, answer) => with_header(&answer.header, vec![("version", answer.version.as_str().into())]),
        Answer::AuthStatus(answer) => with_header(
            &answer.header,
            vec![("enabled", answer.enabled.into()), ("authRevision", answer.auth_revision.into())],
        ),
        Answer::RoleGet(_, answer) => {
            let all = answer.perm.iter().map(permission).collect();
            with_header(&answer.header, vec![("perm", Json::List(all))])
        }
        Answer::RoleList(answer) => with_header(&answer.header, vec![("roles", answer.roles.clone().into())]),
        Answer::UserGet(_, answer) => with_header(&answer.header, vec![("roles", answer.roles.clone().into())]),
        Answer::UserList(answer) => with_header(&answer.header, vec![("users", answer.users.clone().into())]),
        Answer::RoleAdd(_, answer) => only_header(&answer.header),
        Answer::RoleDelete(_, answer) => only_header(&answer.header),
        Answer::RoleGrant(_, answer) => only_header(&answer.header),
        Answer::RoleRevoke(_, _, _, answer) => only_header(&answer.header),
        Answer::UserAdd(_, answer) => only_header(&answer.header),
        Answer::UserPasswd(answer) => only_header(&answer.header),
        Answer::UserGrantRole(_, _, answer) => only_header(&answer.header),
        Answer::UserRevokeRole(_, _, answer) => only_header(&answer.header),
        Answer::UserDelete(_, answer) => only_header(&answer.header),
    }
}

type Members = Vec<(&'static str, Json)>;
type Header = Option<pb::ResponseHeader>;

fn header_members(header: &pb::ResponseHeader) -> Members {
    vec![
        ("cluster_id", header.cluster_id.into()),
        ("member_id", header.member_id.into()),
        ("revision", header.revision.into()),
        ("raft_term", header.raft_term.into()),
    ]
}

fn header_value(header: &Header) -> Json {
    header.as_ref().map_or(Json::Null, |header| Json::sparse(header_members(header)))
}

fn with_header(header: &Header, fields: Members) -> Json {
    let mut all = vec![("header", header_value(header))];
    all.extend(fields);
    Json::sparse(all)
}

fn only_header(header: &Header) -> Json {
    with_header(header, Vec::new())
}

/// Leases: Go's wrapper embeds the header, so its members stand beside the others; those are never left out.
fn flat(header: &Header, fields: Members) -> Json {
    let mut all = match header.as_ref().map(|header| Json::sparse(header_members(header))) {
        Some(Json::Object(members)) => members,
        _ => Vec::new(),
    };
    all.extend(fields);
    Json::Object(all)
}

/// A slice that Go never made is `null`.
fn list(items: impl Iterator<Item = Json>) -> Json {
    let items: Vec<Json> = items.collect();
    if items.is_empty() { Json::Null } else { Json::List(items) }
}

fn pair(kv: &KeyValue) -> Json {
    Json::sparse(vec![
        ("key", Json::bytes(&kv.key)),
        ("create_revision", kv.create_revision.into()),
        ("mod_revision", kv.mod_revision.into()),
        ("version", kv.version.into()),
        ("value", Json::bytes(&kv.value)),
        ("lease", kv.lease.into()),
    ])
}

fn put(answer: &pb::PutResponse) -> Json {
    with_header(&answer.header, vec![("prev_kv", answer.prev_kv.as_ref().map(pair).into())])
}

fn get(answer: &pb::RangeResponse) -> Json {
    with_header(
        &answer.header,
        vec![
            ("kvs", Json::List(answer.kvs.iter().map(pair).collect())),
            ("more", answer.more.into()),
            ("count", answer.count.into()),
        ],
    )
}

fn del(answer: &pb::DeleteRangeResponse) -> Json {
    let previous = answer.prev_kvs.iter().map(pair).collect();
    with_header(&answer.header, vec![("deleted", answer.deleted.into()), ("prev_kvs", Json::List(previous))])
}

fn txn(answer: &pb::TxnResponse) -> Json {
    let wrapped = |op: &pb::ResponseOp| {
        let inner = match &op.response {
            Some(Response::ResponseRange(answer)) => vec![("response_range", get(answer))],
            Some(Response::ResponsePut(answer)) => vec![("response_put", put(answer))],
            Some(Response::ResponseDeleteRange(answer)) => vec![("response_delete_range", del(answer))],
            Some(Response::ResponseTxn(answer)) => vec![("response_txn", txn(answer))],
            None => Vec::new(),
        };
        Json::Object(vec![("Response", Json::Object(inner))])
    };
    let responses = answer.responses.iter().map(wrapped).collect();
    with_header(&answer.header, vec![("succeeded", answer.succeeded.into()), ("responses", Json::List(responses))])
}

fn watch(answer: &pb::WatchResponse) -> Json {
    let event = |event: &Event| {
        Json::sparse(vec![
            ("type", event.r#type.into()),
            ("kv", event.kv.as_ref().map(pair).into()),
            ("prev_kv", event.prev_kv.as_ref().map(pair).into()),
        ])
    };
    Json::Object(vec![
        ("Header", header_value(&answer.header)),
        ("Events", list(answer.events.iter().map(event))),
        ("CompactRevision", answer.compact_revision.into()),
        ("Canceled", answer.canceled.into()),
        ("Created", answer.created.into()),
        ("CancelReason", answer.cancel_reason.as_str().into()),
    ])
}

fn time_to_live(answer: &pb::LeaseTimeToLiveResponse) -> Json {
    let keys = list(answer.keys.iter().map(|key| Json::bytes(key)));
    flat(
        &answer.header,
        vec![
            ("id", answer.id.into()),
            ("ttl", answer.ttl.into()),
            ("granted-ttl", answer.granted_ttl.into()),
            ("keys", keys),
        ],
    )
}

fn member(member: &pb::Member) -> Json {
    Json::sparse(vec![
        ("ID", member.id.into()),
        ("name", member.name.as_str().into()),
        ("peerURLs", member.peer_ur_ls.clone().into()),
        ("clientURLs", member.client_ur_ls.clone().into()),
        ("isLearner", member.is_learner.into()),
    ])
}

fn members(all: &[pb::Member]) -> (&'static str, Json) {
    ("members", Json::List(all.iter().map(member).collect()))
}

/// With `--hex`: ids as hexadecimal texts, and nothing left out around them.
fn hex_members(header: &Header, before: Members, all: &[pb::Member]) -> Json {
    let header = header.as_ref().map_or(Json::Null, |header| {
        let mut fields = vec![
            ("cluster_id", format!("{:x}", header.cluster_id).into()),
            ("member_id", format!("{:x}", header.member_id).into()),
        ];
        if let Json::Object(rest) =
            Json::sparse(vec![("revision", header.revision.into()), ("raft_term", header.raft_term.into())])
        {
            fields.extend(rest);
        }
        Json::Object(fields)
    });
    let mut fields = vec![("header", header)];
    fields.extend(before);
    fields.push(("members", Json::List(all.iter().map(hex_member).collect())));
    Json::Object(fields)
}

fn hex_member(one: &pb::Member) -> Json {
    let mut fields = vec![("ID", Json::from(format!("{:x}", one.id)))];
    if let Json::Object(rest) = member(&pb::Member { id: 0, ..one.clone() }) {
        fields.extend(rest);
    }
    Json::Object(fields)
}

fn health(health: &Health) -> Json {
    let mut fields = vec![
        ("endpoint", health.endpoint.as_str().into()),
        ("health", health.healthy.into()),
        ("took", health.took.as_str().into()),
    ];
    if !health.error.is_empty() {
        fields.push(("error", health.error.as_str().into()));
    }
    Json::Object(fields)
}

fn status(answer: &pb::StatusResponse) -> Json {
    let downgrade = answer.downgrade_info.as_ref().map(|info| {
        Json::sparse(vec![("enabled", info.enabled.into()), ("targetVersion", info.target_version.as_str().into())])
    });
    with_header(
        &answer.header,
        vec![
            ("version", answer.version.as_str().into()),
            ("dbSize", answer.db_size.into()),
            ("leader", answer.leader.into()),
            ("raftIndex", answer.raft_index.into()),
            ("raftTerm", answer.raft_term.into()),
            ("raftAppliedIndex", answer.raft_applied_index.into()),
            ("errors", answer.errors.clone().into()),
            ("dbSizeInUse", answer.db_size_in_use.into()),
            ("isLearner", answer.is_learner.into()),
            ("storageVersion", answer.storage_version.as_str().into()),
            ("dbSizeQuota", answer.db_size_quota.into()),
            ("downgradeInfo", downgrade.into()),
        ],
    )
}

fn permission(permission: &Permission) -> Json {
    Json::sparse(vec![
        ("permType", permission.perm_type.into()),
        ("key", Json::bytes(&permission.key)),
        ("range_end", Json::bytes(&permission.range_end)),
    ])
}
