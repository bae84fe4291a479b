//! gRPC's framing: five bytes (flag, big-endian length) before each message.
//!
//! Messages are cut out of the buffers they arrived in; only one that spans several HTTP/2 frames is copied together.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use milepost_machine::{LIST_ROOM, List};
use milepost_proto::etcdserverpb::ResponseHeader;
use milepost_proto::{Message, prost};

use crate::status::{self, Code, Status};

/// Flag and length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// How far ahead of what came memory is taken for a message at first. A prefix is five bytes, and may say 2 MiB.
const AHEAD_BYTES: usize = 16 * 1024;

/// Cuts one request body into messages.
pub(crate) struct Messages<B> {
    body: B,
    /// What came and was not yet cut.
    rest: Bytes,
    /// A message that spans frames, from its prefix on.
    partial: BytesMut,
    /// Longest message that is accepted.
    limit: usize,
    ended: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Messages<B> {
    pub(crate) fn new(body: B, limit: usize) -> Self {
        Self { body, rest: Bytes::new(), partial: BytesMut::new(), limit, ended: false }
    }

    /// The next message, without its prefix; `None` after the last one (the client has half-closed).
    ///
    /// # Errors
    /// A message above the limit, a compressed one, a body that ends inside a message, or a broken connection.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.cut() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(status) => {
                    self.ended = true;
                    self.rest = Bytes::new();
                    self.partial = BytesMut::new();
                    return Poll::Ready(Some(Err(status)));
                }
            }
            if self.ended {
                let is_cut_off = !self.partial.is_empty();
                self.partial = BytesMut::new();
                return Poll::Ready(is_cut_off.then(|| Err(Status::new(Code::Internal, "unexpected EOF"))));
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(_))) => {
                    self.ended = true;
                    self.partial = BytesMut::new();
                    return Poll::Ready(Some(Err(status::CANCELED)));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        if self.partial.is_empty() {
                            self.rest = data;
                        } else {
                            self.partial.put(data);
                        }
                    }
                }
            }
        }
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Takes the first message off what has come so far.
    fn cut(&mut self) -> Result<Option<Bytes>, Status> {
        if self.partial.is_empty() {
            let Some(length) = message_length(&self.rest, self.limit)? else {
                // Most often nothing is left; else the rest waits for its continuation.
                self.partial.put(std::mem::take(&mut self.rest));
                return Ok(None);
            };
            if self.rest.len() >= PREFIX_BYTES + length {
                self.rest.advance(PREFIX_BYTES);
                return Ok(Some(self.rest.split_to(length)));
            }
            self.partial.put(std::mem::take(&mut self.rest));
            self.reserve(PREFIX_BYTES + length);
            return Ok(None);
        }
        let Some(length) = message_length(&self.partial, self.limit)? else { return Ok(None) };
        if self.partial.len() < PREFIX_BYTES + length {
            self.reserve(PREFIX_BYTES + length);
            return Ok(None);
        }
        let mut message = self.partial.split_to(PREFIX_BYTES + length).freeze();
        message.advance(PREFIX_BYTES);
        self.rest = std::mem::take(&mut self.partial).freeze();
        Ok(Some(message))
    }

    /// Makes room for more of a message that will be `length` bytes long with its prefix: as much again as has come.
    fn reserve(&mut self, length: usize) {
        let came = self.partial.len();
        self.partial.reserve((length - came).min(came.max(AHEAD_BYTES)));
    }
}

/// Length of the message at the head of `bytes`; `None` if its prefix is not complete.
fn message_length(bytes: &[u8], limit: usize) -> Result<Option<usize>, Status> {
    let Some((&[flag, a, b, c, d], _)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    check_received(length, limit)?;
    match flag {
        0 => Ok(Some(length)),
        1 => Err(Status::new(Code::Internal, "grpc: compressed flag set with identity or empty encoding")),
        other => Err(Status::with(Code::Internal, format!("grpc: received unexpected payload format {other}"))),
    }
}

/// Refuses a message of `length` bytes if that is more than `limit`.
///
/// # Errors
/// With grpc-go's text.
pub(crate) fn check_received(length: usize, limit: usize) -> Result<(), Status> {
    if length <= limit {
        return Ok(());
    }
    let text = format!("grpc: received message larger than max ({length} vs. {limit})");
    Err(Status::with(Code::ResourceExhausted, text))
}

/// Refuses a compressed call: like etcd, we have no decompressor.
///
/// # Errors
/// With grpc-go's text.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding").map(|value| value.to_str().unwrap_or_default()) {
        None | Some("identity" | "") => Ok(()),
        Some(other) => Err(Status::with(
            Code::Unimplemented,
            format!("grpc: Decompressor is not installed for grpc-encoding {other:?}"),
        )),
    }
}

