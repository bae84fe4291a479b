//! Catching up comes in bounded steps, and nobody waits for somebody else's past.

use std::sync::Arc;

use bytes::Bytes;
use milepost_mvcc::watch::{
    Bounds, Counters, CreateRequest, Frame, HubCore, HubOptions, Input, Outbox, StreamId, StreamOptions,
};

use crate::past::Past;

struct Bench {
    past: Past,
    core: HubCore,
    outbox: Arc<Outbox>,
}

const STREAM: StreamId = StreamId(0);

impl Bench {
    /// A hub over this many revisions of one key, with one stream of no bounds.
    fn new(revisions: usize) -> Self {
        Self::bounded(revisions, Bounds { bytes: usize::MAX, frames: usize::MAX })
    }

    fn bounded(revisions: usize, bounds: Bounds) -> Self {
        let past = Past::default();
        for _ in 0..revisions {
            past.txn(&[(Bytes::from_static(b"k"), Some(Bytes::from_static(b"v")))]).expect("a change");
        }
        let options = HubOptions { bounds, ..HubOptions::default() };
        let counters = Arc::new(Counters::default());
        let mut core = HubCore::new(Arc::new(past.clone()), options, counters.clone());
        let outbox = Arc::new(Outbox::new(bounds, Arc::new(|| ()), counters));
        core.step(Input::Open(STREAM, outbox.clone(), StreamOptions::default()));
        Self { past, core, outbox }
    }

    fn watch(&mut self, start_revision: i64) {
        let request = CreateRequest { key: Bytes::from_static(b"k"), start_revision, ..CreateRequest::default() };
        self.core.step(Input::Create(STREAM, request));
    }

    fn step(&mut self) -> Vec<Frame> {
        self.core.catch_up();
        self.core.flush();
        let mut frames = Vec::new();
        assert!(!self.outbox.take(&mut frames));
        frames.retain(|frame| !frame.created);
        frames
    }
}

#[test]
fn who_misses_little_does_not_wait_for_who_misses_much() {
    let mut bench = Bench::new(20_000);
    bench.watch(2);
    for _ in 0..4 {
        bench.step();
    }
    bench.watch(19_990);
    let frames: Vec<Frame> = (0..2).flat_map(|_| bench.step()).collect();
    let late = frames.iter().find(|frame| frame.watch_id == 1).expect("served within two steps");
    assert_eq!(late.event_count, 12);
    assert!(bench.core.is_behind(), "the other goes on");
}

#[test]
fn who_misses_much_gets_on_while_others_miss_little() {
    let mut bench = Bench::new(20_000);
    bench.watch(2);
    let mut steps = 0;
    let mut events = 0;
    while events < 20_000 {
        // There is always somebody who is nearly there.
        bench.watch(19_990);
        events += bench.step().iter().filter(|frame| frame.watch_id == 0).map(|frame| frame.event_count).sum::<u32>();
        steps += 1;
        assert!(steps < 60, "{events} events in {steps} steps");
    }
}

/// Readings are shared: hundreds of watchers of the same past cost about as many as one.
#[test]
fn one_reading_serves_many() {
    let mut bench = Bench::new(10_000);
    for n in 0..500 {
        bench.watch(2 + n % 7);
    }
    let mut steps = 0;
    let mut events: u64 = 0;
    while bench.core.is_behind() {
        let frames = bench.step();
        assert!(frames.iter().all(|frame| frame.event_count <= 1000), "a reply has at most 1000 revisions");
        events += frames.iter().map(|frame| u64::from(frame.event_count)).sum::<u64>();
        steps += 1;
    }
    let expected: u64 = (0..500).map(|n| 10_000 - n % 7).sum();
    assert_eq!(events, expected);
    assert!(steps < 30, "{steps} steps");
    assert_eq!(bench.past.all().len(), 10_000);
}

/// Many watchers of one change on a stream with little room: each time that it is read it is filled again.
#[test]
fn a_stream_that_is_read_is_filled_again() {
    const FRAMES: usize = 50;
    let mut bench = Bench::bounded(0, Bounds { bytes: usize::MAX, frames: FRAMES });
    for _ in 0..20 * FRAMES {
        bench.watch(0);
    }
    bench.step();
    let batch = bench.past.txn(&[(Bytes::from_static(b"k"), Some(Bytes::from_static(b"v")))]).expect("a change");
    bench.core.step(Input::Batch(batch));
    let (mut served, mut takes) = (0, 0);
    while served < 20 * FRAMES {
        bench.core.catch_up();
        bench.core.flush();
        let mut frames = Vec::new();
        if bench.outbox.take(&mut frames) {
            bench.core.step(Input::Drained(STREAM));
        }
        assert!(frames.len() <= FRAMES);
        served += frames.len();
        takes += 1;
        assert!(takes <= 21, "{served} of {} after {takes} readings", 20 * FRAMES);
    }
}
