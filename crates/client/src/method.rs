//! Every call of etcd's services: its path, and whether it may be repeated.

/// When a unary call is made again after the server said "unavailable".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The call changes nothing, or changes the same thing twice.
    Always,
    /// Only if the server has certainly not seen it.
    IfUnsent,
}

/// One method of a service.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) path: &'static str,
    pub(crate) repeat: Repeat,
}

macro_rules! methods {
    ($($service:literal { $($name:ident = $method:literal $repeat:ident;)* })*) => {
        $($(pub(crate) static $name: Method =
            Method { path: concat!("/", $service, "/", $method), repeat: Repeat::$repeat };)*)*

        /// All of them, for tests.
        #[cfg(test)]
        static ALL: &[&Method] = &[$($(&$name,)*)*];
    };
}

// etcd's client also repeats grants, revokes and alarms: a lease granted twice runs out by itself. Streams are repeated
// by who reads them.
// Source: etcd `client/v3/retry.go`.
methods! {
    "etcdserverpb.KV" {
        RANGE = "Range" Always;
        RANGE_STREAM = "RangeStream" IfUnsent;
        PUT = "Put" IfUnsent;
        DELETE_RANGE = "DeleteRange" IfUnsent;
        TXN = "Txn" IfUnsent;
        COMPACT = "Compact" IfUnsent;
    }
    "etcdserverpb.Watch" {
        WATCH = "Watch" IfUnsent;
    }
    "etcdserverpb.Lease" {
        LEASE_GRANT = "LeaseGrant" Always;
        LEASE_REVOKE = "LeaseRevoke" Always;
        LEASE_KEEP_ALIVE = "LeaseKeepAlive" IfUnsent;
        LEASE_TIME_TO_LIVE = "LeaseTimeToLive" Always;
        LEASE_LEASES = "LeaseLeases" Always;
    }
    "etcdserverpb.Cluster" {
        MEMBER_ADD = "MemberAdd" IfUnsent;
        MEMBER_REMOVE = "MemberRemove" IfUnsent;
        MEMBER_UPDATE = "MemberUpdate" IfUnsent;
        MEMBER_LIST = "MemberList" Always;
        MEMBER_PROMOTE = "MemberPromote" IfUnsent;
    }
    "etcdserverpb.Maintenance" {
        ALARM = "Alarm" Always;
        STATUS = "Status" Always;
        DEFRAGMENT = "Defragment" IfUnsent;
        HASH = "Hash" Always;
        HASH_KV = "HashKV" Always;
        SNAPSHOT = "Snapshot" IfUnsent;
        MOVE_LEADER = "MoveLeader" Always;
        DOWNGRADE = "Downgrade" IfUnsent;
    }
    "etcdserverpb.Auth" {
        AUTH_ENABLE = "AuthEnable" IfUnsent;
        AUTH_DISABLE = "AuthDisable" IfUnsent;
        AUTH_STATUS = "AuthStatus" IfUnsent;
        AUTHENTICATE = "Authenticate" IfUnsent;
        USER_ADD = "UserAdd" IfUnsent;
        USER_GET = "UserGet" Always;
        USER_LIST = "UserList" Always;
        USER_DELETE = "UserDelete" IfUnsent;
        USER_CHANGE_PASSWORD = "UserChangePassword" IfUnsent;
        USER_GRANT_ROLE = "UserGrantRole" IfUnsent;
        USER_REVOKE_ROLE = "UserRevokeRole" IfUnsent;
        ROLE_ADD = "RoleAdd" IfUnsent;
        ROLE_GET = "RoleGet" Always;
        ROLE_LIST = "RoleList" Always;
        ROLE_DELETE = "RoleDelete" IfUnsent;
        ROLE_GRANT_PERMISSION = "RoleGrantPermission" IfUnsent;
        ROLE_REVOKE_PERMISSION = "RoleRevokePermission" IfUnsent;
    }
    "v3lockpb.Lock" {
        LOCK = "Lock" IfUnsent;
        UNLOCK = "Unlock" IfUnsent;
    }
    "v3electionpb.Election" {
        CAMPAIGN = "Campaign" IfUnsent;
        PROCLAIM = "Proclaim" IfUnsent;
        LEADER = "Leader" Always;
        OBSERVE = "Observe" IfUnsent;
        RESIGN = "Resign" IfUnsent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table holds exactly what the .proto files declare.
    #[test]
    fn table_is_the_proto_files() {
        let files = [
            include_str!("../../proto/proto/rpc.proto"),
            include_str!("../../proto/proto/lock.proto"),
            include_str!("../../proto/proto/election.proto"),
        ];
        let mut declared = Vec::new();
        for file in files {
            let after = |line: &str, word: &str| {
                line.trim().strip_prefix(word).and_then(|rest| rest.split([' ', ';', '(']).next()).map(str::to_owned)
            };
            let package = file.lines().find_map(|line| after(line, "package ")).unwrap();
            let mut service = String::new();
            for line in file.lines() {
                if let Some(name) = after(line, "service ") {
                    service = name;
                }
                if let Some(method) = after(line, "rpc ") {
                    declared.push(format!("/{package}.{service}/{method}"));
                }
            }
        }
        let mut listed: Vec<&str> = ALL.iter().map(|method| method.path).collect();
        declared.sort();
        listed.sort_unstable();
        assert_eq!(listed, declared);
    }
}
