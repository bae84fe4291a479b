//! Chores of the repository: `cargo xtask VERB`.
//!
//! What happens here: the rules that hold the house together are checked (`tidy`), the test command is carried out step
//! by step (`check`), our server is measured side by side with etcd (`bench-compare`, `startup`). Only the standard
//! library is used, so that the first `cargo xtask` of a fresh clone answers within seconds.
//!
//! ```text
//!  cargo xtask tidy ──────────► files of the repository ──► findings
//!  cargo xtask check ─────────► fmt, tidy, clippy, test, build, black-box suites ──► time of each
//!  cargo xtask bench-compare ─► etcd │ ours, alternating ──► milepost bench --json ──► medians and ratios
//!  cargo xtask release ───────► static executable ──► tarball ──► unpacked, started, used
//!  cargo xtask startup ───────► etcd │ ours ──► milliseconds to the first answered request
//! ```
//! What never happens here: anything that the shipped executable needs.

mod bins;
mod check;
mod compare;
mod flags;
mod json;
mod member;
mod release;
mod startup;
mod stats;
mod svg;
mod tidy;
mod trial;

use std::process::ExitCode;

/// A verb: its name, what it does in one line, and the function that does it.
type Verb = (&'static str, &'static str, fn(&[String]) -> Result<(), String>);

const VERBS: &[Verb] = &[
    ("tidy", "check the rules of the house: arrows, absences, forbidden words", tidy::run),
    ("check", "everything a change must pass, with the time of each step", check::run),
    ("bench-compare", "etcd and ours side by side: medians and ratios", compare::run),
    ("release", "a static executable in a tarball, unpacked and tried", release::run),
    ("startup", "time to the first answered request, fresh and with keys", startup::run),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(verb) = words.first().and_then(|word| VERBS.iter().find(|(name, _, _)| name == word)) else {
        eprintln!("usage: cargo xtask VERB [flags]   (cargo xtask VERB --help)\n");
        for (name, about, _) in VERBS {
            eprintln!("  {name:<14} {about}");
        }
        return ExitCode::from(2);
    };
    match verb.2(&words[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {}: {error}", verb.0);
            ExitCode::FAILURE
        }
    }
}
