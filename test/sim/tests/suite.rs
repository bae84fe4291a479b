//! Two hundred seeds, the same seed twice, and the planted bugs.

use milepost_sim::{Plant, replay, run, seeds_until_found, suite};

/// Every run must be at least so long.
const EVENTS_MIN: u64 = 2_000;
/// A planted bug must be found within so many seeds.
const PLANT_SEEDS_MAX: u64 = 200;

#[test]
fn two_hundred_seeds() {
    let report = suite(0, 200, 2, &|seed, why| eprintln!("seed {seed}: {why}\nreplay it: {}", replay(seed, None)));
    println!("{}", report.counts);
    assert!(report.broken.is_empty(), "{} seeds broke a rule", report.broken.len());
    assert_eq!(report.counts.missing(), Vec::<&str>::new(), "these never happened");
    assert!(report.fewest_events >= EVENTS_MIN, "a run had {} events", report.fewest_events);
}

#[test]
fn one_seed_one_trace() {
    for seed in [1, 2, 3, 7] {
        let (first, again) = (run(seed, None, true), run(seed, None, true));
        assert!(first.trace.len() > 2_000, "seed {seed} left {} lines", first.trace.len());
        let differs = first.trace.iter().zip(&again.trace).position(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed} gave two traces");
        assert_eq!((first.trace.len(), &first.counts), (again.trace.len(), &again.counts), "seed {seed}");
    }
    assert_ne!(run(1, None, true).trace, run(2, None, true).trace, "two seeds gave one trace");
}

#[test]
fn planted_bugs_are_found() {
    for plant in Plant::ALL {
        let found = seeds_until_found(plant, PLANT_SEEDS_MAX);
        let (seeds, why) = found.unwrap_or_else(|| panic!("{} was not found by {PLANT_SEEDS_MAX} seeds", plant.name()));
        println!("{}: found after {seeds} seeds: {}", plant.name(), why.lines().next().unwrap_or_default());
    }
}
