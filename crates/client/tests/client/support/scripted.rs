//! A server that does to each request what its script says, and remembers what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use milepost_proto::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What becomes of one request.
#[derive(Clone, Debug)]
pub enum Step {
    /// The message and a status of 0.
    Answer(Vec<u8>),
    /// A gRPC status.
    Refuse(u32, &'static str),
    /// The stream is reset unseen.
    RefuseStream,
    /// The connection takes no more requests; this one was not looked at.
    GoAway,
    /// The connection breaks after the request was read.
    Break,
}

#[derive(Clone)]
pub struct Scripted {
    pub address: SocketAddr,
    script: Arc<Mutex<VecDeque<Step>>>,
    /// Every request that was looked at.
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Path and token of a request.
pub type Asked = (String, Option<String>);

pub fn answer(message: &impl Message) -> Step {
    Step::Answer(message.encode_to_vec())
}

impl Scripted {
    /// Once the script has ended, requests are answered with an empty message.
    pub async fn start(script: impl IntoIterator<Item = Step>) -> Scripted {
        Scripted::start_with(script, None).await
    }

    pub async fn start_with(script: impl IntoIterator<Item = Step>, tls: Option<TlsAcceptor>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Scripted {
            address: listener.local_addr().unwrap(),
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            asked: Arc::default(),
        };
        let own = server.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (own, tls) = (own.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => own.host(socket).await,
                        Some(tls) => {
                            // Who shakes no hands is not served.
                            if let Ok(stream) = tls.accept(socket).await {
                                own.host(stream).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|(path, _)| path.rsplit('/').next().unwrap().to_owned()).collect()
    }

    async fn host(self, socket: impl AsyncRead + AsyncWrite + Unpin) {
        // A client that leaves before it says anything is none.
        let Ok(mut connection) = h2::server::handshake(socket).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let step = self.script.lock().unwrap().pop_front().unwrap_or(Step::Answer(Vec::new()));
            if matches!(step, Step::RefuseStream) {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            if matches!(step, Step::GoAway) {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                connection.graceful_shutdown();
                continue;
            }
            let token = request.headers().get("token").map(|token| token.to_str().unwrap().to_owned());
            self.asked.lock().unwrap().push((request.uri().path().to_owned(), token));
            let mut trailers = HeaderMap::new();
            let mut message = None;
            match step {
                Step::Answer(bytes) => message = Some(bytes),
                Step::Refuse(code, text) => {
                    trailers.insert("grpc-status", HeaderValue::from(code));
                    trailers.insert("grpc-message", HeaderValue::from_static(text));
                }
                _ => return,
            }
            let mut head = Response::new(());
            head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let Some(message) = message else {
                head.headers_mut().extend(trailers);
                respond.send_response(head, true).unwrap();
                continue;
            };
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let mut framed = BytesMut::from(&[0][..]);
            framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            framed.extend_from_slice(&message);
            let mut body = respond.send_response(head, false).unwrap();
            body.send_data(Bytes::from(framed), false).unwrap();
            body.send_trailers(trailers).unwrap();
        }
    }
}
