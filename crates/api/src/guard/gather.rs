//! Frames on their way to the socket, many in each system call.
//!
//! h2 writes each DATA frame of 256 bytes or more by itself, so that what it holds is not copied: a call for each answer of
//! that length. A call costs more than copying some kilobytes.
//!
//! ```text
//!   h2      frame, flush   frame, flush   frame, flush   …   flush       (the last one, with nothing before it, is meant)
//!   here       copied         copied         copied       ╰─ one call
//! ```

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Where so much waits it is written.
const ENOUGH_BYTES: usize = 32 * 1024;
/// A frame of so many bytes goes out from where it lies, with what waits before it: copying it gains nothing.
const LONG_BYTES: usize = 8 * 1024;
/// What h2 writes at once: the head of a frame and the rest.
const SLICES_MAX: usize = 4;

/// What is accepted and not yet written. Holds no memory when that is nothing.
#[derive(Default)]
pub(super) struct Gather {
    bytes: Vec<u8>,
    /// So many of them are written.
    written: usize,
    /// The next flush belongs to a single frame.
    is_passing: bool,
}

impl Gather {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Takes `slices`, or what the socket takes of them; how many bytes.
    pub fn poll_write(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = slices.iter().map(|slice| slice.len()).sum::<usize>();
        // A frame that h2 flushes by itself comes in two parts: from its buffer, and from where it lies.
        self.is_passing = slices.iter().filter(|slice| !slice.is_empty()).count() > 1;
        let is_enough = total >= LONG_BYTES || self.rest().len() + total >= ENOUGH_BYTES;
        if !is_enough && (self.is_passing || !self.rest().is_empty()) {
            slices.iter().for_each(|slice| self.bytes.extend_from_slice(slice));
            return Poll::Ready(Ok(total));
        }
        while !self.rest().is_empty() {
            let mut all = [IoSlice::new(&[]); 1 + SLICES_MAX];
            all[0] = IoSlice::new(&self.bytes[self.written..]);
            all[1..].iter_mut().zip(slices).for_each(|(place, slice)| *place = IoSlice::new(slice));
            let count = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &all))?;
            match count.checked_sub(self.rest().len()) {
                _ if count == 0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                None => self.written += count,
                Some(more) => {
                    self.clear();
                    if more > 0 {
                        return Poll::Ready(Ok(more));
                    }
                }
            }
        }
        Pin::new(io).poll_write_vectored(cx, slices)
    }

    /// A flush: whether all is written, unless it is one that is followed by more.
    pub fn poll_flush(&mut self, io: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.is_passing) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(io, cx))?;
        self.bytes = Vec::new();
        Pin::new(io).poll_flush(cx)
    }

    /// Writes all that is there.
    pub fn poll_drain(&mut self, io: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest().is_empty() {
            let count = ready!(Pin::new(&mut *io).poll_write(cx, self.rest()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes what it has room for.
    #[derive(Default)]
    struct Socket {
        taken: Vec<u8>,
        calls: usize,
        room: usize,
    }

    impl AsyncWrite for Socket {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            let mut all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            all.truncate(this.room);
            if all.is_empty() {
                return Poll::Pending;
            }
            this.calls += 1;
            this.room -= all.len();
            this.taken.extend_from_slice(&all);
            Poll::Ready(Ok(all.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// h2's half, without the frames' meaning.
    struct Writer {
        gather: Gather,
        socket: Socket,
        sent: Vec<u8>,
    }

    impl Writer {
        fn new(room: usize) -> Self {
            Self { gather: Gather::default(), socket: Socket { room, ..Socket::default() }, sent: Vec::new() }
        }

        /// Writes `head` and `rest` until all is accepted; false: the socket is full.
        fn write(&mut self, head: &[u8], rest: &[u8]) -> bool {
            self.sent.extend([head, rest].concat());
            let mut cx = Context::from_waker(Waker::noop());
            let mut left = [head, rest];
            while left.iter().any(|slice| !slice.is_empty()) {
                let slices = left.map(IoSlice::new);
                let Poll::Ready(count) = self.gather.poll_write(&mut self.socket, &mut cx, &slices) else {
                    let refused: usize = left.iter().map(|slice| slice.len()).sum();
                    self.sent.truncate(self.sent.len() - refused);
                    return false;
                };
                let mut count = count.unwrap();
                for slice in &mut left {
                    let part = count.min(slice.len());
                    *slice = &slice[part..];
                    count -= part;
                }
            }
            true
        }

        fn flush(&mut self) -> bool {
            let mut cx = Context::from_waker(Waker::noop());
            self.gather.poll_flush(&mut self.socket, &mut cx).map(Result::unwrap).is_ready()
        }
    }

    #[test]
    fn frames_that_are_flushed_one_by_one_go_out_together() {
        let mut writer = Writer::new(usize::MAX);
        for n in 0..20 {
            assert!(writer.write(&[n; 9], &[n; 300]));
            assert!(writer.flush());
        }
        assert!(writer.write(b"trailers", b""));
        assert_eq!(writer.socket.calls, 0);
        assert!(writer.flush());
        assert!(writer.socket.taken == writer.sent);
        assert_eq!((writer.socket.calls, writer.gather.bytes.capacity()), (1, 0));
    }

    #[test]
    fn what_is_flushed_with_nothing_more_to_come_is_written() {
        let mut writer = Writer::new(usize::MAX);
        // The last frame of a turn is one of its own.
        assert!(writer.write(&[1; 9], &[2; 300]) && writer.flush() && writer.flush());
        assert_eq!(writer.socket.calls, 1);
        // So is the only one.
        assert!(writer.write(b"small", b"") && writer.flush());
        assert_eq!(writer.socket.calls, 2);
        assert!(writer.socket.taken == writer.sent);
    }

    #[test]
    fn much_is_not_kept_waiting() {
        let mut writer = Writer::new(usize::MAX);
        for n in 0..100 {
            assert!(writer.write(&[n; 9], &[n; 1000]) && writer.flush());
        }
        assert!((2..=5).contains(&writer.socket.calls), "{}", writer.socket.calls);
        assert!(writer.sent.len() - writer.socket.taken.len() < ENOUGH_BYTES);
        let calls = writer.socket.calls;
        assert!(writer.write(&[0; 9], &[0; LONG_BYTES]));
        assert_eq!(writer.socket.calls, calls + 1, "with what waited");
        assert!(writer.socket.taken == writer.sent);
    }

    #[test]
    fn a_socket_that_takes_little_gets_all_in_order() {
        for room in 1..200 {
            let mut writer = Writer::new(0);
            let mut n = 0u8;
            let mut refused = 0;
            while writer.sent.len() < 100_000 {
                n = n.wrapping_add(1);
                let rest = vec![n; [300, 40, 9000, 0, 16_384][usize::from(n) % 5]];
                if !(writer.write(&[n; 9], &rest) && writer.flush()) {
                    refused += 1;
                    writer.socket.room = room * 97;
                }
                assert!(writer.gather.rest().len() < ENOUGH_BYTES);
            }
            writer.socket.room = usize::MAX;
            // One may belong to the last frame.
            assert!(writer.flush() && writer.flush());
            assert!(refused > 0, "it was never full");
            assert!(writer.socket.taken == writer.sent, "room for {}", room * 97);
        }
    }
}
