//! HTTP/1 by hand.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
pub struct Page {
    pub status: u16,
    /// Head as it came, in lower case.
    pub head: String,
    pub body: String,
}

/// Sends `method path` alone on a new connection.
pub async fn request(address: SocketAddr, method: &str, path: &str) -> Page {
    let mut socket = TcpStream::connect(address).await.expect("somebody listens");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer in text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Page { status, head: head.to_lowercase(), body: body.to_owned() }
}
