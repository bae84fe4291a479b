//! The checked configuration handed on: what each room below is told of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use milepost_api::{
    ApiConfig, CipherSuite, Feature, Limits, Listen, Listener, Role, SlowCall, TlsSettings, TlsVersion,
};
use milepost_env::{Disk, OsClock, OsDisk, OsRng, Rng, Unsynced};
use milepost_node::log::{Level, Log, Value};
use milepost_node::{Letters, Node, NodeConfig, World};

use crate::auto_tls::{self, Pair};
use crate::cluster::ask::Network;
use crate::cluster::colleagues::Others;
use crate::cluster::corruption::{Field, Times};
use crate::cluster::forming::{self, Place};
use crate::cluster::letters::Post;
use crate::config::security::{PortSecurity, Security};
use crate::config::settings::Refusal;
use crate::config::url::Url;
use crate::config::{CompactionMode, Config};
use crate::store::open_store;
use crate::version;

/// Files, time and the store.
pub fn world(config: &Config, post: &Arc<Post>, log: &Arc<dyn Log>) -> World {
    let disk: Arc<dyn Disk> = if config.unsafe_no_fsync { Arc::new(Unsynced(OsDisk)) } else { Arc::new(OsDisk) };
    World {
        disk: Arc::clone(&disk),
        clock: Arc::new(OsClock),
        letters: Arc::clone(post) as Arc<dyn Letters>,
        open_store: open_store(disk, config, Arc::clone(log)),
    }
}

/// Questions to other members.
///
/// # Errors
/// TLS is asked for without what it needs, or the system gives no means.
pub fn ask(config: &Config) -> Result<Network, Refusal> {
    let tls = peer_client(config).map_err(|fault| fault.refusal)?;
    Network::new(tls, peer_dial_timeout(config)).map_err(Refusal::from)
}

/// How long a connection to another member may take. Source: etcd `ServerConfig.PeerDialTimeout`.
fn peer_dial_timeout(config: &Config) -> Duration {
    Duration::from_secs(1) + config.election
}

/// What the node is told.
///
/// # Errors
/// Those of [`ask`].
pub fn node(
    config: &Config,
    place: Place,
    compaction: CompactionMode,
    log: &Arc<dyn Log>,
) -> Result<NodeConfig, Refusal> {
    let mut node = NodeConfig::new(&config.name, config.data_dir.clone(), Arc::clone(log));
    let texts = |urls: &[Url]| urls.iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>();
    node.wal_dir.clone_from(&config.wal_dir);
    node.client_urls = texts(&config.addresses.advertise_client);
    node.initial_cluster = place.founders.iter().map(|(name, urls)| (name.clone(), texts(urls))).collect();
    node.cluster_token.clone_from(&config.token);
    node.join = place.join;
    if config.force_new_cluster {
        node.force_new_cluster = Some(forming::may_drop(ask(config)?, Arc::clone(log)));
    }
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
    Ok(node)
}

/// Why nothing is served: the line that etcd writes, and its error.
pub struct Fault {
    /// The line.
    pub message: &'static str,
    /// The error and what to do.
    pub refusal: Refusal,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self { message: "discovery failed", refusal }
    }
}