/// Decodes a request; its byte fields share the buffer.
///
/// # Errors
/// Bytes that are not this message.
pub(crate) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Status> {
    M::decode(bytes).map_err(|why| Status::with(Code::Internal, format!("grpc: error unmarshalling request: {why}")))
}

/// Longest message that is sent: no client takes more. Source: etcd's `MaxSendMsgSize`.
const SEND_MAX: usize = i32::MAX as usize;

/// Refuses to send a message of `length` bytes if it is too long for gRPC: a transaction may ask for the same keys many
/// times over.
///
/// # Errors
/// With grpc-go's text.
pub(crate) fn check_length(length: usize) -> Result<(), Status> {
    if length <= SEND_MAX {
        return Ok(());
    }
    let text = format!("grpc: trying to send message larger than max ({length} vs. {SEND_MAX})");
    Err(Status::with(Code::ResourceExhausted, text))
}

/// Encodes `message` with its prefix.
///
/// # Errors
/// As [`check_length`].
pub(crate) fn encode<M: Message>(message: &M) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    check_length(length)?;
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    append(message, &mut out);
    Ok(out.freeze())
}

/// An encoded message with its prefix, in one piece or several.
#[derive(Clone, Debug)]
pub(crate) struct Framed {
    first: Bytes,
    rest: VecDeque<Bytes>,
    length: usize,
    /// Of a list: keys in the whole range.
    listed: Option<i64>,
}

impl From<Bytes> for Framed {
    fn from(first: Bytes) -> Self {
        Self { length: first.len(), first, rest: VecDeque::new(), listed: None }
    }
}

impl Framed {
    /// The message of a list with `header`, its pieces as `hold` gives them back.
    ///
    /// # Errors
    /// As [`check_length`].
    pub(crate) fn list(
        header: &ResponseHeader,
        mut list: List,
        hold: impl FnOnce(Vec<Vec<u8>>) -> VecDeque<Bytes>,
    ) -> Result<Self, Status> {
        let header_bytes = prost::encoding::message::encoded_len(HEADER_FIELD, header);
        let length = header_bytes + list.pieces.iter().map(Vec::len).sum::<usize>() - LIST_ROOM;
        check_length(length)?;
        let start = LIST_ROOM - PREFIX_BYTES - header_bytes;
        let mut head = &mut list.pieces[0][start..LIST_ROOM];
        set_length(head, length);
        head = &mut head[PREFIX_BYTES..];
        prost::encoding::message::encode(HEADER_FIELD, header, &mut head);
        let mut rest = hold(list.pieces);
        let mut first = rest.pop_front().unwrap_or_default();
        first.advance(start);
        Ok(Self { first, rest, length: PREFIX_BYTES + length, listed: Some(list.count) })
    }

    /// Of a list: how many keys its range holds.
    pub(crate) const fn listed(&self) -> Option<i64> {
        self.listed
    }

    /// Bytes of all pieces.
    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    /// All of it in one piece.
    pub(crate) fn joined(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.clone();
        }
        let mut whole = BytesMut::with_capacity(self.length);
        whole.extend_from_slice(&self.first);
        self.rest.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }

    /// The next piece to send, and whether it is the last.
    pub(crate) fn next(&mut self) -> (Bytes, bool) {
        let next = self.rest.pop_front();
        let is_last = next.is_none();
        (std::mem::replace(&mut self.first, next.unwrap_or_default()), is_last)
    }

    /// Every piece.
    pub(crate) fn pieces_mut(&mut self) -> impl Iterator<Item = &mut Bytes> {
        std::iter::once(&mut self.first).chain(&mut self.rest)
    }
}

/// Number of the field `header` in every answer of etcd's.
const HEADER_FIELD: u32 = 1;
// Tag and length, and four numbers of eleven bytes at most with theirs.
const _: () = assert!(PREFIX_BYTES + 2 + 4 * 11 <= LIST_ROOM);

/// Appends `message` with its prefix to `out`.
pub(crate) fn append<M: Message>(message: &M, out: &mut BytesMut) {
    let length = message.encoded_len();
    put_prefix(length, out);
    message.encode(out).expect("a BytesMut grows as needed");
}

/// Appends the prefix of a message of `length` bytes.
pub(crate) fn put_prefix(length: usize, out: &mut BytesMut) {
    out.reserve(PREFIX_BYTES + length);
    let start = out.len();
    out.put_bytes(0, PREFIX_BYTES);
    set_length(&mut out[start..], length);
}

