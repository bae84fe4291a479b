//! `options`: the flags of every command.

use crate::call::Call;
use crate::frame::{Flag, Group, Spec, page};
use crate::globals;
use crate::out;
use crate::outcome::Outcome;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "options",
    usage: "options",
    short: "Shows the flags that every command has",
    group: Group::Utility,
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(_: Call) -> Outcome {
    let mut flags: Vec<Flag> = globals::FLAGS.iter().map(|flag| Flag { hidden: false, ..*flag }).collect();
    flags.sort_by_key(|flag| flag.name);
    let table = page::flag_table(&flags);
    out::line(format_args!("The following options can be passed to any command:\n\n{}", table.trim_end()))
}
