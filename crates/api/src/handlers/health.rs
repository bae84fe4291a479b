//! The standard health service: this server as a whole, named by the empty string.

use std::rc::Rc;

use milepost_proto::health as pb;
use milepost_proto::health::health_check_response::ServingStatus;

use crate::call::Call;
use crate::door::Door;
use crate::grpc::Stage;
use crate::status::{self, Status};

const SERVING: pb::HealthCheckResponse = pb::HealthCheckResponse { status: ServingStatus::Serving as i32 };
const NOT_SERVING: pb::HealthCheckResponse = pb::HealthCheckResponse { status: ServingStatus::NotServing as i32 };
const UNKNOWN: pb::HealthCheckResponse = pb::HealthCheckResponse { status: ServingStatus::ServiceUnknown as i32 };

fn state(door: &Door) -> pb::HealthCheckResponse {
    if *door.serving.borrow() { SERVING } else { NOT_SERVING }
}

/// Serving from the first moment on: the doors open when the member does. Not serving during a defragmentation, if the
/// operator wants that.
///
/// # Errors
/// NotFound for any name but the empty one.
pub(crate) async fn check(
    door: &Rc<Door>,
    _: &Call,
    request: pb::HealthCheckRequest,
) -> Result<pb::HealthCheckResponse, Status> {
    if request.service.is_empty() { Ok(state(door)) } else { Err(status::UNKNOWN_HEALTH_SERVICE) }
}

/// All services: the one.
///
/// # Errors
/// None.
pub(crate) async fn list(
    door: &Rc<Door>,
    _: &Call,
    _: pb::HealthListRequest,
) -> Result<pb::HealthListResponse, Status> {
    Ok(pb::HealthListResponse { statuses: [(String::new(), state(door))].into() })
}

/// The state now and whenever it changes. An unknown name is an answer here.
pub(crate) async fn watch(stage: Stage, request: Result<pb::HealthCheckRequest, Status>) -> Status {
    match request {
        Ok(request) if request.service.is_empty() => {}
        Ok(_) => {
            stage.outlet.send(&UNKNOWN);
            return std::future::pending().await;
        }
        Err(status) => return status,
    }
    let mut serving = stage.door.serving.subscribe();
    let mut told = None;
    loop {
        let now = if *serving.borrow_and_update() { SERVING } else { NOT_SERVING };
        if told != Some(now) {
            stage.outlet.send(&now);
            told = Some(now);
        }
        if serving.changed().await.is_err() {
            return status::STOPPED;
        }
    }
}
