//! Golden scripts: what clients and writer do, then every frame that comes of it.
//!
//! A script is blocks of commands, a line `---`, and the output; blocks are separated by empty lines. After each command the hub
//! catches up, and every stream that is not held is read and shown. `REWRITE=1 cargo test -p milepost-mvcc golden` writes the
//! output anew; review it as a diff.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use milepost_mvcc::EventBatch;
use milepost_mvcc::watch::{
    Bounds, Counters, CreateRequest, Frame, HubCore, HubOptions, Input, Outbox, StreamId, StreamOptions,
};
use milepost_proto::Message;
use milepost_proto::etcdserverpb::WatchResponse;
use milepost_proto::mvccpb::{Event, KeyValue, event::EventType};

use crate::past::{Op, Past};

#[test]
fn golden() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/watch_hub/scripts");
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).expect("scripts").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a script");
        let actual = World::default().play(&text);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&path, &actual).expect("a folder to write to");
        }
        assert!(actual == text || std::env::var_os("REWRITE").is_some(), "{} is now:\n{actual}", path.display());
    }
}

/// One hub, its store and its clients.
struct World {
    past: Past,
    core: HubCore,
    counters: Arc<Counters>,
    options: HubOptions,
    streams: BTreeMap<String, Client>,
    opened: u64,
    /// Batches on their way to the hub.
    lagging: Option<Vec<Arc<EventBatch>>>,
    /// The hub does not catch up by itself.
    manual: bool,
}

struct Client {
    id: StreamId,
    outbox: Arc<Outbox>,
    wakes: Arc<AtomicU64>,
    held: bool,
}

impl Default for World {
    fn default() -> Self {
        Self::new(HubOptions::default())
    }
}

impl World {
    fn new(options: HubOptions) -> Self {
        let (past, counters) = (Past::default(), Arc::new(Counters::default()));
        let core = HubCore::new(Arc::new(past.clone()), options, counters.clone());
        Self { past, core, counters, options, streams: BTreeMap::new(), opened: 0, lagging: None, manual: false }
    }

    fn play(mut self, script: &str) -> String {
        let mut out = String::new();
        for block in script.split("\n\n") {
            let mut shown = String::new();
            let mut commands = false;
            for line in block.lines().take_while(|line| *line != "---") {
                writeln!(out, "{line}").expect("a string");
                if !line.is_empty() && !line.starts_with('#') {
                    commands = true;
                    for command in line.split(';') {
                        self.command(command.trim(), &mut shown);
                    }
                }
            }
            if commands {
                out.push_str("---\n");
                out.push_str(if shown.is_empty() { "ok\n" } else { &shown });
            }
            out.push('\n');
        }
        format!("{}\n", out.trim_end())
    }

    fn command(&mut self, line: &str, shown: &mut String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<i64>().unwrap_or_else(|_| panic!("a number in {line:?}"));
        match words[0] {
            "options" => *self = Self::new(options(&words[1..])),
            "put" | "del" => self.change(&[op(&words)]),
            "txn" => {
                let line = line.strip_prefix("txn ").expect("changes");
                let ops: Vec<Op> =
                    line.split(',').map(|part| op(&part.split_whitespace().collect::<Vec<_>>())).collect();
                self.change(&ops);
            }
            "compact" => {
                self.past.compact(number(1));
                self.past.commit();
            }
            "snag" => self.past.compact_before_reading(number(1)),
            "break" => self.past.break_at(number(1)),
            "lag" => self.lagging = Some(vec![]),
            "deliver" => {
                for batch in self.lagging.take().expect("lag first") {
                    self.core.step(Input::Batch(batch));
                }
            }
            "lose" => self.lagging.as_mut().expect("lag first").clear(),
            "invalidate" => self.core.step(Input::Invalidate),
            "manual" => self.manual = true,
            "step" => self.core.catch_up(),
            "stats" => self.stats(shown),
            "repeat" => {
                for n in 0..number(1) {
                    let words: Vec<String> = words[2..].iter().map(|word| word.replace('N', &n.to_string())).collect();
                    self.command(&words.join(" "), shown);
                }
            }
            _ => self.client_command(&words),
        }
        self.settle(shown);
    }

    fn client_command(&mut self, words: &[&str]) {
        let name = words[1];
        if !self.streams.contains_key(name) {
            self.open(name, StreamOptions::default());
        }
        let id = self.streams[name].id;
        let input = match words[0] {
            "watch" => Input::Create(id, create(&words[2..])),
            "cancel" => Input::Cancel(id, words[2].parse().expect("an id")),
            "refuse" => Input::Refuse(id, "no entry"),
            "progress" => Input::ProgressRequest(id),
            "tick" => Input::ProgressTick(id),
            "close" => {
                self.streams.remove(name);
                Input::Close(id)
            }
            "hold" | "release" => {
                self.streams.get_mut(name).expect("opened").held = words[0] == "hold";
                return;
            }
            "max" => {
                // Only before anything else happens on the stream.
                self.core.step(Input::Close(id));
                let max_response_bytes = words[2].parse().expect("bytes");
                return self.open(name, StreamOptions { max_response_bytes });
            }
            other => panic!("unknown command {other}"),
        };
        self.core.step(input);
    }

    fn open(&mut self, name: &str, options: StreamOptions) {
        let id = StreamId(self.opened);
        self.opened += 1;
        let wakes = Arc::new(AtomicU64::new(0));
        let counted = wakes.clone();
        let waker = Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let outbox = Arc::new(Outbox::new(self.options.bounds, waker, self.counters.clone()));
        self.core.step(Input::Open(id, outbox.clone(), options));
        self.streams.insert(name.to_owned(), Client { id, outbox, wakes, held: false });
    }

