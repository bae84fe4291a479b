//! Watchers: a thread with many watch streams that hear of every put, and time its way to them.
//!
//! ```text
//!  load ── put n, stamped when it was encoded ──► server ══► stream ─► watchers w, w+S, w+2S, …
//!                                                                       │ value starts with n: latency = now − stamp[n]
//! ```
//! Every watcher must see every put of its key once, in order of revision. Events that stay out are errors.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use milepost_proto::Message;
use milepost_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion};
use tokio::sync::Notify;
use tokio::sync::oneshot;

use crate::glance::Glance;
use crate::grpc::{CallError, Connection, Stream, frame};
use crate::keys::Keys;
use crate::load::LoadError;
use crate::meter::Meter;
use crate::options::Options;
use crate::work::{Put, Work};

/// Puts whose sending time is remembered. An event more puts late than this is timed wrongly (too short), but counted.
const STAMPS: usize = 1 << 20;

const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// What the watchers saw.
#[derive(Default)]
pub struct Events {
    /// From a put's encoding to the reading of its event.
    pub meter: Meter,
    /// Responses over all watchers.
    pub responses: u64,
    /// Events over all watchers.
    pub received: u64,
    /// What went wrong, by text.
    pub errors: BTreeMap<String, u64>,
    /// When the last event came.
    pub last: Option<Instant>,
}

/// What a watcher watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seats {
    /// Watcher w one key: number w mod key space.
    Keys,
    /// Watcher w a slice of the keys: all of them together watch every key once.
    Slices,
}

/// Who watches what, in how many streams.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// Over all streams.
    pub watchers: u64,
    /// Watch streams.
    pub streams: u64,
    /// What each watches.
    pub seats: Seats,
}

/// Open watch streams on a thread of their own.
pub struct Fanout {
    keys: Arc<Keys>,
    crowd: Crowd,
    stamps: Arc<Stamps>,
    finish: oneshot::Sender<u64>,
    events: Receiver<Events>,
}

/// When each of the last puts was sent.
pub struct Stamps {
    origin: Instant,
    nanos: Box<[AtomicU64]>,
}

