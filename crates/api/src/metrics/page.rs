//! `/metrics`: everything that this member counts.
//!
//! Names, types and labels are etcd's, with their oddities: some totals are gauges, some counters are not called total.
//! Source: `facts/metrics.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::DoorMetrics;
use super::background::Background;
use super::tally::{Histogram, Tally, Timings};
use super::text::Text;
use super::{member, process};
use crate::backend::Backend;
use crate::config::{ApiConfig, Feature, Role};
use crate::grpc::{METHODS, Method};
use crate::http::debug::Recent;
use crate::status::Code;

/// How one health check went.
#[derive(Default)]
struct CheckCounts {
    last: bool,
    successes: u64,
    failures: u64,
}

/// All sources of the page that are not the member's.
pub(crate) struct Page {
    doors: Vec<Arc<DoorMetrics>>,
    background: Arc<Background>,
    server_version: String,
    own_version: String,
    is_extensive: bool,
    features: Vec<Feature>,
    more: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    /// Calls of all doors, if they are remembered.
    pub(crate) recent: Option<Recent>,
    /// Results of `/livez` and `/readyz` by suite and check.
    checks: Mutex<BTreeMap<(&'static str, &'static str), CheckCounts>>,
}

impl Page {
    pub(crate) fn new(config: &ApiConfig, member: &dyn Backend, doors: Vec<Arc<DoorMetrics>>) -> Self {
        let background = Arc::new(Background::new());
        // The store has one observer. The doors for other members have no page, and open first.
        if config.listeners.iter().any(|listener| listener.role != Role::Peer) {
            member.reader().store().observe(background.clone());
        }
        Self {
            doors,
            background,
            server_version: config.server_version.clone(),
            own_version: config.own_version.clone(),
            is_extensive: config.is_metrics_extensive,
            features: config.features.clone(),
            more: config.more_metrics.clone(),
            recent: config.is_tracing_on.then(Recent::default),
            checks: Mutex::default(),
        }
    }

    /// Notes how a health check ended.
    pub(crate) fn note_check(&self, suite: &'static str, check: &'static str, is_well: bool) {
        let mut checks = self.checks.lock();
        let counts = checks.entry((suite, check)).or_default();
        counts.last = is_well;
        *if is_well { &mut counts.successes } else { &mut counts.failures } += 1;
    }

    /// The page now.
    pub(crate) fn render(&self, member: &dyn Backend) -> String {
        let mut text = Text::default();
        self.grpc(&mut text);
        self.server(&mut text);
        self.operations(&mut text);
        self.watch_sends(&mut text);
        member::render(&mut text, member, &self.server_version);
        self.background.render(&mut text);
        absent(&mut text);
        process::render(&mut text);
        text.family(
            "milepost_version",
            "gauge",
            "Which Milepost version is running. 1 for 'version' label with current version.",
        );
        text.sample("milepost_version", &[("version", &self.own_version)], 1);
        let more = self.more.as_ref().map(|more| more()).unwrap_or_default();
        text.finish() + &more
    }

    fn sum(&self, of: impl Fn(&DoorMetrics) -> &Tally) -> u64 {
        self.doors.iter().map(|door| of(door).get()).sum()
    }

