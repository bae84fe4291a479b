//! Questions to other members, asked from threads that may wait.

use std::time::Duration;

use milepost_peers::{Blocking, Client, MemberRecord, TlsSettings, VersionRecord};
use milepost_types::ClusterId;

/// Asks the member at a URL; errors are one line each. Every call ends in bounded time.
pub trait Ask {
    /// The cluster and who is in it. One answer for each of `urls`, in their order; they are asked at once.
    fn members(&self, urls: &[String], within: Duration) -> Vec<Result<(ClusterId, Vec<MemberRecord>), String>>;

    /// The versions of each member, given by its peer URLs: of the first that answers. They are asked at once.
    fn versions(&self, members: &[Vec<String>], within: Duration) -> Vec<Result<VersionRecord, String>>;

    /// Is the cluster being downgraded? The first that answers decides; nobody: no.
    fn is_downgrading(&self, urls: &[String], within: Duration) -> bool;
}

/// Over the network.
pub struct Network(Blocking);

impl Network {
    /// With the certificates of a member; `dial`: how long a connection may take.
    ///
    /// # Errors
    /// A certificate, or the system.
    pub fn new(tls: TlsSettings, dial: Duration) -> Result<Self, String> {
        let client = Client::new(tls, dial, dial)?;
        Ok(Self(Blocking::new(client).map_err(|error| error.to_string())?))
    }
}

/// Runs one question per item at once; answers come in the order of items.
async fn at_once<I, T: Send + 'static, F>(
    items: impl Iterator<Item = I>,
    ask: impl Fn(I) -> F,
) -> Vec<Result<T, String>>
where
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let tasks: Vec<_> = items.map(|item| tokio::spawn(ask(item))).collect();
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        answers.push(task.await.unwrap_or_else(|error| Err(error.to_string())));
    }
    answers
}

impl Ask for Network {
    fn members(&self, urls: &[String], within: Duration) -> Vec<Result<(ClusterId, Vec<MemberRecord>), String>> {
        self.0.run(async |client| {
            let ask = |url: &String| {
                let (client, url) = (client.within(within), url.clone());
                async move { client.members(&url).await.map_err(|error| error.to_string()) }
            };
            at_once(urls.iter(), ask).await
        })
    }

    fn versions(&self, members: &[Vec<String>], within: Duration) -> Vec<Result<VersionRecord, String>> {
        self.0.run(async |client| {
            let ask = |urls: &Vec<String>| {
                let (client, urls) = (client.within(within), urls.clone());
                async move {
                    let mut why = "the member has no peer URL".to_owned();
                    for url in &urls {
                        match client.version(url).await {
                            Ok(version) => return Ok(version),
                            Err(error) => why = error.to_string(),
                        }
                    }
                    Err(why)
                }
            };
            at_once(members.iter(), ask).await
        })
    }

    fn is_downgrading(&self, urls: &[String], within: Duration) -> bool {
        self.0.run(async |client| {
            let client = client.within(within);
            for url in urls {
                if let Ok(is_on) = client.downgrade_enabled(url).await {
                    return is_on;
                }
            }
            false
        })
    }
}
