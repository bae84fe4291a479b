//! The checked configuration handed on: what each room below is told of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use milepost_api::{ApiConfig, Feature, Limits, Listen, Listener, Role, SlowCall, TlsSettings};
use milepost_env::{Disk, OsClock, OsDisk, OsRng, Rng, Unsynced};
use milepost_node::log::{Log, Value};
use milepost_node::{NoLetters, NodeConfig, World};

use crate::auto_tls::{self, Pair};
use crate::config::cluster::Members;
use crate::config::security::Security;
use crate::config::settings::Refusal;
use crate::config::url::Url;
use crate::config::{CompactionMode, Config};
use crate::store::open_store;
use crate::version;

/// Files, time and the store.
pub fn world(config: &Config, log: &Arc<dyn Log>) -> World {
    let disk: Arc<dyn Disk> = if config.unsafe_no_fsync { Arc::new(Unsynced(OsDisk)) } else { Arc::new(OsDisk) };
    World {
        disk: Arc::clone(&disk),
        clock: Arc::new(OsClock),
        letters: Box::new(NoLetters),
        open_store: open_store(disk, config, Arc::clone(log)),
    }
}

/// What the node is told.
pub fn node(config: &Config, members: &Members, compaction: CompactionMode, log: &Arc<dyn Log>) -> NodeConfig {
    let mut node = NodeConfig::new(&config.name, config.data_dir.clone(), Arc::clone(log));
    let texts = |urls: &[Url]| urls.iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>();
    node.wal_dir.clone_from(&config.wal_dir);
    node.client_urls = texts(&config.addresses.advertise_client);
    node.initial_cluster = members.iter().map(|(name, urls)| (name.clone(), texts(urls))).collect();
    node.cluster_token.clone_from(&config.token);
    node.heartbeat = config.heartbeat;
    node.election_ticks = config.election_ticks;
    node.pre_vote = config.pre_vote;
    node.seed = OsRng.next_u64();
    node.snapshot_count = config.snapshot_count;
    node.catch_up_entries = config.catch_up_entries;
    node.max_snapshots = config.max_snapshots;
    node.max_wals = config.max_wals;
    node.bootstrap_defragment_bytes = config.defragment_bytes;
    node.warning_apply = config.slow_apply;
    node.compaction = match compaction {
        CompactionMode::Off => milepost_node::CompactionMode::Off,
        CompactionMode::Periodic(period) => milepost_node::CompactionMode::Periodic(period),
        CompactionMode::Revision(revisions) => milepost_node::CompactionMode::Revision(revisions),
    };
    node.machine.quota_bytes = config.quota_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    node.machine.max_txn_ops = config.max_txn_ops;
    node.machine.max_request_bytes = config.max_request_bytes;
    node.machine.max_learners = config.max_learners;
    node.machine.min_lease_ttl = config.min_lease_ttl();
    if config.gates.given("LeaseCheckpoint") == Some(false) {
        node.machine.lease_checkpoint_interval = Duration::ZERO;
    }
    node
}

/// What the doors are told.
///
/// # Errors
/// TLS is asked for without what it needs; in etcd's words.
pub fn api(config: &Config, log: &Arc<dyn Log>) -> Result<ApiConfig, Refusal> {
    let listeners = listeners(config);
    let told = Arc::clone(log);
    Ok(ApiConfig {
        tls: tls(config, &**log)?,
        listeners,
        reuse_port: config.reuse_port,
        limits: Limits {
            max_request_bytes: config.max_request_bytes,
            max_txn_ops: config.max_txn_ops,
            max_concurrent_streams: config.max_concurrent_streams,
            keepalive_min_time: config.keepalive_min_time,
            // Both must be more than nothing. Source: etcd `embed.StartEtcd`.
            keepalive_interval: if config.keepalive_timeout.is_zero() {
                Duration::ZERO
            } else {
                config.keepalive_interval
            },
            keepalive_timeout: config.keepalive_timeout,
            election_timeout: config.election,
            watch_progress_interval: config.watch_progress_interval,
            slow_unary: config.slow_unary,
            ..Limits::default()
        },
        server_version: version::ETCD_VERSION.into(),
        own_version: env!("CARGO_PKG_VERSION").into(),
        is_metrics_extensive: config.is_metrics_extensive,
        cors: config.security.cors.clone(),
        host_whitelist: config.security.host_whitelist.clone(),
        is_gateway_on: config.is_gateway_on,
        is_pprof_on: config.is_pprof_on,
        features: config.gates.rows().map(|(name, stage, is_on)| Feature { name, stage, is_on }).collect(),
        is_tracing_on: config.is_tracing_on,
        stop_serving_on_defragment: config.gates.is_named_on("StopGRPCServiceOnDefrag"),
        log: Arc::clone(log),
        on_slow: Some(Arc::new(move |call: SlowCall| {
            told.warn(
                "request stats",
                &[
                    ("start time", log_time(SystemTime::now() - call.took).into()),
                    ("time spent", call.took.into()),
                    ("response type", call.method.into()),
                    ("request count", Value::Int(call.request_count)),
                    ("request size", Value::Int(call.request_bytes)),
                    ("response count", Value::Int(call.response_count)),
                    ("response size", Value::Int(call.response_bytes)),
                    ("request content", call.content.into()),
                ],
            );
        })),
        ..ApiConfig::default()
    })
}

