//! What a client is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// What a message to the server may measure unless told otherwise. Above the server's own limit for requests
/// (1.5 MiB), so that it is the server who refuses. etcd: `client/v3/options.go`.
pub(crate) const MAX_SEND_BYTES: usize = 2 << 20;

/// What an answer may measure unless told otherwise: as large as etcd's client takes.
pub(crate) const MAX_RECV_BYTES: usize = i32::MAX as usize;

/// The shortest distance between two keep-alive pings: what gRPC libraries keep, and servers punish less.
pub(crate) const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// How to reach a cluster. [`Config::default`] has no endpoints; durations are those of etcdctl.
#[derive(Clone)]
pub struct Config {
    /// `host:port`, `http://`, `https://`, `unix://` or `unixs://`. The first one decides whether TLS is used.
    pub endpoints: Vec<String>,
    /// Bound of the authentication while connecting, and of the wait for a lease's first keep-alive.
    pub dial_timeout: Duration,
    /// Distance of keep-alive pings while calls are under way; zero for none, and never under ten seconds.
    pub keepalive_time: Duration,
    /// How long a ping may go unanswered before the connection counts as broken.
    pub keepalive_timeout: Duration,
    /// Largest request in bytes; 0 is 2 MiB.
    pub max_send_bytes: usize,
    /// Largest answer in bytes; 0 is 2 GiB − 1.
    pub max_recv_bytes: usize,
    /// Certificates, and whether TLS is wanted without any.
    pub secure: Secure,
    /// Who calls.
    pub auth: Auth,
    /// Told of every attempt of a unary call that failed, before it is retried or given up.
    pub watcher: Option<FailureWatcher>,
}

/// A function that hears of failed attempts.
pub type FailureWatcher = Arc<dyn Fn(&FailedAttempt<'_>) + Send + Sync>;

/// One attempt of a unary call that failed.
pub struct FailedAttempt<'a> {
    /// Authority of the first endpoint, as `127.0.0.1:2379`.
    pub target: &'a str,
    /// Address of the server that was asked; `None` if no connection was found.
    pub peer: Option<&'a str>,
    /// As `/etcdserverpb.KV/Put`.
    pub method: &'a str,
    /// From 0.
    pub attempt: u32,
    /// What came of it.
    pub error: &'a Error,
}

/// TLS as etcdctl's flags say it. Empty strings stand for "not given".
#[derive(Clone, Debug)]
pub struct Secure {
    /// File with our certificate, PEM.
    pub cert: String,
    /// File with its key, PEM.
    pub key: String,
    /// File with the authorities that we trust, PEM; empty for those of the system.
    pub cacert: String,
    /// The name that the server's certificate must carry; empty for the host of the endpoint.
    pub server_name: String,
    /// Whether an endpoint without a scheme is spoken to without TLS, when no file is given either.
    pub insecure_transport: bool,
    /// Whether any certificate of the server will do.
    pub insecure_skip_verify: bool,
}

/// Who calls.
#[derive(Clone, Default)]
pub enum Auth {
    /// Nobody in particular, or whom our certificate names.
    #[default]
    None,
    /// A user; the token is fetched while connecting and whenever the server no longer knows it.
    Password {
        /// Name of the user.
        user: String,
        /// Its password.
        password: String,
    },
    /// A token that was made elsewhere.
    Token(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auth::None => f.write_str("None"),
            Auth::Password { user, .. } => write!(f, "Password({user})"),
            Auth::Token(_) => f.write_str("Token"),
        }
    }
}

impl Default for Secure {
    fn default() -> Secure {
        Secure {
            cert: String::new(),
            key: String::new(),
            cacert: String::new(),
            server_name: String::new(),
            insecure_transport: true,
            insecure_skip_verify: false,
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            endpoints: Vec::new(),
            dial_timeout: Duration::from_secs(2),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            max_send_bytes: 0,
            max_recv_bytes: 0,
            secure: Secure::default(),
            auth: Auth::None,
            watcher: None,
        }
    }
}

impl Config {
    pub(crate) fn send_limit(&self) -> usize {
        if self.max_send_bytes == 0 { MAX_SEND_BYTES } else { self.max_send_bytes }
    }

    pub(crate) fn recv_limit(&self) -> usize {
        if self.max_recv_bytes == 0 { MAX_RECV_BYTES } else { self.max_recv_bytes }
    }

    /// The refusal of limits that cannot both hold.
    pub(crate) fn check_limits(&self) -> Result<(), Error> {
        if self.max_recv_bytes > 0 && self.max_send_bytes > self.max_recv_bytes {
            return Err(Error::client(format!(
                "gRPC message recv limit ({} bytes) must be greater than send limit ({} bytes)",
                self.max_recv_bytes, self.max_send_bytes
            )));
        }
        Ok(())
    }
}
