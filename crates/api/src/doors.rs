//! The threads behind the client port: start, accept, stop.
//!
//! Each door is one thread with its own runtime, listeners and connections. Nothing is shared between doors but what is
//! counted; a connection stays where the kernel put it.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::LocalRuntime;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::authority::Mended;
use crate::backend::Backend;
use crate::completions;
use crate::config::{ApiConfig, Limits};
use crate::door::Door;
use crate::grpc::Opening;
use crate::listen::{self, Bound};
use crate::metrics::{DoorMetrics, Page};
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

/// Why the doors cannot open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// No listener at this address.
    #[error("cannot listen for clients on {address}: {source}; {remedy}")]
    Bind {
        /// The address as it was given.
        address: String,
        /// The system's reason.
        source: io::Error,
        /// What helps.
        remedy: &'static str,
    },
    /// The host of a listener is a name.
    #[error(
        "cannot listen for clients on host {host:?}: a listener needs an IP address, localhost, or nothing for all addresses"
    )]
    Host {
        /// The name.
        host: String,
    },
    /// No thread or no runtime.
    #[error("cannot start a thread for clients: {0}; raise the limits of processes and open files (ulimit -u, -n)")]
    Thread(io::Error),
}

/// The open doors of one member. Dropping them stops them without waiting for requests.
pub struct Doors {
    stop: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
}

