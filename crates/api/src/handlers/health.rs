//! The standard health service: this server as a whole, named by the empty string.

use std::rc::Rc;

use milepost_proto::health as pb;

use crate::call::Call;
use crate::door::Door;
use crate::status::{self, Status};

const SERVING: pb::HealthCheckResponse = pb::HealthCheckResponse { status: pb::health_check_response::ServingStatus::Serving as i32 };

/// Serving from the first moment on: the doors open when the member does.
///
/// # Errors
/// NotFound for any name but the empty one.
pub(crate) async fn check(_: &Rc<Door>, _: &Call, request: pb::HealthCheckRequest) -> Result<pb::HealthCheckResponse, Status> {
    if request.service.is_empty() { Ok(SERVING) } else { Err(status::UNKNOWN_HEALTH_SERVICE) }
}

/// All services: the one.
///
/// # Errors
/// None.
pub(crate) async fn list(_: &Rc<Door>, _: &Call, _: pb::HealthListRequest) -> Result<pb::HealthListResponse, Status> {
    Ok(pb::HealthListResponse { statuses: [(String::new(), SERVING)].into() })
}
