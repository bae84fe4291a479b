//! etcdctl: the command line of etcd, for etcd's servers and for ours.
//!
//! ```text
//!  words ─► frame: which command, which flags ─► env: ETCDCTL_* ─► call: client and printer
//!                                                                      │
//!               stdout ◄── print: five formats ◄── answer ◄── commands/… ──► milepost-client ──► servers
//! ```
//! What holds: whoever has scripts around etcd's etcdctl 3.7.1 can put this in its place. Standard output, exit codes and
//! error lines are its own to the byte; `test/compat/ctl` runs both tools against both servers and compares. The
//! differences that we chose are listed in `docs/compatibility.md`. Help texts are ours; their layout is Cobra's.
//!
//! What never happens here: talking gRPC (that is `milepost-client`), knowing anything about a server's insides.
//!
//! Sources: the behaviour of etcd's etcdctl 3.7.1, of Cobra 1.10 and pflag 1.0, and of Go's `fmt`, `strconv` and
//! `encoding/json`.

pub mod call;
mod child;
pub mod commands;
mod compare;
mod complete;
mod discovery;
mod env;
pub mod frame;
mod globals;
pub mod go;
mod log;
pub mod out;
pub mod outcome;
mod password;
pub mod print;
mod range;
mod signals;
mod urls;
mod words;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use call::Call;
use commands::{ROOT, help};
use frame::{Spec, page};
use outcome::{Failure, Outcome, exit};

/// Runs etcdctl with the words behind its name. Returns the process's exit code.
pub fn run(words: Vec<OsString>) -> i32 {
    let words: Vec<Vec<u8>> = words.into_iter().map(OsStringExt::into_vec).collect();
    let Err(failure) = started(words) else { return 0 };
    if let Some(text) = failure.text {
        out::complain(format_args!("Error: {text}"));
    }
    i32::from(failure.code)
}

fn started(words: Vec<Vec<u8>>) -> Outcome {
    if let Some(b"__complete" | b"__completeNoDesc") = words.first().map(Vec::as_slice) {
        return out::bytes(complete::answer(&words[1..]).as_bytes());
    }
    let found = frame::find(&ROOT, &words);
    if let Some((word, near)) = found.unknown {
        let hint = dash_hint(&found.path, &words).map(|hint| Failure::new(exit::ERROR, hint));
        return Err(hint.unwrap_or_else(|| unknown_command(word, &near)));
    }
    let command = found.path[found.path.len() - 1];
    let (flags, args) = frame::parse(&found.path, &found.words).map_err(|why| misused(&found.path, &why))?;
    let Some(run) = command.run.filter(|_| !flags.bool("help")) else {
        return help::show(&found.path);
    };
    choose(&found.path, &args)?;
    if let Some(hint) = dash_hint(&found.path, &words) {
        return Err(Failure::args(hint));
    }
    let call = Call::new(found.path, flags, args, words);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(exit::ERROR, format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(run(call));
    // A thread that still reads standard input must not keep the process.
    runtime.shutdown_background();
    outcome
}

fn unknown_command(word: &[u8], near: &[&str]) -> Failure {
    let mut text = format!("unknown command {} for \"{}\"", go::quote(word), ROOT.name);
    if !near.is_empty() {
        let near: String = near.iter().map(|name| format!("\t{name}\n")).collect();
        text.push_str(&format!("\n\nDid you mean this?\n{near}"));
    }
    out::complain(format_args!("Error: {text}\nRun '{} --help' for usage.", ROOT.name));
    Failure::silent(exit::ERROR)
}

/// Flags or arguments that do not fit: says why, and shows how the command is used.
fn misused(path: &[&'static Spec], why: &str) -> Failure {
    out::complain(format_args!("Error: {why}\n{}", page::usage(path)));
    Failure::silent(exit::ERROR)
}

/// Checks the argument of a command that has a choice of them.
fn choose(path: &[&'static Spec], args: &[Vec<u8>]) -> Outcome {
    let choices = path[path.len() - 1].choices;
    match args {
        _ if choices.is_empty() => Ok(()),
        [one] if choices.iter().any(|choice| choice.as_bytes() == one) => Ok(()),
        [one] => {
            let why = format!("invalid argument {} for {}", go::quote(one), go::quote(page::called(path).as_bytes()));
            Err(misused(path, &why))
        }
        args => Err(misused(path, &format!("accepts 1 arg(s), received {}", args.len()))),
    }
}

/// Word processors turn two hyphens into a dash, and documents that went through one are pasted. Such a word is no flag
/// and would be taken as a key: it is refused when a flag of that name exists and no `--` says that it is meant.
fn dash_hint(path: &[&'static Spec], words: &[Vec<u8>]) -> Option<String> {
    let known = frame::flags::known(path);
    words.iter().take_while(|word| *word != b"--").find_map(|word| {
        let text = std::str::from_utf8(word).ok()?;
        let name = text.strip_prefix(['–', '—', '−']).map(|rest| rest.trim_start_matches(['–', '—', '−', '-']))?;
        let flag = name.split('=').next()?;
        known.iter().any(|known| known.name == flag).then(|| {
            format!(
                "\"{text}\" begins with a dash that is not a hyphen; did you mean --{name}? (if it is meant as it \
                 stands, put -- before it)"
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(line: &str) -> Option<String> {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        dash_hint(&[&ROOT, &commands::get::COMMAND], &words)
    }

    #[test]
    fn a_pasted_dash_gets_a_hint() {
        assert!(hint("get / –prefix –keys-only").unwrap().contains("did you mean --prefix?"));
        assert!(hint("get / —write-out=json").unwrap().contains("did you mean --write-out=json?"));
        let at_the_front = dash_hint(&[&ROOT], &["–-help".as_bytes().to_vec()]);
        assert!(at_the_front.unwrap().contains("did you mean --help?"));
        assert_eq!(hint("get –x"), None);
        assert_eq!(hint("get -- –prefix"), None);
    }
}
