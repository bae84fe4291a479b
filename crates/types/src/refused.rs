//! Why a connection was not made, in the words that users and operators know from etcd.

use std::io;

/// An error of the system while dialling, as Go words it, as far as people and scripts search for it.
#[must_use]
pub fn worded(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::NotFound => "connect: no such file or directory".into(),
        io::ErrorKind::PermissionDenied => "connect: permission denied".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::TimedOut => "connect: connection timed out".into(),
        _ => error.to_string(),
    }
}