    fn shown_methods(&self) -> impl Iterator<Item = usize> + '_ {
        (0..METHODS.len())
            .filter(|index| Method::is_precreated(*index) || self.sum(|door| &door.methods[*index].started) > 0)
    }

    fn grpc(&self, text: &mut Text) {
        type Pick = fn(&DoorMetrics, usize) -> &Tally;
        let families: [(&str, &str, Pick); 3] = [
            ("grpc_server_started_total", "Total number of RPCs started on the server.", |door, method| {
                &door.methods[method].started
            }),
            (
                "grpc_server_msg_received_total",
                "Total number of RPC stream messages received on the server.",
                |door, method| &door.methods[method].received,
            ),
            (
                "grpc_server_msg_sent_total",
                "Total number of gRPC stream messages sent by the server.",
                |door, method| &door.methods[method].sent,
            ),
        ];
        for (name, help, pick) in families {
            text.family(name, "counter", help);
            for method in self.shown_methods() {
                text.sample(name, &labels(method), self.sum(|door| pick(door, method)));
            }
        }
        let name = "grpc_server_handled_total";
        text.family(name, "counter", "Total number of RPCs completed on the server, regardless of success or failure.");
        for method in self.shown_methods() {
            for code in Code::ALL {
                let [kind, service, method_name] = labels(method);
                let count = self.sum(|door| &door.methods[method].handled[code as usize]);
                text.sample(name, &[("grpc_code", code.name()), method_name, service, kind], count);
            }
        }
        if self.is_extensive {
            let name = "grpc_server_handling_seconds";
            text.family(name, "histogram", "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.");
            for method in self.shown_methods() {
                let sum = self.add_up(|door| &door.methods[method].seconds);
                text.histogram(name, &labels(method), &sum);
            }
        }
        let help = "The total number of bytes sent to grpc clients.";
        text.counter("etcd_network_client_grpc_sent_bytes_total", help, self.sum(|door| &door.sent_bytes));
        let help = "The total number of bytes received from grpc clients.";
        text.counter("etcd_network_client_grpc_received_bytes_total", help, self.sum(|door| &door.received_bytes));
    }

    fn server(&self, text: &mut Text) {
        let name = "etcd_server_request_duration_seconds";
        text.family(name, "histogram", "Response latency distribution in seconds for each type.");
        for method in 0..METHODS.len() {
            let Some(kind) = Method::request_type(method) else { continue };
            for (success, label) in ["false", "true"].into_iter().enumerate() {
                let sum = self.add_up(|door| &door.requests[method][success]);
                if sum.count > 0 {
                    text.histogram(name, &[("success", label), ("type", kind)], &sum);
                }
            }
        }
        let mut clients: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for door in &self.doors {
            for (version, counts) in &*door.clients.lock() {
                for (count, kind) in counts.iter().zip(["unary", "stream"]) {
                    if *count > 0 {
                        *clients.entry((version.clone(), kind)).or_default() += count;
                    }
                }
            }
        }
        let name = "etcd_server_client_requests_total";
        text.family(name, "counter", "The total number of client requests per client version.");
        for ((version, kind), count) in &clients {
            text.sample(name, &[("client_api_version", version), ("type", kind)], count);
        }
        text.counter(
            "etcd_server_health_success",
            "The total number of successful health checks",
            self.sum(|door| &door.health_success),
        );
        text.counter(
            "etcd_server_health_failures",
            "The total number of failed health checks",
            self.sum(|door| &door.health_failures),
        );
        let help = "The total number of successful learner promotions while this member is leader.";
        text.counter("etcd_server_learner_promote_successes", help, self.sum(|door| &door.learner_promotions));
        let name = "etcd_server_learner_promote_failures";
        text.family(
            name,
            "counter",
            "The total number of failed learner promotions (likely learner not ready) while this member is leader.",
        );
        let mut failures: BTreeMap<String, u64> = BTreeMap::new();
        for door in &self.doors {
            for (reason, count) in &*door.failed_promotions.lock() {
                *failures.entry(reason.clone()).or_default() += count;
            }
        }
        for (reason, count) in &failures {
            text.sample(name, &[("Reason", reason)], count);
        }
        let name = "etcd_server_feature_enabled";
        text.family(name, "gauge", "Whether or not a feature is enabled. 1 is enabled, 0 is not.");
        for Feature { name: feature, stage, is_on } in &self.features {
            text.sample(name, &[("name", feature), ("stage", stage)], u8::from(*is_on));
        }
        let checks = self.checks.lock();
        text.family("etcd_server_healthcheck", "gauge", "The result of each kind of healthcheck.");
        for ((suite, check), counts) in &*checks {
            text.sample("etcd_server_healthcheck", &[("name", check), ("type", suite)], u8::from(counts.last));
        }
        let name = "etcd_server_healthchecks_total";
        text.family(name, "counter", "The total number of each kind of healthcheck.");
        for ((suite, check), counts) in &*checks {
            for (status, count) in [("success", counts.successes), ("error", counts.failures)] {
                text.sample(name, &[("name", check), ("status", status), ("type", suite)], count);
            }
        }
    }

    /// What etcd counts in its store is counted here where a client asked for it: followers do not count others' writes.
    fn operations(&self, text: &mut Text) {
        type Pick = fn(&DoorMetrics) -> &Tally;
        let counters: [(&str, &str, Pick); 7] = [
            ("etcd_mvcc_range_total", "Total number of ranges seen by this member.", |door| &door.operations.range),
            ("etcd_mvcc_put_total", "Total number of puts seen by this member.", |door| &door.operations.put),
            ("etcd_mvcc_delete_total", "Total number of deletes seen by this member.", |door| &door.operations.delete),
            ("etcd_mvcc_txn_total", "Total number of txns seen by this member.", |door| &door.operations.txn),
            ("etcd_debugging_lease_granted_total", "The total number of granted leases.", |door| &door.leases_granted),
            ("etcd_debugging_lease_revoked_total", "The total number of revoked leases.", |door| &door.leases_revoked),
            ("etcd_debugging_lease_renewed_total", "The number of renewed leases seen by the leader.", |door| {
                &door.leases_renewed
            }),
        ];
        for (name, help, pick) in counters {
            text.counter(name, help, self.sum(pick));
        }
        let help = "The total size of put kv pairs seen by this member.";
        text.gauge("etcd_debugging_mvcc_total_put_size_in_bytes", help, self.sum(|door| &door.put_bytes));
        let help = "Bucketed histogram of lease TTLs.";
        self.times(text, "etcd_debugging_lease_ttl_total", help, |door| &door.lease_ttl);
        let help = "The latency distribution of storage hash operation.";
        self.times(text, "etcd_mvcc_hash_duration_seconds", help, |door| &door.hash);
        let help = "The latency distribution of storage hash by revision operation.";
        self.times(text, "etcd_mvcc_hash_rev_duration_seconds", help, |door| &door.hash_by_revision);
        let help = "The latency distribution of backend snapshots.";
        self.times(text, "etcd_disk_backend_snapshot_duration_seconds", help, |door| &door.snapshot);
        let name = "etcd_server_range_duration_seconds";
        text.family(name, "histogram", "The latency distributions of txn.Range");
        for (success, label) in ["false", "true"].into_iter().enumerate() {
            let sum = self.add_up(|door| &door.ranges[success]);
            if sum.count > 0 {
                text.histogram(name, &[("success", label)], &sum);
            }
        }
    }

    /// How long replies of watch streams take to be handed on.
    fn watch_sends(&self, text: &mut Text) {
        type Pick = fn(&DoorMetrics) -> &Timings<14>;
        let of = "The total duration in seconds of running through the ";
        let loops: [(&str, String, Pick); 4] = [
            ("watch_stream_duration", format!("{of}send loop watch stream response all events."), |door| {
                &door.watch_sends.events
            }),
            (
                "watch_stream_duration_per_event",
                "The average duration in seconds of running through the send loop watch stream response, per event."
                    .into(),
                |door| &door.watch_sends.per_event,
            ),
            ("control_stream_duration", format!("{of}send loop control stream response."), |door| {
                &door.watch_sends.control
            }),
            ("progress_duration", format!("{of}progress loop control stream response."), |door| {
                &door.watch_sends.progress
            }),
        ];
        for (name, help, pick) in loops {
            self.times(text, &format!("etcd_debugging_server_watch_send_loop_{name}_seconds"), &help, pick);
        }
    }

    fn add_up<const N: usize>(&self, of: impl Fn(&DoorMetrics) -> &Timings<N>) -> Histogram {
        let mut sum = Histogram::default();
        self.doors.iter().for_each(|door| of(door).add_to(&mut sum));
        sum
    }

    fn times<const N: usize>(&self, text: &mut Text, name: &str, help: &str, of: impl Fn(&DoorMetrics) -> &Timings<N>) {
        text.family(name, "histogram", help);
        text.histogram(name, &[], &self.add_up(of));
    }
}

