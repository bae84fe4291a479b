//! The order of phases for each command, and the measuring around the one that counts.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::commits::{self, Poll, Timed};
use crate::expiry::{Ending, LeasedPut, TimedGrant, Vigil};
use crate::fanout::{Crowd, Events, Fanout, Seats};
use crate::keys::{Keys, mix};
use crate::load::{Load, LoadError, Outcome, Shape};
use crate::meter::{Latency, round};
use crate::metrics;
use crate::options::{Command, Options};
use crate::proc::{self, Usage};
use crate::report::{Report, Server, cpu_per, per};
use crate::tickets::Until;
use crate::work::{
    Acknowledged, Compact, Count, Defragment, Delete, Fill, Gone, Grant, KeepAlive, Kube, Leases, List, Lock, NEVER,
    Newest, Put, Range, ReadBack, Revoke, Snapshot, Tally, TxnMixed, TxnPut, Work,
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
    /// The server says nothing of its commits.
    #[error("--commits: {0}")]
    Commits(#[from] commits::Untold),
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
        Command::Watch { watchers, streams } => {
            fanout(options, &keys, Crowd { watchers, streams, seats: Seats::Keys }, &before)
        }
        Command::Kube { page, watchers, streams } => {
            kube(options, &keys, page, Crowd { watchers, streams, seats: Seats::Slices }, &before)
        }
        Command::LeaseKeepAlive { leases } => keepalive(options, leases, &before),
        Command::LeaseGrant => grant(options, &before),
        Command::LeaseExpire { leases, ttl } => expire(options, leases, ttl, &before),
        Command::Lock { locks } => lock(options, locks, &before),
        Command::Delete => delete(options, &keys, &before),
        Command::Load { revisions } => load_keys(options, &keys, revisions, &before),
        Command::Snapshot => single(options, Arc::new(Snapshot), options.until, &before),
        Command::Defragment => defragment(options, &before),
        Command::Compact { keep } => compact(options, keep, &before),
        Command::Put | Command::Range | Command::List { .. } | Command::TxnPut { .. } | Command::TxnMixed { .. } => {
            kv(options, &keys, &before)
        }
    }
}

/// The work alone, nothing before and nothing after it.
fn single(options: &Options, work: Arc<dyn Work>, until: Until, before: &Usage) -> Result<Report, RunError> {
    let load = Load::connect(&options.shape, options.patience)?;
    let options = Options { until, ..options.clone() };
    let measured = measure(&options, &load, work)?;
    Ok(measured.report(&options, before, measured.outcome.good))
}

fn delete(options: &Options, keys: &Arc<Keys>, before: &Usage) -> Result<Report, RunError> {
    let load = Load::connect(&options.shape, options.patience)?;
    fill(&load, keys, false)?;
    let asked = if let Until::Total(total) = options.until { total } else { u64::MAX };
    let options = Options { until: Until::Total(asked.min(keys.space)), ..options.clone() };
    let measured = watched(&options, &load, Arc::new(Delete { keys: keys.clone() }))?;
    let mut report = measured.report(&options, before, 0);
    if options.sample > 0 {
        let gone = Gone { keys: keys.clone(), samples: thin(&measured.outcome.samples.kept, options.sample) };
        let tickets = gone.tickets();
        read_back(&load, Arc::new(gone), tickets, &mut report)?;
    }
    Ok(report)
}

fn load_keys(options: &Options, keys: &Arc<Keys>, revisions: u64, before: &Usage) -> Result<Report, RunError> {
    let fill = Fill::new(keys.clone());
    let until = Until::Total(fill.tickets() * revisions);
    let load = Load::connect(&options.shape, options.patience)?;
    let options = Options { until, ..options.clone() };
    let measured = watched(&options, &load, Arc::new(fill))?;
    let mut report = measured.report(&options, before, 0);
    let count = Count { keys: keys.clone(), alone: false };
    read_back(&load, Arc::new(count), 1, &mut report)?;
    Ok(report)
}

