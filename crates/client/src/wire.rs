//! gRPC's bytes: five in front of every message, and the status at the end.
//!
//! ```text
//! request   HEADERS :method POST, :path /pkg.Service/Method   DATA [0][length: u32 BE][message] …
//! answer    HEADERS :status 200   DATA [0][length][message] …   HEADERS grpc-status, grpc-message   END_STREAM
//! refusal   HEADERS :status 200, grpc-status, grpc-message   END_STREAM
//! ```
//! Source: gRPC over HTTP2 (PROTOCOL-HTTP2.md of the gRPC project); texts as grpc-go words them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use milepost_proto::Message;

use crate::error::{Code, Error};

/// Compression flag and length in front of every message.
const PREFIX_BYTES: usize = 5;

/// `message` with its prefix, ready to be sent.
///
/// # Errors
/// `ResourceExhausted` if it measures more than `limit` bytes.
pub(crate) fn frame(message: &impl Message, limit: usize) -> Result<Bytes, Error> {
    let size = message.encoded_len();
    let prefix = u32::try_from(size).ok().filter(|_| size <= limit);
    let Some(prefix) = prefix else {
        let text = format!("trying to send message larger than max ({size} vs. {limit})");
        return Err(Error::status(Code::ResourceExhausted, text));
    };
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + size);
    framed.put_u8(0);
    framed.put_u32(prefix);
    message.encode_raw(&mut framed);
    Ok(framed.freeze())
}

/// Bytes received and not yet taken as messages. A message in one chunk is a slice of it; longer ones are gathered.
pub(crate) struct Received {
    chunk: Bytes,
    gathered: BytesMut,
    limit: usize,
}

impl Received {
    pub(crate) fn new(limit: usize) -> Received {
        Received { chunk: Bytes::new(), gathered: BytesMut::new(), limit }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunk.is_empty() && self.gathered.is_empty()
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.is_empty() {
            self.chunk = chunk;
            return;
        }
        if self.gathered.is_empty() {
            self.gathered.extend_from_slice(&std::mem::take(&mut self.chunk));
        }
        self.gathered.extend_from_slice(&chunk);
    }

    /// The next message that has arrived in full.
    ///
    /// # Errors
    /// `ResourceExhausted` above the limit, `Internal` for a compressed message: none was asked for.
    pub(crate) fn take(&mut self) -> Result<Option<Bytes>, Error> {
        let bytes: &[u8] = if self.gathered.is_empty() { &self.chunk } else { &self.gathered };
        let Some(size) = message_size(bytes) else { return Ok(None) };
        if bytes[0] != 0 {
            let text = "grpc: received a compressed message though none was asked for";
            return Err(Error::status(Code::Internal, text));
        }
        if size > self.limit {
            let text = format!("grpc: received message larger than max ({size} vs. {})", self.limit);
            return Err(Error::status(Code::ResourceExhausted, text));
        }
        if bytes.len() < PREFIX_BYTES + size {
            return Ok(None);
        }
        if self.gathered.is_empty() {
            self.chunk.advance(PREFIX_BYTES);
            return Ok(Some(self.chunk.split_to(size)));
        }
        self.gathered.advance(PREFIX_BYTES);
        let message = self.gathered.split_to(size).freeze();
        if self.gathered.is_empty() {
            self.gathered = BytesMut::new();
        }
        Ok(Some(message))
    }
}

/// Length in the prefix; `None` while the prefix is incomplete.
fn message_size(bytes: &[u8]) -> Option<usize> {
    bytes.get(1..PREFIX_BYTES).map(|mut length| length.get_u32() as usize)
}

/// A message out of the bytes of an answer.
///
/// # Errors
/// `Internal` if they are no such message.
pub(crate) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Error> {
    M::decode(bytes).map_err(|error| {
        Error::status(Code::Internal, format!("grpc: failed to unmarshal the received message: {error}"))
    })
}

