//! Which key was seen last where, in as little memory as a proof needs.
//!
//! An entry is 16 bytes: 88 bits of the key's SHA-256 and a 40-bit ordinal. Tables grow by a
//! quarter, 256 of them each on its own, and are filled to nine tenths, so that a key costs at most
//! some 22 bytes, also while a table grows. Two of 10^8 keys share their 88 bits with a probability
//! of some 10^-11.
//!
//! Entries of a table are kept in the order of their digests (linear probing, ordered), so a search
//! ends early even in a full table.

use sha2::{Digest, Sha256};

const SHARDS: usize = 256;
const ORDINAL_BITS: u32 = 40;
const ORDINAL_MAX: u64 = (1 << ORDINAL_BITS) - 1;
/// Spare places at the end of a table, into which its last entries may be pushed.
const SPILL: usize = 64;
const FIRST_CAPACITY: usize = 16;

/// A map from keys to ordinals. It remembers digests only, so keys cannot be had back.
#[derive(Debug)]
pub(crate) struct KeyTable {
    shards: Vec<Shard>,
}

/// More than 2^40 records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl KeyTable {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }

    /// Remembers `ordinal` for `key` in place of an earlier one; true where there was none.
    pub(crate) fn insert(&mut self, key: &[u8], ordinal: u64) -> Result<bool, TooMany> {
        if ordinal > ORDINAL_MAX {
            return Err(TooMany);
        }
        let (shard, tag) = place(key);
        let shard = self.shards.get_mut(shard);
        Ok(shard.is_some_and(|shard| shard.insert(tag | u128::from(ordinal))))
    }

    /// Forgets `key`; true where it was remembered.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let (shard, tag) = place(key);
        self.shards.get_mut(shard).is_some_and(|shard| shard.remove(tag))
    }

    /// Keys remembered.
    pub(crate) fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.len as u64).sum()
    }

    /// The ordinals of all keys, in no order.
    pub(crate) fn ordinals(&self) -> impl Iterator<Item = u64> {
        let entries = self.shards.iter().flat_map(|shard| &shard.entries);
        entries
            .filter(|entry| **entry != 0)
            .map(|entry| u64::try_from(entry & u128::from(ORDINAL_MAX)).unwrap_or_default())
    }
}

/// The shard and the tag (the digest's bits, never 0, above an empty ordinal) of a key.
fn place(key: &[u8]) -> (usize, u128) {
    let digest = Sha256::digest(key);
    let (shard, rest) = digest.split_first().unwrap_or((&0, &[]));
    let bits = rest.first_chunk().map_or(0, |chunk| u128::from_be_bytes(*chunk));
    let tag = (bits >> ORDINAL_BITS).max(1) << ORDINAL_BITS;
    (usize::from(*shard), tag)
}

/// One table: entries in the order of their tags, 0 where there is none.
#[derive(Debug, Default)]
struct Shard {
    entries: Vec<u128>,
    len: usize,
}

impl Shard {
    /// Places that are aimed at; behind them lies the spill.
    fn capacity(&self) -> usize {
        self.entries.len().saturating_sub(SPILL)
    }

    /// Where an entry would lie if nothing were in its way. Ascends with the tag.
    fn home(&self, entry: u128) -> usize {
        let high = entry >> 64;
        usize::try_from((high * self.capacity() as u128) >> 64).unwrap_or_default()
    }

    /// The place of the tag, or the one before which it belongs.
    fn seek(&self, tag: u128) -> usize {
        let mut at = self.home(tag);
        while self.entries.get(at).is_some_and(|entry| *entry != 0 && tag_of(*entry) < tag) {
            at += 1;
        }
        at
    }

    fn insert(&mut self, entry: u128) -> bool {
        if self.len * 10 >= self.capacity() * 9 {
            self.grow();
        }
        loop {
            let at = self.seek(tag_of(entry));
            let known = self.entries.get(at).is_some_and(|found| tag_of(*found) == tag_of(entry));
            if !known && !self.make_room(at) {
                self.grow();
                continue;
            }
            if let Some(place) = self.entries.get_mut(at) {
                *place = entry;
            }
            self.len += usize::from(!known);
            return !known;
        }
    }

