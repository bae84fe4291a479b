//! The hub on its thread: a writer, and clients that come and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use milepost_env::{Clock, OsClock};
use milepost_mvcc::watch::{CreateRequest, Frame, Hub, HubOptions, Stream, StreamOptions};
use parking_lot::Mutex;

use crate::past::Past;

/// A stream whose owner sleeps until it is woken.
struct Client {
    stream: Stream,
    woken: Receiver<()>,
}

/// Long enough that only a lost wake-up gets there.
const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    fn open(hub: &Hub) -> Self {
        let (wake, woken) = channel();
        // The owner may be gone when the last wake comes.
        let waker = Arc::new(move || {
            wake.send(()).ok();
        });
        Self { stream: hub.open_stream(waker, StreamOptions::default()), woken }
    }

    /// Waits for frames.
    fn frames(&self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.is_empty() {
            self.woken.recv_timeout(PATIENCE).expect("a wake");
            self.stream.take(&mut frames);
        }
        frames
    }
}

fn clock() -> impl Fn() -> Duration {
    || OsClock.monotonic()
}

fn all() -> CreateRequest {
    CreateRequest { range_end: Bytes::from_static(b"\0"), ..CreateRequest::default() }
}

fn put(past: &Past, hub: &Hub) -> i64 {
    let batch = past.txn(&[(Bytes::from_static(b"k"), Some(Bytes::from_static(b"v")))]).expect("a change");
    hub.publish(batch.clone());
    batch.revision
}

/// While nobody watches, batches are not even queued. A watcher that comes in the midst of the writer's work must not lose what
/// comes after its `created`, nor what it asked for from before.
#[test]
fn nothing_is_lost_between_creating_and_publishing() {
    for options in [HubOptions::default(), HubOptions { queue_batches: 2, ..HubOptions::default() }] {
        let past = Past::default();
        let hub = Hub::start(past.clone(), options, clock());
        let busy = Arc::new(AtomicUsize::new(3));
        let clients: Vec<_> = (0..3)
            .map(|n| {
                let (hub, busy) = (hub.clone(), busy.clone());
                thread::spawn(move || {
                    let leave = Leave(busy);
                    for _ in 0..300 {
                        come_and_go(&hub, n == 0);
                    }
                    drop(leave);
                })
            })
            .collect();
        while busy.load(Ordering::Relaxed) > 0 {
            put(&past, &hub);
            thread::yield_now();
        }
        for client in clients {
            client.join().expect("a client that missed nothing");
        }
        hub.stop();
        let stats = hub.stats();
        assert_eq!(stats.overruns > 0, options.queue_batches == 2, "{stats:?}");
        assert_eq!(
            (stats.watchers, stats.streams, stats.pending_events, stats.slow_watchers),
            (0, 0, 0, 0),
            "{stats:?}"
        );
    }
}

/// Tells the writer that a client has left, also by a panic.
struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Watches from the present (or one before), reads 50 revisions and leaves.
fn come_and_go(hub: &Hub, from_before: bool) {
    let client = Client::open(hub);
    client.stream.create(all());
    let mut frames = client.frames();
    let created = frames.remove(0);
    assert!(created.created);
    let mut next = created.revision + 1;
    if from_before {
        client.stream.cancel(0);
        client.stream.create(CreateRequest { start_revision: created.revision, watch_id: 7, ..all() });
        frames = loop {
            let mut more = client.frames();
            if let Some(at) = more.iter().position(|frame| frame.watch_id == 7) {
                break more.split_off(at + 1);
            }
        };
        // Revision 1 is the empty store.
        next = created.revision.max(2);
    }
    let last = next + 50;
    loop {
        for frame in frames.drain(..) {
            for event in events(&frame) {
                assert_eq!(event, next, "{frame:?}");
                next += 1;
            }
        }
        if next > last {
            return;
        }
        frames = client.frames();
    }
}

/// Revisions of a frame's events.
fn events(frame: &Frame) -> Vec<i64> {
    use milepost_proto::Message;
    let response = milepost_proto::etcdserverpb::WatchResponse::decode(frame.events.clone()).expect("events");
    response.events.iter().map(|event| event.kv.as_ref().expect("kv").mod_revision).collect()
}

