//! What a member says about itself when it starts and when it is ready.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use milepost_api::Doors;
use milepost_node::log::{Log, Value};

use crate::config::url::Url;
use crate::config::{CompactionMode, Config};
use crate::{version, wiring};

/// URLs as a field.
pub fn texts(urls: &[Url]) -> Value {
    Value::from(urls.iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>())
}

/// The line that tells all of the configuration.
pub fn say(config: &Config, compaction: CompactionMode, was_here: bool, log: &dyn Log) {
    let path = |path: &Path| Value::from(path.display().to_string());
    let list = |texts: &[String]| Value::from(texts.to_vec());
    let addresses = &config.addresses;
    let retention = match compaction {
        CompactionMode::Off => Duration::ZERO,
        CompactionMode::Periodic(period) => period,
        CompactionMode::Revision(revisions) => Duration::from_nanos(revisions.unsigned_abs()),
    };
    let wal_dir = config.wal_dir.clone().unwrap_or_default();
    log.info(
        "starting an etcd server",
        &[
            ("etcd-version", version::ETCD_VERSION.into()),
            ("milepost-version", env!("CARGO_PKG_VERSION").into()),
            ("git-sha", version::COMMIT.into()),
            ("go-version", format!("none (rustc {})", version::RUSTC).into()),
            ("go-os", std::env::consts::OS.into()),
            ("go-arch", version::go_arch().into()),
            ("max-cpu-available", std::thread::available_parallelism().map_or(1, usize::from).into()),
            ("member-initialized", was_here.into()),
            ("name", config.name.as_str().into()),
            ("data-dir", path(&config.data_dir)),
            ("wal-dir", path(&wal_dir)),
            ("wal-dir-dedicated", path(&wal_dir)),
            ("member-dir", path(&config.data_dir.join("member"))),
            ("force-new-cluster", config.force_new_cluster.into()),
            ("heartbeat-interval", config.heartbeat.into()),
            ("election-timeout", config.election.into()),
            ("snapshot-count", config.snapshot_count.into()),
            ("max-wals", config.max_wals.into()),
            ("max-snapshots", config.max_snapshots.into()),
            ("snapshot-catchup-entries", config.catch_up_entries.into()),
            ("initial-advertise-peer-urls", texts(&addresses.advertise_peer)),
            ("listen-peer-urls", texts(&addresses.listen_peer)),
            ("advertise-client-urls", texts(&addresses.advertise_client)),
            ("listen-client-urls", texts(&addresses.listen_client)),
            ("listen-client-http-urls", texts(&addresses.listen_http)),
            ("listen-metrics-urls", texts(&addresses.listen_metrics)),
            ("cors", list(&config.security.cors)),
            ("host-whitelist", list(&config.security.host_whitelist)),
            ("initial-cluster", config.initial_cluster.as_str().into()),
            ("initial-cluster-state", if config.is_new_cluster { "new" } else { "existing" }.into()),
            ("initial-cluster-token", config.token.as_str().into()),
            ("quota-backend-bytes", config.quota_bytes.map_or(Value::Int(-1), Value::from)),
            ("max-request-bytes", config.max_request_bytes.into()),
            ("max-concurrent-streams", u64::from(config.max_concurrent_streams).into()),
            ("pre-vote", config.pre_vote.into()),
            ("feature-gates", config.gates.text().into()),
            ("auto-compaction-mode", config.auto_compaction().0.into()),
            ("auto-compaction-retention", retention.into()),
            ("discovery-token", config.discovery.service.token.as_str().into()),
            ("discovery-endpoints", config.discovery.service.endpoints.join(",").into()),
            ("discovery-srv", config.discovery.srv.as_str().into()),
        ],
    );
}

/// One line for each door, with the address that it was given by the system.
pub fn say_served(config: &Config, clients: &Doors, peers: &Doors, log: &dyn Log) {
    let addresses = &config.addresses;
    let address = |doors: &Doors, url: &Url| {
        let bound = doors.local_addr(&wiring::listen(url));
        Value::from(bound.map_or_else(|| url.authority().to_owned(), |address| address.to_string()))
    };
    let traffic = if addresses.listen_http.is_empty() { "grpc+http" } else { "grpc" };
    for (urls, traffic) in [(&addresses.listen_client, traffic), (&addresses.listen_http, "http")] {
        for url in urls {
            let message = if url.is_tls() {
                "serving client traffic securely"
            } else {
                "serving client traffic insecurely; this is strongly discouraged!"
            };
            log.info(message, &[("traffic", traffic.into()), ("address", address(clients, url))]);
        }
    }
    for url in &addresses.listen_peer {
        log.info("serving peer traffic", &[("address", address(peers, url))]);
    }
    for url in &addresses.listen_metrics {
        log.info("serving metrics", &[("address", url.as_str().into())]);
    }
}

/// For a person who has typed nothing but the name: where the member is, and what to try. Nobody else is told.
pub fn greet(config: &Config, is_bare: bool) {
    if !is_bare || !std::io::stderr().is_terminal() {
        return;
    }
    let first = config.addresses.listen_client.first().map_or("", Url::as_str);
    let endpoints = if first == "http://localhost:2379" { String::new() } else { format!(" --endpoints={first}") };
    let called = std::env::args().next().unwrap_or_default();
    let etcdctl = etcdctl_beside(&called);
    eprintln!(
        "\n  Milepost {} is ready and speaks etcd {}.\n    clients  {first}\n    data     {}\n    try      {etcdctl} put greeting hello{endpoints}\n    stop     Ctrl-C\n    more     --help\n",
        env!("CARGO_PKG_VERSION"),
        version::ETCD_VERSION,
        std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone()).display(),
    );
}

/// How the tool is called by who called the server `called`: under the names of the release it stands beside, under ours
/// it is a word.
fn etcdctl_beside(called: &str) -> String {
    let (folder, name) = called.rsplit_once('/').map_or(("", called), |(folder, name)| (folder, name));
    match name {
        "etcd" if folder.is_empty() => "etcdctl".into(),
        "etcd" => format!("{folder}/etcdctl"),
        _ => format!("{called} etcdctl"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_command_can_be_typed_as_it_is_shown() {
        for (called, shown) in [
            ("etcd", "etcdctl"),
            ("./etcd", "./etcdctl"),
            ("/opt/m/etcd", "/opt/m/etcdctl"),
            ("milepost", "milepost etcdctl"),
            ("target/release/milepost", "target/release/milepost etcdctl"),
        ] {
            assert_eq!(etcdctl_beside(called), shown);
        }
    }
}
