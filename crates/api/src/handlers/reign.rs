//! Of the Maintenance service: who leads, and at which version.

use std::rc::Rc;
use std::time::{Duration, Instant};

use milepost_machine::{ClusterInfo, Error, Version};
use milepost_node::log::Value;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::downgrade_request::DowngradeAction;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::membershippb::DowngradeInfoSetRequest;
use milepost_types::MemberId;

use crate::call::Call;
use crate::door::Door;
use crate::handlers::leader;
use crate::status::{self, Status};

/// How often it is looked at who leads, while leadership is handed over.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Hands leadership to another voter, and waits until it leads. Source: etcd `EtcdServer.MoveLeader`.
///
/// # Errors
/// This member does not lead; there is no such voter; it does not lead in time.
pub(crate) async fn move_leader(
    door: &Rc<Door>,
    call: &Call,
    request: pb::MoveLeaderRequest,
) -> Result<pb::MoveLeaderResponse, Status> {
    if !leader::is_ourselves(door) {
        return Err(status::NOT_LEADER);
    }
    let target = MemberId(request.target_id);
    if !door.reader().membership().voters().any(|voter| voter.id == target) {
        return Err(status::BAD_TRANSFEREE);
    }
    let started = Instant::now();
    let ours = started + door.config.limits.request_timeout();
    let until = call.deadline.map_or(ours, |theirs| theirs.min(ours));
    let own = Value::from(MemberId(door.backend.standing().member_id).to_string());
    let named = |name| (name, Value::from(target.to_string()));
    let fields =
        [("local-member-id", own.clone()), ("current-leader-member-id", own.clone()), named("transferee-member-id")];
    door.config.log.info("leadership transfer starting", &fields);
    door.backend.transfer_leader(target);
    while door.backend.standing().leader != target.0 {
        if door.is_stopping.get() {
            return Err(status::STOPPED);
        }
        if Instant::now() >= until {
            return Err(status::TRANSFER_TIMEOUT);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let fields = [
        ("local-member-id", own.clone()),
        ("old-leader-member-id", own),
        named("new-leader-member-id"),
        ("took", started.elapsed().into()),
    ];
    door.config.log.info("leadership transfer finished", &fields);
    Ok(pb::MoveLeaderResponse { header: None })
}

/// Tells whether the cluster could go down a version, begins to, or gives it up. Source: etcd `EtcdServer.Downgrade`.
///
/// # Errors
/// A target that is none or cannot be, a downgrade under way, no cluster version yet; as any proposal.
pub(crate) async fn downgrade(
    door: &Rc<Door>,
    call: &Call,
    request: pb::DowngradeRequest,
) -> Result<pb::DowngradeResponse, Status> {
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => drop(validate(door, call, &request.version).await?),
        Ok(DowngradeAction::Enable) => enable(door, call, &request.version).await?,
        Ok(DowngradeAction::Cancel) => cancel(door, call).await,
        Err(_) => return Err(status::UNKNOWN_METHOD),
    }
    let version = door.reader().cluster_version().map(|version| format!("{}.{}", version.major, version.minor));
    let header = door.header(door.reader().revision());
    Ok(pb::DowngradeResponse { header, version: version.unwrap_or_default() })
}

/// May the cluster be downgraded to `target`? The version to propose.
async fn validate(door: &Rc<Door>, call: &Call, target: &str) -> Result<Version, Status> {
    // What is wrong in itself is said without asking the others.
    match door.reader().cluster().check_downgrade(target) {
        Err(why @ (Error::DowngradeFormat | Error::NoClusterVersion)) => return Err(why.into()),
        _ => door.read_barrier(call).await?,
    }
    Ok(door.reader().cluster().check_downgrade(target)?)
}

async fn enable(door: &Rc<Door>, call: &Call, target: &str) -> Result<(), Status> {
    let set = async {
        let version = validate(door, call, target).await?;
        let request = DowngradeInfoSetRequest { enabled: true, ver: version.to_string() };
        door.propose(call, Request::DowngradeInfoSet(request)).await
    };
    match set.await {
        Ok(_) => Ok(()),
        Err(why) => {
            door.config.log.warn("reject downgrade request", &[("error", Value::from(&*why.message))]);
            Err(why)
        }
    }
}

/// Whoever cancels hears that all is well, also if nothing was cancelled; as in etcd.
async fn cancel(door: &Rc<Door>, call: &Call) {
    let set = async {
        door.read_barrier(call).await?;
        let cluster: &ClusterInfo = &door.reader().cluster();
        if !cluster.downgrade.enabled {
            return Err(status::NO_DOWNGRADE);
        }
        let request = DowngradeInfoSetRequest { enabled: false, ver: String::new() };
        door.propose(call, Request::DowngradeInfoSet(request)).await
    };
    if let Err(why) = set.await {
        door.config.log.warn("failed to cancel downgrade", &[("error", Value::from(&*why.message))]);
    }
}
