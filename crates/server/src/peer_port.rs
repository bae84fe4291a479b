//! The peer port of a member that has no peers: taken, so that nobody else takes it, and answered with a sentence.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::config::spelling::Url;

/// 503, never 403 or 410: an etcd peer reads those as "I was removed" and stops.
const ANSWER: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 52\r\n\
    Connection: close\r\n\r\nthis version of Milepost runs as a lone member only\n";

/// Longest that one caller is listened to.
const PATIENCE: Duration = Duration::from_millis(500);

/// The bound port.
pub struct PeerPort {
    listeners: Vec<TcpListener>,
}

impl PeerPort {
    /// Takes every address of `urls`.
    ///
    /// # Errors
    /// The address that cannot be had, and what to do.
    pub fn bind(urls: &[Url]) -> Result<Self, String> {
        let mut listeners = Vec::new();
        for url in urls {
            let listener = TcpListener::bind((url.host.as_str(), url.port)).map_err(|error| {
                format!(
                    "cannot listen for peers on {}: {error}; stop the program that has the port, or choose another --listen-peer-urls",
                    url.authority()
                )
            })?;
            listeners.push(listener);
        }
        Ok(Self { listeners })
    }

    /// Answers whoever calls until the process ends.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn serve(self) -> io::Result<()> {
        for listener in self.listeners {
            std::thread::Builder::new().name("peer-port".into()).stack_size(64 << 10).spawn(move || {
                for caller in listener.incoming().flatten() {
                    // A caller that goes away early is nobody's loss.
                    let _ = answer(caller);
                }
            })?;
        }
        Ok(())
    }
}

fn answer(mut caller: TcpStream) -> io::Result<()> {
    caller.set_read_timeout(Some(PATIENCE))?;
    caller.set_write_timeout(Some(PATIENCE))?;
    // One read takes an ordinary request's head; an answer before it would be lost in a reset.
    let _ = caller.read(&mut [0; 4096])?;
    caller.write_all(ANSWER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::spelling;

    #[test]
    fn the_answer_is_well_formed_and_a_busy_port_is_named() {
        let (head, body) = std::str::from_utf8(ANSWER).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let why = PeerPort::bind(&spelling::urls(&format!("http://{address}")).unwrap()).err().unwrap();
        assert!(why.contains(&address) && why.contains("--listen-peer-urls"), "{why}");
    }
}
