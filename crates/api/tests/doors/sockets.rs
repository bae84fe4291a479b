//! The gateway over WebSockets.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::{Page, Server, exchange, post, serve};

const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Shakes hands; also returns the server's head.
    async fn open(address: SocketAddr, path: &str, headers: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(address).await.expect("somebody listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{UPGRADE}{KEY}{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the whole head"));
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        (Self(WebSocketStream::from_raw_socket(stream, Role::Client, None).await), head)
    }

    async fn to(server: &Server, path: &str) -> Self {
        let (socket, head) = Self::open(server.doors.local_addrs()[0], path, "").await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        socket
    }

    async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.expect("the server reads");
    }

    /// The next text; `None` once the server has said farewell.
    async fn hear(&mut self) -> Option<Value> {
        loop {
            match self.0.next().await?.expect("an unbroken connection") {
                Message::Text(text) => return Some(serde_json::from_str(&text).expect("one text, one JSON value")),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}

async fn put(server: &Server, body: &str) -> Page {
    post(server.doors.local_addrs()[0], "/v3/kv/put", "", body).await
}

#[test]
fn watching() {
    serve(async |server| {
        let mut socket = Socket::to(&server, "/v3/watch").await;
        socket.say(r#"{"create_request":{"key":"YQ=="}}"#).await;
        assert_eq!(socket.hear().await.unwrap()["result"]["created"], true);
        socket.0.send(Message::Ping("still there?".into())).await.unwrap();
        let pong = socket.0.next().await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong("still there?".into()));
        for count in 1..4 {
            put(&server, r#"{"key":"YQ=="}"#).await;
            let events = socket.hear().await.unwrap()["result"]["events"].clone();
            assert_eq!(events[0]["kv"]["version"], count.to_string());
        }
        // Two requests in one text, one in two.
        socket.say(r#"{"cancel_request":{}} {"create_request":{"key":"Yg==","#).await;
        assert_eq!(socket.hear().await.unwrap()["result"]["canceled"], true);
        socket.say(r#""watch_id":"9"}}"#).await;
        assert_eq!(socket.hear().await.unwrap()["result"]["watch_id"], "9");
        // What cannot be read ends the requests, not the watch.
        socket.say("no JSON").await;
        put(&server, r#"{"key":"Yg=="}"#).await;
        assert_eq!(socket.hear().await.unwrap()["result"]["watch_id"], "9");
        let mut socket = Socket::to(&server, "/v3/watch").await;
        socket.say("no JSON").await;
        assert_eq!(socket.hear().await.unwrap()["error"]["code"], 3);
        assert_eq!(socket.hear().await, None);
    });
}

#[test]
fn one_question_one_answer() {
    serve(async |server| {
        let mut socket = Socket::to(&server, "/v3/kv/put").await;
        socket.say(r#"{"key":"YQ=="}"#).await;
        assert_eq!(socket.hear().await.unwrap()["header"]["revision"], "2");
        assert_eq!(socket.hear().await, None);
        let mut socket = Socket::to(&server, "/v3beta/lease/keepalive").await;
        for id in ["1", "2"] {
            socket.say(&json!({"ID": id}).to_string()).await;
            assert_eq!(socket.hear().await.unwrap()["result"]["ID"], id);
        }
        let mut socket = Socket::to(&server, "/v3/no/such").await;
        assert_eq!(socket.hear().await.unwrap(), json!({"code": 5, "message": "Not Found"}));
        assert_eq!(socket.hear().await, None);
    });
}

#[test]
fn handshakes() {
    serve(async |server| {
        let address = server.doors.local_addrs()[0];
        let (_, head) = Socket::open(address, "/v3/watch", "Sec-WebSocket-Protocol: Bearer, token\r\n").await;
        for line in [
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=",
            "sec-websocket-protocol: bearer",
        ] {
            assert!(head.contains(&format!("{line}\r\n")), "{head}");
        }
        assert!(!head.contains("access-control"), "{head}");
        let upgrade = UPGRADE.replace("keep-alive", "close");
        let old = upgrade.replace("13", "8");
        for (verb, headers, status) in
            [("POST", format!("{upgrade}{KEY}"), 405), ("GET", upgrade, 400), ("GET", old + KEY, 400)]
        {
            let page = exchange(address, &format!("{verb} /v3/watch HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
            assert_eq!(page.status, status);
            assert!(page.head.contains("sec-websocket-version: 13\r\n"), "{}", page.head);
        }
    });
}

#[test]
fn farewells() {
    serve(async |server| {
        let mut socket = Socket::to(&server, "/v3/watch").await;
        socket.say(r#"{"create_request":{"key":"YQ=="}}"#).await;
        socket.hear().await.unwrap();
        socket.0.close(None).await.unwrap();
        assert!(matches!(socket.0.next().await, Some(Ok(Message::Close(_)))));
        assert!(socket.0.next().await.is_none());
        // A text above the limit ends the conversation.
        let mut socket = Socket::to(&server, "/v3/watch").await;
        let _ = socket.0.send(Message::text("x".repeat((5 << 20) + 1))).await;
        let end = loop {
            match socket.0.next().await {
                Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break None,
            }
        };
        assert!(matches!(end, Some(1009) | None), "{end:?}");
        // Open sockets keep the server no longer than they must.
        let mut socket = Socket::to(&server, "/v3/watch").await;
        socket.say(r#"{"create_request":{"key":"YQ=="}}"#).await;
        socket.hear().await.unwrap();
        let Server { doors, member: _member } = server;
        let stopping = tokio::task::spawn_blocking(move || doors.stop(std::time::Duration::from_secs(30)));
        assert_eq!(socket.hear().await.unwrap()["error"]["message"], "etcdserver: server stopped");
        assert_eq!(socket.hear().await, None);
        drop(socket);
        stopping.await.unwrap();
    });
}
