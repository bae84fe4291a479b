//! The ports for other members, held from before the member touches its directory until their door opens: of two members
//! on one port the second must find out while it has not done anything yet.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};

use socket2::{Domain, Socket, Type};

use crate::config::settings::Refusal;
use crate::config::system_words;
use crate::config::url::Url;

/// Callers wait for the door.
const BACKLOG: i32 = 16;

/// The held ports; dropped, they are free.
pub struct PeerPort {
    _held: Vec<Socket>,
}

impl PeerPort {
    /// Takes every address of `urls`; `reuse_port`: shared with other processes.
    ///
    /// # Errors
    /// The address that cannot be had, and what to do.
    pub fn hold(urls: &[Url], reuse_port: bool) -> Result<Self, Refusal> {
        let bind = |url| listen(url, reuse_port).map_err(|error| refuse(url, &error));
        Ok(Self { _held: urls.iter().map(bind).collect::<Result<_, _>>()? })
    }
}

fn listen(url: &Url, reuse_port: bool) -> io::Result<Socket> {
    if url.is_unix() {
        // A socket that nobody answers on is left over from a process that was killed.
        if UnixStream::connect(&url.host).is_err_and(|why| why.kind() == io::ErrorKind::ConnectionRefused) {
            std::fs::remove_file(&url.host)?;
        }
        return Ok(UnixListener::bind(&url.host)?.into());
    }
    let ip: IpAddr = match url.host.as_str() {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
    };
    let address = SocketAddr::new(ip, url.port().unwrap_or_default());
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// In the words of Go's `net`.
fn refuse(url: &Url, error: &io::Error) -> Refusal {
    let kind = if url.is_unix() { "unix" } else { "tcp" };
    let shown = if url.is_unix() { url.host.as_str() } else { url.authority() };
    Refusal::new(
        format!("listen {kind} {}: bind: {}", shown.replacen("localhost", "127.0.0.1", 1), system_words(error)),
        format!("{}: stop the program that has it, or choose another --listen-peer-urls", url.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::url;

    #[test]
    fn a_busy_port_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let refusal = PeerPort::hold(&url::urls(&format!("http://{address}")).unwrap(), false).err().unwrap();
        assert_eq!(refusal.complaint, format!("listen tcp {address}: bind: address already in use"));
        assert!(refusal.remedy.contains("--listen-peer-urls"), "{refusal:?}");
    }

    #[test]
    fn a_port_is_shared_with_who_shares_it_and_free_when_dropped() {
        let first = PeerPort::hold(&url::urls("http://127.0.0.1:0").unwrap(), true).unwrap();
        let port = first._held[0].local_addr().unwrap().as_socket().unwrap().port();
        let again = |reuse| PeerPort::hold(&url::urls(&format!("https://localhost:{port}")).unwrap(), reuse);
        assert!(again(true).is_ok() && again(false).is_err());
        drop(first);
        assert!(again(false).is_ok());
    }

    #[test]
    fn a_left_over_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let url = url::urls(&format!("unix://{}/peer", dir.path().display())).unwrap();
        drop(PeerPort::hold(&url, false).unwrap());
        let held = PeerPort::hold(&url, false).unwrap();
        assert!(PeerPort::hold(&url, false).is_err());
        drop(held);
    }
}
