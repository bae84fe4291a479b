//! Questions that one member asks another, outside Raft. Source: etcd `server/etcdserver/cluster_util.go`,
//! `corrupt.go`, `server/lease/leasehttp`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request};
use milepost_proto::Message;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::leasepb;
use milepost_types::{ClusterId, LeaseId, MemberId};
use serde::{Deserialize, Deserializer, Serialize};

use crate::dial::Dialler;
use crate::exchange::{Answer, Whole, once};
use crate::headers;
use crate::pool::Pool;
use crate::tls::TlsSettings;
use crate::url::PeerUrl;

/// What is not asked twice.
const PROMOTE: &str = "/members/promote/";
/// Longest answer that is read. A lease with a million keys fits; nothing else comes near.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no such address.
    #[error("{0}")]
    Url(String),
    /// No connection, or it broke.
    #[error("{url}: {why}")]
    Unreachable {
        /// Who was called.
        url: String,
        /// Why, in Go's words where operators know them.
        why: String,
    },
    /// No answer in time.
    #[error("{url}: no answer within {after:?}")]
    Timeout {
        /// Who was called.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// An answer with another status than 200.
    #[error("{url}: status {status}: {body}")]
    Refused {
        /// Who was called.
        url: String,
        /// HTTP's status.
        status: u16,
        /// The text, without the newline at its end.
        body: String,
    },
    /// An answer with status 200 that makes no sense.
    #[error("{url}: {why}")]
    Malformed {
        /// Who was called.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl CallError {
    /// Status and text, if the other one refused.
    #[must_use]
    pub fn refusal(&self) -> Option<(u16, &str)> {
        match self {
            Self::Refused { status, body, .. } => Some((*status, body)),
            _ => None,
        }
    }
}

/// A member as others tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its id.
    pub id: u64,
    /// Where it listens for other members.
    #[serde(rename = "peerURLs", default, deserialize_with = "nullable")]
    pub peer_urls: Vec<String>,
    /// It has no vote yet.
    #[serde(rename = "isLearner", default, skip_serializing_if = "is_false")]
    pub is_learner: bool,
    /// Its name; empty until it has started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where it listens for clients; none until it has started.
    #[serde(rename = "clientURLs", default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

fn is_false(is: &bool) -> bool {
    !is
}

/// Go writes an absent list as `null`.
fn nullable<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The versions that a member tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Of the program, like `3.7.1`.
    #[serde(rename = "etcdserver")]
    pub server: String,
    /// Of the cluster, like `3.7.0`; `not_decided` while there is none.
    #[serde(rename = "etcdcluster", default)]
    pub cluster: String,
    /// Of the store; empty from members older than 3.6.
    #[serde(default)]
    pub storage: String,
}

/// A hash of the keyspace of another member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HashRecord {
    /// Who answered.
    pub header: HashHeader,
    /// The hash.
    pub hash: u32,
    /// What was compacted when it was computed.
    pub compact_revision: i64,
    /// The revision up to which it was computed.
    pub hash_revision: i64,
}

/// Who answered for a hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HashHeader {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// Its revision.
    pub revision: i64,
    /// Its term.
    pub raft_term: u64,
}

/// Asks other members. Clones share the settings; every call opens a connection of its own ([`Client::keeping`] keeps
/// them), on the runtime that it is awaited on, and is cancel-safe: dropped, it ends.
#[derive(Clone)]
pub struct Client {
    dialler: Dialler,
    /// For one call to one URL, everything included.
    deadline: Duration,
    /// For what may be asked twice.
    kept: Option<Arc<Pool>>,
}

impl Client {
    /// Calls with `tls` for `https` URLs; `dial`: how long a connection may take, `deadline`: a whole call to one URL.
    ///
    /// # Errors
    /// A file or setting of `tls` is no good: which, and why.
    pub fn new(tls: TlsSettings, dial: Duration, deadline: Duration) -> Result<Self, String> {
        Ok(Self { dialler: Dialler::new(tls, dial)?, deadline, kept: None })
    }

