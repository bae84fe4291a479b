//! A member without a log, and a client that is not ours to trust: HTTP/2 frames and protobuf by hand.

mod client;
mod colleagues;
mod member;
mod plain;

pub use client::{Call, Client};
pub use colleagues::{Others, refused};
pub use member::{Answer, Member};
pub use plain::{Exchange, Page, exchange, exchange_bytes, post, request};

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use milepost_api::{ApiConfig, Doors, Limits, Listen, Listener};

/// A running server.
pub struct Server {
    pub member: Arc<Member>,
    pub doors: Doors,
}

/// etcd's limits, but no answer takes longer than 5.2 s and progress comes quickly.
pub fn limits() -> Limits {
    Limits {
        election_timeout: Duration::from_millis(100),
        watch_progress_interval: Duration::from_millis(50),
        ..Limits::default()
    }
}

impl Server {
    /// With two doors on a port of the system's choice.
    pub fn start() -> Self {
        Self::with(limits(), Member::new())
    }

    pub fn with(limits: Limits, member: Member) -> Self {
        Self::configured(member, |config| config.limits = limits)
    }

    /// With two doors and what `set` says.
    pub fn configured(member: Member, set: impl FnOnce(&mut ApiConfig)) -> Self {
        let listeners = vec![Listener::plain(Listen::Tcp { host: "127.0.0.1".into(), port: 0 })];
        let member = Arc::new(member);
        let mut config = ApiConfig { listeners, doors: 2, ..ApiConfig::default() };
        set(&mut config);
        let doors = Doors::start(config, member.clone()).expect("the doors open");
        Self { member, doors }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.doors.local_addrs()[0]).await
    }
}

/// Runs `test` against a fresh server.
pub fn serve<F: Future<Output = ()>>(test: impl FnOnce(Server) -> F) {
    run(async { test(Server::start()).await });
}

pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends in a minute");
    });
}
