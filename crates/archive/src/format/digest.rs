//! The digests of the format: BLAKE3 in its mode for deriving keys, so that no two sorts of bytes can
//! have the same one.

/// Bytes of a digest.
pub const DIGEST: usize = 32;

/// What is digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The facts of a header.
    Facts,
    /// A header up to its digest.
    Header,
    /// A body, as stored.
    Body,
    /// A block, as stored.
    Block,
    /// The index of a run.
    Index,
    /// What a timeline's id follows from.
    Timeline,
    /// A generation of an archive's keys.
    Fingerprint,
    /// A sealed key, whole.
    KeyObject,
    /// A secret key, from which follows the one that endorses the next generation.
    Endorser,
}

impl Domain {
    /// The context string.
    #[must_use]
    pub const fn context(self) -> &'static str {
        match self {
            Self::Facts => "rekindle 2026 facts",
            Self::Header => "rekindle 2026 header",
            Self::Body => "rekindle 2026 body",
            Self::Block => "rekindle 2026 block",
            Self::Index => "rekindle 2026 index",
            Self::Timeline => "rekindle 2026 timeline",
            Self::Fingerprint => "rekindle 2026 fingerprint",
            Self::KeyObject => "rekindle 2026 key object",
            Self::Endorser => "rekindle 2026 endorser",
        }
    }

    /// The digest of these parts, one behind the other.
    #[must_use]
    pub fn digest(self, parts: &[&[u8]]) -> [u8; DIGEST] {
        let mut hash = blake3::Hasher::new_derive_key(self.context());
        for part in parts {
            hash.update(part);
        }
        *hash.finalize().as_bytes()
    }
}
