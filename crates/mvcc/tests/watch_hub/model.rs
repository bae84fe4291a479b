//! Random use of a hub against a naive twin: every watcher gets exactly the events of history since its start that it asked for,
//! in order, without gap or double, whatever streams, compactions, lost batches and cancels do meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use milepost_mvcc::watch::{
    Bounds, Counters, CreateRequest, Frame, History, HubCore, HubOptions, Input, NO_WATCHER, Outbox, StreamId,
    StreamOptions,
};
use milepost_mvcc::{EventBatch, Record};
use milepost_proto::Message;
use milepost_proto::etcdserverpb::WatchResponse;
use milepost_proto::mvccpb::{Event, event::EventType};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::past::Past;

#[test]
fn watchers_see_history_exactly_once() {
    let only = std::env::var("WATCH_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let mut total = Tally::default();
    for seed in only.map_or(0..400, |seed| seed..seed + 1) {
        let run = std::panic::catch_unwind(|| Model::new(seed).run());
        match run {
            Ok(tally) => total.add(&tally),
            Err(_) => panic!("replay: WATCH_SEED={seed} cargo test -p milepost-mvcc watchers_see_history"),
        }
    }
    if only.is_none() {
        // A model that never gets into trouble proves nothing.
        let Tally { events, caught_up, compacted, refused, progress, previous, fragments } = total;
        for count in [events, caught_up, compacted, refused, progress, previous, fragments] {
            assert!(count > 100, "{total:?}");
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    events: u64,
    caught_up: u64,
    compacted: u64,
    refused: u64,
    progress: u64,
    previous: u64,
    fragments: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.caught_up += other.caught_up;
        self.compacted += other.compacted;
        self.refused += other.refused;
        self.progress += other.progress;
        self.previous += other.previous;
        self.fragments += other.fragments;
    }
}

struct Model {
    rng: SmallRng,
    past: Past,
    core: HubCore,
    counters: Arc<Counters>,
    bounds: Bounds,
    streams: Vec<Client>,
    opened: u64,
    queue: VecDeque<Arc<EventBatch>>,
    /// Creates minus ended, as the hub's shell counts them.
    watching: usize,
    tally: Tally,
}

struct Client {
    id: StreamId,
    outbox: Arc<Outbox>,
    wakes: Arc<AtomicU64>,
    /// Requests whose `created` frame has not come.
    creating: VecDeque<CreateRequest>,
    watchers: BTreeMap<i64, Twin>,
}

/// What we know of a watcher from its frames alone.
struct Twin {
    request: CreateRequest,
    /// Every event of its below this revision has come.
    next: i64,
    /// The last frame was a fragment.
    in_reply: bool,
}

const KEYS: [&str; 7] = ["a", "a/1", "a/2", "ab", "b", "b/1", "c"];

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (past, counters) = (Past::default(), Arc::new(Counters::default()));
        let bounds = Bounds { bytes: rng.random_range(1..3000), frames: rng.random_range(1..12) };
        let options = HubOptions {
            bounds,
            catch_up_watchers: rng.random_range(1..6),
            catch_up_records: rng.random_range(1..8),
            catch_up_bytes: rng.random_range(1..500),
            ..HubOptions::default()
        };
        let core = HubCore::new(Arc::new(past.clone()), options, counters.clone());
        Self {
            rng,
            past,
            core,
            counters,
            bounds,
            streams: vec![],
            opened: 0,
            queue: VecDeque::new(),
            watching: 0,
            tally: Tally::default(),
        }
    }

    fn run(mut self) -> Tally {
        for _ in 0..600 {
            self.act();
            self.core.check();
            self.watching -= self.core.take_ended();
        }
        self.settle();
        self.tally
    }

    fn act(&mut self) {
        match self.rng.random_range(0..100) {
            0..29 => self.change(),
            29 => self.past.commit(),
            30..32 => self.compact(),
            32..45 => self.create(),
            45..49 => self.cancel(),
            49..62 => self.deliver(),
            62..76 => self.core.catch_up(),
            76..84 => self.core.flush(),
            84..92 => self.take_some(),
            92..94 => self.each_stream_input(Input::ProgressRequest),
            94..96 => self.each_stream_input(Input::ProgressTick),
            96 => self.lose(),
            97 => self.core.step(Input::Invalidate),
            98 => self.open(),
            _ => self.close(),
        }
    }

    fn change(&mut self) {
        let ops: Vec<_> = (0..self.rng.random_range(1..4))
            .map(|_| {
                let key = Bytes::from_static(KEYS[self.rng.random_range(0..KEYS.len())].as_bytes());
                let value = self.rng.random_bool(0.7).then(|| Bytes::from(vec![b'v'; self.rng.random_range(0..60)]));
                (key, value)
            })
            .collect();
        if let Some(batch) = self.past.txn(&distinct(ops))
            && self.watching > 0
        {
            self.queue.push_back(batch);
        }
    }

    fn compact(&mut self) {
        let (floor, newest) = (self.past.compact_revision().max(0), self.past.revision());
        if floor < newest {
            self.past.compact(self.rng.random_range(floor + 1..=newest));
        }
    }

    fn deliver(&mut self) {
        for _ in 0..self.rng.random_range(1..4) {
            if let Some(batch) = self.queue.pop_front() {
                self.core.step(Input::Batch(batch));
            }
        }
    }

    /// Drops queued batches. Sometimes the hub is told; else it must find out from the next batch.
    fn lose(&mut self) {
        let lost = self.rng.random_range(0..=self.queue.len());
        self.queue.drain(..lost);
        if self.queue.is_empty() {
            self.core.step(Input::Invalidate);
        }
    }

    fn open(&mut self) {
        if self.streams.len() == 4 {
            return;
        }
        let id = StreamId(self.opened);
        self.opened += 1;
        let wakes = Arc::new(AtomicU64::new(0));
        let counted = wakes.clone();
        let waker = Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let outbox = Arc::new(Outbox::new(self.bounds, waker, self.counters.clone()));
        let options = StreamOptions { max_response_bytes: self.rng.random_range(60..400) };
        self.core.step(Input::Open(id, outbox.clone(), options));
        self.streams.push(Client { id, outbox, wakes, creating: VecDeque::new(), watchers: BTreeMap::new() });
    }

    fn close(&mut self) {
        if !self.streams.is_empty() {
            let at = self.rng.random_range(0..self.streams.len());
            let client = self.streams.swap_remove(at);
            self.core.step(Input::Close(client.id));
        }
    }

    fn create(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let rng = &mut self.rng;
        let key = KEYS[rng.random_range(0..KEYS.len())];
        let range_end = match rng.random_range(0..5) {
            0 | 1 => Bytes::new(),
            2 => Bytes::from_static(b"\0"),
            3 => {
                let mut end = key.as_bytes().to_vec();
                *end.last_mut().expect("a key") += 1;
                end.into()
            }
            _ => Bytes::from_static(KEYS[rng.random_range(0..KEYS.len())].as_bytes()),
        };
        let newest = self.past.revision();
        let request = CreateRequest {
            key: Bytes::from_static(key.as_bytes()),
            range_end,
            start_revision: match rng.random_range(0..10) {
                0..4 => 0,
                4..9 => rng.random_range(newest.saturating_sub(30).max(1)..newest + 5),
                _ => rng.random_range(-2..newest + 1),
            },
            // Not −1, so that we can tell who is meant.
            watch_id: if rng.random_bool(0.2) { [-3, -2, 1, 2, 3, 4, 5][rng.random_range(0..7)] } else { 0 },
            progress_notify: rng.random_bool(0.3),
            prev_kv: rng.random_bool(0.3),
            fragment: rng.random_bool(0.3),
            no_put: rng.random_bool(0.1),
            no_delete: rng.random_bool(0.1),
        };
        let at = rng.random_range(0..self.streams.len());
        let client = &mut self.streams[at];
        client.creating.push_back(request.clone());
        self.watching += 1;
        self.core.step(Input::Create(client.id, request));
    }

    fn cancel(&mut self) {
        if !self.streams.is_empty() {
            let at = self.rng.random_range(0..self.streams.len());
            let id = self.rng.random_range(-3..12);
            self.core.step(Input::Cancel(self.streams[at].id, id));
        }
    }

    fn each_stream_input(&mut self, input: impl Fn(StreamId) -> Input) {
        for client in &self.streams {
            self.core.step(input(client.id));
        }
    }

    fn take_some(&mut self) {
        if !self.streams.is_empty() {
            let at = self.rng.random_range(0..self.streams.len());
            self.take(at);
        }
    }

    fn take(&mut self, at: usize) -> bool {
        let client = &mut self.streams[at];
        let wakes = client.wakes.swap(0, Ordering::Relaxed);
        let mut frames = Vec::new();
        let blocked = client.outbox.take(&mut frames);
        assert_eq!(wakes, u64::from(!frames.is_empty()), "one wake for what is there");
        for frame in &frames {
            client.frame(frame, &self.past, &mut self.tally);
        }
        if blocked {
            self.core.step(Input::Drained(client.id));
        }
        !frames.is_empty() || blocked
    }

    /// Lets everything come to rest; then nobody may miss anything.
    fn settle(&mut self) {
        while let Some(batch) = self.queue.pop_front() {
            self.core.step(Input::Batch(batch));
        }
        let mut steps = 0;
        loop {
            self.core.catch_up();
            self.core.flush();
            self.core.check();
            let mut moved = false;
            for at in 0..self.streams.len() {
                moved |= self.take(at);
            }
            steps += 1;
            assert!(steps < 100_000, "the hub does not come to rest");
            if !moved && !self.core.is_behind() {
                break;
            }
        }
        for client in &self.streams {
            assert!(client.creating.is_empty(), "every create is answered");
            for (id, twin) in &client.watchers {
                let missing = twin.expected(&self.past).next();
                assert!(missing.is_none(), "stream {:?} watcher {id} misses {missing:?}", client.id);
            }
        }
        let stats = self.counters.read();
        assert_eq!((stats.pending_events, stats.slow_watchers), (0, 0));
        let watchers: usize = self.streams.iter().map(|client| client.watchers.len()).sum();
        self.watching -= self.core.take_ended();
        assert_eq!((stats.watchers, self.watching), (watchers as u64, watchers));
    }
}

