//! What watchers cost while nothing happens.

use std::sync::Arc;

use bytes::Bytes;
use milepost_mvcc::watch::{
    Bounds, Counters, CreateRequest, HubCore, HubOptions, Input, Outbox, StreamId, StreamOptions,
};

use crate::past::{Op, Past};

const WATCHERS: usize = 100_000;

/// Creates watchers on one stream and returns the bytes that each costs.
fn bytes_each(request: impl Fn(usize) -> CreateRequest) -> usize {
    let past = Past::default();
    let counters = Arc::new(Counters::default());
    let mut core = HubCore::new(Arc::new(past.clone()), HubOptions::default(), counters.clone());
    let outbox = Arc::new(Outbox::new(Bounds::default(), Arc::new(|| ()), counters.clone()));
    core.step(Input::Open(StreamId(0), outbox.clone(), StreamOptions::default()));
    for n in 0..WATCHERS {
        core.step(Input::Create(StreamId(0), request(n)));
    }
    core.flush();
    let mut frames = Vec::new();
    assert!(!outbox.take(&mut frames));
    assert_eq!(frames.len(), WATCHERS);
    assert!(frames.iter().all(|frame| frame.created && !frame.canceled));
    assert_eq!(counters.read().watchers, WATCHERS as u64);

    // All of them are alive: an event for one of them arrives.
    let op: Op = (request(WATCHERS / 2).key, Some(Bytes::from_static(b"v")));
    core.step(Input::Batch(past.txn(&[op]).expect("a change")));
    core.flush();
    assert!(!outbox.is_empty());
    core.memory_bytes() / WATCHERS
}

fn key(n: usize) -> Bytes {
    Bytes::from(format!("/registry/pods/ns/{n:06}"))
}

#[test]
fn a_hundred_thousand_watchers_of_one_client() {
    let singles = bytes_each(|n| CreateRequest { key: key(n), ..CreateRequest::default() });
    let prefixes = bytes_each(|n| CreateRequest {
        key: Bytes::from(format!("/registry/{n:06}/")),
        range_end: Bytes::from(format!("/registry/{n:06}0")),
        ..CreateRequest::default()
    });
    let ranges = bytes_each(|n| CreateRequest { key: key(n), range_end: key(n + 7), ..CreateRequest::default() });
    let same = bytes_each(|_| CreateRequest { key: key(0), ..CreateRequest::default() });
    println!("bytes per idle watcher: key {singles}, prefix {prefixes}, range {ranges}, all of one key {same}");
    for bytes in [singles, prefixes, ranges, same] {
        assert!(bytes < 400, "{bytes} bytes per idle watcher");
    }
    assert!(singles > 100, "an estimate that forgets things: {singles}");
}

/// A client that never reads costs its bounds, not its backlog.
#[test]
fn a_client_that_does_not_read_holds_its_bounds_and_no_more() {
    let past = Past::default();
    let counters = Arc::new(Counters::default());
    let mut core = HubCore::new(Arc::new(past.clone()), HubOptions::default(), counters.clone());
    let outbox = Arc::new(Outbox::new(Bounds::default(), Arc::new(|| ()), counters.clone()));
    core.step(Input::Open(StreamId(0), outbox.clone(), StreamOptions::default()));
    let request = CreateRequest { range_end: Bytes::from_static(b"\0"), ..CreateRequest::default() };
    core.step(Input::Create(StreamId(0), request));
    for n in 0..20_000_usize {
        let batch = past.txn(&[(key(n), Some(Bytes::from(vec![b'x'; 1000])))]).expect("a change");
        core.step(Input::Batch(batch));
        core.flush();
        core.catch_up();
        core.flush();
    }
    let mut frames = Vec::new();
    assert!(outbox.take(&mut frames), "something was held back");
    let bytes: usize = frames.iter().map(|frame| frame.cost()).sum();
    let bounds = Bounds::default();
    assert!(frames.len() <= bounds.frames + 1 && bytes <= bounds.bytes + 2000, "{} {bytes}", frames.len());
    assert_eq!(counters.read().slow_watchers, 1);
    assert!(!core.is_behind(), "nothing is done for a client that does not read");
    let events: u32 = frames.iter().map(|frame| frame.event_count).sum();
    assert!(events < 20_000);
    core.step(Input::Drained(StreamId(0)));
    assert!(core.is_behind());
}
