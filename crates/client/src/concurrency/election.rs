//! One leader by name.

use std::collections::VecDeque;

use bytes::Bytes;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::request_op::Request;
use milepost_proto::mvccpb;

use super::session::Session;
use super::{
    created_at, first_created, get, is_delete, key, op, prefix, prefix_end, put, read_in, revision, wait_deletes,
};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::watch::Watcher;

/// A candidate. Dropping it does not resign: its key goes with the session.
pub struct Election<'a> {
    session: &'a Session,
    prefix: Bytes,
    key: Bytes,
    /// Create revision of our key, once it exists.
    candidate: Option<i64>,
    header: Option<pb::ResponseHeader>,
}

impl<'a> Election<'a> {
    /// The election `name`.
    #[must_use]
    pub fn new(session: &'a Session, name: &[u8]) -> Election<'a> {
        let prefix = prefix(name);
        let key = key(&prefix, session.lease());
        Election { session, prefix, key, candidate: None, header: None }
    }

    /// Stands for election with `value`, and waits to be elected. Who gives up waiting calls [`Election::resign`].
    ///
    /// # Errors
    /// The server could not be asked.
    pub async fn campaign(&mut self, value: Bytes) -> Result<(), Error> {
        let client = self.session.client();
        let txn = pb::TxnRequest {
            compare: vec![created_at(&self.key, 0)],
            success: vec![op(put(&self.key, value.clone(), self.session.lease()))],
            failure: vec![op(Request::RequestRange(get(&self.key)))],
        };
        let answer = client.kv().txn(txn, Deadline::NEVER).await?;
        let mut mine = revision(answer.header.as_ref());
        if !answer.succeeded
            && let Some(kv) = read_in(&answer, 0)?
        {
            mine = kv.create_revision;
            self.candidate = Some(mine);
            if kv.value != value
                && let Err(error) = self.proclaim(value).await
            {
                // The first error is the one to tell.
                let _ = self.resign().await;
                return Err(error);
            }
        }
        self.candidate = Some(mine);
        wait_deletes(client, &self.prefix, mine - 1).await?;
        self.header = answer.header;
        Ok(())
    }

    /// Changes the value without another election.
    ///
    /// # Errors
    /// `election: not leader`, or the server could not be told.
    pub async fn proclaim(&mut self, value: Bytes) -> Result<(), Error> {
        let not_leader = || Error::client("election: not leader");
        let mine = self.candidate.ok_or_else(not_leader)?;
        let txn = pb::TxnRequest {
            compare: vec![created_at(&self.key, mine)],
            success: vec![op(put(&self.key, value, self.session.lease()))],
            failure: Vec::new(),
        };
        let answer = self.session.client().kv().txn(txn, Deadline::NEVER).await?;
        if !answer.succeeded {
            self.candidate = None;
            return Err(not_leader());
        }
        self.header = answer.header;
        Ok(())
    }

    /// Steps down, or stops standing. Does nothing if we do not stand.
    ///
    /// # Errors
    /// The server could not be told.
    pub async fn resign(&mut self) -> Result<(), Error> {
        let Some(mine) = self.candidate.take() else { return Ok(()) };
        let delete = pb::DeleteRangeRequest { key: self.key.clone(), ..Default::default() };
        let txn = pb::TxnRequest {
            compare: vec![created_at(&self.key, mine)],
            success: vec![op(Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        self.header = self.session.client().kv().txn(txn, Deadline::NEVER).await?.header;
        Ok(())
    }

    /// The key that leads while it is the oldest.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Header of the last answer that concerned us.
    #[must_use]
    pub fn header(&self) -> Option<&pb::ResponseHeader> {
        self.header.as_ref()
    }
}

/// Hears of every leader of an election. Standing in it is not needed.
pub struct Observer {
    client: Client,
    prefix: Bytes,
    /// Follows the key of the present leader; `None` while it is being looked for.
    follower: Option<Watcher>,
    heard: VecDeque<pb::RangeResponse>,
}

impl Observer {
    /// Of the election `name`.
    #[must_use]
    pub fn new(client: &Client, name: &[u8]) -> Observer {
        Observer { client: client.clone(), prefix: prefix(name), follower: None, heard: VecDeque::new() }
    }

    /// The present leader, then each change, as an answer with the leader's key; `None` when the watch behind it is lost.
    /// Not cancel-safe.
    pub async fn next(&mut self) -> Option<pb::RangeResponse> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            match &mut self.follower {
                None => self.find().await?,
                Some(follower) => {
                    let update = follower.next().await?;
                    for event in &update.response.events {
                        if is_delete(event) {
                            // The next leader is looked for afresh.
                            self.follower = None;
                            break;
                        }
                        self.heard.extend(event.kv.clone().map(|kv| answer(update.response.header, kv)));
                    }
                }
            }
        }
    }

    /// Looks for the leader, waiting for one if there is none, and begins to follow it.
    async fn find(&mut self) -> Option<()> {
        let found = self.client.kv().range(first_created(&self.prefix), Deadline::NEVER).await.ok()?;
        let (header, kv) = match found.kvs.into_iter().next() {
            Some(kv) => (found.header, kv),
            None => self.first_put(revision(found.header.as_ref())).await?,
        };
        let follow = pb::WatchCreateRequest {
            key: kv.key.clone(),
            start_revision: revision(header.as_ref()) + 1,
            ..Default::default()
        };
        self.follower = Some(self.client.watch(follow));
        self.heard.push_back(answer(header, kv));
        Some(())
    }

    async fn first_put(&self, start_revision: i64) -> Option<(Option<pb::ResponseHeader>, mvccpb::KeyValue)> {
        let mut watcher = self.client.watch(pb::WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: prefix_end(&self.prefix),
            start_revision,
            ..Default::default()
        });
        loop {
            let update = watcher.next().await?;
            if update.error().is_some() {
                return None;
            }
            let put = update.response.events.into_iter().find(|event| !is_delete(event));
            if let Some(kv) = put.and_then(|event| event.kv) {
                // One update may hold several revisions: what follows the leader begins right behind its own.
                let header =
                    update.response.header.map(|header| pb::ResponseHeader { revision: kv.mod_revision, ..header });
                return Some((header, kv));
            }
        }
    }
}

fn answer(header: Option<pb::ResponseHeader>, kv: mvccpb::KeyValue) -> pb::RangeResponse {
    pb::RangeResponse { header, kvs: vec![kv], ..Default::default() }
}
