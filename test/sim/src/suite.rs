//! Many seeds.

use crate::counts::Counts;
use crate::plan::Plant;
use crate::sim::Sim;
use parking_lot::Mutex;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one seed came to.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What happened.
    pub counts: Counts,
    /// The rule that was broken, if one was.
    pub broken: Option<String>,
    /// Every event, if wanted.
    pub trace: Vec<String>,
}

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Report {
    /// All of them added up.
    pub counts: Counts,
    /// (seed, broken rule), by seed.
    pub broken: Vec<(u64, String)>,
    /// Fewest events of a run.
    pub fewest_events: u64,
}

thread_local! {
    /// The seed that this thread runs, and whether its end is expected.
    static CURRENT: Cell<Option<(u64, bool)>> = const { Cell::new(None) };
}

/// The command that replays a seed.
#[must_use]
pub fn replay(seed: u64, plant: Option<Plant>) -> String {
    let plant = plant.map(|plant| format!(" --plant {}", plant.name())).unwrap_or_default();
    format!("cargo run --release -p milepost-sim -- --seed {seed}{plant} --trace")
}

/// A panic names the seed that it came from, also where it ends the process.
fn name_seeds_in_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match CURRENT.get() {
            Some((_, true)) => {}
            Some((seed, false)) => {
                before(info);
                eprintln!("seed {seed} panicked; replay it: {}", replay(seed, None));
            }
            None => before(info),
        }));
    });
}

/// Runs one seed. Broken rules of the node's own (its asserts) count as broken.
#[must_use]
pub fn run(seed: u64, plant: Option<Plant>, traced: bool) -> Outcome {
    name_seeds_in_panics();
    CURRENT.set(Some((seed, plant.is_some())));
    let mut sim = Sim::new(seed, plant, traced);
    let broken = catch_unwind(AssertUnwindSafe(|| sim.run().err())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Some(format!("panic: {}", text.unwrap_or_default()))
    });
    CURRENT.set(None);
    let trace = std::mem::take(&mut sim.trace);
    let counts = std::mem::take(&mut sim.counts);
    // What a panic left half done may panic again.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(sim)));
    Outcome { seed, counts, broken, trace }
}

/// Runs `seeds` seeds from `from` on, on so many threads. `tell` hears of each broken one at once.
#[must_use]
pub fn suite(from: u64, seeds: u64, threads: usize, tell: &(dyn Fn(u64, &str) + Sync)) -> Report {
    let next = AtomicU64::new(from);
    let report = Mutex::new(Report { fewest_events: u64::MAX, ..Report::default() });
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let outcome = run(seed, None, false);
                    let mut report = report.lock();
                    report.counts.merge(&outcome.counts);
                    if let Some(why) = outcome.broken {
                        tell(seed, &why);
                        report.broken.push((seed, why));
                    } else {
                        report.fewest_events = report.fewest_events.min(outcome.counts.get("events"));
                    }
                }
            });
        }
    });
    let mut report = report.into_inner();
    report.broken.sort();
    report
}

/// How many seeds, from 0 on, it takes to find a planted bug, and what is said about it; `None`: not found.
#[must_use]
pub fn seeds_until_found(plant: Plant, seeds_max: u64) -> Option<(u64, String)> {
    (0..seeds_max).find_map(|seed| run(seed, Some(plant), false).broken.map(|why| (seed + 1, why)))
}
