//! What a machine is told once, at open.

use std::time::Duration;

use milepost_types::{ClusterId, MemberId};

use crate::cluster::Version;

/// The version of etcd that we speak, as `/version` and Status show it. The one place where it is written.
pub const SERVER_VERSION: &str = "3.7.1";

/// Quota when the flag is 0: 2 GiB. Source: etcd `DefaultQuotaBytes`.
pub const DEFAULT_QUOTA_BYTES: i64 = 2 * 1024 * 1024 * 1024;

/// Longest TTL that a lease may ask for, in seconds. Source: etcd `MaxLeaseTTL`.
pub const MAX_LEASE_TTL: i64 = 9_000_000_000;

/// Local configuration.
///
/// Three of these decide replicated state, as they do in etcd, and so must be equal on all members: `min_lease_ttl`,
/// `max_learners`, and (only for who hears NOSPACE, never for what is written) `quota_bytes`.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member; alarms that it raises carry it.
    pub member_id: MemberId,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Live bytes above which writes are refused: 0 = [`DEFAULT_QUOTA_BYTES`], negative = no quota.
    pub quota_bytes: i64,
    /// Most operations per transaction level (`--max-txn-ops`).
    pub max_txn_ops: usize,
    /// `--max-request-bytes`; RangeStream aims at chunks of this size.
    pub max_request_bytes: usize,
    /// Shorter TTLs are raised to this, in seconds: ceil(1.5 × election timeout).
    pub min_lease_ttl: i64,
    /// Learners that the cluster may have at once (`--max-learners`).
    pub max_learners: usize,
    /// Longest time between checkpoints of a lease that nobody renews; zero switches checkpoints off.
    pub lease_checkpoint_interval: Duration,
    /// The version of etcd that this member speaks; a cluster version above its minor stops the member.
    pub server_version: Version,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            member_id: MemberId(0),
            cluster_id: ClusterId(0),
            quota_bytes: 0,
            max_txn_ops: 128,
            max_request_bytes: 3 * 512 * 1024,
            min_lease_ttl: 2,
            max_learners: 1,
            lease_checkpoint_interval: Duration::from_secs(30),
            server_version: Version::parse(SERVER_VERSION).expect("our own version is well formed"),
        }
    }
}

impl Config {
    /// The quota in force; `None` when there is none.
    #[must_use]
    pub fn quota(&self) -> Option<u64> {
        match self.quota_bytes {
            0 => Some(DEFAULT_QUOTA_BYTES.unsigned_abs()),
            bytes if bytes < 0 => None,
            bytes => Some(bytes.unsigned_abs()),
        }
    }
}
