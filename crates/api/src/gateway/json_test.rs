use milepost_proto::etcdserverpb as pb;
use prost_reflect::{Cardinality, FieldDescriptor, MapKey, Value};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

fn asked<M: Message + Default>(method: Method, json: &str) -> Result<M, Status> {
    request(method, json.as_bytes()).map(|bytes| M::decode(bytes).expect("what was encoded can be decoded"))
}

fn answered(method: Method, message: &impl Message) -> String {
    let mut out = Vec::new();
    answer(method, message.encode_to_vec().into(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn requests_in_any_spelling() {
    let range =
        pb::RangeRequest { key: "a".into(), range_end: "b".into(), limit: 5, sort_order: 1, ..Default::default() };
    for json in [
        r#"{"key":"YQ==","range_end":"Yg==","limit":5,"sort_order":"ASCEND"}"#,
        r#"{"key":"YQ==","rangeEnd":"Yg","limit":"5","sortOrder":1}"#,
        r#" {"key":"YQ==","range_end":"Yg==","limit":5.0,"sort_order":1,"unknown":{"a":[1,{}]},"revision":null} {"key":1"#,
    ] {
        assert_eq!(asked::<pb::RangeRequest>(Method::Range, json), Ok(range.clone()), "{json}");
    }
    let put = pb::PutRequest { key: vec![0xfb, 0xff].into(), lease: i64::MIN, ..Default::default() };
    for json in [r#"{"key":"+/8=","lease":"-9223372036854775808"}"#, r#"{"key":"-_8","lease":-9223372036854775808}"#] {
        assert_eq!(asked::<pb::PutRequest>(Method::Put, json), Ok(put.clone()), "{json}");
    }
    for empty in ["", " \n\t", "{}"] {
        assert_eq!(asked::<pb::PutRequest>(Method::Put, empty), Ok(pb::PutRequest::default()), "{empty:?}");
    }
}

#[test]
fn members_of_a_oneof_are_there_even_if_zero() {
    let json = r#"{"compare":[{"key":"YQ==","result":"EQUAL","target":"VERSION","version":"0"},{"key":"YQ==","target":"VALUE","value":""}],
        "success":[{"requestPut":{"key":"YQ==","value":"Yg=="}},{"request_txn":{"failure":[{"request_range":{}}]}},{}]}"#;
    let txn: pb::TxnRequest = asked(Method::Txn, json).unwrap();
    use pb::compare::TargetUnion;
    assert_eq!(txn.compare[0].target_union, Some(TargetUnion::Version(0)));
    assert_eq!(txn.compare[1].target_union, Some(TargetUnion::Value("".into())));
    assert_eq!((txn.compare[1].target, txn.success.len()), (pb::compare::CompareTarget::Value as i32, 3));
    assert!(txn.success[2].request.is_none());
    let Some(pb::request_op::Request::RequestTxn(inner)) = &txn.success[1].request else { panic!("{txn:?}") };
    assert_eq!(inner.failure[0].request, Some(pb::request_op::Request::RequestRange(pb::RangeRequest::default())));
}

#[test]
fn answers_are_etcds() {
    let header = Some(pb::ResponseHeader { cluster_id: u64::MAX, member_id: 2, revision: 3, raft_term: 0 });
    let kv = milepost_proto::mvccpb::KeyValue {
        key: "a".into(),
        create_revision: 2,
        mod_revision: 3,
        version: 1,
        value: vec![0xfb, 0xff].into(),
        lease: -1,
    };
    let range = pb::RangeResponse { header, kvs: vec![kv], more: false, count: 1 };
    assert_eq!(
        answered(Method::Range, &range),
        r#"{"header":{"cluster_id":"18446744073709551615","member_id":"2","revision":"3"},"kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"1","value":"+/8=","lease":"-1"}],"count":"1"}"#
    );
    let nested = pb::RangeResponse { header: Some(pb::ResponseHeader::default()), ..Default::default() };
    let op = pb::ResponseOp { response: Some(pb::response_op::Response::ResponseRange(nested)) };
    let txn = pb::TxnResponse { header: None, succeeded: true, responses: vec![op] };
    assert_eq!(answered(Method::Txn, &txn), r#"{"succeeded":true,"responses":[{"response_range":{"header":{}}}]}"#);
    let status = pb::StatusResponse { downgrade_info: Some(pb::DowngradeInfo::default()), ..Default::default() };
    assert_eq!(answered(Method::Status, &status), r#"{"downgradeInfo":{}}"#);
    let alarm = pb::AlarmMember { member_id: 1, alarm: pb::AlarmType::Nospace as i32 };
    let alarms = pb::AlarmResponse { header: None, alarms: vec![alarm] };
    assert_eq!(answered(Method::Alarm, &alarms), r#"{"alarms":[{"memberID":"1","alarm":"NOSPACE"}]}"#);
    let hash = pb::HashKvResponse { hash: u32::MAX, compact_revision: -1, ..Default::default() };
    assert_eq!(answered(Method::HashKv, &hash), r#"{"hash":4294967295,"compact_revision":"-1"}"#);
    let lease = pb::LeaseGrantResponse { id: 7, ttl: 5, error: "\"<é>\n".into(), header: None };
    assert_eq!(answered(Method::LeaseGrant, &lease), r#"{"ID":"7","TTL":"5","error":"\"<é>\n"}"#);
}

#[test]
fn elements_are_counted() {
    let many = |count: usize| format!(r#"{{"compare":[{}{{}}]}}"#, "{},".repeat(count - 1));
    let txn: pb::TxnRequest = asked(Method::Txn, &many(ELEMENTS_MAX)).unwrap();
    assert_eq!(txn.compare.len(), ELEMENTS_MAX);
    // Over all lists.
    let half = "{},".repeat(ELEMENTS_MAX / 2);
    let spread = format!(r#"{{"compare":[{half}{{}}],"success":[{half}{{}}]}}"#);
    for json in [many(ELEMENTS_MAX + 1), spread] {
        let why = request(Method::Txn, json.as_bytes()).unwrap_err();
        assert_eq!(why.code, Code::InvalidArgument);
        assert!(why.message.contains("more than 100000 elements in one message"), "{}", why.message);
    }
}

#[test]
fn broken_requests() {
    let deep = format!("{}{{}}{}", r#"{"success":[{"request_txn":"#.repeat(60), "}]}".repeat(60));
    for bad in [
        "xx",
        "null",
        "[]",
        "7",
        r#""text""#,
        r#"{"key":5}"#,
        r#"{"key":"Y"}"#,
        r#"{"key":"Y Q="}"#,
        r#"{"key":"YQ="}"#,
        r#"{"lease":"+5"}"#,
        r#"{"lease":"5x"}"#,
        r#"{"lease":1.5}"#,
        r#"{"lease":9223372036854775808}"#,
        r#"{"lease":"9223372036854775808"}"#,
        r#"{"prev_kv":"true"}"#,
        r#"{"key":"YQ==",}"#,
        r#"{"key":"YQ==","key":"Yg=="}"#,
        r#"{"prev_kv":true,"prevKv":true}"#,
        r#"{key:"YQ=="}"#,
        r#"{"key":["YQ=="]}"#,
        "{\"key\":\"YQ==\"\u{0}}",
    ] {
        assert_eq!(request(Method::Put, bad.as_bytes()).unwrap_err().code, Code::InvalidArgument, "{bad}");
    }
    for bad in [
        r#"{"success":{}}"#,
        r#"{"success":[null]}"#,
        r#"{"success":[{"request_put":{"lease":1,"lease":1}}]}"#,
        r#"{"compare":[{"version":1,"value":"YQ=="}]}"#,
        &deep,
    ] {
        assert_eq!(request(Method::Txn, bad.as_bytes()).unwrap_err().code, Code::InvalidArgument, "{bad}");
    }
    let unknown = |depth| format!(r#"{{"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(request(Method::Put, unknown(9_999).as_bytes()).is_ok());
    assert_eq!(request(Method::Put, unknown(10_000).as_bytes()).unwrap_err().code, Code::InvalidArgument);
    assert_eq!(depth(br#"{"a":"[[[\"[[","b":[[]]}"#), 3);
    assert_eq!(request(Method::Put, b"{\"key\":\"\xff\"}").unwrap_err().code, Code::InvalidArgument);
    for cut_short in ["{", r#"{"key":"YQ=="#, r#"{"key":"YQ==""#, r#"{"key""#] {
        assert_eq!(request(Method::Put, cut_short.as_bytes()), Err(CUT_SHORT), "{cut_short}");
    }
}

#[test]
fn any_cut_of_the_stream_gives_the_same_objects() {
    let stream = br#" {"a":"}{\"\\"}
{"b":[{},{"c":"[\\\""}]}{}	"#;
    let whole = [&br#"{"a":"}{\"\\"}"#[..], br#"{"b":[{},{"c":"[\\\""}]}"#, b"{}"];
    for size in 1..=stream.len() {
        let (mut objects, mut got) = (Objects::default(), Vec::new());
        for chunk in stream.chunks(size) {
            objects.push(chunk);
            while let Some(object) = objects.cut().unwrap() {
                got.push(object);
            }
        }
        assert_eq!(got, whole, "chunks of {size}");
        assert_eq!(objects.end(), Ok(()));
    }
    let mut broken = Objects::default();
    broken.push(b"{} x");
    assert!(broken.cut().unwrap().is_some());
    assert_eq!(broken.cut().unwrap_err().code, Code::InvalidArgument);
    let mut open = Objects::default();
    open.push(b"{}{\"a\":1");
    assert!(open.cut().unwrap().is_some() && open.cut().unwrap().is_none());
    assert_eq!((open.end(), open.waiting()), (Err(CUT_SHORT), 6));
}

/// Something of `kind`; `depth` bounds how far messages go.
fn any_value(kind: &Kind, depth: usize, rng: &mut SmallRng) -> Value {
    match kind {
        Kind::Int32 => Value::I32(any_number(rng) as i32),
        Kind::Int64 => Value::I64(any_number(rng) as i64),
        Kind::Uint32 => Value::U32(any_number(rng) as u32),
        Kind::Uint64 => Value::U64(any_number(rng)),
        Kind::Bool => Value::Bool(rng.random()),
        Kind::String => {
            let words = ["", "a", "\"quoted\\\"", "<&>", "über\u{1f980}", "\u{0}\n\u{2028}"];
            Value::String(words[rng.random_range(0..words.len())].into())
        }
        Kind::Bytes => {
            let length = rng.random_range(0..9);
            Value::Bytes((0..length).map(|_| rng.random::<u8>()).collect())
        }
        // Numbers without a name are kept, too.
        Kind::Enum(kind) => Value::EnumNumber(rng.random_range(0..kind.values().len() as i32 + 1)),
        Kind::Message(kind) => Value::Message(any_message(kind, depth, rng)),
        other => panic!("{other:?} is in none of our files: teach the test"),
    }
}

fn any_number(rng: &mut SmallRng) -> u64 {
    let edges = [0, 1, u64::MAX, i64::MAX as u64, i64::MIN as u64, 1 << 53, (1 << 53) + 1];
    if rng.random() { edges[rng.random_range(0..edges.len())] } else { rng.random() }
}

fn any_message(kind: &MessageDescriptor, depth: usize, rng: &mut SmallRng) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    for field in kind.fields() {
        let is_message = matches!(field.kind(), Kind::Message(_));
        if rng.random_range(0..3) > 0 && !(is_message && depth == 0) {
            message.set_field(&field, any_field(&field, depth, rng));
        }
    }
    message
}

fn any_field(field: &FieldDescriptor, depth: usize, rng: &mut SmallRng) -> Value {
    let depth = depth.saturating_sub(1);
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { panic!("entries are messages") };
        let value = any_value(&entry.map_entry_value_field().kind(), depth, rng);
        return Value::Map([(MapKey::String("k".into()), value)].into());
    }
    if field.cardinality() == Cardinality::Repeated {
        let length = rng.random_range(0..3);
        return Value::List((0..length).map(|_| any_value(&field.kind(), depth, rng)).collect());
    }
    any_value(&field.kind(), depth, rng)
}

/// Whatever a request or an answer says, it says the same behind JSON and back.
#[test]
fn every_message_survives_the_way_there_and_back() {
    let mut rng = SmallRng::seed_from_u64(4);
    for names in METHODS {
        let kinds = kinds(Method::at(names.path).unwrap());
        for kind in [&kinds.request, &kinds.answer] {
            for _ in 0..40 {
                let message = any_message(kind, 4, &mut rng).encode_to_vec();
                let mut json = Vec::new();
                write(kind, message.clone().into(), &mut json).unwrap();
                let back = read(kind, &json).unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&json)));
                assert_eq!(back, message, "{} as {}", names.path, String::from_utf8_lossy(&json));
                let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
                assert!(value.is_object());
            }
        }
    }
}
