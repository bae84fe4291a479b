//! Sockets: one listener per door on the same port, so that the kernel spreads clients over cores.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::config::Listen;
use crate::doors::DoorError;

/// Clients that may wait to be accepted, per listener; the kernel caps it (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// A bound socket that no runtime owns yet.
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds `listen` once for each of `doors` doors.
///
/// # Errors
/// The address is taken, not ours, or not allowed: which, why, and what to do.
pub(crate) fn bind(listen: &Listen, doors: usize, reuse_port: bool) -> Result<Vec<Bound>, DoorError> {
    let failed = |source: io::Error| DoorError::Bind { remedy: remedy(&source), address: listen.to_string(), source };
    match listen {
        Listen::Tcp { host, port } => {
            let mut address =
                SocketAddr::new(resolve(host).ok_or_else(|| DoorError::Host { host: host.clone() })?, *port);
            if !reuse_port && *port != 0 {
                // Our own listeners share the port, which would also let another process of this user share it
                // unnoticed. A bind that does not share finds that out first.
                drop(tcp(address, false).map_err(failed)?);
            }
            let mut out = Vec::with_capacity(doors);
            for _ in 0..doors {
                let listener = tcp(address, true).map_err(failed)?;
                address = listener.local_addr().map_err(failed)?;
                out.push(Bound::Tcp(listener));
            }
            Ok(out)
        }
        Listen::Unix(path) => {
            let first = unix(path).map_err(failed)?;
            let copies = (1..doors).map(|_| first.try_clone().map(Bound::Unix)).collect::<io::Result<Vec<_>>>();
            let mut out = copies.map_err(failed)?;
            out.push(Bound::Unix(first));
            Ok(out)
        }
    }
}

fn resolve(host: &str) -> Option<IpAddr> {
    match host {
        "" => Some(Ipv6Addr::UNSPECIFIED.into()),
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        ip => ip.trim_matches(['[', ']']).parse().ok(),
    }
}

fn tcp(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, shared)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn unix(path: &Path) -> io::Result<UnixListener> {
    // A socket file that nobody answers on is left over from a process that was killed.
    if std::os::unix::net::UnixStream::connect(path).is_err_and(|why| why.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn remedy(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::AddrInUse => "stop the process that listens there (ss -ltnp shows it), or give another port",
        io::ErrorKind::AddrNotAvailable => "use an address of this machine (ip addr shows them)",
        io::ErrorKind::PermissionDenied => "use a port above 1023, or a directory that this user may write",
        io::ErrorKind::NotFound => "create the directory of the socket first",
        _ => "use another address",
    }
}
