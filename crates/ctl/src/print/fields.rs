//! `--write-out=fields`: one `"Name" : value` for each line, texts quoted.

use milepost_proto::authpb::permission::Type as PermissionType;
use milepost_proto::etcdserverpb::{self as pb, response_op::Response};
use milepost_proto::mvccpb::{KeyValue, event::EventType};

use super::{Answer, Health, simple::alarm_name};
use crate::go::quote;

pub(super) fn render(answer: Answer<'_>, hex: bool) -> Option<Vec<u8>> {
    let mut page = Page { text: String::new(), hex };
    match answer {
        Answer::Put(answer) => page.put(answer),
        Answer::Get(answer) => page.get(answer),
        Answer::Del(answer) => page.del(answer),
        Answer::Txn(answer) => page.txn(answer),
        Answer::Watch(answer) => page.watch(answer),
        Answer::Grant(pb::LeaseGrantResponse { header, id, ttl, .. })
        | Answer::KeepAlive(pb::LeaseKeepAliveResponse { header, id, ttl }) => {
            page.header(header);
            page.lease("ID", *id);
            page.field("TTL", ttl);
        }
        Answer::Revoke(_, answer) => page.header(&answer.header),
        Answer::TimeToLive(answer, _) => {
            page.header(&answer.header);
            page.lease("ID", answer.id);
            page.field("TTL", answer.ttl);
            page.field("GrantedTTL", answer.granted_ttl);
            answer.keys.iter().for_each(|key| page.quoted("Key", key));
        }
        Answer::Leases(answer) => {
            page.header(&answer.header);
            answer.leases.iter().for_each(|lease| page.lease("ID", lease.id));
        }
        Answer::Alarm(answer) => {
            page.header(&answer.header);
            for alarm in &answer.alarms {
                page.id("MemberID", alarm.member_id);
                page.field("AlarmType", alarm_name(alarm.alarm));
                page.text.push('\n');
            }
        }
        Answer::MemberList(answer) => page.members(answer),
        Answer::EndpointHealth(all) => all.iter().for_each(|health| page.health(health)),
        Answer::EndpointStatus(all) => all.iter().for_each(|(endpoint, status)| page.status(endpoint, status)),
        Answer::EndpointHashKv(all) => {
            for (endpoint, answer) in all {
                page.header(&answer.header);
                page.quoted("Endpoint", endpoint.as_bytes());
                page.field("Hash", answer.hash);
                page.field("HashRevision", answer.hash_revision);
                page.text.push('\n');
            }
        }
        Answer::RoleGet(_, answer) => page.role(answer),
        Answer::RoleList(answer) => {
            page.header(&answer.header);
            let roles: String = answer.roles.iter().map(|role| format!(" {}", quote(role.as_bytes()))).collect();
            page.text.push_str(&format!("\"Roles\" :{roles}\n"));
        }
        Answer::RoleAdd(_, answer) => page.header(&answer.header),
        Answer::RoleDelete(_, answer) => page.header(&answer.header),
        Answer::RoleGrant(_, answer) => page.header(&answer.header),
        Answer::RoleRevoke(_, _, _, answer) => page.header(&answer.header),
        Answer::UserAdd(_, answer) => page.header(&answer.header),
        Answer::UserPasswd(answer) => page.header(&answer.header),
        Answer::UserGrantRole(_, _, answer) => page.header(&answer.header),
        Answer::UserRevokeRole(_, _, answer) => page.header(&answer.header),
        Answer::UserDelete(_, answer) => page.header(&answer.header),
        _ => return None,
    }
    Some(page.text.into_bytes())
}

struct Page {
    text: String,
    hex: bool,
}

