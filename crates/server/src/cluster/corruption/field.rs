//! The checks in the field: this member's store, the others over the network, and a thread that knows the time.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::{Duration, Instant};

use milepost_api::Unheard;
use milepost_mvcc::HashKv;
use milepost_node::log::{Log, Value};
use milepost_node::{Completion, CompletionSink, Node, Waiter};
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::alarm_request::AlarmAction;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_types::MemberId;

use super::{Checker, Members, Theirs, Unknown};
use crate::cluster::colleagues::Others;

/// How long another member may take to say that it is there: a start must not wait long for members that start, too.
const GREETING: Duration = Duration::from_millis(500);

/// More than a small compaction takes.
const SETTLING: Duration = Duration::from_secs(1);

/// This member and the others.
pub struct Field {
    /// This member.
    pub node: Node,
    /// The way to the others.
    pub others: Arc<Others>,
    /// How long a question may take.
    pub timeout: Duration,
    /// Where members that do not answer are named.
    pub log: Arc<dyn Log>,
}

/// Tells one thread of one end.
struct Told(SyncSender<Completion>);

impl CompletionSink for Told {
    fn complete(&self, batch: &mut Vec<(u64, Completion)>) {
        for (_, completion) in batch.drain(..) {
            // Whoever asked may have given up.
            let _ = self.0.try_send(completion);
        }
    }
}

impl Field {
    /// What comes of what `ask` asks the node for.
    fn wait(&self, ask: impl FnOnce(Waiter)) -> Result<Completion, String> {
        let (tell, told) = mpsc::sync_channel(1);
        ask(Waiter { sink: Arc::new(Told(tell)), ticket: 0 });
        told.recv_timeout(self.timeout).map_err(|_| "etcdserver: request timed out".to_owned())
    }
}

impl Members for Field {
    fn own_id(&self) -> MemberId {
        self.node.status().member_id
    }

    fn own(&self, revision: i64) -> Result<(HashKv, i64), String> {
        let reader = self.node.reader();
        let hash = reader.hash_kv(revision).map_err(|why| why.to_string())?;
        Ok((hash, reader.revision()))
    }

    fn compactions(&self) -> Vec<HashKv> {
        self.node.reader().store().compaction_hashes()
    }

    fn others(&self, revision: i64) -> Vec<Theirs> {
        let (status, membership) = (self.node.status(), self.node.reader().membership());
        let others = membership.members.values().filter(|member| member.id != status.member_id);
        let (ids, urls): (Vec<MemberId>, Vec<Vec<String>>) =
            others.filter(|member| !member.peer_urls.is_empty()).map(|m| (m.id, m.peer_urls.clone())).unzip();
        let hashes = self.others.hashes(&urls, status.cluster_id, revision, GREETING);
        let told = ids.into_iter().zip(urls).zip(hashes).map(|((member, urls), hash)| {
            let hash = hash.map_err(|why| {
                let fields = [
                    ("local-member-id", Value::from(status.member_id.to_string())),
                    ("requested-revision", Value::Int(revision)),
                    ("remote-peer-endpoint", urls.join(",").into()),
                    ("error", why.to_string().into()),
                ];
                self.log.warn("failed hash kv request", &fields);
                unknown(&why)
            });
            let hash = hash.map(|record| {
                let hash = HashKv {
                    hash: record.hash,
                    compact_revision: record.compact_revision,
                    hash_revision: record.hash_revision,
                };
                (hash, record.header.revision)
            });
            Theirs { member, urls, hash }
        });
        told.collect()
    }

    fn read_barrier(&self) -> Result<(), String> {
        match self.wait(|waiter| self.node.read_index(waiter))? {
            Completion::ReadReady => Ok(()),
            Completion::Failed(why) => Err(why.to_string()),
            Completion::Reply(_) => Err("a reply to a read".into()),
        }
    }