/// What a member of a cluster has none of, in etcd neither: it is no proxy, and nobody uses a v2 store. Dashboards ask.
fn absent(text: &mut Text) {
    for (name, help) in [
        ("etcd_grpc_proxy_cache_hits_total", "Total number of cache hits"),
        ("etcd_grpc_proxy_cache_keys_total", "Total number of keys/ranges cached"),
        ("etcd_grpc_proxy_cache_misses_total", "Total number of cache misses"),
        ("etcd_grpc_proxy_watchers_coalescing_total", "Total number of current watchers coalescing"),
        ("etcd_debugging_store_watchers", "Count of currently active watchers."),
    ] {
        text.gauge(name, help, 0);
    }
    for (name, help) in [
        ("etcd_grpc_proxy_events_coalescing_total", "Total number of events coalescing"),
        ("etcd_debugging_store_expires_total", "Total number of expired keys."),
        (
            "etcd_debugging_store_watch_requests_total",
            "Total number of incoming watch requests (new or reestablished).",
        ),
    ] {
        text.counter(name, help, 0);
    }
}

fn labels(method: usize) -> [(&'static str, &'static str); 3] {
    let names = &METHODS[method];
    [("grpc_type", names.shape.label()), ("grpc_service", names.service), ("grpc_method", names.method)]
}
