//! What the doors are told once, at start.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use milepost_node::log::{Log, NoLog};
use tokio::sync::Notify;

use crate::colleagues::{Colleagues, NoColleagues};
use crate::tls::TlsSettings;

/// A socket where clients knock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// TCP.
    Tcp {
        /// IP address, `localhost`, or empty for every address of the machine.
        host: String,
        /// 0 lets the system choose; [`crate::Doors::local_addrs`] then tells which.
        port: u16,
    },
    /// A Unix socket; a stale file of that name is replaced.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What is served behind a listener. Source: `facts/http.md` §5 and §7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything: `--listen-client-urls` alone.
    Mixed,
    /// gRPC alone: `--listen-client-urls` beside `--listen-client-http-urls`.
    Grpc,
    /// Pages and the gateway, no gRPC: `--listen-client-http-urls`.
    Http,
    /// Metrics and health, nothing else: `--listen-metrics-urls`.
    Metrics,
    /// Other members: `--listen-peer-urls`.
    Peer,
}

impl Role {
    /// `traffic` of etcd's log lines.
    #[must_use]
    pub const fn traffic(self) -> &'static str {
        match self {
            Self::Mixed => "grpc+http",
            Self::Grpc => "grpc",
            Self::Http | Self::Metrics | Self::Peer => "http",
        }
    }
}

/// One URL that is listened on.
///
/// Two listeners may have one address if one of them speaks TLS and the other does not: the first byte of a connection
/// then tells which is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The socket.
    pub address: Listen,
    /// What it is for.
    pub role: Role,
    /// TLS (`https`, `unixs`); needs [`ApiConfig::tls`].
    pub is_tls: bool,
}

impl Listener {
    /// Everything, without TLS.
    #[must_use]
    pub const fn plain(address: Listen) -> Self {
        Self { address, role: Role::Mixed, is_tls: false }
    }
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = match (&self.address, self.is_tls) {
            (Listen::Tcp { .. }, false) => "http",
            (Listen::Tcp { .. }, true) => "https",
            (Listen::Unix(_), false) => "unix",
            (Listen::Unix(_), true) => "unixs",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

/// Sizes and times. `default()` is etcd's.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one proposal (`--max-request-bytes`); messages may be [`Limits::MESSAGE_OVERHEAD`] larger.
    pub max_request_bytes: usize,
    /// Operations in one branch of a transaction (`--max-txn-ops`).
    pub max_txn_ops: usize,
    /// Streams that one connection may have open (`--max-concurrent-streams`).
    pub max_concurrent_streams: u32,
    /// Sockets that may be open at once, further clients wait in the kernel's queue; 0: [`Limits::RESERVED_FDS`] less than
    /// the process may have descriptors.
    pub max_connections: usize,
    /// How often an idle connection is pinged (`--grpc-keepalive-interval`); zero: never.
    pub keepalive_interval: Duration,
    /// A client that pings more often than this is sent away (`--grpc-keepalive-min-time`); zero: than
    /// every five minutes.
    pub keepalive_min_time: Duration,
    /// How long a ping may stay unanswered (`--grpc-keepalive-timeout`).
    pub keepalive_timeout: Duration,
    /// How long a client may take with its first bytes.
    pub greeting: Duration,
    /// A client with a large answer on its way must take some of it within this.
    pub slow_read: Duration,
    /// Base of the time that an answer may take.
    pub election_timeout: Duration,
    /// Time between two progress replies of a watcher that asked for them (`--watch-progress-notify-interval`).
    pub watch_progress_interval: Duration,
    /// Unary calls that take longer are reported (`--warning-unary-request-duration`).
    pub slow_unary: Duration,
}

impl Limits {
    /// What a message may be larger than the proposal in it. Source: etcd `grpcOverheadBytes`.
    pub const MESSAGE_OVERHEAD: usize = 512 * 1024;

    /// Descriptors that clients leave to the log, the store and other members. Source: etcd `reservedInternalFDNum`.
    pub const RESERVED_FDS: usize = 150;

    /// Sockets that listeners for metrics alone have for themselves; further ones wait.
    pub const METRICS_CONNECTIONS: usize = 64;

    /// Longest message that is received.
    #[must_use]
    pub const fn max_receive_bytes(&self) -> usize {
        self.max_request_bytes + Self::MESSAGE_OVERHEAD
    }

    /// How long a proposal or a linearizable read may take: 5 s for the disk, and two elections.
    /// Source: etcd `ServerConfig.ReqTimeout`.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_bytes: 3 * 512 * 1024,
            max_txn_ops: 128,
            max_concurrent_streams: u32::MAX,
            max_connections: 0,
            keepalive_interval: Duration::from_secs(2 * 3600),
            keepalive_min_time: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(20),
            greeting: Duration::from_secs(120),
            slow_read: Duration::from_secs(300),
            election_timeout: Duration::from_secs(1),
            watch_progress_interval: Duration::from_secs(600),
            slow_unary: Duration::from_millis(300),
        }
    }
}

