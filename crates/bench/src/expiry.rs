//! Leases that end together: each has a key, a watcher hears of the keys' ends, and the time is held against when the
//! lease was due.
//!
//! ```text
//!  grant n  sent ─────── answered                 sent + ttl    answered + ttl        key n is gone
//!  ─────────┬───────────────┬──────────────────────────┬───────────────┬────────────────────┬──────────►
//!           │               │                          │ earlier: error│◄──── lateness ────►│
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use milepost_proto::Message;
use milepost_proto::etcdserverpb::{
    PutRequest, PutResponse, WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use milepost_proto::mvccpb::event::EventType;

use crate::endpoint::Endpoint;
use crate::grpc::{CallError, Connection, frame};
use crate::load::LoadError;
use crate::meter::Meter;
use crate::work::{Grant, Leases, Work};

/// Digits of a lease's number at the end of its key.
const DIGITS: usize = 10;

/// The leases of one run, with the moments that matter.
pub struct Ending {
    /// Which leases.
    pub leases: Arc<Leases>,
    origin: Instant,
    sent: Box<[AtomicU64]>,
    answered: Box<[AtomicU64]>,
}

impl Ending {
    /// Nothing is granted yet.
    pub fn new(leases: Arc<Leases>) -> Ending {
        let moments = || (0..leases.count).map(|_| AtomicU64::new(0)).collect();
        Ending { origin: Instant::now(), sent: moments(), answered: moments(), leases }
    }

    fn prefix(&self) -> String {
        format!("bench-lease/{:016x}/", self.leases.first)
    }

    fn key(&self, n: u64) -> Bytes {
        format!("{}{n:0DIGITS$}", self.prefix()).into()
    }

    fn number(&self, key: &[u8]) -> Option<usize> {
        let digits = key.strip_prefix(self.prefix().as_bytes())?;
        let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (n < self.leases.count).then_some(n as usize)
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn due(&self, granted: &AtomicU64) -> Instant {
        let ttl = Duration::from_secs(self.leases.ttl.unsigned_abs());
        self.origin + Duration::from_nanos(granted.load(Ordering::Relaxed)) + ttl
    }

    /// When the first lease may end at the earliest.
    pub fn first_due(&self) -> Instant {
        self.sent.iter().map(|sent| self.due(sent)).min().expect("there is a lease")
    }

    /// When the last lease is due.
    pub fn last_due(&self) -> Instant {
        self.answered.iter().map(|answered| self.due(answered)).max().expect("there is a lease")
    }

    /// How late lease `n` ended at `at`.
    ///
    /// # Errors
    /// It ended too early.
    fn lateness(&self, n: usize, at: Instant) -> Result<Duration, String> {
        if at < self.due(&self.sent[n]) {
            return Err("a lease ended before its time".into());
        }
        Ok(at.saturating_duration_since(self.due(&self.answered[n])))
    }
}

/// Ticket n grants lease n, and notes when.
pub struct TimedGrant(pub Arc<Ending>);

impl Work for TimedGrant {
    fn path(&self) -> &'static str {
        "/etcdserverpb.Lease/LeaseGrant"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        self.0.sent[n as usize].store(self.0.now(), Ordering::Relaxed);
        Grant(self.0.leases.clone()).encode(n, out);
    }

    fn check(&self, n: u64, answer: Bytes) -> Result<i64, String> {
        let revision = Grant(self.0.leases.clone()).check(n, answer);
        self.0.answered[n as usize].store(self.0.now(), Ordering::Relaxed);
        revision
    }
}

/// Ticket n writes the key of lease n.
pub struct LeasedPut(pub Arc<Ending>);

impl Work for LeasedPut {
    fn path(&self) -> &'static str {
        "/etcdserverpb.KV/Put"
    }

    fn encode(&self, n: u64, out: &mut BytesMut) {
        let put = PutRequest { key: self.0.key(n), lease: self.0.leases.id(n), ..PutRequest::default() };
        put.encode(out).expect("a BytesMut grows");
    }

    fn check(&self, _: u64, answer: Bytes) -> Result<i64, String> {
        let answer = PutResponse::decode(answer).map_err(|error| format!("undecodable answer: {error}"))?;
        answer.header.map(|header| header.revision).ok_or_else(|| "an answer without revision".into())
    }
}

/// What was heard of the leases' ends.
#[derive(Default)]
pub struct Ends {
    /// How late each was.
    pub meter: Meter,
    /// How many.
    pub heard: u64,
    /// What went wrong, by text.
    pub errors: BTreeMap<String, u64>,
    /// When the last one was heard of.
    pub last: Option<Instant>,
}

impl Ends {
    fn error(&mut self, text: impl Into<String>, count: u64) {
        *self.errors.entry(text.into()).or_default() += count;
    }

    fn note(&mut self, ending: &Ending, heard: &Heard) {
        self.last = Some(heard.at);
        for n in &heard.numbers {
            self.heard += 1;
            match ending.lateness(*n, heard.at) {
                Ok(lateness) => self.meter.record(lateness),
                Err(text) => self.error(text, 1),
            }
        }
    }
}

/// Leases whose keys went, and when that was heard.
struct Heard {
    at: Instant,
    numbers: Vec<usize>,
}

/// A watcher of all keys of the leases, on a thread of its own.
pub struct Vigil(Receiver<Result<Heard, String>>);

