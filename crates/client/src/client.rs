//! The client: a group of connections, who calls, and how often a call is tried.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use milepost_proto::Message;
use milepost_proto::etcdserverpb::{AuthenticateRequest, AuthenticateResponse};

use crate::balancer::Balancer;
use crate::config::{Auth, Config, FailedAttempt, KEEPALIVE_TIME_MIN};
use crate::connection::{Call, Failure, KeepAlive};
use crate::deadline::{Deadline, GrpcTimeout};
use crate::endpoint::{Endpoint, TlsWish};
use crate::error::{Code, ConnectError, Error};
use crate::method::{self, Method, Repeat};
use crate::stream::Stream;
use crate::tls::TlsDialler;
use crate::wire;

/// How often a unary call is tried at most. etcd: `client/v3/options.go`.
const ATTEMPTS_MAX: u32 = 100;

/// The wait after every round of attempts through a quorum of the endpoints. etcd: the same.
const ROUND_WAIT: Duration = Duration::from_millis(25);

/// A connection to a cluster; clones share it. Made inside of a tokio runtime, and usable only there.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Config,
    /// Shared by all clients that [`Client::at`] makes of one.
    tls: Option<TlsDialler>,
    token: Arc<Mutex<Option<HeaderValue>>>,
    balancer: Balancer,
    first: Endpoint,
    /// What its connections use: the first endpoint's scheme may have the last word.
    dialler: Option<TlsDialler>,
}