impl Client {
    fn frame(&mut self, frame: &Frame, past: &Past, tally: &mut Tally) {
        assert!(frame.revision <= past.revision());
        if frame.created {
            return self.created(frame, tally);
        }
        if frame.canceled {
            // A watcher that compaction has ended is cancelled once more when its owner says so.
            if let Some(twin) = self.watchers.remove(&frame.watch_id)
                && frame.compact_revision != 0
            {
                assert!(frame.compact_revision <= past.compact_revision() && frame.revision == 0);
                assert!(twin.next < frame.compact_revision, "cancelled at {} for {frame:?}", twin.next);
                tally.compacted += 1;
            }
            return;
        }
        if frame.events.is_empty() {
            tally.progress += 1;
            let all = frame.watch_id == NO_WATCHER;
            assert!(!self.watchers.is_empty() && (all || self.watchers[&frame.watch_id].request.progress_notify));
            for (id, twin) in self.watchers.iter().filter(|(id, _)| all || **id == frame.watch_id) {
                let due = twin.expected(past).next().filter(|record| record.revision.main <= frame.revision);
                assert!(due.is_none(), "watcher {id} was told of progress, {due:?} is missing, {frame:?}");
                assert!(twin.request.start_revision <= frame.revision, "watcher {id} begins later than {frame:?}");
            }
            return;
        }
        self.watchers.get_mut(&frame.watch_id).expect("created before its events").events(frame, past, tally);
    }