    /// The same client with another deadline.
    #[must_use]
    pub fn within(&self, deadline: Duration) -> Self {
        Self { dialler: self.dialler.clone(), deadline, kept: self.kept.clone() }
    }

    /// The same client, which keeps the connections of everything that may be asked twice: all calls but
    /// [`Client::promote`]. From now on all calls of it and its clones must be awaited on one runtime.
    #[must_use]
    pub fn keeping(self) -> Self {
        Self { kept: Some(Arc::default()), ..self }
    }

    /// The cluster's id and its members, as the member at `url` knows them.
    ///
    /// # Errors
    /// Also when the answer names no cluster.
    pub async fn members(&self, url: &str) -> Result<(ClusterId, Vec<MemberRecord>), CallError> {
        let answer = self.call(url, Method::GET, "/members", Vec::new(), Bytes::new()).await?;
        let cluster = answer.headers.get(headers::CLUSTER_ID).and_then(|value| value.to_str().ok());
        let cluster = cluster
            .and_then(|text| u64::from_str_radix(text, 16).ok())
            .ok_or_else(|| malformed(url, "the answer has no cluster id in its header X-Etcd-Cluster-ID".to_owned()))?;
        Ok((ClusterId(cluster), json(url, &answer)?))
    }

    /// The versions of the member at `url`.
    ///
    /// # Errors
    /// No answer, or no good one.
    pub async fn version(&self, url: &str) -> Result<VersionRecord, CallError> {
        json(url, &self.call(url, Method::GET, "/version", Vec::new(), Bytes::new()).await?)
    }

