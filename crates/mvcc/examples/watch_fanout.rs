//! What the watch hub costs: `cargo run --release -p milepost-mvcc --example watch_fanout`.
//!
//! The core is measured on one thread, with streams read after each batch; the hub with its own thread, one writer and one reader
//! thread. Values are 256 bytes.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use milepost_engine::mem::MemEngine;
use milepost_mvcc::watch::{
    Bounds, Counters, CreateRequest, Hub, HubCore, HubOptions, Input, Outbox, StreamId, StreamOptions,
};
use milepost_mvcc::{EventBatch, Store, StoreOptions, Writer};
use milepost_types::{LeaseId, LogIndex, Term};

fn main() {
    println!("{:<66} {:>14} {:>12}", "case", "per batch", "frames/s");
    for (streams, each) in [(1000, 1), (1, 1000), (10, 100)] {
        let name = format!("core: {} watchers of one key on {streams} streams", streams * each);
        core(&name, streams, each, 2000, |_| single("hot"), |_| "hot".into());
    }
    let key = |n: usize| format!("/registry/{:05}/x", n % 10_000);
    core("core: 10,000 watchers of a key each", 10, 1000, 100_000, |n| single(&key(n)), key);
    let prefix = |n: usize| range(&format!("/registry/{n:05}/"), &format!("/registry/{n:05}0"));
    core("core: 10,000 watchers of a prefix each", 10, 1000, 100_000, prefix, key);
    let spans = |n: usize| range(&format!("/registry/{n:05}"), &format!("/registry/{:05}", n + 3));
    core("core: 10,000 watchers of a range each, three to a key", 10, 1000, 100_000, spans, key);
    catch_up(512, 100_000);
    crowd(100_000);
    silence();
    hub(1000, 500);
    hub(100, 5000);
    hub(1, 20_000);
}

struct Source {
    store: Store,
    writer: Writer,
    index: u64,
}

impl Source {
    fn new() -> Self {
        let options = StoreOptions { background: false, ..StoreOptions::default() };
        let (store, writer, _) = Store::open(Arc::new(MemEngine::new()), options).expect("an empty store");
        Self { store, writer, index: 0 }
    }

    fn put(&mut self, key: &str) -> Arc<EventBatch> {
        self.index += 1;
        let mut change = self.writer.begin(LogIndex(self.index), Term(1));
        change.put(Bytes::copy_from_slice(key.as_bytes()), Bytes::from(vec![b'v'; 256]), LeaseId(0)).expect("a put");
        change.finish().expect("a store").expect("a change")
    }
}

fn clock() -> impl Fn() -> Duration {
    let start = Instant::now();
    move || start.elapsed()
}

fn single(key: &str) -> CreateRequest {
    CreateRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..CreateRequest::default() }
}

fn range(start: &str, end: &str) -> CreateRequest {
    CreateRequest { range_end: Bytes::copy_from_slice(end.as_bytes()), ..single(start) }
}

/// Bounds that nothing runs into, so that only the way through is measured.
fn options() -> HubOptions {
    HubOptions { bounds: Bounds { bytes: usize::MAX / 2, frames: usize::MAX / 2 }, ..HubOptions::default() }
}

fn report(name: &str, batches: usize, frames: u64, took: Duration) {
    let rate = frames as f64 / took.as_secs_f64();
    println!("{name:<66} {:>11.2} µs {rate:>12.0}", took.as_secs_f64() * 1e6 / batches as f64);
}

fn core(
    name: &str,
    streams: usize,
    each: usize,
    batches: usize,
    request: impl Fn(usize) -> CreateRequest,
    key: impl Fn(usize) -> String,
) {
    let mut source = Source::new();
    let counters = Arc::new(Counters::default());
    let mut core = HubCore::new(Arc::new(source.store.clone()), options(), counters.clone());
    let mut outboxes = Vec::new();
    let mut frames = Vec::new();
    for stream in 0..streams {
        let id = StreamId(stream as u64);
        let outbox = Arc::new(Outbox::new(options().bounds, Arc::new(|| ()), counters.clone()));
        core.step(Input::Open(id, outbox.clone(), StreamOptions::default()));
        for n in 0..each {
            core.step(Input::Create(id, request(stream * each + n)));
        }
        core.flush();
        assert!(!outbox.take(&mut frames));
        frames.clear();
        outboxes.push(outbox);
    }
    let changes: Vec<_> = (0..batches).map(|n| source.put(&key(n))).collect();
    let mut count = 0;
    let start = Instant::now();
    for (n, batch) in changes.into_iter().enumerate() {
        core.step(Input::Batch(batch));
        core.flush();
        // With few frames, reading each time would be all that is measured.
        if streams * each == 1000 || n % 100 == 99 {
            for outbox in &outboxes {
                assert!(!outbox.take(&mut frames));
                count += frames.len() as u64;
                frames.clear();
            }
        }
    }
    report(name, batches, count, start.elapsed());
}

