//! Servers to call: the real doors with a member that has no log.

// The doors' own tests know how to make one.
#[path = "../../../../api/tests/doors/support/member.rs"]
#[expect(dead_code, reason = "these tests use less of it than the doors' own")]
mod member;
pub mod relay;
pub mod scripted;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use milepost_api::{ApiConfig, Doors, Limits, Listen, Listener};
use milepost_client::{Client, Config, Deadline};
use milepost_proto::etcdserverpb as pb;

pub use member::{Answer, Member};

/// A running server.
pub struct Server {
    pub member: Arc<Member>,
    pub doors: Doors,
}

impl Server {
    pub fn start() -> Server {
        Server::on(vec![Listen::Tcp { host: "127.0.0.1".into(), port: 0 }])
    }

    pub fn on(listen: Vec<Listen>) -> Server {
        let limits = Limits {
            election_timeout: Duration::from_millis(100),
            watch_progress_interval: Duration::from_millis(50),
            ..Limits::default()
        };
        let member = Arc::new(Member::new());
        let listeners = listen.into_iter().map(Listener::plain).collect();
        let config = ApiConfig { listeners, doors: 1, limits, ..ApiConfig::default() };
        let doors = Doors::start(config, member.clone()).expect("the doors open");
        Server { member, doors }
    }

    pub fn address(&self) -> SocketAddr {
        self.doors.local_addrs()[0]
    }

    pub async fn client(&self) -> Client {
        client(&[&self.address().to_string()]).await
    }
}

/// A client of `endpoints`.
pub async fn client(endpoints: &[&str]) -> Client {
    let endpoints = endpoints.iter().map(|text| (*text).to_owned()).collect();
    Client::connect(Config { endpoints, ..Config::default() }).await.expect("nothing is awaited")
}

/// An address where nobody listens, of all the tests that run beside this one either: they listen on 127.0.0.1.
pub fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.2:0").expect("a port");
    listener.local_addr().expect("it is bound").to_string()
}

/// Long enough for a busy machine.
pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

pub fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

pub fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// Runs `test` on a runtime of its own, for a minute at most.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends in a minute");
    });
}
