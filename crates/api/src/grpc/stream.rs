//! What every call, long or short, counts about itself; and what streams have in common.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::Method;
use crate::call::Call;
use crate::completions::StreamWake;
use crate::door::Door;
use crate::status::{self, Code, Status};

/// Counts one call; one that is dropped before its end was cancelled by the client.
pub(crate) struct Accounting {
    door: Rc<Door>,
    method: Method,
    started: Instant,
    is_open: bool,
}

impl Accounting {
    /// A call of `method` begins.
    pub(crate) fn start(door: &Rc<Door>, method: Method, started: Instant) -> Self {
        door.metrics.of(method).started.add(1);
        Self { door: Rc::clone(door), method, started, is_open: true }
    }

    /// The call ends with `code`.
    pub(crate) fn finish(&mut self, code: Code) -> std::time::Duration {
        let took = self.started.elapsed();
        if std::mem::take(&mut self.is_open) {
            self.door.metrics.handled(self.method, code, took);
        }
        took
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        self.finish(Code::Canceled);
    }
}

/// The part that all long streams share: what counts them, wakes them and ends them.
pub(crate) struct StreamBase {
    pub(crate) door: Rc<Door>,
    pub(crate) call: Call,
    pub(crate) method: Method,
    pub(crate) wake: StreamWake,
    accounting: Accounting,
    deadline: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl StreamBase {
    pub(crate) fn new(door: &Rc<Door>, call: Call, method: Method, accounting: Accounting) -> Self {
        let deadline = call.deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        Self { door: Rc::clone(door), wake: door.slots.open_stream(), call, method, accounting, deadline }
    }

    /// Why the stream ends now, if it does. Also arranges to be woken when that changes.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<Status> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Some(status::DEADLINE);
        }
        // A wake may be for this or for the stream's own business: whoever polls looks at both.
        while let Poll::Ready(()) = self.wake.poll(cx) {}
        self.door.stream_end(&self.call)
    }

    /// The stream ends with `status`.
    pub(crate) fn end(&mut self, status: Status) -> Status {
        self.accounting.finish(status.code);
        status
    }
}