/// Watchers of a key each that all start at the beginning.
fn catch_up(watchers: usize, revisions: usize) {
    let mut source = Source::new();
    for n in 0..revisions {
        source.put(&format!("key/{:05}", n % watchers));
    }
    let counters = Arc::new(Counters::default());
    let mut core = HubCore::new(Arc::new(source.store.clone()), options(), counters.clone());
    let outbox = Arc::new(Outbox::new(options().bounds, Arc::new(|| ()), counters.clone()));
    core.step(Input::Open(StreamId(0), outbox.clone(), StreamOptions::default()));
    for n in 0..watchers {
        let request = CreateRequest { start_revision: 1, ..single(&format!("key/{n:05}")) };
        core.step(Input::Create(StreamId(0), request));
    }
    let start = Instant::now();
    let (mut steps, mut longest) = (0, Duration::ZERO);
    while core.is_behind() {
        let step = Instant::now();
        core.catch_up();
        core.flush();
        longest = longest.max(step.elapsed());
        steps += 1;
    }
    let took = start.elapsed();
    let mut frames = Vec::new();
    assert!(!outbox.take(&mut frames));
    let name = format!("core: {watchers} watchers read {revisions} revisions, {steps} steps, longest {longest:.1?}");
    report(&name, revisions, frames.len() as u64, took);
}

/// One change for many watchers of one stream that is read as fast as it fills, with the usual bounds.
fn crowd(watchers: usize) {
    let mut source = Source::new();
    let counters = Arc::new(Counters::default());
    let options = HubOptions::default();
    let mut core = HubCore::new(Arc::new(source.store.clone()), options, counters.clone());
    let outbox = Arc::new(Outbox::new(options.bounds, Arc::new(|| ()), counters.clone()));
    core.step(Input::Open(StreamId(0), outbox.clone(), StreamOptions::default()));
    for _ in 0..watchers {
        core.step(Input::Create(StreamId(0), single("hot")));
    }
    core.flush();
    let mut frames = Vec::new();
    assert!(!outbox.take(&mut frames));
    frames.clear();
    let batch = source.put("hot");
    let start = Instant::now();
    core.step(Input::Batch(batch));
    let mut count = 0;
    while count < watchers {
        core.flush();
        if outbox.take(&mut frames) {
            core.step(Input::Drained(StreamId(0)));
        }
        count += frames.len();
        frames.clear();
        core.catch_up();
    }
    report(&format!("core: {watchers} watchers of one key on one bounded stream"), 1, count as u64, start.elapsed());
}

/// What the writer pays while nobody watches.
fn silence() {
    let mut source = Source::new();
    let hub = Hub::start(source.store.clone(), HubOptions::default(), clock());
    let batch = source.put("k");
    const TIMES: usize = 10_000_000;
    let start = Instant::now();
    for _ in 0..TIMES {
        hub.publish(batch.clone());
    }
    let took = start.elapsed();
    println!("{:<66} {:>11.4} µs", "hub: publish to nobody", took.as_secs_f64() * 1e6 / TIMES as f64);
    hub.stop();
}

/// The whole hub: from `publish` until the last of `streams` readers has its frame.
fn hub(streams: usize, batches: usize) {
    let mut source = Source::new();
    let hub = Hub::start(source.store.clone(), HubOptions::default(), clock());
    let (wake, woken) = channel::<usize>();
    let wake = Arc::new(Mutex::new(wake));
    let opened: Vec<_> = (0..streams)
        .map(|n| {
            let wake = wake.lock().expect("one thread").clone();
            let stream = hub.open_stream(
                Arc::new(move || {
                    wake.send(n).ok();
                }),
                StreamOptions::default(),
            );
            stream.create(single("hot"));
            stream
        })
        .collect();
    let total = (streams * batches) as u64;
    let reader = std::thread::spawn(move || {
        let (mut frames, mut events) = (Vec::new(), 0);
        while events < total {
            let stream = woken.recv().expect("a wake");
            opened[stream].take(&mut frames);
            events += frames.drain(..).map(|frame| u64::from(frame.event_count)).sum::<u64>();
        }
    });
    while hub.stats().watchers < streams as u64 {
        std::thread::yield_now();
    }
    let start = Instant::now();
    let mut publishing = Duration::ZERO;
    for _ in 0..batches {
        let batch = source.put("hot");
        let publish = Instant::now();
        hub.publish(batch);
        publishing += publish.elapsed();
    }
    let written = start.elapsed();
    reader.join().expect("a reader that got everything");
    let name = format!("hub: {streams} streams of one watcher, put {:.1?}", written / batches as u32);
    report(&name, batches, total, start.elapsed());
    println!("    publish {:.2?} each, {:?}", publishing / batches as u32, hub.stats());
    hub.stop();
}
