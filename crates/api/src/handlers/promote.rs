//! Giving a learner its vote: only the leader knows how far it has come.

use std::rc::Rc;
use std::time::Instant;

use milepost_machine::member;
use milepost_node::log::Value;
use milepost_proto::etcdserverpb as pb;
use milepost_types::MemberId;
use tokio::sync::oneshot;

use crate::call::Call;
use crate::colleagues::Unheard;
use crate::door::Door;
use crate::handlers::leader::{self, Heard};
use crate::handlers::reconfig;
use crate::status::{self, Status};

/// How much of the leader's log a learner must have. Source: etcd `readyPercentThreshold`.
const READY: f64 = 0.9;

/// Promotes learner `id`, here or through the leader; the members afterwards.
///
/// # Errors
/// No such member or no learner, one that is not in sync, a change that would cost the quorum; no leader in time.
pub(crate) async fn promote(door: &Rc<Door>, call: &Call, id: MemberId) -> Result<Vec<pb::Member>, Status> {
    let ours = Instant::now() + door.config.limits.request_timeout();
    let until = call.deadline.map_or(ours, |theirs| theirs.min(ours));
    loop {
        match as_leader(door, call, id).await {
            Err(status) if status == status::NOT_LEADER => {}
            Ok(members) => {
                door.metrics.learner_promotions.add(1);
                return Ok(members);
            }
            Err(status) => {
                door.metrics.failed_promotion(&status.message);
                return Err(status);
            }
        }
        match leader::ask(door, until, |urls| door.config.colleagues.promote(urls, id), refusal).await? {
            Heard::Answer(members) => return Ok(members),
            Heard::IsOurselves => leader::pause(door, until, status::TIMEOUT).await?,
        }
    }
}

/// What the leader's refusal means, if nobody else would answer otherwise. Source: etcd `promoteMemberHTTP`.
fn refusal(why: &Unheard) -> Option<Status> {
    let Unheard::Refused { status, body } = why else { return None };
    match status {
        404 => Some(status::MEMBER_NOT_FOUND),
        412 if body.contains(&*status::LEARNER_NOT_READY.message) => Some(status::LEARNER_NOT_READY),
        412 if body.contains(NOT_LEARNER) => Some(status::NOT_LEARNER),
        _ => None,
    }
}

/// etcd's text between members that a member is no learner.
pub(crate) const NOT_LEARNER: &str = "membership: can only promote a learner member";
/// And that there is no such member.
pub(crate) const NOT_FOUND: &str = "membership: ID not found";

/// Promotes as the leader; `NOT_LEADER` if this is not the leader.
async fn as_leader(door: &Rc<Door>, call: &Call, id: MemberId) -> Result<Vec<pb::Member>, Status> {
    check_ready(door, id).await?;
    reconfig::may_promote(door, id)?;
    door.propose_change(call, |request| member::promote(request, id)).await
}

/// Has `id` as much of the log as a voter should?
async fn check_ready(door: &Rc<Door>, id: MemberId) -> Result<(), Status> {
    door.catch_up().await?;
    let (tell, told) = oneshot::channel();
    door.backend.raft_status(Box::new(move |status| {
        // Nobody may be listening any more.
        let _ = tell.send(status);
    }));
    let progress = told.await.map_err(|_| status::STOPPED)?.progress;
    if progress.is_empty() {
        return Err(status::NOT_LEADER);
    }
    let matched = |id: u64| progress.iter().find(|peer| peer.id == id).map(|peer| peer.matched);
    let learner = matched(id.0).ok_or(status::MEMBER_NOT_FOUND)?;
    let leader = matched(door.backend.standing().member_id).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a ratio, compared with nine tenths")]
    let ready = learner as f64 / leader as f64;
    // A leader with nothing in its log is matched by everybody.
    if ready < READY {
        let fields = [
            ("learner-ready-percent", Value::from(format!("{ready:.3}"))),
            ("ready-percent-threshold", Value::from(format!("{READY}"))),
        ];
        door.config.log.error("rejecting promote learner: learner is not ready", &fields);
        return Err(status::LEARNER_NOT_READY);
    }
    Ok(())
}