    /// Whether the cluster is being downgraded, as the member at `url` knows after a linearizable read.
    ///
    /// # Errors
    /// No answer, or no good one.
    pub async fn downgrade_enabled(&self, url: &str) -> Result<bool, CallError> {
        let answer = self.call(url, Method::GET, "/downgrade/enabled", Vec::new(), Bytes::new()).await?;
        // The words of Go's strconv.ParseBool.
        match answer.text().as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(malformed(url, format!("neither true nor false: {other:?}"))),
        }
    }

    /// The hash of the keyspace up to `revision` (0: all) of the member with these `urls`.
    ///
    /// # Errors
    /// Those of the last URL. Status 400 tells in its text of a revision that is compacted or to come, 412 of another
    /// cluster.
    pub async fn hash_kv(&self, urls: &[String], cluster: ClusterId, revision: i64) -> Result<HashRecord, CallError> {
        let body = if revision == 0 { "{}".to_owned() } else { format!("{{\"revision\":{revision}}}") };
        let body = Bytes::from(body);
        let headers =
            vec![(CONTENT_TYPE.as_str(), "application/json".into()), (headers::CLUSTER_ID, cluster.to_string())];
        let (url, answer) = self.any(urls, Method::GET, "/members/hashkv", headers, body).await?;
        json(url, &answer)
    }

    /// Has the leader, which has these `urls`, promote the learner `id`; all members afterwards. `token`: of the user who
    /// asks, if users are on.
    ///
    /// # Errors
    /// Those of the last URL. Status 404: no such member; 412: no learner, or not ready, as the text says; 408: timeout.
    pub async fn promote(
        &self,
        urls: &[String],
        id: MemberId,
        token: Option<&str>,
    ) -> Result<Vec<MemberRecord>, CallError> {
        let headers = token.map(|token| (AUTHORIZATION.as_str(), token.to_owned())).into_iter().collect();
        let path = format!("{PROMOTE}{}", id.0);
        let (url, answer) = self.any(urls, Method::POST, &path, headers, Bytes::new()).await?;
        json(url, &answer)
    }

    /// Has the leader, which has these `urls`, renew the lease `id`; its time to live in seconds.
    ///
    /// # Errors
    /// Those of the last URL. Status 404: no such lease; 408: the leader waits for its own log.
    pub async fn renew_lease(&self, urls: &[String], id: LeaseId) -> Result<i64, CallError> {
        let body = pb::LeaseKeepAliveRequest { id: id.0 }.encode_to_vec();
        let (url, answer) = self.any(urls, Method::POST, "/leases", protobuf(), body.into()).await?;
        let answer: pb::LeaseKeepAliveResponse = decode(url, &answer)?;
        if answer.id != id.0 {
            return Err(malformed(url, format!("lease: renew id mismatch: {:x} for {id}", answer.id)));
        }
        Ok(answer.ttl)
    }

    /// Asks the leader, which has these `urls`, about the lease `id`, with its keys if `keys`.
    ///
    /// # Errors
    /// Those of the last URL. Status 404: no such lease; 408: the leader waits for its own log.
    pub async fn lease_time_to_live(
        &self,
        urls: &[String],
        id: LeaseId,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, CallError> {
        let request = pb::LeaseTimeToLiveRequest { id: id.0, keys };
        let body = leasepb::LeaseInternalRequest { lease_time_to_live_request: Some(request) }.encode_to_vec();
        let (url, answer) = self.any(urls, Method::POST, "/leases/internal", protobuf(), body.into()).await?;
        let answer: leasepb::LeaseInternalResponse = decode(url, &answer)?;
        match answer.lease_time_to_live_response {
            Some(answer) if answer.id == id.0 => Ok(answer),
            _ => Err(malformed(url, format!("lease: TTL id mismatch for {id}"))),
        }
    }

    /// The first of `urls` that answers decides, whatever it answers: they are all of one member.
    async fn any<'a>(
        &self,
        urls: &'a [String],
        method: Method,
        path: &str,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Result<(&'a str, Answer), CallError> {
        let mut last = CallError::Url("the member has no peer URL".into());
        for url in urls {
            match self.call(url, method.clone(), path, headers.clone(), body.clone()).await {
                Ok(answer) => return Ok((url, answer)),
                Err(refused @ CallError::Refused { .. }) => return Err(refused),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn call(
        &self,
        url: &str,
        method: Method,
        path: &str,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let parsed = PeerUrl::parse(url).map_err(CallError::Url)?;
        let mut request = Request::builder().method(method).uri(path).header(HOST, &parsed.authority);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(()).map_err(|why| CallError::Url(format!("{url}: {why}")))?;
        let whole = || request.clone().map(|()| Whole::new(body.clone()));
        let calling = async {
            match &self.kept {
                Some(pool) if !path.starts_with(PROMOTE) => {
                    pool.ask(&self.dialler, &parsed, whole, ANSWER_BYTES_MAX).await
                }
                _ => once(&self.dialler, &parsed, whole(), ANSWER_BYTES_MAX).await,
            }
        };
        let url = url.to_owned();
        let answer = match tokio::time::timeout(self.deadline, calling).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(CallError::Unreachable { url, why }),
            Err(_) => return Err(CallError::Timeout { url, after: self.deadline }),
        };
        if answer.status != 200 {
            return Err(CallError::Refused { url, status: answer.status, body: answer.text() });
        }
        Ok(answer)
    }
}

fn protobuf() -> Vec<(&'static str, String)> {
    vec![(CONTENT_TYPE.as_str(), "application/protobuf".into())]
}

fn malformed(url: &str, why: String) -> CallError {
    CallError::Malformed { url: url.to_owned(), why }
}

fn json<T: serde::de::DeserializeOwned>(url: &str, answer: &Answer) -> Result<T, CallError> {
    serde_json::from_slice(&answer.body).map_err(|why| malformed(url, format!("unreadable answer: {why}")))
}

fn decode<M: Message + Default>(url: &str, answer: &Answer) -> Result<M, CallError> {
    M::decode(answer.body.clone()).map_err(|why| malformed(url, format!("unreadable answer: {why}")))
}

/// A client for threads without a runtime, as before the member has started.
pub struct Blocking {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Blocking {
    /// # Errors
    /// The system gives no runtime.
    pub fn new(client: Client) -> std::io::Result<Self> {
        Ok(Self { client, runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()? })
    }

    /// Waits for what `ask` asks: `blocking.run(async |client| client.members(url).await)`.
    ///
    /// # Panics
    /// On a thread that is a runtime's already.
    pub fn run<T>(&self, ask: impl AsyncFnOnce(&Client) -> T) -> T {
        self.runtime.block_on(ask(&self.client))
    }
}
