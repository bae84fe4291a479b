//! The threads behind the client port: start, accept, stop.
//!
//! Each door is one thread with its own runtime, listeners and connections. Nothing is shared between doors but what is
//! counted; a connection stays where the kernel put it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::LocalRuntime;
use tokio::sync::{Semaphore, watch};

use crate::backend::Backend;
use crate::completions;
use crate::config::{ApiConfig, Limits, Listen, Listener, Role};
use crate::door::Door;
use crate::hall::{Entrance, Hall, Sockets};
use crate::handlers::snapshot;
use crate::listen::{self, Bound};
use crate::metrics::{DoorMetrics, Page};
use crate::tls::Keeper;

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
    /// Certificates or rules of TLS are no good: which, and why.
    #[error("{0}")]
    Tls(String),
    /// A listener speaks TLS and there is no certificate.
    #[error("TLS key/cert (--cert-file, --key-file) must be provided for client url {0} with HTTPS scheme")]
    NoCertificate(String),
    /// No thread or no runtime.
    #[error("cannot start a thread for clients: {0}; raise the limits of processes and open files (ulimit -u, -n)")]
    Thread(io::Error),
}

/// The open doors of one member. Dropping them stops them without waiting for requests.
pub struct Doors {
    open: watch::Sender<bool>,
    stop: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
    /// The same with what was asked for.
    asked: Vec<Listen>,
    keeper: Option<Arc<Keeper>>,
}

impl Doors {
    /// Binds every address of `config` and starts to serve `backend`.
    ///
    /// # Errors
    /// An address cannot be bound, or the system gives no thread. Nothing stays open then.
    pub fn start(config: ApiConfig, backend: Arc<dyn Backend>) -> Result<Self, DoorError> {
        raise_descriptors();
        let count = match config.doors {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let keeper = match (&config.tls, config.listeners.iter().find(|listener| listener.is_tls)) {
            (_, None) => None,
            (None, Some(listener)) => return Err(DoorError::NoCertificate(listener.to_string())),
            (Some(settings), Some(_)) => {
                let keeper = Keeper::new(settings.clone(), Arc::clone(&config.log)).map_err(DoorError::Tls)?;
                Some(Arc::new(keeper))
            }
        };
        let mut per_door: Vec<Vec<(Bound, Ways)>> = (0..count).map(|_| Vec::new()).collect();
        let (mut addresses, mut asked) = (Vec::new(), Vec::new());
        for (place, ways) in places(&config.listeners) {
            let bound = listen::bind(place, count, config.reuse_port)?;
            if let Some(Bound::Tcp(listener)) = bound.first() {
                addresses.push(listener.local_addr().map_err(DoorError::Thread)?);
                asked.push(place.clone());
            }
            per_door.iter_mut().zip(bound).for_each(|(door, listener)| door.push((listener, ways)));
        }
        let metrics: Vec<_> = (0..count).map(|_| Arc::new(DoorMetrics::new())).collect();
        let page = Arc::new(Page::new(&config, &*backend, metrics.clone()));
        let config = Arc::new(config);
        let sockets = Arc::new(sockets(&config));
        let serving = Arc::new(watch::Sender::new(true));
        let snapshots = Arc::new(Semaphore::new(snapshot::AT_ONCE));
        let (stop, stopped) = watch::channel(None);
        let (open, opened) = watch::channel(!config.opens_when_told);
        let mut doors = Self { open, stop, threads: Vec::new(), addresses, asked, keeper: keeper.clone() };
        for (number, (listeners, metrics)) in per_door.into_iter().zip(metrics).enumerate() {
            let seed = Seed {
                listeners,
                config: Arc::clone(&config),
                backend: Arc::clone(&backend),
                keeper: keeper.clone(),
                metrics,
                page: Arc::clone(&page),
                serving: Arc::clone(&serving),
                snapshots: Arc::clone(&snapshots),
                sockets: Arc::clone(&sockets),
                opened: opened.clone(),
                stopped: stopped.clone(),
            };
            let (ready, is_ready) = mpsc::channel();
            let thread = std::thread::Builder::new().name(format!("door-{number}")).spawn(move || seed.run(ready));
            doors.threads.push(thread.map_err(DoorError::Thread)?);
            is_ready.recv().expect("a door reports before it ends").map_err(DoorError::Thread)?;
        }
        Ok(doors)
    }

    /// Where TCP clients knock, with the ports that the system chose; in the order of [`ApiConfig::listeners`], an
    /// address that two of them share once.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where TCP clients of `listen` knock; `None`: it is a Unix socket, or not one of [`ApiConfig::listeners`].
    #[must_use]
    pub fn local_addr(&self, listen: &Listen) -> Option<SocketAddr> {
        let at = self.asked.iter().position(|asked| asked == listen)?;
        Some(self.addresses[at])
    }

    /// What reads certificates, authorities and revocations again, changed or not (SIGHUP). Handshakes notice changed
    /// files by themselves.
    pub fn tls_reloader(&self) -> impl Fn() + Send + 'static {
        let keeper = self.keeper.clone();
        move || keeper.iter().for_each(|keeper| keeper.reload())
    }

