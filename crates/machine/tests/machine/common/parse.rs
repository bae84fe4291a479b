//! From script lines to requests.

use bytes::Bytes;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::membershippb;
use milepost_proto::raftpb::ConfChange;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::internal_raft_request::Request;
use pb::request_op::Request as Op;

/// What a line asks for.
pub enum Command {
    Propose(Request),
    ConfChange(ConfChange),
    Empty,
    Garbage(Vec<u8>),
    Range(pb::RangeRequest),
    Txn(pb::TxnRequest),
    Stream(pb::RangeRequest),
    State,
    Reopen,
}

/// Words with `\0` for a zero byte and `""` for nothing.
fn bytes(word: &str) -> Bytes {
    if word == "\"\"" { Bytes::new() } else { word.replace("\\0", "\0").into_bytes().into() }
}

fn number(word: &str) -> i64 {
    word.parse().unwrap_or_else(|_| panic!("not a number: {word}"))
}

/// Words without `=` and options with one.
fn split<'a>(words: &[&'a str]) -> (Vec<&'a str>, Vec<(&'a str, &'a str)>) {
    let mut plain = Vec::new();
    let mut options = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some(option) => options.push(option),
            None => plain.push(*word),
        }
    }
    (plain, options)
}

pub fn parse(line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (verb, rest) = words.split_first().expect("a command");
    match *verb {
        "range" => Command::Range(range(rest)),
        "stream" => Command::Stream(range(rest)),
        "raft-range" => Command::Propose(Request::Range(range(rest))),
        "put" => Command::Propose(Request::Put(put(rest))),
        "del" => Command::Propose(Request::DeleteRange(delete(rest))),
        "txn" => Command::Propose(Request::Txn(whole_txn(rest))),
        "read-txn" => Command::Txn(whole_txn(rest)),
        "member" => Command::ConfChange(super::change(rest)),
        "empty" => Command::Empty,
        "garbage" => Command::Garbage(rest.iter().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()),
        "state" => Command::State,
        "reopen" => Command::Reopen,
        _ => Command::Propose(small(&words)),
    }
}

/// Requests that are all numbers and names.
fn small(words: &[&str]) -> Request {
    match words {
        ["compact", revision] => {
            Request::Compaction(pb::CompactionRequest { revision: number(revision), physical: false })
        }
        ["compact", revision, "physical"] => {
            Request::Compaction(pb::CompactionRequest { revision: number(revision), physical: true })
        }
        ["grant", id, ttl] => Request::LeaseGrant(pb::LeaseGrantRequest { id: number(id), ttl: number(ttl) }),
        ["revoke", id] => Request::LeaseRevoke(pb::LeaseRevokeRequest { id: number(id) }),
        ["checkpoint", id, left] => {
            let checkpoint = pb::LeaseCheckpoint { id: number(id), remaining_ttl: number(left) };
            Request::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints: vec![checkpoint] })
        }
        ["alarm", action, member, kind] => Request::Alarm(pb::AlarmRequest {
            action: ["get", "raise", "clear"].iter().position(|known| known == action).unwrap() as i32,
            member_id: u64::from_str_radix(member, 16).unwrap(),
            alarm: ["none", "nospace", "corrupt"].iter().position(|known| known == kind).unwrap() as i32,
        }),
        ["version", version] => {
            Request::ClusterVersionSet(membershippb::ClusterVersionSetRequest { ver: (*version).into() })
        }
        ["downgrade", target] => Request::DowngradeInfoSet(membershippb::DowngradeInfoSetRequest {
            enabled: *target != "off",
            ver: (*target).into(),
        }),
        ["attributes", id, name, url] => Request::ClusterMemberAttrSet(membershippb::ClusterMemberAttrSetRequest {
            member_id: u64::from_str_radix(id, 16).unwrap(),
            member_attributes: Some(membershippb::Attributes {
                name: (*name).into(),
                client_urls: vec![(*url).into()],
            }),
        }),
        ["auth-status"] => Request::AuthStatus(pb::AuthStatusRequest {}),
        ["auth-enable"] => Request::AuthEnable(pb::AuthEnableRequest {}),
        ["version-test"] => Request::DowngradeVersionTest(pb::DowngradeVersionTestRequest { ver: "3.6.0".into() }),
        _ => panic!("no such command: {words:?}"),
    }
}

