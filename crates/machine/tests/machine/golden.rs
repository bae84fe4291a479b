//! Golden scripts: commands in, everything that came of them out.
//!
//! A script is blocks of command lines, `---`, and the outcome, ended by an empty line. `UPDATE=1 cargo test -p
//! milepost-machine --test machine golden` writes what happens now; the diff is the review.

use std::fs;
use std::path::Path;

use crate::common::{self, Rig};

#[test]
fn scripts_say_what_happens() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machine/scripts");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 8, "scripts are missing");
    for path in paths {
        let script = fs::read_to_string(&path).unwrap();
        assert!(script.starts_with("# "), "{} does not say what it pins", path.display());
        let now = run(&script);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, now).unwrap();
        } else {
            assert_eq!(script, now, "{}: UPDATE=1 rewrites it", path.display());
        }
    }
}

fn run(script: &str) -> String {
    let mut rig = Rig::new(common::config());
    let mut out = Vec::new();
    for block in script.trim_end().split("\n\n") {
        let mut lines = Vec::new();
        let mut outcome = String::new();
        for line in block.lines().take_while(|line| *line != "---") {
            lines.push(line);
            if let Some(quota) = line.strip_prefix("# quota ") {
                let config = milepost_machine::Config { quota_bytes: quota.parse().unwrap(), ..common::config() };
                rig = Rig::new(config);
            } else if !line.starts_with('#') {
                let said;
                (rig, said) = rig.run(line);
                outcome += &said;
            }
        }
        let mut block = lines.join("\n");
        if !outcome.is_empty() {
            block = format!("{block}\n---\n{}", outcome.trim_end());
        }
        out.push(block);
    }
    out.join("\n\n") + "\n"
}
