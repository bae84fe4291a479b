//! Clients: they ask any member, one request at a time, wait, give up, and write down what they heard.

use crate::history::{Answer, Ask, Op};
use crate::model::{Heard, Text};
use crate::plan::Plant;
use crate::sim::{Broken, Event, HEARTBEAT, Sim};
use crate::truth::Promise;
use bytes::Bytes;
use milepost_env::Clock;
use milepost_machine::{Reply, encode};
use milepost_node::{Completion, Role, Waiter};
use milepost_proto::Message as _;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::internal_raft_request::Request;
use milepost_proto::raftpb;
use milepost_types::LeaseId;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use std::sync::Arc;

/// Keys are few, so that requests meet.
const KEYS: u64 = 6;
/// A lease that nobody renews, in seconds.
const TTLS: [i64; 3] = [2, 3, 5];

/// What a client waits for.
#[derive(Clone, Debug)]
enum Waiting {
    /// The answer to a write.
    Write,
    /// A confirmation, to read then.
    Read(Option<Text>),
    /// A renewal that must first be confirmed: of which lease.
    Renewal(i64),
    /// A renewal whose checkpoint must first be cleared.
    Clearing(i64),
}

/// One client.
#[derive(Debug, Default)]
pub struct Client {
    /// The member it asked.
    at: u64,
    /// The number of its request: answers to older ones come too late.
    number: u64,
    waiting: Option<Waiting>,
    /// Where the request stands in the history.
    op: Option<usize>,
    /// The write after the healing that was acknowledged.
    pub mark: Option<u64>,
}

/// The request, and how the history knows it.
struct Draw {
    request: Request,
    what: &'static str,
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("k{number}"))
}

/// All keys.
fn everything() -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::from_static(b"\0"), range_end: Bytes::from_static(b"\0"), ..Default::default() }
}

/// What a planted bug makes of entries: values that depend on the clock.
pub fn stamp(entries: &mut [raftpb::Entry], now: u64) {
    for entry in entries.iter_mut().filter(|entry| entry.r#type() == 0 && !entry.data().is_empty()) {
        let Ok(mut request) = pb::InternalRaftRequest::decode(entry.data.clone().unwrap_or_default()) else { continue };
        if let Some(Request::Put(put)) = &mut request.request {
            put.value = Bytes::from([&put.value[..], format!(" at {now}").as_bytes()].concat());
            entry.data = Some(Bytes::from(encode(&request)));
        }
    }
}

impl Sim {
    /// A client's turn.
    pub fn client(&mut self, client: usize) -> Result<(), Broken> {
        let wait = self.rng.between(1_000, 60_000);
        self.after(wait, Event::Client(client));
        if self.clients[client].waiting.is_some() {
            return Ok(());
        }
        if self.healing {
            return if client == 0 && self.clients[0].mark.is_none() { self.put_mark() } else { Ok(()) };
        }
        let up = self.up();
        let Some(at) = self.rng.pick(&up) else { return Ok(()) };
        // Doors open once a member has applied what was committed when it started.
        if !self.is_serving(at) {
            return Ok(());
        }
        match self.rng.below(100) {
            0..=54 => {
                let draw = self.draw_write();
                self.counts.add(draw.what);
                self.write(client, at, draw.request)
            }
            55..=74 => self.read(client, at),
            75..=84 => self.serializable(client, at),
            _ => self.renew(client),
        }
    }

    fn is_serving(&self, at: u64) -> bool {
        let live = self.members[&at].live.as_ref().expect("it is up");
        live.node().wait_ready(std::time::Duration::ZERO)
    }

