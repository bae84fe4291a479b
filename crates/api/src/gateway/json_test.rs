use milepost_proto::etcdserverpb as pb;

use super::*;

fn read<M: Message + Default>(method: Method, json: &str) -> Result<M, Status> {
    request(method, json.as_bytes()).map(|bytes| M::decode(bytes).expect("what was encoded can be decoded"))
}

fn write(method: Method, message: &impl Message) -> String {
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
        assert_eq!(read::<pb::RangeRequest>(Method::Range, json), Ok(range.clone()), "{json}");
    }
    let put = pb::PutRequest { key: vec![0xfb, 0xff].into(), lease: i64::MIN, ..Default::default() };
    for json in [r#"{"key":"+/8=","lease":"-9223372036854775808"}"#, r#"{"key":"-_8","lease":-9223372036854775808}"#] {
        assert_eq!(read::<pb::PutRequest>(Method::Put, json), Ok(put.clone()), "{json}");
    }
    for empty in ["", " \n\t", "{}"] {
        assert_eq!(read::<pb::PutRequest>(Method::Put, empty), Ok(pb::PutRequest::default()), "{empty:?}");
    }
}

#[test]
fn members_of_a_oneof_are_there_even_if_zero() {
    let json = r#"{"compare":[{"key":"YQ==","result":"EQUAL","target":"VERSION","version":"0"},{"key":"YQ==","target":"VALUE","value":""}],
        "success":[{"requestPut":{"key":"YQ==","value":"Yg=="}},{"request_txn":{"failure":[{"request_range":{}}]}},{}]}"#;
    let txn: pb::TxnRequest = read(Method::Txn, json).unwrap();
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
        write(Method::Range, &range),
        r#"{"header":{"cluster_id":"18446744073709551615","member_id":"2","revision":"3"},"kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"1","value":"+/8=","lease":"-1"}],"count":"1"}"#
    );
    let nested = pb::RangeResponse { header: Some(pb::ResponseHeader::default()), ..Default::default() };
    let op = pb::ResponseOp { response: Some(pb::response_op::Response::ResponseRange(nested)) };
    let txn = pb::TxnResponse { header: None, succeeded: true, responses: vec![op] };
    assert_eq!(write(Method::Txn, &txn), r#"{"succeeded":true,"responses":[{"response_range":{"header":{}}}]}"#);
    let status = pb::StatusResponse { downgrade_info: Some(pb::DowngradeInfo::default()), ..Default::default() };
    assert_eq!(write(Method::Status, &status), r#"{"downgradeInfo":{}}"#);
    let alarm = pb::AlarmMember { member_id: 1, alarm: pb::AlarmType::Nospace as i32 };
    let alarms = pb::AlarmResponse { header: None, alarms: vec![alarm] };
    assert_eq!(write(Method::Alarm, &alarms), r#"{"alarms":[{"memberID":"1","alarm":"NOSPACE"}]}"#);
    let hash = pb::HashKvResponse { hash: u32::MAX, compact_revision: -1, ..Default::default() };
    assert_eq!(write(Method::HashKv, &hash), r#"{"hash":4294967295,"compact_revision":"-1"}"#);
    let lease = pb::LeaseGrantResponse { id: 7, ttl: 5, error: "\"<é>\n".into(), header: None };
    assert_eq!(write(Method::LeaseGrant, &lease), r#"{"ID":"7","TTL":"5","error":"\"<é>\n"}"#);
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
        r#"{"lease":"5x"}"#,
        r#"{"lease":1.5}"#,
        r#"{"lease":9223372036854775808}"#,
        r#"{"lease":"9223372036854775808"}"#,
        r#"{"prev_kv":"true"}"#,
        r#"{"key":"YQ==",}"#,
        r#"{key:"YQ=="}"#,
        r#"{"key":["YQ=="]}"#,
        "{\"key\":\"YQ==\"\u{0}}",
    ] {
        assert_eq!(request(Method::Put, bad.as_bytes()).unwrap_err().code, Code::InvalidArgument, "{bad}");
    }
    for bad in [r#"{"success":{}}"#, r#"{"success":[null]}"#, r#"{"compare":[{"version":1,"value":"YQ=="}]}"#, &deep] {
        assert_eq!(request(Method::Txn, bad.as_bytes()).unwrap_err().code, Code::InvalidArgument, "{bad}");
    }
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
