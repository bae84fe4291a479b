//! `version`: whose etcdctl this could be.

use crate::call::Call;
use crate::frame::{Group, Spec};
use crate::out;
use crate::outcome::Outcome;

/// The version of etcd whose tool this is like.
pub const VERSION: &str = "3.7.1";

/// The command.
pub const COMMAND: Spec = Spec {
    name: "version",
    usage: "version",
    short: "Shows the version of etcd that this tool speaks",
    group: Group::Utility,
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(_: Call) -> Outcome {
    let api = VERSION.rsplit_once('.').map_or(VERSION, |(minor, _)| minor);
    out::line(format_args!("etcdctl version: {VERSION}\nAPI version: {api}"))
}
