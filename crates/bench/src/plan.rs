//! The order of phases for each command, and the measuring around the one that counts.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fanout::Fanout;
use crate::keys::{Keys, mix};
use crate::load::{Load, LoadError, Outcome, Shape};
use crate::meter::{Latency, round};
use crate::metrics;
use crate::options::{Command, Options};
use crate::proc::{self, Usage};
use crate::report::{Report, Server, per};
use crate::tickets::Until;
use crate::work::{
    Acknowledged, Count, Fill, Grant, KeepAlive, Leases, List, Put, Range, ReadBack, Revoke, TxnMixed, TxnPut, Work,
};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The load could not be made.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The server's process could not be looked at.
    #[error("--server-pid: {0}; is it running, and yours?")]
    Process(#[from] io::Error),
}

/// Runs everything that `options` ask for.
///
/// # Errors
/// See [`RunError`]. Errors of measured requests are part of the report instead.
pub fn execute(options: &Options) -> Result<Report, RunError> {
    let before = servers(options)?;
    let keys =
        Arc::new(Keys::new(options.key_size, options.val_size, options.key_space, options.sequential, options.seed));
    match options.command {
        Command::Watch { watchers, streams } => fanout(options, &keys, watchers, streams, &before),
        Command::LeaseKeepAlive { leases } => keepalive(options, leases, &before),
        Command::LeaseGrant => grant(options, &before),
        _ => kv(options, &keys, &before),
    }
}

fn kv(options: &Options, keys: &Arc<Keys>, before: &Usage) -> Result<Report, RunError> {
    let load = Load::connect(&options.shape, options.patience)?;
    match options.command {
        Command::Range => fill(&load, keys, false)?,
        Command::List { .. } | Command::TxnMixed { .. } => fill(&load, keys, true)?,
        _ => {}
    }
    let measured = measure(options, &load, kv_work(options, keys))?;
    let puts_per_write = match options.command {
        Command::Put | Command::TxnMixed { .. } => 1,
        Command::TxnPut { ops } => ops,
        _ => 0,
    };
    let compared = match puts_per_write {
        0 => comparisons(options, &measured),
        _ => 0,
    };
    let mut report = measured.report(options, before, compared);
    if puts_per_write > 0 && options.sample > 0 {
        let samples = thin(&measured.outcome.samples.kept, options.sample);
        read_back(&load, ReadBack { keys: keys.clone(), samples, puts_per_write }, &mut report)?;
    }
    Ok(report)
}

fn kv_work(options: &Options, keys: &Arc<Keys>) -> Arc<dyn Work> {
    let keys = keys.clone();
    let serializable = options.serializable;
    match options.command {
        Command::List { limit, count_only } => {
            Arc::new(List { keys, limit, count_only, serializable, check_every: check_every(options) })
        }
        Command::TxnPut { ops } => Arc::new(TxnPut { keys, ops }),
        Command::TxnMixed { read } => Arc::new(TxnMixed { keys, read }),
        Command::Range => Arc::new(Range { keys, serializable, check_every: check_every(options) }),
        Command::Put | Command::LeaseGrant | Command::LeaseKeepAlive { .. } | Command::Watch { .. } => {
            Arc::new(Put { keys })
        }
    }
}

/// One answer in so many is compared to the byte: a full comparison of each would cost more than the request.
fn check_every(options: &Options) -> u64 {
    const DISTANCE: u64 = 64;
    if options.sample == 0 { 0 } else { DISTANCE }
}

fn comparisons(options: &Options, measured: &Measured) -> u64 {
    match check_every(options) {
        0 => 0,
        distance => measured.outcome.good.div_ceil(distance),
    }
}

