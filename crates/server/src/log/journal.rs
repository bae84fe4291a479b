//! systemd's journal, by its native protocol: one datagram of `NAME=value` lines. Source: systemd's
//! "Native Journal Protocol"; names and priorities from etcd `client/pkg/logutil`.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use milepost_node::log::Level;

use super::Sink;
use crate::config::settings::Refusal;
use crate::config::system_words;

const SOCKET: &str = "/run/systemd/journal/socket";

/// The journal; what it does not take goes to the error stream.
pub struct Journal {
    socket: UnixDatagram,
    /// The name we were called by.
    identifier: String,
}

impl Journal {
    /// Connects to the journal of this machine.
    ///
    /// # Errors
    /// There is none.
    pub fn dial() -> Result<Self, Refusal> {
        Self::dial_at(SOCKET)
    }

    fn dial_at(path: &str) -> Result<Self, Refusal> {
        let socket = UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
        let socket = socket.map_err(|error| {
            Refusal::new(
                format!("can't find journal (dial unixgram {path}: connect: {})", system_words(&error)),
                "name another output in --log-outputs: systemd's journal does not run here",
            )
        })?;
        let called = std::env::args_os().next().unwrap_or_default();
        let identifier =
            Path::new(&called).file_name().map_or_else(|| "etcd".into(), |name| name.to_string_lossy().into());
        Ok(Self { socket, identifier })
    }
}

impl Sink for Journal {
    fn take(&mut self, level: Level, caller: &str, line: &str) -> io::Result<()> {
        let package = Path::new(caller).parent().unwrap_or(Path::new("")).to_string_lossy();
        let mut datagram = Vec::with_capacity(line.len() + 128);
        field(&mut datagram, "MESSAGE", line.trim_end_matches('\n'));
        field(&mut datagram, "PRIORITY", priority(level));
        field(&mut datagram, "PACKAGE", &package);
        field(&mut datagram, "SYSLOG_IDENTIFIER", &self.identifier);
        match self.socket.send(&datagram) {
            Ok(_) => Ok(()),
            Err(_) => io::stderr().write_all(line.as_bytes()),
        }
    }
}

/// syslog's numbers.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::Debug => "7",
        Level::Info => "6",
        Level::Warn => "4",
        Level::Error => "3",
        Level::Fatal => "2",
    }
}

/// `NAME=value`, or for values of several lines the name, the length and the bytes.
fn field(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_datagram() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let reader = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::dial_at(path.to_str().unwrap()).unwrap();
        journal.identifier = "etcd".into();
        journal.take(Level::Warn, "server/run.rs:1", "one\n").unwrap();
        journal.take(Level::Info, "x.rs:1", "two\nlines\n").unwrap();
        let mut buffer = [0; 256];
        let read = reader.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"MESSAGE=one\nPRIORITY=4\nPACKAGE=server\nSYSLOG_IDENTIFIER=etcd\n");
        let read = reader.recv(&mut buffer).unwrap();
        assert!(buffer[..read].starts_with(b"MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\nPRIORITY=6\n"));
    }

    #[test]
    fn no_journal_is_told_as_etcd_tells_it() {
        let refusal = Journal::dial_at("/nonexistent/socket").err().unwrap();
        assert_eq!(
            refusal.complaint,
            "can't find journal (dial unixgram /nonexistent/socket: connect: no such file or directory)"
        );
    }
}
