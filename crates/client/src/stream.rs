//! A call of many messages.

use std::marker::PhantomData;

use milepost_proto::Message;

use crate::client;
use crate::connection::{self, Exchange, Failure};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::wire;

/// A call under way, whose answers are `A`s. Dropping it ends the call.
pub struct Stream<A> {
    exchange: Exchange,
    deadline: Deadline,
    send_limit: usize,
    answers: PhantomData<fn() -> A>,
}

impl<A: Message + Default> Stream<A> {
    pub(crate) fn new(exchange: Exchange, deadline: Deadline, send_limit: usize) -> Stream<A> {
        Stream { exchange, deadline, send_limit, answers: PhantomData }
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

    /// Sends one more request.
    ///
    /// # Errors
    /// The stream has ended, or the message is above the limit.
    pub(crate) fn send(&mut self, request: &impl Message) -> Result<(), Error> {
        let framed = wire::frame(request, self.send_limit)?;
        self.exchange.send(framed)
    }
}
