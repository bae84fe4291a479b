//! Bounds for clients that misbehave below the calls. docs/operations.md lists them.
//!
//! ```text
//!  socket ◄──► Guarded ◄──► Mended ◄──► hyper (h2)
//!                │ heads of frames, both ways
//!                └─► Rules: too many pings, settings, resets, empty frames ─► GOAWAY ENHANCE_YOUR_CALM, then the end
//! ```
//! hyper and h2 have bounds of their own (headers, CONTINUATION, streams reset before they were looked at). None of them
//! counts pings, and gRPC's clients expect to be told about those in grpc-go's words.
//!
//! What is written waits for the end of a turn here as well, see `gather.rs`: whoever stands at the socket sees it last.

mod debt;
mod gather;
mod rules;
mod walk;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

pub(crate) use debt::Debt;
use gather::Gather;
use rules::{Rules, Verdict};
use walk::Walk;

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u8 = 0xb;
/// How long a client that is sent away may take to hear it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes that are read before those have a turn who take in what was read. h2 keeps each frame until then, in a place
/// that never shrinks and has eight times the size of a small frame: a burst of a thousand would cost its connection 300 KB
/// for good. Requests of ten clients at once are less than this.
const BURST_BYTES: usize = 4 * 1024;

/// A client's socket, with bounds.
pub(crate) struct Guarded<I> {
    io: I,
    /// Of HTTP/2.
    gather: Gather,
    /// Bytes read since the last turn of others.
    burst: usize,
    debt: Arc<Debt>,
    stage: Stage,
    /// What we send, unless it is HTTP/1.
    outbound: Walk,
}

/// What is known of the client.
enum Stage {
    /// Its first bytes: so many of the preface have come, and the rest must come before the time is over.
    Greeting { matched: usize, patience: Pin<Box<Sleep>>, ping_distance: Option<Duration> },
    /// It speaks HTTP/1, whose bounds are hyper's.
    Http1,
    /// It speaks HTTP/2.
    Http2 { inbound: Walk, rules: Box<Rules> },
    /// It is sent away: the rest of a frame of ours, then a GOAWAY, and it has until the time is over to leave.
    Leaving { farewell: Vec<u8>, said: usize, patience: Pin<Box<Sleep>> },
}

impl<I> Guarded<I> {
    /// `io` must be at its first byte. What is written is paid to `debt`.
    ///
    /// The first bytes must come within `greeting`. Pings must be `ping_distance` apart; `None`: a flood is cut off.
    pub(crate) fn new(io: I, greeting: Duration, ping_distance: Option<Duration>, debt: Arc<Debt>) -> Self {
        let patience = Box::pin(tokio::time::sleep(greeting));
        let stage = Stage::Greeting { matched: 0, patience, ping_distance };
        Self { io, gather: Gather::default(), burst: 0, debt, stage, outbound: Walk::default() }
    }

    /// The client sent `bytes`.
    fn received(&mut self, bytes: &[u8]) -> Option<Verdict> {
        let mut rest = bytes;
        if let Stage::Greeting { matched, ping_distance, .. } = &mut self.stage {
            let count = (PREFACE.len() - *matched).min(rest.len());
            if rest[..count] != PREFACE[*matched..*matched + count] {
                self.stage = Stage::Http1;
                return None;
            }
            *matched += count;
            rest = &rest[count..];
            // One frame must follow for a greeting.
            if rest.is_empty() {
                return None;
            }
            self.stage = Stage::Http2 { inbound: Walk::default(), rules: Box::new(Rules::new(*ping_distance)) };
        }
        let Stage::Http2 { inbound, rules, .. } = &mut self.stage else { return None };
        let mut verdict = None;
        inbound.feed(rest, |head| verdict = verdict.or_else(|| rules.received(head)));
        verdict
    }

