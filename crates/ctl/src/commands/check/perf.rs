//! `check perf`: a minute of writes, and a verdict.

use std::time::Duration;

use milepost_client::{Client, Deadline};

use super::load::{Load, Measured, Until};
use super::{AUTO_COMPACT, AUTO_DEFRAG, LOAD, TIDY_WITHIN};
use crate::call::Call;
use crate::frame::{Flag, Spec};
use crate::out;
use crate::outcome::{Failure, Outcome, exit};

pub(super) const COMMAND: Spec = Spec {
    name: "perf",
    usage: "perf [options]",
    short: "Writes for a minute and judges rate and delays",
    flags: &[
        LOAD,
        Flag::text("prefix", "/etcdctl-check-perf/", "keys are written below this, and deleted afterwards"),
        AUTO_COMPACT,
        AUTO_DEFRAG,
    ],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

/// Writes in a second, and clients that share them, for each load.
const LOADS: [(u32, usize); 4] = [(150, 50), (1000, 200), (8000, 500), (15_000, 1000)];

const DURATION: Duration = Duration::from_secs(60);

async fn run(mut call: Call) -> Outcome {
    let (per_second, count) = LOADS[super::load_place(&call)?];
    let prefix = call.flags.text("prefix").to_owned();
    let clients = super::clients(&mut call, count).await?;
    let first = clients[0].clone();
    super::must_be_empty(&first, &prefix, &format!("'etcdctl del --prefix {prefix}'")).await?;
    let until = Until::Time { duration: DURATION, per_second };
    let load = Load { prefix: &prefix, key_bytes: 256, value_bytes: 1024, until };
    let measured = super::load::run(&load, clients).await;
    clean_up(&first, &prefix, call.flags.bool("auto-compact")).await?;
    if call.flags.bool("auto-defrag") {
        super::defragment(&mut call).await?;
    }
    judge(&measured, per_second)
}

async fn clean_up(client: &Client, prefix: &str, compact: bool) -> Outcome {
    match super::delete(client, prefix, Deadline::after(TIDY_WITHIN)).await {
        Ok(revision) if compact => super::compact(client, revision).await,
        Ok(_) => Ok(()),
        Err(error) => out::line(format_args!("FAIL: Cleanup failed during key deletion: ERROR({error})")),
    }
}

/// At least nine tenths of the rate, no write above half a second, and no scatter above a tenth.
fn judge(measured: &Measured, per_second: u32) -> Outcome {
    let mut passed = super::tell_errors(measured)?;
    let mut tell = |good: bool, pass: String, fail: String| {
        passed &= good;
        out::line(format_args!("{}", if good { pass } else { fail }))
    };
    let rate = measured.per_second();
    let writes = rate as u64 + 1;
    tell(
        rate / f64::from(per_second) > 0.9,
        format!("PASS: Throughput is {writes} writes/s"),
        format!("FAIL: Throughput too low: {writes} writes/s"),
    )?;
    let slowest = measured.slowest();
    tell(
        slowest <= 0.5,
        format!("PASS: Slowest request took {slowest:.6}s"),
        format!("Slowest request took too long: {slowest:.6}s"),
    )?;
    let deviation = measured.deviation();
    tell(deviation <= 0.1, format!("PASS: Stddev is {deviation:.6}s"), format!("Stddev too high: {deviation:.6}s"))?;
    if passed {
        return out::line(format_args!("PASS"));
    }
    out::line(format_args!("FAIL"))?;
    Err(Failure::silent(exit::ERROR))
}
