//! `cargo xtask check`: everything that a change must pass, step by step, with the time of each.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::flags::{Flag, Flags};
use crate::{bins, release, tidy};

const FLAGS: &[Flag] = &[
    ("--only", "STEP,...", "only these steps"),
    ("--skip", "STEP,...", "all but these steps"),
    ("--list", "", "name the steps and what they do"),
];

/// One step.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<(), String>,
}

/// In this order: what is quick and fails often comes first, what needs the finished executable last.
const STEPS: &[Step] = &[
    Step { name: "tools", about: "install what the black-box suites need (apt, as root)", run: tools },
    Step { name: "fmt", about: "formatting is as rustfmt wants it", run: fmt },
    Step { name: "tidy", about: "the rules of the house hold", run: || tidy::run(&[]) },
    Step { name: "clippy", about: "no warning from compiler or clippy", run: clippy },
    Step { name: "test", about: "all tests of all crates", run: test },
    Step { name: "build", about: "the optimised executable that the suites drive", run: build },
    Step {
        name: "compat",
        about: "black box: etcd's client, the differential suite, etcdctl, curl, Node",
        run: compat,
    },
    Step { name: "release", about: "the tarball: static, unpacked, started, used", run: packed },
    Step { name: "power", about: "black box: power cuts between syncs", run: power },
];

/// The verb.
///
/// # Errors
/// The steps that failed, with the command to repeat just them.
pub fn run(words: &[String]) -> Result<(), String> {
    let Some(flags) = Flags::read("check", FLAGS, words)? else { return Ok(()) };
    if flags.has("--list") {
        for step in STEPS {
            println!("{:<8} {}", step.name, step.about);
        }
        return Ok(());
    }
    let steps = chosen(flags.text("--only"), flags.text("--skip"))?;
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    for step in steps {
        println!("── {}: {}", step.name, step.about);
        let began = Instant::now();
        // One run tells of everything that is wrong.
        if let Err(error) = (step.run)() {
            println!("── {} failed: {error}", step.name);
            failed.push((step.name, error));
        }
        times.push((step.name, began.elapsed()));
    }
    print_times(&times);
    if failed.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = failed.iter().map(|(name, _)| *name).collect();
    let lines: Vec<String> = failed.iter().map(|(name, error)| format!("step {name} failed: {error}")).collect();
    Err(format!("{}\nagain: cargo xtask check --only {}", lines.join("\n"), names.join(",")))
}

fn chosen(only: Option<&str>, skip: Option<&str>) -> Result<Vec<&'static Step>, String> {
    let list = |text: Option<&str>| -> Result<Option<Vec<String>>, String> {
        let Some(text) = text else { return Ok(None) };
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match names.iter().find(|name| STEPS.iter().all(|step| step.name != name.as_str())) {
            Some(unknown) => Err(format!("there is no step {unknown:?}: see cargo xtask check --list")),
            None => Ok(Some(names)),
        }
    };
    let (only, skip) = (list(only)?, list(skip)?.unwrap_or_default());
    let holds = |names: &[String], step: &Step| names.iter().any(|name| name == step.name);
    let wanted = |step: &&Step| only.as_ref().is_none_or(|only| holds(only, step)) && !holds(&skip, step);
    Ok(STEPS.iter().filter(wanted).collect())
}

fn print_times(times: &[(&str, Duration)]) {
    println!("── time of each step");
    for (name, time) in times {
        println!("{name:<8} {:>7.1} s", time.as_secs_f64());
    }
    let sum: Duration = times.iter().map(|(_, time)| *time).sum();
    println!("{:<8} {:>7.1} s", "all", sum.as_secs_f64());
}

/// Programs that the suites call, and the Debian package that has each.
const TOOLS: &[(&str, &str)] = &[
    ("etcdctl", "etcd-client"),
    ("curl", "curl"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("strace", "strace"),
    ("musl-gcc", "musl-tools"),
];

/// Programs that nobody installs on the side.
const NEEDED: &[(&str, &str)] = &[("go", "the Go toolchain, 1.26 or newer")];

fn tools() -> Result<(), String> {
    if let Some((program, what)) = NEEDED.iter().find(|(program, _)| !on_path(program)) {
        return Err(format!("{program} is not on the PATH: install {what}"));
    }
    let missing: Vec<&str> =
        TOOLS.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !is_root() || !on_path("apt-get") {
        return Err(format!("missing programs: install {packages} (as root on Debian this step does it)"));
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    bins::run(apt().arg("update"))?;
    bins::run(apt().args(["install", "--yes", "--no-install-recommends"]).args(missing))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The effective user of this process, as /proc tells.
fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    ids.split_whitespace().nth(1) == Some("0")
}

fn fmt() -> Result<(), String> {
    bins::run(bins::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<(), String> {
    bins::run(bins::cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
}

fn test() -> Result<(), String> {
    bins::run(bins::cargo().args(["test", "--locked", "--workspace", "--no-fail-fast"]))
}

fn build() -> Result<(), String> {
    bins::ours("ci").map(drop)
}

fn packed() -> Result<(), String> {
    // Without the link-time optimisation of what is shipped: that takes minutes and changes no behaviour.
    release::run(&["--profile".into(), "ci".into()])
}

fn compat() -> Result<(), String> {
    suite("test/compat", &["bash", "run.sh"])
}

fn power() -> Result<(), String> {
    // -v: how often each kind of damage happened is part of the result.
    suite("test/power", &["go", "test", "-v", "-count", "1", "./..."])
}

/// Runs a black-box suite in its folder against the executable of step `build`.
fn suite(folder: &str, words: &[&str]) -> Result<(), String> {
    let binary = bins::target().join("ci/milepost");
    if !binary.is_file() {
        return Err(format!("{} is missing: cargo xtask check --only build", binary.display()));
    }
    let mut command = Command::new(words[0]);
    bins::run(command.args(&words[1..]).env("MILEPOST_BIN", binary).current_dir(bins::root().join(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: Option<&str>, skip: Option<&str>) -> Vec<&'static str> {
        chosen(only, skip).unwrap().iter().map(|step| step.name).collect()
    }

    #[test]
    fn steps_are_chosen_by_name_and_keep_their_order() {
        assert_eq!(names(None, None).len(), STEPS.len());
        assert_eq!(names(Some("tidy,fmt"), None), ["fmt", "tidy"]);
        assert_eq!(names(Some("tidy,fmt"), Some("fmt")), ["tidy"]);
        assert!(!names(None, Some("compat")).contains(&"compat"));
        let error = chosen(Some("tests"), None).err().unwrap();
        assert!(error.contains("no step \"tests\""), "{error}");
    }

    #[test]
    fn programs_are_looked_up_on_the_path() {
        assert!(on_path("sh"));
        assert!(!on_path("no-such-program"));
    }
}
