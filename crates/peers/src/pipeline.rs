//! Messages by POST, one request each: for a member whose streams do not stand, or that we know by its own words alone.

use std::sync::Arc;

use http::Method;
use http::header::CONTENT_TYPE;
use milepost_proto::{Message, raftpb};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;

use crate::exchange::{Answer, Whole};
use crate::headers;
use crate::kept::Kept;
use crate::peer::Peer;
use crate::transport::Shared;
use crate::url::PeerUrl;

/// Requests under way to one member. Source: etcd `connPerPipeline`.
const WORKERS: usize = 4;
/// Messages that may wait for them. Source: etcd `pipelineBufSize`.
pub(crate) const QUEUE_MAX: usize = 64;

type Queue = Arc<Mutex<mpsc::Receiver<raftpb::Message>>>;

/// Starts the workers for `peer`.
pub(crate) fn start(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    queue: mpsc::Receiver<raftpb::Message>,
    runtime: &Handle,
) -> Vec<AbortHandle> {
    let queue = Arc::new(Mutex::new(queue));
    let worker = || runtime.spawn(work(Arc::clone(shared), Arc::clone(peer), Arc::clone(&queue))).abort_handle();
    (0..WORKERS).map(|_| worker()).collect()
}

async fn work(shared: Arc<Shared>, peer: Arc<Peer>, queue: Queue) {
    let mut kept = Kept::new(shared.dialler.clone());
    loop {
        let Some(message) = queue.lock().await.recv().await else { return };
        let url = peer.picker.pick();
        match post(&shared, &mut kept, &url, &message).await {
            Ok(bytes) => {
                peer.status.activate();
                peer.row.sent_bytes.add(bytes);
            }
            Err(why) => {
                peer.picker.unreachable(&url);
                peer.status.deactivate("pipeline", "write", &why);
                peer.row.sent_failures.add(1);
                shared.inbox.unreachable(peer.id);
            }
        }
    }
}

async fn post(shared: &Shared, kept: &mut Kept, url: &PeerUrl, message: &raftpb::Message) -> Result<usize, String> {
    let body = message.encode_to_vec();
    let bytes = body.len();
    let request = shared.identity.request(Method::POST, url, "/raft").header(CONTENT_TYPE, "application/protobuf");
    let request = request.body(Whole::new(body)).map_err(|why| why.to_string())?;
    check(shared, &kept.ask(url, request).await?, url, message.to())?;
    Ok(bytes)
}

/// Whether a POST was taken. Source: etcd `checkPostResponse`.
///
/// # Errors
/// Why not.
pub(crate) fn check(shared: &Shared, answer: &Answer, url: &PeerUrl, to: u64) -> Result<(), String> {
    match answer.status {
        204 => Ok(()),
        // An etcd that was taken for another member answers so too: our list is out of date then, and we are not.
        403 if answer.text().contains("mismatch member") => {
            Err(format!("{:?} is not where member {to:x} listens", url.text))
        }
        403 => {
            shared.told_removed();
            Err("the member has been permanently removed from the cluster".into())
        }
        412 => {
            let text = answer.text();
            let to = ("remote-peer-id", format!("{to:x}"));
            if text == headers::INCOMPATIBLE {
                shared.journal.error("request sent was ignored by peer", &[to]);
            } else if text == headers::OTHER_CLUSTER {
                let theirs = headers::text(&answer.headers, headers::CLUSTER_ID).unwrap_or_default().to_owned();
                let ours = shared.identity.cluster.to_string();
                let fields = [to, ("remote-peer-cluster-id", theirs), ("local-member-cluster-id", ours)];
                shared.journal.error("request sent was ignored due to cluster ID mismatch", &fields);
            } else {
                return Err(format!("unhandled error {text:?} when precondition failed"));
            }
            Err(text)
        }
        status => {
            let reason = http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
            Err(format!("unexpected http status {} while posting to {:?}", reason.unwrap_or_default(), url.text))
        }
    }
}
