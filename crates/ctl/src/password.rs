//! Asking for a password: a prompt, and nothing shown of what is typed.

use std::io::{self, Read as _};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::out;
use crate::outcome::Outcome;

/// Prints `prompt`, reads a line from standard input, and ends the prompt's line. When standard input is a terminal, it
/// does not echo meanwhile.
///
/// # Errors
/// Within: why nothing could be read.
pub fn ask(prompt: &str) -> Outcome<Result<String, String>> {
    out::bytes(prompt.as_bytes())?;
    let silence = Silence::begin();
    let line = read_line();
    drop(silence);
    out::bytes(b"\n")?;
    Ok(line.map(|line| line.trim().to_owned()).map_err(|error| format!("failed during password entry: {error}")))
}

/// The first word of standard input, or nothing.
pub fn first_word() -> String {
    read_line().map(|line| line.split_whitespace().next().unwrap_or("").to_owned()).unwrap_or_default()
}

/// Byte by byte: what is behind the line may be for the next question.
fn read_line() -> Result<String, io::Error> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match io::stdin().lock().read(&mut byte)? {
            0 => break,
            _ if byte[0] == b'\n' => break,
            _ => line.push(byte[0]),
        }
    }
    String::from_utf8(line).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

/// A terminal without echo; dropping it brings the echo back.
struct Silence(Option<rustix::termios::Termios>);

impl Silence {
    fn begin() -> Silence {
        let Ok(before) = tcgetattr(io::stdin()) else { return Silence(None) };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let set = tcsetattr(io::stdin(), OptionalActions::Flush, &quiet);
        Silence(set.is_ok().then_some(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