fn defragment(options: &Options, before: &Usage) -> Result<Report, RunError> {
    // One connection to each, one request on each, one after the other: the client takes tickets round by round.
    let mut sum: Option<Report> = None;
    for endpoint in &options.shape.endpoints {
        let shape = Shape { endpoints: vec![endpoint.clone()], conns: 1, clients: 1, threads: 1 };
        let one = Options { shape, ..options.clone() };
        let report = single(&one, Arc::new(Defragment), Until::Total(1), before)?;
        if !report.clean() || sum.as_ref().is_none_or(|slowest| report.seconds > slowest.seconds) {
            let stop = !report.clean();
            sum = Some(report);
            if stop {
                break;
            }
        }
    }
    Ok(sum.expect("there is an endpoint"))
}

fn compact(options: &Options, keep: u64, before: &Usage) -> Result<Report, RunError> {
    let load = Load::connect(&options.shape, options.patience)?;
    let newest = load.revision("asking for the newest revision", Arc::new(Newest))?;
    let revision = newest.saturating_sub_unsigned(keep).max(1);
    let options = Options { until: Until::Total(1), ..options.clone() };
    let measured = watched(&options, &load, Arc::new(Compact { revision }))?;
    Ok(measured.report(&options, before, measured.outcome.good))
}

fn lock(options: &Options, locks: u64, before: &Usage) -> Result<Report, RunError> {
    let load = Load::connect(&options.shape, options.patience)?;
    let count = options.shape.clients as u64;
    let leases = Arc::new(Leases { first: unused_lease_id(), count, ttl: NEVER });
    load.prepare("granting leases", Arc::new(Grant(leases.clone())), Until::Total(count))?;
    let measured = measure(options, &load, Arc::new(Lock::new(leases.clone(), locks)))?;
    if measured.outcome.failed() == 0 {
        load.prepare("revoking leases", Arc::new(Revoke(leases)), Until::Total(count))?;
    }
    Ok(measured.report(options, before, measured.outcome.good))
}

fn expire(options: &Options, count: u64, ttl: Duration, before: &Usage) -> Result<Report, RunError> {
    let load = Load::connect(&options.shape, options.patience)?;
    let leases = Arc::new(Leases { first: unused_lease_id(), count, ttl: ttl.as_secs() as i64 });
    let ending = Arc::new(Ending::new(leases));
    let vigil = Vigil::keep(&options.shape.endpoints[0], ending.clone(), options.patience)?;
    load.prepare("granting leases", Arc::new(TimedGrant(ending.clone())), Until::Total(count))?;
    load.prepare("writing the leases' keys", Arc::new(LeasedPut(ending.clone())), Until::Total(count))?;
    let start = ending.first_due();
    if start <= Instant::now() {
        let text = format!("{count} leases were not granted within their time to live: give a longer --ttl");
        return Err(LoadError::Preparation { what: "granting leases", text }.into());
    }
    let watch = Watch::start(options)?;
    let mut anon_max = 0;
    let ends = vigil.wait(&ending, options.patience, || anon_max = anon_max.max(anon(options)));
    let outcome =
        Outcome { meter: ends.meter, good: ends.heard, errors: ends.errors, last: ends.last, ..Outcome::default() };
    let measured = watch.stop(options, outcome, start, anon_max)?;
    Ok(measured.report(options, before, measured.outcome.good))
}

fn kube(options: &Options, keys: &Arc<Keys>, page: u64, crowd: Crowd, before: &Usage) -> Result<Report, RunError> {
    let load = Load::connect(&options.shape, options.patience)?;
    fill(&load, keys, true)?;
    let fanout = Fanout::open(options, keys.clone(), crowd)?;
    let tally = Arc::new(Tally::default());
    let work = Kube { keys: keys.clone(), page, stamps: fanout.stamps(), tally: tally.clone() };
    let mut measured = watched(options, &load, Arc::new(work))?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let Events { meter, received, errors, .. } = fanout.collect_events(count(&tally.written));
    for (text, count) in errors {
        *measured.outcome.errors.entry(text).or_default() += count;
    }
    let mut report = measured.report(options, before, received);
    let way = meter.summary();
    report.extras.extend([
        ("updates_overtaken", count(&tally.overtaken) as f64),
        ("events", received as f64),
        ("event_p50_us", way.p50_us),
        ("event_p99_us", way.p99_us),
    ]);
    Ok(report)
}

