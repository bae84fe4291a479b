//! The other members, as the doors and the checks ask them: one thread carries all questions, over connections that are
//! kept.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use milepost_api::{Asked, Colleagues, Unheard};
use milepost_peers::{CallError, Client, HashRecord, MemberRecord};
use milepost_proto::etcdserverpb as pb;
use milepost_types::{ClusterId, LeaseId, MemberId};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// For how long a member has been there.
pub type Activity = Arc<dyn Fn(MemberId) -> Option<Duration> + Send + Sync>;

/// All others.
pub struct Others {
    client: Client,
    runtime: Handle,
    activity: Activity,
    /// Dropped, it ends the thread.
    _until: oneshot::Sender<()>,
}

impl Others {
    /// Asks with `client`; `activity` is the transport's.
    ///
    /// # Errors
    /// The system gives no runtime, or no thread.
    pub fn start(client: Client, activity: Activity) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (until, ended) = oneshot::channel::<()>();
        // Its end is nobody's business: questions under way end with it.
        std::thread::Builder::new().name("colleagues".into()).spawn(move || {
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { client: client.keeping(), runtime: handle, activity, _until: until })
    }

    fn ask<T, F>(&self, question: impl FnOnce(Client) -> F) -> Question<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        Question(self.runtime.spawn(question(self.client.clone())))
    }

    /// The hash of each member's keyspace up to `revision`, in the order of `members`; all are asked at once. Whoever does
    /// not tell its version within `greeting` is not asked: a member that is starting takes connections before it answers.
    /// Must not be called on a runtime.
    #[must_use]
    pub fn hashes(
        &self,
        members: &[Vec<String>],
        cluster: ClusterId,
        revision: i64,
        greeting: Duration,
    ) -> Vec<Result<HashRecord, Unheard>> {
        let ask = |urls: &Vec<String>| {
            let urls = urls.clone();
            self.ask(async move |client: Client| {
                greet(&client.within(greeting), &urls).await?;
                client.hash_kv(&urls, cluster, revision).await
            })
        };
        let asked: Vec<Question<HashRecord>> = members.iter().map(ask).collect();
        asked.into_iter().map(|question| self.runtime.block_on(question)).collect()
    }
}

/// Is anybody there?
async fn greet(client: &Client, urls: &[String]) -> Result<(), CallError> {
    let mut last = CallError::Url("the member has no peer URL".into());
    for url in urls {
        match client.version(url).await {
            Ok(_) => return Ok(()),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// A question under way; dropped, it is given up.
struct Question<T>(JoinHandle<Result<T, CallError>>);

impl<T> Future for Question<T> {
    type Output = Result<T, Unheard>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| match answer {
            Ok(answer) => answer.map_err(unheard),
            Err(why) => Err(Unheard::Lost(why.to_string())),
        })
    }
}

impl<T> Drop for Question<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn unheard(why: CallError) -> Unheard {
    match why {
        CallError::Refused { status, body, .. } => Unheard::Refused { status, body },
        why => Unheard::Lost(why.to_string()),
    }
}

impl Colleagues for Others {
    fn active_for(&self, member: MemberId) -> Option<Duration> {
        (self.activity)(member)
    }

    fn promote(&self, urls: &[String], id: MemberId) -> Asked<Vec<pb::Member>> {
        let urls = urls.to_vec();
        let asked = self.ask(async move |client: Client| client.promote(&urls, id, None).await);
        Box::pin(async { Ok(asked.await?.into_iter().map(to_wire).collect()) })
    }

    fn renew_lease(&self, urls: &[String], id: LeaseId) -> Asked<i64> {
        let urls = urls.to_vec();
        Box::pin(self.ask(async move |client: Client| client.renew_lease(&urls, id).await))
    }

    fn lease_time_to_live(
        &self,
        urls: &[String],
        request: pb::LeaseTimeToLiveRequest,
    ) -> Asked<pb::LeaseTimeToLiveResponse> {
        let (urls, id) = (urls.to_vec(), LeaseId(request.id));
        Box::pin(self.ask(async move |client: Client| client.lease_time_to_live(&urls, id, request.keys).await))
    }
}

fn to_wire(record: MemberRecord) -> pb::Member {
    pb::Member {
        id: record.id,
        name: record.name,
        peer_ur_ls: record.peer_urls,
        client_ur_ls: record.client_urls,
        is_learner: record.is_learner,
    }
}
