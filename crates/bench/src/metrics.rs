//! The server's own counters: one plain HTTP/1.0 GET of `/metrics`.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::endpoint::Endpoint;

/// Counts the syncs of the log. Source: etcd `server/storage/wal/metrics.go`.
pub const WAL_SYNCS: &str = "etcd_disk_wal_fsync_duration_seconds_count";

/// How long a server may take over its page; a bench must not hang on an ornament.
const PATIENCE: Duration = Duration::from_secs(5);

/// Value of the label-free counter `name` summed over `endpoints`; `None` as soon as one does not tell.
pub fn sum(endpoints: &[Endpoint], name: &str) -> Option<f64> {
    endpoints.iter().map(|endpoint| value(&page(endpoint)?, name)).sum()
}

/// Values of the label-free samples `names` of one server, all of one page; `None` as soon as one is missing.
pub fn values<const N: usize>(endpoint: &Endpoint, names: [&str; N]) -> Option<[f64; N]> {
    let page = page(endpoint)?;
    let found: Option<Vec<f64>> = names.iter().map(|name| value(&page, name)).collect();
    found?.try_into().ok()
}

/// The whole answer of `/metrics`, head included: counters never look like header lines.
fn page(endpoint: &Endpoint) -> Option<String> {
    // The page of a port with TLS costs a handshake in the middle of what is measured.
    if endpoint.tls.is_some() {
        return None;
    }
    // 1.0, so that the page comes whole and in one piece: no chunks, closed at its end.
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {}\r\n\r\n", endpoint.authority);
    let address = endpoint.authority.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    String::from_utf8(answer).ok()
}

/// Value of the label-free sample `name` in the text format.
fn value(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const PAGE: &str = "# TYPE a_count counter\na_count_sum 3\na_count{x=\"1\"} 4\na_count 1.5e+03\nb 2\n";

    #[test]
    fn samples_are_found_by_their_whole_name() {
        assert_eq!(value(PAGE, "a_count"), Some(1500.0));
        assert_eq!(value(PAGE, "b"), Some(2.0));
        assert_eq!(value(PAGE, "c"), None);
    }

    #[test]
    fn several_values_come_of_one_page() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::plain(listener.local_addr().unwrap().to_string());
        let server = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0u8; 512];
                assert!(stream.read(&mut request).unwrap() > 0);
                stream.write_all(PAGE.as_bytes()).unwrap();
            }
        });
        assert_eq!(values(&endpoint, ["b", "a_count"]), Some([2.0, 1500.0]));
        assert_eq!(values(&endpoint, ["b", "c"]), None);
        server.join().unwrap();
    }

    #[test]
    fn one_silent_server_makes_the_sum_unknown() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::plain(listener.local_addr().unwrap().to_string());
        let server = std::thread::spawn(move || {
            for answer in [PAGE, PAGE, "HTTP/1.0 404 Not Found\r\n\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0u8; 512];
                let read = stream.read(&mut request).unwrap();
                assert!(request[..read].starts_with(b"GET /metrics HTTP/1.0\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let twice = [endpoint.clone(), endpoint.clone()];
        assert_eq!(sum(&twice, "a_count"), Some(3000.0));
        assert_eq!(sum(&twice[..1], "a_count"), None);
        server.join().unwrap();
    }
}