fn range(words: &[&str]) -> pb::RangeRequest {
    let (plain, options) = split(words);
    let mut request = pb::RangeRequest { key: bytes(plain[0]), ..Default::default() };
    for word in &plain[1..] {
        match *word {
            "keys_only" => request.keys_only = true,
            "count_only" => request.count_only = true,
            "serializable" => request.serializable = true,
            end => request.range_end = bytes(end),
        }
    }
    for (name, value) in options {
        match name {
            "rev" => request.revision = number(value),
            "limit" => request.limit = number(value),
            "order" => request.sort_order = pb::range_request::SortOrder::from_str_name(value).unwrap() as i32,
            "by" => request.sort_target = pb::range_request::SortTarget::from_str_name(value).unwrap() as i32,
            "min_mod" => request.min_mod_revision = number(value),
            "max_mod" => request.max_mod_revision = number(value),
            "min_create" => request.min_create_revision = number(value),
            "max_create" => request.max_create_revision = number(value),
            _ => panic!("no such option: {name}"),
        }
    }
    request
}

fn put(words: &[&str]) -> pb::PutRequest {
    let (plain, options) = split(words);
    let mut request = pb::PutRequest { key: bytes(plain[0]), ..Default::default() };
    for word in &plain[1..] {
        match *word {
            "prev_kv" => request.prev_kv = true,
            "ignore_value" => request.ignore_value = true,
            "ignore_lease" => request.ignore_lease = true,
            value => request.value = bytes(value),
        }
    }
    for (name, value) in options {
        match name {
            "lease" => request.lease = number(value),
            _ => panic!("no such option: {name}"),
        }
    }
    request
}

fn delete(words: &[&str]) -> pb::DeleteRangeRequest {
    let mut request = pb::DeleteRangeRequest { key: bytes(words[0]), ..Default::default() };
    for word in &words[1..] {
        match *word {
            "prev_kv" => request.prev_kv = true,
            end => request.range_end = bytes(end),
        }
    }
    request
}

fn whole_txn(words: &[&str]) -> pb::TxnRequest {
    let mut left = words;
    let request = txn(&mut left);
    assert!(left.is_empty(), "words after the transaction: {left:?}");
    request
}

/// `if <compare>* then <op> ; <op> else <op>`, each part optional; a nested one stands in brackets.
fn txn(words: &mut &[&str]) -> pb::TxnRequest {
    let mut request = pb::TxnRequest::default();
    if next_is(words, "if") {
        while !words.is_empty() && !["then", "else", ")"].contains(&words[0]) {
            request.compare.push(compare(&take(words, 3)));
        }
    }
    if next_is(words, "then") {
        request.success = ops(words);
    }
    if next_is(words, "else") {
        request.failure = ops(words);
    }
    request
}

fn next_is(words: &mut &[&str], expected: &str) -> bool {
    let is = words.first() == Some(&expected);
    if is {
        *words = &words[1..];
    }
    is
}

fn take<'a>(words: &mut &[&'a str], count: usize) -> Vec<&'a str> {
    let (taken, rest) = words.split_at(count);
    *words = rest;
    taken.to_vec()
}

/// `mod(a) = 3`, `value(a,c) != x`: the second key ends a range.
fn compare(words: &[&str]) -> pb::Compare {
    let (target, keys) = words[0].trim_end_matches(')').split_once('(').expect("target(key)");
    let (key, range_end) = keys.split_once(',').unwrap_or((keys, "\"\""));
    let result = match words[1] {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        other => panic!("no such comparison: {other}"),
    };
    let (target, value) = match target {
        "version" => (CompareTarget::Version, TargetUnion::Version(number(words[2]))),
        "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(words[2]))),
        "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(words[2]))),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(words[2]))),
        "value" => (CompareTarget::Value, TargetUnion::Value(bytes(words[2]))),
        other => panic!("no such target: {other}"),
    };
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: bytes(key),
        range_end: bytes(range_end),
        target_union: Some(value),
    }
}

fn ops(words: &mut &[&str]) -> Vec<pb::RequestOp> {
    let mut ops = Vec::new();
    while !words.is_empty() && !["else", ")"].contains(&words[0]) {
        if next_is(words, ";") {
            continue;
        }
        let request = if next_is(words, "(") {
            let nested = txn(words);
            assert!(next_is(words, ")"), "a bracket is open");
            Some(Op::RequestTxn(nested))
        } else {
            let end = words.iter().position(|word| [";", "else", ")"].contains(word)).unwrap_or(words.len());
            let words = take(words, end);
            match words[0] {
                "range" => Some(Op::RequestRange(range(&words[1..]))),
                "put" => Some(Op::RequestPut(put(&words[1..]))),
                "del" => Some(Op::RequestDeleteRange(delete(&words[1..]))),
                "nothing" => None,
                other => panic!("no such operation: {other}"),
            }
        };
        ops.push(pb::RequestOp { request });
    }
    ops
}
