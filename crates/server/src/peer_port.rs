//! The peer port of a member that has no peers: taken, so that nobody else takes it, and answered with a sentence.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::config::settings::Refusal;
use crate::config::system_words;
use crate::config::url::Url;

/// 503, never 403 or 410: an etcd peer reads those as "I was removed" and stops.
const ANSWER: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 52\r\n\
    Connection: close\r\n\r\nthis version of Milepost runs as a lone member only\n";

/// Callers that may wait; nobody should call.
const BACKLOG: i32 = 16;

/// Longest that one caller is listened to.
const PATIENCE: Duration = Duration::from_millis(500);

/// The bound port.
pub struct PeerPort {
    listeners: Vec<Socket>,
}

impl PeerPort {
    /// Takes every address of `urls`; `reuse_port`: shared with other processes.
    ///
    /// # Errors
    /// The address that cannot be had, and what to do.
    pub fn bind(urls: &[Url], reuse_port: bool) -> Result<Self, Refusal> {
        let bind = |url| listen(url, reuse_port).map_err(|error| refuse(url, &error));
        Ok(Self { listeners: urls.iter().map(bind).collect::<Result<_, _>>()? })
    }

    /// Answers whoever calls until the process ends.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn serve(self) -> io::Result<()> {
        for listener in self.listeners {
            std::thread::Builder::new().name("peer-port".into()).stack_size(64 << 10).spawn(move || {
                while let Ok((caller, _)) = listener.accept() {
                    // A caller that goes away early is nobody's loss.
                    let _ = answer(caller);
                }
            })?;
        }
        Ok(())
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

fn answer(mut caller: Socket) -> io::Result<()> {
    caller.set_read_timeout(Some(PATIENCE))?;
    caller.set_write_timeout(Some(PATIENCE))?;
    // One read takes an ordinary request's head; an answer before it would be lost in a reset.
    let _ = caller.read(&mut [0; 4096])?;
    caller.write_all(ANSWER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::url;

    #[test]
    fn the_answer_is_well_formed_and_a_busy_port_is_named() {
        let (head, body) = std::str::from_utf8(ANSWER).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let refusal = PeerPort::bind(&url::urls(&format!("http://{address}")).unwrap(), false).err().unwrap();
        assert_eq!(refusal.complaint, format!("listen tcp {address}: bind: address already in use"));
        assert!(refusal.remedy.contains("--listen-peer-urls"), "{refusal:?}");
    }

    #[test]
    fn a_port_is_shared_with_who_shares_it() {
        let first = PeerPort::bind(&url::urls("http://127.0.0.1:0").unwrap(), true).unwrap();
        let port = first.listeners[0].local_addr().unwrap().as_socket().unwrap().port();
        let again = |reuse| PeerPort::bind(&url::urls(&format!("http://localhost:{port}")).unwrap(), reuse);
        assert!(again(true).is_ok() && again(false).is_err());
    }

    #[test]
    fn a_left_over_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let url = url::urls(&format!("unix://{}/peer", dir.path().display())).unwrap();
        drop(PeerPort::bind(&url, false).unwrap());
        let bound = PeerPort::bind(&url, false).unwrap();
        assert!(PeerPort::bind(&url, false).is_err());
        bound.serve().unwrap();
        let mut caller = UnixStream::connect(&url[0].host).unwrap();
        caller.write_all(b"GET /raft HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        caller.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, ANSWER);
    }
}