/// What the doors are told.
///
/// # Errors
/// TLS is asked for without what it needs; in etcd's words.
pub fn api(config: &Config, log: &Arc<dyn Log>) -> Result<ApiConfig, Fault> {
    let listeners = listeners(config);
    let (told, slow) = (Arc::clone(log), config.slow_unary);
    Ok(ApiConfig {
        tls: tls(config, &**log)?,
        listeners,
        // A member that its cluster does not know yet, or that lags behind what it knew, answers nobody.
        opens_when_told: true,
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
        strict_reconfig: config.strict_reconfig,
        cors: config.security.cors.clone(),
        host_whitelist: config.security.host_whitelist.clone(),
        is_gateway_on: config.is_gateway_on,
        is_pprof_on: config.is_pprof_on,
        features: config.gates.rows().map(|(name, stage, is_on)| Feature { name, stage, is_on }).collect(),
        is_tracing_on: config.is_tracing_on,
        stop_serving_on_defragment: config.gates.is_named_on("StopGRPCServiceOnDefrag"),
        log: Arc::clone(log),
        on_slow: Some(Arc::new(move |call: SlowCall| {
            let level = if call.took > slow { Level::Warn } else { Level::Debug };
            told.log(
                level,
                None,
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
    Listener { address: listen(url), role, is_tls: url.is_tls() }
}

/// The socket behind a URL.
pub fn listen(url: &Url) -> Listen {
    if url.is_unix() {
        Listen::Unix(url.host.clone().into())
    } else {
        Listen::Tcp { host: url.host.clone(), port: url.port().unwrap_or_default() }
    }
}

/// Certificates for the URLs that want some. Source: etcd `embed` `configureClientListeners`.
fn tls(config: &Config, log: &dyn Log) -> Result<Option<TlsSettings>, Fault> {
    let security = &config.security.client;
    // Complained about even where nothing speaks TLS.
    suites(&config.security)?;
    let clients = [&config.addresses.listen_client, &config.addresses.listen_http];
    for url in clients.into_iter().flatten() {
        check_certificates(url, security, log)?;
    }
    let metrics = &config.addresses.listen_metrics;
    if metrics.iter().any(Url::is_tls) && !security.has_files() && !security.auto_tls {
        return Err(Refusal::new(
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
            "add --cert-file and --key-file, or --auto-tls, or write the URL with http",
        )
        .into());
    }
    let pair = certificates(config, log)?;
    if !clients.into_iter().flatten().chain(metrics).any(Url::is_tls) {
        return Ok(None);
    }
    check_client_pair(security, "").map_err(|refusal| Fault { message: "listener failed", refusal })?;
    Ok(Some(settings(pair, security, &config.security)?))
}

/// What the doors are told about a `port` with the certificate `pair`.
fn settings(pair: Pair, port: &PortSecurity, both: &Security) -> Result<TlsSettings, Refusal> {
    Ok(TlsSettings {
        cert_file: pair.cert,
        key_file: pair.key,
        trusted_ca_file: named(&port.trusted_ca_file),
        client_cert_auth: port.client_cert_auth,
        crl_file: named(&port.crl_file),
        allowed_hostnames: port.allowed_hostname.clone(),
        allowed_cns: port.allowed_cn.clone(),
        skip_san_verification: port.skip_san_verification,
        cipher_suites: suites(both)?,
        min_version: version_of(&both.tls_min)?,
        max_version: version_of(&both.tls_max)?,
    })
}

/// The certificate for calls to others and its key come together. Source: etcd `TLSInfo.baseConfig`.
fn check_client_pair(port: &PortSecurity, prefix: &str) -> Result<(), Refusal> {
    let (cert, key) = (&port.client_cert_file, &port.client_key_file);
    if cert.is_empty() == key.is_empty() {
        return Ok(());
    }
    // The bracket is etcd's.
    let complaint =
        format!("ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]");
    let remedy = format!("give both --{prefix}client-cert-file and --{prefix}client-key-file, or none");
    Err(Refusal::new(complaint, remedy))
}

/// The file, if one is named.
fn named(file: &str) -> Option<PathBuf> {
    Some(file).filter(|file| !file.is_empty()).map(PathBuf::from)
}

fn suites(security: &Security) -> Result<Vec<CipherSuite>, Refusal> {
    let parse = |name: &String| {
        name.parse().map_err(|why: String| Refusal::new(why, "--cipher-suites takes Go's names of suites for TLS 1.2"))
    };
    security.cipher_suites.iter().map(parse).collect()
}

fn version_of(text: &str) -> Result<Option<TlsVersion>, Refusal> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|why: String| Refusal::from(why)),
    }
}

/// The server's certificate: given, or made here. Source: etcd `Config.ClientSelfCert`.
fn certificates(config: &Config, log: &dyn Log) -> Result<Pair, Fault> {
    let (security, addresses) = (&config.security.client, &config.addresses);
    if security.has_files() || !security.auto_tls {
        if security.auto_tls {
            log.warn("ignoring client auto TLS since certs given", &[]);
        }
        return Ok(Pair { cert: security.cert_file.clone().into(), key: security.key_file.clone().into() });
    }
    let urls = addresses.listen_client.iter().chain(&addresses.listen_http).filter(|url| !url.is_unix());
    let hosts: Vec<String> = urls.map(|url| url.host.clone()).collect();
    let dir = config.data_dir.join("fixtures").join("client");
    auto_tls::pair(&dir, &hosts, config.security.self_signed_years, log)
        .map_err(|why| Fault { message: "failed to get client self-signed certs", refusal: why.into() })
}

/// How other members are called; for `https` alone. Source: etcd `TLSInfo.ClientConfig`.
///
/// # Errors
/// In etcd's words.
pub fn peer_client(config: &Config) -> Result<milepost_peers::TlsSettings, Fault> {
    check_peer_pair(config)?;
    let peer = &config.security.peer;
    check_client_pair(peer, "peer-")?;
    let (cert, key) = (&peer.client_cert_file, &peer.client_key_file);
    let pair = [(cert, key), (&peer.cert_file, &peer.key_file)].into_iter().find(|(cert, _)| !cert.is_empty());
    let is_self_made = pair.is_none() && peer.auto_tls;
    let identity = match pair {
        Some((cert, key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
        None if is_self_made => {
            let dir = config.data_dir.join("fixtures").join("peer");
            Some((dir.join("cert.pem"), dir.join("key.pem"))).filter(|(cert, _)| cert.exists())
        }
        None => None,
    };
    let version = |text: &str| match version_of(text)? {
        None => Ok(None),
        Some(TlsVersion::V12) => Ok(Some(milepost_peers::TlsVersion::V12)),
        Some(TlsVersion::V13) => Ok::<_, Fault>(Some(milepost_peers::TlsVersion::V13)),
    };
    let has_names = identity.is_some();
    Ok(milepost_peers::TlsSettings {
        identity,
        trusted_ca_file: named(&peer.trusted_ca_file),
        skip_verify: is_self_made,
        server_name: config.peer_server_name.clone(),
        // As in etcd, names are compared only where there is a certificate of our own.
        allowed_hostnames: if has_names { peer.allowed_hostname.clone() } else { Vec::new() },
        allowed_cns: if has_names { peer.allowed_cn.clone() } else { Vec::new() },
        cipher_suites: suites(&config.security)?.into_iter().map(CipherSuite::number).collect(),
        min_version: version(&config.security.tls_min)?,
        max_version: version(&config.security.tls_max)?,
    })
}

/// The way to other members.
///
/// # Errors
/// TLS is asked for without what it needs; in etcd's words.
pub fn post(config: &Config, log: &Arc<dyn Log>) -> Result<Arc<Post>, Fault> {
    let urls = config.addresses.advertise_peer.iter().map(|url| url.as_str().to_owned()).collect();
    let (tls, dial_timeout) = (peer_client(config)?, peer_dial_timeout(config));
    let post = Post::new(urls, tls, dial_timeout, config.peer_patience, Arc::new(OsClock), Arc::clone(log));
    Ok(Arc::new(post))
}

/// The way by which the doors and the checks ask other members; `transport` knows who is there.
///
/// # Errors
/// TLS is asked for without what it needs, or the system gives no thread.
pub fn others(config: &Config, post: &Arc<Post>) -> Result<Others, Refusal> {
    let tls = peer_client(config).map_err(|fault| fault.refusal)?;
    let client = milepost_peers::Client::new(tls, peer_dial_timeout(config), request_timeout(config))?;
    let post = Arc::clone(post);
    Others::start(client, Arc::new(move |member| post.active_for(member))).map_err(|error| error.to_string().into())
}

/// How long a request may take. Source: etcd `ServerConfig.ReqTimeout`.
fn request_timeout(config: &Config) -> Duration {
    Limits { election_timeout: config.election, ..Limits::default() }.request_timeout()
}

/// What compares this member's data with the others'.
pub fn field(config: &Config, node: &Node, others: &Arc<Others>, log: &Arc<dyn Log>) -> Field {
    Field { node: node.clone(), others: Arc::clone(others), timeout: request_timeout(config), log: Arc::clone(log) }
}

/// When the leader compares.
pub fn compare_times(config: &Config) -> Times {
    let is_on = config.gates.is_named_on("CompactHashCheck");
    Times { all: config.corrupt_check, compactions: is_on.then_some(config.compact_hash_check) }
}

/// The doors for other members: one, for there are few. Source: etcd `embed` `configurePeerListeners`.
///
/// # Errors
/// TLS is asked for without what it needs; in etcd's words.
pub fn peers(config: &Config, log: &Arc<dyn Log>) -> Result<ApiConfig, Fault> {
    Ok(ApiConfig {
        listeners: config.addresses.listen_peer.iter().map(|url| listener(url, Role::Peer)).collect(),
        tls: peer_tls(config, &**log)?,
        doors: 1,
        reuse_port: config.reuse_port,
        limits: Limits {
            max_connections: PEER_CONNECTIONS,
            slow_read: config.peer_patience.write,
            election_timeout: config.election,
            ..Limits::default()
        },
        strict_reconfig: config.strict_reconfig,
        server_version: version::ETCD_VERSION.into(),
        own_version: env!("CARGO_PKG_VERSION").into(),
        is_gateway_on: false,
        log: Arc::clone(log),
        ..ApiConfig::default()
    })
}

/// A member has two streams, four pipelines, a prober and some questions open; this is a hundred members.
const PEER_CONNECTIONS: usize = 1024;

/// Source: etcd `TLSInfo.ServerConfig`.
fn check_peer_pair(config: &Config) -> Result<(), Refusal> {
    let (cert, key) = (&config.security.peer.cert_file, &config.security.peer.key_file);
    if cert.is_empty() == key.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"),
        "give both --peer-cert-file and --peer-key-file, or none",
    ))
}

fn peer_tls(config: &Config, log: &dyn Log) -> Result<Option<TlsSettings>, Fault> {
    let (security, urls) = (&config.security.peer, &config.addresses.listen_peer);
    check_peer_pair(config)?;
    let (cert, key) = (&security.cert_file, &security.key_file);
    let given = (!cert.is_empty()).then(|| Pair { cert: cert.into(), key: key.into() });
    let pair = match given {
        Some(pair) => {
            if security.auto_tls {
                log.warn("ignoring peer auto TLS since certs given", &[]);
            }
            Some(pair)
        }
        None if security.auto_tls => {
            let hosts: Vec<String> = urls.iter().filter(|url| !url.is_unix()).map(|url| url.host.clone()).collect();
            let dir = config.data_dir.join("fixtures").join("peer");
            let pair = auto_tls::pair(&dir, &hosts, config.security.self_signed_years, log);
            Some(pair.map_err(|why| Fault { message: "failed to get peer self-signed certs", refusal: why.into() })?)
        }
        None => None,
    };
    for url in urls.iter().filter(|url| !url.is_tls()) {
        let field = [("peer-url", Value::from(url.as_str()))];
        if pair.is_some() {
            log.warn("scheme is HTTP while key and cert files are present; ignoring key and cert files", &field);
        }
        if security.client_cert_auth {
            log.warn(
                "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL",
                &field,
            );
        }
    }
    let Some(url) = urls.iter().find(|url| url.is_tls()) else { return Ok(None) };
    let Some(pair) = pair else {
        let host = if url.is_unix() { url.host.as_str() } else { url.authority() };
        return Err(Refusal::new(
            format!("cannot listen on TLS for {host}: KeyFile and CertFile are not presented"),
            "add --peer-cert-file and --peer-key-file, or --peer-auto-tls, or write the peer URL with http",
        )
        .into());
    };
    Ok(Some(settings(pair, security, &config.security)?))
}

/// Does the URL fit the certificates that are given, or not given?
fn check_certificates(url: &Url, security: &PortSecurity, log: &dyn Log) -> Result<(), Refusal> {
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