impl Stamps {
    /// None was.
    pub fn new() -> Stamps {
        Stamps { origin: Instant::now(), nanos: (0..STAMPS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Put `n` is sent now.
    pub fn set(&self, n: u64) {
        self.nanos[n as usize % STAMPS].store(self.origin.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    fn age(&self, n: u64, now: Instant) -> Duration {
        let sent = Duration::from_nanos(self.nanos[n as usize % STAMPS].load(Ordering::Relaxed));
        now.saturating_duration_since(self.origin + sent)
    }
}

struct Stamped {
    put: Put,
    stamps: Arc<Stamps>,
}

impl Work for Stamped {
    fn path(&self) -> &'static str {
        self.put.path()
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        self.stamps.set(n);
        self.put.encode(n, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        self.put.check(n, answer)
    }
}

impl Default for Stamps {
    fn default() -> Stamps {
        Stamps::new()
    }
}

impl Fanout {
    /// Opens the streams of `crowd`, and returns when the server has confirmed every watcher.
    ///
    /// # Errors
    /// A connection, a stream or a watcher was refused, or no stream was confirmed for too long.
    pub fn open(options: &Options, keys: Arc<Keys>, crowd: Crowd) -> Result<Fanout, LoadError> {
        let stamps = Arc::new(Stamps::new());
        let crowd = Crowd { streams: crowd.streams.min(crowd.watchers), ..crowd };
        let (ready_sender, ready) = channel();
        let (events_sender, events) = channel();
        let (finish, finish_receiver) = oneshot::channel();
        let audience = Audience { keys: keys.clone(), stamps: stamps.clone(), crowd };
        let (options, patience) = (options.clone(), options.patience);
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || thread(&options, audience, &ready_sender, finish_receiver, &events_sender))
            .expect("the system grants a thread");
        loop {
            match ready.recv_timeout(patience) {
                Ok(Ok(Opened::One)) => {}
                Ok(Ok(Opened::All)) => return Ok(Fanout { keys, crowd, stamps, finish, events }),
                Ok(Err(error)) => return Err(LoadError::Connect(error)),
                Err(_) => return Err(LoadError::Stalled(patience)),
            }
        }
    }

    /// The puts that the watchers wait for.
    pub fn puts(&self) -> Arc<dyn Work> {
        Arc::new(Stamped { put: Put { keys: self.keys.clone() }, stamps: self.stamps.clone() })
    }

    /// When each put was sent.
    pub fn stamps(&self) -> Arc<Stamps> {
        self.stamps.clone()
    }

    /// Waits for the events of puts 0 to `puts`, each of the key that its number draws, or until none comes any more.
    pub fn collect(self, puts: u64) -> Events {
        let (keys, watchers) = (&self.keys, self.crowd.watchers);
        let expected = (0..puts).map(|n| listeners(watchers, keys.space, keys.number(n))).sum();
        self.collect_events(expected)
    }

    /// Waits for so many events over all watchers, or until none comes any more.
    pub fn collect_events(self, expected: u64) -> Events {
        // A thread that has failed has dropped its end; its events tell.
        let _ = self.finish.send(expected);
        self.events.recv().expect("the thread reports")
    }
}

/// How many of `watchers` listen to key `number` of `space`.
fn listeners(watchers: u64, space: u64, number: u64) -> u64 {
    watchers / space + u64::from(number < watchers % space)
}

struct Audience {
    keys: Arc<Keys>,
    stamps: Arc<Stamps>,
    crowd: Crowd,
}

impl Audience {
    /// First key, and end of the range if it is one, of watcher `watcher`.
    fn watched(&self, watcher: u64) -> (Bytes, Bytes) {
        let (keys, watchers) = (&self.keys, self.crowd.watchers);
        let start = |watcher: u64| (u128::from(watcher) * u128::from(keys.space) / u128::from(watchers)) as u64;
        match self.crowd.seats {
            Seats::Keys => (keys.key(watcher % keys.space), Bytes::new()),
            Seats::Slices if watcher + 1 == watchers => (keys.key(start(watcher)), keys.end()),
            Seats::Slices => (keys.key(start(watcher)), keys.key(start(watcher + 1))),
        }
    }
}

/// What the thread tells while it opens streams: signs of life, then the end.
enum Opened {
    One,
    All,
}

/// Shared by the stream tasks of the one thread.
struct Hall {
    events: RefCell<Events>,
    progress: Notify,
}

fn thread(
    options: &Options,
    audience: Audience,
    ready: &Sender<Result<Opened, CallError>>,
    finish: oneshot::Receiver<u64>,
    events: &Sender<Events>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system grants an epoll instance");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut seats = match seats(options, &audience, ready).await {
            Ok(seats) => seats,
            Err(error) => {
                // The opener is waiting for exactly this.
                let _ = ready.send(Err(error));
                return;
            }
        };
        let hall = Rc::new(Hall { events: RefCell::default(), progress: Notify::new() });
        for seat in seats.drain(..) {
            tokio::task::spawn_local(listen(seat, audience.stamps.clone(), hall.clone()));
        }
        let _ = ready.send(Ok(Opened::All));
        if let Ok(expected) = finish.await {
            settle(&hall, expected, options.patience).await;
        }
        let _ = events.send(hall.events.take());
    });
}

/// Waits until `expected` events are there; what stays out for `patience` is an error.
async fn settle(hall: &Hall, expected: u64, patience: Duration) {
    while hall.events.borrow().received < expected {
        if tokio::time::timeout(patience, hall.progress.notified()).await.is_err() {
            break;
        }
    }
    let mut events = hall.events.borrow_mut();
    let (missing, extra) = (expected.saturating_sub(events.received), events.received.saturating_sub(expected));
    if missing > 0 {
        *events.errors.entry(format!("events did not come within {patience:?}")).or_default() += missing;
    }
    if extra > 0 {
        *events.errors.entry("events came more often than once".into()).or_default() += extra;
    }
}

/// One stream with its watchers, all confirmed.
struct Seat {
    stream: Stream,
    /// By watch id − 1: the revision of the last event.
    newest: Vec<i64>,
}

async fn seats(
    options: &Options,
    audience: &Audience,
    ready: &Sender<Result<Opened, CallError>>,
) -> Result<Vec<Seat>, CallError> {
    let mut connections = Vec::new();
    for index in 0..options.shape.conns.min(audience.crowd.streams as usize) {
        let endpoint = &options.shape.endpoints[index % options.shape.endpoints.len()];
        connections.push(Connection::open(endpoint).await?);
    }
    let mut seats = Vec::new();
    for index in 0..audience.crowd.streams {
        let connection = &mut connections[index as usize % options.shape.conns];
        seats.push(seat(connection, audience, index).await?);
        // The opener may have given up.
        let _ = ready.send(Ok(Opened::One));
    }
    Ok(seats)
}

async fn seat(connection: &mut Connection, audience: &Audience, index: u64) -> Result<Seat, CallError> {
    let route = connection.route(WATCH);
    let numbers = (index..audience.crowd.watchers).step_by(audience.crowd.streams as usize);
    let mut creates = (1..).zip(numbers).map(|(watch_id, watcher)| {
        let (key, range_end) = audience.watched(watcher);
        let create = WatchCreateRequest { key, range_end, watch_id, ..WatchCreateRequest::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        frame(|out| request.encode(out).expect("a BytesMut grows"))
    });
    let first = creates.next().expect("there are no more streams than watchers");
    let mut stream = connection.stream(&route, first).await?;
    let mut created = 1;
    for create in creates {
        stream.send(create)?;
        created += 1;
    }
    for _ in 0..created {
        let Some(message) = stream.next().await? else {
            return Err(CallError::Broken("the server ended a watch stream".into()));
        };
        match WatchResponse::decode(message) {
            Ok(response) if response.created && !response.canceled => {}
            Ok(response) => {
                return Err(CallError::Broken(format!("a watcher was refused: {}", response.cancel_reason)));
            }
            Err(error) => return Err(CallError::Broken(format!("undecodable answer: {error}"))),
        }
    }
    Ok(Seat { stream, newest: vec![0; created] })
}

/// One response in so many is decoded in full, and compared with what was read of it.
const DECODE_EVERY: u64 = 1000;

async fn listen(mut seat: Seat, stamps: Arc<Stamps>, hall: Rc<Hall>) {
    loop {
        let mut heard = {
            let mut events = hall.events.borrow_mut();
            let mut ear = Ear::new(&mut seat.newest, &stamps, &mut events);
            let heard = seat.stream.each(|message| ear.hear(message));
            ear.rest();
            heard
        };
        hall.progress.notify_one();
        if heard.is_ok() {
            heard = match seat.stream.more().await {
                Ok(true) => continue,
                Ok(false) => Err("the server ended a watch stream".into()),
                Err(error) => Err(error.to_string()),
            };
        }
        if let Err(text) = heard {
            *hall.events.borrow_mut().errors.entry(text).or_default() += 1;
            return;
        }
    }
}

/// Listens to what came at once on one stream.
struct Ear<'a> {
    /// By watch id − 1: the revision of the last event.
    newest: &'a mut [i64],
    stamps: &'a Stamps,
    events: &'a mut Events,
    /// When it came.
    now: Instant,
    /// The put of the last events, and how many of them are not yet in the meter: watchers of one key hear of the same put.
    put: u64,
    unmetered: u64,
}

impl<'a> Ear<'a> {
    fn new(newest: &'a mut [i64], stamps: &'a Stamps, events: &'a mut Events) -> Self {
        Self { newest, stamps, events, now: Instant::now(), put: 0, unmetered: 0 }
    }

