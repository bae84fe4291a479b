//! Between the node and the room that speaks to other members: the node's letters go out, what comes goes to the node.
//!
//! The node is told where to leave its letters before it starts, and only then is it known who it is. What it says
//! meanwhile is lost, as on any network; who is in the cluster is kept.

use std::io;
use std::panic::Location;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use milepost_env::Clock;
use milepost_machine::Membership;
use milepost_node::log::{self, Log, Value};
use milepost_node::{Letters, Node, SnapshotLetter};
use milepost_peers::{Inbox, Journal, Level, Patience, TlsSettings, Transport, TransportConfig};
use milepost_proto::raftpb;
use milepost_types::MemberId;
use parking_lot::Mutex;

use crate::version::ETCD_VERSION;

/// What is known before the node starts.
pub struct Post {
    peer_urls: Vec<String>,
    tls: TlsSettings,
    dial_timeout: Duration,
    patience: Patience,
    clock: Arc<dyn Clock>,
    log: Arc<dyn Log>,
    transport: OnceLock<Transport>,
    early: Mutex<Early>,
}

/// What the node said before the transport was there. Held while the transport is told, so that an older word never
/// comes after a newer one.
#[derive(Default)]
struct Early {
    /// Who is in the cluster, as it was told last.
    membership: Option<Arc<Membership>>,
    /// Whom a snapshot was meant for.
    unsent: Vec<MemberId>,
}

impl Post {
    /// Of a member that others reach at `peer_urls`; `dial_timeout`: for one connection to another, which may be still for `patience`.
    #[must_use]
    pub fn new(
        peer_urls: Vec<String>,
        tls: TlsSettings,
        dial_timeout: Duration,
        patience: Patience,
        clock: Arc<dyn Clock>,
        log: Arc<dyn Log>,
    ) -> Self {
        Self { peer_urls, tls, dial_timeout, patience, clock, log, transport: OnceLock::new(), early: Mutex::default() }
    }

    /// Letters of `node` go out from now on, and others' reach it.
    ///
    /// # Errors
    /// A file of TLS is no good.
    pub fn open(&self, node: &Node) -> Result<&Transport, String> {
        let status = node.status();
        let config = TransportConfig {
            member: status.member_id,
            cluster: status.cluster_id,
            peer_urls: self.peer_urls.clone(),
            server_version: ETCD_VERSION.to_owned(),
            tls: self.tls.clone(),
            dial_timeout: self.dial_timeout,
            patience: self.patience,
            clock: Arc::clone(&self.clock),
            journal: Arc::new(ToLog(Arc::clone(&self.log))),
        };
        let transport = Transport::new(config, Arc::new(ToNode { node: node.clone() }))?;
        let mut early = self.early.lock();
        let transport = self.transport.get_or_init(|| transport);
        early.membership.iter().for_each(|membership| tell(transport, membership));
        // Raft sends nothing more to who is said to get a snapshot.
        early.unsent.drain(..).for_each(|to| node.report_snapshot(to, false));
        Ok(transport)
    }

    /// For how long another member has been connected; `None`: it is not.
    #[must_use]
    pub fn active_for(&self, member: MemberId) -> Option<Duration> {
        self.transport.get()?.active_for(member)
    }

    /// Says no more, and hears no more.
    pub fn close(&self) {
        self.transport.get().iter().for_each(|transport| transport.stop());
    }
}

fn tell(transport: &Transport, membership: &Membership) {
    let members: Vec<(MemberId, Vec<String>)> =
        membership.members.iter().map(|(id, member)| (*id, member.peer_urls.clone())).collect();
    transport.set_members(&members, membership.removed.iter().copied());
}

impl Letters for Post {
    fn send(&self, messages: Vec<raftpb::Message>) {
        if let Some(transport) = self.transport.get() {
            transport.send(messages);
        }
    }

    fn send_snapshot(&self, letter: SnapshotLetter) {
        let SnapshotLetter { message, total_bytes, body } = letter;
        let mut early = self.early.lock();
        match self.transport.get() {
            Some(transport) => transport.send_snapshot(message, total_bytes, Box::new(move |out| body.write(out))),
            None => early.unsent.push(MemberId(message.to())),
        }
    }

    fn set_members(&self, membership: Arc<Membership>) {
        let mut early = self.early.lock();
        if let Some(transport) = self.transport.get() {
            tell(transport, &membership);
        }
        early.membership = Some(membership);
    }
}

/// What comes for the node.
struct ToNode {
    node: Node,
}

impl Inbox for ToNode {
    fn receive(&self, message: raftpb::Message) {
        self.node.receive(message);
    }

    fn unreachable(&self, peer: MemberId) {
        self.node.report_unreachable(peer);
    }

    fn snapshot_sent(&self, peer: MemberId, ok: bool) {
        self.node.report_snapshot(peer, ok);
    }

    fn snapshot(&self, message: raftpb::Message, body: &mut dyn io::Read) -> Result<(), String> {
        self.node.install_snapshot(message, body).map_err(|error| error.to_string())
    }

    fn removed(&self) {
        self.node.told_removed();
    }
}

/// The transport's lines in the member's log.
struct ToLog(Arc<dyn Log>);

impl Journal for ToLog {
    fn tell_at(&self, level: Level, caller: &'static Location<'static>, text: &str, fields: &[(&str, String)]) {
        let level = match level {
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        let fields: Vec<(&str, Value)> = fields.iter().map(|(name, value)| (*name, value.as_str().into())).collect();
        self.0.log_at(level, None, caller, text, &fields);
    }
}