    fn raise(&self, member: MemberId) {
        let alarm = pb::AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: member.0,
            alarm: pb::AlarmType::Corrupt as i32,
        };
        let id = self.node.next_request_id();
        let header = Some(pb::RequestHeader { id, ..Default::default() });
        let entry = pb::InternalRaftRequest { header, id: 0, request: Some(Request::Alarm(alarm)) };
        let payload = milepost_machine::encode(&entry).into();
        let why = match self.wait(|waiter| self.node.propose(id, payload, waiter)) {
            Ok(Completion::Reply(Ok(_))) => return,
            Ok(Completion::Reply(Err(why))) => why.to_string(),
            Ok(Completion::Failed(why)) => why.to_string(),
            Ok(Completion::ReadReady) => "a read's answer to a proposal".into(),
            Err(why) => why,
        };
        let fields = [("member-id", Value::from(member.to_string())), ("error", why.into())];
        self.log.error("the CORRUPT alarm could not be raised; the next check tries again", &fields);
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn settle(&self) {
        // Nobody speaks: it is only waited.
        let (_silent, heard) = mpsc::channel::<()>();
        let _ = heard.recv_timeout(SETTLING);
    }
}

/// What the others' errors mean, by etcd's texts.
fn unknown(why: &Unheard) -> Unknown {
    match why {
        Unheard::Refused { status: 400, body } if body.contains("required revision has been compacted") => {
            Unknown::Compacted
        }
        Unheard::Refused { status: 400, body } if body.contains("required revision is a future revision") => {
            Unknown::Future
        }
        Unheard::Refused { status: 412, body } if body.contains("cluster ID mismatch") => Unknown::OtherCluster,
        why => Unknown::Silent(why.to_string()),
    }
}

/// When the leader compares.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Everything; `None`: never.
    pub all: Option<Duration>,
    /// What compactions leave; `None`: never.
    pub compactions: Option<Duration>,
}

/// The thread that compares while this member leads. Dropped, it ends.
pub struct Watch {
    _until: Sender<()>,
}

impl Watch {
    /// Starts it, if there is anything to do.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(field: Field, times: Times) -> std::io::Result<Self> {
        let (until, ended) = mpsc::channel();
        if let Some(interval) = times.all {
            let id = field.node.status().member_id.to_string();
            let fields = [("local-member-id", Value::from(id)), ("interval", interval.into())];
            field.log.info("enabled corruption checking", &fields);
        }
        if times.all.is_some() || times.compactions.is_some() {
            std::thread::Builder::new().name("corruption".into()).spawn(move || watch(field, times, &ended))?;
        }
        Ok(Self { _until: until })
    }
}

/// How coarse the times are.
const LOOK_EVERY: Duration = Duration::from_millis(500);

fn watch(field: Field, times: Times, ended: &Receiver<()>) {
    let (node, log) = (field.node.clone(), Arc::clone(&field.log));
    let mut checker = Checker::new(field, &*log);
    let start = Instant::now();
    let mut next_all = times.all.map(|every| start + every);
    let mut next_compactions = times.compactions.map(|every| start + every);
    while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) && node.stopped().is_none() {
        // A lone member has nobody to compare with.
        let leads = || {
            let status = node.status();
            status.leader == status.member_id && node.reader().membership().members.len() > 1
        };
        if is_due(&mut next_all, times.all)
            && leads()
            && let Err(why) = checker.periodic()
        {
            log.warn("failed to check hash KV", &[("error", why.into())]);
        }
        if is_due(&mut next_compactions, times.compactions) && leads() {
            checker.compactions();
        }
    }
}

/// Is it time? Then the next time is set.
fn is_due(next: &mut Option<Instant>, every: Option<Duration>) -> bool {
    let now = Instant::now();
    match (next.as_mut(), every) {
        (Some(next), Some(every)) if *next <= now => {
            *next = now + every;
            true
        }
        _ => false,
    }
}
