//! Round trips, bytes as etcd writes them, and streams that make no sense.

use super::*;

fn entry(term: u64, index: u64, data: &'static [u8]) -> raftpb::Entry {
    let data = (!data.is_empty()).then(|| Bytes::from_static(data));
    raftpb::Entry { term: Some(term), index: Some(index), r#type: Some(0), data }
}

/// A `MsgApp` from 1 to 2.
fn app(term: u64, log_term: u64, index: u64, entries: Vec<raftpb::Entry>, commit: u64) -> raftpb::Message {
    raftpb::Message {
        r#type: Some(MSG_APP),
        to: Some(2),
        from: Some(1),
        term: Some(term),
        log_term: Some(log_term),
        index: Some(index),
        entries,
        commit: Some(commit),
        ..Default::default()
    }
}

fn encoded(kind: Kind, messages: &[raftpb::Message]) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::new(kind), BytesMut::new());
    messages.iter().for_each(|message| encoder.put(message, &mut out));
    out.to_vec()
}

/// Reads `bytes` in pieces of `step`.
fn decoded(kind: Kind, bytes: &[u8], step: usize) -> Result<Vec<raftpb::Message>, String> {
    let mut decoder = Decoder::new(kind, 2, 1);
    let mut messages = Vec::new();
    for piece in bytes.chunks(step) {
        decoder.push(&Bytes::copy_from_slice(piece));
        while let Some(message) = decoder.next()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

/// A leader's life: probe, entries, commit alone, a new term, entries again, a step back.
fn life() -> Vec<raftpb::Message> {
    vec![
        app(1, 0, 0, vec![entry(1, 1, b"")], 0),
        app(1, 1, 1, vec![entry(1, 2, b"a"), entry(1, 3, b"bc")], 1),
        app(1, 1, 3, vec![], 3),
        app(2, 1, 3, vec![entry(2, 4, b"")], 3),
        app(2, 2, 4, vec![entry(2, 5, b"d")], 4),
        app(2, 1, 2, vec![entry(1, 3, b"bc")], 4),
        app(2, 1, 3, vec![entry(2, 4, b"")], 4),
    ]
}

#[test]
fn every_stream_is_read_back_in_pieces_of_any_size() {
    for kind in Kind::BOTH {
        let bytes = encoded(kind, &life());
        for step in [1, 2, 7, 64, bytes.len()] {
            assert_eq!(decoded(kind, &bytes, step).unwrap(), life(), "{kind:?} in steps of {step}");
        }
    }
}

#[test]
fn what_both_ends_know_is_left_out() {
    // Entries and the commit alone, after the first message; a step back is whole again.
    let kinds = |messages: &[raftpb::Message]| {
        let (mut encoder, mut kinds) = (Encoder::new(Kind::MsgApp), Vec::new());
        for message in messages {
            let mut out = BytesMut::new();
            encoder.put(message, &mut out);
            kinds.push(out[0]);
        }
        kinds
    };
    assert_eq!(kinds(&life()), [2, 1, 1, 2, 1, 2, 2]);
}

#[test]
fn bytes_are_as_etcd_writes_them() {
    // Written by etcd 3.7.1's msgAppV2Encoder: test/compat/peers prints them.
    let message = app(1, 0, 0, vec![], 0);
    let bytes = encoded(Kind::Message, std::slice::from_ref(&message));
    assert_eq!(bytes[..8], [0, 0, 0, 0, 0, 0, 0, bytes.len() as u8 - 8]);
    let mut out = BytesMut::new();
    Encoder::new(Kind::Message).put_heartbeat(&mut out);
    assert_eq!(out[..], [0, 0, 0, 0, 0, 0, 0, 2, 8, 8]);
    out.clear();
    Encoder::new(Kind::MsgApp).put_heartbeat(&mut out);
    assert_eq!(out[..], [0]);
    let stream = encoded(Kind::MsgApp, &life()[..2]);
    let second = &stream[stream.len() - 1 - 8 - (8 + 9) - (8 + 10) - 8..];
    let mut want = vec![1, 0, 0, 0, 0, 0, 0, 0, 2];
    want.extend([0, 0, 0, 0, 0, 0, 0, 9, 0x08, 0, 0x10, 1, 0x18, 2, 0x22, 1, b'a']);
    want.extend([0, 0, 0, 0, 0, 0, 0, 10, 0x08, 0, 0x10, 1, 0x18, 3, 0x22, 2, b'b', b'c']);
    want.extend([0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(second, want);
}

#[test]
fn signs_of_life_are_not_handed_on() {
    // 3.5 and 3.6 write every field of them.
    let old = raftpb::Message {
        r#type: Some(8),
        to: Some(0),
        from: Some(0),
        term: Some(0),
        log_term: Some(0),
        index: Some(0),
        commit: Some(0),
        reject: Some(false),
        reject_hint: Some(0),
        ..Default::default()
    };
    let mut bytes = encoded(Kind::Message, &[old]);
    let real = raftpb::Message { r#type: Some(8), to: Some(2), from: Some(1), ..Default::default() };
    bytes.extend(encoded(Kind::Message, std::slice::from_ref(&real)));
    assert_eq!(decoded(Kind::Message, &bytes, 3).unwrap(), [real]);
    let mut bytes = vec![0, 0];
    bytes.extend(encoded(Kind::MsgApp, &life()));
    assert_eq!(decoded(Kind::MsgApp, &bytes, 5).unwrap(), life());
}

#[test]
fn garbage_ends_a_stream() {
    assert!(decoded(Kind::MsgApp, &[3], 1).unwrap_err().contains("0x03"));
    let huge = [0xff; 9];
    assert!(decoded(Kind::Message, &huge, 9).unwrap_err().contains("announced"));
    // As many entries as there are numbers, and not one of them.
    let mut many = vec![1];
    many.extend([0xff; 8]);
    assert_eq!(decoded(Kind::MsgApp, &many, 9).unwrap(), []);
    many.extend([0xff; 8]);
    assert!(decoded(Kind::MsgApp, &many, 99).unwrap_err().contains("announced"));
    assert!(decoded(Kind::Message, &[0, 0, 0, 0, 0, 0, 0, 1, 0xff], 9).unwrap_err().contains("unreadable"));
}
