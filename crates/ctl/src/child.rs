//! Programs that `watch` and `lock` run for the user.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use crate::go::quote;

/// Why a program did not succeed.
#[derive(Debug)]
pub struct Failed {
    /// In Go's words: `exit status 1`, `signal: killed`, `exec: "x": executable file not found in $PATH`.
    pub text: String,
    /// Its exit code, where it had one; 255 when a signal ended it.
    pub code: Option<u8>,
}

/// Runs `words` with our standard output and error, an empty standard input, our environment and `more`. Whoever waits is
/// not kept from other work.
///
/// # Errors
/// See [`Failed`].
pub async fn run(words: &[Vec<u8>], more: Vec<(&'static str, Vec<u8>)>) -> Result<(), Failed> {
    let words: Vec<OsString> = words.iter().map(|word| OsString::from_vec(word.clone())).collect();
    let Some((program, args)) = words.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.envs(more.iter().map(|(name, value)| (*name, OsStr::from_bytes(value))));
    let ended = tokio::task::spawn_blocking(move || command.status()).await;
    match ended.map_err(io::Error::other).and_then(|status| status) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(unsuccessful(status)),
        Err(error) => Err(Failed { text: not_started(program, &error), code: None }),
    }
}

fn unsuccessful(status: ExitStatus) -> Failed {
    match (status.code(), status.signal()) {
        (Some(code), _) => Failed { text: format!("exit status {code}"), code: u8::try_from(code).ok() },
        (None, signal) => {
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            let name = signal.map_or_else(String::new, signal_name);
            Failed { text: format!("signal: {name}{core}"), code: Some(u8::MAX) }
        }
    }
}

fn not_started(program: &OsStr, error: &io::Error) -> String {
    let bytes = program.as_bytes();
    let shown = String::from_utf8_lossy(bytes);
    let is_path = bytes.contains(&b'/');
    match error.kind() {
        io::ErrorKind::NotFound if is_path => format!("fork/exec {shown}: no such file or directory"),
        io::ErrorKind::NotFound => format!("exec: {}: executable file not found in $PATH", quote(bytes)),
        io::ErrorKind::PermissionDenied if is_path => format!("fork/exec {shown}: permission denied"),
        io::ErrorKind::PermissionDenied => format!("exec: {}: permission denied", quote(bytes)),
        _ => format!("fork/exec {shown}: {error}"),
    }
}

/// As Go names the signals of Linux that end programs.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// Words as Go's `%q` shows a list of strings.
pub fn quoted(words: &[Vec<u8>]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(words: &[&str]) -> Result<(), Failed> {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&words, vec![("MILEPOST_TEST", b"x y".to_vec())]))
    }

    fn failed(words: &[&str]) -> (String, Option<u8>) {
        let failed = ran(words).unwrap_err();
        (failed.text, failed.code)
    }

    #[test]
    fn ends_are_worded_as_go_does() {
        assert!(ran(&["sh", "-c", "test \"$MILEPOST_TEST\" = \"x y\""]).is_ok());
        assert_eq!(failed(&["sh", "-c", "exit 7"]), ("exit status 7".into(), Some(7)));
        assert_eq!(failed(&["sh", "-c", "kill -9 $$"]), ("signal: killed".into(), Some(255)));
        let nowhere = "exec: \"no such program\": executable file not found in $PATH";
        assert_eq!(failed(&["no such program"]), (nowhere.into(), None));
        assert_eq!(failed(&["./nothing"]), ("fork/exec ./nothing: no such file or directory".into(), None));
    }

    #[test]
    fn words_are_shown_as_go_shows_a_list() {
        assert_eq!(quoted(&[b"a".to_vec(), b"b \"c\"".to_vec()]), "[\"a\" \"b \\\"c\\\"\"]");
    }
}
