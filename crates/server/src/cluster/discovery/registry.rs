//! Members meet at another etcd: each writes itself under the cluster's token and waits until enough have.
//!
//! ```text
//!  /_etcd/registry/TOKEN/_config/size     how many (somebody puts it there first)
//!                       /members/ID       name=url,name=url
//! ```
//! Who registered first is in; who comes too late is refused. Source: etcd `v3discovery`.

use std::time::Duration;

use milepost_client::{Auth, Client, Config as ClientConfig, ConnectError, Deadline, Secure};
use milepost_node::log::{Log, Value};
use milepost_proto::etcdserverpb as pb;
use milepost_proto::mvccpb::KeyValue;
use milepost_types::MemberId;

use crate::config::cluster;
use crate::config::discovery::Service;
use crate::config::settings::Refusal;

const PREFIX: &str = "/_etcd/registry";
/// After so many failures the pause grows no more: 256 of its units. Source: etcd `maxExponentialRetries`.
const DOUBLINGS_MAX: u32 = 8;

/// A client of the etcd at which members meet.
///
/// # Errors
/// Its files, or the user.
pub(super) async fn client(service: &Service) -> Result<Client, Refusal> {
    let config = ClientConfig {
        endpoints: service.endpoints.clone(),
        dial_timeout: service.dial_timeout,
        keepalive_time: service.keepalive_time,
        keepalive_timeout: service.keepalive_timeout,
        secure: Secure {
            cert: service.cert.clone(),
            key: service.key.clone(),
            cacert: service.cacert.clone(),
            server_name: String::new(),
            insecure_transport: service.insecure_transport,
            insecure_skip_verify: service.insecure_skip_verify,
        },
        auth: match &service.user {
            None => Auth::None,
            Some((user, password)) => Auth::Password { user: user.clone(), password: password.clone() },
        },
        ..ClientConfig::default()
    };
    Client::connect(config).await.map_err(|error| match error {
        ConnectError::Config(why) => Refusal::new(why, "correct the --discovery-* flag about it"),
        ConnectError::Refused(error) => {
            Refusal::new(error.to_string(), "correct --discovery-user and --discovery-password")
        }
    })
}

/// # Errors
/// What was found is no cluster, in etcd's words.
pub(super) fn check(found: &str) -> Result<(), Refusal> {
    let members = cluster::members(found)?;
    let mut urls: Vec<&str> = members.values().flatten().map(|url| url.as_str()).collect();
    let all = urls.len();
    urls.sort_unstable();
    urls.dedup();
    if urls.len() < all {
        let complaint = format!("discovery cluster {} has duplicate url", cluster::text(&members));
        return Err(Refusal::new(
            complaint,
            "give each member its own --initial-advertise-peer-urls, and use a new token",
        ));
    }
    Ok(())
}

/// One who registered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    key: String,
    /// `name=url,…`
    urls: String,
    /// When, as the other etcd counts.
    created: i64,
}

/// What is written about one cluster.
#[derive(Debug)]
struct Book {
    size: usize,
    /// By their turn.
    peers: Vec<Peer>,
    revision: i64,
}

impl Book {
    /// The `size` who came first.
    fn members(&self) -> String {
        let first = self.peers.iter().take(self.size).map(|peer| peer.urls.as_str());
        first.collect::<Vec<_>>().join(",")
    }
}

/// Why one step failed.
enum Trouble {
    /// It may work the next time.
    Again,
    /// It will not.
    Never(Refusal),
}

pub(super) struct Registry<'a> {
    client: Client,
    service: &'a Service,
    own_key: String,
    log: &'a dyn Log,
    /// The first pause is two of these.
    pause: Duration,
    failures: u32,
}

impl<'a> Registry<'a> {
    pub(super) fn new(client: Client, service: &'a Service, own: MemberId, log: &'a dyn Log, pause: Duration) -> Self {
        let own_key = format!("{PREFIX}/{}/members/{own}", service.token);
        Self { client, service, own_key, log, pause, failures: 0 }
    }

    /// Registers `own` (`name=url,…`) and waits for the others; all of them, as `--initial-cluster` would name them.
    ///
    /// # Errors
    /// There is no size, or no place left. An etcd that does not answer is asked for ever.
    pub(super) async fn join(&mut self, own: &str) -> Result<String, Refusal> {
        self.read().await?;
        self.register(own).await;
        loop {
            let book = self.read().await?;
            if book.peers.len() >= book.size {
                let found = book.members();
                return match cluster::members(&found) {
                    Ok(_) => Ok(found),
                    Err(why) => Err(Refusal::new("discovery: invalid peer URL", why.complaint)),
                };
            }
            self.wait(&book).await;
        }
    }

    /// What is written, with a place left for this member or taken by it.
    async fn read(&mut self) -> Result<Book, Refusal> {
        loop {
            match self.try_read().await {
                Ok(book) => {
                    self.failures = 0;
                    return Ok(book);
                }
                Err(Trouble::Never(refusal)) => return Err(refusal),
                Err(Trouble::Again) => self.back_off("cluster status check").await,
            }
        }
    }