impl Vigil {
    /// Returns when the server has confirmed the watcher.
    ///
    /// # Errors
    /// It did not.
    pub fn keep(endpoint: &Endpoint, ending: Arc<Ending>, patience: Duration) -> Result<Vigil, LoadError> {
        let (sender, receiver) = channel();
        let endpoint = endpoint.clone();
        std::thread::Builder::new()
            .name("vigil".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("the system grants an epoll instance");
                let local = tokio::task::LocalSet::new();
                if let Err(error) = local.block_on(&runtime, watch(&endpoint, &ending, &sender)) {
                    // Nobody listens after the run.
                    let _ = sender.send(Err(error.to_string()));
                }
            })
            .expect("the system grants a thread");
        match receiver.recv_timeout(patience) {
            Ok(Ok(_)) => Ok(Vigil(receiver)),
            Ok(Err(text)) => Err(LoadError::Preparation { what: "watching the leases' keys", text }),
            Err(_) => Err(LoadError::Stalled(patience)),
        }
    }

    /// Waits until all leases of `ending` have ended, or nothing is heard for `patience` after the last was due;
    /// `look` is called every now and then meanwhile.
    pub fn wait(self, ending: &Ending, patience: Duration, mut look: impl FnMut()) -> Ends {
        /// How often `look` is called.
        const LOOK_EVERY: Duration = Duration::from_millis(200);
        let mut ends = Ends::default();
        let last_due = ending.last_due();
        while ends.heard < ending.leases.count {
            match self.0.recv_timeout(LOOK_EVERY) {
                Ok(Ok(heard)) => ends.note(ending, &heard),
                Ok(Err(text)) => {
                    ends.error(text, 1);
                    break;
                }
                Err(_) => {
                    look();
                    let since = ends.last.map_or(last_due, |last| last.max(last_due));
                    if since.elapsed() >= patience {
                        break;
                    }
                }
            }
        }
        let missing = ending.leases.count - ends.heard.min(ending.leases.count);
        if missing > 0 {
            ends.error(format!("leases did not end within {patience:?} after they were due"), missing);
        }
        ends
    }
}

async fn watch(endpoint: &Endpoint, ending: &Ending, sender: &Sender<Result<Heard, String>>) -> Result<(), CallError> {
    let broken = |text: String| CallError::Broken(text);
    let mut connection = Connection::open(endpoint).await?;
    let key = Bytes::from(ending.prefix());
    let mut range_end = key.to_vec();
    // The prefix ends in a slash; the byte after it ends the range.
    *range_end.last_mut().expect("it is not empty") += 1;
    let create = WatchCreateRequest { key, range_end: range_end.into(), ..WatchCreateRequest::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let route = connection.route("/etcdserverpb.Watch/Watch");
    let first = frame(|out| request.encode(out).expect("a BytesMut grows"));
    let mut stream = connection.stream(&route, first).await?;
    while let Some(message) = stream.next().await? {
        let at = Instant::now();
        let response =
            WatchResponse::decode(message).map_err(|error| broken(format!("undecodable answer: {error}")))?;
        if response.canceled {
            return Err(broken(format!("the watcher was cancelled: {}", response.cancel_reason)));
        }
        let gone = response.events.iter().filter(|event| event.r#type() == EventType::Delete);
        let numbers = gone.filter_map(|event| ending.number(&event.kv.as_ref()?.key)).collect();
        // Empty for the confirmation: the opener waits for it. Nobody listens after the run.
        if sender.send(Ok(Heard { at, numbers })).is_err() {
            return Ok(());
        }
    }
    Err(broken("the server ended the watch stream".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending() -> Ending {
        let ending = Ending::new(Arc::new(Leases { first: 77, count: 3, ttl: 10 }));
        ending.sent[1].store(1_000_000_000, Ordering::Relaxed);
        ending.answered[1].store(2_000_000_000, Ordering::Relaxed);
        ending
    }

    #[test]
    fn keys_tell_their_lease() {
        let ending = ending();
        for n in 0..3 {
            assert_eq!(ending.number(&ending.key(n)), Some(n as usize));
        }
        assert_eq!(ending.number(&ending.key(3)), None);
        assert_eq!(ending.number(b"bench-lease/other/0000000001"), None);
    }

    #[test]
    fn lateness_counts_from_the_answer_and_early_ends_are_errors() {
        let ending = ending();
        let at = |seconds| ending.origin + Duration::from_secs(seconds);
        assert!(ending.lateness(1, at(10)).unwrap_err().contains("before its time"));
        assert_eq!(ending.lateness(1, at(11)), Ok(Duration::ZERO));
        assert_eq!(ending.lateness(1, at(15)), Ok(Duration::from_secs(3)));
        assert_eq!((ending.first_due(), ending.last_due()), (at(10), at(12)));
    }

    #[test]
    fn every_lease_is_waited_for_and_missing_ones_are_errors() {
        let ending = ending();
        let (sender, receiver) = channel();
        sender.send(Ok(Heard { at: ending.origin + Duration::from_secs(60), numbers: vec![0, 1, 2] })).unwrap();
        let ends = Vigil(receiver).wait(&ending, Duration::from_secs(1), || ());
        assert_eq!((ends.heard, ends.errors.len()), (3, 0));
        let (sender, receiver) = channel();
        sender.send(Ok(Heard { at: ending.origin + Duration::from_secs(1), numbers: vec![0] })).unwrap();
        sender.send(Err("gone".into())).unwrap();
        let ends = Vigil(receiver).wait(&ending, Duration::from_secs(1), || ());
        assert_eq!(ends.heard, 1);
        assert_eq!(ends.errors.values().sum::<u64>(), 1 + 1 + 2, "{:?}", ends.errors);
    }
}