    fn created(&mut self, frame: &Frame, tally: &mut Tally) {
        let request = self.creating.pop_front().expect("a create for each answer");
        let refused = request.start_revision < 0
            || request.is_empty_range()
            || (request.watch_id != 0 && frame.watch_id == NO_WATCHER && frame.canceled);
        assert_eq!(frame.canceled, refused, "{request:?} {frame:?}");
        assert_eq!(frame.canceled, !frame.cancel_reason.is_empty());
        if refused {
            tally.refused += 1;
            return;
        }
        if request.watch_id != 0 {
            assert_eq!(frame.watch_id, request.watch_id);
        }
        let next = if request.start_revision == 0 { frame.revision + 1 } else { request.start_revision };
        let before = self.watchers.insert(frame.watch_id, Twin { request, next, in_reply: false });
        assert!(before.is_none(), "id {} is given twice", frame.watch_id);
    }
}

impl Twin {
    /// What it is still to be told, from all that ever happened.
    fn expected(&self, past: &Past) -> impl Iterator<Item = Arc<Record>> {
        let request = self.request.clone();
        let next = self.next;
        past.all().into_iter().filter(move |record| {
            let unwanted = if record.is_tombstone() { request.no_delete } else { request.no_put };
            record.revision.main >= next && !unwanted && request.range().contains(&record.key)
        })
    }

