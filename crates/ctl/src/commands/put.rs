//! `put`: a key gets a value.

use std::io::Read as _;

use milepost_proto::etcdserverpb::PutRequest;

use crate::call::Call;
use crate::frame::{Flag, Flags, Group, Spec};
use crate::go::parse_int;
use crate::outcome::{Failure, Outcome};
use crate::print::Answer;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "put",
    usage: "put [options] <key> <value> (<value> can also be given from stdin)",
    short: "Gives a key its value",
    long: "Gives a key its value.\n\n\
        Without <value>, all of standard input is the value, newlines included:\n\n\
        \x20 etcdctl put config < config.yaml\n\n\
        A key or value that begins with '-' looks like a flag. Write '--' before it:\n\n\
        \x20 etcdctl put key -- -1\n\
        \x20 etcdctl put -- -key -value",
    group: Group::KeyValue,
    flags: &[
        Flag::text("lease", "0", "id (hexadecimal) of the lease that the key shall end with"),
        Flag::bool("prev-kv", "show what the key was before"),
        Flag::bool("ignore-value", "keep the key's value, for a new lease alone"),
        Flag::bool("ignore-lease", "keep the key's lease"),
    ],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(mut call: Call) -> Outcome {
    let request = request(&call.flags, &call.args, from_stdin)?;
    let (client, printer) = call.connect().await?;
    let answer = client.kv().put(request, call.deadline()).await.map_err(Failure::rpc)?;
    printer.show(Answer::Put(&answer))
}

/// What these flags and arguments ask for; also a line of `txn`. A value that they do not give comes from `missing`.
///
/// # Errors
/// They contradict each other, or there is no value.
pub fn request(flags: &Flags, args: &[Vec<u8>], missing: fn() -> Option<Vec<u8>>) -> Outcome<PutRequest> {
    let too_few = || Failure::args("put command needs 1 argument and input from stdin or 2 arguments");
    let [key, more @ ..] = args else { return Err(too_few()) };
    let ignore_value = flags.bool("ignore-value");
    let value = match more.first() {
        Some(_) if ignore_value => {
            return Err(Failure::args("put command needs only 1 argument when 'ignore-value' is set"));
        }
        Some(value) => value.clone(),
        None if ignore_value => Vec::new(),
        None => missing().ok_or_else(too_few)?,
    };
    let lease = parse_int(flags.text("lease"), 16)
        .map_err(|why| Failure::args(format!("bad lease ID ({why}), expecting ID in Hex")))?;
    Ok(PutRequest {
        key: key.clone().into(),
        value: value.into(),
        lease,
        prev_kv: flags.bool("prev-kv"),
        ignore_value,
        ignore_lease: flags.bool("ignore-lease"),
    })
}

/// All of standard input; `None` if there is nothing.
fn from_stdin() -> Option<Vec<u8>> {
    let mut value = Vec::new();
    std::io::stdin().lock().read_to_end(&mut value).ok()?;
    (!value.is_empty()).then_some(value)
}
