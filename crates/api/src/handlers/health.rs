//! The standard health service: this server as a whole, named by the empty string.

use std::rc::Rc;

use milepost_proto::health as pb;
use milepost_proto::health::health_check_response::ServingStatus;

use crate::call::Call;
use crate::door::Door;
use crate::grpc::Stage;
use crate::status::{self, Status};

const SERVING: pb::HealthCheckResponse = pb::HealthCheckResponse { status: ServingStatus::Serving as i32 };
const UNKNOWN: pb::HealthCheckResponse = pb::HealthCheckResponse { status: ServingStatus::ServiceUnknown as i32 };

/// Serving from the first moment on: the doors open when the member does.
///
/// # Errors
/// NotFound for any name but the empty one.
pub(crate) async fn check(
    _: &Rc<Door>,
    _: &Call,
    request: pb::HealthCheckRequest,
) -> Result<pb::HealthCheckResponse, Status> {
    if request.service.is_empty() { Ok(SERVING) } else { Err(status::UNKNOWN_HEALTH_SERVICE) }
}

/// All services: the one.
///
/// # Errors
/// None.
pub(crate) async fn list(_: &Rc<Door>, _: &Call, _: pb::HealthListRequest) -> Result<pb::HealthListResponse, Status> {
    Ok(pb::HealthListResponse { statuses: [(String::new(), SERVING)].into() })
}

/// The state now, and then silence: it does not change while the server lives. An unknown name is an answer here.
pub(crate) async fn watch(stage: Stage, request: Result<pb::HealthCheckRequest, Status>) -> Status {
    match request {
        Ok(request) => stage.outlet.send(if request.service.is_empty() { &SERVING } else { &UNKNOWN }),
        Err(status) => return status,
    }
    std::future::pending().await
}
