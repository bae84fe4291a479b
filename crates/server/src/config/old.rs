//! Flags of etcd 3.4 to 3.6 that 3.7 has dropped and scripts still pass. 3.7 ends the start; we go on, and say what to write
//! instead.

use super::table::Kind;

/// What an old flag means today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The flag of this name.
    Flag(&'static str),
    /// The feature gate of this name; the old flag is a bool.
    Gate(&'static str),
    /// Nothing any more if it has this value, the old default or a harmless one; any other ends the start.
    Gone {
        /// Values that ask for nothing.
        harmless: &'static [&'static str],
        /// Why others are refused, and what to do.
        why: &'static str,
    },
    /// Nothing, whatever the value.
    Dropped(&'static str),
    /// `--log-level=debug` if true.
    Debug,
}

/// One old flag.
#[derive(Clone, Copy, Debug)]
pub struct Old {
    /// Without dashes.
    pub name: &'static str,
    /// How its value is spelled.
    pub kind: Kind,
    /// See [`Meaning`].
    pub meaning: Meaning,
}

const PROXY: Meaning =
    Meaning::Gone { harmless: &["off"], why: "the v2 proxy is gone: use a TCP proxy in front of the client port" };
const V2: Meaning =
    Meaning::Gone { harmless: &["false", "0", "f", "F", "FALSE", "False"], why: "the v2 API is not served" };
const V2_DISCOVERY: Meaning =
    Meaning::Gone { harmless: &[""], why: "v2 discovery is gone: name the members in --initial-cluster" };
const OF_PROXY: Meaning = Meaning::Dropped("it belongs to the v2 proxy, which is gone");

/// What `--experimental-NAME` became without the prefix.
const GRADUATED: &[&str] = &[
    "compact-hash-check-time",
    "corrupt-check-time",
    "compaction-batch-limit",
    "compaction-sleep-interval",
    "watch-progress-notify-interval",
    "warning-apply-duration",
    "warning-unary-request-duration",
    "bootstrap-defrag-threshold-megabytes",
    "memory-mlock",
    "snapshot-catchup-entries",
    "downgrade-check-time",
    "max-learners",
    "peer-skip-client-san-verification",
    "enable-distributed-tracing",
    "distributed-tracing-address",
    "distributed-tracing-service-name",
    "distributed-tracing-instance-id",
    "distributed-tracing-sampling-rate",
    "backend-bbolt-freelist-type",
];

/// Old flags whose names or meanings have changed.
const CHANGED: &[Old] = &[
    old("experimental-snapshot-catch-up-entries", Kind::Unsigned, Meaning::Flag("snapshot-catchup-entries")),
    old("experimental-initial-corrupt-check", Kind::Bool, Meaning::Gate("InitialCorruptCheck")),
    old("experimental-compact-hash-check-enabled", Kind::Bool, Meaning::Gate("CompactHashCheck")),
    old("experimental-enable-lease-checkpoint", Kind::Bool, Meaning::Gate("LeaseCheckpoint")),
    old("experimental-enable-lease-checkpoint-persist", Kind::Bool, Meaning::Gate("LeaseCheckpointPersist")),
    old("experimental-txn-mode-write-with-shared-buffer", Kind::Bool, Meaning::Gate("TxnModeWriteWithSharedBuffer")),
    old("experimental-stop-grpc-service-on-defrag", Kind::Bool, Meaning::Gate("StopGRPCServiceOnDefrag")),
    old("discovery", Kind::Text, V2_DISCOVERY),
    old("discovery-proxy", Kind::Text, V2_DISCOVERY),
    old("enable-v2", Kind::Bool, V2),
    old("experimental-enable-v2v3", Kind::Text, Meaning::Gone { harmless: &[""], why: "the v2 API is not served" }),
    old("proxy", Kind::Text, PROXY),
    old("proxy-failure-wait", Kind::Unsigned, OF_PROXY),
    old("proxy-refresh-interval", Kind::Unsigned, OF_PROXY),
    old("proxy-dial-timeout", Kind::Unsigned, OF_PROXY),
    old("proxy-write-timeout", Kind::Unsigned, OF_PROXY),
    old("proxy-read-timeout", Kind::Unsigned, OF_PROXY),
    old("debug", Kind::Bool, Meaning::Debug),
    old("log-output", Kind::Set, Meaning::Flag("log-outputs")),
    old("log-package-levels", Kind::Text, Meaning::Dropped("levels are set for all with --log-level")),
    old("next-cluster-version-compatible", Kind::Bool, Meaning::Dropped("it was for one upgrade of etcd 3.4")),
];

const fn old(name: &'static str, kind: Kind, meaning: Meaning) -> Old {
    Old { name, kind, meaning }
}

/// The old flag `name`, without dashes.
#[must_use]
pub fn find(name: &str) -> Option<Old> {
    if let Some(found) = CHANGED.iter().find(|old| old.name == name) {
        return Some(*found);
    }
    let graduated = name.strip_prefix("experimental-")?;
    let graduated = GRADUATED.iter().find(|known| **known == graduated)?;
    let kind = super::table::find(graduated).map(|flag| flag.kind)?;
    // The name itself is not kept: `graduated` says it all.
    Some(Old { name: graduated, kind, meaning: Meaning::Flag(graduated) })
}

/// Every old name.
pub fn names() -> impl Iterator<Item = String> {
    let graduated = GRADUATED.iter().map(|name| format!("experimental-{name}"));
    graduated.chain(CHANGED.iter().map(|old| old.name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_old_name_leads_somewhere() {
        for name in names() {
            let old = find(&name).unwrap_or_else(|| panic!("{name}"));
            assert!(super::super::table::find(&name).is_none(), "{name} is no old flag");
            match old.meaning {
                Meaning::Flag(to) => assert!(super::super::table::find(to).is_some(), "{name} → {to}"),
                Meaning::Gate(to) => {
                    assert!(super::super::gates::GATES.iter().any(|gate| gate.name == to), "{name} → {to}");
                }
                Meaning::Gone { .. } | Meaning::Dropped(_) | Meaning::Debug => {}
            }
        }
        assert_eq!(find("experimental-nothing").map(|old| old.name), None);
    }
}
