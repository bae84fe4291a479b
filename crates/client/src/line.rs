//! A stream that is opened when needed, and again after it broke.

use std::pin::Pin;
use std::time::Duration;

use milepost_proto::Message;

use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::method::Method;
use crate::stream::Stream;

/// Where a task's stream stands.
pub(crate) enum Line<A> {
    /// None is wanted.
    Idle,
    Opening(Opening<A>),
    Open(Stream<A>),
}

type Opening<A> = Pin<Box<dyn Future<Output = Result<Stream<A>, Error>> + Send>>;

/// What is heard of it.
pub(crate) enum Heard<A> {
    /// Its first request is on the way, and more can be sent.
    Opened,
    Answer(A),
    /// The stream is no more, or could not be opened; the line is idle.
    Ended(Error),
}

impl<A: Message + Default + 'static> Line<A> {
    /// Begins to open a stream after `wait`, `first` being its first request. A connection is awaited for as long as it
    /// takes.
    pub(crate) fn open<Q: Message + 'static>(
        &mut self,
        client: &Client,
        method: &'static Method,
        first: Q,
        require_leader: bool,
        wait: Duration,
    ) {
        let client = client.clone();
        *self = Line::Opening(Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            client.stream(method, &first, false, require_leader, Deadline::NEVER).await
        }));
    }

    /// Sends on an open stream; what is sent to a closed one is for who opens it to say again.
    pub(crate) fn send(&mut self, request: &impl Message) {
        if let Line::Open(stream) = self {
            // A stream that has broken says so when it is read.
            let _ = stream.send(request);
        }
    }

    /// Drives the line until something is heard; for ever while it is idle. Cancel-safe.
    pub(crate) async fn hear(&mut self) -> Heard<A> {
        if let Line::Opening(opening) = self {
            match opening.await {
                Ok(stream) => {
                    *self = Line::Open(stream);
                    return Heard::Opened;
                }
                Err(error) => return self.ended(error),
            }
        }
        let Line::Open(stream) = self else { return std::future::pending().await };
        match stream.next().await {
            Ok(Some(answer)) => Heard::Answer(answer),
            Ok(None) => self.ended(Error::unavailable("EOF")),
            Err(error) => self.ended(error),
        }
    }

    fn ended(&mut self, error: Error) -> Heard<A> {
        *self = Line::Idle;
        Heard::Ended(error)
    }
}
