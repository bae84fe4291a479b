//! The short half of HPACK's Huffman code (RFC 7541, appendix B): every character that an authority may hold.
//!
//! Symbols of more than 15 bits are a backslash, control characters and bytes above ASCII. None of them stands in an
//! authority, so a string with one is nothing to us.

/// A length in bits, the first code of that length, and the symbols that have it: codes count up from the first.
type Row = (u32, u32, &'static [u8]);

const ROWS: [Row; 10] = [
    (5, 0x0, b"012aceiost"),
    (6, 0x14, b" %-./3456789=A_bdfghlmnpru"),
    (7, 0x5c, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, 0xf8, b"&*,;XZ"),
    (10, 0x3f8, b"!\"()?"),
    (11, 0x7fa, b"'+|"),
    (12, 0xffa, b"#>"),
    (13, 0x1ff8, b"\0$@[]~"),
    (14, 0x3ffc, b"^}"),
    (15, 0x7ffc, b"<`{"),
];

/// Bits of the longest code above.
const BITS_MAX: u32 = 15;

/// The characters of `coded`; `None` if it holds others than those above or is badly padded.
pub fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(coded.len() * 8 / 5);
    let (mut code, mut bits) = (0, 0);
    let every_bit = coded.iter().flat_map(|byte| (0..8).rev().map(move |shift| u32::from(byte >> shift & 1)));
    for bit in every_bit {
        (code, bits) = (code << 1 | bit, bits + 1);
        if let Some(byte) = symbol(code, bits) {
            text.push(byte);
            (code, bits) = (0, 0);
        } else if bits == BITS_MAX {
            return None;
        }
    }
    let is_padding = bits < 8 && code + 1 == 1 << bits;
    is_padding.then_some(text)
}

/// Puts the code of `byte` at `bit`; a `byte` without a code of at most 15 bits changes nothing.
fn replace(coded: &mut [u8], bit: usize, byte: u8) {
    let Some((code, bits)) = code(byte) else { return };
    for (at, shift) in (bit..).zip((0..bits).rev()) {
        let mask = 0x80 >> (at % 8);
        match code >> shift & 1 {
            0 => coded[at / 8] &= !mask,
            _ => coded[at / 8] |= mask,
        }
    }
}

fn symbol(code: u32, bits: u32) -> Option<u8> {
    let (_, first, symbols) = ROWS.iter().find(|(length, ..)| *length == bits)?;
    symbols.get(code.checked_sub(*first)? as usize).copied()
}

/// Code and length in bits.
fn code(byte: u8) -> Option<(u32, u32)> {
    ROWS.iter().find_map(|(bits, first, symbols)| {
        let nth = symbols.iter().position(|symbol| *symbol == byte)?;
        Some((first + nth as u32, *bits))
    })
}

/// Characters that may stand anywhere in an authority, by the length of their code in bits.
const HARMLESS: [(u32, u8); 7] = [(5, b'a'), (6, b'b'), (7, b'j'), (8, b'X'), (10, b'!'), (11, b'+'), (13, b'~')];

/// As many harmless characters as `text` has, with as many bits in all; `None` if there are none.
///
/// Some lengths have no harmless character, so a character of such a length shares its bits with another one: `#` (12)
/// and `i` (5) have room for `j` (7) and `!` (10).
pub fn harmless(text: &[u8]) -> Option<Vec<u8>> {
    // The search below is quadratic, and no name of a host is longer.
    if text.len() > AUTHORITY_BYTES_MAX {
        return None;
    }
    let mut lengths: Vec<u32> = text.iter().map(|byte| length(*byte)).collect::<Option<_>>()?;
    for at in 0..lengths.len() {
        if of_length(lengths[at]).is_some() {
            continue;
        }
        let shared = |other: &usize| {
            let sum = lengths[at] + lengths[*other];
            let halves = HARMLESS.iter().map(|(bits, _)| (*bits, sum.saturating_sub(*bits)));
            halves.filter(|(_, rest)| of_length(*rest).is_some()).map(|(bits, rest)| (*other, bits, rest)).next()
        };
        let (other, mine, its) = (0..lengths.len()).filter(|other| *other != at).find_map(|other| shared(&other))?;
        (lengths[at], lengths[other]) = (mine, its);
    }
    lengths.into_iter().map(of_length).collect()
}

/// Longest authority that is mended, in bytes.
const AUTHORITY_BYTES_MAX: usize = 1024;

fn of_length(bits: u32) -> Option<u8> {
    HARMLESS.iter().find_map(|(known, byte)| (*known == bits).then_some(*byte))
}

/// Puts the codes of `text` in place of as many bits of `coded`, from its first on.
pub fn replace_all(coded: &mut [u8], text: &[u8]) {
    let mut bit = 0;
    for byte in text {
        replace(coded, bit, *byte);
        bit += length(*byte).map_or(0, |bits| bits as usize);
    }
}

/// Bits of a character's code.
pub fn length(byte: u8) -> Option<u32> {
    code(byte).map(|(_, bits)| bits)
}

/// What a client sends for `text`.
#[cfg(test)]
pub fn encode(text: &str) -> Vec<u8> {
    let bits: usize = text.bytes().map(|byte| length(byte).unwrap() as usize).sum();
    // Padding is ones.
    let mut coded = vec![0xff; bits.div_ceil(8)];
    replace_all(&mut coded, text.as_bytes());
    coded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(coded: &[u8]) -> Option<String> {
        Some(decode(coded)?.into_iter().map(char::from).collect())
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7541, appendices C.4 and C.6.
        let examples: [(&str, &[u8]); 4] = [
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("302", &[0x64, 0x02]),
            (
                "https://www.example.com",
                &[0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3],
            ),
        ];
        for (plain, coded) in examples {
            assert_eq!(text(coded).as_deref(), Some(plain));
            assert_eq!(encode(plain), coded);
        }
    }

    #[test]
    fn codes_count_up_without_gaps() {
        let mut next = (0, 0);
        for (bits, first, symbols) in ROWS {
            assert_eq!(first, next.0 << (bits - next.1), "codes of {bits} bits");
            assert!(symbols.is_sorted());
            next = (first + symbols.len() as u32, bits);
        }
        assert_eq!(next, (0x7fff, BITS_MAX), "what is left begins the long codes");
        let missing: Vec<u8> = (b' '..0x7f).filter(|byte| code(*byte).is_none()).collect();
        assert_eq!(missing, b"\\");
    }

    #[test]
    fn long_codes_and_bad_padding_are_refused() {
        assert_eq!(text(&[]).as_deref(), Some(""));
        assert_eq!(text(&[0xff, 0xff, 0xff]), None, "a long code");
        assert_eq!(text(&[0x07]).as_deref(), Some("0"));
        assert_eq!(text(&[0x06]), None, "padding is ones");
        assert_eq!(text(&[0x07, 0xff]), None, "a whole byte of padding");
    }
}
