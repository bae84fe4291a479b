//! What the words of a `watch` mean: key, end of the range, and the command behind `--`.
//!
//! Source: etcd `etcdctl/ctlv3/command/watch_command.go`. One difference: etcdctl looks for the *last* word like the
//! command's first one, and takes `watch a -- echo echo` for the range from `a` to `echo`; here the command begins behind
//! the first `--`.

use std::os::unix::ffi::OsStringExt;

use super::COMMAND;
use crate::frame::{self, Flags};
use crate::go::quote;
use crate::outcome::{Failure, Outcome};

pub(super) const NUMBER: &str = "bad number of arguments";
const SEPARATOR: &str = "bad number of arguments (found separator --, but no commands)";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";

/// What is to be watched, and run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// Key, end of the range.
    pub(super) args: Vec<Vec<u8>>,
    /// Empty for none.
    pub(super) command: Vec<Vec<u8>>,
}

/// The variables that can name the keys.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// Empty when it is not set.
    pub(super) key: Vec<u8>,
    end: Vec<u8>,
}

impl Environment {
    pub(super) const NAMES: &'static [&'static str] = &["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

    /// # Errors
    /// There is an end, but no key.
    pub(super) fn read() -> Outcome<Environment> {
        let get = |name| std::env::var_os(name).unwrap_or_default().into_vec();
        Environment { key: get(Self::NAMES[0]), end: get(Self::NAMES[1]) }.checked()
    }

    fn checked(self) -> Outcome<Environment> {
        if self.key.is_empty() && !self.end.is_empty() {
            let end = quote(&self.end);
            return Err(Failure::args(format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}")));
        }
        Ok(self)
    }

    /// Puts what the variables name before what was typed.
    fn before(&self, typed: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut args = Vec::new();
        if !self.key.is_empty() {
            args.push(self.key.clone());
            args.extend((!self.end.is_empty()).then(|| self.end.clone()));
        }
        args.extend_from_slice(typed);
        args
    }
}

/// The words of the command line: `raw` is everything behind the program's name, `args` what is no flag, with what stands
/// behind `--`.
pub(super) fn typed(raw: &[Vec<u8>], args: &[Vec<u8>], environment: &Environment) -> Outcome<Wish> {
    let begin = raw.iter().position(|word| word == b"watch").map_or(0, |place| place + 1);
    let words = &raw[begin..];
    let command = behind_separator(words)?;
    if command.is_none() && words.is_empty() && environment.key.is_empty() {
        return Err(Failure::args(NUMBER));
    }
    let typed = &args[..args.len() - command.map_or(0, <[_]>::len).min(args.len())];
    if !typed.is_empty() && !environment.key.is_empty() {
        return Err(Failure::args(CONFLICT));
    }
    Ok(wish(typed, command, environment))
}

/// The words behind `watch` in a line of the interactive mode, which has flags of its own.
pub(super) fn read(words: &[Vec<u8>], environment: &Environment) -> Outcome<(Flags, Wish)> {
    let command = behind_separator(words)?;
    let (flags, args) = frame::parse(&[&COMMAND], words).map_err(Failure::args)?;
    let typed = &args[..args.len() - command.map_or(0, <[_]>::len).min(args.len())];
    if command.is_none() && environment.key.is_empty() && typed.is_empty() {
        return Err(Failure::args(NUMBER));
    }
    if command.is_none() && !environment.key.is_empty() && !typed.is_empty() {
        return Err(Failure::args(CONFLICT));
    }
    Ok((flags, wish(typed, command, environment)))
}

fn wish(typed: &[Vec<u8>], command: Option<&[Vec<u8>]>, environment: &Environment) -> Wish {
    Wish { args: environment.before(typed), command: command.unwrap_or_default().to_vec() }
}

/// What stands behind the first `--`, if there is one.
fn behind_separator(words: &[Vec<u8>]) -> Outcome<Option<&[Vec<u8>]>> {
    match words.iter().position(|word| word == b"--") {
        None => Ok(None),
        Some(place) if place + 1 == words.len() => Err(Failure::args(SEPARATOR)),
        Some(place) => Ok(Some(&words[place + 1..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn environment(key: &str, end: &str) -> Environment {
        Environment { key: key.into(), end: end.into() }
    }

    /// `key end | command`, or the complaint, for a command line.
    fn line(line: &str, environment: &Environment) -> String {
        let raw = words(line);
        let begin = raw.iter().position(|word| word == b"watch").unwrap() + 1;
        let (_, args) = frame::parse(&[&COMMAND], &raw[begin..]).unwrap();
        shown(typed(&raw, &args, environment))
    }

    /// The same for a line of the interactive mode.
    fn spoken(line: &str, environment: &Environment) -> String {
        shown(read(&words(line), environment).map(|(_, wish)| wish))
    }

    fn shown(wish: Outcome<Wish>) -> String {
        let join = |words: Vec<Vec<u8>>| String::from_utf8(words.join(&b' ')).unwrap();
        match wish {
            Ok(wish) => format!("{} | {}", join(wish.args), join(wish.command)),
            Err(failure) => failure.text.unwrap(),
        }
    }

    #[test]
    fn keys_and_commands_on_the_command_line() {
        let none = environment("", "");
        for (typed, meant) in [
            ("watch foo", "foo | "),
            ("watch foo bar", "foo bar | "),
            ("watch foo --rev 1 bar -- echo hello", "foo bar | echo hello"),
            ("watch foo -- echo foo --prefix", "foo | echo foo --prefix"),
            ("watch a -- echo echo", "a | echo echo"),
            ("-w json watch foo", "foo | "),
            ("watch", NUMBER),
            ("watch foo --", SEPARATOR),
            // The number of keys is looked at once there is a client.
            ("watch --prefix", " | "),
            ("watch -- echo", " | echo"),
        ] {
            assert_eq!(line(typed, &none), meant, "{typed}");
        }
    }

    #[test]
    fn keys_from_the_environment() {
        let both = environment("foo", "bar");
        assert_eq!(line("watch", &both), "foo bar | ");
        assert_eq!(line("watch --rev 1 -- echo hi", &both), "foo bar | echo hi");
        assert_eq!(line("watch x", &both), CONFLICT);
        assert_eq!(line("watch x -- echo", &environment("foo", "")), CONFLICT);
        let half = environment("", "bar").checked().unwrap_err().text.unwrap();
        assert_eq!(half, "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=\"bar\"");
    }

    #[test]
    fn lines_of_the_interactive_mode() {
        let none = environment("", "");
        assert_eq!(spoken("foo --prefix", &none), "foo | ");
        assert_eq!(spoken("foo bar --rev 1 -- echo a", &none), "foo bar | echo a");
        assert_eq!(spoken("--prefix", &none), NUMBER);
        assert_eq!(spoken("foo --", &none), SEPARATOR);
        assert_eq!(spoken("foo --nonsense", &none), "unknown flag: --nonsense");
        let key = environment("k", "");
        assert_eq!(spoken("--rev 3", &key), "k | ");
        assert_eq!(spoken("x", &key), CONFLICT);
    }
}