/// Writes all keys unless they are there already: a loaded server is used again. With `alone`, no other keys may lie
/// between them.
fn fill(load: &Load, keys: &Arc<Keys>, alone: bool) -> Result<(), RunError> {
    // More keys than ours do not show whether all of ours are among them: only an exact count spares the loading.
    let exact = Count { keys: keys.clone(), alone: true };
    if load.prepare("counting the keys", Arc::new(exact), Until::Total(1)).is_ok() {
        return Ok(());
    }
    let fill = Fill::new(keys.clone());
    let tickets = fill.tickets();
    load.prepare("loading the keys", Arc::new(fill), Until::Total(tickets))?;
    let count = Count { keys: keys.clone(), alone };
    load.prepare("counting the loaded keys", Arc::new(count), Until::Total(1))?;
    Ok(())
}

fn read_back(load: &Load, work: ReadBack, report: &mut Report) -> Result<(), RunError> {
    let tickets = work.tickets();
    if tickets == 0 {
        return Ok(());
    }
    let (outcome, _) = load.run(Arc::new(work), Until::Total(tickets), None, || ())?;
    report.compared += outcome.good;
    report.errors += outcome.failed();
    for (text, count) in outcome.errors {
        *report.error_texts.entry(text).or_default() += count;
    }
    Ok(())
}

/// An even choice of at most `most`.
fn thin(samples: &[Acknowledged], most: usize) -> Vec<Acknowledged> {
    let step = samples.len().div_ceil(most).max(1);
    samples.iter().step_by(step).copied().collect()
}

fn keepalive(options: &Options, count: u64, before: &Usage) -> Result<Report, RunError> {
    let load = Load::connect(&options.shape, options.patience)?;
    let leases = Arc::new(Leases { first: unused_lease_id(), count });
    load.prepare("granting leases", Arc::new(Grant(leases.clone())), Until::Total(count))?;
    let measured = measure(options, &load, Arc::new(KeepAlive(leases.clone())))?;
    load.prepare("revoking leases", Arc::new(Revoke(leases)), Until::Total(count))?;
    Ok(measured.report(options, before, measured.outcome.good))
}

fn grant(options: &Options, before: &Usage) -> Result<Report, RunError> {
    let load = Load::connect(&options.shape, options.patience)?;
    if !options.warmup.is_zero() {
        let leases = fresh_leases();
        let work = Arc::new(Grant(leases.clone()));
        let granted = load.prepare("warming up", work, Until::Duration(options.warmup))?;
        load.prepare("revoking leases", Arc::new(Revoke(leases)), Until::Total(granted))?;
    }
    let leases = fresh_leases();
    let measured = watched(options, &load, Arc::new(Grant(leases.clone())))?;
    let granted = measured.outcome.good;
    // After an error it is not known which ids were granted; the leases end by themselves.
    if measured.outcome.failed() == 0 {
        load.prepare("revoking leases", Arc::new(Revoke(leases)), Until::Total(granted))?;
    }
    Ok(measured.report(options, before, granted))
}

fn fresh_leases() -> Arc<Leases> {
    Arc::new(Leases { first: unused_lease_id(), count: u64::MAX })
}

/// The first of many ids that no other run has used: the present moment, well mixed, in the lower half of the positive
/// numbers so that there is room above.
fn unused_lease_id() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    (mix(now) >> 2) as i64 + 1
}

fn fanout(
    options: &Options,
    keys: &Arc<Keys>,
    watchers: u64,
    streams: u64,
    before: &Usage,
) -> Result<Report, RunError> {
    let fanout = Fanout::open(options, keys.clone(), watchers, streams)?;
    let shape = Shape { conns: options.shape.clients.min(100), threads: 1, ..options.shape.clone() };
    let load = Load::connect(&shape, options.patience)?;
    let watch = Watch::start(options)?;
    let (puts, tickets) = load.run(fanout.puts(), options.until, options.rate, || ())?;
    let events = fanout.collect(puts.good + puts.failed());
    let mut outcome = Outcome { meter: events.meter, good: events.received, errors: puts.errors, ..Outcome::default() };
    outcome.last = events.last.max(puts.last);
    for (text, count) in events.errors {
        *outcome.errors.entry(text).or_default() += count;
    }
    let measured = watch.stop(options, outcome, tickets.start(), 0)?;
    Ok(measured.report(options, before, events.received))
}

