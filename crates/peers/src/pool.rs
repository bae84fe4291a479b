//! Connections to other members that wait for their next question.

use std::collections::HashMap;

use http::Request;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::dial::Dialler;
use crate::exchange::{Answer, Whole, chain};
use crate::url::PeerUrl;

/// Connections to one URL that may be idle.
const IDLE_MAX: usize = 32;

/// Questions to a few members, over and over.
#[derive(Default)]
pub(crate) struct Pool {
    // Held to take one out or put one back, never across a wait.
    idle: Mutex<HashMap<PeerUrl, Vec<Idle>>>,
}

struct Idle {
    sender: SendRequest<Whole>,
    _driver: Driver,
}

/// The task that moves a connection's bytes.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pool {
    /// Sends what `request` makes to `url`, over an old connection if there is one. It may be sent twice: when an old
    /// connection turns out to be closed. Must be called on a runtime that lives as long as the pool.
    ///
    /// # Errors
    /// There was no connection, it broke, or the answer is longer than `limit` bytes.
    pub(crate) async fn ask(
        &self,
        dialler: &Dialler,
        url: &PeerUrl,
        request: impl Fn() -> Request<Whole>,
        limit: usize,
    ) -> Result<Answer, String> {
        if let Some(mut old) = self.take(url)
            && let Ok(answer) = old.exchange(request(), limit).await
        {
            self.put(url, old);
            return Ok(answer);
        }
        let mut new = Idle::connect(dialler, url).await?;
        let answer = new.exchange(request(), limit).await?;
        self.put(url, new);
        Ok(answer)
    }

    fn take(&self, url: &PeerUrl) -> Option<Idle> {
        let mut idle = self.idle.lock();
        let waiting = idle.get_mut(url)?;
        // The youngest: it is the least likely to be closed, which the other end does to what was quiet for long.
        while let Some(last) = waiting.pop() {
            if !last.sender.is_closed() {
                return Some(last);
            }
        }
        None
    }

    fn put(&self, url: &PeerUrl, connection: Idle) {
        let mut idle = self.idle.lock();
        let waiting = idle.entry(url.clone()).or_default();
        waiting.retain(|one| !one.sender.is_closed());
        if waiting.len() < IDLE_MAX {
            waiting.push(connection);
        }
    }
}

impl Idle {
    async fn connect(dialler: &Dialler, url: &PeerUrl) -> Result<Self, String> {
        let (sender, connection) = dialler.http(url).await?;
        let driver = tokio::spawn(async move {
            // How it ends shows in the answers.
            let _ = connection.await;
        });
        Ok(Self { sender, _driver: Driver(driver.abort_handle()) })
    }

    async fn exchange(&mut self, request: Request<Whole>, limit: usize) -> Result<Answer, String> {
        self.sender.ready().await.map_err(|why| chain(&why))?;
        let response = self.sender.send_request(request).await.map_err(|why| chain(&why))?;
        Answer::read(response, limit).await
    }
}
