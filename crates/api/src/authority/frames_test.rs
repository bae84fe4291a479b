//! Whole connections through [`Frames`] and [`Mended`], cut at every byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frames::Frames;
use super::{Mended, huffman};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const URL: &str = "http://127.0.0.1:2379";
const TWIN: &str = "httpz..127.0.0.1z2379";
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    [&[a, b, c, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// POST, then the authority with indexing.
fn block(authority: &str) -> Vec<u8> {
    [&[0x83, 0x41, authority.len() as u8], authority.as_bytes()].concat()
}

fn coded(authority: &str) -> Vec<u8> {
    let value = huffman::encode(authority);
    [&[0x83, 0x41, 0x80 | value.len() as u8], &value[..]].concat()
}

fn headers(stream: u8, block: &[u8]) -> Vec<u8> {
    frame(1, END_HEADERS, stream, block)
}

/// Preface, settings, `frames`, and some data that looks like a header block.
fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    let data = frame(0, 0, 1, &headers(1, &block(URL)));
    [PREFACE, &frame(4, 0, 0, &[0; 12]), &frames.concat(), &data].concat()
}

/// Sends `pieces` and takes what becomes ready, a few bytes at a time.
fn through<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Frames) {
    let mut frames = Frames::default();
    let mut out = Vec::new();
    for piece in pieces {
        frames.put(piece);
        while !frames.ready().is_empty() {
            let count = frames.ready().len().min(7);
            out.extend_from_slice(&frames.ready()[..count]);
            frames.consume(count);
        }
    }
    (out, frames)
}

/// `sent` becomes `expected` wherever it is cut in two, and byte by byte; and whether frames are looked at afterwards.
fn check(sent: &[u8], expected: &[u8], is_done: bool) {
    for cut in 0..=sent.len() {
        let (before, after) = sent.split_at(cut);
        let (out, frames) = through([before, after]);
        assert!(out == expected, "cut at {cut}: {:?}", String::from_utf8_lossy(&out));
        assert_eq!(frames.is_done(), is_done, "cut at {cut}");
    }
    let (out, _) = through(sent.chunks(1));
    assert!(out == expected, "byte by byte: {:?}", String::from_utf8_lossy(&out));
}

#[test]
fn a_legal_authority_ends_the_looking() {
    for first in [headers(1, &block("127.0.0.1:2379")), headers(1, &coded("localhost:1"))] {
        let sent = connection(&[first, headers(3, &block(URL))]);
        check(&sent, &sent, true);
    }
}

#[test]
fn an_illegal_authority_is_mended_each_time() {
    let indexed = headers(3, &[0x83, 0xbe]);
    let sent = connection(&[headers(1, &block(URL)), indexed.clone(), headers(5, &coded(URL))]);
    let expected = connection(&[headers(1, &block(TWIN)), indexed, headers(5, &coded(TWIN))]);
    check(&sent, &expected, false);
}

#[test]
fn padding_and_priority_stand_around_the_fragment() {
    let padded = |block: &[u8]| frame(1, END_HEADERS | 0x28, 1, &[&[3, 0, 0, 0, 0, 9], block, &[0; 3]].concat());
    check(&connection(&[padded(&block(URL))]), &connection(&[padded(&block(TWIN))]), false);
    let too_long = connection(&[frame(1, END_HEADERS | 8, 1, &[200, 0x83])]);
    check(&too_long, &too_long, false);
}

#[test]
fn continuations_are_one_block() {
    let (from, to) = (coded(URL), coded(TWIN));
    for cut in 0..=from.len() {
        let frames = |block: &[u8]| {
            let (first, last) = block.split_at(cut);
            connection(&[frame(1, 0, 1, first), frame(9, 0, 1, &[]), frame(9, END_HEADERS, 1, last)])
        };
        check(&frames(&from), &frames(&to), false);
    }
}

#[test]
fn what_breaks_the_rules_goes_on_as_it_came() {
    let open = frame(1, 0, 1, &block(URL));
    for wrong in [frame(6, 0, 0, &[0; 8]), frame(9, END_HEADERS, 3, &[]), headers(3, &[0x83])] {
        let sent = connection(&[open.clone(), wrong]);
        check(&sent, &sent, false);
    }
    let unasked = connection(&[frame(9, END_HEADERS, 1, &block(URL))]);
    check(&unasked, &unasked, false);
}

#[test]
fn a_long_block_goes_on_unread_and_the_next_is_read() {
    let long = |authority: &str, last: usize| {
        let mut frames = vec![frame(1, 0, 1, &block(authority))];
        // An `x: ` whose value fills the frames: its length takes four bytes.
        let mut value = vec![0x40, 1, b'x', 0x7f];
        let mut length = 3 * 16_000 + last - 127;
        while length > 0x7f {
            value.push(length as u8 | 0x80);
            length >>= 7;
        }
        value.push(length as u8);
        frames.push(frame(9, 0, 1, &value));
        frames.extend((0..3).map(|_| frame(9, 0, 1, &[b'v'; 16_000])));
        frames.push(frame(9, END_HEADERS, 1, &vec![b'v'; last]));
        frames
    };
    let next = |authority| [&long(URL, 17_600)[..], &[headers(3, &block(authority))]].concat();
    let pieces = |sent: &[u8]| through(sent.chunks(1000)).0;
    assert!(pieces(&connection(&next(URL))) == connection(&next(TWIN)), "too long");
    assert!(pieces(&connection(&long(URL, 17_000))) == connection(&long(TWIN, 17_000)), "just short enough");
}

#[test]
fn http1_is_not_looked_at() {
    for sent in [&b"GET /health HTTP/1.1\r\n\r\n"[..], b"PUT /x HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.1\r\n"] {
        check(sent, sent, true);
    }
}

#[tokio::test]
async fn a_socket_reads_mended_and_writes_through() {
    let (mut client, server) = tokio::io::duplex(64);
    let mut server = Mended::new(server);
    // The last frame never becomes whole: it arrives all the same.
    let sent = [&connection(&[headers(1, &block(URL))])[..], &[0, 0, 9, 1]].concat();
    let expected = [&connection(&[headers(1, &block(TWIN))])[..], &[0, 0, 9, 1]].concat();
    let write = async {
        for piece in sent.chunks(5) {
            client.write_all(piece).await.unwrap();
        }
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let read = async move {
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert!(server.frames.is_none(), "nothing is left to look at");
        server.write_all(b"answer").await.unwrap();
        got
    };
    let (answer, got) = tokio::join!(write, read);
    assert_eq!(answer, "answer");
    assert!(got == expected, "{:?}", String::from_utf8_lossy(&got));
}

#[tokio::test]
async fn an_ordinary_client_is_read_directly_after_its_first_request() {
    let (mut client, server) = tokio::io::duplex(4096);
    let mut server = Mended::new(server);
    let sent = connection(&[headers(1, &block("127.0.0.1:2379"))]);
    client.write_all(&sent).await.unwrap();
    let mut got = vec![0; sent.len()];
    server.read_exact(&mut got).await.unwrap();
    assert!(got == sent && server.frames.is_none());
}