impl Page {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        self.text.push_str(&format!("\"{name}\" : {value}\n"));
    }

    fn quoted(&mut self, name: &str, value: &[u8]) {
        self.field(name, quote(value));
    }

    fn id(&mut self, name: &str, id: u64) {
        if self.hex { self.field(name, format_args!("{id:x}")) } else { self.field(name, id) }
    }

    fn lease(&mut self, name: &str, id: i64) {
        if self.hex { self.field(name, format_args!("{id:016x}")) } else { self.field(name, id) }
    }

    fn header(&mut self, header: &Option<pb::ResponseHeader>) {
        let header = header.unwrap_or_default();
        self.id("ClusterID", header.cluster_id);
        self.id("MemberID", header.member_id);
        // Answers that are not about keys have none.
        if header.revision > 0 {
            self.field("Revision", header.revision);
        }
        self.field("RaftTerm", header.raft_term);
    }

    fn pair(&mut self, prefix: &str, kv: &KeyValue) {
        self.quoted(&format!("{prefix}Key"), &kv.key);
        self.field(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.field(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.field(&format!("{prefix}Version"), kv.version);
        self.quoted(&format!("{prefix}Value"), &kv.value);
        self.lease(&format!("{prefix}Lease"), kv.lease);
    }

    fn put(&mut self, answer: &pb::PutResponse) {
        self.header(&answer.header);
        answer.prev_kv.iter().for_each(|kv| self.pair("Prev", kv));
    }

    fn get(&mut self, answer: &pb::RangeResponse) {
        self.header(&answer.header);
        answer.kvs.iter().for_each(|kv| self.pair("", kv));
        self.field("More", answer.more);
        self.field("Count", answer.count);
    }

    fn del(&mut self, answer: &pb::DeleteRangeResponse) {
        self.header(&answer.header);
        self.field("Deleted", answer.deleted);
        answer.prev_kvs.iter().for_each(|kv| self.pair("Prev", kv));
    }

    fn txn(&mut self, answer: &pb::TxnResponse) {
        self.header(&answer.header);
        self.field("Succeeded", answer.succeeded);
        for op in &answer.responses {
            match &op.response {
                Some(Response::ResponseRange(answer)) => self.get(answer),
                Some(Response::ResponsePut(answer)) => self.put(answer),
                Some(Response::ResponseDeleteRange(answer)) => self.del(answer),
                Some(Response::ResponseTxn(answer)) => self.txn(answer),
                None => {}
            }
        }
    }

    fn watch(&mut self, answer: &pb::WatchResponse) {
        self.header(&answer.header);
        for event in &answer.events {
            self.field("Type", EventType::try_from(event.r#type).unwrap_or_default().as_str_name());
            event.prev_kv.iter().for_each(|kv| self.pair("Prev", kv));
            self.pair("", &event.kv.clone().unwrap_or_default());
        }
    }

    fn members(&mut self, answer: &pb::MemberListResponse) {
        self.header(&answer.header);
        for member in &answer.members {
            self.id("ID", member.id);
            self.quoted("Name", member.name.as_bytes());
            member.peer_ur_ls.iter().for_each(|url| self.quoted("PeerURL", url.as_bytes()));
            member.client_ur_ls.iter().for_each(|url| self.quoted("ClientURL", url.as_bytes()));
            self.field("IsLearner", member.is_learner);
            self.text.push('\n');
        }
    }

    fn health(&mut self, health: &Health) {
        self.quoted("Endpoint", health.endpoint.as_bytes());
        self.field("Health", health.healthy);
        self.field("Took", &health.took);
        self.field("Error", &health.error);
        self.text.push('\n');
    }

    fn status(&mut self, endpoint: &str, status: &pb::StatusResponse) {
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        self.header(&status.header);
        self.quoted("Version", status.version.as_bytes());
        self.quoted("StorageVersion", status.storage_version.as_bytes());
        self.field("DBSize", status.db_size);
        self.field("DBSizeInUse", status.db_size_in_use);
        self.field("DBSizeQuota", status.db_size_quota);
        self.field("Leader", status.leader);
        self.field("IsLearner", status.is_learner);
        self.field("RaftIndex", status.raft_index);
        self.field("RaftTerm", status.raft_term);
        self.field("RaftAppliedIndex", status.raft_applied_index);
        self.field("Errors", format_args!("[{}]", status.errors.join(" ")));
        self.quoted("Endpoint", endpoint.as_bytes());
        self.quoted("DowngradeTargetVersion", downgrade.target_version.as_bytes());
        self.field("DowngradeEnabled", downgrade.enabled);
        self.text.push('\n');
    }

    fn role(&mut self, answer: &pb::AuthRoleGetResponse) {
        self.header(&answer.header);
        for permission in &answer.perm {
            let kind = PermissionType::try_from(permission.perm_type).unwrap_or_default().as_str_name();
            self.field("PermType", format_args!(" {kind}"));
            self.quoted("Key", &permission.key);
            self.quoted("RangeEnd", &permission.range_end);
        }
    }
}
