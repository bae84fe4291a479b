//! Locks and elections: who waits, who is woken, and what is left behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use milepost_api::Backend;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::mvccpb::Event;
use milepost_proto::v3electionpb as el;
use milepost_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use pb::watch_request::RequestUnion;

use crate::keys::{COMPACT, DELETE, PUT, RANGE, get, prefix, put};
use crate::support::{Answer, Client, Server, serve};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";
const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";
const PROCLAIM: &str = "/v3electionpb.Election/Proclaim";
const LEADER: &str = "/v3electionpb.Election/Leader";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const RESIGN: &str = "/v3electionpb.Election/Resign";

async fn grant(client: &mut Client, id: i64) {
    let _: pb::LeaseGrantResponse = client.unary(GRANT, &pb::LeaseGrantRequest { ttl: 600, id }).await.unwrap();
}

fn lock(lease: i64) -> LockRequest {
    LockRequest { name: "l".into(), lease }
}

fn campaign(lease: i64, value: &'static str) -> el::CampaignRequest {
    el::CampaignRequest { name: "e".into(), lease, value: value.into() }
}

/// The changes of a prefix, one after the other.
struct Changes {
    call: crate::support::Call<pb::WatchResponse>,
    events: std::collections::VecDeque<Event>,
}

impl Changes {
    async fn below(client: &mut Client, from: &str) -> Self {
        let mut call = client.open::<pb::WatchResponse>("/etcdserverpb.Watch/Watch").await;
        let range = prefix(from);
        let create = pb::WatchCreateRequest { key: range.key, range_end: range.range_end, ..Default::default() };
        call.send(&pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        assert!(call.next().await.unwrap().unwrap().created);
        Self { call, events: std::collections::VecDeque::new() }
    }

    /// Waits for the next one: which key, and whether it is a put.
    async fn next(&mut self) -> (String, bool) {
        while self.events.is_empty() {
            self.events.extend(self.call.next().await.unwrap().unwrap().events);
        }
        let event = self.events.pop_front().unwrap();
        (String::from_utf8(event.kv.unwrap().key.to_vec()).unwrap(), event.r#type == 0)
    }
}

#[test]
fn the_oldest_holds_and_the_next_follows() {
    serve(async |server| {
        let mut client = server.client().await;
        for lease in [0x1a, -2] {
            grant(&mut client, lease).await;
        }
        let held: LockResponse = client.unary(LOCK, &lock(0x1a)).await.unwrap();
        assert_eq!((&held.key[..], held.header.unwrap().revision), (&b"l/1a"[..], 2));
        let again: LockResponse = client.unary(LOCK, &lock(0x1a)).await.unwrap();
        assert_eq!((again.key, again.header.unwrap().revision), (held.key.clone(), 2), "held already");
        let mut changes = Changes::below(&mut client, "l").await;
        let mut second = client.open::<LockResponse>(LOCK).await;
        second.send_last(&lock(-2));
        assert_eq!(changes.next().await, ("l/-2".into(), true));
        let freed: UnlockResponse = client.unary(UNLOCK, &UnlockRequest { key: held.key }).await.unwrap();
        assert_eq!(freed.header.unwrap().revision, 4);
        let next = second.next().await.unwrap().unwrap();
        assert_eq!((&next.key[..], next.header.unwrap().revision), (&b"l/-2"[..], 4));
        let page = crate::support::request(server.doors.local_addrs()[0], "GET", "/metrics").await.body;
        let row = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Lock\",grpc_service=\"v3lockpb.Lock\",grpc_type=\"unary\"} 3";
        assert!(page.lines().any(|line| line == row), "{page}");
    });
}

#[test]
fn who_brings_no_lease_gets_one() {
    serve(async |server| {
        let mut client = server.client().await;
        let held: LockResponse = client.unary(LOCK, &lock(0)).await.unwrap();
        let found: pb::RangeResponse = client.unary(RANGE, &prefix("l")).await.unwrap();
        let lease = found.kvs[0].lease;
        assert_eq!(held.key, format!("l/{lease:x}"));
        let asked = pb::LeaseTimeToLiveRequest { id: lease, keys: false };
        let left: pb::LeaseTimeToLiveResponse =
            client.unary("/etcdserverpb.Lease/LeaseTimeToLive", &asked).await.unwrap();
        assert_eq!(left.granted_ttl, 60);
    });
}

/// Each reads twice when its turn comes: that nobody is before it, and that it is still there.
const READS_OF_A_TURN: u64 = 2;

#[test]
fn a_thousand_wait_and_one_is_woken() {
    serve(async |server| {
        let mut client = server.client().await;
        let waiters = 1000;
        for lease in 1..=waiters {
            grant(&mut client, lease).await;
        }
        let mut changes = Changes::below(&mut client, "l").await;
        let mut line = Vec::new();
        let mut clients = [server.client().await, server.client().await];
        for lease in 1..=waiters {
            let mut call = clients[lease as usize % 2].open::<LockResponse>(LOCK).await;
            call.send_last(&lock(lease));
            changes.next().await;
            line.push(call);
        }
        let mut line = line.into_iter();
        let mut held = line.next().unwrap().next().await.unwrap().unwrap();
        // Until each but the holder watches the key before its own; one more watcher is ours.
        while Backend::hub(&*server.member).stats().watchers < waiters as u64 {
            tokio::task::yield_now().await;
        }
        let asked = |server: &Server| server.member.reads.load(Ordering::Relaxed);
        for turn in 0..10 {
            let before = asked(&server);
            let _: UnlockResponse = client.unary(UNLOCK, &UnlockRequest { key: held.key }).await.unwrap();
            held = line.next().unwrap().next().await.unwrap().unwrap();
            assert_eq!(asked(&server) - before, READS_OF_A_TURN, "turn {turn}");
        }
    });
}

#[test]
fn who_gives_up_leaves_no_key() {
    serve(async |server| {
        let mut client = server.client().await;
        for lease in 1..=4 {
            grant(&mut client, lease).await;
        }
        for (path, name) in [(LOCK, "l"), (CAMPAIGN, "e")] {
            let open = async |client: &mut Client, lease| {
                let mut call = client.open::<()>(path).await;
                match path {
                    LOCK => call.send_last(&lock(lease)),
                    _ => call.send_last(&campaign(lease, "v")),
                }
                call
            };
            let mut changes = Changes::below(&mut client, name).await;
            let _holder = open(&mut client, 1).await;
            assert_eq!(changes.next().await, (format!("{name}/1"), true));
            // Called back while it waits.
            let mut call = open(&mut client, 2).await;
            assert_eq!(changes.next().await, (format!("{name}/2"), true));
            call.reset();
            assert_eq!(changes.next().await, (format!("{name}/2"), false));
            // The connection breaks off.
            let mut other = server.client().await;
            let call = open(&mut other, 3).await;
            assert_eq!(changes.next().await, (format!("{name}/3"), true));
            drop((call, other));
            assert_eq!(changes.next().await, (format!("{name}/3"), false));
            // Its time is over.
            let mut hasty = server.client().await.with("grpc-timeout", "200m");
            let mut call = open(&mut hasty, 4).await;
            assert_eq!(changes.next().await, (format!("{name}/4"), true));
            assert_eq!(call.next().await.unwrap_err(), (4, "context deadline exceeded".into()));
            assert_eq!(changes.next().await, (format!("{name}/4"), false));
            let found: pb::RangeResponse = client.unary(RANGE, &prefix(name)).await.unwrap();
            assert_eq!(found.count, 1);
        }
    });
}

#[test]
fn who_gives_up_while_its_key_is_being_written_leaves_none_either() {
    serve(async |server| {
        let mut client = server.client().await;
        grant(&mut client, 1).await;
        for (path, name) in [(LOCK, "l/1"), (CAMPAIGN, "e/1")] {
            let mut changes = Changes::below(&mut client, name).await;
            let mut other = server.client().await;
            {
                // Nothing is applied as long as this is held.
                let _held = server.member.hold();
                let mut call = other.open::<()>(path).await;
                match path {
                    LOCK => call.send_last(&lock(1)),
                    _ => call.send_last(&campaign(1, "v")),
                }
                // Answered without the member: by then the server has read what came before.
                let _: pb::StatusResponse =
                    other.unary("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.unwrap();
                call.reset();
                let _: pb::StatusResponse =
                    other.unary("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.unwrap();
            }
            assert_eq!(changes.next().await, (name.into(), true));
            assert_eq!(changes.next().await, (name.into(), false));
        }
        // What was held before stays with its holder.
        let _: LockResponse = client.unary(LOCK, &lock(1)).await.unwrap();
        let mut other = server.client().await;
        {
            let _held = server.member.hold();
            let mut call = other.open::<()>(LOCK).await;
            call.send_last(&lock(1));
            let _: pb::StatusResponse =
                other.unary("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.unwrap();
            call.reset();
        }
        server.member.settle();
        let found: pb::RangeResponse = client.unary(RANGE, &get("l/1")).await.unwrap();
        assert_eq!(found.count, 1);
    });
}

#[test]
fn a_lease_that_ends_in_the_line() {
    serve(async |server| {
        let mut client = server.client().await;
        for lease in 1..=2 {
            grant(&mut client, lease).await;
        }
        let _: LockResponse = client.unary(LOCK, &lock(1)).await.unwrap();
        let mut changes = Changes::below(&mut client, "l").await;
        let mut waiting = client.open::<LockResponse>(LOCK).await;
        waiting.send_last(&lock(2));
        changes.next().await;
        for id in [2, 1] {
            let _: pb::LeaseRevokeResponse = client.unary(REVOKE, &pb::LeaseRevokeRequest { id }).await.unwrap();
        }
        assert_eq!(waiting.next().await.unwrap_err(), (2, "mutex: session is expired".into()));
    });
}

#[test]
fn errors_keep_their_text_and_lose_their_code() {
    serve(async |server| {
        let mut client = server.client().await;
        let unknown = |text: &str| (2, text.to_owned());
        let leader =
            |key: &'static str| Some(el::LeaderKey { key: key.into(), rev: 1, lease: 9, ..Default::default() });
        assert_eq!(client.failure(LOCK, &lock(9)).await, unknown("etcdserver: requested lease not found"));
        assert_eq!(client.failure(UNLOCK, &UnlockRequest::default()).await, unknown("etcdserver: key is not provided"));
        assert_eq!(client.failure(CAMPAIGN, &campaign(9, "")).await, unknown("etcdserver: requested lease not found"));
        let named = el::LeaderRequest { name: "e".into() };
        assert_eq!(client.failure(LEADER, &named).await, unknown("election: no leader"));
        let proclaim = |leader| el::ProclaimRequest { leader, value: "v".into() };
        let missing = unknown("\"leader\" field must be provided");
        assert_eq!(client.failure(PROCLAIM, &proclaim(None)).await, missing);
        assert_eq!(client.failure(RESIGN, &el::ResignRequest { leader: None }).await, missing);
        assert_eq!(client.failure(PROCLAIM, &proclaim(leader("e/9"))).await, unknown("election: not leader"));
        assert_eq!(client.failure(PROCLAIM, &proclaim(leader(""))).await, unknown("etcdserver: key is not provided"));
        let _: el::ResignResponse = client.unary(RESIGN, &el::ResignRequest { leader: leader("e/9") }).await.unwrap();
        server.member.set(Answer::Fail(milepost_api::NodeError::TooManyRequests));
        assert_eq!(client.failure(LOCK, &lock(9)).await, unknown("etcdserver: too many requests"));
        assert_eq!(client.failure(LEADER, &named).await, unknown("etcdserver: too many requests"));
    });
}

#[test]
fn leaders_come_and_go_and_are_observed() {
    serve(async |server| {
        let mut client = server.client().await;
        for lease in 1..=2 {
            grant(&mut client, lease).await;
        }
        let mut seen = client.open::<el::LeaderResponse>(OBSERVE).await;
        seen.send_last(&el::LeaderRequest { name: "e".into() });
        let won: el::CampaignResponse = client.unary(CAMPAIGN, &campaign(1, "one")).await.unwrap();
        let leader = won.leader.unwrap();
        let expected = el::LeaderKey { name: "e".into(), key: "e/1".into(), rev: 2, lease: 1 };
        assert_eq!((&leader, won.header.unwrap().revision), (&expected, 2));
        let mut next = async || {
            let seen = seen.next().await.unwrap().unwrap();
            let (header, kv) = (seen.header.unwrap(), seen.kv.unwrap());
            assert_eq!((header.cluster_id, header.member_id, header.raft_term), (7, 8, 2));
            (header.revision, String::from_utf8(kv.value.to_vec()).unwrap(), kv.create_revision)
        };
        assert_eq!(next().await, (2, "one".into(), 2));
        let mut changes = Changes::below(&mut client, "e").await;
        let mut second = client.open::<el::CampaignResponse>(CAMPAIGN).await;
        second.send_last(&campaign(2, "two"));
        assert_eq!(changes.next().await, ("e/2".into(), true));
        let proclaim = el::ProclaimRequest { leader: Some(leader.clone()), value: "more".into() };
        let said: el::ProclaimResponse = client.unary(PROCLAIM, &proclaim).await.unwrap();
        assert_eq!(said.header.unwrap().revision, 4);
        assert_eq!(next().await, (4, "more".into(), 2));
        let known: el::LeaderResponse = client.unary(LEADER, &el::LeaderRequest { name: "e".into() }).await.unwrap();
        assert_eq!(&known.kv.unwrap().value[..], b"more");
        // Who leads and campaigns with another value proclaims it.
        let again: el::CampaignResponse = client.unary(CAMPAIGN, &campaign(1, "again")).await.unwrap();
        assert_eq!((again.leader.unwrap(), again.header.unwrap().revision), (leader.clone(), 4));
        assert_eq!(next().await, (5, "again".into(), 2));
        let resign = el::ResignRequest { leader: Some(leader) };
        let gone: el::ResignResponse = client.unary(RESIGN, &resign).await.unwrap();
        assert_eq!(gone.header.unwrap().revision, 6);
        let won = second.next().await.unwrap().unwrap();
        assert_eq!((won.leader.unwrap().rev, won.header.unwrap().revision), (3, 3));
        assert_eq!(next().await, (6, "two".into(), 3));
        let gone: el::ResignResponse = client.unary(RESIGN, &resign).await.unwrap();
        assert_eq!(gone.header.unwrap().revision, 6, "nothing happens");
    });
}

#[test]
fn a_watch_that_compaction_overtakes() {
    serve(async |server| {
        let mut client = server.client().await;
        let _: pb::PutResponse = client.unary(PUT, &put("e/1", "one")).await.unwrap();
        let mut seen = client.open::<el::LeaderResponse>(OBSERVE).await;
        seen.send_last(&el::LeaderRequest { name: "e".into() });
        assert_eq!(seen.next().await.unwrap().unwrap().kv.unwrap().value, "one");
        // Synced watchers are not harmed.
        for value in ["two", "three"] {
            let _: pb::PutResponse = client.unary(PUT, &put("e/1", value)).await.unwrap();
            assert_eq!(seen.next().await.unwrap().unwrap().kv.unwrap().value, value);
        }
        let compact = pb::CompactionRequest { revision: 4, physical: true };
        let _: pb::CompactionResponse = client.unary(COMPACT, &compact).await.unwrap();
        let delete = pb::DeleteRangeRequest { key: "e/1".into(), ..Default::default() };
        let _: pb::DeleteRangeResponse = client.unary(DELETE, &delete).await.unwrap();
        let _: pb::PutResponse = client.unary(PUT, &put("e/2", "four")).await.unwrap();
        assert_eq!(seen.next().await.unwrap().unwrap().kv.unwrap().value, "four");
    });
}

#[test]
fn who_waits_hears_that_the_server_stops() {
    serve(async |server| {
        let mut client = server.client().await;
        for lease in 1..=2 {
            grant(&mut client, lease).await;
        }
        let _: LockResponse = client.unary(LOCK, &lock(1)).await.unwrap();
        let mut changes = Changes::below(&mut client, "l").await;
        let mut waiting = client.open::<LockResponse>(LOCK).await;
        waiting.send_last(&lock(2));
        changes.next().await;
        let stopping = tokio::task::spawn_blocking(move || server.doors.stop(Duration::from_secs(20)));
        assert_eq!(waiting.next().await.unwrap_err(), (14, "etcdserver: server stopped".into()));
        drop((client, changes));
        stopping.await.unwrap();
    });
}
