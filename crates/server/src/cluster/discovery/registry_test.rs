use std::panic::Location;
use std::sync::{Arc, Mutex};

use milepost_api::{ApiConfig, Doors, Limits, Listen, Listener, NodeError};
use milepost_node::log::{Level, NoLog};

use super::*;

// The doors' own tests know how to make one.
#[path = "../../../../api/tests/doors/support/member.rs"]
#[expect(dead_code, reason = "these tests use less of it than the doors' own")]
mod member;

use member::{Answer, Member};

/// The etcd at which members meet.
struct Meeting {
    member: Arc<Member>,
    _doors: Doors,
    service: Service,
    client: Client,
}

impl Meeting {
    async fn new() -> Meeting {
        let member = Arc::new(Member::new());
        let limits = Limits { election_timeout: Duration::from_millis(100), ..Limits::default() };
        let listeners = vec![Listener::plain(Listen::Tcp { host: "127.0.0.1".into(), port: 0 })];
        let config = ApiConfig { listeners, doors: 1, limits, ..ApiConfig::default() };
        let doors = Doors::start(config, member.clone()).unwrap();
        let service = Service {
            endpoints: vec![doors.local_addrs()[0].to_string()],
            token: "token".into(),
            dial_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            insecure_transport: true,
            ..Service::default()
        };
        let client = client(&service).await.unwrap();
        Meeting { member, _doors: doors, service, client }
    }

    async fn put(&self, key: &str, value: &str) {
        let request = pb::PutRequest {
            key: format!("{PREFIX}/token/{key}").into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        self.client.kv().put(request, Deadline::NEVER).await.unwrap();
    }

    async fn join(&self, id: u64, log: &dyn Log) -> Result<String, Refusal> {
        let own = format!("m{id}=http://h{id}:2380");
        Registry::new(self.client.clone(), &self.service, MemberId(id), log, Duration::from_millis(1)).join(&own).await
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn who_comes_first_is_in() {
    run(async {
        let meeting = Meeting::new().await;
        meeting.put("_config/size", "3").await;
        // Not a member, and no reason to fall over.
        meeting.put("members/stray", "nonsense").await;
        let joined = tokio::join!(meeting.join(1, &NoLog), meeting.join(2, &NoLog), meeting.join(10, &NoLog));
        let found = joined.0.unwrap();
        assert_eq!((&found, &found), (&joined.1.unwrap(), &joined.2.unwrap()), "all see the same");
        let mut members: Vec<&str> = found.split(',').collect();
        members.sort_unstable();
        assert_eq!(members, ["m10=http://h10:2380", "m1=http://h1:2380", "m2=http://h2:2380"]);
        // As etcd's members would read and write it: ids in hexadecimal.
        let key = format!("{PREFIX}/token/members/a");
        let request = pb::RangeRequest { key: key.into(), ..Default::default() };
        let kvs = meeting.client.kv().range(request, Deadline::NEVER).await.unwrap().kvs;
        assert_eq!(kvs[0].value, "m10=http://h10:2380");
        // One of them again, after a crash; and one too many.
        assert_eq!(meeting.join(2, &NoLog).await.unwrap(), found);
        let why = meeting.join(4, &NoLog).await.unwrap_err();
        assert_eq!(why.complaint, "discovery: cluster is full");
        assert!(why.remedy.contains("new token"), "{}", why.remedy);
    });
}

#[test]
fn a_size_is_needed() {
    run(async {
        let meeting = Meeting::new().await;
        let why = meeting.join(1, &NoLog).await.unwrap_err();
        assert_eq!(why.complaint, "discovery: size key not found");
        assert!(why.remedy.contains("/_etcd/registry/token/_config/size 3"), "{}", why.remedy);
        for bad in ["", "x", "0", "-1", "3.0"] {
            meeting.put("_config/size", bad).await;
            assert_eq!(meeting.join(1, &NoLog).await.unwrap_err().complaint, "discovery: size key is bad", "{bad}");
        }
    });
}

#[test]
fn members_that_are_none_are_told() {
    run(async {
        let meeting = Meeting::new().await;
        meeting.put("_config/size", "2").await;
        meeting.put("members/1", "m1=ftp://h1").await;
        assert_eq!(meeting.join(2, &NoLog).await.unwrap_err().complaint, "discovery: invalid peer URL");
    });
    let why = check("a=http://h:1,b=http://h:1").unwrap_err();
    assert_eq!(why.complaint, "discovery cluster a=http://h:1,b=http://h:1 has duplicate url");
    assert_eq!(check("a=http://h:1,b=http://h:2"), Ok(()));
}

/// Remembers messages, and changes the world at one of them.
struct Turn<'a>(&'a Member, Mutex<Vec<String>>);

impl Log for Turn<'_> {
    fn log_at(&self, _: Level, _: Option<&str>, _: &'static Location<'static>, message: &str, _: &[(&str, Value)]) {
        if message == "retry connecting to discovery service" {
            self.0.set(Answer::Apply);
        }
        self.1.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn an_etcd_that_does_not_answer_is_asked_again() {
    run(async {
        let meeting = Meeting::new().await;
        meeting.put("_config/size", "1").await;
        meeting.member.set(Answer::Fail(NodeError::Timeout));
        let log = Turn(&meeting.member, Mutex::default());
        assert_eq!(meeting.join(1, &log).await.unwrap(), "m1=http://h1:2380");
        let told = log.1.into_inner().unwrap();
        assert_eq!(
            told[..2],
            ["failed to get cluster size from discovery service", "retry connecting to discovery service"]
        );
        assert_eq!(told[2], "register member itself successfully");
    });
}