    fn events(&mut self, frame: &Frame, past: &Past, tally: &mut Tally) {
        let events = WatchResponse::decode(frame.events.clone()).expect("events").events;
        assert_eq!(events.len(), frame.event_count as usize);
        let mut expected: Vec<_> = self.expected(past).collect();
        if self.in_reply {
            // A fragment may end within a revision: find where the last one ended.
            let first = events[0].kv.as_ref().expect("kv");
            let at = expected
                .iter()
                .position(|record| record.revision.main == first.mod_revision && record.key == first.key);
            let at = at.expect("an expected event");
            assert!(expected[..at].iter().all(|record| record.revision.main == self.next), "a gap between fragments");
            expected.drain(..at);
        }
        let mut last = 0;
        for (event, record) in events.iter().zip(&expected) {
            self.event(event, record, past, tally);
            last = record.revision.main;
        }
        assert!(events.len() <= expected.len() && last <= frame.revision, "{frame:?}");
        tally.events += events.len() as u64;
        tally.caught_up += u64::from(last < frame.revision);
        tally.fragments += u64::from(frame.fragment);
        assert!(!frame.fragment || self.request.fragment);
        let whole = expected.get(events.len()).is_none_or(|record| record.revision.main > last);
        assert!(whole || frame.fragment, "part of revision {last} is missing from {frame:?}");
        self.in_reply = frame.fragment;
        self.next = if frame.fragment { last } else { last + 1 };
    }

    fn event(&self, event: &Event, record: &Record, past: &Past, tally: &mut Tally) {
        let kv = event.kv.as_ref().expect("kv");
        let main = record.revision.main;
        assert_eq!((&kv.key, kv.mod_revision), (&record.key, main), "not the next event");
        match event.r#type() {
            EventType::Put => assert_eq!(*kv, record.to_kv()),
            EventType::Delete => assert!(record.is_tombstone()),
        }
        let all = past.all();
        let before = all.iter().rev().find(|other| other.key == record.key && other.revision.main < main);
        let before = before.filter(|other| !other.is_tombstone()).map(|other| other.to_kv());
        match &event.prev_kv {
            Some(previous) => {
                assert!(self.request.prev_kv);
                assert_eq!(Some(previous), before.as_ref());
                tally.previous += 1;
            }
            None => assert!(
                !self.request.prev_kv || before.is_none() || main - 1 < past.compact_revision(),
                "{before:?} is not shown"
            ),
        }
    }
}

/// A request changes a key once.
fn distinct(ops: Vec<crate::past::Op>) -> Vec<crate::past::Op> {
    ops.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
}
