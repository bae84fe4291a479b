//! One page of a server by HTTP/1: its metrics.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Client;
use crate::deadline::Deadline;
use crate::dial;
use crate::error::Error;

/// What a page may measure: metrics of a busy member are a few hundred kilobytes.
const PAGE_MAX_BYTES: u64 = 64 << 20;

impl Client {
    /// The body of `path` at the first endpoint, as `/metrics`.
    ///
    /// # Errors
    /// The endpoint cannot be reached, or answers with anything but 200.
    pub async fn page(&self, path: &str, deadline: Deadline) -> Result<String, Error> {
        let fetch = async { self.fetch(path).await.map_err(Error::client) };
        deadline.bound(fetch).await
    }

    async fn fetch(&self, path: &str) -> Result<String, String> {
        let (endpoint, tls) = self.first_endpoint();
        let pipe = dial::dial(endpoint).await?;
        let mut pipe = match tls {
            None => pipe,
            Some(tls) => tls.wrap_http1(pipe, &endpoint.server_name).await?,
        };
        // The end of an answer to HTTP/1.0 is the end of the connection: nothing to take apart.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", endpoint.authority);
        let failed = |error: std::io::Error| format!("{}: {error}", endpoint.authority);
        pipe.write_all(request.as_bytes()).await.map_err(failed)?;
        pipe.flush().await.map_err(failed)?;
        let mut answer = Vec::new();
        pipe.take(PAGE_MAX_BYTES).read_to_end(&mut answer).await.map_err(failed)?;
        body(&String::from_utf8_lossy(&answer)).map_err(|why| format!("{}{path}: {why}", endpoint.authority))
    }
}

fn body(answer: &str) -> Result<String, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer in HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("answered {status:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_answer_has_a_body() {
        assert_eq!(body("HTTP/1.0 200 OK\r\nA: b\r\n\r\nx\r\n\r\ny"), Ok("x\r\n\r\ny".into()));
        assert_eq!(body("HTTP/1.1 404 Not Found\r\n\r\n"), Err("answered \"HTTP/1.1 404 Not Found\"".into()));
        assert!(body("").is_err());
    }
}
