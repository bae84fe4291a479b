//! Telling systemd that the member serves.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use milepost_node::log::Log;

/// Sends `READY=1` to the socket that `NOTIFY_SOCKET` names; without it, nothing. A leading `@` means an abstract name.
pub fn tell(log: &dyn Log) {
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return };
    log.info("notifying init daemon", &[]);
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(b"READY=1", &address)
    });
    match sent {
        Ok(_) => log.info("successfully notified init daemon", &[]),
        Err(error) => {
            log.error("failed to notify init daemon", &[("socket", name.into()), ("error", error.to_string().into())])
        }
    }
}
