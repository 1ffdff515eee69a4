//! The SHA-256 at the end of a snapshot: of a file, or of a stream while it comes in.
//!
//! A snapshot is the database and then 32 bytes of digest over it. Pages are multiples of 512
//! bytes, so a length of 32 modulo 512 tells that a digest is there (etcd
//! `etcdutl/snapshot/v3_snapshot.go`, hasChecksum).

use sha2::{Digest, Sha256};
use std::fmt;

/// Bytes of the digest.
pub const DIGEST_BYTES: usize = 32;
/// What a database's length is a multiple of.
const SECTOR: u64 = 512;

/// A file of that length ends with a digest.
#[must_use]
pub fn has_digest(file_length: u64) -> bool {
    file_length % SECTOR == DIGEST_BYTES as u64
}

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Digest(pub [u8; DIGEST_BYTES]);

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a snapshot's digest is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestFault {
    /// The length is not that of a database and a digest: cut short, or something else.
    #[error("{length} bytes are not a database and its 32-byte SHA-256: the end is missing")]
    Length {
        /// Bytes in all.
        length: u64,
    },
    /// The bytes are not those that were digested.
    #[error("the SHA-256 at the end is {stored}, the bytes before it give {computed}")]
    Mismatch {
        /// What stands at the end.
        stored: Sha256Digest,
        /// What the bytes give.
        computed: Sha256Digest,
    },
}

/// Digests a snapshot as its bytes come, in whatever parts; the last 32 are the digest.
#[derive(Clone)]
pub struct SnapshotDigest {
    sha: Sha256,
    /// The last bytes so far, which may be the digest.
    tail: Vec<u8>,
    length: u64,
}

impl fmt::Debug for SnapshotDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotDigest").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Default for SnapshotDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl SnapshotDigest {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self { sha: Sha256::new(), tail: Vec::with_capacity(2 * DIGEST_BYTES), length: 0 }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        match bytes.split_last_chunk::<DIGEST_BYTES>() {
            Some((before, last)) => {
                self.sha.update(&self.tail);
                self.sha.update(before);
                self.tail.clear();
                self.tail.extend_from_slice(last);
            }
            None => {
                self.tail.extend_from_slice(bytes);
                let excess = self.tail.len().saturating_sub(DIGEST_BYTES);
                self.sha.update(self.tail.drain(..excess).as_slice());
            }
        }
    }

    /// Bytes so far, the digest among them.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest of all bytes so far, as it stands at the end of a snapshot of them.
    #[must_use]
    pub fn of_all(mut self) -> Sha256Digest {
        self.sha.update(&self.tail);
        Sha256Digest(self.sha.finalize().into())
    }

    /// The digest, if it is good.
    ///
    /// # Errors
    /// [`DigestFault`].
    pub fn finish(self) -> Result<Sha256Digest, DigestFault> {
        let stored = self.tail.try_into().ok().filter(|_| has_digest(self.length));
        let stored = Sha256Digest(stored.ok_or(DigestFault::Length { length: self.length })?);
        let computed = Sha256Digest(self.sha.finalize().into());
        if stored == computed {
            Ok(stored)
        } else {
            Err(DigestFault::Mismatch { stored, computed })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot(sectors: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..sectors * 512).map(|n| (n % 251) as u8).collect();
        bytes.extend(Sha256::digest(&bytes));
        bytes
    }

    fn digest(bytes: &[u8], part: usize) -> Result<Sha256Digest, DigestFault> {
        let mut digest = SnapshotDigest::new();
        bytes.chunks(part.max(1)).for_each(|part| digest.update(part));
        digest.finish()
    }

    proptest! {
        #[test]
        fn is_good_in_whatever_parts_it_comes(sectors in 0_usize..5, part in 1_usize..600) {
            prop_assert!(digest(&snapshot(sectors), part).is_ok());
        }

        #[test]
        fn any_changed_bit_is_found(sectors in 0_usize..5, bit: usize, part in 1_usize..600) {
            let mut bytes = snapshot(sectors);
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let fault = digest(&bytes, part).unwrap_err();
            let is_mismatch = matches!(fault, DigestFault::Mismatch { .. });
            prop_assert!(is_mismatch);
        }
    }

    #[test]
    fn with_the_digest_of_all_it_is_a_snapshot() {
        for sectors in [0, 1, 3] {
            let whole = snapshot(sectors);
            let mut digest = SnapshotDigest::new();
            whole[..sectors * 512].chunks(100).for_each(|part| digest.update(part));
            assert_eq!(digest.of_all().0, whole[sectors * 512..]);
        }
    }

    #[test]
    fn cut_anywhere_it_is_not_good() {
        let bytes = snapshot(3);
        for len in 0..bytes.len() {
            assert!(digest(&bytes[..len], 100).is_err(), "cut to {len}");
        }
        assert_eq!(digest(&bytes[..512], 7), Err(DigestFault::Length { length: 512 }));
    }
}