    fn hear(&mut self, message: &[u8]) -> Result<(), String> {
        let response = Glance::at(message)?;
        self.events.responses += 1;
        if self.events.responses % DECODE_EVERY == 1 {
            response.agrees()?;
        }
        if response.canceled {
            let response = WatchResponse::decode(message).map_err(|error| format!("undecodable answer: {error}"))?;
            return Err(format!("a watcher was cancelled: {}", response.cancel_reason));
        }
        let slot = usize::try_from(response.watch_id - 1).ok().filter(|slot| *slot < self.newest.len());
        let slot = slot.ok_or("events for a watcher that was never made")?;
        let heard = response.events(|event| {
            if event.mod_revision <= self.newest[slot] {
                return Err("events of one watcher are out of order");
            }
            self.newest[slot] = event.mod_revision;
            let put = event.value.first_chunk().copied().map(u64::from_be_bytes).ok_or("an event without its value")?;
            if put != self.put {
                self.meter();
                self.put = put;
            }
            self.unmetered += 1;
            Ok(())
        });
        heard.map_err(Into::into)
    }

    fn meter(&mut self) {
        if self.unmetered > 0 {
            self.events.received += self.unmetered;
            self.events.meter.record_many(self.stamps.age(self.put, self.now), self.unmetered);
            self.unmetered = 0;
            self.events.last = Some(self.now);
        }
    }