impl Client {
    /// Makes a client and begins to connect. No connection is awaited, except that a user's token is fetched, for which
    /// `dial_timeout` is given.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(config: Config) -> Result<Client, ConnectError> {
        let tls = TlsDialler::from_config(&config.secure).map_err(ConnectError::Config)?;
        config.check_limits().map_err(ConnectError::Refused)?;
        let token = Arc::new(Mutex::new(None));
        let client = Client::with(config, tls, token).map_err(ConnectError::Refused)?;
        let deadline = match client.0.config.dial_timeout {
            Duration::ZERO => Deadline::NEVER,
            timeout => Deadline::after(timeout),
        };
        client.refresh_token(deadline).await.map_err(ConnectError::Refused)?;
        Ok(client)
    }

    /// A client for `endpoint` alone, with the same certificates and the same token.
    ///
    /// # Errors
    /// TLS is required by the endpoint's scheme, and the system's authorities cannot be read.
    pub fn at(&self, endpoint: &str) -> Result<Client, Error> {
        let config = Config { endpoints: vec![endpoint.to_owned()], ..self.0.config.clone() };
        Client::with(config, self.0.tls.clone(), Arc::clone(&self.0.token))
    }

    fn with(config: Config, tls: Option<TlsDialler>, token: Arc<Mutex<Option<HeaderValue>>>) -> Result<Client, Error> {
        let endpoints: Vec<Endpoint> = config.endpoints.iter().map(|text| Endpoint::of(text)).collect();
        let first = endpoints.first().ok_or_else(|| Error::client("etcdclient: no available endpoints"))?;
        let first = first.clone();
        // The first endpoint decides for all of them, as in etcd's client.
        let wish = first.tls;
        let dialler = match (wish, tls.clone()) {
            (TlsWish::Refuse, _) => None,
            (TlsWish::IfConfigured, tls) => tls,
            (TlsWish::Require, Some(tls)) => Some(tls),
            (TlsWish::Require, None) => Some(TlsDialler::plain().map_err(Error::client)?),
        };
        let keepalive = KeepAlive {
            time: match config.keepalive_time {
                Duration::ZERO => Duration::ZERO,
                time => time.max(KEEPALIVE_TIME_MIN),
            },
            timeout: config.keepalive_timeout,
        };
        let balancer = Balancer::new(endpoints, dialler.clone(), keepalive);
        Ok(Client(Arc::new(Inner { config, tls, token, balancer, first, dialler })))
    }

    pub(crate) fn first_endpoint(&self) -> (&Endpoint, Option<&TlsDialler>) {
        (&self.0.first, self.0.dialler.as_ref())
    }

    /// The endpoints, as they were given.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.0.config.endpoints
    }

    /// How long the first steps may take: see [`Config::dial_timeout`].
    #[must_use]
    pub fn dial_timeout(&self) -> Duration {
        self.0.config.dial_timeout
    }

    /// One request, one answer, tried again where that is safe.
    pub(crate) async fn unary<Q: Message, A: Message + Default>(
        &self,
        method: &'static Method,
        request: &Q,
        deadline: Deadline,
    ) -> Result<A, Error> {
        let framed = wire::frame(request, self.0.config.send_limit())?;
        let mut attempt = 0;
        loop {
            self.wait_round(attempt, deadline).await?;
            let (failure, peer) = match self.attempt(method, framed.clone(), deadline).await {
                Ok(answer) => return wire::decode(answer),
                Err(failed) => failed,
            };
            self.tell(method, attempt, peer.as_deref(), &failure);
            attempt += 1;
            if attempt >= ATTEMPTS_MAX || !self.may_repeat(method, &failure, deadline).await? {
                return Err(failure);
            }
        }
    }

    /// Tries once; what the server has certainly not seen is sent again through another connection.
    async fn attempt(
        &self,
        method: &'static Method,
        framed: Bytes,
        deadline: Deadline,
    ) -> Result<Bytes, (Error, Option<Arc<str>>)> {
        let inner = &*self.0;
        loop {
            let picked = inner.balancer.pick(deadline).await.map_err(|error| (error, None))?;
            let peer = Arc::clone(picked.connection.peer());
            let token = self.token();
            let call = Call {
                path: method.path,
                timeout: deadline.remaining().map(timeout_header),
                token: token.as_ref(),
                require_leader: false,
            };
            let limit = inner.config.recv_limit();
            let answer = async {
                // The failure is carried through `bound`, which knows errors only.
                Ok(picked.connection.unary(&call, framed.clone(), limit).await)
            };
            match deadline.bound(answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Failure::NotSent(_))) => inner.balancer.retire(&picked),
                Ok(Err(Failure::Ended(error))) => return Err((ended(error, deadline), Some(peer))),
                Err(error) => return Err((error, Some(peer))),
            }
        }
    }

    async fn wait_round(&self, attempt: u32, deadline: Deadline) -> Result<(), Error> {
        let quorum = u32::try_from(self.0.config.endpoints.len() / 2 + 1).unwrap_or(u32::MAX);
        if attempt == 0 || !attempt.is_multiple_of(quorum) {
            return Ok(());
        }
        let wait = async {
            tokio::time::sleep(ROUND_WAIT).await;
            Ok(())
        };
        deadline.bound(wait).await
    }

    fn tell(&self, method: &Method, attempt: u32, peer: Option<&str>, error: &Error) {
        if let Some(watcher) = &self.0.config.watcher {
            watcher(&FailedAttempt { target: &self.0.first.authority, peer, method: method.path, attempt, error });
        }
    }

    /// Whether the call may be made again after `error`; fetches a new token if that is what was wrong.
    async fn may_repeat(&self, method: &Method, error: &Error, deadline: Deadline) -> Result<bool, Error> {
        if error.is_context() {
            return Ok(false);
        }
        if !std::ptr::eq(method, &method::AUTHENTICATE) && self.wants_new_token(error) {
            self.refresh_token(deadline).await?;
            return Ok(true);
        }
        if error.is("rpc not supported for learner") && self.0.config.endpoints.len() > 1 {
            return Ok(true);
        }
        // A server that says "unavailable" to a read may answer the next time, or another server may. A write that
        // reached a server may have happened, whatever came back.
        Ok(method.repeat == Repeat::Always && error.code() == Code::Unavailable)
    }

    fn wants_new_token(&self, error: &Error) -> bool {
        let Auth::Password { .. } = self.0.config.auth else { return false };
        ["user name is empty", "invalid auth token", "revision of auth store is old"].iter().any(|text| error.is(text))
    }

    /// Fetches a token for the configured user; without one, the token that was given. Boxed, because fetching a token is
    /// a call, and calls fetch tokens.
    fn refresh_token(&self, deadline: Deadline) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(async move {
            let token = match &self.0.config.auth {
                Auth::None => return Ok(()),
                Auth::Token(token) => token.clone(),
                // etcd's client asks for no token without a password.
                Auth::Password { user, password } if user.is_empty() || password.is_empty() => return Ok(()),
                Auth::Password { user, password } => self.authenticate(user, password, deadline).await?,
            };
            let token = match token.as_str() {
                "" => None,
                text => Some(HeaderValue::from_str(text).map_err(|_| {
                    Error::client("the token holds characters that no header can carry: give it as it was issued")
                })?),
            };
            *self.0.token.lock().expect("no holder panics") = token;
            Ok(())
        })
    }

    /// A token for `user`; an empty one if the server does not ask for any.
    async fn authenticate(&self, user: &str, password: &str, deadline: Deadline) -> Result<String, Error> {
        let request = AuthenticateRequest { name: user.to_owned(), password: password.to_owned() };
        match self.unary(&method::AUTHENTICATE, &request, deadline).await {
            Ok(AuthenticateResponse { token, .. }) => Ok(token),
            Err(error) if error.is("authentication is not enabled") => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    fn token(&self) -> Option<HeaderValue> {
        self.0.token.lock().expect("no holder panics").clone()
    }

    /// Opens a call of many messages; `first` goes out with it, and nothing after it if `last`.
    pub(crate) async fn stream<Q: Message, A: Message + Default>(
        &self,
        method: &'static Method,
        first: &Q,
        last: bool,
        require_leader: bool,
        deadline: Deadline,
    ) -> Result<Stream<A>, Error> {
        let inner = &*self.0;
        let framed = wire::frame(first, inner.config.send_limit())?;
        // A token may have aged while an earlier stream was running.
        if let Auth::Password { .. } = inner.config.auth {
            self.refresh_token(deadline).await?;
        }
        loop {
            let picked = inner.balancer.pick(deadline).await?;
            let token = self.token();
            let call = Call {
                path: method.path,
                timeout: deadline.remaining().map(timeout_header),
                token: token.as_ref(),
                require_leader,
            };
            let opened = picked.connection.start(&call, framed.clone(), last, inner.config.recv_limit()).await;
            match opened {
                Ok(exchange) => return Ok(Stream::new(exchange, deadline, inner.config.send_limit())),
                Err(Failure::NotSent(_)) => inner.balancer.retire(&picked),
                Err(Failure::Ended(error)) => return Err(ended(error, deadline)),
            }
        }
    }
}

/// The server's clock may end a call a hair before ours: to the user that is one and the same.
pub(crate) fn ended(error: Error, deadline: Deadline) -> Error {
    if error.code() == Code::DeadlineExceeded && deadline.is_about_over() { Error::deadline(None) } else { error }
}

fn timeout_header(rest: Duration) -> HeaderValue {
    HeaderValue::try_from(GrpcTimeout(rest).to_string()).expect("digits and a letter")
}
