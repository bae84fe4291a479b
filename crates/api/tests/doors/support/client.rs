//! A gRPC client in a page.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use milepost_proto::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Code and message of a call that failed.
pub type Failure = (u32, String);

/// One connection.
#[derive(Clone)]
pub struct Client {
    connection: SendRequest<Bytes>,
    metadata: Vec<(&'static str, String)>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("somebody listens")).await
    }

    /// HTTP/2 over `socket`.
    pub async fn over(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (connection, driver) = h2::client::Builder::new()
            // Hundreds of small answers at once are what a test may ask for.
            .data_frame_budget(1 << 20)
            .handshake(socket)
            .await
            .expect("HTTP/2 is spoken");
        tokio::spawn(async move {
            // Ends with the server or with the test.
            let _ = driver.await;
        });
        Self { connection, metadata: Vec::new() }
    }

    /// Sends `name: value` with every call from now on.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.metadata.push((name, value.to_owned()));
        self
    }

    /// Opens a call without sending anything on it.
    pub async fn open<A: Message + Default>(&mut self, path: &str) -> Call<A> {
        let mut request = Request::post(format!("http://server{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in &self.metadata {
            request = request.header(*name, value);
        }
        std::future::poll_fn(|cx| self.connection.poll_ready(cx)).await.expect("the connection takes calls");
        let (answer, sender) =
            self.connection.send_request(request.body(()).expect("a valid head"), false).expect("the call begins");
        Call {
            sender,
            answer: Some(answer),
            body: None,
            buffer: BytesMut::new(),
            headers: HeaderMap::new(),
            kind: std::marker::PhantomData,
        }
    }

    /// One message out, one in.
    pub async fn unary<A: Message + Default>(&mut self, path: &str, request: &impl Message) -> Result<A, Failure> {
        let mut call = self.open(path).await;
        call.send_last(request);
        let answer = call.next().await?.expect("an answer without an error");
        assert!(call.next().await?.is_none(), "one answer");
        Ok(answer)
    }

    /// As [`Client::unary`], for calls that fail.
    pub async fn failure(&mut self, path: &str, request: &impl Message) -> Failure {
        self.unary::<()>(path, request).await.expect_err("the call fails")
    }
}

/// One call under way.
pub struct Call<A> {
    sender: SendStream<Bytes>,
    answer: Option<h2::client::ResponseFuture>,
    body: Option<RecvStream>,
    buffer: BytesMut,
    pub headers: HeaderMap,
    kind: std::marker::PhantomData<A>,
}

fn framed(message: &impl Message) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(message.encoded_len() as u32);
    message.encode(&mut out).unwrap();
    out.freeze()
}

impl<A: Message + Default> Call<A> {
    pub fn send(&mut self, message: &impl Message) {
        self.sender.send_data(framed(message), false).expect("the stream is open");
    }

    pub fn send_last(&mut self, message: &impl Message) {
        self.sender.send_data(framed(message), true).expect("the stream is open");
    }

    /// Sends bytes that need not be a message.
    pub fn send_raw(&mut self, bytes: &'static [u8], is_last: bool) {
        self.sender.send_data(Bytes::from_static(bytes), is_last).expect("the stream is open");
    }

    pub fn half_close(&mut self) {
        self.sender.send_data(Bytes::new(), true).expect("the stream is open");
    }

    /// Gives the call up.
    pub fn reset(&mut self) {
        self.sender.send_reset(h2::Reason::CANCEL);
    }

    /// The next message; `None` when the call has ended well.
    pub async fn next(&mut self) -> Result<Option<A>, Failure> {
        if let Some(answer) = self.answer.take() {
            let (head, body) = answer.await.expect("an answer").into_parts();
            assert_eq!(head.headers["content-type"], "application/grpc");
            self.headers = head.headers;
            self.body = Some(body);
        }
        if self.headers.contains_key("grpc-status") {
            return outcome(&self.headers);
        }
        let body = self.body.as_mut().expect("set with the head");
        loop {
            if self.buffer.len() >= 5 {
                let length = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Ok(Some(A::decode(self.buffer.split_to(length)).expect("a well-formed message")));
                }
            }
            match body.data().await {
                Some(data) => {
                    let data = data.expect("an unbroken stream");
                    body.flow_control().release_capacity(data.len()).expect("what was received can be released");
                    self.buffer.put(data);
                }
                None => {
                    let trailers = body.trailers().await.expect("trailers").expect("a gRPC answer has trailers");
                    assert!(self.buffer.is_empty(), "half a message");
                    return outcome(&trailers);
                }
            }
        }
    }
}

fn outcome<A>(trailers: &HeaderMap) -> Result<Option<A>, Failure> {
    let code = trailers["grpc-status"].to_str().unwrap().parse().unwrap();
    if code == 0 {
        return Ok(None);
    }
    Err((code, trailers.get("grpc-message").map(|text| text.to_str().unwrap().to_owned()).unwrap_or_default()))
}
