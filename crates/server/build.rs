//! Tells the binary which commit and which compiler made it.

use std::process::Command;

fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.lines().next()?.trim().to_owned())
}

fn main() {
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-env-changed=MILEPOST_COMMIT");
    let commit =
        std::env::var("MILEPOST_COMMIT").ok().or_else(|| first_line("git", &["rev-parse", "--short=9", "HEAD"]));
    println!("cargo::rustc-env=MILEPOST_COMMIT={}", commit.unwrap_or_else(|| "unknown".into()));
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = first_line(&rustc, &["--version"]).and_then(|line| Some(line.split(' ').nth(1)?.to_owned()));
    println!("cargo::rustc-env=MILEPOST_RUSTC={}", version.unwrap_or_else(|| "unknown".into()));
}
