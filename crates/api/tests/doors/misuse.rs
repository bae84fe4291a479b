//! HTTP/2 against its spirit, frame by frame: each ends, and within the bounds that docs/operations.md gives.

use std::net::SocketAddr;
use std::time::Duration;

use milepost_api::Limits;
use milepost_proto::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::keys::{PUT, get, put};
use crate::support::{Member, Server, limits, request, run, serve};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u8 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    let stream = stream.to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream, payload].concat()
}

/// The head of a call of `path`, without indexing.
fn head(path: &str) -> Vec<u8> {
    let fields = b"\x01\x01x\x0f\x10\x10application/grpc\x00\x02te\x08trailers";
    [&[0x83, 0x86, 0x04, path.len() as u8], path.as_bytes(), fields].concat()
}

fn message(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
}

struct Raw {
    socket: TcpStream,
}

impl Raw {
    /// Has said hello, with `settings`.
    async fn connect(address: SocketAddr, settings: &[u8]) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        let mut raw = Self { socket };
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        raw.send(&frame(SETTINGS, 0, 0, settings)).await;
        raw
    }

    /// The server may have had enough already.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    async fn call(&mut self, stream: u32, path: &str, request: &impl Message) {
        self.send(&frame(HEADERS, END_HEADERS, stream, &head(path))).await;
        self.send(&frame(DATA, END_STREAM, stream, &message(request))).await;
    }

    /// The next frame; `None` at the end of the connection.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.socket.read_exact(&mut payload).await.ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Skips to the next frame of `kind`.
    async fn until(&mut self, kind: u8) -> (u32, Vec<u8>) {
        while let Some((found, stream, payload)) = self.next().await {
            if found == kind {
                return (stream, payload);
            }
        }
        panic!("the connection ended before a frame of kind {kind}");
    }

    /// The server says why it ends the connection, and ends it.
    async fn sent_away(&mut self) -> (u8, String) {
        let (_, payload) = self.until(GOAWAY).await;
        while self.next().await.is_some() {}
        (payload[7], String::from_utf8(payload[8..].to_vec()).unwrap())
    }
}

fn calm(why: &str) -> (u8, String) {
    (ENHANCE_YOUR_CALM, why.to_owned())
}

#[test]
fn pings_without_calls() {
    serve(async |server| {
        let mut raw = Raw::connect(server.doors.local_addrs()[0], &[]).await;
        for _ in 0..3 {
            raw.send(&frame(PING, 0, 0, &[7; 8])).await;
            assert_eq!(raw.until(PING).await.1, [7; 8]);
        }
        raw.send(&frame(PING, 0, 0, &[7; 8])).await;
        assert_eq!(raw.sent_away().await, calm("too_many_pings"));
        // Others are not touched.
        let mut client = server.client().await;
        let _: milepost_proto::etcdserverpb::PutResponse = client.unary(PUT, &put("a", "1")).await.unwrap();
    });
}

#[test]
fn pings_beside_calls_and_answers() {
    serve(async |server| {
        let mut raw = Raw::connect(server.doors.local_addrs()[0], &[]).await;
        for call in 0..20 {
            raw.call(1 + 2 * call, PUT, &put("a", "1")).await;
            // Headers, message, trailers.
            raw.until(HEADERS).await;
            raw.until(DATA).await;
            raw.until(HEADERS).await;
            raw.send(&frame(PING, 0, 0, &[7; 8])).await;
            raw.until(PING).await;
        }
    });
}

#[test]
fn settings_flood() {
    serve(async |server| {
        let mut raw = Raw::connect(server.doors.local_addrs()[0], &[]).await;
        raw.send(&frame(SETTINGS, 0, 0, &[]).repeat(200)).await;
        assert_eq!(raw.sent_away().await, calm("too_many_settings"));
    });
}

