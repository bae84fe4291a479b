//! The connections of one door: accepted, served, ended.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use milepost_node::log::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use crate::authority::Mended;
use crate::config::{Limits, Role};
use crate::connection::{Connection, Seat, Seats};
use crate::door::Door;
use crate::doors::Ways;
use crate::grpc::Opening;
use crate::guard::{Debt, Guarded};
use crate::listen::Bound;
use crate::tls::{self, Demands, Keeper};
use crate::wire::Wire;
use crate::{grpc, http as plain};

/// Window of one stream: a message of the default limit fits without waiting for an update.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// Window of one connection: eight such messages on the way at once.
const CONNECTION_WINDOW: u32 = 8 * STREAM_WINDOW;
/// Bytes that h2 keeps per stream before it asks the body to wait.
const SEND_BUFFER: usize = 1024 * 1024;
/// Long tokens fit; grpc-go takes 16 MiB, hyper's default is 16 KiB.
const HEADERS_MAX: u32 = 256 * 1024;
/// Streams that a client may cancel before we have looked at them: a program that gives up on many calls at once is no
/// attack. (h2 defaults to 20.)
const PENDING_RESETS: usize = 4096;
/// A client may think this long before it sends the headers of an HTTP/1 request. Source: `facts/http.md` §4.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);
/// Least time between two pings if no other is given. Source: grpc-go `defaultServerKeepalivePolicy`.
const PING_DISTANCE: Duration = Duration::from_secs(300);
/// Pause after `accept` failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

fn spawn(future: impl Future<Output = ()> + 'static) {
    drop(tokio::task::spawn_local(future));
}

/// Runs hyper's request tasks on the thread of their connection.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}

fn builder(limits: &Limits) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .auto_date_header(false)
        .keep_alive_interval((!limits.keepalive_interval.is_zero()).then_some(limits.keepalive_interval))
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

/// The versions of HTTP that a connection may speak.
struct Builders {
    /// Its first bytes tell.
    either: auto::Builder<LocalExecutor>,
    /// HTTP/1: pages without TLS.
    http1: auto::Builder<LocalExecutor>,
    /// HTTP/2: gRPC alone.
    http2: auto::Builder<LocalExecutor>,
}

impl Builders {
    fn new(limits: &Limits) -> Self {
        let new = || builder(limits);
        Self { either: new(), http1: new().http1_only(), http2: new().http2_only() }
    }

    /// With TLS, ALPN has settled it: `is_http2`.
    fn of(&self, role: Role, is_http2: Option<bool>) -> &auto::Builder<LocalExecutor> {
        match (role, is_http2) {
            (Role::Grpc, _) | (_, Some(true)) => &self.http2,
            (Role::Mixed, None) => &self.either,
            (Role::Http | Role::Metrics | Role::Peer, None) | (_, Some(false)) => &self.http1,
        }
    }
}

/// A listener of this door's runtime.
pub(crate) struct Entrance {
    socket: Socket,
    ways: Ways,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Entrance {
    pub(crate) fn new(bound: Bound, ways: Ways) -> io::Result<Self> {
        let socket = match bound {
            Bound::Tcp(listener) => Socket::Tcp(TcpListener::from_std(listener)?),
            Bound::Unix(listener) => Socket::Unix(UnixListener::from_std(listener)?),
        };
        Ok(Self { socket, ways })
    }

    async fn accept(&self) -> io::Result<(Wire, Option<SocketAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                // Small answers must not wait for the client's acknowledgement. A socket that is already closed
                // refuses, and the connection ends by itself.
                let _ = stream.set_nodelay(true);
                Ok((stream.into(), Some(remote)))
            }
            Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| (stream.into(), None)),
        }
    }
}

/// Places for open connections, over all doors.
pub(crate) struct Sockets {
    /// Of clients.
    pub(crate) clients: Arc<Semaphore>,
    /// Of listeners that serve metrics alone: who watches this member sees it even if clients have taken every place.
    pub(crate) metrics: Arc<Semaphore>,
}

