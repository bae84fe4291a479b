//! Asking for a password: a prompt, and nothing shown of what is typed.

use std::io::{self, Read as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGINT, SIGQUIT};
use signal_hook::low_level::emulate_default_handler;

use crate::out;
use crate::outcome::Outcome;

/// Prints `prompt`, reads a line from standard input, and ends the prompt's line. A terminal does not show the line.
///
/// # Errors
/// Within: why nothing could be read.
pub fn ask(prompt: &str) -> Outcome<Result<String, String>> {
    // Before the prompt: whoever answers it at once is not shown either.
    let terminal = Terminal::quieten();
    out::bytes(prompt.as_bytes())?;
    let line = if terminal.is_some() { read_typed(terminal) } else { read_line() };
    out::bytes(b"\n")?;
    Ok(line.map(|line| line.trim().to_owned()).map_err(|error| format!("failed during password entry: {error}")))
}

/// The first word of standard input, or nothing.
pub fn first_word() -> String {
    read_line().map(|line| line.split_whitespace().next().unwrap_or("").to_owned()).unwrap_or_default()
}

/// Byte by byte: what is behind the line may be for the next question.
fn next_byte() -> io::Result<Option<u8>> {
    let mut byte = [0];
    Ok((io::stdin().lock().read(&mut byte)? > 0).then_some(byte[0]))
}

fn read_line() -> io::Result<String> {
    let mut line = Vec::new();
    while let Some(byte) = next_byte()?.filter(|byte| *byte != b'\n') {
        line.push(byte);
    }
    text(line)
}

fn text(line: Vec<u8>) -> io::Result<String> {
    String::from_utf8(line).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

/// Reads what is typed at a quiet terminal. Its keys for editing and for signals are ours to understand: a signal would
/// end us and leave a terminal that shows nothing.
fn read_typed(terminal: Option<Terminal>) -> io::Result<String> {
    let mut typed = Typed::default();
    while let Some(byte) = next_byte()? {
        match typed.key(byte) {
            Key::Text => {}
            Key::End => break,
            Key::Signal(signal) => {
                drop(terminal);
                out::complain(format_args!(""));
                // Comes back only where the signal is ignored by whoever started us.
                emulate_default_handler(signal)?;
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }
    text(typed.line)
}

/// A line while it is typed.
#[derive(Default)]
struct Typed {
    line: Vec<u8>,
}

/// What a byte from the terminal means.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    Text,
    End,
    Signal(i32),
}

impl Typed {
    fn key(&mut self, byte: u8) -> Key {
        match byte {
            b'\n' | b'\r' => return Key::End,
            // Control-C, Control-\, Control-D.
            0x03 => return Key::Signal(SIGINT),
            0x1c => return Key::Signal(SIGQUIT),
            0x04 if self.line.is_empty() => return Key::End,
            0x04 => {}
            // Backspace takes a whole letter: its last byte, and those that continue it.
            0x08 | 0x7f => while self.line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Control-U.
            0x15 => self.line.clear(),
            byte => self.line.push(byte),
        }
        Key::Text
    }
}

/// A terminal that neither shows nor interprets what is typed; dropping it brings back what was.
struct Terminal(Termios);

impl Terminal {
    /// `None` when standard input is no terminal.
    fn quieten() -> Option<Terminal> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Drain, &quiet).ok()?;
        Some(Terminal(before))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> (String, Key) {
        let mut typed = Typed::default();
        let mut last = Key::Text;
        for byte in bytes {
            last = typed.key(*byte);
            if last != Key::Text {
                break;
            }
        }
        (String::from_utf8(typed.line).unwrap(), last)
    }

    #[test]
    fn a_line_is_edited_as_it_is_typed() {
        assert_eq!(typed("geheim\nrest".as_bytes()), ("geheim".into(), Key::End));
        assert_eq!(typed("aü\x7fb\x08c\r".as_bytes()), ("ac".into(), Key::End));
        assert_eq!(typed(b"\x7f\x7fx\n"), ("x".into(), Key::End));
        assert_eq!(typed(b"wrong\x15right\n"), ("right".into(), Key::End));
        assert_eq!(typed(b"\x04"), (String::new(), Key::End));
        assert_eq!(typed(b"ab\x03"), ("ab".into(), Key::Signal(SIGINT)));
    }
}
