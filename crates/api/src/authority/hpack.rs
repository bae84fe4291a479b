//! Finds `:authority` in a header block (RFC 7541) and makes a legal value of an illegal one, byte for byte.
//!
//! Every byte that is exchanged has a twin whose Huffman code is as long; where twins do not help, the whole value is
//! exchanged for one of as many bits. So a mended block has the length of the original, encoded and decoded: no frame
//! has to be rebuilt, and both ends evict their tables at the same time.

use std::ops::Range;

use http::uri::Authority;

use super::huffman;

/// Index of `:authority` without a value in the static table.
const AUTHORITY: usize = 1;
/// The one-byte field that refers to it.
const INDEXED_AUTHORITY: u8 = 0x80 | 1;
/// The one-byte field `accept-encoding: gzip, deflate`, which tells a gRPC server nothing.
const INDEXED_HARMLESS: u8 = 0x80 | 16;
/// Method, scheme and path.
const OTHER_PSEUDO_HEADERS: usize = 3;
/// Bytes of an integer beyond its prefix. h2 takes no longer ones, and no string of a block is longer.
const INTEGER_BYTES_MAX: u32 = 4;

/// What a block says about the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, or something that we do not understand; left as it is.
    Silent,
    /// It spells a legal value.
    Legal,
    /// It spelled an illegal value, and a legal one now.
    Mended,
}

/// Looks at one whole header block.
pub fn mend(block: &mut [u8]) -> Verdict {
    match authority(block) {
        None => Verdict::Silent,
        Some(Found::Spelled(Text { range, is_huffman: true })) => mend_coded(&mut block[range]),
        Some(Found::Spelled(Text { range, .. })) => mend_plain(&mut block[range]),
        Some(Found::Empty(at)) => {
            block[at] = INDEXED_HARMLESS;
            Verdict::Mended
        }
    }
}

fn mend_plain(value: &mut [u8]) -> Verdict {
    if is_legal(value) {
        return Verdict::Legal;
    }
    let mended: Vec<u8> = value.iter().copied().map(twin).collect();
    match is_legal(&mended) {
        true => value.copy_from_slice(&mended),
        // Raw, every character is as long as every other.
        false if !value.is_empty() => value.fill(b'a'),
        false => return Verdict::Silent,
    }
    Verdict::Mended
}

fn mend_coded(value: &mut [u8]) -> Verdict {
    let Some(plain) = huffman::decode(value) else { return Verdict::Silent };
    if is_legal(&plain) {
        return Verdict::Legal;
    }
    let twins: Vec<u8> = plain.iter().copied().map(twin).collect();
    let mended = if is_legal(&twins) { Some(twins) } else { huffman::harmless(&plain) };
    match mended.filter(|mended| is_legal(mended)) {
        None => Verdict::Silent,
        Some(mended) => {
            huffman::replace_all(value, &mended);
            Verdict::Mended
        }
    }
}

/// As h2 will see it.
fn is_legal(value: &[u8]) -> bool {
    Authority::try_from(value).is_ok()
}

/// A byte that may stand anywhere in an authority, in place of one that may not stand everywhere. Its Huffman code is
/// as long.
fn twin(byte: u8) -> u8 {
    match byte {
        b'/' | b'%' => b'.',
        b':' => b'z',
        b'?' => b'!',
        b'[' | b']' | b'@' => b'~',
        other => other,
    }
}

/// How a block speaks of the authority.
enum Found {
    /// It spells the value.
    Spelled(Text),
    /// At this byte it says that there is none, behind all other pseudo headers.
    Empty(usize),
}

/// A string of a block, as it is encoded.
struct Text {
    range: Range<usize>,
    is_huffman: bool,
}

