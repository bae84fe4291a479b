//! `compaction`: the past up to a revision is dropped.

use milepost_proto::etcdserverpb::CompactionRequest;

use crate::call::Call;
use crate::frame::{Flag, Group, Spec};
use crate::go::parse_int;
use crate::out;
use crate::outcome::{Failure, Outcome, exit};

/// The command.
pub const COMMAND: Spec = Spec {
    name: "compaction",
    usage: "compaction [options] <revision>",
    short: "Drops what keys were before a revision",
    group: Group::KeyValue,
    flags: &[Flag::bool("physical", "wait until the space has been given back to the store")],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(mut call: Call) -> Outcome {
    let [revision] = call.args.as_slice() else {
        return Err(Failure::args("compaction command needs 1 argument"));
    };
    let revision = parse_int(&String::from_utf8_lossy(revision), 10);
    let revision = revision.map_err(|why| Failure::new(exit::ERROR, why))?;
    let physical = call.flags.bool("physical");
    let (client, _) = call.connect().await?;
    let request = CompactionRequest { revision, physical };
    client.kv().compact(request, call.deadline()).await.map_err(Failure::rpc)?;
    out::line(format_args!("compacted revision {revision}"))
}