impl Sockets {
    fn of(&self, ways: Ways) -> &Arc<Semaphore> {
        if is_for_metrics(ways) { &self.metrics } else { &self.clients }
    }
}

fn is_for_metrics(ways: Ways) -> bool {
    [ways.plain, ways.tls].into_iter().flatten().all(|role| role == Role::Metrics)
}

/// Where one door's connections live.
pub(crate) struct Hall {
    builders: Builders,
    door: Rc<Door>,
    keeper: Option<Arc<Keeper>>,
    sockets: Arc<Sockets>,
    opened: watch::Receiver<bool>,
    stopped: watch::Receiver<Option<Instant>>,
    seats: Rc<Seats>,
}

impl Hall {
    pub(crate) fn new(
        door: Rc<Door>,
        keeper: Option<Arc<Keeper>>,
        sockets: Arc<Sockets>,
        opened: watch::Receiver<bool>,
        stopped: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let builders = Builders::new(&door.config.limits);
        Self { builders, door, keeper, sockets, opened, stopped, seats: Rc::default() }
    }

    /// Serves until the doors are stopped and the last connection is gone, or patience ends.
    pub(crate) async fn receive(self: Rc<Self>, entrances: Vec<Entrance>) {
        let accept = |entrance| tokio::task::spawn_local(Rc::clone(&self).accept(entrance));
        let accepting: Vec<_> = entrances.into_iter().map(accept).collect();
        let mut stopped = self.stopped.clone();
        let until = match stopped.wait_for(Option::is_some).await {
            Ok(until) => until.unwrap_or_else(Instant::now),
            Err(_) => Instant::now(),
        };
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        self.door.is_stopping.set(true);
        self.door.slots.wake_streams();
        // Out of patience: what is left is cut off with the runtime.
        let _ = tokio::time::timeout_at(until.into(), self.seats.everyone_left()).await;
    }