    /// Pushes what lies at `at` and behind it one place on; false where the spill is full.
    fn make_room(&mut self, at: usize) -> bool {
        let Some(tail) = self.entries.get_mut(at..) else {
            return false;
        };
        let Some(gap) = tail.iter().position(|entry| *entry == 0) else {
            return false;
        };
        tail.copy_within(..gap, 1);
        true
    }

    fn remove(&mut self, tag: u128) -> bool {
        let at = self.seek(tag);
        if self.entries.get(at).is_none_or(|entry| tag_of(*entry) != tag) {
            return false;
        }
        // What was pushed on from its home comes one place back.
        let mut gap = at;
        while let Some(next) = self.entries.get(gap + 1).copied() {
            if next == 0 || self.home(next) > gap {
                break;
            }
            self.entries.swap(gap, gap + 1);
            gap += 1;
        }
        if let Some(entry) = self.entries.get_mut(gap) {
            *entry = 0;
        }
        self.len -= 1;
        true
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.entries);
        let mut capacity = old.len().saturating_sub(SPILL).max(FIRST_CAPACITY);
        loop {
            capacity += capacity / 4;
            self.entries = vec![0; capacity + SPILL];
            if self.lay_out(&old) {
                return;
            }
        }
    }

    /// Puts entries into the empty table in their order, each at its home or right behind the one
    /// before; false where the spill does not hold the last ones.
    fn lay_out(&mut self, entries: &[u128]) -> bool {
        let mut next = 0;
        for entry in entries.iter().filter(|entry| **entry != 0) {
            let at = self.home(*entry).max(next);
            let Some(place) = self.entries.get_mut(at) else {
                return false;
            };
            *place = *entry;
            next = at + 1;
        }
        true
    }
}

fn tag_of(entry: u128) -> u128 {
    entry >> ORDINAL_BITS << ORDINAL_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn is_a_map(ops in proptest::collection::vec((0_u16..300, any::<bool>()), 0..4000)) {
            let mut table = KeyTable::new();
            let mut model = HashMap::new();
            for (ordinal, (key, put)) in ops.into_iter().enumerate() {
                let ordinal = ordinal as u64;
                if put {
                    let new = table.insert(&key.to_be_bytes(), ordinal).unwrap();
                    prop_assert_eq!(new, model.insert(key, ordinal).is_none());
                } else {
                    let there = table.remove(&key.to_be_bytes());
                    prop_assert_eq!(there, model.remove(&key).is_some());
                }
                prop_assert_eq!(table.len(), model.len() as u64);
            }
            let mut got: Vec<_> = table.ordinals().collect();
            let mut want: Vec<_> = model.into_values().collect();
            got.sort_unstable();
            want.sort_unstable();
            prop_assert_eq!(got, want);
        }
    }

    /// One shard alone, so that its tables grow often and run full.
    #[test]
    fn keys_stay_findable_while_a_shard_grows() {
        let mut shard = Shard::default();
        let mut tags: Vec<u128> = Vec::new();
        for n in 0..20_000_u64 {
            let (_, tag) = place(&n.to_be_bytes());
            shard.insert(tag | u128::from(n));
            tags.push(tag);
            if n % 3 == 0 {
                let gone = tags.swap_remove(tags.len() / 2);
                shard.remove(gone);
            }
            assert_eq!(shard.len, tags.len());
        }
        for tag in &tags {
            assert_eq!(tag_of(shard.entries[shard.seek(*tag)]), *tag);
        }
        let sorted: Vec<_> = shard.entries.iter().filter(|entry| **entry != 0).collect();
        assert!(sorted.is_sorted());
    }

    #[test]
    fn a_key_costs_less_than_24_bytes() {
        let mut table = KeyTable::new();
        for n in 0..1_000_000_u64 {
            table.insert(&n.to_be_bytes(), n).unwrap();
            if n > 200_000 && n % 10_000 == 0 {
                let bytes: usize = table.shards.iter().map(|s| s.entries.capacity() * 16).sum();
                assert!(bytes as u64 <= table.len() * 24, "{bytes} bytes for {} keys", table.len());
            }
        }
    }

    #[test]
    fn an_ordinal_too_large_is_refused() {
        let mut table = KeyTable::new();
        assert_eq!(table.insert(b"k", 1 << 40), Err(TooMany));
        assert_eq!(table.insert(b"k", (1 << 40) - 1), Ok(true));
    }
}
