//! Every call that a gRPC client can make: its path, its shape, its name in metrics.

/// Whether requests and answers are one message or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Unary,
    ServerStream,
    BidiStream,
}

impl Shape {
    /// `grpc_type` of the metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// Names of one method.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) path: &'static str,
    pub(crate) service: &'static str,
    pub(crate) method: &'static str,
    pub(crate) shape: Shape,
}

macro_rules! methods {
    ($($service:literal { $($name:ident = $method:literal $shape:ident;)* })*) => {
        /// A method of one of our services.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Method { $($($name,)*)* }

        /// Indexed by `Method as usize`.
        pub(crate) static METHODS: &[Names] = &[$($(
            Names { path: concat!("/", $service, "/", $method), service: $service, method: $method, shape: Shape::$shape },
        )*)*];

        impl Method {
            /// The method at `path`.
            pub(crate) fn at(path: &str) -> Option<Self> {
                match path {
                    $($(concat!("/", $service, "/", $method) => Some(Self::$name),)*)*
                    _ => None,
                }
            }
        }

        const SERVICES: &[&str] = &[$($service,)*];
    };
}

methods! {
    "etcdserverpb.KV" {
        Put = "Put" Unary;
        Range = "Range" Unary;
        Txn = "Txn" Unary;
        DeleteRange = "DeleteRange" Unary;
        Compact = "Compact" Unary;
        RangeStream = "RangeStream" ServerStream;
    }
    "etcdserverpb.Watch" {
        Watch = "Watch" BidiStream;
    }
    "etcdserverpb.Lease" {
        LeaseGrant = "LeaseGrant" Unary;
        LeaseRevoke = "LeaseRevoke" Unary;
        LeaseKeepAlive = "LeaseKeepAlive" BidiStream;
        LeaseTimeToLive = "LeaseTimeToLive" Unary;
        LeaseLeases = "LeaseLeases" Unary;
    }
    "etcdserverpb.Cluster" {
        MemberAdd = "MemberAdd" Unary;
        MemberRemove = "MemberRemove" Unary;
        MemberUpdate = "MemberUpdate" Unary;
        MemberList = "MemberList" Unary;
        MemberPromote = "MemberPromote" Unary;
    }
    "etcdserverpb.Maintenance" {
        Alarm = "Alarm" Unary;
        Status = "Status" Unary;
        Defragment = "Defragment" Unary;
        Hash = "Hash" Unary;
        HashKv = "HashKV" Unary;
        Snapshot = "Snapshot" ServerStream;
        MoveLeader = "MoveLeader" Unary;
        Downgrade = "Downgrade" Unary;
    }
    "etcdserverpb.Auth" {
        AuthEnable = "AuthEnable" Unary;
        AuthDisable = "AuthDisable" Unary;
        AuthStatus = "AuthStatus" Unary;
        Authenticate = "Authenticate" Unary;
        UserAdd = "UserAdd" Unary;
        UserGet = "UserGet" Unary;
        UserList = "UserList" Unary;
        UserDelete = "UserDelete" Unary;
        UserChangePassword = "UserChangePassword" Unary;
        UserGrantRole = "UserGrantRole" Unary;
        UserRevokeRole = "UserRevokeRole" Unary;
        RoleAdd = "RoleAdd" Unary;
        RoleGet = "RoleGet" Unary;
        RoleList = "RoleList" Unary;
        RoleDelete = "RoleDelete" Unary;
        RoleGrantPermission = "RoleGrantPermission" Unary;
        RoleRevokePermission = "RoleRevokePermission" Unary;
    }
    "grpc.health.v1.Health" {
        HealthCheck = "Check" Unary;
        HealthList = "List" Unary;
        HealthWatch = "Watch" ServerStream;
    }
    "v3lockpb.Lock" {
        Lock = "Lock" Unary;
        Unlock = "Unlock" Unary;
    }
    "v3electionpb.Election" {
        Campaign = "Campaign" Unary;
        Proclaim = "Proclaim" Unary;
        Leader = "Leader" Unary;
        Observe = "Observe" ServerStream;
        Resign = "Resign" Unary;
    }
}

impl Method {
    /// Its names.
    pub(crate) fn names(self) -> &'static Names {
        &METHODS[self as usize]
    }

    /// What `etcd_server_request_duration_seconds` calls it; `None`: not measured there.
    pub(crate) fn request_type(index: usize) -> Option<&'static str> {
        let names = &METHODS[index];
        match (names.service, names.shape) {
            (
                "etcdserverpb.KV" | "etcdserverpb.Lease" | "etcdserverpb.Maintenance" | "etcdserverpb.Auth",
                Shape::Unary,
            ) => Some(names.method),
            _ => None,
        }
    }

    /// A method's counters are on the metrics page from the start; those of recipes only after their first use.
    pub(crate) fn is_precreated(index: usize) -> bool {
        index < Self::Lock as usize
    }

    /// What the caller of an unknown `path` hears. Source: grpc-go `Server.handleStream`.
    pub(crate) fn unknown(path: &str) -> String {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
            return format!("malformed method name: {path:?}");
        };
        if SERVICES.contains(&service) {
            format!("unknown method {method} for service {service}")
        } else {
            format!("unknown service {service}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table holds exactly what the .proto files declare.
    #[test]
    fn table_is_the_proto_files() {
        let files = [
            include_str!("../../../proto/proto/rpc.proto"),
            include_str!("../../../proto/proto/health.proto"),
            include_str!("../../../proto/proto/lock.proto"),
            include_str!("../../../proto/proto/election.proto"),
        ];
        let mut declared = 0;
        for file in files {
            let word = |line: &str, before: &str| {
                line.trim().strip_prefix(before).map(|rest| rest.trim_end_matches([';', '{', ' ']).to_owned())
            };
            let package = file.lines().find_map(|line| word(line, "package ")).unwrap();
            let mut service = String::new();
            for line in file.lines() {
                if let Some(name) = word(line, "service ") {
                    service = name;
                }
                let Some(rest) = word(line, "rpc ") else { continue };
                let method = rest.split('(').next().unwrap();
                let path = format!("/{package}.{service}/{method}");
                let names = Method::at(&path).unwrap_or_else(|| panic!("{path} is missing")).names();
                let shape = match (rest.contains("(stream "), rest.contains("returns (stream")) {
                    (_, false) => Shape::Unary,
                    (_, true) if rest.matches("stream").count() == 2 => Shape::BidiStream,
                    _ => Shape::ServerStream,
                };
                assert_eq!((names.path, names.shape), (path.as_str(), shape));
                declared += 1;
            }
        }
        assert_eq!(declared, METHODS.len());
    }

    #[test]
    fn unknown_texts_are_grpc_gos() {
        assert_eq!(Method::unknown("/x.Y/Z"), "unknown service x.Y");
        assert_eq!(Method::unknown("/etcdserverpb.KV/Zap"), "unknown method Zap for service etcdserverpb.KV");
        assert_eq!(Method::unknown("zap"), "malformed method name: \"zap\"");
        assert_eq!(Method::at("/etcdserverpb.KV/Put"), Some(Method::Put));
    }
}
