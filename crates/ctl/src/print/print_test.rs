//! Answers as etcd's etcdctl 3.7.1 printed them. Each file of `golden/` holds an answer, as its `-w protobuf`, and what the
//! other formats made of the same answer.

use milepost_proto::{Message, etcdserverpb as pb};

use super::{Answer, Format, Health, Printer};

/// Sections of a golden file: a title, and the bytes up to the next.
fn sections(file: &str) -> Vec<(&str, &str)> {
    let parts = file.split("== ").skip(1);
    parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.trim().chars().map(|digit| digit.to_digit(16).expect("hex")).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// Renders `answer` in every format of `file` and compares.
fn check(file: &str, answer: Answer<'_>) {
    let mut compared = 0;
    for (title, golden) in sections(file) {
        let (name, rest) = title.split_once([' ', ':']).unwrap_or((title, ""));
        let Some((_, format)) = Format::ALL.iter().find(|(known, _)| *known == name) else { continue };
        let printer = Printer { format: *format, hex: rest.starts_with("hex"), value_only: false };
        let shown = printer.render(answer);
        if title.ends_with(": unsupported") {
            assert_eq!(shown, None, "{title}");
        } else if *format == Format::Protobuf {
            assert_eq!(shown, Some(bytes_of(golden)), "{title}");
        } else {
            let shown = shown.map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(shown.as_deref(), Some(golden), "{title}");
        }
        compared += 1;
    }
    assert_eq!(compared, 8, "a file has eight sections");
}

fn message<M: Message + Default>(file: &str) -> M {
    let (title, hex) = sections(file)[0];
    assert_eq!(title, "protobuf");
    M::decode(bytes_of(hex).as_slice()).unwrap()
}

#[test]
fn answers_about_keys() {
    let file = include_str!("golden/get.txt");
    check(file, Answer::Get(&message(file)));
    let file = include_str!("golden/txn.txt");
    check(file, Answer::Txn(&message(file)));
}

#[test]
fn answers_about_the_cluster() {
    let file = include_str!("golden/member-list.txt");
    check(file, Answer::MemberList(&message(file)));
}

#[test]
fn answers_about_users_and_roles() {
    let file = include_str!("golden/auth-status.txt");
    check(file, Answer::AuthStatus(&message(file)));
    let file = include_str!("golden/role-get.txt");
    check(file, Answer::RoleGet("r", &message(file)));
    let file = include_str!("golden/role-list.txt");
    check(file, Answer::RoleList(&message(file)));
    let file = include_str!("golden/user-get.txt");
    check(file, Answer::UserGet("u", &message(file)));
    let file = include_str!("golden/user-list.txt");
    check(file, Answer::UserList(&message(file)));
}

fn shown(format: Format, hex: bool, answer: Answer<'_>) -> String {
    String::from_utf8(Printer { format, hex, value_only: false }.render(answer).unwrap()).unwrap()
}

const HEADER: pb::ResponseHeader =
    pb::ResponseHeader { cluster_id: 7_222_109_305_586_615_858, member_id: 1, revision: 5, raft_term: 2 };

/// Leases have no golden file: their `-w protobuf` is the header alone.
#[test]
fn leases() {
    let grant = pb::LeaseGrantResponse { header: Some(HEADER), id: 0x70cc, ttl: 60, error: String::new() };
    let answer = Answer::Grant(&grant);
    assert_eq!(shown(Format::Simple, false, answer), "lease 00000000000070cc granted with TTL(60s)\n");
    assert_eq!(
        shown(Format::Json, false, answer),
        "{\"cluster_id\":7222109305586615858,\"member_id\":1,\"revision\":5,\"raft_term\":2,\"ID\":28876,\"TTL\":60,\
         \"Error\":\"\"}\n"
    );
    let fields = "\"ClusterID\" : 643a162628888632\n\"MemberID\" : 1\n\"Revision\" : 5\n\"RaftTerm\" : 2\n\
                  \"ID\" : 00000000000070cc\n\"TTL\" : 60\n";
    assert_eq!(shown(Format::Fields, true, answer), fields);
    let printer = Printer { format: Format::Protobuf, hex: false, value_only: false };
    assert_eq!(printer.render(answer), Some(HEADER.encode_to_vec()));

    let mut left = pb::LeaseTimeToLiveResponse { id: 1, ttl: 9, granted_ttl: 10, ..Default::default() };
    left.keys = vec!["a".into(), "b".into()];
    let line = "lease 0000000000000001 granted with TTL(10s), remaining(9s), attached keys([a b])\n";
    assert_eq!(shown(Format::Simple, false, Answer::TimeToLive(&left, true)), line);
    assert_eq!(
        shown(Format::Json, false, Answer::TimeToLive(&left, false)),
        "{\"id\":1,\"ttl\":9,\"granted-ttl\":10,\"keys\":[\"YQ==\",\"Yg==\"]}\n"
    );
    let gone = pb::LeaseTimeToLiveResponse { id: 1, ttl: -1, ..Default::default() };
    let line = "lease 0000000000000001 already expired\n";
    assert_eq!(shown(Format::Simple, false, Answer::TimeToLive(&gone, true)), line);
    let none = pb::LeaseLeasesResponse::default();
    assert_eq!(shown(Format::Json, false, Answer::Leases(&none)), "{\"leases\":[]}\n");
}

#[test]
fn alarms() {
    let on = pb::AlarmMember { member_id: 7, alarm: pb::AlarmType::Nospace as i32 };
    let answer = pb::AlarmResponse { header: None, alarms: vec![on] };
    assert_eq!(shown(Format::Simple, false, Answer::Alarm(&answer)), "memberID:7  alarm:NOSPACE\n");
    assert_eq!(shown(Format::Json, false, Answer::Alarm(&answer)), "{\"alarms\":[{\"memberID\":7,\"alarm\":1}]}\n");
}

#[test]
fn tables_follow_what_stands_in_them() {
    let all = [
        Health { endpoint: "a:1".into(), healthy: true, took: "1.5ms".into(), error: String::new() },
        Health { endpoint: "b:2".into(), healthy: false, took: "2s".into(), error: "部署 failed".into() },
    ];
    let table = "\
┌──────────┬────────┬───────┬─────────────┐
│ ENDPOINT │ HEALTH │ TOOK  │    ERROR    │
├──────────┼────────┼───────┼─────────────┤
│      a:1 │   true │ 1.5ms │             │
│      b:2 │  false │    2s │ 部署 failed │
└──────────┴────────┴───────┴─────────────┘
";
    assert_eq!(shown(Format::Table, false, Answer::EndpointHealth(&all)), table);
    assert_eq!(shown(Format::Json, false, Answer::EndpointHealth(&[])), "null\n");
}

#[test]
fn the_status_of_an_endpoint() {
    let status = pb::StatusResponse {
        header: Some(HEADER),
        version: "3.7.1".into(),
        storage_version: "3.7.0".into(),
        db_size: 23_670_784,
        db_size_in_use: 23_646_208,
        db_size_quota: 2_147_483_648,
        leader: 1,
        raft_index: 11_326,
        raft_term: 2,
        raft_applied_index: 11_326,
        downgrade_info: Some(pb::DowngradeInfo::default()),
        ..Default::default()
    };
    let all = [("127.0.0.1:2379".to_owned(), status)];
    assert_eq!(
        shown(Format::Simple, false, Answer::EndpointStatus(&all)),
        "127.0.0.1:2379, 1, 3.7.1, 3.7.0, 24 MB, 24 MB, 1%, 2.1 GB, true, false, 2, 11326, 11326, , , false\n"
    );
    assert_eq!(
        shown(Format::Json, false, Answer::EndpointStatus(&all)),
        "[{\"Endpoint\":\"127.0.0.1:2379\",\"Status\":{\"header\":{\"cluster_id\":7222109305586615858,\"member_id\":1,\
         \"revision\":5,\"raft_term\":2},\"version\":\"3.7.1\",\"dbSize\":23670784,\"leader\":1,\"raftIndex\":11326,\
         \"raftTerm\":2,\"raftAppliedIndex\":11326,\"dbSizeInUse\":23646208,\"storageVersion\":\"3.7.0\",\
         \"dbSizeQuota\":2147483648,\"downgradeInfo\":{}}}]\n"
    );
}
