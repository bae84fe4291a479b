//! Which path of the gateway is which call. Source: `facts/http.md` §3.

use crate::grpc::Method;

/// Every path, in the order of etcd's services. A call that gets a handler is served here too, without another word.
const ROUTES: &[(&str, Method)] = &[
    ("/v3/kv/range", Method::Range),
    ("/v3/kv/put", Method::Put),
    ("/v3/kv/deleterange", Method::DeleteRange),
    ("/v3/kv/txn", Method::Txn),
    ("/v3/kv/compaction", Method::Compact),
    ("/v3/watch", Method::Watch),
    ("/v3/lease/grant", Method::LeaseGrant),
    ("/v3/lease/revoke", Method::LeaseRevoke),
    ("/v3/kv/lease/revoke", Method::LeaseRevoke),
    ("/v3/lease/keepalive", Method::LeaseKeepAlive),
    ("/v3/lease/timetolive", Method::LeaseTimeToLive),
    ("/v3/kv/lease/timetolive", Method::LeaseTimeToLive),
    ("/v3/lease/leases", Method::LeaseLeases),
    ("/v3/kv/lease/leases", Method::LeaseLeases),
    ("/v3/cluster/member/add", Method::MemberAdd),
    ("/v3/cluster/member/remove", Method::MemberRemove),
    ("/v3/cluster/member/update", Method::MemberUpdate),
    ("/v3/cluster/member/list", Method::MemberList),
    ("/v3/cluster/member/promote", Method::MemberPromote),
    ("/v3/maintenance/alarm", Method::Alarm),
    ("/v3/maintenance/status", Method::Status),
    ("/v3/maintenance/defragment", Method::Defragment),
    ("/v3/maintenance/hash", Method::Hash),
    ("/v3/maintenance/hashkv", Method::HashKv),
    ("/v3/maintenance/snapshot", Method::Snapshot),
    ("/v3/maintenance/transfer-leadership", Method::MoveLeader),
    ("/v3/maintenance/downgrade", Method::Downgrade),
    ("/v3/auth/enable", Method::AuthEnable),
    ("/v3/auth/disable", Method::AuthDisable),
    ("/v3/auth/status", Method::AuthStatus),
    ("/v3/auth/authenticate", Method::Authenticate),
    ("/v3/auth/user/add", Method::UserAdd),
    ("/v3/auth/user/get", Method::UserGet),
    ("/v3/auth/user/list", Method::UserList),
    ("/v3/auth/user/delete", Method::UserDelete),
    ("/v3/auth/user/changepw", Method::UserChangePassword),
    ("/v3/auth/user/grant", Method::UserGrantRole),
    ("/v3/auth/user/revoke", Method::UserRevokeRole),
    ("/v3/auth/role/add", Method::RoleAdd),
    ("/v3/auth/role/get", Method::RoleGet),
    ("/v3/auth/role/list", Method::RoleList),
    ("/v3/auth/role/delete", Method::RoleDelete),
    ("/v3/auth/role/grant", Method::RoleGrantPermission),
    ("/v3/auth/role/revoke", Method::RoleRevokePermission),
    ("/v3/lock/lock", Method::Lock),
    ("/v3/lock/unlock", Method::Unlock),
    ("/v3/election/campaign", Method::Campaign),
    ("/v3/election/proclaim", Method::Proclaim),
    ("/v3/election/leader", Method::Leader),
    ("/v3/election/observe", Method::Observe),
    ("/v3/election/resign", Method::Resign),
];

/// The call at `path`.
pub(crate) fn at(path: &str) -> Option<Method> {
    ROUTES.iter().find(|(known, _)| *known == path).map(|(_, method)| *method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::{METHODS, Names};

    #[test]
    fn every_call_has_a_path_but_those_without_one_in_etcd() {
        let routed = |names: &Names| ROUTES.iter().any(|(_, method)| method.names().path == names.path);
        let without: Vec<_> = METHODS.iter().filter(|names| !routed(names)).map(|names| names.path).collect();
        assert_eq!(
            without,
            [
                "/etcdserverpb.KV/RangeStream",
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/List",
                "/grpc.health.v1.Health/Watch",
            ]
        );
        let mut paths: Vec<_> = ROUTES.iter().map(|(path, _)| path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), ROUTES.len(), "no path twice");
        assert_eq!(at("/v3/kv/lease/revoke"), Some(Method::LeaseRevoke));
        assert_eq!(at("/v3/kv/put/"), None);
    }
}
