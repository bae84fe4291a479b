//! A server in memory that speaks just enough of the client API, and can be told to lie.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use milepost_proto::Message;
use milepost_proto::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
    request_op, response_op,
};
use milepost_proto::mvccpb::KeyValue;

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// Acknowledges every 50th put without doing it.
    LosesPuts,
    /// Flips a byte in every value it reads.
    FlipsBytes,
    /// Refuses every 50th put.
    RefusesPuts,
    /// Stops answering after 50 puts.
    FallsSilent,
    /// Closes the connection after 50 puts.
    HangsUp,
    /// Leaves the last key out of lists.
    ShortensLists,
}

#[derive(Default)]
struct State {
    revision: i64,
    /// Every value of every key with its revision, oldest first.
    history: BTreeMap<Bytes, Vec<(i64, Bytes)>>,
    puts: u64,
}

enum Answer {
    Message(Bytes),
    Status(u32, &'static str),
    Nothing,
    HangUp,
}

/// Starts the server on a thread that ends with the process.
pub fn start(lie: Lie) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("a socket can be non-blocking");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listening socket");
            let state = Arc::new(Mutex::new(State::default()));
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, state.clone(), lie));
            }
        });
    });
    address
}

async fn connection(stream: tokio::net::TcpStream, state: Arc<Mutex<State>>, lie: Lie) {
    stream.set_nodelay(true).expect("a connected socket");
    // Whoever asks for /metrics by HTTP/1 is turned away by the handshake.
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let (hang_up, mut hung_up) = tokio::sync::mpsc::channel(1);
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = hung_up.recv() => return,
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let (state, hang_up) = (state.clone(), hang_up.clone());
        tokio::spawn(async move {
            let path = request.uri().path().to_owned();
            if call(&path, request.into_body(), respond, &state, lie).await {
                // Full when another call has said so already.
                let _ = hang_up.try_send(());
            }
        });
    }
}

/// Answers one call; true when the connection is to be closed.
async fn call(
    path: &str,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    state: &Mutex<State>,
    lie: Lie,
) -> bool {
    let mut received = BytesMut::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        received.extend_from_slice(&chunk);
    }
    let message = received.split_off(5).freeze();
    let answer = {
        let mut state = state.lock().expect("no call panics");
        answer(path, message, &mut state, lie)
    };
    let mut trailers = HeaderMap::new();
    let head = Response::builder().header("content-type", "application/grpc");
    match answer {
        Answer::Message(message) => {
            let mut framed = BytesMut::new();
            framed.put_u8(0);
            framed.put_u32(message.len() as u32);
            framed.put(message);
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let mut out = respond.send_response(head.body(()).expect("a head"), false).expect("an open stream");
            out.send_data(framed.freeze(), false).expect("an open stream");
            out.send_trailers(trailers).expect("an open stream");
        }
        Answer::Status(code, text) => {
            let head = head.header("grpc-status", code).header("grpc-message", text);
            respond.send_response(head.body(()).expect("a head"), true).expect("an open stream");
        }
        // The stream stays open for ever; dropping it would reset it.
        Answer::Nothing => std::future::pending().await,
        Answer::HangUp => return true,
    }
    false
}

fn answer(path: &str, message: Bytes, state: &mut State, lie: Lie) -> Answer {
    let encoded = |message: &dyn Fn() -> Vec<u8>| Answer::Message(message().into());
    match path {
        "/etcdserverpb.KV/Put" => {
            state.puts += 1;
            match lie {
                Lie::RefusesPuts if state.puts.is_multiple_of(50) => return Answer::Status(8, "too%20much"),
                Lie::FallsSilent if state.puts > 50 => return Answer::Nothing,
                Lie::HangsUp if state.puts > 50 => return Answer::HangUp,
                _ => {}
            }
            let put = PutRequest::decode(message).expect("a put");
            state.revision += 1;
            if !(lie == Lie::LosesPuts && state.puts.is_multiple_of(50)) {
                write(state, put);
            }
            encoded(&|| PutResponse { header: header(state), ..PutResponse::default() }.encode_to_vec())
        }
        "/etcdserverpb.KV/Txn" => {
            let txn = TxnRequest::decode(message).expect("a transaction");
            state.revision += 1;
            let count = txn.success.len();
            for op in txn.success {
                match op.request {
                    Some(request_op::Request::RequestPut(put)) => write(state, put),
                    other => panic!("not a put: {other:?}"),
                }
            }
            let one = || ResponseOp { response: Some(response_op::Response::ResponsePut(PutResponse::default())) };
            let responses = std::iter::repeat_with(one).take(count).collect();
            encoded(&|| {
                let responses: &Vec<ResponseOp> = &responses;
                let answer = TxnResponse { header: header(state), succeeded: true, responses: responses.clone() };
                answer.encode_to_vec()
            })
        }
        "/etcdserverpb.KV/Range" => {
            let request = RangeRequest::decode(message).expect("a range");
            encoded(&|| range(state, &request, lie).encode_to_vec())
        }
        _ => Answer::Status(12, "unknown method"),
    }
}

fn write(state: &mut State, put: PutRequest) {
    state.history.entry(put.key).or_default().push((state.revision, put.value));
}

fn range(state: &State, request: &RangeRequest, lie: Lie) -> RangeResponse {
    let at = if request.revision > 0 { request.revision } else { i64::MAX };
    let found = |(key, values): (&Bytes, &Vec<(i64, Bytes)>)| {
        let (mod_revision, value) = values.iter().rev().find(|(revision, _)| *revision <= at)?.clone();
        let mut value = value.to_vec();
        if lie == Lie::FlipsBytes {
            *value.last_mut()? ^= 1;
        }
        Some(KeyValue { key: key.clone(), value: value.into(), mod_revision, ..KeyValue::default() })
    };
    let mut kvs: Vec<KeyValue> = if request.range_end.is_empty() {
        state.history.get_key_value(&request.key).and_then(found).into_iter().collect()
    } else {
        state.history.range(request.key.clone()..request.range_end.clone()).filter_map(found).collect()
    };
    let count = kvs.len() as i64;
    if request.limit > 0 {
        kvs.truncate(request.limit as usize);
    } else if lie == Lie::ShortensLists && count > 1 {
        kvs.pop();
    }
    RangeResponse { header: header(state), kvs, count, more: false }
}

fn header(state: &State) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: state.revision.max(1), ..ResponseHeader::default() })
}