    fn draw_write(&mut self) -> Draw {
        let key_number = self.rng.below(KEYS);
        // Long enough, every other one, to be left out of rows that wait to be merged.
        let width = if self.rng.chance(1, 2) { 0 } else { 40 };
        let value = Bytes::from(format!("v{:0width$}", self.history.len()));
        let leases: Vec<i64> = self.truth.model.leases();
        match self.rng.below(60) {
            0..=27 => {
                let lease = if self.rng.chance(1, 5) { self.rng.pick(&leases).unwrap_or(0) } else { 0 };
                let put = pb::PutRequest { key: key(key_number), value, lease, prev_kv: true, ..Default::default() };
                Draw { request: Request::Put(put), what: "clients: puts" }
            }
            28..=35 => {
                let delete = pb::DeleteRangeRequest { key: key(key_number), ..Default::default() };
                Draw { request: Request::DeleteRange(delete), what: "clients: deletes" }
            }
            36..=50 => {
                Draw { request: Request::Txn(self.draw_swap(key_number, value)), what: "clients: compare-and-swap" }
            }
            51 | 52 => {
                let revision = self.truth.model.revision - i64::try_from(self.rng.below(10)).unwrap_or(0);
                let compaction = pb::CompactionRequest { revision, physical: false };
                Draw { request: Request::Compaction(compaction), what: "clients: compactions" }
            }
            53..=57 => {
                let id = i64::try_from(self.rng.next() >> 2).unwrap_or(1);
                let grant = pb::LeaseGrantRequest { id, ttl: self.rng.pick(&TTLS).unwrap_or(2) };
                Draw { request: Request::LeaseGrant(grant), what: "leases: asked for" }
            }
            _ => {
                let id = self.rng.pick(&leases).unwrap_or(1);
                Draw {
                    request: Request::LeaseRevoke(pb::LeaseRevokeRequest { id }),
                    what: "leases: revoked by clients",
                }
            }
        }
    }

