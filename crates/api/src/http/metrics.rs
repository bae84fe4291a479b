//! `/metrics`, in a tenth of its bytes for who can unpack it.

use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue};

use crate::door::Door;
use crate::grpc::reply::Reply;
use crate::workers;

/// The page as Prometheus wants it.
pub(super) async fn page(door: &Rc<Door>, request: &HeaderMap) -> Reply {
    let (all, member, is_packed) = (Arc::clone(&door.page), Arc::clone(&door.backend), takes_gzip(request));
    // On a thread for long work: counting keys for the first time takes a while, packing a millisecond.
    let made = workers::apart(move || {
        let text = all.render(&*member);
        if is_packed { pack(text.as_bytes()) } else { text.into() }
    });
    let body = match made.await {
        Ok(body) => body,
        Err(why) => return super::error(StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", why.message)),
    };
    let mut reply = super::page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", body);
    if is_packed {
        reply.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    reply
}

/// Is gzip named, and not with a weight of nothing?
fn takes_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        is_gzip && !parts.any(|part| part.strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0)))
    })
}

fn pack(text: &[u8]) -> Bytes {
    let mut packer = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    packer.write_all(text).and_then(|()| packer.finish()).expect("memory takes everything").into()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_packed_can_be_unpacked() {
        let text = "etcd_server_has_leader 1\n".repeat(1000);
        let packed = pack(text.as_bytes());
        assert!(packed.len() < text.len() / 10);
        let mut back = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back, text);
    }

    #[test]
    fn who_takes_it() {
        for (value, takes) in [
            ("gzip", true),
            ("zstd, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0", false),
            ("deflate", false),
            ("*", false),
            ("", false),
        ] {
            let headers: HeaderMap = [(ACCEPT_ENCODING, value.parse().unwrap())].into_iter().collect();
            assert_eq!(takes_gzip(&headers), takes, "{value}");
        }
    }
}
