//! Printers: the answers of the server in the five formats of `--write-out`.
//!
//! ```text
//!  RPC ─► Answer ─► Printer.show ─► simple │ fields │ json │ table │ protobuf ─► bytes ─► stdout, in one write
//! ```
//! A printer is a function from an answer to bytes; `None` is "this format does not know this answer", which etcdctl
//! finds out only after the request has been made. Scripts parse this output: it is etcdctl's to the byte.

mod fields;
mod json;
#[cfg(test)]
mod print_test;
mod protobuf;
mod simple;
mod table;

use milepost_proto::etcdserverpb as pb;

use crate::out;
use crate::outcome::{Failure, Outcome, exit};

/// The formats of `--write-out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names that users type")]
pub enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

impl Format {
    /// All, with the names that users type.
    pub const ALL: [(&'static str, Format); 5] = [
        ("fields", Format::Fields),
        ("json", Format::Json),
        ("protobuf", Format::Protobuf),
        ("simple", Format::Simple),
        ("table", Format::Table),
    ];
}

/// What is to be printed: an answer, and what the question said that the answer does not repeat.
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "each is the answer of the RPC that it is named after")]
pub enum Answer<'a> {
    Put(&'a pb::PutResponse),
    Get(&'a pb::RangeResponse),
    Del(&'a pb::DeleteRangeResponse),
    Txn(&'a pb::TxnResponse),
    Watch(&'a pb::WatchResponse),
    Grant(&'a pb::LeaseGrantResponse),
    Revoke(i64, &'a pb::LeaseRevokeResponse),
    KeepAlive(&'a pb::LeaseKeepAliveResponse),
    /// Whether keys were asked for.
    TimeToLive(&'a pb::LeaseTimeToLiveResponse, bool),
    Leases(&'a pb::LeaseLeasesResponse),
    Alarm(&'a pb::AlarmResponse),
    MemberAdd(&'a pb::MemberAddResponse),
    MemberRemove(u64, &'a pb::MemberRemoveResponse),
    MemberUpdate(u64, &'a pb::MemberUpdateResponse),
    MemberPromote(u64, &'a pb::MemberPromoteResponse),
    MemberList(&'a pb::MemberListResponse),
    EndpointHealth(&'a [Health]),
    EndpointStatus(&'a [(String, pb::StatusResponse)]),
    EndpointHashKv(&'a [(String, pb::HashKvResponse)]),
    /// From whom to whom.
    MoveLeader(u64, u64, &'a pb::MoveLeaderResponse),
    /// `validate`, `enable` or `cancel`.
    Downgrade(&'static str, &'a pb::DowngradeResponse),
    AuthStatus(&'a pb::AuthStatusResponse),
    RoleAdd(&'a str, &'a pb::AuthRoleAddResponse),
    RoleGet(&'a str, &'a pb::AuthRoleGetResponse),
    RoleDelete(&'a str, &'a pb::AuthRoleDeleteResponse),
    RoleList(&'a pb::AuthRoleListResponse),
    RoleGrant(&'a str, &'a pb::AuthRoleGrantPermissionResponse),
    /// Role, key, end of the range.
    RoleRevoke(&'a str, &'a [u8], &'a [u8], &'a pb::AuthRoleRevokePermissionResponse),
    UserAdd(&'a str, &'a pb::AuthUserAddResponse),
    UserGet(&'a str, &'a pb::AuthUserGetResponse),
    UserList(&'a pb::AuthUserListResponse),
    UserPasswd(&'a pb::AuthUserChangePasswordResponse),
    /// User, role.
    UserGrantRole(&'a str, &'a str, &'a pb::AuthUserGrantRoleResponse),
    /// User, role.
    UserRevokeRole(&'a str, &'a str, &'a pb::AuthUserRevokeRoleResponse),
    UserDelete(&'a str, &'a pb::AuthUserDeleteResponse),
}

/// What `endpoint health` found out about one endpoint.
#[derive(Clone, Debug)]
pub struct Health {
    /// As the user wrote it, or as the cluster advertises it.
    pub endpoint: String,
    /// Whether it answers and no alarm is on.
    pub healthy: bool,
    /// How long the answer took, in Go's writing; empty when there was no client to ask with.
    pub took: String,
    /// Why it is not healthy; empty when it is.
    pub error: String,
}

/// A format, and how it shows keys and ids.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// `--write-out`.
    pub format: Format,
    /// `--hex`.
    pub hex: bool,
    /// `--print-value-only`, of the simple format.
    pub value_only: bool,
}

impl Printer {
    /// Prints `answer` on standard output.
    ///
    /// # Errors
    /// The format does not know such an answer, or standard output is gone.
    pub fn show(&self, answer: Answer<'_>) -> Outcome {
        if let (Format::Simple, Answer::EndpointHealth(all)) = (self.format, answer) {
            return simple::endpoint_health(all);
        }
        match self.render(answer) {
            Some(bytes) => out::bytes(&bytes),
            None if matches!(answer, Answer::Revoke(..)) => {
                let text = "marshal unsupported for type *clientv3.LeaseRevokeResponse";
                Err(Failure::new(exit::BAD_FEATURE, text))
            }
            None => {
                let name = Format::ALL.iter().find(|(_, format)| *format == self.format).map_or("", |(name, _)| name);
                Err(Failure::new(exit::BAD_FEATURE, format!("{name} not supported as output format")))
            }
        }
    }

    /// The bytes that [`Printer::show`] prints; `None` if the format does not know such an answer.
    pub fn render(&self, answer: Answer<'_>) -> Option<Vec<u8>> {
        match self.format {
            Format::Simple => {
                Some(simple::render(answer, simple::Style { hex: self.hex, value_only: self.value_only }))
            }
            Format::Fields => fields::render(answer, self.hex),
            Format::Json => Some(format!("{}\n", json::value(answer, self.hex)).into_bytes()),
            Format::Protobuf => protobuf::render(answer),
            Format::Table => table::render(answer),
        }
    }
}

/// The cells of `member list`, one row for each member.
fn member_rows(answer: &pb::MemberListResponse) -> Vec<Vec<String>> {
    let row = |member: &pb::Member| {
        vec![
            format!("{:x}", member.id),
            if member.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    answer.members.iter().map(row).collect()
}

/// The cells of `endpoint status`.
fn status_rows(all: &[(String, pb::StatusResponse)]) -> Vec<Vec<String>> {
    let row = |(endpoint, status): &(String, pb::StatusResponse)| {
        let member = status.header.as_ref().map_or(0, |header| header.member_id);
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        // A size of 0 ends etcd's tool with a division by zero.
        let unused = 100 - (status.db_size_in_use * 100).checked_div(status.db_size).unwrap_or(100);
        vec![
            endpoint.clone(),
            format!("{member:x}"),
            status.version.clone(),
            status.storage_version.clone(),
            crate::go::si_bytes(status.db_size as u64),
            crate::go::si_bytes(status.db_size_in_use as u64),
            format!("{unused}%"),
            crate::go::si_bytes(status.db_size_quota as u64),
            (status.leader == member).to_string(),
            status.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    };
    all.iter().map(row).collect()
}

/// The cells of `endpoint hashkv`.
fn hash_rows(all: &[(String, pb::HashKvResponse)]) -> Vec<Vec<String>> {
    let row = |(endpoint, answer): &(String, pb::HashKvResponse)| {
        vec![endpoint.clone(), answer.hash.to_string(), answer.hash_revision.to_string()]
    };
    all.iter().map(row).collect()
}
