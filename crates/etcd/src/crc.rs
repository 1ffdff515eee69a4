//! CRC-32C as Go's `hash/crc32` with the Castagnoli table computes it: of HashKV, WAL and `.snap`.

use crc_fast::{CrcAlgorithm, Digest, checksum_combine};

/// A running CRC-32C.
#[derive(Clone, Debug)]
pub(crate) struct Crc32c(Digest);

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

impl Crc32c {
    pub(crate) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Goes on from an earlier value, as each file of a WAL does.
    pub(crate) fn resume(value: u32) -> Self {
        Self(Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!value)))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Goes on as if it had been updated with `length` bytes whose own CRC is `value`.
    pub(crate) fn append(&mut self, value: u32, length: u64) {
        let before = u64::from(self.value());
        let both = checksum_combine(CrcAlgorithm::Crc32Iscsi, before, u64::from(value), length);
        *self = Self::resume(u32::try_from(both).unwrap_or_default());
    }

    pub(crate) fn value(&self) -> u32 {
        // The upper half of a 32-bit CRC is empty.
        u32::try_from(self.0.finalize()).unwrap_or_default()
    }
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
    fn parts_are_put_together() {
        let mut crc = Crc32c::new();
        crc.update(b"12345");
        let mut rest = Crc32c::new();
        rest.update(b"678");
        crc.append(rest.value(), 3);
        crc.append(Crc32c::new().value(), 0);
        crc.update(b"9");
        assert_eq!(crc.value(), 0xe306_9283);
    }
}