/// The refusal in the head of an answer, if it is one.
pub(crate) fn head(status: StatusCode, headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key("grpc-status") {
        return trailers(headers);
    }
    let kind = headers.get(http::header::CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()));
    let is_grpc = kind.as_deref().is_some_and(|kind| kind.starts_with("application/grpc"));
    if status == StatusCode::OK && is_grpc {
        return Ok(());
    }
    // What answers here is no gRPC server, or something stands before it.
    let code = match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    let reason = status.canonical_reason().unwrap_or("");
    let mut text = format!("unexpected HTTP status code received from server: {} ({reason})", status.as_u16());
    match kind {
        None => text.push_str("; malformed header: missing HTTP content-type"),
        Some(kind) if !is_grpc => {
            text.push_str(&format!("; transport: received unexpected content-type {kind:?}"));
        }
        Some(_) => {}
    }
    Err(Error::status(code, text))
}

/// Reads `grpc-status` and `grpc-message`.
pub(crate) fn trailers(headers: &HeaderMap) -> Result<(), Error> {
    let code = headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
    match code {
        Some(0) => Ok(()),
        Some(code) => {
            let message = headers.get("grpc-message").map(|text| percent_decoded(text.as_bytes()));
            Err(Error::status(Code::from_number(code), message.unwrap_or_default()))
        }
        None => Err(Error::status(Code::Internal, "server closed the stream without sending trailers")),
    }
}

fn percent_decoded(text: &[u8]) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let hex = tail.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match hex {
            Some(decoded) if byte == b'%' => {
                plain.push(decoded);
                rest = &tail[2..];
            }
            _ => plain.push(byte),
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use milepost_proto::etcdserverpb::PutRequest;

    use super::*;

    fn framed(size: usize) -> Bytes {
        let message = PutRequest { key: vec![7; size].into(), ..PutRequest::default() };
        frame(&message, usize::MAX).unwrap()
    }

    #[test]
    fn messages_survive_any_cut_of_their_bytes() {
        let sizes = [5, 0, 70_000, 4];
        let wire: Vec<u8> = sizes.iter().flat_map(|size| framed(*size).to_vec()).collect();
        for cut in [1, 3, 5, 6, 4096, 16_384, wire.len()] {
            let mut received = Received::new(usize::MAX);
            let mut seen = Vec::new();
            for chunk in wire.chunks(cut) {
                received.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = received.take().unwrap() {
                    seen.push(decode::<PutRequest>(message).unwrap().key.len());
                }
            }
            assert!(received.is_empty());
            assert_eq!(seen, sizes, "chunks of {cut}");
        }
    }

    #[test]
    fn limits_are_worded_as_grpc_go_does() {
        let message = PutRequest { key: vec![7; 10].into(), ..PutRequest::default() };
        let error = frame(&message, 11).unwrap_err();
        assert_eq!(error.message(), "trying to send message larger than max (12 vs. 11)");
        let mut received = Received::new(11);
        received.push(framed(10));
        let error = received.take().unwrap_err();
        assert_eq!(
            error.to_string(),
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (12 vs. 11)"
        );
    }

    #[test]
    fn a_compressed_message_is_refused() {
        let mut received = Received::new(100);
        received.push(Bytes::from_static(&[1, 0, 0, 0, 0]));
        assert!(received.take().is_err());
    }

    #[test]
    fn statuses_are_read_with_their_text() {
        let mut headers = HeaderMap::new();
        assert_eq!(trailers(&headers).unwrap_err().code(), Code::Internal);
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(trailers(&headers), Ok(()));
        headers.insert("grpc-status", HeaderValue::from_static("11"));
        headers.insert("grpc-message", HeaderValue::from_static("a%20b %e2%82%ac 5% %zz"));
        assert_eq!(trailers(&headers), Err(Error::status(Code::OutOfRange, "a b € 5% %zz")));
    }

    #[test]
    fn a_web_server_is_not_taken_for_a_grpc_server() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        let error = head(StatusCode::NOT_FOUND, &headers).unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
        assert!(error.message().ends_with("transport: received unexpected content-type \"text/plain\""));
        headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        assert_eq!(head(StatusCode::OK, &headers), Ok(()));
    }
}
