//! How rows are measured: servers side by side, one working at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::book::{Book, Entry, Pair};
use super::machine;
use super::rows::{ANON, FAILED_PUTS, FIGURES, GROWTH, How, RESTART, ROWS, Row, STRIPPED, Scene, WORST_PUT};
use crate::member::{Cluster, Member, Place, Wire, leave_alone};
use crate::stats::short;
use crate::{bins, json};

/// Values of one run, by field.
pub type Values = BTreeMap<String, f64>;

/// What is compared with what, and by what.
pub struct Candidates {
    /// Etcd.
    pub reference: PathBuf,
    /// This tree.
    pub ours: PathBuf,
    /// Makes the load.
    pub bench: PathBuf,
    /// Load by the usual Go client, built when it is first needed.
    pub go_client: Option<PathBuf>,
}

/// The two sides, the one whose turn is first at the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The reference.
    Etcd,
    /// This tree.
    Ours,
}

/// One of the two, as it is spoken to.
pub struct Target {
    /// `--endpoints`.
    pub endpoints: String,
    /// `--server-pid`.
    pub pids: String,
    wire: Wire,
}

impl Target {
    /// One member alone.
    pub fn of(member: &Member, wire: Wire) -> Target {
        Target { endpoints: member.client(), pids: member.pid().to_string(), wire }
    }
}

/// Revisions that a compaction of the big store leaves. A load writes a hundred keys per revision, so that each round
/// over all keys is ten thousand of them. Two seconds of puts lie above when the first compaction comes: it takes what
/// nine tenths of the second round superseded. The twenty seconds of puts are ten thousand revisions more: the second
/// one takes what nine tenths of the third round superseded, and the rest of the second.
const KEPT: u64 = 12_000;

/// Bytes that two million values of 4 KiB may take: a store has more than the values.
const QUOTA: &str = "34359738368";

/// Measures rows into a book.
pub struct Stage<'a> {
    /// What is compared.
    pub candidates: &'a Candidates,
    /// Which rows.
    pub wanted: &'a dyn Fn(&Row) -> bool,
    /// Turns of each side where a run is short.
    pub rounds: u64,
    /// Members in [`Scene::Members`].
    pub members: u64,
    /// Where results go.
    pub book: &'a mut Book,
    /// What failed, to be told at the end.
    pub failures: Vec<String>,
}

