//! `/health`: one answer for load balancers and probes. Source: `facts/http.md` §2.

use std::rc::Rc;
use std::time::Instant;

use http::StatusCode;
use milepost_proto::etcdserverpb::AlarmType;

use super::query::Query;
use crate::call::Call;
use crate::door::Door;
use crate::grpc::reply::Reply;

/// Checks alarms, the leader and a read, in this order; the first that fails is the reason.
pub(crate) async fn page(door: &Rc<Door>, query: &Query) -> Reply {
    match reason(door, query).await {
        None => {
            door.metrics.health_success.add(1);
            door.config.log.debug_with("/health OK", || [("status-code", 200_u64.into())]);
            super::page(StatusCode::OK, "text/plain; charset=utf-8", r#"{"health":"true","reason":""}"#)
        }
        Some(reason) => {
            door.metrics.health_failures.add(1);
            let reason = serde_json::Value::from(reason);
            super::error(StatusCode::SERVICE_UNAVAILABLE, format!("{{\"health\":\"false\",\"reason\":{reason}}}\n"))
        }
    }
}

async fn reason(door: &Rc<Door>, query: &Query) -> Option<String> {
    for alarm in door.reader().alarms().list(AlarmType::None as i32) {
        let name = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
        if !query.all("exclude").any(|excluded| excluded == name) {
            return Some(format!("ALARM {name}"));
        }
    }
    if query.first("serializable") == Some("true") {
        return None;
    }
    if door.backend.standing().leader == 0 {
        return Some("RAFT NO LEADER".into());
    }
    let read = door.read_barrier(&Call::internal(Instant::now())).await;
    read.err().map(|why| format!("RANGE ERROR:{}", why.message))
}
