//! Where things are, and how the executables that are measured come to be.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the root").to_path_buf()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs `command` with its output in sight.
///
/// # Errors
/// It could not be started, or ended with failure: its words are in the text, so that it can be run by hand.
pub fn run(command: &mut Command) -> Result<(), String> {
    let words = words(command);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{words}`: {status}")),
        Err(error) => Err(format!("`{words}`: {error}; is it installed?")),
    }
}

/// A command as one would type it.
pub fn words(command: &Command) -> String {
    let word = |word: &std::ffi::OsStr| {
        let path = Path::new(word);
        let name = if path.is_absolute() { path.file_name().unwrap_or(word) } else { word };
        name.to_string_lossy().into_owned()
    };
    let program = word(command.get_program());
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Builds our executable in `profile` and returns its path.
///
/// # Errors
/// The build failed.
pub fn ours(profile: &str) -> Result<PathBuf, String> {
    run(cargo().args(["build", "--profile", profile, "--package", "milepost"]))?;
    Ok(target().join(profile).join("milepost"))
}

/// Builds the reference, etcd at the version pinned in `test/compat/go.mod`, and returns its path.
///
/// # Errors
/// There is no Go, or the build failed.
pub fn reference() -> Result<PathBuf, String> {
    let path = target().join("xtask").join("refetcd");
    // As etcd's own releases are built.
    run(Command::new("go")
        .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(&path)
        .arg("./refetcd")
        .env("CGO_ENABLED", "0")
        .current_dir(root().join("test/compat")))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.lock").is_file());
    }

    #[test]
    fn a_failing_command_is_named() {
        let error = run(Command::new("false").arg("x")).unwrap_err();
        assert!(error.starts_with("`false x`: exit status: 1"), "{error}");
        assert!(run(&mut Command::new("no-such-program")).unwrap_err().contains("is it installed?"));
    }
}