    /// If the key is what it was lately, set it, and another one with it; else tell what it is.
    fn draw_swap(&mut self, number: u64, value: Bytes) -> pb::TxnRequest {
        let revision = self.truth.model.revision - i64::try_from(self.rng.below(3)).unwrap_or(0);
        let expected = self.truth.model.value_at(&key(number), revision).cloned();
        let (target, union) = match expected {
            Some(value) => (CompareTarget::Value, TargetUnion::Value(Bytes::from(value))),
            None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
        };
        let compare = pb::Compare {
            result: CompareResult::Equal.into(),
            target: target.into(),
            key: key(number),
            target_union: Some(union),
            ..Default::default()
        };
        let put = |key: Bytes| {
            let put = pb::PutRequest { key, value: value.clone(), ..Default::default() };
            pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
        };
        let range = pb::RangeRequest { key: key(number), ..Default::default() };
        let get = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range)) };
        let other = (number + 1 + self.rng.below(KEYS - 1)) % KEYS;
        pb::TxnRequest { compare: vec![compare], success: vec![put(key(number)), put(key(other))], failure: vec![get] }
    }

    fn begin(&mut self, client: usize, at: u64, waiting: Waiting, ask: Option<Ask>) -> u64 {
        let began = self.events;
        let op = ask.map(|ask| {
            self.history.push(Op { client, ask, began, end: None });
            self.history.len() - 1
        });
        let patience = self.rng.between(200_000, 3_000_000);
        let slot = &mut self.clients[client];
        slot.number += 1;
        (slot.at, slot.waiting, slot.op) = (at, Some(waiting), op);
        let number = slot.number;
        self.after(patience, Event::GiveUp(client, number));
        (client as u64) << 32 | number
    }

    fn waiter(&self, at: u64, ticket: u64) -> Waiter {
        Waiter { sink: Arc::clone(&self.members[&at].answers) as _, ticket }
    }

    fn write(&mut self, client: usize, at: u64, request: Request) -> Result<(), Broken> {
        let live = self.members[&at].live.as_ref().expect("it is up");
        let id = live.node().next_request_id();
        if matches!(request, Request::LeaseRevoke(_)) {
            self.truth.revokes.insert(id);
        }
        self.trace(|| format!("client {client} asks {at:x} as {id:x}: {request:?}"));
        let header = Some(pb::RequestHeader { id, ..Default::default() });
        let payload = Bytes::from(encode(&pb::InternalRaftRequest { header, id: 0, request: Some(request) }));
        let ticket = self.begin(client, at, Waiting::Write, Some(Ask::Write(id)));
        let waiter = self.waiter(at, ticket);
        self.members[&at].live.as_ref().expect("it is up").node().propose(id, payload, waiter);
        self.wake(at);
        Ok(())
    }

    fn put_mark(&mut self) -> Result<(), Broken> {
        let members: Vec<u64> = self.up().into_iter().filter(|id| self.truth.members.contains_key(id)).collect();
        let Some(at) = self.rng.pick(&members) else { return Ok(()) };
        let put =
            pb::PutRequest { key: key(0), value: Bytes::from_static(b"mark"), prev_kv: true, ..Default::default() };
        self.write(0, at, Request::Put(put))
    }

    fn read(&mut self, client: usize, at: u64) -> Result<(), Broken> {
        self.counts.add("clients: linearizable reads");
        let what = self.draw_read();
        if self.plant == Some(Plant::UnconfirmedReads) {
            self.begin(client, at, Waiting::Read(what.clone()), Some(Ask::Read(what.clone())));
            return self.finish_read(client, at, what);
        }
        let ticket = self.begin(client, at, Waiting::Read(what.clone()), Some(Ask::Read(what)));
        let waiter = self.waiter(at, ticket);
        self.members[&at].live.as_ref().expect("it is up").node().read_index(waiter);
        self.wake(at);
        let answers = self.members[&at].answers.take();
        answers.into_iter().try_for_each(|(ticket, completion)| self.answered(at, ticket, completion))
    }

    fn draw_read(&mut self) -> Option<Text> {
        let number = self.rng.below(KEYS);
        self.rng.chance(1, 2).then(|| key(number).to_vec())
    }

    fn serializable(&mut self, client: usize, at: u64) -> Result<(), Broken> {
        self.counts.add("clients: serializable reads");
        let what = self.draw_read();
        self.begin(client, at, Waiting::Read(what.clone()), Some(Ask::Serializable(what.clone())));
        self.finish_read(client, at, what)
    }

    fn finish_read(&mut self, client: usize, at: u64, what: Option<Text>) -> Result<(), Broken> {
        let request = match what {
            Some(key) => pb::RangeRequest { key: key.into(), ..Default::default() },
            None => everything(),
        };
        let reader = self.members[&at].reader().expect("it is up");
        let response = reader.range(&request).map_err(|error| format!("a read failed: {error}"))?;
        let revision = response.header.map_or(0, |header| header.revision);
        let found = response.kvs.into_iter().map(|kv| (kv.key.to_vec(), kv.value.to_vec())).collect();
        self.end(client, Some(Answer::Found(revision, found)));
        Ok(())
    }

    // Leases.

    /// Renews a lease where the deadlines are kept; the steps are those of `renew_here` in the api's lease handler.
    fn renew(&mut self, client: usize) -> Result<(), Broken> {
        let leases = self.truth.model.leases();
        let Some(lease) = self.rng.pick(&leases) else { return Ok(()) };
        let primaries: Vec<u64> = self
            .up()
            .into_iter()
            .filter(|id| self.members[id].live.as_ref().is_some_and(|live| live.machine().lessor().is_primary()))
            .collect();
        let Some(at) = self.rng.pick(&primaries).filter(|&at| !self.members[&at].is_paused(self.now())) else {
            return Ok(());
        };
        let now = self.now();
        let member = &self.members[&at];
        let live = member.live.as_ref().expect("it is up");
        let Ok(renewal) = live.machine().lessor().renew(LeaseId(lease), member.clock.monotonic()) else {
            return Ok(());
        };
        if !renewal.clear_first {
            self.promise(lease, now);
            return Ok(());
        }
        if live.core().standing().role != Role::Leader {
            return Ok(());
        }
        let ticket = self.begin(client, at, Waiting::Renewal(lease), None);
        let waiter = self.waiter(at, ticket);
        self.members[&at].live.as_ref().expect("it is up").node().read_index(waiter);
        self.wake(at);
        let answers = self.members[&at].answers.take();
        answers.into_iter().try_for_each(|(ticket, completion)| self.answered(at, ticket, completion))
    }

    fn clear_checkpoint(&mut self, client: usize, at: u64, lease: i64) {
        let live = self.members[&at].live.as_ref().expect("it answered");
        if live.core().standing().role != Role::Leader {
            return self.end(client, None);
        }
        let id = live.node().next_request_id();
        let checkpoints = vec![pb::LeaseCheckpoint { id: lease, remaining_ttl: 0 }];
        let request = Some(Request::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints }));
        let header = Some(pb::RequestHeader { id, ..Default::default() });
        let payload = Bytes::from(encode(&pb::InternalRaftRequest { header, id: 0, request }));
        let ticket = self.begin(client, at, Waiting::Clearing(lease), None);
        let waiter = self.waiter(at, ticket);
        self.members[&at].live.as_ref().expect("it answered").node().propose(id, payload, waiter);
        self.wake(at);
    }

    /// The owner of a lease has heard that it lasts for its whole time from `since` on.
    fn promise(&mut self, lease: i64, since: u64) {
        self.counts.add("leases: renewed");
        if let Some(promise) = self.truth.promises.get_mut(&lease) {
            promise.at = promise.at.max(since);
        }
    }

    /// The first member applies this.
    pub fn note_first(&mut self, entry: &raftpb::Entry) {
        if entry.r#type() == 1 || entry.data().is_empty() {
            return;
        }
        let Ok(request) = pb::InternalRaftRequest::decode(entry.data.clone().unwrap_or_default()) else { return };
        let id = request.header.as_ref().map_or(request.id, |header| header.id);
        let effect = self.truth.model.effect(id).map(|effect| effect.heard.clone());
        match (request.request, effect) {
            (Some(Request::LeaseGrant(grant)), Some(Heard::Done)) => {
                self.counts.add("leases: granted");
                let promise = Promise { ttl: grant.ttl.unsigned_abs() * 1_000_000, at: self.now() };
                self.truth.promises.insert(grant.id, promise);
            }
            (Some(Request::Txn(_)), Some(Heard::Swapped)) => self.counts.add("clients: compare-and-swap carried out"),
            (Some(Request::Txn(_)), Some(Heard::Kept(_))) => self.counts.add("clients: compare-and-swap refused"),
            _ => {}
        }
    }

    // Answers.

    /// A member has answered.
    pub fn answered(&mut self, at: u64, ticket: u64, completion: Completion) -> Result<(), Broken> {
        if ticket == u64::MAX {
            self.trace(|| format!("the change of membership came to {completion:?}"));
            return Ok(());
        }
        let (client, number) = ((ticket >> 32) as usize, ticket & u64::from(u32::MAX));
        if self.clients[client].number != number || self.clients[client].waiting.is_none() {
            return Ok(());
        }
        self.trace(|| format!("client {client} hears {completion:?}"));
        let Some(waiting) = self.clients[client].waiting.clone() else { return Ok(()) };
        match (waiting, completion) {
            (Waiting::Write, Completion::Reply(reply)) => {
                let answer = heard(reply)?;
                self.end(client, Some(answer));
            }
            (Waiting::Read(what), Completion::ReadReady) => {
                if self.members[&at].live.is_none() {
                    self.end(client, None);
                    return Ok(());
                }
                self.finish_read(client, at, what)?;
            }
            (Waiting::Renewal(lease), Completion::ReadReady) if self.members[&at].live.is_some() => {
                self.clear_checkpoint(client, at, lease);
            }
            (Waiting::Clearing(lease), Completion::Reply(Ok(_))) => {
                let member = &self.members[&at];
                let live = member.live.as_ref();
                let lessor = live.map(|live| live.machine().lessor());
                // Only where the deadlines are kept still.
                if lessor.is_some_and(|lessor| lessor.renew(LeaseId(lease), member.clock.monotonic()).is_ok()) {
                    self.promise(lease, self.now());
                }
                self.end(client, None);
            }
            (_, Completion::Reply(_) | Completion::ReadReady | Completion::Failed(_)) => self.end(client, None),
        }
        Ok(())
    }

    /// A write that the leader's own log has, for a door with a bug.
    pub fn answer_early(&mut self, at: u64) {
        for client in 0..self.clients.len() {
            let slot = &self.clients[client];
            if slot.at == at && matches!(slot.waiting, Some(Waiting::Write)) && slot.op.is_some() {
                self.end(client, Some(Answer::Written(None, None)));
            }
        }
    }

    fn end(&mut self, client: usize, answer: Option<Answer>) {
        let events = self.events;
        let healing = self.healing;
        let slot = &mut self.clients[client];
        slot.waiting = None;
        let Some(op) = slot.op.take() else { return };
        match answer {
            Some(answer) => {
                if let (true, Ask::Write(id)) = (healing, &self.history[op].ask) {
                    slot.mark = Some(*id);
                }
                self.history[op].end = Some((events, answer));
            }
            None => self.counts.add("clients: no answer known"),
        }
    }

    /// A client has waited long enough.
    pub fn give_up(&mut self, client: usize, number: u64) {
        if self.clients[client].number == number && self.clients[client].waiting.is_some() {
            self.end(client, None);
        }
    }

    /// A process has ended, and whoever waited for it hears nothing any more.
    pub fn forget_clients_of(&mut self, id: u64) {
        for client in 0..self.clients.len() {
            if self.clients[client].at == id && self.clients[client].waiting.is_some() {
                self.end(client, None);
            }
        }
    }

    /// What only the end can tell.
    pub fn count_the_end(&mut self) {
        self.counts.add_many("leases: ended by time", self.truth.ended);
        self.counts.add_many("leases: checkpoints", self.truth.checkpoints);
        self.counts.add_many("events", self.events);
        self.counts.add_many("requests", self.history.len() as u64);
        self.counts.add_many("simulated seconds", self.now() / 1_000_000);
        let answered = self.history.iter().filter(|op| op.end.is_some()).count();
        self.counts.add_many("requests answered", answered as u64);
        self.counts.add_many("entries applied", self.truth.last_applied());
        debug_assert!(HEARTBEAT.as_millis() > 0);
    }
}

