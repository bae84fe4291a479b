//! One figure from a server's `/metrics`.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const NAME: &str = "process_resident_memory_bytes";

/// Time for the whole answer.
const WITHIN: Duration = Duration::from_secs(10);

/// The memory that the server at `endpoint` takes, in bytes.
///
/// # Errors
/// Why it is not known.
pub(super) async fn resident_bytes(endpoint: &str) -> Result<f64, String> {
    let page = tokio::time::timeout(WITHIN, fetch(endpoint)).await;
    let page = page.map_err(|_| format!("fetch error: {endpoint}/metrics did not answer within {WITHIN:?}"))??;
    find(&page)
}

/// HTTP/1.0: the answer ends with the connection.
async fn fetch(endpoint: &str) -> Result<String, String> {
    let failed = |why: String| format!("fetch error: {why}");
    if endpoint.starts_with("https://") || endpoint.starts_with("unix") {
        return Err(failed(format!("{endpoint}: only http is spoken here; name an http:// endpoint first")));
    }
    let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let told = |error: std::io::Error| failed(format!("http://{address}/metrics: {error}"));
    let mut stream = TcpStream::connect(address).await.map_err(told)?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(told)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn find(page: &str) -> Result<f64, String> {
    let value = page.lines().find_map(|line| line.strip_prefix(NAME));
    let value = value.ok_or_else(|| format!("could not find: {NAME}"))?.trim();
    value.parse().map_err(|error| format!("parse error: {error}: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_found_or_missed() {
        let page = "HTTP/1.0 200 OK\r\n\r\n# TYPE process_resident_memory_bytes gauge\nother 1\nprocess_resident_memory_bytes 2.5e+07\n";
        assert_eq!(find(page), Ok(25_000_000.0));
        assert!(find("HTTP/1.0 404\r\n\r\n").unwrap_err().starts_with("could not find"));
    }
}
