//! Which blocks may hold a key: a Bloom filter a block.
//!
//! Of a key's BLAKE3 the first 8 bytes are *a* and the next 8 are *b*; the key sets bits
//! `(a + i * b) mod m` for i from 0 to 6, in arithmetic of 64 bits, where m is the number of bits:
//! ten a key, in whole bytes, and 64 at the least. Of the keys that a block does not hold, one in a
//! hundred seems to be there.

/// Bits that a key sets.
const BITS: u64 = 7;
/// Bits of the filter for each key.
const BITS_A_KEY: usize = 10;
/// Fewest bytes of a filter.
const LEN_MIN: usize = 8;

/// What a filter knows a key by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash {
    a: u64,
    b: u64,
}

impl KeyHash {
    /// Of a key of the keyspace.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let digest = blake3::hash(key);
        let (numbers, _) = digest.as_bytes().as_chunks::<8>();
        let mut numbers = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let mut next = || numbers.next().unwrap_or_default();
        Self { a: next(), b: next() }
    }

    /// As 16 bytes: the first of the key's BLAKE3.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.a) | u128::from(self.b) << 64).to_le_bytes()
    }

    /// From its 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let (a, b) = bytes.split_at(8);
        let number = |half: &[u8]| half.first_chunk().map_or(0, |half| u64::from_le_bytes(*half));
        Self { a: number(a), b: number(b) }
    }

    /// Places of its bits in a filter of so many bytes: byte and mask.
    fn places(self, len: usize) -> impl Iterator<Item = (usize, u8)> {
        let bits = (len as u64).saturating_mul(8).max(1);
        (0..BITS).map(move |i| {
            let bit = self.a.wrapping_add(i.wrapping_mul(self.b)) % bits;
            (usize::try_from(bit / 8).unwrap_or(usize::MAX), 1 << (bit % 8))
        })
    }
}

/// The filter of a block that holds these keys.
#[must_use]
pub fn build(mut keys: Vec<KeyHash>) -> Vec<u8> {
    keys.sort_unstable();
    keys.dedup();
    let mut filter = vec![0; (keys.len() * BITS_A_KEY).div_ceil(8).max(LEN_MIN)];
    for key in keys {
        for (byte, mask) in key.places(filter.len()) {
            if let Some(byte) = filter.get_mut(byte) {
                *byte |= mask;
            }
        }
    }
    filter
}

/// Whether the block may hold the key; never false where it does.
#[must_use]
pub fn may_hold(filter: &[u8], key: KeyHash) -> bool {
    let mut places = key.places(filter.len());
    places.all(|(byte, mask)| filter.get(byte).is_none_or(|byte| byte & mask != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        for count in [0_u32, 1, 7, 1000] {
            let keys: Vec<_> = (0..count).map(|n| KeyHash::of(&n.to_le_bytes())).collect();
            let filter = build([&keys[..], &keys[..]].concat());
            assert_eq!(filter.len(), (count as usize * 10).div_ceil(8).max(8), "each key once");
            assert!(keys.iter().all(|key| may_hold(&filter, *key)));
            let others = (count..count + 10_000).map(|n| KeyHash::of(&n.to_le_bytes()));
            let wrong = others.filter(|key| may_hold(&filter, *key)).count();
            assert!(wrong < 200, "{wrong} of 10,000 with {count} keys");
        }
        assert!(may_hold(&[], KeyHash::of(b"x")), "no filter excludes nothing");
    }
}