/// The first mention of `:authority`.
///
/// A name that refers to an entry of the dynamic table is not followed: encoders take the static one, which is never
/// longer.
fn authority(block: &[u8]) -> Option<Found> {
    let mut fields = Fields { block, at: 0 };
    let mut before = 0;
    loop {
        match *block.get(fields.at)? {
            // Behind the other pseudo headers any field may stand in its place; before one of them, none.
            INDEXED_AUTHORITY if before == OTHER_PSEUDO_HEADERS => return Some(Found::Empty(fields.at)),
            // An indexed field: name and value stand in a table.
            0x80.. => {
                before += 1;
                fields.integer(7)?;
            }
            // A new size of the dynamic table.
            0x20..0x40 => {
                fields.integer(5)?;
            }
            first => {
                let name = fields.integer(if first & 0x40 == 0 { 4 } else { 6 })?;
                let is_authority = match name {
                    0 => spells_authority(block, &fields.text()?),
                    name => name == AUTHORITY,
                };
                let value = fields.text()?;
                if is_authority {
                    return Some(Found::Spelled(value));
                }
                before += 1;
            }
        }
    }
}

fn spells_authority(block: &[u8], name: &Text) -> bool {
    let bytes = &block[name.range.clone()];
    let expected = b":authority";
    if name.is_huffman { huffman::decode(bytes).is_some_and(|name| name == expected) } else { bytes == expected }
}

