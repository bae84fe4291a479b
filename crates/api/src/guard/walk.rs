//! Where HTTP/2 frames begin and end in a stream of bytes (RFC 9113, section 4.1).

/// Length (3), type, flags, stream (4).
const HEAD_BYTES: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;

/// ACK of SETTINGS and PING.
pub(super) const ACK: u8 = 1;
/// END_STREAM of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 1;

/// What a frame's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) payload: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

/// A position in a stream of frames.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The head that has come in part.
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Bytes of a payload still to come.
    payload: usize,
}

impl Walk {
    /// Goes over `bytes` and names each head that is complete with them.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut on_head: impl FnMut(Head)) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let count = self.payload.min(bytes.len());
                self.payload -= count;
                bytes = &bytes[count..];
                continue;
            }
            let count = (HEAD_BYTES - self.have).min(bytes.len());
            self.head[self.have..self.have + count].copy_from_slice(&bytes[..count]);
            self.have += count;
            bytes = &bytes[count..];
            if self.have == HEAD_BYTES {
                self.have = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.head;
                self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                on_head(Head { payload: self.payload, kind, flags, stream });
            }
        }
    }

    /// Bytes that are missing to the end of the frame under way, as far as that is known; 0 between two frames.
    pub(super) fn missing(&self) -> usize {
        if self.payload > 0 || self.have == 0 { self.payload } else { HEAD_BYTES - self.have }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let bytes =
            [&[0, 0, 2, DATA, END_STREAM, 0x80, 0, 0, 3, 7, 7][..], &[0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]].concat();
        let heads = [
            Head { payload: 2, kind: DATA, flags: END_STREAM, stream: 3 },
            Head { payload: 0, kind: SETTINGS, flags: ACK, stream: 0 },
        ];
        for size in 1..=bytes.len() {
            let (mut walk, mut found) = (Walk::default(), Vec::new());
            bytes.chunks(size).for_each(|chunk| walk.feed(chunk, |head| found.push(head)));
            assert_eq!((found.as_slice(), walk.missing()), (&heads[..], 0), "{size}");
        }
        let mut walk = Walk::default();
        walk.feed(&bytes[..4], |_| ());
        assert_eq!(walk.missing(), 5);
        walk.feed(&bytes[4..10], |_| ());
        assert_eq!(walk.missing(), 1);
    }
}
