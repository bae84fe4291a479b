//! A lease that is kept alive for as long as its holder lives.

use std::time::Duration;

use milepost_proto::etcdserverpb as pb;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::Error;

/// Time to live where none is given. etcd: `concurrency/session.go`.
const TTL_SECONDS: i64 = 60;

/// What locks and elections hang on. Dropping it lets the lease run out; [`Session::close`] ends it at once.
pub struct Session {
    client: Client,
    lease: i64,
    ttl: Duration,
    /// Its sender goes when the lease is no longer kept alive.
    alive: watch::Receiver<()>,
    keeper: JoinHandle<()>,
}

impl Session {
    /// A new lease of `ttl_seconds`; of a minute if that is not positive.
    ///
    /// # Errors
    /// The server grants no lease.
    pub async fn new(client: &Client, ttl_seconds: i64) -> Result<Session, Error> {
        let seconds = if ttl_seconds > 0 { ttl_seconds } else { TTL_SECONDS };
        let request = pb::LeaseGrantRequest { ttl: seconds, id: 0 };
        let lease = client.lease().grant(request, Deadline::NEVER).await?.id;
        let mut answers = client.keep_alive(lease);
        let (living, alive) = watch::channel(());
        let keeper = tokio::spawn(async move {
            while answers.next().await.is_some() {}
            drop(living);
        });
        let ttl = Duration::from_secs(seconds.unsigned_abs());
        Ok(Session { client: client.clone(), lease, ttl, alive, keeper })
    }

    /// The client it was made with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its lease.
    #[must_use]
    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// Waits for its end: the lease expired, was revoked, or was not heard of for its whole time. Cancel-safe.
    pub async fn ended(&self) {
        let mut alive = self.alive.clone();
        // Nothing is ever sent.
        while alive.changed().await.is_ok() {}
    }

    /// Ends the lease and with it everything that hangs on it.
    ///
    /// # Errors
    /// The server could not be told; the lease then runs out by itself.
    pub async fn close(self) -> Result<(), Error> {
        self.keeper.abort();
        let request = pb::LeaseRevokeRequest { id: self.lease };
        // If that takes longer than the lease lives, there is nothing left to revoke.
        self.client.lease().revoke(request, Deadline::after(self.ttl)).await.map(drop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