/// Walks over a block; `None` wherever it ends too early.
struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.block.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// An integer that begins in the low `prefix` bits of the next byte (RFC 7541, 5.1).
    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let mask = (1 << prefix) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Some(value);
        }
        for nth in 0..INTEGER_BYTES_MAX {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << (7 * nth);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A string (RFC 7541, 5.2).
    fn text(&mut self) -> Option<Text> {
        let is_huffman = self.block.get(self.at)? & 0x80 != 0;
        let length = self.integer(7)?;
        let start = self.at;
        self.at = start + length;
        (self.at <= self.block.len()).then_some(Text { range: start..self.at, is_huffman })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://127.0.0.1:2379";
    const TWIN: &str = "httpz..127.0.0.1z2379";

    /// `:authority` by static index with `first` as the kind of literal, value raw.
    fn raw(first: u8, value: &str) -> Vec<u8> {
        [&[first, value.len() as u8], value.as_bytes()].concat()
    }

    fn coded(first: u8, value: &str) -> Vec<u8> {
        let value = huffman::encode(value);
        [&[first, 0x80 | value.len() as u8], &value[..]].concat()
    }

    fn check(block: &[u8], verdict: Verdict, after: &[u8]) {
        let mut mended = block.to_vec();
        assert_eq!(mend(&mut mended), verdict, "{block:x?}");
        assert_eq!(mended, after, "{block:x?}");
    }

    fn check_untouched(block: &[u8], verdict: Verdict) {
        check(block, verdict, block);
    }

    #[test]
    fn an_authority_that_no_host_has_is_not_worked_on() {
        // Each such character looks through all others: 64 KiB of them would hold up everybody on this core.
        assert!(huffman::harmless(&[b'<'; 64 * 1024]).is_none());
        assert!(huffman::harmless(b"http").is_some());
    }

    #[test]
    fn twins_are_as_long_and_harmless() {
        for byte in b' '..0x7f {
            let twin = twin(byte);
            if twin != byte {
                assert_eq!(huffman::length(byte), huffman::length(twin), "{byte}");
                assert!(is_legal(&[twin, twin]) && is_legal(&[b'a', twin, b'a']), "{twin}");
            }
        }
    }

    #[test]
    fn every_kind_of_literal() {
        // With indexing, without, never; the name by index.
        for first in [0x41, 0x01, 0x11] {
            check(&raw(first, URL), Verdict::Mended, &raw(first, TWIN));
            check(&coded(first, URL), Verdict::Mended, &coded(first, TWIN));
            check_untouched(&raw(first, "127.0.0.1:2379"), Verdict::Legal);
            check_untouched(&coded(first, "[::1]:2379"), Verdict::Legal);
        }
        // The name spelled out.
        for first in [0x40, 0x00, 0x10] {
            let name = huffman::encode(":authority");
            let name = [&[first, 0x80 | name.len() as u8], &name[..]].concat();
            check(&[&name[..], &raw(0, URL)[1..]].concat(), Verdict::Mended, &[&name[..], &raw(0, TWIN)[1..]].concat());
            let name = [&[first, 10], &b":authority"[..]].concat();
            check(
                &[&name[..], &coded(0, URL)[1..]].concat(),
                Verdict::Mended,
                &[&name[..], &coded(0, TWIN)[1..]].concat(),
            );
        }
    }

    #[test]
    fn other_fields_are_stepped_over() {
        // Two new table sizes, POST, http, a long index, a literal with a long value, a literal with a spelled name.
        let mut before = vec![0x20, 0x3f, 0xe1, 0x1f, 0x83, 0x86, 0xff, 0x10, 0x44, 0x7f, 0x49];
        before.extend([b'/'; 200]);
        before.extend(b"\x10\x02te\x08trailers");
        let after = b"\x40\x01a\x03://\x83";
        check(
            &[&before[..], &coded(0x41, URL), after].concat(),
            Verdict::Mended,
            &[&before[..], &coded(0x41, TWIN), after].concat(),
        );
        check_untouched(&[&before[..], after].concat(), Verdict::Silent);
        // Indexed: the value stands in a table.
        check_untouched(&[0x83, 0x81, 0xbe], Verdict::Silent);
    }

    #[test]
    fn whatever_a_url_holds() {
        let urls = [
            ("https://[::1]:2379", "httpsz..~zz1~z2379"),
            ("unix:///run/etcd.sock", "unixz...run.etcd.sock"),
            ("unix://localhost:27989", "unixz..localhostz27989"),
            ("http://u:p@h:1/?a=%20", "httpz..uzp~hz1.!a=.20"),
            ("etcd-endpoints://0xc00015a000/a:1", "etcd-endpointsz..0xc00015a000.az1"),
            ("a:1,b:2", "az1,bz2"),
        ];
        for (url, legal) in urls {
            check(&raw(0x41, url), Verdict::Mended, &raw(0x41, legal));
            check(&coded(0x41, url), Verdict::Mended, &coded(0x41, legal));
        }
    }

    #[test]
    fn what_has_no_twin_is_exchanged_as_a_whole() {
        let odd = ["#initially=[http://127.0.0.1:2379]", "a#b", "http://a b", "{dns}`^", "x#>^"];
        for value in odd {
            check(&raw(0x41, value), Verdict::Mended, &raw(0x41, &"a".repeat(value.len())));
            let mut block = coded(0x41, value);
            let length = block.len();
            assert_eq!(mend(&mut block), Verdict::Mended, "{value}");
            let mended = huffman::decode(&block[2..]).unwrap();
            assert_eq!((block.len(), mended.len()), (length, value.len()), "{value}");
            assert!(is_legal(&mended), "{value} became {mended:?}");
        }
        check(&raw(0x41, "http://a\r\nb"), Verdict::Mended, &raw(0x41, &"a".repeat(11)));
    }

    #[test]
    fn no_authority_at_all() {
        let path = [&[0x44, 2][..], b"/a"].concat();
        let block = |authority| [&[0x20, 0x83, 0x86][..], &path, &[authority, 0x90]].concat();
        check(&block(0x81), Verdict::Mended, &block(0x90));
        check_untouched(&[0x83, 0x81, 0x86, 0x84], Verdict::Silent);
    }

    #[test]
    fn hopeless_values_and_broken_blocks_are_left() {
        check_untouched(&raw(0x41, ""), Verdict::Silent);
        check_untouched(&coded(0x41, "#"), Verdict::Silent);
        check_untouched(&[0x41, 0x82, 0xff, 0xff], Verdict::Silent);
        // An integer without end, and one that leads beyond the block.
        check_untouched(&[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Verdict::Silent);
        check_untouched(&[0x41, 0x7f, 0xff, 0xff, 0xff, 0x7f, 0x2f], Verdict::Silent);
        // Cut off anywhere.
        let whole = [&[0x20, 0x83][..], &coded(0x41, URL)].concat();
        (0..whole.len()).for_each(|length| check_untouched(&whole[..length], Verdict::Silent));
    }
}