impl Stage<'_> {
    /// Measures everything of `scene` that is wanted. A failure is noted, and the next scene goes on.
    pub fn play(&mut self, scene: Scene) {
        let rows: Vec<&'static Row> = ROWS.iter().filter(|row| row.scene == scene && (self.wanted)(row)).collect();
        if rows.is_empty() {
            return;
        }
        let note = machine::note();
        let mut sums: BTreeMap<&str, Entry> = BTreeMap::new();
        let played = match scene {
            Scene::Everyday => self.rounds(&rows, Wire::Plain, self.rounds, &mut sums),
            Scene::Tls => self.rounds(&rows, Wire::Tls, self.rounds, &mut sums),
            Scene::Watchers => self.rounds(&rows, Wire::Plain, 2, &mut sums),
            Scene::Leases => self.rounds(&rows, Wire::Plain, 1, &mut sums),
            Scene::Idle => self.idle(&rows, &mut sums),
            Scene::Big => self.big(&rows, &mut sums),
            Scene::Bytes => self.bytes(&rows, &mut sums),
            Scene::Commits => self.commits(&rows, &mut sums),
            Scene::Members => self.clusters(&rows, &mut sums),
        };
        let failures = played.unwrap_or_else(|error| vec![error]);
        for failure in &failures {
            eprintln!("{scene:?}: {failure}");
        }
        self.failures.extend(failures);
        for (name, mut entry) in sums {
            entry.note.clone_from(&note);
            // A row that only one side could do is no comparison; unless it is about us alone.
            let alone = scene == Scene::Commits;
            if entry.figures.values().any(|pair| (alone || !pair.etcd.is_empty()) && !pair.ours.is_empty()) {
                self.book.renew("row", name, entry);
            }
        }
    }

    /// Fresh servers every round; who goes first has the colder caches, and is the other one next time.
    fn rounds(
        &self,
        rows: &[&'static Row],
        wire: Wire,
        rounds: u64,
        sums: &mut BTreeMap<&'static str, Entry>,
    ) -> Result<Vec<String>, String> {
        let mut failures = Vec::new();
        for round in 0..rounds {
            eprint!("round {}/{rounds}:", round + 1);
            let mut stages = Vec::new();
            for side in turn(round) {
                let place = Place::new(&format!("compare-{side:?}"))?;
                let member = Member::start_on(self.program(side), &place, wire)?;
                stages.push((side, member, place));
            }
            for row in rows {
                eprint!(" {}", row.name);
                for (side, member, _) in &stages {
                    eprint!(" {side:?}");
                    take(sums, &mut failures, row.name, *side, self.measure(row, &Target::of(member, wire)));
                }
                eprint!(";");
            }
            eprintln!();
        }
        Ok(failures)
    }

    fn clusters(&self, rows: &[&'static Row], sums: &mut BTreeMap<&'static str, Entry>) -> Result<Vec<String>, String> {
        let mut failures = Vec::new();
        let rounds = self.rounds.min(3);
        for round in 0..rounds {
            eprint!("{} members, round {}/{rounds}:", self.members, round + 1);
            // One cluster at a time: three idle members still tick, and two clusters would share two disks' worth of
            // syncs.
            for side in turn(round) {
                let place = Place::new(&format!("compare-{side:?}"))?;
                let cluster = Cluster::start(self.program(side), &place, self.members).map_err(|e| told(side, e))?;
                let target = Target { endpoints: cluster.clients(), pids: cluster.pids(), wire: Wire::Plain };
                for row in rows {
                    eprint!(" {side:?}");
                    take(sums, &mut failures, row.name, side, self.measure(row, &target));
                }
            }
            eprintln!();
        }
        Ok(failures)
    }

    /// One run of two million puts each: long enough that whatever is written behind is in it.
    fn bytes(&self, rows: &[&'static Row], sums: &mut BTreeMap<&'static str, Entry>) -> Result<Vec<String>, String> {
        let mut failures = Vec::new();
        for (round, row) in rows.iter().enumerate() {
            eprint!("{}:", row.name);
            for side in turn(round as u64) {
                let place = Place::new(&format!("compare-{side:?}"))?;
                let member = Member::start(self.program(side), &place)?;
                eprint!(" {side:?}");
                take(sums, &mut failures, row.name, side, self.measure(row, &Target::of(&member, Wire::Plain)));
            }
            eprintln!();
        }
        Ok(failures)
    }

    /// Ours alone, loaded and then put to. Larger than the usual quota; log and store are on one disk, as everywhere here.
    fn commits(&self, rows: &[&'static Row], sums: &mut BTreeMap<&'static str, Entry>) -> Result<Vec<String>, String> {
        let mut failures = Vec::new();
        for row in rows {
            let place = Place::new("compare-commits")?;
            let member = Member::start_with(self.program(Side::Ours), &place, &["--quota-backend-bytes", QUOTA])?;
            let target = Target::of(&member, Wire::Plain);
            eprint!("{}: loading", row.name);
            self.bench(&format!("load {} --timeout 120s", row.words), &target).map_err(|e| told(Side::Ours, e))?;
            let puts = format!("put {} --warmup 2s --duration 20s --commits", row.words);
            take(sums, &mut failures, row.name, Side::Ours, self.bench(&puts, &target));
            eprintln!();
        }
        Ok(failures)
    }

    fn idle(&self, rows: &[&'static Row], sums: &mut BTreeMap<&'static str, Entry>) -> Result<Vec<String>, String> {
        let [idle, size] =
            ["idle for 10 s", "stripped executable"].map(|name| rows.iter().find(|row| row.name == name));
        if let Some(row) = idle {
            for _ in 0..self.rounds.min(3) {
                let mut members = Vec::new();
                for side in [Side::Etcd, Side::Ours] {
                    let place = Place::new(&format!("compare-{side:?}"))?;
                    members.push((side, Member::start(self.program(side), &place)?, place));
                }
                leave_alone(Duration::from_secs(10));
                for (side, member, _) in &members {
                    let (anon, file) = machine::memory(member.pid())?;
                    let fields = [(ANON, anon), ("server_rss_file_bytes", file)];
                    note(sums, row.name, *side, &fields.map(|(name, value)| (name.to_owned(), value)).into());
                }
            }
        }
        if let Some(row) = size {
            for side in [Side::Etcd, Side::Ours] {
                let bytes = stripped(self.program(side))?;
                note(sums, row.name, side, &Values::from([(STRIPPED.to_owned(), bytes)]));
            }
        }
        Ok(Vec::new())
    }

    /// A million keys with three revisions, loaded once per side; the next round reads the same store again.
    fn big(&self, rows: &[&'static Row], sums: &mut BTreeMap<&'static str, Entry>) -> Result<Vec<String>, String> {
        let mut failures = Vec::new();
        for side in [Side::Etcd, Side::Ours] {
            let place = Place::new(&format!("compare-{side:?}"))?;
            let program = self.program(side);
            let mut member = Member::start(program, &place)?;
            eprint!("{side:?} loads 3 M revisions");
            let load = "load --key-size 12 --key-space-size 1000000 --revisions 3";
            let target = Target::of(&member, Wire::Plain);
            self.bench(load, &target).map_err(|e| told(side, e))?;
            for row in rows {
                eprint!("; {}", row.name);
                for _ in 0..2 {
                    let values = match (row.how, row.name) {
                        (How::Chore, _) => self.measure(row, &Target::of(&member, Wire::Plain)),
                        (How::Bench, _) => {
                            self.bench(&format!("{} --duration 4s", row.words), &Target::of(&member, Wire::Plain))
                        }
                        (_, name) if name.starts_with("1 M keys") => {
                            let (anon, file) = machine::memory(member.pid())?;
                            let fields = [(ANON, anon), ("server_rss_file_bytes", file)];
                            Ok(fields.map(|(name, value)| (name.to_owned(), value)).into())
                        }
                        (_, name) => {
                            // Dropped first: the port is free and the process was killed.
                            drop(member);
                            member = Member::start(program, &place)?;
                            if name.starts_with("kill") {
                                let micros = member.start.as_secs_f64() * 1e6;
                                Ok(Values::from([(RESTART.to_owned(), micros)]))
                            } else {
                                let once = format!("{} --clients 1 --total 1", row.words);
                                self.bench(&once, &Target::of(&member, Wire::Plain))
                            }
                        }
                    };
                    take(sums, &mut failures, row.name, side, values);
                }
            }
            eprintln!();
        }
        Ok(failures)
    }

    /// The executable of `side`.
    pub fn program(&self, side: Side) -> &Path {
        match side {
            Side::Etcd => &self.candidates.reference,
            Side::Ours => &self.candidates.ours,
        }
    }

    fn measure(&self, row: &Row, target: &Target) -> Result<Values, String> {
        let values = match row.how {
            How::Bench | How::Scene => self.bench(row.words, target)?,
            How::GoClient => self.go_client(row.words, target)?,
            How::UnderWrites => {
                let writes = self.start("put --key-size 9 --duration 8s --threads 1", target)?;
                leave_alone(Duration::from_secs(1));
                let values = self.bench(row.words, target);
                finish(writes)?;
                values?
            }
            How::Chore => {
                // Long before and after the chore: both are far from done within this.
                let puts =
                    self.start("put --key-size 12 --key-space-size 1000000 --rate 500 --duration 20s", target)?;
                leave_alone(Duration::from_secs(2));
                let chore = self.bench(&chore(row.words), target);
                // Puts that were refused for having waited too long are what is looked for here, not a broken run.
                let (report, _) = ended(puts)?;
                let puts = json::numbers(&report);
                let mut values = chore?;
                let worst = puts.get("max_us").copied().ok_or_else(|| format!("no slowest put: {report}"))?;
                values.insert(WORST_PUT.to_owned(), worst);
                values.insert(FAILED_PUTS.to_owned(), puts.get("errors").copied().unwrap_or(0.0));
                values
            }
        };
        eprint!(" {}", short(values.get("ops_per_second").copied().unwrap_or(0.0)));
        Ok(values)
    }

    /// Runs `milepost bench` and returns all its numbers, with what follows from them.
    pub fn bench(&self, words: &str, target: &Target) -> Result<Values, String> {
        let report = finish(self.start(words, target)?)?;
        let mut values = json::numbers(&report);
        if let (Some(most), Some(before)) =
            (values.get("server_rss_anon_max_bytes"), values.get("server_rss_anon_before_bytes"))
        {
            let growth = (most - before).max(0.0);
            values.insert(GROWTH.to_owned(), growth);
        }
        Ok(values)
    }

    fn start(&self, words: &str, target: &Target) -> Result<(Child, String), String> {
        let mut command = Command::new(&self.candidates.bench);
        command.arg("bench").args(words.split(' ')).args(["--endpoints", &target.endpoints]);
        command.args(["--server-pid", &target.pids, "--json"]).stdin(Stdio::null()).stdout(Stdio::piped());
        if target.wire == Wire::Tls {
            command.arg("--insecure-skip-tls-verify");
        }
        let child = command.spawn().map_err(|error| format!("{}: {error}", self.candidates.bench.display()))?;
        Ok((child, bins::words(&command)))
    }

    fn go_client(&self, words: &str, target: &Target) -> Result<Values, String> {
        let program = self.candidates.go_client.as_ref().ok_or("the Go client was not built")?;
        let mut command = Command::new(program);
        command.args(words.split(' ')).args(["-endpoint", &target.endpoints, "-server-pid", &target.pids]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        finish((child, bins::words(&command))).map(|report| json::numbers(&report))
    }
}

fn chore(words: &str) -> String {
    let keep = if words == "compact" { format!(" --keep {KEPT}") } else { String::new() };
    format!("{words}{keep} --timeout 120s")
}

/// Waits for a load and returns its report.
fn finish(load: (Child, String)) -> Result<String, String> {
    let words = load.1.clone();
    match ended(load)? {
        (report, None) => Ok(report),
        (report, Some(status)) => Err(format!("`{words}`: {status}\n{report}")),
    }
}

/// Waits for a load and returns its report, and how it ended if not well.
fn ended((child, words): (Child, String)) -> Result<(String, Option<ExitStatus>), String> {
    let output = child.wait_with_output().map_err(|error| format!("`{words}`: {error}"))?;
    let report = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok((report, Some(output.status).filter(|status| !status.success())))
}

/// Whose turn is first in this round.
pub fn turn(round: u64) -> [Side; 2] {
    if round.is_multiple_of(2) { [Side::Etcd, Side::Ours] } else { [Side::Ours, Side::Etcd] }
}

fn told(side: Side, error: String) -> String {
    format!("{side:?}: {error}")
}

/// Notes the figures of one run, or that it failed: one row less is no reason to lose the others.
fn take(
    sums: &mut BTreeMap<&'static str, Entry>,
    failures: &mut Vec<String>,
    name: &'static str,
    side: Side,
    values: Result<Values, String>,
) {
    match values {
        Ok(values) => note(sums, name, side, &values),
        Err(error) => failures.push(told(side, format!("{name}: {error}"))),
    }
}

/// Notes the figures of one run; fields that no figure has are left out.
fn note(sums: &mut BTreeMap<&'static str, Entry>, name: &'static str, side: Side, values: &Values) {
    add(sums.entry(name).or_default(), side, values);
}

/// The same for one entry.
pub fn add(entry: &mut Entry, side: Side, values: &Values) {
    for figure in FIGURES {
        let Some(value) = values.get(figure.field) else { continue };
        let pair: &mut Pair = entry.figures.entry(figure.field.to_owned()).or_default();
        match side {
            Side::Etcd => pair.etcd.push(*value),
            Side::Ours => pair.ours.push(*value),
        }
    }
}

/// Size of `program` without symbols and debugging, in bytes.
fn stripped(program: &Path) -> Result<f64, String> {
    let place = Place::new("stripped")?;
    let out = place.path().join("program");
    bins::run(Command::new("strip").args(["--strip-all", "-o"]).arg(&out).arg(program))?;
    let size = std::fs::metadata(&out).map_err(|error| format!("{}: {error}", out.display()))?.len();
    Ok(size as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_alternate() {
        assert_eq!(turn(0), [Side::Etcd, Side::Ours]);
        assert_eq!(turn(1), [Side::Ours, Side::Etcd]);
    }

    #[test]
    fn only_known_figures_are_noted() {
        let mut entry = Entry::default();
        let values = Values::from([("p50_us".to_owned(), 5.0), ("nonsense".to_owned(), 1.0)]);
        add(&mut entry, Side::Ours, &values);
        add(&mut entry, Side::Etcd, &values);
        assert_eq!(entry.figures.keys().collect::<Vec<_>>(), ["p50_us"]);
        assert_eq!(entry.figures["p50_us"], Pair { etcd: vec![5.0], ours: vec![5.0] });
    }

    #[test]
    fn a_failed_load_is_told_with_its_words_and_report() {
        let child = Command::new("sh").args(["-c", "echo report; exit 1"]).stdout(Stdio::piped()).spawn().unwrap();
        let error = finish((child, "the words".into())).unwrap_err();
        assert!(error.contains("the words") && error.contains("report"), "{error}");
    }
}
