//! `cargo xtask release`: one statically linked executable in a tarball, unpacked and tried before it is called done.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::flags::{Flag, Flags};
use crate::{bins, trial};

const FLAGS: &[Flag] = &[
    ("--out", "DIR", "where the tarball goes (target/release-files)"),
    ("--profile", "NAME", "cargo profile (dist: fat LTO, stripped)"),
    ("--executable", "FILE", "a finished static executable instead of a build"),
];

/// The C library inside: nothing of the machine that runs the executable is asked for.
const TRIPLE: &str = "x86_64-unknown-linux-musl";

/// The names under which the one executable is called.
const NAMES: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

/// Shells whose completions are shipped, with the file's name.
const SHELLS: [(&str, &str); 4] =
    [("bash", "etcdctl.bash"), ("zsh", "_etcdctl"), ("fish", "etcdctl.fish"), ("powershell", "etcdctl.ps1")];

/// The verb.
///
/// # Errors
/// A build failed, the executable is not static, or what was unpacked does not work.
pub fn run(words: &[String]) -> Result<(), String> {
    let Some(flags) = Flags::read("release", FLAGS, words)? else { return Ok(()) };
    let out = flags.text("--out").map_or_else(|| bins::target().join("release-files"), PathBuf::from);
    let executable = match flags.text("--executable") {
        Some(finished) => PathBuf::from(finished),
        None => build(flags.text("--profile").unwrap_or("dist"))?,
    };
    is_static(&executable)?;
    let version = version()?;
    let name = format!("milepost-v{version}-linux-amd64");
    let folder = out.join(&name);
    lay_out(&executable, &folder)?;
    let tarball = pack(&out, &name)?;
    trial::run(&tarball, &name)?;
    let size = std::fs::metadata(&tarball).map_err(|error| format!("{}: {error}", tarball.display()))?.len();
    println!("{} ({:.1} MiB)", tarball.display(), size as f64 / f64::from(1 << 20));
    Ok(())
}

fn build(profile: &str) -> Result<PathBuf, String> {
    want_target()?;
    let mut cargo = bins::cargo();
    cargo
        .args(["build", "--locked", "--package", "milepost", "--target", TRIPLE, "--profile", profile])
        // The crates that bring C code ask for the compiler by this name.
        .env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    bins::run(&mut cargo)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(bins::target().join(TRIPLE).join(folder).join("milepost"))
}

/// Has the standard library for the target installed if it is missing.
fn want_target() -> Result<(), String> {
    let sysroot = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(bins::root())
        .output()
        .map_err(|error| format!("rustc --print sysroot: {error}"))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if sysroot.join("lib/rustlib").join(TRIPLE).is_dir() {
        return Ok(());
    }
    bins::run(Command::new("rustup").args(["target", "add", TRIPLE]).current_dir(bins::root()))
        .map_err(|error| format!("no standard library for {TRIPLE}: {error}"))
}

/// An executable that needs an interpreter is linked to the machine's C library.
fn is_static(executable: &Path) -> Result<(), String> {
    let bytes = std::fs::read(executable).map_err(|error| format!("{}: {error}", executable.display()))?;
    match needs_interpreter(&bytes) {
        Some(false) => Ok(()),
        Some(true) => Err(format!("{} is not static: it needs an interpreter", executable.display())),
        None => Err(format!("{} is not a 64-bit ELF executable", executable.display())),
    }
}

/// Whether a program header of type PT_INTERP (3) exists. Source: ELF-64 object file format, "program header table".
fn needs_interpreter(elf: &[u8]) -> Option<bool> {
    if elf.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?)));
    let table = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (half(54)?, half(56)?);
    for number in 0..count {
        let at = table + number * size;
        if u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?) == 3 {
            return Some(true);
        }
    }
    Some(false)
}

/// The version of the workspace, as Cargo.toml has it.
fn version() -> Result<String, String> {
    let manifest = std::fs::read_to_string(bins::root().join("Cargo.toml")).map_err(|error| error.to_string())?;
    manifest
        .lines()
        .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .ok_or_else(|| "Cargo.toml has no version line".to_owned())
}

fn lay_out(executable: &Path, folder: &Path) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(fail)?;
    }
    std::fs::create_dir_all(folder.join("completions")).map_err(fail)?;
    std::fs::copy(executable, folder.join("milepost")).map_err(fail)?;
    for name in NAMES {
        std::os::unix::fs::symlink("milepost", folder.join(name)).map_err(fail)?;
    }
    for file in ["README.md", "CHANGELOG.md", "LICENSE"] {
        std::fs::copy(bins::root().join(file), folder.join(file)).map_err(fail)?;
    }
    std::fs::copy(bins::root().join("packaging/milepost.service"), folder.join("milepost.service")).map_err(fail)?;
    copy_folder(&bins::root().join("docs"), &folder.join("docs")).map_err(fail)?;
    for (shell, file) in SHELLS {
        let output = Command::new(folder.join("etcdctl"))
            .args(["completion", shell])
            .output()
            .map_err(|error| format!("etcdctl completion {shell}: {error}"))?;
        if !output.status.success() || output.stdout.is_empty() {
            return Err(format!("etcdctl completion {shell}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        std::fs::write(folder.join("completions").join(file), output.stdout).map_err(fail)?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The same files give the same tarball: order, owners and times (gzip's too, for which -n) do not depend on who packs.
fn pack(out: &Path, name: &str) -> Result<PathBuf, String> {
    let tarball = out.join(format!("{name}.tar.gz"));
    let when = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(bins::root()).output();
    // Outside of a clone there is no commit to take the time of.
    let when = when
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(|| "0".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    bins::run(
        Command::new("tar")
            .args([
                "--create",
                "--use-compress-program=gzip -n",
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
            ])
            .arg(format!("--mtime=@{when}"))
            .arg("--file")
            .arg(&tarball)
            .arg("--directory")
            .arg(out)
            .arg(name),
    )?;
    Ok(tarball)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_executable_is_told_from_a_static_one() {
        let ours = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(needs_interpreter(&ours), Some(true));
        assert_eq!(needs_interpreter(b"#!/bin/sh\n"), None);
        // One program header of another kind (PT_LOAD).
        let mut small = vec![0; 64 + 56];
        small[..5].copy_from_slice(b"\x7fELF\x02");
        (small[32], small[54], small[56], small[64]) = (64, 56, 1, 1);
        assert_eq!(needs_interpreter(&small), Some(false));
        assert_eq!(needs_interpreter(&small[..100]), Some(false));
        assert_eq!(needs_interpreter(&small[..60]), None);
    }

    #[test]
    fn the_version_is_the_workspaces() {
        assert_eq!(version().unwrap(), env!("CARGO_PKG_VERSION"));
    }
}