/// Sets the length in a prefix that is already there.
///
/// # Panics
/// If `framed` has no prefix, or the message has 4 GiB or more: see [`check_length`].
pub(crate) fn set_length(framed: &mut [u8], length: usize) {
    let length = u32::try_from(length).expect("a message below 4 GiB");
    framed[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::Waker;

    use http_body::Frame;
    use milepost_proto::etcdserverpb::RangeResponse;
    use milepost_proto::mvccpb::KeyValue;

    use super::*;

    /// A body that yields given chunks.
    struct Chunks(VecDeque<Bytes>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_prefix(payload.len(), &mut out);
        out.extend_from_slice(payload);
        out.to_vec()
    }

    fn all(stream: &[u8], chunk: usize, limit: usize) -> Vec<Result<Bytes, Status>> {
        let chunks = stream.chunks(chunk).map(Bytes::copy_from_slice).collect();
        let mut messages = Messages::new(Chunks(chunks), limit);
        let mut out = Vec::new();
        while let Poll::Ready(Some(next)) = messages.poll_next(&mut Context::from_waker(Waker::noop())) {
            out.push(next);
        }
        out
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_messages() {
        let payloads: [&[u8]; 5] = [b"one", b"", b"three is longer", b"4", &[7; 300]];
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| framed(payload)).collect();
        for chunk in 1..=stream.len() {
            let got: Vec<Bytes> = all(&stream, chunk, 1000).into_iter().map(Result::unwrap).collect();
            assert_eq!(got, payloads, "chunks of {chunk}");
        }
    }

    #[test]
    fn memory_grows_with_what_comes() {
        let length = 2 << 20;
        let stream = framed(&vec![7; length]);
        let mut messages = Messages::new(Chunks([].into()), length);
        for cut in [PREFIX_BYTES, 1000, 100_000, stream.len() - 1] {
            let came = messages.partial.len();
            messages.partial.put(&stream[came..cut]);
            assert_eq!(messages.cut(), Ok(None));
            assert!(
                messages.partial.capacity() <= 4 * cut.max(AHEAD_BYTES),
                "{} at {cut}",
                messages.partial.capacity()
            );
        }
        messages.partial.put(&stream[stream.len() - 1..]);
        assert_eq!(messages.cut().unwrap().unwrap().len(), length);
    }

    #[test]
    fn broken_streams_end_with_a_status() {
        let cut_off = all(&framed(b"hello")[..7], 3, 1000);
        assert_eq!(cut_off, [Err(Status::new(Code::Internal, "unexpected EOF"))]);
        let large = all(&framed(&[1; 11]), 99, 10);
        let text = "grpc: received message larger than max (11 vs. 10)";
        assert_eq!(large, [Err(Status::new(Code::ResourceExhausted, text))]);
        assert_eq!(all(&[1, 0, 0, 0, 0], 9, 10)[0].as_ref().unwrap_err().code, Code::Internal);
        assert_eq!(all(&[9, 0, 0, 0, 0], 9, 10)[0].as_ref().unwrap_err().code, Code::Internal);
        assert!(all(&[], 1, 10).is_empty());
    }

    #[test]
    fn a_list_gets_its_header_in_front() {
        for header in [
            ResponseHeader::default(),
            ResponseHeader { cluster_id: u64::MAX, member_id: u64::MAX, revision: -1, raft_term: u64::MAX },
        ] {
            let kvs = vec![KeyValue { key: "k".into(), value: vec![7; 300].into(), ..KeyValue::default() }];
            let response = RangeResponse { header: None, kvs, more: true, count: 7 };
            let body = response.encode_to_vec();
            let pieces = vec![[&[0; LIST_ROOM][..], &body[..200]].concat(), body[200..].to_vec()];
            let list = List { revision: 9, pieces, keys: 1, count: 7 };
            let mut framed =
                Framed::list(&header, list, |pieces| pieces.into_iter().map(Bytes::from).collect()).unwrap();
            let expected = encode(&RangeResponse { header: Some(header), ..response }).unwrap();
            assert_eq!((framed.joined(), framed.len(), framed.listed()), (expected.clone(), expected.len(), Some(7)));
            let (first, is_last) = framed.next();
            assert!(!is_last);
            let (second, is_last) = framed.next();
            assert!(is_last);
            assert_eq!([first, second].concat(), expected);
        }
    }

    #[test]
    fn what_no_client_takes_is_not_sent() {
        assert_eq!(check_length(SEND_MAX), Ok(()));
        let text = "grpc: trying to send message larger than max (2147483648 vs. 2147483647)";
        assert_eq!(check_length(SEND_MAX + 1), Err(Status::new(Code::ResourceExhausted, text)));
    }

    #[test]
    fn compression_is_refused() {
        let mut headers = HeaderMap::new();
        assert!(check_encoding(&headers).is_ok());
        headers.insert("grpc-encoding", "identity".parse().unwrap());
        assert!(check_encoding(&headers).is_ok());
        headers.insert("grpc-encoding", "gzip".parse().unwrap());
        let why = check_encoding(&headers).unwrap_err();
        assert_eq!(
            why,
            Status::new(Code::Unimplemented, "grpc: Decompressor is not installed for grpc-encoding \"gzip\"")
        );
    }
}