    fn send_away(&mut self, verdict: Verdict) {
        let [.., a, b, c] = (8 + verdict.len()).to_be_bytes();
        // The last stream that we looked at: all of them. Source: RFC 9113, section 6.8.
        let head = [a, b, c, GOAWAY, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, ENHANCE_YOUR_CALM];
        let farewell = [&head[..], verdict.as_bytes()].concat();
        let patience = Box::pin(tokio::time::sleep(FAREWELL));
        self.stage = Stage::Leaving { farewell, said: 0, patience };
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Guarded<I> {
    /// Says farewell and waits for the client to leave; the error that ends the connection.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Stage::Leaving { farewell, said, patience } = &mut self.stage else { return Poll::Pending };
        let gone = || Poll::Ready(io::Error::from(io::ErrorKind::ConnectionAborted));
        if patience.as_mut().poll(cx).is_ready() {
            return gone();
        }
        if self.outbound.missing() > 0 {
            return Poll::Pending;
        }
        if ready!(self.gather.poll_drain(&mut self.io, cx)).is_err() {
            return gone();
        }
        while *said < farewell.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &farewell[*said..])) {
                Ok(count) if count > 0 => *said += count,
                _ => return gone(),
            }
        }
        // Closing with bytes unread would take the farewell back.
        if ready!(Pin::new(&mut self.io).poll_shutdown(cx)).is_err() {
            return gone();
        }
        let mut bin = [0; 4096];
        loop {
            let mut bin = ReadBuf::new(&mut bin);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut bin)) {
                Ok(()) if !bin.filled().is_empty() => {}
                _ => return gone(),
            }
        }
    }

    /// Counts what was written of `slices`.
    fn wrote(&mut self, slices: &[IoSlice<'_>], count: usize) {
        self.debt.pay(count);
        let mut left = count;
        for slice in slices {
            let part = left.min(slice.len());
            left -= part;
            match &mut self.stage {
                Stage::Http1 => return,
                Stage::Http2 { rules, .. } => self.outbound.feed(&slice[..part], |head| rules.sent(head)),
                Stage::Greeting { .. } | Stage::Leaving { .. } => self.outbound.feed(&slice[..part], |_| ()),
            }
        }
    }

    /// To a client that is sent away: the rest of the frame under way, and nothing else.
    fn poll_finish(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let missing = self.outbound.missing();
        if missing == 0 {
            return self.poll_leave(cx).map(Err);
        }
        let Some(slice) = slices.iter().find(|slice| !slice.is_empty()) else { return Poll::Ready(Ok(0)) };
        let bytes = &slice[..slice.len().min(missing)];
        ready!(self.gather.poll_drain(&mut self.io, cx))?;
        let count = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.wrote(&[IoSlice::new(bytes)], count);
        Poll::Ready(Ok(count))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Stage::Leaving { .. } = this.stage {
            return this.poll_leave(cx).map(Err);
        }
        if let Stage::Greeting { patience, .. } = &mut this.stage
            && patience.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if this.burst >= BURST_BYTES {
            this.burst = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = out.filled().len();
        if matches!(this.stage, Stage::Http1) {
            return Pin::new(&mut this.io).poll_read(cx, out);
        }
        let room = (BURST_BYTES - this.burst).min(out.remaining());
        let mut part = ReadBuf::new(out.initialize_unfilled_to(room));
        let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, &mut part) else {
            this.burst = 0;
            return Poll::Pending;
        };
        read?;
        let count = part.filled().len();
        out.advance(count);
        this.burst += count;
        match this.received(&out.filled()[before..]) {
            None => Poll::Ready(Ok(())),
            Some(verdict) => {
                out.set_filled(before);
                this.send_away(verdict);
                this.poll_leave(cx).map(Err)
            }
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Stage::Leaving { .. } = this.stage {
            return this.poll_finish(cx, slices);
        }
        let count = ready!(match this.stage {
            Stage::Http2 { .. } => this.gather.poll_write(&mut this.io, cx, slices),
            _ => Pin::new(&mut this.io).poll_write_vectored(cx, slices),
        })?;
        this.wrote(slices, count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.gather.poll_flush(&mut this.io, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.gather.poll_drain(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
