//! What the log costs: microseconds per entry at several batch sizes, and how long a cut, opening and reading back take.
//!
//! `wal_bench DIR`: DIR must not exist; it is left behind with about five full segments.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use milepost_env::{Clock, Disk, OsClock, OsDisk};
use milepost_proto::raftpb::{Entry, HardState};
use milepost_types::LogIndex;
use milepost_wal::{Metadata, Options, Wal};

const PAYLOAD_BYTES: usize = 300;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: wal_bench DIR")?;
    let dir = Path::new(&dir);
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let metadata = Metadata { node_id: 1, cluster_id: 2 };
    let (mut wal, took) = timed(|| Wal::create(Arc::clone(&disk), dir, metadata, Options::default()));
    println!("create {took:?}");
    for (batch, rounds) in [(1, 2000), (10, 1000), (100, 500), (1000, 200)] {
        measure(&mut wal, batch, rounds)?;
    }
    while wal.segments() < 5 {
        measure(&mut wal, 5000, 10)?;
    }
    let last = wal.last_index();
    let (read, took) = timed(|| wal.read_entries(LogIndex(last.0 / 2), LogIndex(last.0 / 2 + 1000), u64::MAX));
    println!("read {} entries from the middle {took:?}", read.len());
    drop(wal);
    for _ in 0..2 {
        let ((wal, recovered), took) = timed(|| Wal::open(Arc::clone(&disk), dir, Options::default()));
        println!("open {} segments, {} entries {took:?}", wal.segments(), recovered.entries.len());
    }
    Ok(())
}

fn measure(wal: &mut Wal, batch: u64, rounds: u64) -> Result<(), Box<dyn std::error::Error>> {
    let (mut append, mut sync, mut worst, mut next) = (Duration::ZERO, Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let payload = bytes::Bytes::from(vec![7; PAYLOAD_BYTES]);
    for _ in 0..rounds {
        let first = wal.last_index().0 + 1;
        let entries: Vec<Entry> = (first..first + batch)
            .map(|index| Entry { r#type: Some(0), term: Some(1), index: Some(index), data: Some(payload.clone()) })
            .collect();
        let state = HardState { term: Some(1), vote: Some(1), commit: Some(first - 1) };
        append += timed(|| wal.append(&entries, Some(&state))).1;
        let took = timed(|| wal.sync()).1;
        sync += took;
        worst = worst.max(took);
        if wal.wants_next() {
            next = next.max(timed(|| wal.preallocate_next()).1);
        }
    }
    let entries = (batch * rounds) as f64;
    println!(
        "batch {batch:5}: append {:.3} µs/entry, write and sync {:.2} µs/entry, {:.0} µs/sync, worst sync {worst:?}, next segment {next:?}",
        append.as_secs_f64() * 1e6 / entries,
        sync.as_secs_f64() * 1e6 / entries,
        sync.as_secs_f64() * 1e6 / rounds as f64,
    );
    Ok(())
}

fn timed<T, E: std::fmt::Display>(work: impl FnOnce() -> Result<T, E>) -> (T, Duration) {
    let start = OsClock.monotonic();
    match work() {
        Ok(value) => (value, OsClock.monotonic() - start),
        Err(error) => panic!("{error}"),
    }
}
