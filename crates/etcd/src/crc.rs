//! CRC-32C as Go's `hash/crc32` with the Castagnoli table computes it: of HashKV, WAL and `.snap`.

use crc_fast::{CrcAlgorithm, Digest};

/// A running CRC-32C.
#[derive(Clone, Debug)]
pub struct Crc32c(Digest);

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

impl Crc32c {
    /// Of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Goes on from an earlier value, as each file of a WAL does.
    pub(crate) fn resume(value: u32) -> Self {
        Self(Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!value)))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC of all that was added.
    #[must_use]
    pub fn value(&self) -> u32 {
        // The upper half of a 32-bit CRC is empty.
        u32::try_from(self.0.finalize()).unwrap_or_default()
    }
}

/// The CRC of `other` and behind it so many bytes that stand behind a first part: from that of `other`,
/// of the first part, and of the first part with those bytes.
pub(crate) fn graft(other: u32, first: u32, both: u32, bytes: u64) -> u32 {
    shift(other ^ first, bytes) ^ both
}

/// What a CRC becomes behind so many zero bytes, but for what these alone would make: it is a
/// polynomial modulo the CRC's own, here multiplied by x to the power of 8 x `bytes` (after Mark
/// Adler's `crc32_combine` in zlib).
fn shift(crc: u32, bytes: u64) -> u32 {
    let mut shifted = crc;
    let mut rest = bytes;
    for power in &POWERS {
        if rest == 0 {
            break;
        }
        if rest & 1 == 1 {
            shifted = multiply(*power, shifted);
        }
        rest >>= 1;
    }
    shifted
}

/// The polynomial of CRC-32C, the lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x to the power of 8 times 1, 2, 4, 8 and so on.
const POWERS: [u32; 64] = powers();

const fn powers() -> [u32; 64] {
    // x to the 8th.
    let mut power = 1 << 23;
    let mut powers = [0; 64];
    let mut rest: &mut [u32] = &mut powers;
    while let Some((first, behind)) = rest.split_first_mut() {
        *first = power;
        power = multiply(power, power);
        rest = behind;
    }
    powers
}

/// The product of two polynomials modulo that of the CRC.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let (mut product, mut rest) = (0, a);
    while rest != 0 {
        if rest >> 31 == 1 {
            product ^= b;
        }
        rest <<= 1;
        b = b >> 1 ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc_32c() {
        // RFC 3720, B.4, and the catalogue's check value of "123456789".
        let of = |bytes: &[u8]| {
            let mut crc = Crc32c::new();
            crc.update(bytes);
            crc.value()
        };
        assert_eq!(of(b"123456789"), 0xe306_9283);
        assert_eq!(of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(of(b""), 0);
    }

    #[test]
    fn goes_on_where_it_was_left() {
        let mut crc = Crc32c::new();
        crc.update(b"12345");
        let mut crc = Crc32c::resume(crc.value());
        crc.update(b"6789");
        assert_eq!(crc.value(), 0xe306_9283);
    }

    #[test]
    fn what_stands_behind_one_part_is_put_behind_another() {
        let bytes: Vec<u8> = (0..3000_u32).map(|n| (n * n / 7) as u8).collect();
        let of = |bytes: &[u8]| {
            let mut crc = Crc32c::new();
            crc.update(bytes);
            crc.value()
        };
        for at in [0, 1, 2, 63, 64, 100, 1023, 1024, 2999, 3000] {
            let (first, behind) = bytes.split_at(at);
            for other in ["", "x", "something else"] {
                let got = graft(of(other.as_bytes()), of(first), of(&bytes), behind.len() as u64);
                assert_eq!(got, of(&[other.as_bytes(), behind].concat()), "{at}, {other}");
            }
        }
        // As far as no test goes byte by byte: twice half the way is the whole way.
        let half = shift(0x1234_5678, 1 << 40);
        assert_eq!(shift(half, 1 << 40), shift(0x1234_5678, 1 << 41));
    }
}
