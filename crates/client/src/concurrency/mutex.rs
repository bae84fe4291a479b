//! A lock by name.

use bytes::Bytes;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::request_op::Request;

use super::session::Session;
use super::{created_at, first_created, get, key, op, prefix, put, read_in, revision, wait_deletes};
use crate::deadline::Deadline;
use crate::error::Error;

/// A lock that at most one session holds. Dropping it does not unlock: its key goes with the session.
pub struct Mutex<'a> {
    session: &'a Session,
    prefix: Bytes,
    key: Bytes,
    /// Whether our key may exist: set before it is asked for, so that a lock that was given up is cleaned up.
    is_queued: bool,
    header: Option<pb::ResponseHeader>,
}

impl<'a> Mutex<'a> {
    /// The lock `name`, not taken yet.
    #[must_use]
    pub fn new(session: &'a Session, name: &[u8]) -> Mutex<'a> {
        let prefix = prefix(name);
        let key = key(&prefix, session.lease());
        Mutex { session, prefix, key, is_queued: false, header: None }
    }

    /// Waits for the lock. Who gives up waiting calls [`Mutex::unlock`].
    ///
    /// # Errors
    /// The session has expired (`mutex: session is expired`), or the server could not be asked; our place in the queue
    /// is then given back.
    pub async fn lock(&mut self) -> Result<(), Error> {
        match self.acquire().await {
            Ok(header) => {
                self.header = header;
                Ok(())
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = self.unlock().await;
                Err(error)
            }
        }
    }

    async fn acquire(&mut self) -> Result<Option<pb::ResponseHeader>, Error> {
        let client = self.session.client();
        let owner = op(Request::RequestRange(first_created(&self.prefix)));
        let txn = pb::TxnRequest {
            compare: vec![created_at(&self.key, 0)],
            success: vec![op(put(&self.key, Bytes::new(), self.session.lease())), owner.clone()],
            // This session's own key of an earlier call.
            failure: vec![op(Request::RequestRange(get(&self.key))), owner],
        };
        self.is_queued = true;
        let answer = client.kv().txn(txn, Deadline::NEVER).await?;
        let mine = match answer.succeeded {
            true => revision(answer.header.as_ref()),
            false => read_in(&answer, 0)?.map_or(0, |kv| kv.create_revision),
        };
        if read_in(&answer, 1)?.is_none_or(|owner| owner.create_revision == mine) {
            return Ok(answer.header);
        }
        wait_deletes(client, &self.prefix, mine - 1).await?;
        // Our key may have gone meanwhile, with its lease.
        let answer = client.kv().range(get(&self.key), Deadline::NEVER).await?;
        if answer.kvs.is_empty() {
            self.is_queued = false;
            return Err(Error::client("mutex: session is expired"));
        }
        Ok(answer.header)
    }

    /// Gives the lock, or our place in the queue, back.
    ///
    /// # Errors
    /// It was not taken (`mutex: lock has already been released`), or the server could not be told.
    pub async fn unlock(&mut self) -> Result<(), Error> {
        if !self.is_queued {
            return Err(Error::client("mutex: lock has already been released"));
        }
        let request = pb::DeleteRangeRequest { key: self.key.clone(), ..Default::default() };
        self.session.client().kv().delete_range(request, Deadline::NEVER).await?;
        self.is_queued = false;
        Ok(())
    }

    /// The key that holds the lock while it exists.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Header of the answer by which the lock was won.
    #[must_use]
    pub fn header(&self) -> Option<&pb::ResponseHeader> {
        self.header.as_ref()
    }
}
