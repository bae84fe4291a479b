//! CRC-32C of records, which is the greater part of what reading one costs once it has come from memory.
//!
//! The processor's instruction waits three cycles for the one before it and can be begun in each. The crate `crc32c`
//! keeps three of them under way in pieces of 768 bytes and takes what is left one after the other; a record is mostly
//! what is left. Here three streams go through whatever length there is, and are brought together by multiplying:
//!
//! ```text
//!   a a a a │ b b b b │ c c c c │ tail        crc(a b c) = crc(a) x^(8 (len b + len c)) + crc(b) x^(8 len c) + crc(c)
//! ```
//! Source of the method: V. Gopal et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction" (Intel, 2011).

/// The checksum of bytes whose checksum is `crc` so far, and `bytes` after them.
#[must_use]
#[inline]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("pclmulqdq") {
        return streams::append(crc, bytes);
    }
    crc32c::crc32c_append(crc, bytes)
}

/// The checksum of `bytes`.
#[must_use]
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_append(0, bytes)
}

#[cfg(target_arch = "x86_64")]
mod streams {
    use std::arch::x86_64::{
        _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64, _mm_cvtsi32_si128, _mm_cvtsi128_si64,
        _mm_xor_si128,
    };

    /// Words of a stream, at least: with fewer the three are not worth bringing together.
    const WORDS_MIN: usize = 6;
    /// And at most, at a time.
    const WORDS_MAX: usize = 192;

    /// Castagnoli's polynomial, lowest power first, without its highest.
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    /// What a checksum is multiplied by when so many words follow what it is of: a power of x, less the 33 that the
    /// multiplication and the instruction that takes the remainder add.
    static POWERS: [u32; 2 * WORDS_MAX + 1] = powers();

    const fn powers() -> [u32; 2 * WORDS_MAX + 1] {
        let mut powers = [0; 2 * WORDS_MAX + 1];
        // x^0 is the highest bit.
        let (mut power, mut at, mut words) = (1 << 31, 0, 1);
        while words < powers.len() {
            while at < 64 * words - 33 {
                power = (power >> 1) ^ if power & 1 == 1 { POLYNOMIAL } else { 0 };
                at += 1;
            }
            powers[words] = power;
            words += 1;
        }
        powers
    }

    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    #[inline]
    pub fn append(crc: u32, bytes: &[u8]) -> u32 {
        // SAFETY: the only caller has asked the processor for both.
        unsafe { append_by_streams(crc, bytes) }
    }

    #[target_feature(enable = "sse4.2,pclmulqdq")]
    fn append_by_streams(crc: u32, bytes: &[u8]) -> u32 {
        let mut crc = u64::from(!crc);
        let mut rest = bytes;
        while rest.len() >= 3 * 8 * WORDS_MIN {
            let words = (rest.len() / 24).min(WORDS_MAX);
            let (first, after) = rest.split_at(8 * words);
            let (second, after) = after.split_at(8 * words);
            let (third, after) = after.split_at(8 * words);
            let (mut a, mut b, mut c) = (crc, 0, 0);
            for ((one, two), three) in chunks(first).zip(chunks(second)).zip(chunks(third)) {
                a = _mm_crc32_u64(a, u64::from_le_bytes(*one));
                b = _mm_crc32_u64(b, u64::from_le_bytes(*two));
                c = _mm_crc32_u64(c, u64::from_le_bytes(*three));
            }
            let moved = _mm_xor_si128(times(a, POWERS[2 * words]), times(b, POWERS[words]));
            crc = _mm_crc32_u64(0, _mm_cvtsi128_si64(moved) as u64) ^ c;
            rest = after;
        }
        let (words, mut tail) = rest.as_chunks();
        for word in words {
            crc = _mm_crc32_u64(crc, u64::from_le_bytes(*word));
        }
        let mut crc = crc as u32;
        if let Some((half, after)) = tail.split_first_chunk() {
            crc = _mm_crc32_u32(crc, u32::from_le_bytes(*half));
            tail = after;
        }
        for byte in tail {
            crc = _mm_crc32_u8(crc, *byte);
        }
        !crc
    }

    fn chunks(bytes: &[u8]) -> std::slice::Iter<'_, [u8; 8]> {
        bytes.as_chunks().0.iter()
    }

    /// Without carries: sixty-three bits.
    #[target_feature(enable = "pclmulqdq")]
    fn times(crc: u64, power: u32) -> std::arch::x86_64::__m128i {
        _mm_clmulepi64_si128::<0>(_mm_cvtsi32_si128(crc as i32), _mm_cvtsi32_si128(power as i32))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    use super::*;

    #[test]
    fn every_length_at_every_place_has_the_crates_checksum() {
        let mut bytes = [0; 10_000];
        SmallRng::seed_from_u64(1).fill(&mut bytes[..]);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of the catalogue of CRCs");
        for len in (0..2000).chain([4607, 4608, 4609, 9000, 9216, 9999]) {
            let start = (len * 7) % (bytes.len() - len + 1).min(16);
            let part = &bytes[start..start + len];
            assert_eq!(crc32c(part), ::crc32c::crc32c(part), "{len} bytes from {start}");
            let cut = len / 3;
            assert_eq!(crc32c_append(crc32c(&part[..cut]), &part[cut..]), crc32c(part), "{len} bytes cut at {cut}");
        }
    }
}
