//! `help`: the page of a command.

use super::ROOT;
use crate::call::Call;
use crate::frame::{Group, Spec, find, page};
use crate::out;
use crate::outcome::Outcome;

/// What every page ends with.
const MORE: &str = "Use \"etcdctl options\" for a list of global command-line options (applies to all commands).";

/// The command.
pub const COMMAND: Spec = Spec {
    name: "help",
    usage: "help [command]",
    short: "Shows how a command is used",
    long: "Shows how a command is used: etcdctl help lease grant.",
    group: Group::Utility,
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(call: Call) -> Outcome {
    let found = find(&ROOT, &call.args);
    if found.unknown.is_none() {
        return show(&found.path);
    }
    let words: Vec<String> = call.args.iter().map(|word| backquoted(word)).collect();
    out::complain(format_args!("Unknown help topic [{}]\n{}", words.join(" "), page::usage(&[&ROOT]).trim_end()));
    Ok(())
}

/// Prints the page of the last command of `path`.
///
/// # Errors
/// Standard output is gone.
pub fn show(path: &[&'static Spec]) -> Outcome {
    out::line(format_args!("{}{MORE}", page::help(path)))
}

/// As Go's `%#q`: in backquotes where that is possible.
fn backquoted(word: &[u8]) -> String {
    match std::str::from_utf8(word) {
        Ok(text) if !text.contains(|letter: char| letter == '`' || (letter.is_control() && letter != '\t')) => {
            format!("`{text}`")
        }
        _ => crate::go::quote(word),
    }
}
