//! `check datascale`: how much memory a server takes for so many keys.

use milepost_client::{Client, Deadline};

use super::load::{Load, Until};
use super::{AUTO_COMPACT, AUTO_DEFRAG, LOAD, metrics};
use crate::call::Call;
use crate::frame::{Flag, Spec};
use crate::out;
use crate::outcome::{Failure, Outcome, exit};

pub(super) const COMMAND: Spec = Spec {
    name: "datascale",
    usage: "datascale [options]",
    short: "Writes keys and tells how much memory a server took for them",
    long: "Writes keys and tells how much memory a server took for them: the first endpoint, by its /metrics.",
    flags: &[
        LOAD,
        Flag::text("prefix", "/etcdctl-check-datascale/", "keys are written below this, and deleted afterwards"),
        AUTO_COMPACT,
        AUTO_DEFRAG,
    ],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

/// Keys, and clients that share them, for each load.
const LOADS: [(usize, usize); 4] = [(10_000, 50), (100_000, 200), (1_000_000, 500), (3_000_000, 1000)];

/// Bytes of a key behind the prefix, and of a value.
const HALF_BYTES: usize = 512;

async fn run(mut call: Call) -> Outcome {
    let (keys, count) = LOADS[super::load_place(&call)?];
    let prefix = call.flags.text("prefix").to_owned();
    let clients = super::clients(&mut call, count).await?;
    let first = clients[0].clone();
    super::must_be_empty(&first, &prefix, &format!("etcdctl del --prefix {prefix}")).await?;
    let before = memory(&first, "before").await?;
    out::line(format_args!(
        "Start data scale check for work load [{keys} key-value pairs, {} bytes per key-value, {count} concurrent \
         clients].",
        2 * HALF_BYTES
    ))?;
    let load = Load { prefix: &prefix, key_bytes: HALF_BYTES, value_bytes: HALF_BYTES, until: Until::Count(keys) };
    let measured = super::load::run(&load, clients).await;
    let after = memory(&first, "after").await?;
    let revision = super::delete(&first, &prefix, Deadline::NEVER).await.map_err(Failure::rpc)?;
    if call.flags.bool("auto-compact") {
        super::compact(&first, revision).await?;
    }
    if call.flags.bool("auto-defrag") {
        super::defragment(&mut call).await?;
    }
    if !super::tell_errors(&measured)? {
        return Err(Failure::silent(exit::ERROR));
    }
    let used = (after - before) / f64::from(1 << 20);
    out::line(format_args!("PASS: Approximate system memory used : {used:.2} MB."))
}

async fn memory(client: &Client, when: &str) -> Outcome<f64> {
    match metrics::resident_bytes(client).await {
        Ok(bytes) => return Ok(bytes),
        Err(why) => out::line(format_args!("{why}"))?,
    }
    out::line(format_args!("FAIL: Could not read process_resident_memory_bytes {when} the put operations."))?;
    Err(Failure::silent(exit::ERROR))
}
