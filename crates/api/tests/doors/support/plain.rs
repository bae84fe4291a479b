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

impl Page {
    /// The body, which is JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {:?}", self.body))
    }
}

/// Sends `method path` alone on a new connection.
pub async fn request(address: SocketAddr, method: &str, path: &str) -> Page {
    exchange(address, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

/// Posts `body` with more `headers`, each with its line's end.
pub async fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> Page {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    exchange(address, &(head + body)).await
}

/// Sends `text` on a new connection, and reads until the server ends it.
pub async fn exchange(address: SocketAddr, text: &str) -> Page {
    let answer = String::from_utf8(exchange_bytes(address, text).await).expect("an answer in text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let head = head.to_lowercase();
    let body = if head.contains("transfer-encoding: chunked") { joined(body) } else { body.to_owned() };
    Page { status, head, body }
}

/// As [`exchange`], but the answer need not be text.
pub async fn exchange_bytes(address: SocketAddr, text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.expect("somebody listens");
    socket.write_all(text.as_ref()).await.expect("the server reads");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("an answer");
    answer
}

/// What `chunks` say together.
fn joined(chunks: &str) -> String {
    let (mut out, mut rest) = (String::new(), chunks);
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        out += &tail[..size];
        rest = &tail[size + 2..];
    }
    out
}

/// A request whose body and answer go on for a while.
pub struct Exchange {
    socket: TcpStream,
    unread: String,
}

impl Exchange {
    pub async fn begin(address: SocketAddr, path: &str) -> Self {
        let mut socket = TcpStream::connect(address).await.expect("somebody listens");
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        socket.write_all(head.as_bytes()).await.expect("the server reads");
        Self { socket, unread: String::new() }
    }

    /// Sends a chunk of the body; an empty one is its end.
    pub async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.socket.write_all(chunk.as_bytes()).await.expect("the server reads");
    }

    /// The next line that begins with `{`, chunk sizes and head aside.
    pub async fn line(&mut self) -> serde_json::Value {
        loop {
            while let Some((line, rest)) = self.unread.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.unread = rest;
                if line.starts_with('{') {
                    return serde_json::from_str(&line).expect("a line of JSON");
                }
            }
            let mut bytes = [0; 4096];
            let count = self.socket.read(&mut bytes).await.expect("an unbroken connection");
            assert!(count > 0, "the server has ended: {:?}", self.unread);
            self.unread += std::str::from_utf8(&bytes[..count]).expect("text");
        }
    }
}
