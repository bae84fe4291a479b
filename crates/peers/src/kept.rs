//! A connection that is used again.

use std::time::Duration;

use http::Request;
use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;

use crate::dial::Dialler;
use crate::exchange::{Answer, Whole, chain};
use crate::url::PeerUrl;

/// Longest answer to a message: a sentence.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// One request with its answer may take so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks one member again and again, one request at a time.
pub(crate) struct Kept {
    dialler: Dialler,
    open: Option<Open>,
}

struct Open {
    url: PeerUrl,
    sender: SendRequest<Whole>,
    driver: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Kept {
    pub(crate) fn new(dialler: Dialler) -> Self {
        Self { dialler, open: None }
    }

    /// Sends `request` to `url` and reads the answer; after an error the next request opens a new connection.
    ///
    /// # Errors
    /// No connection, it broke, or nothing came in time.
    pub(crate) async fn ask(&mut self, url: &PeerUrl, request: Request<Whole>) -> Result<Answer, String> {
        match tokio::time::timeout(PATIENCE, self.exchange(url, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => {
                self.open = None;
                Err(why)
            }
            Err(_) => {
                self.open = None;
                Err("i/o timeout".into())
            }
        }
    }

    async fn exchange(&mut self, url: &PeerUrl, request: Request<Whole>) -> Result<Answer, String> {
        if let Some(open) = &mut self.open
            // The other end closes what was quiet for long.
            && (open.url != *url || open.sender.ready().await.is_err())
        {
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(connect(&self.dialler, url).await?),
        };
        let response = open.sender.send_request(request).await.map_err(|why| chain(&why))?;
        Answer::read(response, ANSWER_BYTES_MAX).await
    }
}

async fn connect(dialler: &Dialler, url: &PeerUrl) -> Result<Open, String> {
    let (sender, connection) = dialler.http(url).await?;
    let driver = tokio::spawn(async move {
        // How it ends shows in the requests.
        let _ = connection.await;
    });
    Ok(Open { url: url.clone(), sender, driver: driver.abort_handle() })
}
