//! Walks over a client's HTTP/2 frames (RFC 9113, section 4) and holds header blocks back until they have been mended.
//!
//! ```text
//!  bytes:  │ may go on (passed)        │ held: half a frame header, or a block without its end │
//!          └ taken by `take`           └ `Block::end`: where the block's next frame begins ────┘
//! ```
//! Whatever is against the rules goes on as it came: judging is h2's part.

use std::ops::Range;

use bytes::{Buf, BytesMut};

use super::hpack::{self, Verdict};

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length (3), type, flags, stream (4).
const HEAD_BYTES: usize = 9;
/// A block that is longer with all its frames goes on unread. The authority stands among a block's first fields, and
/// the longest frame that we accept is 16 KiB.
const BLOCK_BYTES_MAX: usize = 64 * 1024;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes of the priority that may stand before a fragment.
const PRIORITY_BYTES: usize = 5;

/// The start of a client's connection on its way to h2.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: BytesMut,
    /// Bytes at the front that may go on.
    passed: usize,
    /// Bytes to come that go on as they are: the rest of a frame.
    skip: usize,
    has_greeted: bool,
    block: Option<Block>,
    /// Everything goes on from here.
    is_done: bool,
}

/// A header block of which some frames are still to come. Positions count from the first byte that is held.
#[derive(Debug)]
struct Block {
    stream: [u8; 4],
    fragments: Vec<Range<usize>>,
    end: usize,
}

/// The first bytes of a frame.
struct Head {
    payload: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Frames {
    /// Takes what came from the client.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        while !self.is_done && self.step() {}
        if self.is_done {
            self.passed = self.bytes.len();
        }
    }

    /// What may go on; the caller says with [`Frames::consume`] what it took.
    pub fn ready(&self) -> &[u8] {
        &self.bytes[..self.passed]
    }

    /// Forgets the first `count` bytes of [`Frames::ready`].
    pub fn consume(&mut self, count: usize) {
        self.passed -= count;
        self.bytes.advance(count);
    }

    /// Lets everything go on from here, what is held included.
    pub fn finish(&mut self) {
        self.is_done = true;
        self.passed = self.bytes.len();
    }

    /// Nothing to look at any more. What is ready must still go on.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Lets one thing pass; `false` if more bytes are needed to tell.
    fn step(&mut self) -> bool {
        let held = &self.bytes[self.passed..];
        if self.skip > 0 {
            let count = self.skip.min(held.len());
            self.passed += count;
            self.skip -= count;
            return count > 0;
        }
        if !self.has_greeted {
            return self.greet();
        }
        let start = self.block.as_ref().map_or(0, |block| block.end);
        let Some(head) = Head::read(&held[start..]) else { return false };
        let end = start + HEAD_BYTES + head.payload;
        let belongs = match &self.block {
            None => head.kind == HEADERS,
            Some(block) => head.kind == CONTINUATION && head.stream == block.stream,
        };
        if !belongs || end > BLOCK_BYTES_MAX {
            self.block = None;
            self.skip = end;
            return true;
        }
        if held.len() < end {
            return false;
        }
        let fragment = head.fragment(&held[start + HEAD_BYTES..end], start + HEAD_BYTES);
        let block = self.block.get_or_insert_with(|| Block { stream: head.stream, fragments: Vec::new(), end: 0 });
        block.fragments.extend(fragment);
        block.end = end;
        if head.flags & END_HEADERS != 0 {
            self.close_block();
        }
        true
    }

    fn greet(&mut self) -> bool {
        let count = self.bytes.len().min(PREFACE.len());
        self.is_done = self.bytes[..count] != PREFACE[..count];
        self.has_greeted = count == PREFACE.len();
        if self.has_greeted {
            self.passed = count;
        }
        self.has_greeted
    }

    /// Mends the block whose last frame has come, and lets it pass.
    fn close_block(&mut self) {
        let Some(block) = self.block.take() else { return };
        let held = &mut self.bytes[self.passed..];
        let mut joined = Vec::with_capacity(block.end);
        block.fragments.iter().for_each(|fragment| joined.extend_from_slice(&held[fragment.clone()]));
        match hpack::mend(&mut joined) {
            Verdict::Silent => {}
            Verdict::Legal => self.is_done = true,
            Verdict::Mended => {
                let mut rest = &joined[..];
                for fragment in block.fragments {
                    let (bytes, after) = rest.split_at(fragment.len());
                    held[fragment].copy_from_slice(bytes);
                    rest = after;
                }
            }
        }
        self.passed += block.end;
    }
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = *bytes.first_chunk::<HEAD_BYTES>()?;
        let payload = u32::from_be_bytes([0, a, b, c]) as usize;
        Some(Self { payload, kind, flags, stream })
    }

    /// Where in the connection's held bytes the fragment of a block lies, if `payload` begins at `at`; `None` if the
    /// padding is longer than the frame.
    fn fragment(&self, payload: &[u8], at: usize) -> Option<Range<usize>> {
        let (mut front, mut back) = (0, 0);
        if self.kind == HEADERS && self.flags & PADDED != 0 {
            (front, back) = (1, usize::from(*payload.first()?));
        }
        if self.kind == HEADERS && self.flags & PRIORITY != 0 {
            front += PRIORITY_BYTES;
        }
        (front + back <= payload.len()).then(|| at + front..at + payload.len() - back)
    }
}
