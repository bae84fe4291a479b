//! `cargo xtask startup`: from the start of the process to its first answered request, fresh and with many keys.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bins;
use crate::flags::{Flag, Flags};
use crate::member::{Member, Place};
use crate::stats::{median, short};

const FLAGS: &[Flag] = &[
    ("--keys", "N", "keys in the store that is restarted (100000)"),
    ("--rounds", "N", "starts of each kind (5)"),
    ("--dist", "", "measure what is shipped (fat LTO) instead of the ci profile"),
    ("--ours", "PATH", "a finished executable instead of a build"),
    ("--reference", "PATH", "a finished etcd instead of a build"),
    ("--bench", "PATH", "an executable whose `bench` verb loads the keys (default: ours)"),
];

/// The verb.
///
/// # Errors
/// A build or a start failed.
pub fn run(words: &[String]) -> Result<(), String> {
    let Some(flags) = Flags::read("startup", FLAGS, words)? else { return Ok(()) };
    let keys = flags.count("--keys")?.unwrap_or(100_000);
    let rounds = flags.count("--rounds")?.unwrap_or(5);
    let given = |flag: &str| flags.text(flag).map(PathBuf::from);
    let profile = if flags.has("--dist") { "dist" } else { "ci" };
    let ours = given("--ours").map_or_else(|| bins::ours(profile), Ok)?;
    let reference = given("--reference").map_or_else(bins::reference, Ok)?;
    let bench = given("--bench").unwrap_or_else(|| ours.clone());
    println!(
        "| milliseconds to the first answered request | fresh | restart after kill -9, {keys} keys |\n|---|---|---|"
    );
    for (name, program) in [("etcd", &reference), ("ours", &ours)] {
        let fresh = fresh(program, rounds).map_err(|error| format!("{name}: {error}"))?;
        let restart = restart(program, &bench, keys, rounds).map_err(|error| format!("{name}: {error}"))?;
        println!("| {name} | {fresh} | {restart} |");
    }
    Ok(())
}

fn fresh(program: &Path, rounds: u64) -> Result<String, String> {
    let mut starts = Vec::new();
    for _ in 0..rounds {
        let place = Place::new("startup")?;
        starts.push(Member::start(program, &place)?.start.as_secs_f64() * 1000.0);
    }
    Ok(shown(&starts))
}

fn restart(program: &Path, bench: &Path, keys: u64, rounds: u64) -> Result<String, String> {
    let place = Place::new("restart")?;
    load(bench, &Member::start(program, &place)?, keys)?;
    let mut starts = Vec::new();
    for _ in 0..rounds {
        // Dropped at once: every start follows a kill -9.
        starts.push(Member::start(program, &place)?.start.as_secs_f64() * 1000.0);
    }
    Ok(shown(&starts))
}

/// The bench fills the key space before it reads; the one read is not of interest.
fn load(bench: &Path, member: &Member, keys: u64) -> Result<(), String> {
    bins::run(
        Command::new(bench)
            .args(["bench", "range", "--total", "1", "--clients", "1", "--key-size", "12"])
            .args(["--key-space-size", &keys.to_string(), "--endpoints", &member.client()])
            .stdout(Stdio::null()),
    )
}

fn shown(starts: &[f64]) -> String {
    let least = starts.iter().copied().fold(f64::INFINITY, f64::min);
    let most = starts.iter().copied().fold(0.0, f64::max);
    format!("{} ({}–{})", short(median(starts).unwrap_or(0.0)), short(least), short(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_range_are_shown() {
        assert_eq!(shown(&[1000.0, 1050.0, 1010.0]), "1010 (1000–1050)");
    }
}
