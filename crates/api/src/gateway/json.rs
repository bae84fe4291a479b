//! JSON in, protobuf out, and back: by the names and kinds that our `.proto` files declare.
//!
//! Answers name fields as the files do, write 64-bit integers as strings, bytes as base64, enums by name, and leave out
//! what is zero. Requests may use either spelling of a name (`range_end`, `rangeEnd`), numbers or strings for integers,
//! names or numbers for enums; what they name and we do not know is passed over.
//!
//! Source: `facts/http.md` §3, "Encoding".

use std::cell::Cell;
use std::sync::OnceLock;

use bytes::{Buf, Bytes, BytesMut};
use milepost_proto::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde::de::DeserializeSeed;

use super::strict::{ELEMENTS_MAX, Strict};
use crate::door::confused;
use crate::grpc::{METHODS, Method, Names};
use crate::status::{Code, Status};

const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);
const WRITE: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// What one call takes and gives.
struct Kinds {
    request: MessageDescriptor,
    answer: MessageDescriptor,
}

fn kinds(method: Method) -> &'static Kinds {
    // Indexed as `METHODS`.
    static KINDS: OnceLock<Vec<Kinds>> = OnceLock::new();
    let all = KINDS.get_or_init(|| {
        let pool = DescriptorPool::decode(milepost_proto::DESCRIPTORS).expect("the build wrote it");
        let kinds_of = |names: &Names| {
            let service = pool.get_service_by_name(names.service)?;
            let method = service.methods().find(|method| method.name() == names.method)?;
            Some(Kinds { request: method.input(), answer: method.output() })
        };
        METHODS.iter().map(|names| kinds_of(names).expect("a test compares the table with the files")).collect()
    });
    &all[method as usize]
}

/// The encoded request of `method` that the first JSON value in `json` says; no value at all is the empty message.
///
/// # Errors
/// Broken JSON, a field given twice, a value of another kind than its field's, one nested deeper than 128, or more than
/// [`ELEMENTS_MAX`] elements in lists.
pub(crate) fn request(method: Method, json: &[u8]) -> Result<Bytes, Status> {
    if json.iter().all(|byte| is_blank(*byte)) {
        return Ok(Bytes::new());
    }
    if depth(json) > DEPTH_MAX {
        return Err(Status::new(Code::InvalidArgument, "invalid JSON of the request: exceeded max depth"));
    }
    read(&kinds(method).request, json)
}

/// How deep lists and objects may be nested, in fields that we do not know too. Source: Go's `encoding/json`.
const DEPTH_MAX: usize = 10_000;

/// How deep lists and objects of the first value are nested.
fn depth(json: &[u8]) -> usize {
    let (mut now, mut most, mut is_text, mut is_escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if std::mem::take(&mut is_escaped) => {}
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' if !is_text => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

fn read(kind: &MessageDescriptor, json: &[u8]) -> Result<Bytes, Status> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let left = Cell::new(ELEMENTS_MAX);
    Strict::new(&Kind::Message(kind.clone()), &left).deserialize(&mut reader).map_err(invalid)?;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let message = DynamicMessage::deserialize_with_options(kind.clone(), &mut reader, &READ).map_err(invalid)?;
    Ok(message.encode_to_vec().into())
}

fn invalid(why: serde_json::Error) -> Status {
    if why.is_eof() {
        return CUT_SHORT;
    }
    Status::with(Code::InvalidArgument, format!("invalid JSON of the request: {why}"))
}

/// A value that has no end. Source: the text of Go's decoder.
const CUT_SHORT: Status = Status::new(Code::InvalidArgument, "unexpected EOF");

/// Appends the answer of `method` that `message` encodes.
///
/// # Errors
/// Ours alone: `message` is another message.
pub(crate) fn answer(method: Method, message: Bytes, out: &mut Vec<u8>) -> Result<(), Status> {
    write(&kinds(method).answer, message, out)
}

fn write(kind: &MessageDescriptor, message: Bytes, out: &mut Vec<u8>) -> Result<(), Status> {
    let message = DynamicMessage::decode(kind.clone(), message)
        .map_err(|_| confused("an answer that is no answer to its call"))?;
    message
        .serialize_with_options(&mut serde_json::Serializer::new(out), &WRITE)
        .map_err(|_| confused("an answer that cannot be written as JSON"))
}

/// `status` as etcd's gateway shows it.
pub(crate) fn failure(status: &Status) -> Bytes {
    let message = serde_json::Value::from(&*status.message);
    format!(r#"{{"code":{},"message":{message}}}"#, status.code as u8).into()
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Cuts a stream of bytes into JSON objects, one behind the other.
#[derive(Default)]
pub(crate) struct Objects {
    bytes: BytesMut,
    /// How much of `bytes` has been looked at; it is inside of an object if any has.
    seen: usize,
    depth: usize,
    is_text: bool,
    is_escaped: bool,
}

impl Objects {
    /// Takes in what came next.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes of the object that is not complete yet.
    pub(crate) fn waiting(&self) -> usize {
        self.bytes.len()
    }

    /// The next object; `None` until it is complete.
    ///
    /// # Errors
    /// Something that is no object.
    pub(crate) fn cut(&mut self) -> Result<Option<Bytes>, Status> {
        if self.seen == 0 {
            let blank = self.bytes.iter().take_while(|byte| is_blank(**byte)).count();
            self.bytes.advance(blank);
            if self.bytes.first().is_some_and(|byte| *byte != b'{') {
                return Err(Status::new(Code::InvalidArgument, "Failed to decode request: expected a JSON object"));
            }
        }
        while let Some(byte) = self.bytes.get(self.seen) {
            self.seen += 1;
            if self.is_text {
                match byte {
                    _ if std::mem::take(&mut self.is_escaped) => {}
                    b'\\' => self.is_escaped = true,
                    b'"' => self.is_text = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.is_text = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                let length = std::mem::take(&mut self.seen);
                return Ok(Some(self.bytes.split_to(length).freeze()));
            }
        }
        Ok(None)
    }

    /// Says whether the stream may end here.
    ///
    /// # Errors
    /// Inside of an object.
    pub(crate) fn end(&self) -> Result<(), Status> {
        if self.bytes.iter().all(|byte| is_blank(*byte)) { Ok(()) } else { Err(CUT_SHORT) }
    }
}

#[cfg(test)]
#[path = "json_test.rs"]
mod tests;