    async fn accept(self: Rc<Self>, entrance: Entrance) {
        if !is_for_metrics(entrance.ways) && self.opened.clone().wait_for(|is_open| *is_open).await.is_err() {
            return;
        }
        loop {
            let Ok((wire, remote)) = entrance.accept().await else {
                // The client gave up, or there are no descriptors left: the next one may do better.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Waits with one guest at the threshold. Taken before accepting, a quiet door would keep a place from a
            // busy one.
            let Ok(socket) = Arc::clone(self.sockets.of(entrance.ways)).acquire_owned().await else { return };
            self.door.config.log.debug_with("accepted a connection", || {
                let places = self.sockets.of(entrance.ways).available_permits();
                [("remote-addr", shown(remote)), ("places-left", places.into())]
            });
            spawn(Rc::clone(&self).host(wire, remote, entrance.ways, self.seats.take(socket)));
        }
    }

    /// Finds out what kind of connection this is, and serves it to its end.
    async fn host(self: Rc<Self>, mut wire: Wire, remote: Option<SocketAddr>, ways: Ways, seat: Seat) {
        let is_tls = match (ways.plain, ways.tls) {
            (Some(_), Some(_)) => match self.unless_stopped(wire.begins_tls()).await {
                Some(is_tls) => is_tls,
                None => return,
            },
            (_, tls) => tls.is_some(),
        };
        match ways {
            Ways { tls: Some(role), .. } if is_tls => self.host_tls(wire, remote, role, seat).await,
            Ways { plain: Some(role), .. } => {
                self.attend(wire, None, Rc::new(Connection::new(role, false, seat))).await;
            }
            // No listener is neither.
            Ways { .. } => {}
        }
    }

    async fn host_tls(&self, wire: Wire, remote: Option<SocketAddr>, role: Role, seat: Seat) {
        let Some(keeper) = &self.keeper else { return };
        let own_address = match role {
            Role::Peer => !keeper.skips_san_verification(),
            Role::Metrics => true,
            Role::Mixed | Role::Grpc | Role::Http => false,
        };
        let demands = Demands { http2: role == Role::Grpc, own_address };
        let shaking = tls::shake(keeper, &*self.door.config.log, wire, remote, demands);
        if let Some(Some(guest)) = self.unless_stopped(shaking).await {
            self.attend(guest.stream, Some(guest.is_http2), Rc::new(Connection::new(role, true, seat))).await;
        }
    }

    async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            out = future => Some(out),
            _ = stopped.wait_for(Option::is_some) => None,
        }
    }

    async fn attend(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        is_http2: Option<bool>,
        connection: Rc<Connection>,
    ) {
        let (limits, debt) = (&self.door.config.limits, Arc::<Debt>::default());
        let service = service_fn(|request: Request<Incoming>| {
            let mut opening = open(&self.door, &connection, request);
            let debt = Arc::clone(&debt);
            async move {
                let mut reply = match &mut opening {
                    Opening::Refused(reply) => std::mem::take(reply),
                    Opening::Unary(call) => call.answer().await,
                    Opening::Rare(future) => future.await,
                };
                reply.body_mut().owe(&debt);
                Ok::<_, Infallible>(reply)
            }
        });
        let guarded = Guarded::new(io, limits.greeting, ping_distance(limits, &connection), Arc::clone(&debt));
        let builder = self.builders.of(connection.role, is_http2);
        let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(Mended::new(guarded)), service));
        let mut stopped = self.stopped.clone();
        let ended = async {
            tokio::select! {
                // How a connection ends is the client's business; there is nobody to tell.
                _ = serving.as_mut() => return,
                _ = stopped.wait_for(Option::is_some) => serving.as_mut().graceful_shutdown(),
            }
            let _ = serving.await;
        };
        let hang_up = Arc::clone(&connection.hang_up);
        tokio::select! {
            () = ended => {}
            () = hang_up.notified() => {}
            () = debt.is_ignored(limits.slow_read) => {
                self.door.config.log.warn("closed the connection of a client that does not take its answers", &[]);
            }
        }
    }
}

/// Who calls, for the log.
fn shown(remote: Option<SocketAddr>) -> Value {
    remote.map_or_else(|| "@".into(), |remote| remote.to_string().into())
}

/// How far apart pings must be. In etcd it is gRPC's own server that insists, which TLS with pages goes past.
/// Source: `facts/http.md` §6.
fn ping_distance(limits: &Limits, connection: &Connection) -> Option<Duration> {
    let is_enforced = match connection.role {
        Role::Grpc => true,
        Role::Mixed => !connection.is_tls,
        Role::Http | Role::Metrics | Role::Peer => false,
    };
    let distance = if limits.keepalive_min_time.is_zero() { PING_DISTANCE } else { limits.keepalive_min_time };
    is_enforced.then_some(distance)
}

/// gRPC or pages. Source: `facts/http.md` §5.
fn open(door: &Rc<Door>, connection: &Rc<Connection>, request: Request<Incoming>) -> Opening {
    if is_call(connection, &request) {
        grpc::open(door, request)
    } else {
        Opening::Rare(Box::pin(plain::serve(Rc::clone(door), Rc::clone(connection), request)))
    }
}

fn is_call(connection: &Connection, request: &Request<Incoming>) -> bool {
    let is_http2 = request.version() == Version::HTTP_2;
    match connection.role {
        Role::Grpc => true,
        // Pages come over HTTP/2 as well, if TLS carries it.
        Role::Mixed if connection.is_tls => is_http2 && says_grpc(request),
        Role::Mixed => is_http2,
        Role::Http | Role::Metrics | Role::Peer => false,
    }
}

fn says_grpc(request: &Request<Incoming>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let value = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    value.windows(GRPC.len()).any(|window| window == GRPC)
}