/// Warms up, then runs the phase that counts.
fn measure(options: &Options, load: &Load, work: Arc<dyn Work>) -> Result<Measured, RunError> {
    if !options.warmup.is_zero() {
        load.prepare("warming up", work.clone(), Until::Duration(options.warmup))?;
    }
    watched(options, load, work)
}

/// Runs the phase that counts, with an eye on the server.
fn watched(options: &Options, load: &Load, work: Arc<dyn Work>) -> Result<Measured, RunError> {
    let watch = Watch::start(options)?;
    let mut anon_max = 0;
    let look = || {
        let anon = options.server_pids.iter().filter_map(|pid| Some(proc::memory(*pid).ok()?.0)).sum();
        anon_max = anon_max.max(anon);
    };
    let (outcome, tickets) = load.run(work, options.until, options.rate, look)?;
    watch.stop(options, outcome, tickets.start(), anon_max)
}

/// All counters as they were when the measured phase began.
struct Watch {
    server: Usage,
    own: Option<Usage>,
    syncs: Option<f64>,
}

impl Watch {
    fn start(options: &Options) -> Result<Watch, RunError> {
        let syncs = metrics::sum(&options.shape.endpoints, metrics::WAL_SYNCS);
        Ok(Watch { syncs, server: servers(options)?, own: Usage::of(std::process::id()).ok() })
    }

    fn stop(self, options: &Options, outcome: Outcome, start: Instant, anon_max: u64) -> Result<Measured, RunError> {
        // The costly page comes last here and first above: its own cost stays outside.
        let own = Usage::of(std::process::id()).ok().zip(self.own).map(|(now, then)| now.since(&then).cpu);
        let server = match servers(options) {
            Ok(now) => Some(now.since(&self.server)),
            // A server that died meanwhile shows in the errors of its requests: they are the better report.
            Err(_) if outcome.failed() > 0 => None,
            Err(error) => return Err(error),
        };
        let syncs = metrics::sum(&options.shape.endpoints, metrics::WAL_SYNCS).zip(self.syncs);
        let elapsed = outcome.last.map_or(Duration::ZERO, |last| last.saturating_duration_since(start));
        Ok(Measured { outcome, elapsed, server, own, syncs: syncs.map(|(now, then)| now - then), anon_max })
    }
}

/// What the measured phase brought and cost.
struct Measured {
    outcome: Outcome,
    elapsed: Duration,
    server: Option<Usage>,
    own: Option<Duration>,
    syncs: Option<f64>,
    anon_max: u64,
}

impl Measured {
    fn report(&self, options: &Options, before: &Usage, compared: u64) -> Report {
        let seconds = self.elapsed.as_secs_f64();
        let ops = self.outcome.good;
        let latency: Latency = self.outcome.meter.summary();
        let watched = self.server.as_ref().filter(|_| !options.server_pids.is_empty());
        Report {
            command: options.name,
            ops,
            errors: self.outcome.failed(),
            seconds: (seconds * 1e6).round() / 1e6,
            ops_per_second: per(ops as f64, seconds),
            latency,
            bench_cpu_us_per_op: self.own.map(|cpu| per(cpu.as_secs_f64() * 1e6, ops as f64)),
            server: watched.map(|spent| Server::new(before, spent, self.anon_max, ops, seconds)),
            wal_syncs_per_second: self.syncs.map(|syncs| round(if seconds > 0.0 { syncs / seconds } else { 0.0 })),
            compared,
            error_texts: BTreeMap::clone(&self.outcome.errors),
        }
    }
}

fn servers(options: &Options) -> Result<Usage, RunError> {
    let mut sum = Usage::default();
    for pid in &options.server_pids {
        sum.add(&Usage::of(*pid)?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_sample_is_small_and_spread() {
        let samples: Vec<Acknowledged> = (0..1500).map(|n| Acknowledged { n, revision: 1 }).collect();
        assert_eq!(thin(&samples, 1500).len(), 1500);
        let few = thin(&samples, 1000);
        assert_eq!((few.len(), few[749].n), (750, 1498));
        assert!(thin(&[], 10).is_empty());
    }
}
