//! Standard output and standard error.
//!
//! A reader that went away ends us as it ends any Unix tool, by SIGPIPE: Rust ignores that signal and would report an
//! error instead.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use crate::outcome::{Failure, Outcome, exit};

/// Writes `bytes` to standard output at once.
///
/// # Errors
/// They could not be written, for another reason than a reader that went away.
pub fn bytes(bytes: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).or_else(failed)
}

/// Writes a line to standard output at once.
///
/// # Errors
/// As [`bytes`].
pub fn line(text: fmt::Arguments<'_>) -> Outcome {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes a line to standard error; nobody can be told when that fails.
pub fn complain(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

fn failed(error: io::Error) -> Outcome {
    if error.kind() == ErrorKind::BrokenPipe {
        // Does not return when the signal's default is to end the process.
        let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGPIPE);
    }
    Err(Failure::new(exit::ERROR, format!("cannot write to standard output: {error}")))
}
