//! The connections of one door: accepted, served, ended.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use crate::authority::Mended;
use crate::config::{Limits, Role};
use crate::connection::{Connection, Seat, Seats};
use crate::door::Door;
use crate::doors::Ways;
use crate::grpc::Opening;
use crate::listen::Bound;
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

    fn of(&self, connection: &Connection) -> &auto::Builder<LocalExecutor> {
        match connection.role {
            Role::Grpc => &self.http2,
            Role::Mixed => &self.either,
            Role::Http | Role::Metrics => &self.http1,
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

    async fn accept(&self) -> io::Result<Wire> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Small answers must not wait for the client's acknowledgement. A socket that is already closed
                // refuses, and the connection ends by itself.
                let _ = stream.set_nodelay(true);
                Ok(Wire::Tcp(stream))
            }
            Socket::Unix(listener) => listener.accept().await.map(|(stream, _)| Wire::Unix(stream)),
        }
    }
}

/// An accepted socket.
enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! on_wire {
    ($wire:expr, $stream:ident => $call:expr) => {
        match $wire {
            Wire::Tcp($stream) => $call,
            Wire::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_wire!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, out))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_wire!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_wire!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        on_wire!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// Where one door's connections live.
pub(crate) struct Hall {
    builders: Builders,
    door: Rc<Door>,
    sockets: Arc<Semaphore>,
    stopped: watch::Receiver<Option<Instant>>,
    seats: Rc<Seats>,
}

impl Hall {
    pub(crate) fn new(door: Rc<Door>, sockets: Arc<Semaphore>, stopped: watch::Receiver<Option<Instant>>) -> Self {
        Self { builders: Builders::new(&door.config.limits), door, sockets, stopped, seats: Rc::default() }
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
        loop {
            let Ok(wire) = entrance.accept().await else {
                // The client gave up, or there are no descriptors left: the next one may do better.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Waits with one guest at the threshold. Taken before accepting, a quiet door would keep a place from a
            // busy one.
            let Ok(socket) = Arc::clone(&self.sockets).acquire_owned().await else { return };
            spawn(Rc::clone(&self).host(wire, entrance.ways, self.seats.take(socket)));
        }
    }

    /// Finds out what kind of connection this is, and serves it to its end.
    async fn host(self: Rc<Self>, wire: Wire, ways: Ways, seat: Seat) {
        if let Some(role) = ways.plain {
            self.attend(wire, Rc::new(Connection::new(role, seat))).await;
        }
    }

    async fn attend(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, connection: Rc<Connection>) {
        let service = service_fn(|request: Request<Incoming>| {
            let mut opening = open(&self.door, &connection, request);
            async move {
                Ok::<_, Infallible>(match &mut opening {
                    Opening::Refused(reply) => std::mem::take(reply),
                    Opening::Unary(call) => call.answer().await,
                    Opening::Rare(future) => future.await,
                })
            }
        });
        let builder = self.builders.of(&connection);
        let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(Mended::new(io)), service));
        let mut stopped = self.stopped.clone();
        tokio::select! {
            // How a connection ends is the client's business; there is nobody to tell.
            _ = serving.as_mut() => return,
            _ = stopped.wait_for(Option::is_some) => serving.as_mut().graceful_shutdown(),
        }
        let _ = serving.await;
    }
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
        Role::Http | Role::Metrics => false,
    }
}

fn says_grpc(request: &Request<Incoming>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let value = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    value.windows(GRPC.len()).any(|window| window == GRPC)
}
