//! All other members together: who they are, what goes to them, what comes from them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use milepost_env::Clock;
use milepost_proto::raftpb;
use milepost_types::{ClusterId, MemberId};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::dial::Dialler;
use crate::framing::MSG_APP_RESP;
use crate::headers::Identity;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::peer::{Peer, Reach};
use crate::service::{self, Service};
use crate::snapshot::{self, WriteBody};
use crate::tls::TlsSettings;
use crate::url::PeerUrl;

/// Members that are answered though nobody here knows them yet: more than a cluster has.
const REMOTES_MAX: usize = 64;

/// What the member does with what comes. Every method may be called from any thread, and but for
/// [`Inbox::snapshot`] none may block.
pub trait Inbox: Send + Sync {
    /// A message of another member. Nothing of it is checked but that it is for us, and not from a removed member.
    fn receive(&self, message: raftpb::Message);

    /// A message to `peer` was lost.
    fn unreachable(&self, peer: MemberId);

    /// The snapshot to `peer` has arrived, or not.
    fn snapshot_sent(&self, peer: MemberId, ok: bool);

    /// A snapshot: its message, then its database. Called on a thread of its own; `body` waits for what comes, and fails
    /// when the other end is gone.
    ///
    /// # Errors
    /// A sentence for the log and the sender.
    fn snapshot(&self, message: raftpb::Message, body: &mut dyn io::Read) -> Result<(), String>;

    /// Another member says that we were removed from the cluster for good.
    fn removed(&self);
}

/// What the transport is told once.
pub struct TransportConfig {
    /// How long a connection may be still.
    pub patience: Patience,
    /// This member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Where others reach us (`--initial-advertise-peer-urls`).
    pub peer_urls: Vec<String>,
    /// The version of etcd that we speak.
    pub server_version: String,
    /// How `https` URLs are called.
    pub tls: TlsSettings,
    /// How long a connection may take.
    pub dial_timeout: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The log.
    pub journal: Arc<dyn Journal>,
}

/// How long a connection between members may be still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Nothing may come for this long; on our streams something goes out three times in it (`--raft-read-timeout`).
    /// Source: etcd `ConnReadTimeout`.
    pub read: Duration,
    /// The other end must take something within this (`--raft-write-timeout`). Source: etcd `ConnWriteTimeout`.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { read: Duration::from_secs(5), write: Duration::from_secs(5) }
    }
}

/// What all parts share.
pub(crate) struct Shared {
    pub(crate) patience: Patience,
    pub(crate) identity: Identity,
    pub(crate) dialler: Dialler,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) metrics: Metrics,
    /// Held for moments; never across an await.
    others: RwLock<Others>,
    runtime: Mutex<Runtime>,
    is_stopped: AtomicBool,
    told_removed: AtomicBool,
    /// Snapshots on their way out and in.
    pub(crate) sending: AtomicUsize,
    pub(crate) receiving: AtomicUsize,
}

#[derive(Default)]
struct Others {
    peers: BTreeMap<MemberId, (Vec<String>, Arc<Peer>)>,
    remotes: BTreeMap<MemberId, Arc<Peer>>,
    removed: BTreeSet<MemberId>,
}

/// The thread that calls others; there is none while there are no others.
enum Runtime {
    NotYet,
    Running { handle: Handle, stop: oneshot::Sender<()>, thread: JoinHandle<()> },
    Stopped,
}

/// The way to all other members. Clones are handles to the same one; it ends when it is [stopped](Transport::stop).
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