    /// Accepts those who waited for it, see [`ApiConfig::opens_when_told`].
    pub fn open(&self) {
        self.open.send_replace(true);
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

/// What a connection may be, by its first byte.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ways {
    /// Without TLS.
    pub(crate) plain: Option<Role>,
    /// With TLS.
    pub(crate) tls: Option<Role>,
}

impl Ways {
    fn of(&self, is_tls: bool) -> Option<Role> {
        if is_tls { self.tls } else { self.plain }
    }
}

/// Each address once. One that is given twice alike stays so, and binding it fails.
fn places(listeners: &[Listener]) -> Vec<(&Listen, Ways)> {
    let mut places: Vec<(&Listen, Ways)> = Vec::new();
    for listener in listeners {
        let known =
            places.iter_mut().find(|(place, ways)| **place == listener.address && ways.of(listener.is_tls).is_none());
        let ways = match known {
            Some((_, ways)) => ways,
            None => &mut places.push_mut((&listener.address, Ways::default())).1,
        };
        if listener.is_tls {
            ways.tls = Some(listener.role);
        } else {
            ways.plain = Some(listener.role);
        }
    }
    places
}

/// As many open files as the system lets this process have, as programs in Go take by themselves: service managers set a
/// low first limit for the sake of old programs.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is forbidden the first limit stays, and fewer clients are let in.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// How many may be connected at once.
fn sockets(config: &ApiConfig) -> Sockets {
    let has_metrics = config.listeners.iter().any(|listener| listener.role == Role::Metrics);
    let metrics = if has_metrics { Limits::METRICS_CONNECTIONS } else { 0 };
    let descriptors = || usize::try_from(crate::metrics::descriptors_max()).unwrap_or(usize::MAX);
    let clients = match config.limits.max_connections {
        0 => descriptors().saturating_sub(Limits::RESERVED_FDS + metrics).max(1),
        most => most,
    };
    let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
    Sockets { clients: places(clients), metrics: places(metrics) }
}

/// What a door's thread starts from.
struct Seed {
    listeners: Vec<(Bound, Ways)>,
    config: Arc<ApiConfig>,
    backend: Arc<dyn Backend>,
    keeper: Option<Arc<Keeper>>,
    metrics: Arc<DoorMetrics>,
    page: Arc<Page>,
    serving: Arc<watch::Sender<bool>>,
    snapshots: Arc<Semaphore>,
    sockets: Arc<Sockets>,
    opened: watch::Receiver<bool>,
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
        // Patience has ended, whatever still computes on a thread of its own: nobody waits for its answer.
        runtime.shutdown_background();
    }

    fn serve(self, runtime: &LocalRuntime, ready: mpsc::Sender<io::Result<()>>) {
        runtime.block_on(async move {
            let (serving, snapshots) = (self.serving, self.snapshots);
            let door = Rc::new(Door::new(self.config, self.backend, self.metrics, self.page, serving, snapshots));
            spawn(completions::dispatch(Arc::clone(&door.sink), Rc::clone(&door.slots)));
            let observer = Rc::clone(&door);
            spawn(completions::sweep(Rc::clone(&door.slots), move |now| observer.note_leader(now)));
            spawn(Rc::clone(&door).flush_reads());
            spawn(Rc::clone(&door).watch_leader());
            let hall = Rc::new(Hall::new(door, self.keeper, self.sockets, self.opened, self.stopped));
            let opened: io::Result<Vec<Entrance>> =
                self.listeners.into_iter().map(|(bound, ways)| Entrance::new(bound, ways)).collect();
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
        assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("give another port"), "{text}");
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
