//! `del`: keys go.

use std::time::Duration;

use milepost_proto::etcdserverpb::DeleteRangeRequest;

use crate::call::Call;
use crate::frame::{Flag, Flags, Group, Spec};
use crate::go::quote;
use crate::out;
use crate::outcome::{Failure, Outcome};
use crate::print::Answer;
use crate::range::widened;

/// How long the user may think again before a range goes that `--range` did not announce.
const SECOND_THOUGHT: Duration = Duration::from_secs(2);

/// The command.
pub const COMMAND: Spec = Spec {
    name: "del",
    usage: "del [options] <key> [range_end]",
    short: "Deletes a key, or a range of keys [key, range_end)",
    group: Group::KeyValue,
    flags: &[
        Flag::bool("prefix", "all keys that begin with <key>"),
        Flag::bool("prev-kv", "show what was deleted"),
        Flag::bool("from-key", "all keys from <key> on, in byte order"),
        Flag::bool("range", "delete a range without waiting for second thoughts"),
    ],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(mut call: Call) -> Outcome {
    let request = request(&call.flags, &call.args).await?;
    let (client, printer) = call.connect().await?;
    let answer = client.kv().delete_range(request, call.deadline()).await.map_err(Failure::rpc)?;
    printer.show(Answer::Del(&answer))
}

/// What these flags and arguments ask for; also a line of `txn`. Waits when a range comes without `--range`.
///
/// # Errors
/// They contradict each other.
pub async fn request(flags: &Flags, args: &[Vec<u8>]) -> Outcome<DeleteRangeRequest> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    let (key, end) = match args {
        [_] | [_, _] if prefix && from_key => {
            return Err(Failure::args("`--prefix` and `--from-key` cannot be set at the same time, choose one"));
        }
        [key] => widened(key, prefix, from_key),
        [_, _] if prefix || from_key => {
            return Err(Failure::args(
                "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
            ));
        }
        [key, end] => {
            if !flags.bool("range") {
                warn(key, end).await;
            }
            (key.clone(), end.clone())
        }
        _ => {
            return Err(Failure::args("del command needs one argument as key and an optional argument as range_end"));
        }
    };
    Ok(DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: flags.bool("prev-kv") })
}

async fn warn(key: &[u8], end: &[u8]) {
    out::complain(format_args!(
        "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 seconds to \
         cancel. You can provide `--range` flag to avoid the delay.",
        quote(key),
        quote(end)
    ));
    tokio::time::sleep(SECOND_THOUGHT).await;
}
