//! What the member itself counts: identity, store, watches.

use std::sync::mpsc;
use std::time::Duration;

use milepost_machine::DEFAULT_QUOTA_BYTES;
use milepost_mvcc::RangeOptions;
use milepost_proto::etcdserverpb::AlarmType;
use milepost_types::{KeyRange, MemberId};

use super::text::Text;
use crate::backend::Backend;

/// Appends the member's part of the page.
pub(crate) fn render(text: &mut Text, member: &dyn Backend, server_version: &str) {
    identity(text, member, server_version);
    super::node::render(text, member.metrics());
    progress(text, member);
    store(text, member);
    watches(text, member);
}

fn identity(text: &mut Text, member: &dyn Backend, server_version: &str) {
    text.family(
        "etcd_server_version",
        "gauge",
        "Which version is running. 1 for 'server_version' label with current version.",
    );
    text.sample("etcd_server_version", &[("server_version", server_version)], 1);
    let id = format!("{:016x}", member.standing().member_id);
    text.family(
        "etcd_server_id",
        "gauge",
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
    );
    text.sample("etcd_server_id", &[("server_id", &id)], 1);
    text.family(
        "etcd_cluster_version",
        "gauge",
        "Which version is running. 1 for 'cluster_version' label with current cluster version",
    );
    if let Some(version) = member.reader().cluster_version() {
        text.sample("etcd_cluster_version", &[("cluster_version", &format!("{}.{}", version.major, version.minor))], 1);
    }
    text.family("etcd_network_known_peers", "gauge", "The current number of known peers.");
    for peer in member.reader().members() {
        let labels = [("Local", &*id), ("Remote", &*format!("{:016x}", peer.id))];
        text.sample("etcd_network_known_peers", &labels, 1);
    }
    let help = "The current revision of auth store.";
    text.gauge("etcd_debugging_auth_revision", help, member.reader().auth_revision());
    let quota = match member.reader().config().quota_bytes {
        0 => DEFAULT_QUOTA_BYTES,
        bytes => bytes,
    };
    text.gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", quota);
    let name = "etcd_debugging_server_alarms";
    text.family(name, "gauge", "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm");
    for alarm in member.reader().alarms().list(AlarmType::None as i32) {
        let kind = AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
        text.sample(name, &[("alarm_type", kind), ("server_id", &format!("{:016x}", alarm.member_id))], 1);
    }
}

/// How long a scrape waits for Raft's word.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far each member's log has come, as the leader knows it; nothing elsewhere.
fn progress(text: &mut Text, member: &dyn Backend) {
    let (tell, told) = mpsc::channel();
    member.raft_status(Box::new(move |status| {
        // The scrape may have given up.
        let _ = tell.send(status);
    }));
    // A member that stops, or is too busy to say, has no such lines.
    let Ok(status) = told.recv_timeout(PATIENCE) else { return };
    let last = status.standing.last;
    type Value = fn(u64, u64) -> u64;
    let gauges: [(&str, &str, Value); 2] = [
        (
            "milepost_peer_match_index",
            "The last entry of the log that this member is known to have, on the leader.",
            |_, matched| matched,
        ),
        (
            "milepost_peer_lag_entries",
            "How many entries of the log this member still lacks, on the leader.",
            |last, matched| last.saturating_sub(matched),
        ),
    ];
    let own = status.progress.iter().map(|peer| peer.id).find(|&id| id == member.standing().member_id);
    let membership = member.reader().membership();
    for (name, help, value) in gauges {
        text.family(name, "gauge", help);
        for peer in status.progress.iter().filter(|peer| Some(peer.id) != own) {
            let is_learner = membership.members.get(&MemberId(peer.id)).is_some_and(|member| member.is_learner);
            let learner = if is_learner { "true" } else { "false" };
            let labels = [("Remote", &*format!("{:016x}", peer.id)), ("learner", learner), ("state", peer.state)];
            text.sample(name, &labels, value(last, peer.matched));
        }
    }
}

fn store(text: &mut Text, member: &dyn Backend) {
    let (reader, store) = (member.reader(), member.reader().store());
    let (sizes, stats) = (reader.sizes(), store.stats());
    text.gauge(
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        sizes.file,
    );
    text.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        sizes.in_use,
    );
    text.gauge(
        "etcd_mvcc_db_open_read_transactions",
        "The number of currently open read transactions",
        stats.open_reads,
    );
    // The store adds it up from its blocks of keys.
    let all = RangeOptions { limit: 1, count: true, values: false };
    if let Ok(found) = store.view().range(KeyRange::all(), 0, all) {
        text.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", found.count);
    }
    text.gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.", reader.revision());
    text.gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The revision of the last compaction in store.",
        store.compact_revision(),
    );
    text.counter(
        "etcd_debugging_mvcc_db_compaction_keys_total",
        "Total number of db keys compacted.",
        stats.compaction_deleted,
    );
    text.counter("milepost_store_commits_total", "Commits of the engine.", stats.commits);
    text.counter("milepost_store_stalls_total", "Times that applying waited for a commit.", stats.stalls);
    text.counter(
        "milepost_store_commit_retries_total",
        "Commits that failed and were tried again.",
        stats.commit_retries,
    );
    text.gauge("milepost_store_overlay_bytes", "Bytes of changes that no commit has written yet.", stats.overlay_bytes);
    text.gauge("milepost_store_overlay_changes", "Changes that no commit has written yet.", stats.overlay_changes);
    text.gauge(
        "milepost_store_behind_bytes",
        "Memory of newest records that history has and the table of newest records lacks.",
        stats.behind_bytes,
    );
    text.counter("milepost_store_merges_total", "Merges of these into their table.", stats.merges);
    text.counter("milepost_store_merged_rows_total", "Records that merges have written.", stats.merged_rows);
}

fn watches(text: &mut Text, member: &dyn Backend) {
    let stats = member.hub().stats();
    text.gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.", stats.streams);
    text.gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", stats.watchers);
    text.gauge(
        "etcd_debugging_mvcc_slow_watcher_total",
        "Total number of unsynced slow watchers.",
        stats.slow_watchers,
    );
    text.gauge(
        "etcd_debugging_mvcc_pending_events_total",
        "Total number of pending events to be sent.",
        stats.pending_events,
    );
    text.counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member.", stats.events_sent);
    text.counter(
        "milepost_watch_overruns_total",
        "Times that watchers were sent to read history because events came too fast.",
        stats.overruns,
    );
}
