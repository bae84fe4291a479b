//! How often each thing happened. What never happens is not tested.

use std::collections::BTreeMap;
use std::fmt;

/// Everything that must have happened in a suite, at least once.
pub const MUST: &[&str] = &[
    "apply: chunks that ended between two entries of one hand-out",
    "clients: compare-and-swap carried out",
    "clients: compare-and-swap refused",
    "clients: compactions",
    "clients: deletes",
    "clients: linearizable reads",
    "clients: no answer known",
    "clients: puts",
    "clients: serializable reads",
    "clock: wall clocks set",
    "conf change: learner added",
    "conf change: learner promoted",
    "conf change: member removed",
    "conf change: voter added",
    "crash: at a sync of entries",
    "crash: at a sync of a conf change",
    "crash: at a sync of a term or vote",
    "crash: at a snapshot point",
    "crash: between two syncs",
    "crash: during recovery",
    "crash: lone voter with a learner, at a sync",
    "crash: of the process alone",
    "crash: while a received snapshot is recorded",
    "crash: while a snapshot is received",
    "crashes",
    "disk: failed syncs",
    "disk: slow on a follower",
    "disk: slow on the leader",
    "elections",
    "leader: handed over",
    "leases: checkpoints",
    "leases: ended by time",
    "leases: granted",
    "leases: renewed",
    "leases: revoked by clients",
    "log: entries fetched from disk",
    "log: sectors dropped in a crash",
    "log: sectors kept in a crash",
    "log: segments cut",
    "log: torn tails repaired",
    "log: unsynced writes partly kept",
    "network: cut off, both ways",
    "network: cut off, one way",
    "network: doubled",
    "network: late",
    "network: lost",
    "network: minority with the leader cut off",
    "paused members",
    "reads: requests repeated",
    "removed members that stopped themselves",
    "restarts",
    "snapshot points",
    "snapshots: broken off",
    "snapshots: installed",
    "snapshots: lost on the way",
    "snapshots: sent",
    "store: merges",
    "store: newest commit lost in a crash",
    "store: rows merged that had waited without their values",
];

/// Counters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// One more.
    pub fn add(&mut self, name: &'static str) {
        self.add_many(name, 1);
    }

    /// So many more.
    pub fn add_many(&mut self, name: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// How often.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            self.add_many(name, *count);
        }
    }

    /// What never happened.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        MUST.iter().copied().filter(|name| self.get(name) == 0).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, count)| writeln!(f, "{count:>12}  {name}"))
    }
}
