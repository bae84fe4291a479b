//! `cargo xtask bench-compare`: etcd and ours on the same machine, turn by turn, medians and ratios.
//!
//! ```text
//!  round 1   start both    put: etcd, ours    get: etcd, ours    …    kill both      scenes: servers in one state
//!  round 2   start both    put: ours, etcd    get: ours, etcd    …                   rows: work on them
//!                                     │
//!                                     ▼
//!              docs/performance/measured.tsv ──► docs/performance.md, docs/performance/*.svg
//! ```
//! Every round has two fresh servers, each in a process of its own, with its data on the same disk and default flags.
//! They work in turn, row by row, so that what else the machine does meets both; an idle server costs about nothing.
//! The load generator is ours for both, but for the rows of the usual Go client, which show that no gain comes of it.

mod book;
mod growth;
mod machine;
mod page;
mod rows;
mod scenes;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::bins;
use crate::flags::{Flag, Flags};
use book::Book;
use rows::{How, ROWS, Row, Scene};
use scenes::{Candidates, Stage};

const FLAGS: &[Flag] = &[
    ("--quick", "", "the four rows of everyday, three rounds, under six minutes after the builds"),
    ("--growth", "", "curves instead of rows: more keys, clients, watchers"),
    ("--members", "N", "members of each cluster in the row of clusters (3)"),
    ("--rounds", "N", "turns of each server where a run is short (quick: 3, else 5)"),
    ("--only", "TEXT", "only rows (or curves) whose name contains this"),
    ("--scene", "NAME", "only rows of one scene: everyday, tls, idle, watchers, members, leases, big, bytes, commits"),
    ("--page", "", "measure nothing, write the page again from what was measured"),
    ("--dry", "", "do not write docs/performance.md and what belongs to it"),
    ("--dist", "", "measure what is shipped (fat LTO) instead of the ci profile"),
    ("--ours", "PATH", "a finished executable instead of a build"),
    ("--reference", "PATH", "a finished etcd instead of a build"),
    ("--bench", "PATH", "an executable whose `bench` verb makes the load (default: ours)"),
];

/// In the order in which they are played: what is short comes first.
const SCENES: &[Scene] = &[
    Scene::Everyday,
    Scene::Tls,
    Scene::Idle,
    Scene::Watchers,
    Scene::Members,
    Scene::Leases,
    Scene::Big,
    Scene::Bytes,
    Scene::Commits,
];

/// The verb.
///
/// # Errors
/// A build failed; a server or a run failed: the other scenes are played first.
pub fn run(words: &[String]) -> Result<(), String> {
    let Some(flags) = Flags::read("bench-compare", FLAGS, words)? else { return Ok(()) };
    if flags.has("--page") {
        println!("{}", page::write(&Book::open()?)?.display());
        return Ok(());
    }
    let quick = flags.has("--quick");
    let only = flags.text("--only").unwrap_or_default().to_owned();
    let scene = flags.text("--scene");
    let wanted = |row: &Row| {
        let here = scene.is_none_or(|scene| format!("{:?}", row.scene).to_lowercase() == scene);
        !flags.has("--growth") && (row.quick || !quick) && here && row.name.contains(&only)
    };
    if !flags.has("--growth") && !ROWS.iter().any(wanted) {
        let names = ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join("; ");
        let scene = scene.unwrap_or("any");
        return Err(format!("--only {only:?} and --scene {scene:?} leave no row: the rows are {names}"));
    }
    let go_client = ROWS.iter().any(|row| row.how == How::GoClient && wanted(row));
    let candidates = candidates(&flags, go_client)?;
    let rounds = flags.count("--rounds")?.unwrap_or(if quick { 3 } else { 5 });
    let members = flags.count("--members")?.unwrap_or(3);
    let mut book = if flags.has("--dry") { Book::default() } else { Book::open()? };
    let began = Instant::now();
    let mut stage =
        Stage { candidates: &candidates, wanted: &wanted, rounds, members, book: &mut book, failures: Vec::new() };
    if flags.has("--growth") {
        growth::play(&mut stage, &only);
    }
    for scene in SCENES {
        stage.play(*scene);
        // What took long is not lost when somebody ends the run before its end.
        if !flags.has("--dry") {
            stage.book.save()?;
        }
    }
    let failures = stage.failures;
    println!("\nMedians, etcd → ours (ratio ours / etcd), in {:.0} s\n", began.elapsed().as_secs_f64());
    let musts = page::must_table(&book);
    let measured = musts.lines().filter(|line| !line.ends_with("not measured |"));
    println!("{}\n\n{}", measured.collect::<Vec<_>>().join("\n"), page::wide_table(&book));
    if !flags.has("--dry") {
        book.save()?;
        println!("{}", page::write(&book)?.display());
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

fn candidates(flags: &Flags, go_client: bool) -> Result<Candidates, String> {
    let given = |flag: &str| flags.text(flag).map(PathBuf::from);
    let profile = if flags.has("--dist") { "dist" } else { "ci" };
    let ours = given("--ours").map_or_else(|| bins::ours(profile), Ok)?;
    let reference = given("--reference").map_or_else(bins::reference, Ok)?;
    let bench = given("--bench").unwrap_or_else(|| ours.clone());
    let go_client = if go_client { Some(build_go_client()?) } else { None };
    Ok(Candidates { reference, ours, bench, go_client })
}

fn build_go_client() -> Result<PathBuf, String> {
    let path = bins::target().join("xtask").join("goload");
    bins::run(
        Command::new("go")
            .args(["build", "-o"])
            .arg(&path)
            .arg("./goload")
            .current_dir(bins::root().join("test/compat")),
    )?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_on_a_stage() {
        for row in ROWS {
            assert!(SCENES.contains(&row.scene), "{}", row.name);
        }
    }

    #[test]
    fn a_wrong_choice_names_the_rows() {
        let error = run(&["--only".into(), "nonsense".into()]).unwrap_err();
        assert!(error.contains("put, 1 client"), "{error}");
        assert!(run(&["--scene".into(), "attic".into()]).unwrap_err().contains("\"attic\" leave no row"));
    }
}