#[test]
fn rapid_resets() {
    serve(async |server| {
        let mut raw = Raw::connect(server.doors.local_addrs()[0], &[]).await;
        let head = head(PUT);
        let mut stream = 1;
        // In pieces that the socket takes; a server that leaves hears us out for a while.
        for _ in 0..1000 {
            let mut bytes = Vec::new();
            for _ in 0..100 {
                bytes.extend(frame(HEADERS, END_HEADERS, stream, &head));
                bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                stream += 2;
            }
            if raw.socket.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The farewell may be lost with what we sent after it; the end is what counts.
        while raw.next().await.is_some() {}
        let mut client = server.client().await;
        let _: milepost_proto::etcdserverpb::PutResponse = client.unary(PUT, &put("a", "1")).await.unwrap();
    });
}

#[test]
fn endless_headers() {
    serve(async |server| {
        let address = server.doors.local_addrs()[0];
        // Empty pieces, and pieces with something in them.
        for piece in [&[][..], &[0x40; 1000][..], &b"\x00\x01x\x7f\x80\x01".repeat(100)[..]] {
            let mut raw = Raw::connect(address, &[]).await;
            raw.send(&frame(HEADERS, 0, 1, &head(PUT))).await;
            let mut sent = 0;
            while sent < 100_000 && raw.socket.write_all(&frame(CONTINUATION, 0, 1, piece)).await.is_ok() {
                sent += 1;
            }
            while raw.next().await.is_some() {}
            assert!(sent < 100_000, "pieces of {}", piece.len());
        }
    });
}

#[test]
fn headers_that_are_too_long_fail_their_call_alone() {
    serve(async |server| {
        let socket = TcpStream::connect(server.doors.local_addrs()[0]).await.unwrap();
        let (mut connection, driver) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(async move {
            let _ = driver.await;
        });
        for (long, status) in [(300 * 1024, 431), (100, 415)] {
            let request = http::Request::get("http://x/").header("x-long", "x".repeat(long)).body(()).unwrap();
            let head = connection.send_request(request, true).unwrap().0.await.unwrap();
            assert_eq!(head.status().as_u16(), status);
        }
    });
}

#[test]
fn an_answer_that_nobody_takes() {
    let hasty = Limits { slow_read: Duration::from_secs(1), ..limits() };
    run(async {
        let server = Server::with(hasty, Member::new());
        let address = server.doors.local_addrs()[0];
        let mut client = server.client().await;
        let value = "v".repeat(1 << 20);
        let _: milepost_proto::etcdserverpb::PutResponse = client.unary(PUT, &put("big", &value)).await.unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE 1: the first byte comes, then nothing.
        let mut raw = Raw::connect(address, &[0, 4, 0, 0, 0, 1]).await;
        raw.call(1, crate::keys::RANGE, &get("big")).await;
        assert_eq!(raw.until(DATA).await.1.len(), 1);
        while raw.next().await.is_some() {}
        // A byte now and then is not taking it.
        let mut raw = Raw::connect(address, &[0, 4, 0, 0, 0, 1]).await;
        raw.call(1, crate::keys::RANGE, &get("big")).await;
        while raw.next().await.is_some() {
            raw.send(&frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())).await;
        }
        // Who takes it gets it, in small pieces too.
        let mut raw = Raw::connect(address, &[0, 4, 0, 0, 0x40, 0]).await;
        raw.call(1, crate::keys::RANGE, &get("big")).await;
        let mut taken = 0;
        while taken < value.len() {
            let count = raw.until(DATA).await.1.len();
            taken += count;
            for stream in [0, 1] {
                raw.send(&frame(WINDOW_UPDATE, 0, stream, &(count as u32).to_be_bytes())).await;
            }
        }
    });
}

#[test]
fn half_open_connections() {
    let hasty = Limits { greeting: Duration::from_millis(100), ..limits() };
    run(async {
        let server = Server::with(hasty, Member::new());
        let address = server.doors.local_addrs()[0];
        let mut early = Raw::connect(address, &[]).await;
        for first in [&b""[..], b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(first).await.unwrap();
            // Ends without any doing of ours, politely or not.
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
        assert_eq!(request(address, "GET", "/version").await.status, 200);
        // Who said hello may take its time.
        early.call(1, PUT, &put("a", "1")).await;
        early.until(DATA).await;
    });
}

#[test]
fn empty_data() {
    serve(async |server| {
        let mut raw = Raw::connect(server.doors.local_addrs()[0], &[]).await;
        raw.send(&frame(HEADERS, END_HEADERS, 1, &head(PUT))).await;
        let piece = frame(DATA, 0, 1, &[]).repeat(1000);
        for _ in 0..1000 {
            if raw.socket.write_all(&piece).await.is_err() {
                return;
            }
        }
        panic!("a million empty frames were taken");
    });
}