impl Doors {
    /// Binds every address of `config` and starts to serve `backend`.
    ///
    /// # Errors
    /// An address cannot be bound, or the system gives no thread. Nothing stays open then.
    pub fn start(config: ApiConfig, backend: Arc<dyn Backend>) -> Result<Self, DoorError> {
        let count = match config.doors {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let mut per_door: Vec<Vec<Bound>> = (0..count).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for address in &config.listen {
            let bound = listen::bind(address, count, config.reuse_port)?;
            if let Some(Bound::Tcp(listener)) = bound.first() {
                addresses.push(listener.local_addr().map_err(DoorError::Thread)?);
            }
            per_door.iter_mut().zip(bound).for_each(|(door, listener)| door.push(listener));
        }
        let metrics: Vec<_> = (0..count).map(|_| Arc::new(DoorMetrics::new())).collect();
        let page = Arc::new(Page::new(&config, &*backend, metrics.clone()));
        let config = Arc::new(config);
        let sockets = Arc::new(Semaphore::new(sockets_max(&config.limits)));
        let serving = Arc::new(watch::Sender::new(true));
        let (stop, stopped) = watch::channel(None);
        let mut doors = Self { stop, threads: Vec::new(), addresses };
        for (number, (listeners, metrics)) in per_door.into_iter().zip(metrics).enumerate() {
            let seed = Seed {
                listeners,
                config: Arc::clone(&config),
                backend: Arc::clone(&backend),
                metrics,
                page: Arc::clone(&page),
                serving: Arc::clone(&serving),
                sockets: Arc::clone(&sockets),
                stopped: stopped.clone(),
            };
            let (ready, is_ready) = mpsc::channel();
            let thread = std::thread::Builder::new().name(format!("door-{number}")).spawn(move || seed.run(ready));
            doors.threads.push(thread.map_err(DoorError::Thread)?);
            is_ready.recv().expect("a door reports before it ends").map_err(DoorError::Thread)?;
        }
        Ok(doors)
    }

    /// Where TCP clients knock, with the ports that the system chose; in the order of `ApiConfig::listen`.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts nobody any more, ends streams, and waits up to `patience` for requests under way.
    pub fn stop(mut self, patience: Duration) {
        self.stop.send_replace(Some(Instant::now() + patience));
        for thread in self.threads.drain(..) {
            // A door that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.stop.send_replace(Some(Instant::now()));
    }
}

/// How many clients may be connected at once.
fn sockets_max(limits: &Limits) -> usize {
    let descriptors = || usize::try_from(crate::metrics::descriptors_max()).unwrap_or(usize::MAX);
    let most = match limits.max_connections {
        0 => descriptors().saturating_sub(Limits::RESERVED_FDS).max(1),
        most => most,
    };
    most.min(Semaphore::MAX_PERMITS)
}

/// What a door's thread starts from.
struct Seed {
    listeners: Vec<Bound>,
    config: Arc<ApiConfig>,
    backend: Arc<dyn Backend>,
    metrics: Arc<DoorMetrics>,
    page: Arc<Page>,
    serving: Arc<watch::Sender<bool>>,
    sockets: Arc<Semaphore>,
    stopped: watch::Receiver<Option<Instant>>,
}

impl Seed {
    fn run(self, ready: mpsc::Sender<io::Result<()>>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => runtime,
            Err(why) => {
                // The starter waits for this and nothing else.
                let _ = ready.send(Err(why));
                return;
            }
        };
        self.serve(&runtime, ready);
    }

    fn serve(self, runtime: &LocalRuntime, ready: mpsc::Sender<io::Result<()>>) {
        runtime.block_on(async move {
            let door = Rc::new(Door::new(self.config, self.backend, self.metrics, self.page, self.serving));
            spawn(completions::dispatch(Arc::clone(&door.sink), Rc::clone(&door.slots)));
            let observer = Rc::clone(&door);
            spawn(completions::sweep(Rc::clone(&door.slots), move |now| observer.note_leader(now)));
            spawn(Rc::clone(&door).flush_reads());
            spawn(Rc::clone(&door).watch_leader());
            let hall = Rc::new(Hall {
                builder: builder(&door.config.limits),
                door,
                sockets: self.sockets,
                stopped: self.stopped,
                guests: Cell::new(0),
                left: Notify::new(),
            });
            let opened: io::Result<Vec<Entrance>> = self.listeners.into_iter().map(Entrance::new).collect();
            match opened {
                Ok(entrances) => {
                    let _ = ready.send(Ok(()));
                    hall.receive(entrances).await;
                }
                Err(why) => {
                    let _ = ready.send(Err(why));
                }
            }
        });
    }
}

fn spawn(future: impl Future<Output = ()> + 'static) {
    drop(tokio::task::spawn_local(future));
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

/// Runs hyper's request tasks on the thread of their connection.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}

enum Entrance {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Guest {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Entrance {
    fn new(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Bound::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }
}

/// Where one door's connections live.
struct Hall {
    builder: auto::Builder<LocalExecutor>,
    door: Rc<Door>,
    sockets: Arc<Semaphore>,
    stopped: watch::Receiver<Option<Instant>>,
    /// Connections now open.
    guests: Cell<usize>,
    /// Told when a connection has ended.
    left: Notify,
}

impl Hall {
    /// Serves until the doors are stopped and the last connection is gone, or patience ends.
    async fn receive(self: Rc<Self>, entrances: Vec<Entrance>) {
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
        let everyone_left = async {
            while self.guests.get() > 0 {
                self.left.notified().await;
            }
        };
        // Out of patience: what is left is cut off with the runtime.
        let _ = tokio::time::timeout_at(until.into(), everyone_left).await;
    }

    async fn accept(self: Rc<Self>, entrance: Entrance) {
        loop {
            let accepted = match &entrance {
                Entrance::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    // Small answers must not wait for the client's acknowledgement. A socket that is already closed
                    // refuses, and the connection ends by itself.
                    let _ = stream.set_nodelay(true);
                    Guest::Tcp(stream)
                }),
                Entrance::Unix(listener) => listener.accept().await.map(|(stream, _)| Guest::Unix(stream)),
            };
            let Ok(guest) = accepted else {
                // The client gave up, or there are no descriptors left: the next one may do better.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Waits with one guest at the threshold. Taken before accepting, a quiet door would keep a place from a
            // busy one.
            let Ok(socket) = Arc::clone(&self.sockets).acquire_owned().await else { return };
            match guest {
                Guest::Tcp(stream) => spawn(Rc::clone(&self).host(stream, socket)),
                Guest::Unix(stream) => spawn(Rc::clone(&self).host(stream, socket)),
            }
        }
    }

    async fn host(self: Rc<Self>, io: impl AsyncRead + AsyncWrite + Unpin + 'static, socket: OwnedSemaphorePermit) {
        self.guests.set(self.guests.get() + 1);
        self.attend(io).await;
        self.guests.set(self.guests.get() - 1);
        self.left.notify_one();
        drop(socket);
    }

    /// Serves one connection to its end.
    async fn attend(&self, io: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let service = service_fn(|request: Request<Incoming>| {
            let mut opening = open(&self.door, request);
            async move {
                Ok::<_, Infallible>(match &mut opening {
                    Opening::Refused(reply) => std::mem::take(reply),
                    Opening::Unary(call) => call.answer().await,
                    Opening::Rare(future) => future.await,
                })
            }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(Mended::new(io)), service));
        let mut stopped = self.stopped.clone();
        tokio::select! {
            // How a connection ends is the client's business; there is nobody to tell.
            _ = connection.as_mut() => return,
            _ = stopped.wait_for(Option::is_some) => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

/// Without TLS, HTTP/2 is gRPC and HTTP/1 is the rest. Source: `facts/http.md` §5.
fn open(door: &Rc<Door>, request: Request<Incoming>) -> Opening {
    if request.version() == Version::HTTP_2 {
        grpc::open(door, request)
    } else {
        Opening::Rare(Box::pin(plain::serve(Rc::clone(door), request)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;

    #[test]
    fn errors_name_address_and_remedy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let Err(why) = listen::bind(&Listen::Tcp { host: "127.0.0.1".into(), port }, 2, false) else {
            panic!("bound twice")
        };
        let text = why.to_string();
        assert!(text.contains(&format!("http://127.0.0.1:{port}")) && text.contains("give another port"), "{text}");
        let Err(why) = listen::bind(&Listen::Tcp { host: "example.com".into(), port: 1 }, 1, false) else {
            panic!("a name is no address")
        };
        assert!(why.to_string().contains("example.com"), "{why}");
    }

    #[test]
    fn every_door_has_the_same_port() {
        let bound = listen::bind(&Listen::Tcp { host: "localhost".into(), port: 0 }, 3, false).unwrap();
        let ports: Vec<u16> = bound
            .iter()
            .map(|bound| match bound {
                Bound::Tcp(listener) => listener.local_addr().unwrap().port(),
                Bound::Unix(_) => panic!("asked for TCP"),
            })
            .collect();
        assert_eq!(ports.len(), 3);
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0));
        // Another process that does not share finds it taken.
        let address = Listen::Tcp { host: "localhost".into(), port: ports[0] };
        assert!(listen::bind(&address, 1, false).is_err());
    }
}
