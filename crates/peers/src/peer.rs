//! One other member: its streams, its pipeline, whether it is connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use milepost_proto::raftpb;
use milepost_types::MemberId;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::framing::{Kind, MSG_APP, MSG_SNAP, type_name};
use crate::metrics::Row;
use crate::outbox::{Outbox, Refusal};
use crate::picker::Picker;
use crate::status::Status;
use crate::transport::Shared;
use crate::url::PeerUrl;
use crate::{pipeline, probe, reader};

/// A drop is told once in so many seconds.
const TELL_SECONDS: u64 = 10;

/// The way to one member.
pub(crate) struct Peer {
    pub(crate) id: MemberId,
    pub(crate) picker: Picker,
    pub(crate) status: Status,
    pub(crate) row: Arc<Row>,
    msgapp: Arc<Outbox>,
    message: Arc<Outbox>,
    pipeline: mpsc::Sender<raftpb::Message>,
    /// When a drop was told last, in seconds of the monotonic clock, one more.
    told: AtomicU64,
    tasks: parking_lot::Mutex<Vec<AbortHandle>>,
}

/// How much is done for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It is in the cluster: its messages are asked for, and it is probed.
    Member,
    /// It is known by its own words alone: it is answered.
    Remote,
}

impl Peer {
    /// Starts what `reach` says on `runtime`. `urls` must not be empty.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        id: MemberId,
        urls: Vec<PeerUrl>,
        reach: Reach,
        runtime: &Handle,
    ) -> Arc<Self> {
        let row = shared.metrics.of(id);
        let (pipeline, queue) = mpsc::channel(pipeline::QUEUE_MAX);
        let (clock, journal) = (Arc::clone(&shared.clock), Arc::clone(&shared.journal));
        let peer = Arc::new(Self {
            id,
            picker: Picker::new(urls),
            status: Status::new(id, clock, journal, Arc::clone(&row)),
            row,
            msgapp: Arc::default(),
            message: Arc::default(),
            pipeline,
            told: AtomicU64::new(0),
            tasks: parking_lot::Mutex::default(),
        });
        let mut tasks = pipeline::start(shared, &peer, queue, runtime);
        if reach == Reach::Member {
            for kind in Kind::BOTH {
                let reading = reader::run(Arc::clone(shared), Arc::clone(&peer), kind);
                tasks.push(runtime.spawn(reading).abort_handle());
            }
            tasks.push(runtime.spawn(probe::run(Arc::clone(shared), Arc::clone(&peer))).abort_handle());
        }
        *peer.tasks.lock() = tasks;
        peer
    }

    pub(crate) fn outbox(&self, kind: Kind) -> &Arc<Outbox> {
        match kind {
            Kind::MsgApp => &self.msgapp,
            Kind::Message => &self.message,
        }
    }

    /// Sends by the best way there is. Source: etcd `peer.pick`.
    pub(crate) fn send(&self, shared: &Shared, message: raftpb::Message) {
        let kind = message.r#type();
        let mut message = message;
        let streams: &[(&Outbox, &str)] = match kind {
            MSG_SNAP => &[],
            MSG_APP => &[(&self.msgapp, "streamMsgAppV2"), (&self.message, "streamMsg")],
            _ => &[(&self.message, "streamMsg")],
        };
        for (outbox, name) in streams {
            match outbox.push(message) {
                None => return,
                Some((Refusal::NoStream, back)) => message = back,
                Some((Refusal::Full, back)) => return self.dropped(shared, &back, name),
            }
        }
        if let Err(why) = self.pipeline.try_send(message) {
            self.dropped(shared, &why.into_inner(), "pipeline");
        }
    }

    fn dropped(&self, shared: &Shared, message: &raftpb::Message, way: &str) {
        self.row.sent_failures.add(1);
        shared.inbox.unreachable(self.id);
        let now = shared.clock.monotonic().as_secs() + 1;
        let told = self.told.load(Ordering::Relaxed);
        if told == 0 || told + TELL_SECONDS <= now {
            self.told.store(now, Ordering::Relaxed);
            let fields = [
                ("message-type", type_name(message.r#type()).to_owned()),
                ("local-member-id", shared.identity.member.to_string()),
                ("from", shared.identity.member.to_string()),
                ("remote-peer-id", self.id.to_string()),
                ("remote-peer-name", way.to_owned()),
                ("remote-peer-active", self.status.active_since().is_some().to_string()),
            ];
            shared.journal.warn("dropped internal Raft message since sending buffer is full", &fields);
        }
    }

    /// Ends everything at once.
    pub(crate) fn stop(&self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        self.status.close();
        self.msgapp.close();
        self.message.close();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}