impl Transport {
    /// A transport to nobody; it costs nothing before [`Transport::set_members`] tells of others.
    ///
    /// # Errors
    /// A file of `config.tls` is no good: which, and why.
    pub fn new(config: TransportConfig, inbox: Arc<dyn Inbox>) -> Result<Self, String> {
        let identity = Identity {
            member: config.member,
            cluster: config.cluster,
            peer_urls: config.peer_urls,
            version: config.server_version,
        };
        let shared = Shared {
            patience: config.patience,
            identity,
            dialler: Dialler::new(config.tls, config.dial_timeout)?,
            inbox,
            clock: config.clock,
            journal: config.journal,
            metrics: Metrics::default(),
            others: RwLock::default(),
            runtime: Mutex::new(Runtime::NotYet),
            is_stopped: AtomicBool::new(false),
            told_removed: AtomicBool::new(false),
            sending: AtomicUsize::new(0),
            receiving: AtomicUsize::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Sends these, in order. What cannot be sent is dropped, and reported to the inbox. Never blocks.
    ///
    /// Of several `MsgAppResp` to one member only the last is sent: it says all that the others say. Source: etcd
    /// `processMessages`.
    pub fn send(&self, messages: Vec<raftpb::Message>) {
        let last_response =
            |to| messages.iter().rposition(|message| message.r#type() == MSG_APP_RESP && message.to() == to);
        let keep: Vec<bool> = messages
            .iter()
            .enumerate()
            .map(|(at, message)| message.r#type() != MSG_APP_RESP || last_response(message.to()) == Some(at))
            .collect();
        for (message, keep) in messages.into_iter().zip(keep) {
            if keep && let Some(peer) = self.shared.way_to(MemberId(message.to())) {
                peer.send(&self.shared, message);
            }
        }
    }

    /// Sends a snapshot: `message`, then what `write` writes, on a thread of its own. Its end is told to the inbox,
    /// whatever it is. `total_bytes` is for the log alone.
    pub fn send_snapshot(&self, message: raftpb::Message, total_bytes: u64, write: WriteBody) {
        snapshot::send::start(&self.shared, message, total_bytes, write);
    }

    /// Who is in the cluster from now on, this member included, with their peer URLs; and who never will be again.
    pub fn set_members(&self, members: &[(MemberId, Vec<String>)], removed: impl IntoIterator<Item = MemberId>) {
        self.shared.set_members(members, removed.into_iter().collect());
    }

    /// What answers other members' requests to paths that begin with `/raft`.
    #[must_use]
    pub fn service(&self) -> Service {
        service::of(Arc::clone(&self.shared))
    }

    /// Since when `peer` is connected, by the monotonic clock; `None`: it is not.
    #[must_use]
    pub fn active_since(&self, peer: MemberId) -> Option<Duration> {
        self.shared.others.read().peers.get(&peer)?.1.status.active_since()
    }

    /// For how long `peer` has been connected; `None`: it is not.
    #[must_use]
    pub fn active_for(&self, peer: MemberId) -> Option<Duration> {
        Some(self.shared.clock.monotonic().saturating_sub(self.active_since(peer)?))
    }

    /// What was counted, in Prometheus' text format, under etcd's names.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.shared.metrics.render(self.shared.identity.member)
    }

    #[cfg(test)]
    pub(crate) fn shared_for_tests(&self) -> &Shared {
        &self.shared
    }

    /// Hangs up on everybody, for good.
    pub fn stop(&self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
        let others = std::mem::take(&mut *self.shared.others.write());
        for (_, peer) in others.peers.into_values() {
            peer.stop();
        }
        others.remotes.into_values().for_each(|remote| remote.stop());
        let runtime = std::mem::replace(&mut *self.shared.runtime.lock(), Runtime::Stopped);
        if let Runtime::Running { stop, thread, .. } = runtime {
            drop(stop);
            // It has nothing left to do; one that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Whoever answers to `id`; nobody if it is us, unknown or removed.
    pub(crate) fn way_to(&self, id: MemberId) -> Option<Arc<Peer>> {
        let others = self.others.read();
        if others.removed.contains(&id) {
            return None;
        }
        others.peers.get(&id).map(|(_, peer)| peer).or_else(|| others.remotes.get(&id)).cloned()
    }

    /// A member of the cluster other than us.
    pub(crate) fn peer(&self, id: MemberId) -> Option<Arc<Peer>> {
        self.others.read().peers.get(&id).map(|(_, peer)| Arc::clone(peer))
    }

    /// Whether `id` was in the cluster and never will be again.
    pub(crate) fn is_removed(&self, id: MemberId) -> bool {
        self.others.read().removed.contains(&id)
    }

    /// Hands `message` on, or drops it if it is not for us; that is the sender's mistake, and told.
    pub(crate) fn receive(&self, message: raftpb::Message) {
        if self.is_for_us(&message) && !self.is_removed(MemberId(message.from())) {
            return self.inbox.receive(message);
        }
        let fields = [
            ("local-member-id", self.identity.member.to_string()),
            ("mismatch-member-id", format!("{:x}", message.to())),
            ("from", format!("{:x}", message.from())),
        ];
        self.journal.debug("dropped a Raft message that is not for this member, or from a removed one", &fields);
    }

    pub(crate) fn is_for_us(&self, message: &raftpb::Message) -> bool {
        message.to() == self.identity.member.0
    }

    /// Another member says that we were removed.
    pub(crate) fn told_removed(&self) {
        if !self.told_removed.swap(true, Ordering::SeqCst) {
            self.inbox.removed();
        }
    }

    /// Answers a member that is not known here yet at the place that it names itself.
    pub(crate) fn add_remote(self: &Arc<Self>, id: MemberId, texts: &[String]) {
        let Ok(urls) = texts.iter().map(|text| PeerUrl::parse(text)).collect::<Result<Vec<_>, _>>() else { return };
        if id == self.identity.member || urls.is_empty() {
            return;
        }
        let mut others = self.others.write();
        let is_known = others.peers.contains_key(&id) || others.remotes.contains_key(&id);
        if is_known || others.removed.contains(&id) || others.remotes.len() >= REMOTES_MAX {
            return;
        }
        let Some(runtime) = self.runtime() else { return };
        others.remotes.insert(id, Peer::start(self, id, urls, Reach::Remote, &runtime));
        drop(others);
        let [local, remote, urls] = self.fields(id, texts);
        self.journal
            .info("added new remote peer", &[local, ("remote-peer-id", remote.1), ("remote-peer-urls", urls.1)]);
    }

    fn set_members(self: &Arc<Self>, members: &[(MemberId, Vec<String>)], removed: BTreeSet<MemberId>) {
        let mut others = self.others.write();
        if self.is_stopped.load(Ordering::SeqCst) {
            return;
        }
        others.removed = removed;
        let gone: Vec<MemberId> =
            others.peers.keys().copied().filter(|id| !members.iter().any(|(member, _)| member == id)).collect();
        for id in gone {
            if let Some((_, peer)) = others.peers.remove(&id) {
                peer.stop();
                let fields =
                    [("local-member-id", self.identity.member.to_string()), ("removed-remote-peer-id", id.to_string())];
                self.journal.info("removed remote peer", &fields);
            }
        }
        let removed = others.removed.clone();
        others.remotes.retain(|id, remote| {
            let is_stranger = !removed.contains(id) && !members.iter().any(|(member, _)| member == id);
            if !is_stranger {
                remote.stop();
            }
            is_stranger
        });
        for (id, texts) in members {
            if *id != self.identity.member {
                self.set_member(&mut others, *id, texts);
            }
        }
    }

    fn set_member(self: &Arc<Self>, others: &mut Others, id: MemberId, texts: &[String]) {
        if others.peers.get(&id).is_some_and(|(known, _)| known == texts) {
            return;
        }
        let urls: Result<Vec<_>, _> = texts.iter().map(|text| PeerUrl::parse(text)).collect();
        let urls = match urls {
            Ok(urls) if !urls.is_empty() => urls,
            Ok(_) => return,
            Err(why) => {
                let fields = [("remote-peer-id", id.to_string()), ("error", why)];
                return self.journal.error("a member cannot be reached: its peer URL makes no sense", &fields);
            }
        };
        let [local, remote, shown] = self.fields(id, texts);
        if let Some((known, peer)) = others.peers.get_mut(&id) {
            peer.picker.update(urls);
            *known = texts.to_vec();
            let fields = [local, ("updated-remote-peer-id", remote.1), ("updated-remote-peer-urls", shown.1)];
            return self.journal.info("updated remote peer", &fields);
        }
        let Some(runtime) = self.runtime() else { return };
        self.journal.info("starting remote peer", std::slice::from_ref(&remote));
        let peer = Peer::start(self, id, urls, Reach::Member, &runtime);
        others.peers.insert(id, (texts.to_vec(), peer));
        self.journal.info("added remote peer", &[local, remote, shown]);
    }

    fn fields(&self, id: MemberId, urls: &[String]) -> [(&'static str, String); 3] {
        [
            ("local-member-id", self.identity.member.to_string()),
            ("remote-peer-id", id.to_string()),
            ("remote-peer-urls", urls.join(",")),
        ]
    }

    /// Where tasks run; the thread is started when the first is needed. `None`: everything has stopped, or the system
    /// gives no thread, which is told.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        let mut runtime = self.runtime.lock();
        if let Runtime::NotYet = *runtime {
            match start() {
                Ok(running) => *runtime = running,
                Err(why) => {
                    let fields = [("error", why.to_string())];
                    self.journal.error("no thread can be started for calling other members", &fields);
                }
            }
        }
        match &*runtime {
            Runtime::Running { handle, .. } => Some(handle.clone()),
            Runtime::NotYet | Runtime::Stopped => None,
        }
    }
}

fn start() -> io::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("peers".into()).spawn(move || {
        // Ends when the sender is dropped.
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    })?;
    Ok(Runtime::Running { handle, stop, thread })
}
