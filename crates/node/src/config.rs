//! How a node is set up.

use crate::compactor::CompactionMode;
use crate::log::Log;
use milepost_machine::member::Member;
use milepost_types::{ClusterId, MemberId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Entries between snapshot points. etcd: `--snapshot-count`.
pub const SNAPSHOT_COUNT: u64 = 10_000;
/// Bytes of entries between snapshot points, whichever comes first: bounds what a restart reads.
pub const SNAPSHOT_BYTES: u64 = 256 << 20;

/// Entries kept behind a snapshot point. etcd: `--snapshot-catchup-entries`.
pub const CATCH_UP_ENTRIES: u64 = 5_000;

/// A running cluster that added this member: it begins with an empty log and hears everything from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The id that the cluster gave this member.
    pub member: MemberId,
    /// The cluster's.
    pub cluster: ClusterId,
    /// Who is in the cluster, this member included: whom to listen to until its own log says who is.
    pub members: Vec<Member>,
}

/// Asked before a cluster is cut down to this member: may these others be dropped? The text says why not.
pub type MayDrop = Arc<dyn Fn(&[Member]) -> Result<(), String> + Send + Sync>;

/// Everything that a node is told at its start.
#[derive(Clone)]
pub struct NodeConfig {
    /// `--name`: this member's name, published to the cluster.
    pub name: String,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--wal-dir`; the log is in `<data-dir>/member/wal` without it.
    pub wal_dir: Option<PathBuf>,
    /// `--advertise-client-urls`, published to the cluster.
    pub client_urls: Vec<String>,
    /// `--initial-cluster`: name → peer URLs. Read only if there is no log yet.
    pub initial_cluster: BTreeMap<String, Vec<String>>,
    /// `--initial-cluster-token`.
    pub cluster_token: String,
    /// `--initial-cluster-state=existing`: instead of founding. Read only if there is no log yet.
    pub join: Option<Join>,
    /// `--force-new-cluster`: whatever others there are, this member goes on alone.
    pub force_new_cluster: Option<MayDrop>,
    /// One tick: `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// `--election-timeout` in ticks.
    pub election_ticks: u64,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// Where election timeouts come from.
    pub seed: u64,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
    /// See [`SNAPSHOT_BYTES`].
    pub snapshot_bytes: u64,
    /// Entries behind a snapshot point that followers may still ask for. `--snapshot-catchup-entries`.
    pub catch_up_entries: u64,
    /// `.snap` files to keep; 0 keeps all. `--max-snapshots`.
    pub max_snapshots: usize,
    /// Log segments to keep; 0 keeps all. `--max-wals`.
    pub max_wals: usize,
    /// Size at which a segment of the log is closed; etcd has no flag for it.
    pub segment_bytes: u64,
    /// Bytes of applied entries that stay in memory for followers; older ones are read from the log.
    pub log_memory_bytes: usize,
    /// `--warning-apply-duration`.
    pub warning_apply: Duration,
    /// `--auto-compaction-mode` and `--auto-compaction-retention`.
    pub compaction: CompactionMode,
    /// Rewrite the store at the start if that gives back so many bytes; 0: never. `--bootstrap-defrag-threshold-megabytes`.
    pub bootstrap_defragment_bytes: u64,
    /// What the state machine is told; its ids are filled in by the node.
    pub machine: milepost_machine::Config,
    /// How watches are served.
    pub watch: milepost_mvcc::watch::HubOptions,
    /// Where messages go.
    pub log: Arc<dyn Log>,
}

impl NodeConfig {
    /// etcd's defaults for a lone member `name` with this directory.
    #[must_use]
    pub fn new(name: &str, data_dir: PathBuf, log: Arc<dyn Log>) -> Self {
        let peer_url = "http://localhost:2380".to_owned();
        Self {
            name: name.to_owned(),
            data_dir,
            wal_dir: None,
            client_urls: vec!["http://localhost:2379".to_owned()],
            initial_cluster: BTreeMap::from([(name.to_owned(), vec![peer_url])]),
            cluster_token: "etcd-cluster".to_owned(),
            join: None,
            force_new_cluster: None,
            heartbeat: Duration::from_millis(100),
            election_ticks: 10,
            pre_vote: true,
            seed: 0,
            snapshot_count: SNAPSHOT_COUNT,
            snapshot_bytes: SNAPSHOT_BYTES,
            catch_up_entries: CATCH_UP_ENTRIES,
            max_snapshots: 5,
            max_wals: 5,
            segment_bytes: milepost_wal::SEGMENT_BYTES,
            log_memory_bytes: crate::core::MEMORY_BYTES_MAX,
            warning_apply: Duration::from_millis(100),
            compaction: CompactionMode::Off,
            bootstrap_defragment_bytes: 0,
            machine: milepost_machine::Config::default(),
            watch: milepost_mvcc::watch::HubOptions::default(),
            log,
        }
    }

    /// Where the log is.
    #[must_use]
    pub fn wal_path(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("member").join("wal"))
    }

    /// Where `.snap` files are.
    #[must_use]
    pub fn snap_path(&self) -> PathBuf {
        self.data_dir.join("member").join("snap")
    }

    /// Where the store is.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.data_dir.join("member").join("store")
    }

    /// The election timeout.
    #[must_use]
    pub fn election_timeout(&self) -> Duration {
        self.heartbeat * u32::try_from(self.election_ticks).unwrap_or(u32::MAX)
    }

    /// How long a request may wait for its answer. Source: etcd `ServerConfig.ReqTimeout`.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + self.election_timeout() * 2
    }
}
