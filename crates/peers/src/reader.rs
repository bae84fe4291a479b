//! Asks another member for its messages, and reads them until the stream ends; then again.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body::Body;
use hyper::body::Incoming;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::exchange::{Answer, Whole, chain};
use crate::framing::{Decoder, Kind};
use crate::headers;
use crate::peer::Peer;
use crate::transport::Shared;
use crate::url::PeerUrl;

/// Least time between two attempts. Source: etcd `DialRetryFrequency`.
const RETRY: Duration = Duration::from_millis(100);
/// Longest answer that is no stream.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// Reads the stream of `kind` from `peer` forever.
pub(crate) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, kind: Kind) {
    let fields = [
        ("stream-reader-type", kind.name().to_owned()),
        ("local-member-id", shared.identity.member.to_string()),
        ("remote-peer-id", peer.id.to_string()),
    ];
    shared.journal.info("started stream reader with remote peer", &fields);
    loop {
        let pause = sleep(RETRY);
        let url = peer.picker.pick();
        match dial(&shared, &peer, kind, &url).await {
            Err(why) => {
                peer.picker.unreachable(&url);
                peer.status.deactivate(kind.name(), "dial", &why);
            }
            Ok(mut stream) => {
                peer.status.activate();
                shared.journal.info("established TCP streaming connection with remote peer", &fields);
                let end = read(&shared, &peer, kind, &mut stream.body).await;
                let why = end.clone().err().unwrap_or_else(|| "EOF".into());
                let [a, b, c] = fields.clone();
                let fields = [a, b, c, ("error", why)];
                shared.journal.warn("lost TCP streaming connection with remote peer", &fields);
                if let Err(why) = end {
                    peer.status.deactivate(kind.name(), "read", &why);
                }
            }
        }
        pause.await;
    }
}

/// An answer that does not end, and what moves its bytes.
struct Stream {
    body: Incoming,
    driver: AbortHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn dial(shared: &Shared, peer: &Peer, kind: Kind, url: &PeerUrl) -> Result<Stream, String> {
    let path = format!("/raft/stream/{}/{}", kind.path(), shared.identity.member);
    let request = shared.identity.request(Method::GET, url, &path).header(headers::TO, peer.id.to_string());
    let request = request.body(Whole::new(Bytes::new())).map_err(|why| why.to_string())?;
    let (mut sender, connection) = shared.dialler.http(url).await?;
    let driver = tokio::spawn(async move {
        // How it ends shows in the body.
        let _ = connection.await;
    });
    let driver = Guard(Some(driver.abort_handle()));
    let asked = timeout(shared.patience.read, sender.send_request(request)).await;
    let response = asked.map_err(|_| "i/o timeout".to_owned())?.map_err(|why| chain(&why))?;
    if !shared.identity.can_read(response.headers()) {
        return Err("unsupported stream type".into());
    }
    if response.status().as_u16() == 200 {
        return Ok(Stream { body: response.into_body(), driver: driver.keep() });
    }
    let answer = timeout(shared.patience.read, Answer::read(response, REFUSAL_BYTES_MAX)).await;
    let answer = answer.map_err(|_| "i/o timeout".to_owned())??;
    Err(refusal(shared, peer, &answer))
}

/// Ends the task unless it is kept.
struct Guard(Option<AbortHandle>);

impl Guard {
    fn keep(mut self) -> AbortHandle {
        self.0.take().expect("kept once")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Why there is no stream. Source: etcd `streamReader.dial`.
fn refusal(shared: &Shared, peer: &Peer, answer: &Answer) -> String {
    match answer.status {
        410 => {
            shared.told_removed();
            "the member has been permanently removed from the cluster".into()
        }
        404 => format!("peer {} failed to find local node {}", peer.id, shared.identity.member),
        412 => {
            let text = answer.text();
            let local = ("local-member-id", shared.identity.member.to_string());
            let remote = ("remote-peer-id", peer.id.to_string());
            let error = ("error", text.clone());
            if text == headers::INCOMPATIBLE {
                let line = "request sent was ignored by remote peer due to server version incompatibility";
                shared.journal.warn(line, &[local, remote, error]);
            } else if text == headers::OTHER_CLUSTER {
                let theirs = headers::text(&answer.headers, headers::CLUSTER_ID).unwrap_or_default().to_owned();
                let ours = ("local-member-cluster-id", shared.identity.cluster.to_string());
                let fields = [remote, ("remote-peer-cluster-id", theirs), local, ours, error];
                shared.journal.warn("request sent was ignored by remote peer due to cluster ID mismatch", &fields);
            } else {
                return format!("unhandled error {text:?} when precondition failed");
            }
            text
        }
        status => format!("unhandled http status {status}"),
    }
}

/// Reads to the end: `Ok` if the other end ended it.
async fn read(shared: &Shared, peer: &Peer, kind: Kind, body: &mut Incoming) -> Result<(), String> {
    let mut decoder = Decoder::new(kind, shared.identity.member.0, peer.id.0);
    loop {
        let frame = timeout(shared.patience.read, std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))).await;
        let frame = match frame {
            Err(_) => return Err("i/o timeout".into()),
            Ok(None) => return Ok(()),
            Ok(Some(frame)) => frame.map_err(|why| chain(&why))?,
        };
        let Ok(chunk) = frame.into_data() else { continue };
        peer.row.received_bytes.add(chunk.len());
        decoder.push(&chunk);
        while let Some(message) = decoder.next()? {
            shared.receive(message);
        }
    }
}