/// A moment as log lines show it.
fn log_time(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Client URLs serve everything, unless there are others for HTTP.
fn listeners(config: &Config) -> Vec<Listener> {
    let addresses = &config.addresses;
    let client = if addresses.listen_http.is_empty() { Role::Mixed } else { Role::Grpc };
    [
        (&addresses.listen_client, client),
        (&addresses.listen_http, Role::Http),
        (&addresses.listen_metrics, Role::Metrics),
    ]
    .into_iter()
    .flat_map(|(urls, role)| urls.iter().map(move |url| listener(url, role)))
    .collect()
}

fn listener(url: &Url, role: Role) -> Listener {
    let address = if url.is_unix() {
        Listen::Unix(url.host.clone().into())
    } else {
        Listen::Tcp { host: url.host.clone(), port: url.port().unwrap_or_default() }
    };
    Listener { address, role, is_tls: url.is_tls() }
}

/// Certificates for the URLs that want some. Source: etcd `embed` `configureClientListeners`.
fn tls(config: &Config, log: &dyn Log) -> Result<Option<TlsSettings>, Refusal> {
    let security = &config.security;
    let suites = security.cipher_suites.iter().map(|name| {
        name.parse().map_err(|why: String| Refusal::new(why, "--cipher-suites takes Go's names of suites for TLS 1.2"))
    });
    let cipher_suites = suites.collect::<Result<Vec<_>, _>>()?;
    let clients = [&config.addresses.listen_client, &config.addresses.listen_http];
    for url in clients.into_iter().flatten() {
        check_certificates(url, security, log)?;
    }
    let pair = certificates(config, log)?;
    let all = [&config.addresses.listen_client, &config.addresses.listen_http, &config.addresses.listen_metrics];
    if !all.into_iter().flatten().any(Url::is_tls) {
        return Ok(None);
    }
    let file = |name: &str| Some(name).filter(|name| !name.is_empty()).map(PathBuf::from);
    let version = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|why: String| Refusal::from(why)),
    };
    Ok(Some(TlsSettings {
        cert_file: pair.cert,
        key_file: pair.key,
        trusted_ca_file: file(&security.trusted_ca_file),
        client_cert_auth: security.client_cert_auth,
        crl_file: file(&security.crl_file),
        allowed_hostnames: security.allowed_hostname.clone(),
        allowed_cns: security.allowed_cn.clone(),
        cipher_suites,
        min_version: version(&security.tls_min)?,
        max_version: version(&security.tls_max)?,
    }))
}

/// The server's certificate: given, or made here. Source: etcd `Config.ClientSelfCert`.
fn certificates(config: &Config, log: &dyn Log) -> Result<Pair, Refusal> {
    let (security, addresses) = (&config.security, &config.addresses);
    if security.has_files() || !security.auto_tls {
        if security.auto_tls {
            log.warn("ignoring client auto TLS since certs given", &[]);
        }
        return Ok(Pair { cert: security.cert_file.clone().into(), key: security.key_file.clone().into() });
    }
    let urls = addresses.listen_client.iter().chain(&addresses.listen_http).filter(|url| !url.is_unix());
    let hosts: Vec<String> = urls.map(|url| url.host.clone()).collect();
    let dir = config.data_dir.join("fixtures").join("client");
    Ok(auto_tls::pair(&dir, &hosts, security.self_signed_years, log)?)
}

/// Does the URL fit the certificates that are given, or not given?
fn check_certificates(url: &Url, security: &Security, log: &dyn Log) -> Result<(), Refusal> {
    let field = [("client-url", Value::from(url.as_str()))];
    if url.is_tls() {
        if !security.has_files() && !security.auto_tls {
            return Err(Refusal::new(
                format!(
                    "TLS key/cert (--cert-file, --key-file) must be provided for client url {} with HTTPS scheme",
                    url.as_str()
                ),
                "add --cert-file and --key-file, or --auto-tls, or write the URL with http",
            ));
        }
        return Ok(());
    }
    if security.has_files() {
        log.warn("scheme is http or unix while key and cert files are present; ignoring key and cert files", &field);
    }
    if security.client_cert_auth {
        log.warn(
            "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL",
            &field,
        );
    }
    Ok(())
}
