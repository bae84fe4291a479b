//! What one door counts.

use std::collections::BTreeMap;
use std::time::Duration;

use milepost_proto::etcdserverpb::{ResponseOp, response_op::Response};
use parking_lot::Mutex;

use super::tally::{Tally, Timings, doubling};
use crate::grpc::{METHODS, Method};
use crate::status::Code;

static HANDLING_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
static REQUEST_BOUNDS: [f64; 14] = doubling(0.001);

static RANGE_BOUNDS: [f64; 20] = doubling(0.0001);
static HASH_BOUNDS: [f64; 15] = doubling(0.01);
static SNAPSHOT_BOUNDS: [f64; 17] = doubling(0.01);
static SEND_BOUNDS: [f64; 14] = doubling(0.001);

static LEASE_BOUNDS: [f64; 24] = doubling(1.0);

/// `etcd_mvcc_*_total`.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    pub(crate) range: Tally,
    pub(crate) put: Tally,
    pub(crate) delete: Tally,
    pub(crate) txn: Tally,
}

impl Operations {
    /// Counts what a transaction has done.
    pub(crate) fn count_txn(&self, responses: &[ResponseOp]) {
        if responses.len() > 1 {
            self.txn.add(1);
        }
        for op in responses {
            match &op.response {
                Some(Response::ResponseRange(_)) => self.range.add(1),
                Some(Response::ResponsePut(_)) => self.put.add(1),
                Some(Response::ResponseDeleteRange(_)) => self.delete.add(1),
                Some(Response::ResponseTxn(nested)) => self.count_txn(&nested.responses),
                None => {}
            }
        }
    }
}

/// How long it takes to hand the replies of watch streams on.
#[derive(Debug)]
pub(crate) struct WatchSends {
    /// One reply with events.
    pub(crate) events: Timings<14>,
    /// The same, divided by its events.
    pub(crate) per_event: Timings<14>,
    /// One reply without.
    pub(crate) control: Timings<14>,
    /// A tick that asks for progress.
    pub(crate) progress: Timings<14>,
}

impl WatchSends {
    fn new() -> Self {
        let timings = || Timings::new(&SEND_BOUNDS);
        Self { events: timings(), per_event: timings(), control: timings(), progress: timings() }
    }

    /// `replies` went out in `took`, those with events with so many events.
    pub(crate) fn sent(&self, took: Duration, with_events: u32, events: u64, without: u32) {
        let each = took / (with_events + without).max(1);
        self.events.observe_many(each, with_events.into());
        let per_event = each * with_events / u32::try_from(events.max(1)).unwrap_or(u32::MAX);
        self.per_event.observe_many(per_event, with_events.into());
        self.control.observe_many(each, without.into());
    }
}

/// Counters of one gRPC method.
#[derive(Debug)]
pub(crate) struct MethodCounters {
    pub(crate) started: Tally,
    pub(crate) handled: [Tally; 17],
    pub(crate) received: Tally,
    pub(crate) sent: Tally,
    pub(crate) seconds: Timings<11>,
}

/// Counters of one door. Written by its thread; read by whoever is asked for `/metrics`.
#[derive(Debug)]
pub(crate) struct DoorMetrics {
    pub(crate) methods: Vec<MethodCounters>,
    pub(crate) sent_bytes: Tally,
    pub(crate) received_bytes: Tally,
    pub(crate) health_success: Tally,
    pub(crate) health_failures: Tally,
    /// `etcd_server_request_duration_seconds` by method and success.
    pub(crate) requests: Vec<[Timings<14>; 2]>,
    /// Ranges, puts, deletes and transactions of several operations that this door answered.
    pub(crate) operations: Operations,
    /// Bytes of keys and values put.
    pub(crate) put_bytes: Tally,
    /// Reading one range: refused, done.
    pub(crate) ranges: [Timings<20>; 2],
    pub(crate) hash: Timings<15>,
    pub(crate) snapshot: Timings<17>,
    pub(crate) hash_by_revision: Timings<15>,
    pub(crate) watch_sends: WatchSends,
    pub(crate) leases_granted: Tally,
    pub(crate) leases_revoked: Tally,
    pub(crate) leases_renewed: Tally,
    pub(crate) lease_ttl: Timings<24>,
    pub(crate) learner_promotions: Tally,
    /// Promotions that were refused here, by reason. The lock is taken for a promotion and a scrape.
    pub(crate) failed_promotions: Mutex<BTreeMap<String, u64>>,
    /// Calls by shape (unary, stream) and API version. The lock is the door's own but for scrapes.
    pub(crate) clients: Mutex<BTreeMap<String, [u64; 2]>>,
}

impl DoorMetrics {
    pub(crate) fn new() -> Self {
        let method = |_| MethodCounters {
            started: Tally::default(),
            handled: std::array::from_fn(|_| Tally::default()),
            received: Tally::default(),
            sent: Tally::default(),
            seconds: Timings::new(&HANDLING_BOUNDS),
        };
        Self {
            methods: (0..METHODS.len()).map(method).collect(),
            requests: (0..METHODS.len()).map(|_| std::array::from_fn(|_| Timings::new(&REQUEST_BOUNDS))).collect(),
            sent_bytes: Tally::default(),
            received_bytes: Tally::default(),
            health_success: Tally::default(),
            health_failures: Tally::default(),
            operations: Operations::default(),
            put_bytes: Tally::default(),
            ranges: std::array::from_fn(|_| Timings::new(&RANGE_BOUNDS)),
            hash: Timings::new(&HASH_BOUNDS),
            snapshot: Timings::new(&SNAPSHOT_BOUNDS),
            hash_by_revision: Timings::new(&HASH_BOUNDS),
            watch_sends: WatchSends::new(),
            leases_granted: Tally::default(),
            leases_revoked: Tally::default(),
            leases_renewed: Tally::default(),
            lease_ttl: Timings::new(&LEASE_BOUNDS),
            learner_promotions: Tally::default(),
            failed_promotions: Mutex::default(),
            clients: Mutex::default(),
        }
    }

    pub(crate) fn of(&self, method: Method) -> &MethodCounters {
        &self.methods[method as usize]
    }

    /// A message of `bytes` came in for `method`.
    pub(crate) fn received(&self, method: Method, bytes: usize) {
        self.of(method).received.add(1);
        self.received_bytes.add(bytes as u64);
    }

    /// `messages` of `bytes` together went out for `method`.
    pub(crate) fn sent(&self, method: Method, messages: u64, bytes: usize) {
        self.of(method).sent.add(messages);
        self.sent_bytes.add(bytes as u64);
    }

    /// A call of `method` is over.
    pub(crate) fn handled(&self, method: Method, code: Code, took: Duration) {
        let counters = self.of(method);
        counters.handled[code as usize].add(1);
        counters.seconds.observe(took);
    }

    /// A learner was not promoted, for this reason of the table of errors.
    pub(crate) fn failed_promotion(&self, reason: &str) {
        *self.failed_promotions.lock().entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts a call under the API version its client named.
    pub(crate) fn client(&self, version: &str, is_stream: bool) {
        let mut clients = self.clients.lock();
        if !clients.contains_key(version) {
            // A label per version; strange clients must not grow the page without bound.
            let version = if clients.len() < 64 { version } else { "unknown" };
            clients.entry(version.to_owned()).or_default()[usize::from(is_stream)] += 1;
        } else if let Some(counts) = clients.get_mut(version) {
            counts[usize::from(is_stream)] += 1;
        }
    }
}