    fn change(&mut self, ops: &[Op]) {
        let Some(batch) = self.past.txn(ops) else { return };
        match &mut self.lagging {
            Some(lagging) => lagging.push(batch),
            None => self.core.step(Input::Batch(batch)),
        }
    }

    /// Lets everybody do what there is to do, and shows what clients see.
    fn settle(&mut self, shown: &mut String) {
        loop {
            self.core.flush();
            self.core.check();
            let mut drained = Vec::new();
            for (name, client) in self.streams.iter().filter(|(_, client)| !client.held) {
                let mut frames = Vec::new();
                if client.outbox.take(&mut frames) {
                    drained.push(client.id);
                }
                let wakes = client.wakes.swap(0, Ordering::Relaxed);
                assert!(wakes == u64::from(!frames.is_empty()), "{wakes} wakes for {} frames", frames.len());
                for frame in &frames {
                    writeln!(shown, "{name}: {}", show(frame)).expect("a string");
                }
            }
            let idle = drained.is_empty();
            for id in drained {
                self.core.step(Input::Drained(id));
            }
            if self.manual || (idle && !self.core.is_behind()) {
                return;
            }
            self.core.catch_up();
        }
    }

    fn stats(&self, shown: &mut String) {
        let stats = self.counters.read();
        writeln!(
            shown,
            "streams={} watchers={} slow={} pending={} sent={} failures={}",
            stats.streams,
            stats.watchers,
            stats.slow_watchers,
            stats.pending_events,
            stats.events_sent,
            stats.history_failures
        )
        .expect("a string");
    }
}

fn options(words: &[&str]) -> HubOptions {
    let mut options = HubOptions::default();
    for word in words {
        let (name, value) = word.split_once('=').expect("name=value");
        let value = value.parse().expect("a number");
        match name {
            "frames" => options.bounds = Bounds { frames: value, ..options.bounds },
            "bytes" => options.bounds = Bounds { bytes: value, ..options.bounds },
            "records" => options.catch_up_records = value,
            "watchers" => options.catch_up_watchers = value,
            other => panic!("unknown option {other}"),
        }
    }
    options
}

/// `x*N` stands for N times x.
fn bytes(word: &str) -> Bytes {
    match word.split_once('*') {
        Some((what, times)) => Bytes::from(what.repeat(times.parse().expect("a number"))),
        None => Bytes::from(word.replace("\\0", "\0")),
    }
}

fn op(words: &[&str]) -> Op {
    match words {
        ["put", key, value] => (bytes(key), Some(bytes(value))),
        ["del", key] => (bytes(key), None),
        other => panic!("a change, not {other:?}"),
    }
}

fn create(words: &[&str]) -> CreateRequest {
    let mut request = CreateRequest { key: bytes(words[0].trim_matches('"')), ..CreateRequest::default() };
    for word in &words[1..] {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "end" => request.range_end = bytes(value),
            "prefix" => {
                let mut end = request.key.to_vec();
                *end.last_mut().expect("a prefix") += 1;
                request.range_end = end.into();
            }
            "all" => request.range_end = Bytes::from_static(b"\0"),
            "rev" => request.start_revision = value.parse().expect("a revision"),
            "id" => request.watch_id = value.parse().expect("an id"),
            "prev" => request.prev_kv = true,
            "fragment" => request.fragment = true,
            "progress" => request.progress_notify = true,
            "noput" => request.no_put = true,
            "nodelete" => request.no_delete = true,
            other => panic!("unknown wish {other}"),
        }
    }
    request
}

fn show(frame: &Frame) -> String {
    let mut line = format!("id={} rev={}", frame.watch_id, frame.revision);
    for (word, on) in [("created", frame.created), ("canceled", frame.canceled), ("fragment", frame.fragment)] {
        if on {
            write!(line, " {word}").expect("a string");
        }
    }
    if frame.compact_revision != 0 {
        write!(line, " compact={}", frame.compact_revision).expect("a string");
    }
    if !frame.cancel_reason.is_empty() {
        write!(line, " reason={:?}", frame.cancel_reason).expect("a string");
    }
    let events = WatchResponse::decode(frame.events.clone()).expect("events").events;
    assert_eq!(events.len(), frame.event_count as usize);
    if events.is_empty() && !frame.created && !frame.canceled {
        line.push_str(" progress");
    }
    for event in &events {
        write!(line, " [{}]", show_event(event)).expect("a string");
    }
    line
}

fn show_event(event: &Event) -> String {
    let kv = event.kv.as_ref().expect("a key");
    let mut line = match event.r#type() {
        EventType::Put => format!("PUT {}", show_kv(kv)),
        EventType::Delete => {
            let bare = KeyValue { key: kv.key.clone(), mod_revision: kv.mod_revision, ..KeyValue::default() };
            assert_eq!(*kv, bare, "a deletion shows key and revision alone");
            format!("DELETE {} m{}", text(&kv.key), kv.mod_revision)
        }
    };
    if let Some(previous) = &event.prev_kv {
        write!(line, " was {}", show_kv(previous)).expect("a string");
    }
    line
}

fn show_kv(kv: &KeyValue) -> String {
    format!("{}={} c{} m{} v{}", text(&kv.key), text(&kv.value), kv.create_revision, kv.mod_revision, kv.version)
}

fn text(bytes: &[u8]) -> String {
    match bytes {
        [first, ..] if bytes.len() > 8 => format!("{}*{}", char::from(*first), bytes.len()),
        _ => String::from_utf8_lossy(bytes).replace('\0', "\\0"),
    }
}