    async fn try_read(&self) -> Result<Book, Trouble> {
        let size = self.size().await?;
        let prefix = self.members_prefix();
        let request =
            pb::RangeRequest { key: prefix.clone().into(), range_end: end_of(&prefix).into(), ..Default::default() };
        let answer = match self.client.kv().range(request, self.deadline()).await {
            Ok(answer) => answer,
            Err(error) => {
                let message = "failed to get cluster members from discovery service";
                self.warn(message, &[("membersKeyPrefix", prefix.into()), ("error", error.to_string().into())]);
                return Err(Trouble::Again);
            }
        };
        let mut peers = Vec::new();
        answer.kvs.iter().for_each(|kv| self.note(kv, &mut peers));
        let is_full = !peers.iter().take(size).any(|peer| peer.key == self.own_key) && peers.len() >= size;
        if is_full {
            return Err(Trouble::Never(Refusal::new(
                "discovery: cluster is full",
                format!(
                    "{size} other members have registered with --discovery-token={}: use a new token for a new cluster; \
                     to add a member to theirs, etcdctl member add",
                    self.service.token
                ),
            )));
        }
        Ok(Book { size, peers, revision: answer.header.map_or(0, |header| header.revision) })
    }

    async fn size(&self) -> Result<usize, Trouble> {
        let key = format!("{PREFIX}/{}/_config/size", self.service.token);
        let request = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
        let answer = match self.client.kv().range(request, self.deadline()).await {
            Ok(answer) => answer,
            Err(error) => {
                let message = "failed to get cluster size from discovery service";
                self.warn(message, &[("clusterSizeKey", key.into()), ("error", error.to_string().into())]);
                return Err(Trouble::Again);
            }
        };
        let put = |why: &str| {
            let remedy = format!(
                "say how many members there will be: etcdctl --endpoints={} put {key} 3",
                self.service.endpoints.join(",")
            );
            Trouble::Never(Refusal::new(why, remedy))
        };
        let kv = answer.kvs.first().ok_or_else(|| put("discovery: size key not found"))?;
        let size = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse::<i64>().ok());
        let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        size.ok_or_else(|| put("discovery: size key is bad"))
    }

    /// Writes this member down, however long it takes.
    async fn register(&mut self, own: &str) {
        loop {
            let request =
                pb::PutRequest { key: self.own_key.clone().into(), value: own.to_owned().into(), ..Default::default() };
            let key: Value = self.own_key.as_str().into();
            match self.client.kv().put(request, self.deadline()).await {
                Ok(_) => {
                    self.failures = 0;
                    let fields = [("memberKey", key), ("memberInfo", own.into())];
                    return self.info("register member itself successfully", &fields);
                }
                Err(error) => {
                    let message = "failed to register members itself to the discovery service";
                    self.warn(message, &[("memberKey", key), ("error", error.to_string().into())]);
                    self.back_off("register member itself").await;
                }
            }
        }
    }

    /// Waits until enough have registered, or for a reason to read again.
    async fn wait(&self, book: &Book) {
        let prefix = self.members_prefix();
        let mut peers = book.peers.clone();
        let counts = |found: usize| [("clusterSize", book.size.into()), ("found-peers", found.into())];
        self.info("waiting for peers from discovery service", &counts(peers.len()));
        let mut watcher = self.client.watch(pb::WatchCreateRequest {
            key: prefix.clone().into(),
            range_end: end_of(&prefix).into(),
            start_revision: book.revision + 1,
            ..Default::default()
        });
        while let Some(update) = watcher.next().await {
            update
                .response
                .events
                .iter()
                .filter_map(|event| event.kv.as_ref())
                .for_each(|kv| self.note(kv, &mut peers));
            if peers.len() >= book.size {
                return self.info("found all needed peers from discovery service", &counts(peers.len()));
            }
        }
    }

    /// Takes `kv` in, if it is a peer that is not known yet.
    fn note(&self, kv: &KeyValue, peers: &mut Vec<Peer>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let peer = Peer { key: text(&kv.key), urls: text(&kv.value), created: kv.create_revision };
        let fields: [(&str, Value); 2] =
            [("memberKey", peer.key.as_str().into()), ("memberInfo", peer.urls.as_str().into())];
        if !peer.urls.contains('=') {
            return self.warn("invalid peer info returned from discovery service", &fields);
        }
        if peers.iter().any(|known| known.key == peer.key) {
            return self.warn("found duplicate peer from discovery service", &fields);
        }
        self.info("found peer from discovery service", &fields);
        let at = peers.partition_point(|known| known.created <= peer.created);
        peers.insert(at, peer);
    }

    async fn back_off(&mut self, step: &'static str) {
        self.failures = (self.failures + 1).min(DOUBLINGS_MAX);
        let pause = self.pause * (1 << self.failures);
        self.warn("retry connecting to discovery service", &[("reason", step.into()), ("backoff", pause.into())]);
        tokio::time::sleep(pause).await;
    }

    fn members_prefix(&self) -> String {
        format!("{PREFIX}/{}/members", self.service.token)
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.service.request_timeout)
    }

    fn whose(&self) -> [(&'static str, Value); 2] {
        let Service { token, endpoints, .. } = self.service;
        [("discovery-token", token.as_str().into()), ("discovery-endpoints", endpoints.join(",").into())]
    }

    fn info(&self, message: &str, fields: &[(&str, Value)]) {
        self.log.info(message, &[&self.whose(), fields].concat());
    }

    fn warn(&self, message: &str, fields: &[(&str, Value)]) {
        self.log.warn(message, &[&self.whose(), fields].concat());
    }
}

/// The first key behind all that begin with `prefix`, whose last byte is a letter.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
#[path = "registry_test.rs"]
mod tests;