/// A call that took longer than [`Limits::slow_unary`].
#[derive(Clone, Debug)]
pub struct SlowCall {
    /// `/service/method`.
    pub method: &'static str,
    /// How long it took.
    pub took: Duration,
    /// How much was asked for, as etcd counts it; −1: not counted for this method.
    pub request_count: i64,
    /// Bytes of the request; −1 likewise.
    pub request_bytes: i64,
    /// Keys found or deleted; −1 likewise.
    pub response_count: i64,
    /// Bytes of the answer, 0 when it failed; −1 likewise.
    pub response_bytes: i64,
    /// The request without values, as Go prints messages.
    pub content: String,
}

/// A feature gate, as metrics show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// etcd's name.
    pub name: &'static str,
    /// `ALPHA`, `BETA`, or empty.
    pub stage: &'static str,
    /// Is it on?
    pub is_on: bool,
}

/// The body of an answer to another member: a sentence, or a stream without end.
pub type PeerBody = Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>;

/// An answer to another member under way.
pub type PeerAnswering = Pin<Box<dyn Future<Output = Response<PeerBody>> + Send>>;

/// Answers another member's request. The other argument closes the connection when it is notified: streams have no end
/// of their own, and one that the other side does not read cannot be ended by its body.
pub type PeerService = Arc<dyn Fn(Request<Incoming>, Arc<Notify>) -> PeerAnswering + Send + Sync>;

/// Everything that the doors need to know besides the node.
#[derive(Clone)]
pub struct ApiConfig {
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// Certificates and rules of the listeners that speak TLS.
    pub tls: Option<TlsSettings>,
    /// Threads, each with its own listeners and connections; 0: one per core.
    pub doors: usize,
    /// Let other processes listen on the same ports (`--socket-reuse-port`).
    pub reuse_port: bool,
    /// Let clients wait at the threshold until [`crate::Doors::open`]; who asks for metrics does not wait.
    pub opens_when_told: bool,
    /// Sizes and times.
    pub limits: Limits,
    /// The version of etcd that we speak.
    pub server_version: String,
    /// Milepost's own version, for a metric of its own.
    pub own_version: String,
    /// Serve `grpc_server_handling_seconds` (`--metrics=extensive`).
    pub is_metrics_extensive: bool,
    /// Origins of scripts that browsers may let call us (`--cors`); `*` among them: any.
    pub cors: Vec<String>,
    /// Names that plain-text HTTP clients may have asked for (`--host-whitelist`); `*` among them, or none: any.
    pub host_whitelist: Vec<String>,
    /// Serve JSON below `/v3/` (`--enable-grpc-gateway`).
    pub is_gateway_on: bool,
    /// Serve `/debug/pprof/` (`--enable-pprof`, or `--log-level=debug`).
    pub is_pprof_on: bool,
    /// Feature gates, for `etcd_server_feature_enabled`.
    pub features: Vec<Feature>,
    /// Remember calls, serve `/debug/requests` and report every call to `on_slow` (`--log-level=debug`). Costs a lock per
    /// call.
    pub is_tracing_on: bool,
    /// The health service says "not serving" while the store is being defragmented (feature `StopGRPCServiceOnDefrag`).
    pub stop_serving_on_defragment: bool,
    /// The other members.
    pub colleagues: Arc<dyn Colleagues>,
    /// Refuse changes of membership that would cost the cluster its quorum (`--strict-reconfig-check`).
    pub strict_reconfig: bool,
    /// Told about refused connections and certificates that changed.
    pub log: Arc<dyn Log>,
    /// Answers other members' requests to `/raft` and below, on [`Role::Peer`].
    pub peer_service: Option<PeerService>,
    /// More of `/metrics`, in its format: of what lies beside the node.
    pub more_metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    /// Told about slow calls, and with `is_tracing_on` about all, on the door's thread: must not block.
    pub on_slow: Option<Arc<dyn Fn(SlowCall) + Send + Sync>>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listeners: vec![Listener::plain(Listen::Tcp { host: "localhost".into(), port: 2379 })],
            tls: None,
            doors: 0,
            reuse_port: false,
            opens_when_told: false,
            limits: Limits::default(),
            server_version: "3.7.1".into(),
            own_version: env!("CARGO_PKG_VERSION").into(),
            is_metrics_extensive: false,
            cors: vec!["*".into()],
            host_whitelist: vec!["*".into()],
            is_gateway_on: true,
            is_pprof_on: false,
            features: Vec::new(),
            is_tracing_on: false,
            stop_serving_on_defragment: false,
            colleagues: Arc::new(NoColleagues),
            strict_reconfig: true,
            log: Arc::new(NoLog),
            peer_service: None,
            more_metrics: None,
            on_slow: None,
        }
    }
}
