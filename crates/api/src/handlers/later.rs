//! Calls that this version does not answer, and what it says instead.

use crate::grpc::Method;
use crate::status::{Code, Status};

/// What the caller of `method` hears: that it is known, and what to do meanwhile.
pub(crate) fn status(method: Method) -> Status {
    let names = method.names();
    let advice = match names.service {
        "etcdserverpb.Auth" => "users and roles are always off in this version; use it without credentials",
        "v3lockpb.Lock" => {
            "the lock service comes in a later version; a transaction on create_revision with a lease does the same"
        }
        "v3electionpb.Election" => {
            "the election service comes in a later version; a transaction on create_revision with a lease does the same"
        }
        "etcdserverpb.Cluster" => "changes of membership come in a later version; this cluster keeps its members",
        _ => "this call comes in a later version",
    };
    Status::with(
        Code::Unimplemented,
        format!("milepost: {}.{} is not served yet: {advice}", names.service, names.method),
    )
}
