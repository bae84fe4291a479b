//! `get`: keys and their values.

use milepost_client::{Client, Deadline, Error};
use milepost_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use milepost_proto::etcdserverpb::{RangeRequest, RangeResponse};

use crate::call::Call;
use crate::frame::{Flag, Flags, Group, Spec};
use crate::outcome::{Failure, Outcome, exit};
use crate::print::{Answer, Format};
use crate::range::widened;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "get",
    usage: "get [options] <key> [range_end]",
    short: "Shows a key, or a range of keys",
    group: Group::KeyValue,
    flags: &[
        Flag::text("consistency", "l", "l: as new as any acknowledged write; s: what the asked member has"),
        Flag::text("order", "", "ASCEND or DESCEND"),
        Flag::text("sort-by", "", "CREATE, KEY, MODIFY, VALUE or VERSION"),
        Flag::int("limit", "0", "at most so many keys"),
        Flag::bool("prefix", "all keys that begin with <key>"),
        Flag::bool("from-key", "all keys from <key> on, in byte order"),
        Flag::int("rev", "0", "as of this revision"),
        Flag::bool("keys-only", "keys without their values"),
        Flag::bool("count-only", "only how many there are"),
        Flag::bool("print-value-only", "values without their keys, in the simple format"),
        Flag::int("min-create-rev", "0", "only keys created at this revision or later"),
        Flag::int("max-create-rev", "0", "only keys created at this revision or earlier"),
        Flag::int("min-mod-rev", "0", "only keys changed at this revision or later"),
        Flag::int("max-mod-rev", "0", "only keys changed at this revision or earlier"),
        Flag::bool("stream", "take the answer in pieces (RangeStream)"),
    ],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(mut call: Call) -> Outcome {
    let request = request(&call.flags, &call.args)?;
    let (client, mut printer) = call.connect().await?;
    let deadline: Deadline = call.deadline();
    let answer = if call.flags.bool("stream") {
        streamed(&client, request, deadline).await
    } else {
        client.kv().range(request, deadline).await
    };
    let answer = answer.map_err(Failure::rpc)?;
    if call.flags.bool("count-only") && printer.format != Format::Fields {
        return Err(Failure::args("--count-only is only for `--write-out=fields`"));
    }
    if call.flags.bool("print-value-only") {
        if printer.format != Format::Simple {
            return Err(Failure::args("print-value-only is only for `--write-out=simple`"));
        }
        printer.value_only = true;
    }
    printer.show(Answer::Get(&answer))
}

/// The pieces of a streamed answer, put together.
async fn streamed(client: &Client, request: RangeRequest, deadline: Deadline) -> Result<RangeResponse, Error> {
    let mut whole = RangeResponse::default();
    let mut pieces = client.kv().range_stream(request, deadline).await?;
    while let Some(piece) = pieces.next().await? {
        let Some(piece) = piece.range_response else { continue };
        whole.kvs.extend(piece.kvs);
        whole.header = piece.header.or(whole.header);
        whole.more |= piece.more;
        whole.count = if piece.count > 0 { piece.count } else { whole.count };
    }
    Ok(whole)
}

/// What these flags and arguments ask for; also a line of `txn`.
///
/// # Errors
/// They contradict each other, or a value is unknown.
pub fn request(flags: &Flags, args: &[Vec<u8>]) -> Outcome<RangeRequest> {
    let [key, more @ ..] = args else {
        return Err(Failure::args("get command needs one argument as key and an optional argument as range_end"));
    };
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    if prefix && from_key {
        return Err(Failure::args("`--prefix` and `--from-key` cannot be set at the same time, choose one"));
    }
    let (keys_only, count_only) = (flags.bool("keys-only"), flags.bool("count-only"));
    if keys_only && count_only {
        return Err(Failure::args("`--keys-only` and `--count-only` cannot be set at the same time, choose one"));
    }
    let serializable = serializable(flags)?;
    if !more.is_empty() && (prefix || from_key) {
        return Err(Failure::args(
            "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
        ));
    }
    let target = sort_target(flags.text("sort-by"))?;
    let order = match sort_order(flags.text("order"))? {
        // The order of the store: asking for it would only make the server sort.
        SortOrder::Ascend if target == SortTarget::Key => SortOrder::None,
        order => order,
    };
    let (created, modified) = (bounds(flags, "create", "Create")?, bounds(flags, "mod", "Mod")?);
    let (key, end) = widened(key, prefix, from_key);
    Ok(RangeRequest {
        key: key.into(),
        range_end: more.first().cloned().unwrap_or(end).into(),
        limit: flags.int("limit"),
        revision: flags.int("rev").max(0),
        sort_order: order as i32,
        sort_target: target as i32,
        serializable,
        keys_only,
        count_only,
        min_create_revision: created.0,
        max_create_revision: created.1,
        min_mod_revision: modified.0,
        max_mod_revision: modified.1,
    })
}

/// `--consistency`, of this command and of `member list`.
///
/// # Errors
/// It is neither `l` nor `s`.
pub fn serializable(flags: &Flags) -> Outcome<bool> {
    match flags.text("consistency") {
        "s" => Ok(true),
        "l" => Ok(false),
        other => Err(unknown(format!("unknown consistency flag \"{other}\""))),
    }
}

fn sort_order(text: &str) -> Outcome<SortOrder> {
    match text.to_uppercase().as_str() {
        "ASCEND" => Ok(SortOrder::Ascend),
        "DESCEND" => Ok(SortOrder::Descend),
        "" => Ok(SortOrder::None),
        _ => Err(unknown(format!("bad sort order {text}"))),
    }
}

fn sort_target(text: &str) -> Outcome<SortTarget> {
    match text.to_uppercase().as_str() {
        "CREATE" => Ok(SortTarget::Create),
        "KEY" | "" => Ok(SortTarget::Key),
        "MODIFY" => Ok(SortTarget::Mod),
        "VALUE" => Ok(SortTarget::Value),
        "VERSION" => Ok(SortTarget::Version),
        _ => Err(unknown(format!("bad sort target {text}"))),
    }
}

fn unknown(text: String) -> Failure {
    Failure::new(exit::BAD_FEATURE, text)
}

/// `--min-KIND-rev` and `--max-KIND-rev`; what is not above 0 is no bound.
fn bounds(flags: &Flags, kind: &str, title: &str) -> Outcome<(i64, i64)> {
    let (min, max) = (flags.int(&format!("min-{kind}-rev")), flags.int(&format!("max-{kind}-rev")));
    if max > 0 && min > max {
        return Err(unknown(format!("getMin{title}Rev(={min}) > getMax{title}Rev(={max})")));
    }
    Ok((min.max(0), max.max(0)))
}