/// A reply as the history has it.
fn heard(reply: Result<Reply, milepost_machine::Error>) -> Result<Answer, Broken> {
    let at = |header: &Option<pb::ResponseHeader>| header.as_ref().map(|header| header.revision);
    let value = |kv: Option<&milepost_proto::mvccpb::KeyValue>| kv.map(|kv| kv.value.to_vec());
    let Ok(reply) = reply else { return Ok(Answer::Written(None, Some(Heard::Refused))) };
    Ok(match reply {
        Reply::Put(put) => Answer::Written(at(&put.header), Some(Heard::Put(value(put.prev_kv.as_ref())))),
        Reply::DeleteRange(delete) => Answer::Written(at(&delete.header), Some(Heard::Deleted(delete.deleted))),
        Reply::Txn(txn) => {
            let told = txn.responses.first().and_then(|op| op.response.as_ref());
            let heard = match (txn.succeeded, told) {
                (true, _) => Heard::Swapped,
                (false, Some(pb::response_op::Response::ResponseRange(range))) => Heard::Kept(value(range.kvs.first())),
                (false, other) => return Err(format!("a transaction told {other:?}")),
            };
            Answer::Written(at(&txn.header), Some(heard))
        }
        _ => Answer::Written(None, Some(Heard::Done)),
    })
}
