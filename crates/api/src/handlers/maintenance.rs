//! The Maintenance service.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use milepost_machine::Reply;
use milepost_mvcc::{Store, StoreError};
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use tokio::sync::{oneshot, watch};

use crate::call::Call;
use crate::door::{Door, confused};
use crate::status::{self, Code, Status};
use crate::workers;

/// Reads, raises or clears alarms. Reading goes through the log too, as in etcd.
///
/// # Errors
/// As any proposal.
pub(crate) async fn alarm(
    door: &Rc<Door>,
    call: &Call,
    request: pb::AlarmRequest,
) -> Result<pb::AlarmResponse, Status> {
    match door.propose(call, Request::Alarm(request)).await? {
        Reply::Alarm(mut response) => {
            door.complete(&mut response.header);
            Ok(response)
        }
        _ => Err(confused("another reply than to an alarm")),
    }
}

/// How this member is.
///
/// # Errors
/// None.
pub(crate) async fn status(door: &Rc<Door>, _: &Call, _: pb::StatusRequest) -> Result<pb::StatusResponse, Status> {
    let (standing, reader) = (door.backend.standing(), door.reader());
    let (sizes, cluster, config) = (reader.sizes(), reader.cluster(), reader.config());
    let mut errors = Vec::new();
    if standing.leader == 0 {
        errors.push(status::NO_LEADER.message.into_owned());
    }
    for alarm in reader.alarms().list(pb::AlarmType::None as i32) {
        let kind = pb::AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
        errors.push(format!("memberID:{} alarm:{kind}", alarm.member_id));
    }
    let downgrade = &cluster.downgrade;
    let (enabled, target_version) = (downgrade.enabled, downgrade.target.clone());
    Ok(pb::StatusResponse {
        header: door.header(reader.revision()),
        version: door.config.server_version.clone(),
        db_size: signed(sizes.file),
        leader: standing.leader,
        raft_index: standing.committed,
        raft_term: standing.term,
        raft_applied_index: standing.applied,
        errors,
        db_size_in_use: signed(sizes.in_use),
        is_learner: standing.is_learner,
        storage_version: cluster.version.map(|version| version.minor_only().to_string()).unwrap_or_default(),
        db_size_quota: match config.quota_bytes {
            0 => milepost_machine::DEFAULT_QUOTA_BYTES,
            bytes => bytes,
        },
        downgrade_info: Some(pb::DowngradeInfo { enabled, target_version }),
    })
}

/// A checksum of the keyspace's history up to a revision; 0: all of it.
///
/// # Errors
/// The revision is compacted or has not happened.
pub(crate) async fn hash_kv(
    door: &Rc<Door>,
    _: &Call,
    request: pb::HashKvRequest,
) -> Result<pb::HashKvResponse, Status> {
    let started = Instant::now();
    let hash = long(door, move |store| store.hash_kv(request.revision)).await?;
    door.metrics.hash_by_revision.observe(started.elapsed());
    Ok(pb::HashKvResponse {
        header: door.header(door.reader().revision()),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        hash_revision: hash.hash_revision,
    })
}

/// A checksum of everything, for tests.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn hash(door: &Rc<Door>, _: &Call, _: pb::HashRequest) -> Result<pb::HashResponse, Status> {
    let revision = door.reader().revision();
    let started = Instant::now();
    let hash = long(door, |store| store.hash()).await?;
    door.metrics.hash.observe(started.elapsed());
    Ok(pb::HashResponse { header: door.header(revision), hash })
}

/// Rewrites the store without its free space. It goes on when the caller gives up.
///
/// # Errors
/// The disk has no room for a second copy, or fails.
pub(crate) async fn defragment(
    door: &Rc<Door>,
    _: &Call,
    _: pb::DefragmentRequest,
) -> Result<pb::DefragmentResponse, Status> {
    let (done, is_done) = oneshot::channel();
    let pause = door.config.stop_serving_on_defragment.then(|| Pause::begin(&door.serving));
    door.backend.defragment(Box::new(move |result| {
        drop(pause);
        // Nobody may be listening.
        let _ = done.send(result);
    }));
    tokio::select! {
        result = is_done => match result {
            Ok(Ok(())) => Ok(pb::DefragmentResponse { header: None }),
            Ok(Err(why)) => Err(Status::with(Code::Unknown, why)),
            Err(_) => Err(confused("a defragmentation broke off")),
        },
        () = door.stopping() => Err(status::STOPPED),
    }
}

/// The health service says "not serving" while this lives.
struct Pause(Arc<watch::Sender<bool>>);

impl Pause {
    fn begin(serving: &Arc<watch::Sender<bool>>) -> Self {
        serving.send_replace(false);
        Self(Arc::clone(serving))
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// Reads a lot of the store without keeping this core's clients waiting.
async fn long<T: Send + 'static>(
    door: &Rc<Door>,
    read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Status> {
    let store = door.reader().store();
    workers::apart(move || read(&store)).await?.map_err(|why| match why {
        StoreError::Compacted { .. } => status::COMPACTED,
        StoreError::FutureRevision { .. } => status::FUTURE_REVISION,
        why => Status::with(Code::Unknown, why.to_string()),
    })
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