fn kv(options: &Options, keys: &Arc<Keys>, before: &Usage) -> Result<Report, RunError> {
    let load = Load::connect(&options.shape, options.patience)?;
    match options.command {
        _ if options.loaded => {}
        Command::Range => fill(&load, keys, false)?,
        Command::List { .. } | Command::TxnMixed { .. } => fill(&load, keys, true)?,
        _ => {}
    }
    if options.commits {
        return beside_commits(options, &load, keys, before);
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
        let back = ReadBack { keys: keys.clone(), samples, puts_per_write };
        let tickets = back.tickets();
        read_back(&load, Arc::new(back), tickets, &mut report)?;
    }
    Ok(report)
}

/// Puts, with the server's own word on when its store was committing.
fn beside_commits(options: &Options, load: &Load, keys: &Arc<Keys>, before: &Usage) -> Result<Report, RunError> {
    let put = Put { keys: keys.clone() };
    let work = Arc::new(Timed::new(put));
    if !options.warmup.is_zero() {
        load.prepare("warming up", work.clone(), Until::Duration(options.warmup))?;
        work.take();
    }
    let poll = Poll::start(&options.shape.endpoints[0])?;
    let measured = watched(options, load, work.clone())?;
    let commits = poll.stop()?;
    let (during, otherwise) = commits.split(&work.take());
    let mut report = measured.report(options, before, 0);
    let [during_p99, otherwise_p99] = [&during, &otherwise].map(|meter| meter.summary().p99_us);
    report.extras.extend([
        ("commits", commits.count() as f64),
        ("commit_mean_us", commits.mean_us()),
        ("puts_beside_commits", during.count() as f64),
        ("commit_p99_us", during_p99),
        ("no_commit_p99_us", otherwise_p99),
    ]);
    if otherwise_p99 > 0.0 && during.count() > 0 {
        report.extras.insert("commit_p99_ratio", (during_p99 / otherwise_p99 * 100.0).round() / 100.0);
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
        _ => Arc::new(Put { keys }),
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

/// Looks at what was acknowledged; what does not fit joins the report's errors.
fn read_back(load: &Load, work: Arc<dyn Work>, tickets: u64, report: &mut Report) -> Result<(), RunError> {
    if tickets == 0 {
        return Ok(());
    }
    let (outcome, _) = load.run(work, Until::Total(tickets), None, || ())?;
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
    let leases = Arc::new(Leases { first: unused_lease_id(), count, ttl: NEVER });
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
    Arc::new(Leases { first: unused_lease_id(), count: u64::MAX, ttl: NEVER })
}

/// The first of many ids that no other run has used: the present moment, well mixed, in the lower half of the positive
/// numbers so that there is room above.
fn unused_lease_id() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    (mix(now) >> 2) as i64 + 1
}

fn fanout(options: &Options, keys: &Arc<Keys>, crowd: Crowd, before: &Usage) -> Result<Report, RunError> {
    let fanout = Fanout::open(options, keys.clone(), crowd)?;
    let shape = Shape { conns: options.shape.clients.min(100), threads: 1, ..options.shape.clone() };
    let load = Load::connect(&shape, options.patience)?;
    let watch = Watch::start(options)?;
    let mut anon_max = 0;
    let (puts, tickets) =
        load.run(fanout.puts(), options.until, options.rate, || anon_max = anon_max.max(anon(options)))?;
    let events = fanout.collect(puts.good + puts.failed());
    let mut outcome = Outcome { meter: events.meter, good: events.received, errors: puts.errors, ..Outcome::default() };
    outcome.last = events.last.max(puts.last);
    for (text, count) in events.errors {
        *outcome.errors.entry(text).or_default() += count;
    }
    let measured = watch.stop(options, outcome, tickets.start(), anon_max)?;
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
    let (outcome, tickets) = load.run(work, options.until, options.rate, || anon_max = anon_max.max(anon(options)))?;
    watch.stop(options, outcome, tickets.start(), anon_max)
}

/// Anonymous memory of the server's processes now; what cannot be read counts as nothing.
fn anon(options: &Options) -> u64 {
    options.server_pids.iter().filter_map(|pid| Some(proc::memory(*pid).ok()?.0)).sum()
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
            bench_cpu_us_per_op: self.own.map(|cpu| cpu_per(cpu, ops)),
            server: watched.map(|spent| Server::new(before, spent, self.anon_max, ops, seconds)),
            wal_syncs_per_second: self.syncs.map(|syncs| round(if seconds > 0.0 { syncs / seconds } else { 0.0 })),
            received_bytes_per_second: per(self.outcome.received as f64, seconds),
            extras: BTreeMap::new(),
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