/// A client that reads nothing delays nobody, and finds everything when it reads.
#[test]
fn a_slow_client_delays_nobody() {
    let past = Past::default();
    let hub = Hub::start(past.clone(), HubOptions::default(), clock());
    let (slow, fast) = (Client::open(&hub), Client::open(&hub));
    for client in [&slow, &fast] {
        client.stream.create(all());
        assert!(client.frames()[0].created);
    }
    const CHANGES: i64 = 20_000;
    let mut next = 2;
    for _ in 0..CHANGES {
        let revision = put(&past, &hub);
        while next <= revision {
            for frame in fast.frames() {
                for event in events(&frame) {
                    assert_eq!(event, next);
                    next += 1;
                }
            }
        }
    }
    assert_eq!(hub.stats().slow_watchers, 1);
    let mut next = 2;
    let mut replies: BTreeMap<usize, usize> = BTreeMap::new();
    while next < CHANGES + 2 {
        for frame in slow.frames() {
            for event in events(&frame) {
                assert_eq!(event, next);
                next += 1;
            }
            *replies.entry(frame.event_count as usize).or_default() += 1;
        }
    }
    assert!(replies.keys().any(|events| *events > 100), "it catches up in large replies: {replies:?}");
}

/// A hub that gathers what is published for a crowd still tells each of them everything in order, answers who asks meanwhile,
/// and hands out what it has gathered before it ends.
#[test]
fn a_crowd_misses_nothing_while_the_hub_gathers() {
    const WATCHERS: i64 = 400;
    const CHANGES: i64 = 20;
    let past = Past::default();
    // Nothing that was delivered is ever worked off: the hub gathers all the time.
    let hub = Hub::start(past.clone(), HubOptions::default(), || Duration::ZERO);
    let clients: Vec<Client> = (0..10).map(|_| Client::open(&hub)).collect();
    for client in &clients {
        for _ in 0..WATCHERS {
            client.stream.create(all());
        }
        let mut created = 0;
        while created < WATCHERS {
            created += i64::try_from(client.frames().iter().filter(|frame| frame.created).count()).expect("few");
        }
    }
    let mut seen = vec![vec![1; usize::try_from(WATCHERS).expect("few")]; clients.len()];
    for change in 1..=CHANGES {
        let revision = put(&past, &hub);
        // Now and then somebody asks, and ends the gathering.
        let asks = change % 2 == 0;
        if asks {
            clients[0].stream.progress_request();
        }
        if change == CHANGES {
            hub.stop();
        }
        for (number, (client, seen)) in clients.iter().zip(&mut seen).enumerate() {
            let mut reported = !asks || number != 0;
            while !reported || seen.iter().any(|seen| *seen < revision) {
                for frame in client.frames() {
                    let Ok(watcher) = usize::try_from(frame.watch_id) else {
                        assert_eq!(frame.revision, revision);
                        assert!(seen.iter().all(|seen| *seen == revision), "a report follows what it reports");
                        reported = true;
                        continue;
                    };
                    for event in events(&frame) {
                        assert_eq!(event, seen[watcher] + 1);
                        seen[watcher] = event;
                    }
                }
            }
        }
    }
}

/// A stopped hub says so to everybody, after what it was told before.
#[test]
fn stopping_wakes_every_stream() {
    let past = Past::default();
    let hub = Hub::start(past.clone(), HubOptions::default(), clock());
    let client = Client::open(&hub);
    client.stream.create(all());
    assert!(client.frames()[0].created);
    let revision = put(&past, &hub);
    hub.stop();
    assert!(client.stream.is_ended());
    assert_eq!(client.frames()[0].revision, revision);
    hub.stop();
}

/// A hub that was held up for so long that its queue overflowed reads what it missed, without waiting for a further change.
#[test]
fn an_overrun_hub_reads_what_it_missed() {
    let past = Past::default();
    let hub = Hub::start(past.clone(), HubOptions { queue_batches: 3, ..HubOptions::default() }, clock());
    let (entered, held) = channel();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    // Holds the hub's thread whenever it is called, until the sender is gone.
    let waker = Arc::new(move || {
        entered.send(()).ok();
        released.lock().recv().ok();
    });
    let stream = hub.open_stream(waker, StreamOptions::default());
    stream.create(all());
    held.recv_timeout(PATIENCE).expect("the hub is held in its first wake");
    for _ in 0..20 {
        put(&past, &hub);
    }
    drop(release);
    let mut next = 2;
    let mut frames = Vec::new();
    while next <= 21 {
        stream.take(&mut frames);
        for frame in frames.drain(..) {
            for event in events(&frame) {
                assert_eq!(event, next);
                next += 1;
            }
        }
        if next <= 21 {
            held.recv_timeout(PATIENCE).expect("a wake");
        }
    }
    hub.stop();
    assert_eq!(hub.stats().overruns, 1);
}
