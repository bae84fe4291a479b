//! The unary calls by service: a message in, a message out, until a deadline.
//!
//! Every call fails with what the server said, or with the deadline; see [`Error`].

use milepost_proto::etcdserverpb as pb;
use milepost_proto::v3electionpb as election;
use milepost_proto::v3lockpb as lock;

use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::method;
use crate::stream::Stream;

macro_rules! services {
    ($($(#[$doc:meta])* $service:ident = $accessor:ident {
        $($(#[$call_doc:meta])* $call:ident($request:ty) -> $answer:ty = $method:ident;)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy)]
            pub struct $service<'a>(&'a Client);

            impl $service<'_> {
                $(
                    $(#[$call_doc])*
                    ///
                    /// # Errors
                    /// What the server said, or the deadline.
                    pub async fn $call(&self, request: $request, deadline: Deadline) -> Result<$answer, Error> {
                        self.0.unary(&method::$method, &request, deadline).await
                    }
                )*
            }
        )*

        impl Client {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $accessor(&self) -> $service<'_> {
                    $service(self)
                }
            )*
        }
    };
}

services! {
    /// Keys and values.
    Kv = kv {
        /// Reads keys.
        range(pb::RangeRequest) -> pb::RangeResponse = RANGE;
        /// Writes one key.
        put(pb::PutRequest) -> pb::PutResponse = PUT;
        /// Deletes keys.
        delete_range(pb::DeleteRangeRequest) -> pb::DeleteRangeResponse = DELETE_RANGE;
        /// Compares, then does one list of operations or the other, at once.
        txn(pb::TxnRequest) -> pb::TxnResponse = TXN;
        /// Drops the history below a revision.
        compact(pb::CompactionRequest) -> pb::CompactionResponse = COMPACT;
    }
    /// Leases, except keeping them alive.
    Lease = lease {
        /// Makes a lease.
        grant(pb::LeaseGrantRequest) -> pb::LeaseGrantResponse = LEASE_GRANT;
        /// Ends a lease and deletes its keys.
        revoke(pb::LeaseRevokeRequest) -> pb::LeaseRevokeResponse = LEASE_REVOKE;
        /// What is left of a lease.
        time_to_live(pb::LeaseTimeToLiveRequest) -> pb::LeaseTimeToLiveResponse = LEASE_TIME_TO_LIVE;
        /// All leases.
        leases(pb::LeaseLeasesRequest) -> pb::LeaseLeasesResponse = LEASE_LEASES;
    }
    /// Who belongs to the cluster.
    Cluster = cluster {
        /// Adds a member.
        member_add(pb::MemberAddRequest) -> pb::MemberAddResponse = MEMBER_ADD;
        /// Removes a member.
        member_remove(pb::MemberRemoveRequest) -> pb::MemberRemoveResponse = MEMBER_REMOVE;
        /// Changes a member's peer URLs.
        member_update(pb::MemberUpdateRequest) -> pb::MemberUpdateResponse = MEMBER_UPDATE;
        /// All members.
        member_list(pb::MemberListRequest) -> pb::MemberListResponse = MEMBER_LIST;
        /// Makes a learner a voter.
        member_promote(pb::MemberPromoteRequest) -> pb::MemberPromoteResponse = MEMBER_PROMOTE;
    }
    /// Care of single members: use it through [`Client::at`] where the answer is one member's.
    Maintenance = maintenance {
        /// Lists, raises or clears alarms.
        alarm(pb::AlarmRequest) -> pb::AlarmResponse = ALARM;
        /// How the asked member is.
        status(pb::StatusRequest) -> pb::StatusResponse = STATUS;
        /// Gives free space of the asked member's file back.
        defragment(pb::DefragmentRequest) -> pb::DefragmentResponse = DEFRAGMENT;
        /// Hash of the asked member's file.
        hash(pb::HashRequest) -> pb::HashResponse = HASH;
        /// Hash of keys up to a revision.
        hash_kv(pb::HashKvRequest) -> pb::HashKvResponse = HASH_KV;
        /// Hands the leadership over.
        move_leader(pb::MoveLeaderRequest) -> pb::MoveLeaderResponse = MOVE_LEADER;
        /// Validates, begins or cancels a downgrade.
        downgrade(pb::DowngradeRequest) -> pb::DowngradeResponse = DOWNGRADE;
    }
    /// Users, roles, permissions.
    AuthCalls = auth {
        /// Turns authentication on.
        auth_enable(pb::AuthEnableRequest) -> pb::AuthEnableResponse = AUTH_ENABLE;
        /// Turns it off.
        auth_disable(pb::AuthDisableRequest) -> pb::AuthDisableResponse = AUTH_DISABLE;
        /// Whether it is on.
        auth_status(pb::AuthStatusRequest) -> pb::AuthStatusResponse = AUTH_STATUS;
        /// A token for a user.
        authenticate(pb::AuthenticateRequest) -> pb::AuthenticateResponse = AUTHENTICATE;
        /// Adds a user.
        user_add(pb::AuthUserAddRequest) -> pb::AuthUserAddResponse = USER_ADD;
        /// A user's roles.
        user_get(pb::AuthUserGetRequest) -> pb::AuthUserGetResponse = USER_GET;
        /// All users.
        user_list(pb::AuthUserListRequest) -> pb::AuthUserListResponse = USER_LIST;
        /// Deletes a user.
        user_delete(pb::AuthUserDeleteRequest) -> pb::AuthUserDeleteResponse = USER_DELETE;
        /// Changes a password.
        user_change_password(pb::AuthUserChangePasswordRequest) -> pb::AuthUserChangePasswordResponse = USER_CHANGE_PASSWORD;
        /// Gives a user a role.
        user_grant_role(pb::AuthUserGrantRoleRequest) -> pb::AuthUserGrantRoleResponse = USER_GRANT_ROLE;
        /// Takes a role from a user.
        user_revoke_role(pb::AuthUserRevokeRoleRequest) -> pb::AuthUserRevokeRoleResponse = USER_REVOKE_ROLE;
        /// Adds a role.
        role_add(pb::AuthRoleAddRequest) -> pb::AuthRoleAddResponse = ROLE_ADD;
        /// A role's permissions.
        role_get(pb::AuthRoleGetRequest) -> pb::AuthRoleGetResponse = ROLE_GET;
        /// All roles.
        role_list(pb::AuthRoleListRequest) -> pb::AuthRoleListResponse = ROLE_LIST;
        /// Deletes a role.
        role_delete(pb::AuthRoleDeleteRequest) -> pb::AuthRoleDeleteResponse = ROLE_DELETE;
        /// Gives a role a permission.
        role_grant_permission(pb::AuthRoleGrantPermissionRequest) -> pb::AuthRoleGrantPermissionResponse = ROLE_GRANT_PERMISSION;
        /// Takes a permission from a role.
        role_revoke_permission(pb::AuthRoleRevokePermissionRequest) -> pb::AuthRoleRevokePermissionResponse = ROLE_REVOKE_PERMISSION;
    }
    /// The server's lock service. The tools use [`crate::Mutex`], which needs no more than keys and leases.
    LockCalls = lock {
        /// Waits for a lock.
        lock(lock::LockRequest) -> lock::LockResponse = LOCK;
        /// Gives it back.
        unlock(lock::UnlockRequest) -> lock::UnlockResponse = UNLOCK;
    }
    /// The server's election service. The tools use [`crate::Election`].
    ElectionCalls = election {
        /// Waits to be the leader.
        campaign(election::CampaignRequest) -> election::CampaignResponse = CAMPAIGN;
        /// Changes the leader's value.
        proclaim(election::ProclaimRequest) -> election::ProclaimResponse = PROCLAIM;
        /// Who leads.
        leader(election::LeaderRequest) -> election::LeaderResponse = LEADER;
        /// Steps down.
        resign(election::ResignRequest) -> election::ResignResponse = RESIGN;
    }
}

impl Kv<'_> {
    /// Reads keys in parts, as they are found.
    ///
    /// # Errors
    /// The call could not be opened; later errors come from the stream.
    pub async fn range_stream(
        &self,
        request: pb::RangeRequest,
        deadline: Deadline,
    ) -> Result<Stream<pb::RangeStreamResponse>, Error> {
        self.0.stream(&method::RANGE_STREAM, &request, true, false, deadline).await
    }
}

impl Maintenance<'_> {
    /// The asked member's data as a file, in parts.
    ///
    /// # Errors
    /// The call could not be opened; later errors come from the stream.
    pub async fn snapshot(&self, deadline: Deadline) -> Result<Stream<pb::SnapshotResponse>, Error> {
        self.0.stream(&method::SNAPSHOT, &pb::SnapshotRequest {}, true, false, deadline).await
    }
}

impl ElectionCalls<'_> {
    /// Every leader from now on.
    ///
    /// # Errors
    /// The call could not be opened; later errors come from the stream.
    pub async fn observe(
        &self,
        request: election::LeaderRequest,
        deadline: Deadline,
    ) -> Result<Stream<election::LeaderResponse>, Error> {
        self.0.stream(&method::OBSERVE, &request, true, false, deadline).await
    }
}
