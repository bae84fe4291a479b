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

/// What an etcd 3.7.1 sent a learner that acknowledged three of its writes, one by one.
const FROM_ETCD_MSGAPP: &[u8] = include_bytes!("../../golden/msgapp-3.7.1.bin");
/// What it sent on the other stream meanwhile: heartbeats, and signs of life between.
const FROM_ETCD_MESSAGE: &[u8] = include_bytes!("../../golden/message-3.7.1.bin");
const LEARNER: u64 = 0xf8b3_7902_431c_d4ba;
const ETCD: u64 = 0x1006_c9dc_88b4_7f50;

#[test]
fn bytes_are_as_etcd_writes_them() {
    for (kind, bytes) in [(Kind::MsgApp, FROM_ETCD_MSGAPP), (Kind::Message, FROM_ETCD_MESSAGE)] {
        let (mut decoder, mut encoder) = (Decoder::new(kind, LEARNER, ETCD), Encoder::new(kind));
        let (mut out, mut count) = (BytesMut::new(), 0);
        decoder.push(&Bytes::from_static(bytes));
        while let Some(message) = decoder.next().unwrap() {
            assert_eq!((message.from(), message.to(), message.term()), (ETCD, LEARNER, 2), "{message:?}");
            encoder.put(&message, &mut out);
            count += 1;
        }
        assert!(count >= 7, "{count} messages");
        // Theirs without the signs of life, which come when their clock says so.
        let sign = if kind == Kind::MsgApp { &[0][..] } else { &[0, 0, 0, 0, 0, 0, 0, 2, 8, 8] };
        let theirs = match kind {
            Kind::MsgApp => bytes.strip_prefix(sign).unwrap().strip_suffix(sign).unwrap().to_vec(),
            Kind::Message => {
                let at = bytes.windows(sign.len()).position(|window| window == sign).unwrap();
                [&bytes[..at], &bytes[at + sign.len()..]].concat()
            }
        };
        assert_eq!(out[..], theirs, "{kind:?}");
    }
    let (mut encoder, mut out) = (Encoder::new(Kind::Message), BytesMut::new());
    encoder.put_heartbeat(&mut out);
    assert_eq!(out[..], [0, 0, 0, 0, 0, 0, 0, 2, 8, 8]);
    out.clear();
    encoder = Encoder::new(Kind::MsgApp);
    encoder.put_heartbeat(&mut out);
    assert_eq!(out[..], [0]);
}

#[test]
fn entries_read_from_etcd_are_what_was_written() {
    let mut decoder = Decoder::new(Kind::MsgApp, LEARNER, ETCD);
    decoder.push(&Bytes::from_static(FROM_ETCD_MSGAPP));
    let mut messages = Vec::new();
    while let Some(message) = decoder.next().unwrap() {
        messages.push((
            message.index(),
            message.commit(),
            message.entries.iter().map(|e| e.index()).collect::<Vec<_>>(),
        ));
    }
    // Index 5 made the learner a member; then each write, and that it is committed.
    let heard: Vec<_> = messages.iter().map(|(index, commit, entries)| (*index, *commit, entries.as_slice())).collect();
    assert_eq!(heard[0], (4, 5, &[5][..]));
    assert_eq!(heard[1], (5, 5, &[][..]));
    assert_eq!(heard[2], (5, 5, &[6][..]));
    assert_eq!(heard[3], (6, 6, &[][..]));
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
