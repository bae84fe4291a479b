//! The Watch service: requests go to the hub, its frames come back as they are.
//!
//! The stream reads the next request only after everything that the hub has for it was handed on, so a client that asks
//! without reading holds a bounded amount of memory.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use milepost_mvcc::watch::{CreateRequest, Frame, Stream, StreamOptions};
use milepost_proto::etcdserverpb as pb;
use milepost_proto::etcdserverpb::watch_request::RequestUnion;

use crate::door::Door;
use crate::grpc::{Inlet, Stage};
use crate::status::{self, Status};

/// Replies to requests that the hub may owe before more requests are read.
const WAITING_MAX: usize = 1024;

/// Frames' worth of memory that a stream keeps while it waits: there may be many thousand idle ones, and each may have
/// been asked for a thousand watchers at once.
const FRAMES_KEPT: usize = 4;

/// What a stream waits for.
enum Happening {
    Request(pb::WatchRequest),
    /// The client has half-closed; watchers stay.
    NoMoreRequests,
    Broken(Status),
    Frames,
    Tick,
}

/// One watch stream.
pub(crate) async fn watch(stage: Stage, requests: Inlet<pb::WatchRequest>) -> Status {
    let door = &stage.door;
    let (sink, ticket) = (door.sink.clone(), stage.ticket);
    let options = StreamOptions { max_response_bytes: door.config.limits.max_receive_bytes() };
    let stream = door.backend.hub().open_stream(Arc::new(move || sink.ready(ticket)), options);
    let mut session = Session { stream, requests: Some(requests), frames: Vec::new(), tick: None };
    loop {
        match std::future::poll_fn(|cx| session.poll(cx)).await {
            Happening::Frames => {
                let Some(header) = door.header(0) else { continue };
                let started = Instant::now();
                let (mut with_events, mut events, mut without) = (0, 0, 0);
                for frame in &session.frames {
                    match frame.event_count {
                        0 => without += 1,
                        count => (with_events, events) = (with_events + 1, events + u64::from(count)),
                    }
                }
                if let Err(status) = stage.outlet.send_frames(&header, &session.frames) {
                    return status;
                }
                session.frames.clear();
                session.frames.shrink_to(FRAMES_KEPT);
                door.metrics.watch_sends.sent(started.elapsed(), with_events, events, without);
                stage.outlet.drained().await;
            }
            Happening::Request(request) => session.take_in(door, request),
            Happening::NoMoreRequests => session.requests = None,
            Happening::Tick => {
                let started = Instant::now();
                session.stream.progress_tick();
                door.metrics.watch_sends.progress.observe(started.elapsed());
                session.tick = Some(timer(door));
            }
            Happening::Broken(status) => return status,
        }
        if session.stream.is_ended() && session.stream.waiting() == 0 {
            return status::STOPPED;
        }
    }
}

struct Session {
    stream: Stream,
    /// Gone after the client has half-closed.
    requests: Option<Inlet<pb::WatchRequest>>,
    /// Taken and to be sent.
    frames: Vec<Frame>,
    /// Set once a watcher wants progress.
    tick: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Session {
    /// What happens next. Whoever wakes the stream need not say why: everything is looked at.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        self.stream.take(&mut self.frames);
        if !self.frames.is_empty() || self.stream.is_ended() {
            return Poll::Ready(Happening::Frames);
        }
        if let Some(tick) = &mut self.tick
            && tick.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Happening::Tick);
        }
        if self.stream.waiting() < WAITING_MAX
            && let Some(requests) = &mut self.requests
            && let Poll::Ready(next) = requests.poll_next(cx)
        {
            return Poll::Ready(match next {
                Some(Ok(request)) => Happening::Request(request),
                Some(Err(status)) => Happening::Broken(status),
                None => Happening::NoMoreRequests,
            });
        }
        Poll::Pending
    }

    fn take_in(&mut self, door: &Door, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                if create.progress_notify && self.tick.is_none() {
                    self.tick = Some(timer(door));
                }
                self.stream.create(CreateRequest::from(create));
            }
            Some(RequestUnion::CancelRequest(cancel)) => self.stream.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.stream.progress_request(),
            // A request that we do not know gets no reply, as in etcd.
            None => {}
        }
    }
}

/// The interval and up to a tenth of it, so that streams opened together do not tick together. Source: etcd
/// `GetProgressReportInterval`.
fn timer(door: &Door) -> Pin<Box<tokio::time::Sleep>> {
    let interval = door.config.limits.watch_progress_interval;
    // Request ids differ from member to member and from call to call: chance enough.
    let tenth = u64::try_from(interval.as_millis() / 10).unwrap_or(u64::MAX).max(1);
    let spread = door.backend.next_request_id().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    Box::pin(tokio::time::sleep(interval + Duration::from_millis(spread % tenth)))
}
