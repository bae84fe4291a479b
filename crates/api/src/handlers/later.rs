//! Calls that this version does not answer, and what it says instead.

use crate::grpc::Method;
use crate::status::{Code, Status};

/// What the caller of `method` hears: that it is known, and what to do meanwhile.
pub(crate) fn status(method: Method) -> Status {
    let names = method.names();
    let advice = match names.service {
        "etcdserverpb.Auth" => "users and roles are always off in this version; use it without credentials",
        _ => "this call comes in a later version",
    };
    Status::with(
        Code::Unimplemented,
        format!("milepost: {}.{} is not served yet: {advice}", names.service, names.method),
    )
}
