//! `check`: whether a cluster can take a load, and what it costs. [`perf`] measures time, [`datascale`] memory.

mod datascale;
mod load;
mod metrics;
mod perf;

use milepost_client::{Client, Deadline};
use milepost_proto::etcdserverpb::{CompactionRequest, DefragmentRequest, DeleteRangeRequest, RangeRequest};

use super::endpoint::alone;
use crate::call::{Call, connect};
use crate::frame::{Flag, Group, Spec};
use crate::go::quote;
use crate::out;
use crate::outcome::{Failure, Outcome, exit};
use crate::range::prefix_end;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "check",
    usage: "check <subcommand>",
    short: "Loads a cluster and judges how it does",
    group: Group::Utility,
    children: &[&perf::COMMAND, &datascale::COMMAND],
    ..Spec::NEW
};

const LOAD: Flag = Flag::text("load", "s", "how much: s(small), m(medium), l(large) or xl(xLarge)");
const AUTO_COMPACT: Flag = Flag::bool("auto-compact", "drop the written keys' past afterwards");
const AUTO_DEFRAG: Flag = Flag::bool("auto-defrag", "give the freed space back afterwards");

/// Time for compacting and defragmenting afterwards.
const TIDY_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

/// The place of `--load` in tables of loads.
fn load_place(call: &Call) -> Outcome<usize> {
    let name = call.flags.text("load");
    let names = [["s", "small"], ["m", "medium"], ["l", "large"], ["xl", "xLarge"]];
    let place = names.iter().position(|names| names.contains(&name));
    place.ok_or_else(|| Failure::new(exit::BAD_FEATURE, format!("unknown load option {name}")))
}

/// So many clients, each with a connection of its own.
async fn clients(call: &mut Call, count: usize) -> Outcome<Vec<Client>> {
    let (config, _) = call.settle().await?;
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(connect(config.clone()).await?);
    }
    Ok(clients)
}

/// Refuses a prefix below which somebody has keys: they would be deleted afterwards.
async fn must_be_empty(client: &Client, prefix: &str, hint: &str) -> Outcome {
    let request = RangeRequest {
        key: prefix.to_owned().into(),
        range_end: prefix_end(prefix.as_bytes()).into(),
        limit: 1,
        ..RangeRequest::default()
    };
    let answer = client.kv().range(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    if answer.kvs.is_empty() {
        return Ok(());
    }
    let prefix = quote(prefix.as_bytes());
    Err(Failure::new(exit::INVALID_INPUT, format!("prefix {prefix} has keys. Delete with {hint} first")))
}

/// Deletes what was written. Returns the revision of the deletion.
async fn delete(client: &Client, prefix: &str, deadline: Deadline) -> Result<i64, milepost_client::Error> {
    let request = DeleteRangeRequest {
        key: prefix.to_owned().into(),
        range_end: prefix_end(prefix.as_bytes()).into(),
        prev_kv: false,
    };
    let answer = client.kv().delete_range(request, deadline).await?;
    Ok(answer.header.map_or(0, |header| header.revision))
}

async fn compact(client: &Client, revision: i64) -> Outcome {
    out::line(format_args!("Compacting with revision {revision}"))?;
    let request = CompactionRequest { revision, physical: true };
    client.kv().compact(request, Deadline::after(TIDY_WITHIN)).await.map_err(Failure::rpc)?;
    out::line(format_args!("Compacted with revision {revision}"))
}

async fn defragment(call: &mut Call) -> Outcome {
    let (config, _) = call.settle().await?;
    for endpoint in &config.endpoints {
        let name = quote(endpoint.as_bytes());
        out::line(format_args!("Defragmenting {name}"))?;
        let client = alone(&config, endpoint).await?;
        let answer = client.maintenance().defragment(DefragmentRequest {}, Deadline::after(TIDY_WITHIN)).await;
        answer.map_err(Failure::rpc)?;
        out::line(format_args!("Defragmented {name}"))?;
    }
    Ok(())
}

/// Tells which errors came how often; whether there were none.
fn tell_errors(measured: &load::Measured) -> Outcome<bool> {
    if measured.errors.is_empty() {
        return Ok(true);
    }
    out::line(format_args!("FAIL: too many errors"))?;
    for (error, count) in &measured.errors {
        out::line(format_args!("FAIL: ERROR({error}) -> {count}"))?;
    }
    Ok(false)
}
