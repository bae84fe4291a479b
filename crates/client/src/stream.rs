//! A call of many messages.

use std::marker::PhantomData;

use milepost_proto::Message;

use crate::client;
use crate::connection::{self, Exchange, Failure};
use crate::deadline::Deadline;
use crate::error::Error;

/// A call under way, whose answers are `A`s. Dropping it ends the call.
pub struct Stream<A> {
    exchange: Exchange,
    deadline: Deadline,
    answers: PhantomData<fn() -> A>,
}

impl<A: Message + Default> Stream<A> {
    pub(crate) fn new(exchange: Exchange, deadline: Deadline) -> Stream<A> {
        Stream { exchange, deadline, answers: PhantomData }
    }

    /// The next answer; `None` after a clean end. Cancel-safe.
    ///
    /// # Errors
    /// The server's status, a broken connection, or the deadline of the call.
    pub async fn next(&mut self) -> Result<Option<A>, Error> {
        let deadline = self.deadline;
        let next = async {
            connection::next_message(&mut self.exchange).await.map_err(|failure| match failure {
                Failure::NotSent(error) | Failure::Ended(error) => client::ended(error, deadline),
            })
        };
        deadline.bound(next).await
    }
}