    /// Everything was heard.
    fn rest(mut self) {
        self.meter();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_proto::mvccpb::{Event, KeyValue};

    #[test]
    fn every_watcher_listens_to_one_key() {
        for (watchers, space) in [(1, 1), (1000, 1), (10, 3), (3, 10)] {
            let sum: u64 = (0..space).map(|number| listeners(watchers, space, number)).sum();
            assert_eq!(sum, watchers);
            let counted = (0..watchers).filter(|watcher| watcher % space == 0).count() as u64;
            assert_eq!(listeners(watchers, space, 0), counted);
        }
    }

    #[test]
    fn slices_cover_every_key_once() {
        for (watchers, space) in [(1, 10), (3, 10), (10, 10), (7, 100)] {
            let keys = Arc::new(Keys::new(3, 8, space, false, 1));
            let crowd = Crowd { watchers, streams: 1, seats: Seats::Slices };
            let audience = Audience { keys: keys.clone(), stamps: Arc::new(Stamps::new()), crowd };
            for number in 0..space {
                let key = keys.key(number);
                let within = |watcher: &u64| {
                    let (first, end) = audience.watched(*watcher);
                    first <= key && key < end
                };
                assert_eq!((0..watchers).filter(within).count(), 1, "key {number} of {space}, {watchers} watchers");
            }
        }
    }

    #[test]
    fn events_are_counted_and_disorder_is_an_error() {
        let keys = Keys::new(8, 16, 1, false, 1);
        let stamps = Stamps::new();
        let mut events = Events::default();
        let mut newest = vec![0; 2];
        let mut hear_one = |watch_id, revisions: &[i64]| {
            let event = |revision: &i64| Event {
                kv: Some(KeyValue { mod_revision: *revision, value: keys.value(0, 3), ..KeyValue::default() }),
                ..Event::default()
            };
            let response =
                WatchResponse { watch_id, events: revisions.iter().map(event).collect(), ..WatchResponse::default() };
            let mut ear = Ear::new(&mut newest, &stamps, &mut events);
            let heard = ear.hear(&response.encode_to_vec());
            ear.rest();
            heard
        };
        assert_eq!(hear_one(1, &[2, 3]), Ok(()));
        assert_eq!(hear_one(2, &[2]), Ok(()));
        assert!(hear_one(1, &[3]).unwrap_err().contains("out of order"));
        assert!(hear_one(3, &[4]).unwrap_err().contains("never made"));
        assert!(hear_one(0, &[4]).unwrap_err().contains("never made"));
        assert_eq!((events.received, events.meter.count()), (3, 3));
    }

    #[test]
    fn missing_and_doubled_events_are_errors() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for (received, expected, wanted) in [(5, 5, 0), (5, 7, 2), (9, 7, 2)] {
            let events = Events { received, ..Events::default() };
            let hall = Hall { events: RefCell::new(events), progress: Notify::new() };
            runtime.block_on(settle(&hall, expected, Duration::from_millis(20)));
            assert_eq!(hall.events.borrow().errors.values().sum::<u64>(), wanted);
        }
    }
}
